"""The derivative of a validation score in λ, through the whole run or at its optimum."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from rnnreg._checks import check_choice, check_count, check_number, is_count, warn_caller
from rnnreg._linalg import marked
from rnnreg._signatures import Number, typed
from rnnreg.data import Split, as_split, scale_batch
from rnnreg.runtime import Kept, may_compile, weakly
from rnnreg.selection._implicit import implicit_slopes
from rnnreg.selection._slopes import check_tunable, goes_forward, tuned_names, value_and_slopes
from rnnreg.training import (
    Settings,
    Train,
    as_hyper,
    averaged,
    check_reads,
    check_start,
    minibatches,
    monitored,
    train_on,
)

Params = dict[str, Any]
_PROGRAMS = Kept()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "value",
        "gradient",
        "params",
        "residual",
        "curvature",
        "gradient_norm",
        "drift",
    ],
    meta_fields=["mode"],
)
@dataclasses.dataclass(frozen=True)
class Hypergradient:
    """A validation score at the end of a run, and its derivative in hyperparameters; a tree of arrays.

    Value and gradient are NaN if the run diverged. The last four fields belong to mode "implicit", and are None
    otherwise. There H is the Hessian of the training objective in the parameters, and b = ∂(score)/∂w.

    Attributes:
      value: the score, `val_loss` unless `make_train(monitor=…)` names another one.
      gradient: by name, d value / d log λ, or d value / dλ with `log=False`.
      params: the parameters that were scored.
      mode: "forward", "reverse" or "implicit".
      residual: ‖(H + δ I) x − b‖ / ‖b‖ of the system that was solved; well below 1 if it was.
      curvature: the smallest Ritz value of H, which is at least the smallest eigenvalue. Below 0 the end of the run is
        no minimum.
      gradient_norm: ‖∂(L + Σ λ_k R_k)/∂w‖ on all training rows; 0 at an optimum.
      drift: −xᵀ ∂(L + Σ λ_k R_k)/∂w, by how much the value would still change, to first order, if training went on to
        the stationary point nearby. It has the units of the value, and says whether `gradient_norm` is small.
    """

    value: Array
    gradient: dict[str, Array]
    params: Params
    mode: str
    residual: Array | None = None
    curvature: Array | None = None
    gradient_norm: Array | None = None
    drift: Array | None = None


class _Options(NamedTuple):
    """What picks the code of a derivative."""

    names: tuple[str, ...]
    mode: str
    last: int | None
    remat: str | int
    log: bool
    num_iterations: int | None


@typed
def hypergradient(
    train: Train,
    hyper: Mapping[str, Any],
    data: Split,
    *,
    key: Array,
    params: Params | None = None,
    names: str | Sequence[str] | None = None,
    mode: str = "auto",
    last: int | None = None,
    remat: str | int = "sqrt",
    log: bool = True,
    damping: Number = 0.0,
    num_iterations: int | None = None,
) -> Hypergradient:
    """dL_val(w_N(λ), λ) / d log λ: how the validation loss at the end of a run changes with each λ.

    It serves to choose several λ by their gradient where a grid would be too large. Give each part of the weights a
    penalty of its own, `{"l2_in": rr.penalties.l2("W_xh"), "l2_hh": rr.penalties.l2("W_hh")}`: one call has the
    derivative in all of them. Called with arrays it runs one compiled program, which is kept while `train` lives;
    inside `jax.jit`, `jax.vmap` and `rr.lanes.map_lanes` it is part of theirs.

    "forward" and "reverse" differentiate the run itself, all N updates w_{i+1} = U(w_i, λ), up to rounding:

        dw_{i+1}/dλ = ∂U/∂w · dw_i/dλ + ∂U/∂λ

    Forward mode carries one tangent for each name along with the run, and keeps nothing of past updates. Reverse mode
    goes back from the end, for all names at once, and needs the states of all updates; `remat` says how many of them
    are kept. "auto" is "forward" for up to 2 names and "reverse" for more. The reason is arithmetic, counted in updates
    (elman and gru, H = 16): one update with n names costs 1 + 1.9 n forwards, and 3.9 in reverse for any n (2.9 with
    `remat="full"`).

    With `last=K` only the last K updates are differentiated, and the state before them counts as constant. K = N is
    exact. A small K is cheap, but it sees short-term effects alone, and chooses learning rates that are too small
    (short-horizon bias, Wu et al. 2018). If the learning rate is so large that the run is chaotic, dw/dλ grows without
    bound: the derivative is right, and useless. Take a smaller rate or a small K.

    "implicit" trains, and takes the end w* for a stationary point of the training objective f = L + Σ λ_k R_k on all
    training rows. How the run came there does not matter:

        dL_val/dλ = ∂L_val/∂λ − xᵀ ∂²f/∂w∂λ,   (H + δ I) x = ∂L_val/∂w,   H = ∂²f/∂w²

    The system is solved by MINRES with Hessian–vector products (each costs about two gradients), because H of a trained
    network is often indefinite: conjugate gradients may then break down, and a Neumann series (as in Lorraine et al.
    2020) diverges. How to read it: the residual has to be small, the curvature above 0, and the drift small next to the
    value. A run that stopped early fails this, and its implicit derivative means nothing; a warning says so, unless the
    values are traced. What an optimiser adds by itself (decay, projections, frozen weights) is not in f.

    With proximal penalties, forward and reverse mode give the derivative at the zeros that the run has: they do not see
    a weight leave 0. "auto" goes forwards there, since reverse mode gives NaN if gradients are clipped. "implicit"
    refuses proximal penalties.

    Args:
      train: the run; without `keep_best` and `patience`.
      hyper: every number of the run, by name.
      data: the rows, with validation rows.
      key: root of all randomness: the same key is the same run.
      params: the parameters to start from, such as `params` of the result for a λ nearby; None draws them from the key.
      names: the hyperparameters to differentiate in: by default the λ of every penalty. Any positive number of `hyper`
        may be named, such as a learning rate (not for "implicit", where it moves no optimum).
      mode: "auto", "forward", "reverse" or "implicit".
      last: K, the updates (minibatches) at the end that are differentiated; None takes all.
      remat: for "reverse". "sqrt" keeps the states at the ends of about √N blocks of updates and runs each block again
        on the way back; an int k has blocks of k updates; "full" keeps what all updates need. For small networks 1 is
        the least: 100 updates of Adam on 32 rows of 25 steps (elman, H = 16) take 43 MB with "full", 4.9 with "sqrt",
        1.0 with 1, and 0.5 forwards.
      log: whether the derivative is in log λ. A λ of 0 has none: `log=False` takes d/dλ.
      damping: δ ≥ 0, for "implicit". Above −curvature the system is positive definite; the derivative is then biased.
      num_iterations: m, the Hessian–vector products of "implicit", whose vectors of the size of params are kept; None
        is 100, or as many as there are parameters if these are fewer.

    Returns:
      Value, gradient by name, and for "implicit" its diagnostics.

    Raises:
      ValueError: no validation rows, a run with `keep_best` or `patience`, a name that is not in `hyper` or has the
        value 0, `last` beyond the number of updates, options of another mode, or what `train` raises.

    Warns:
      RuntimeWarning: a residual above 0.001, a curvature (with damping) that is not above 0, a drift above 1 % of the
        value; or a derivative that is not finite though the value is.

    Sources: Franceschi et al. 2017, "Forward and reverse gradient-based hyperparameter optimization"; Maclaurin et al.
    2015, "Gradient-based hyperparameter optimization through reversible learning" (reverse mode through a whole run);
    Pedregosa 2016, "Hyperparameter optimization with approximate gradient" (implicit); Paige & Saunders 1975 (MINRES).

    >>> import optax, rnnreg as rr
    >>> batch = rr.Batch(np.linspace(-1, 1, 24).reshape(8, 3, 1), np.linspace(0, 1, 8)[:, None])
    >>> data = rr.Split(rr.data.take_rows(batch, np.arange(5)), validation=rr.data.take_rows(batch, np.arange(5, 8)))
    >>> train = rr.make_train(rr.network([rr.cells.elman(2)], 1, readout="last"), loss=rr.losses.squared_error(),
    ...     penalties={"in": rr.penalties.l2("W_xh"), "hh": rr.penalties.l2("W_hh")},
    ...     optimizer=optax.sgd(0.1), num_epochs=4)
    >>> found = hypergradient(train, {"in": 0.1, "hh": 0.1}, data, key=jax.random.key(0))
    >>> found.mode, sorted(found.gradient)
    ('forward', ['hh', 'in'])
    """
    hyper, data = as_hyper(hyper), as_split(data)
    names = tuned_names(train.settings, hyper, names, log=log)
    check_tunable(train.settings, data, "hypergradient")
    options = _Options(names, mode, last, remat, log, num_iterations)
    _check_options(train.settings, options, damping)
    if mode == "auto":
        mode = "forward" if goes_forward(train.settings, names) else "reverse"
    options = options._replace(mode=mode)
    arrays = (dict(hyper), data.replace(test={}, target_times=None), key, params, damping)
    if not may_compile(arrays):
        return _derivative(train, options, *arrays)
    check_start(train.settings, hyper, data, key=key, params=params)
    of = weakly(train)
    program = _PROGRAMS.get(
        train, options, lambda: jax.jit(lambda *given: _derivative(of(), options, *given))
    )
    found = program(*arrays)
    _warn(found, float(damping))
    return found


def _derivative(
    train: Train, options: _Options, hyper: Any, data: Split, key: Array, params: Any, damping: Any
) -> Hypergradient:
    """The derivative, as it is traced."""
    settings, hyper = train.settings, as_hyper(hyper)
    batch = scale_batch(data.train, data.scaling)

    def start(hyper):
        state = train.init(hyper, data, key=key, params=params)
        return state, minibatches(settings, state, batch, data.epoch_rows)

    state, rows = start(hyper)
    if options.last is not None:
        check_count(options.last, "last", most=len(rows), hint="It counts updates of this run.")
    before = 0 if options.last is None else len(rows) - options.last
    unrolled = options.mode != "implicit"
    if before or not unrolled:
        state = train_on(settings, state, hyper, batch, rows[:before] if unrolled else rows)
    found, forward = {}, options.mode == "forward"
    remat = "full" if forward else options.remat  # forward mode keeps nothing
    if unrolled:

        def end(hyper):
            # what a run starts from may depend on a hyperparameter too
            first, own = (state, rows[before:]) if before else start(hyper)
            last = train_on(settings, first, hyper, batch, own, remat=remat)
            value, params = monitored(settings, averaged(last), hyper, data)
            return value, (last.diverged_at, params)

        value, slopes, (diverged_at, params) = value_and_slopes(
            end, hyper, options.names, log=options.log, forward=forward
        )
    else:
        value, slopes, params, found = implicit_slopes(
            settings,
            state,
            hyper,
            data,
            options.names,
            log=options.log,
            damping=damping,
            num_iterations=options.num_iterations,
            key=jax.random.fold_in(state.key, 2),
        )
        diverged_at = state.diverged_at
    check_reads(hyper)
    lost = diverged_at >= 0
    gradient = {name: marked(lost, slope) for name, slope in slopes.items()}
    return Hypergradient(marked(lost, value), gradient, params, options.mode, **found)


def _check_options(settings: Settings, options: _Options, damping: Any) -> None:
    """Raises if an option is out of range, or belongs to another mode than the one that is asked for."""
    check_choice(options.mode, "mode", ("auto", "forward", "reverse", "implicit"))
    if options.last is not None:
        check_count(options.last, "last")
    if options.remat not in ("full", "sqrt") and not is_count(options.remat):
        raise ValueError(
            f"remat must be 'full', 'sqrt' or a positive number of updates a block; got {options.remat!r}."
        )
    check_number(damping, "damping", least=0)
    if options.num_iterations is not None:
        check_count(options.num_iterations, "num_iterations")
    if options.mode == "implicit":
        if options.last is not None:
            raise ValueError(
                "last counts the updates that are differentiated, and mode='implicit' differentiates none of them: "
                "leave it out, or take mode='forward'."
            )
        if settings.proximal:
            raise ValueError(
                "mode='implicit' needs an objective with a Hessian, and proximal penalties "
                f"({', '.join(settings.proximal)}) have none at their zeros: take mode='forward' or 'reverse'."
            )
    elif options.num_iterations is not None or not isinstance(damping, (int, float)) or damping:
        name = "damping" if options.num_iterations is None else "num_iterations"
        raise ValueError(f"{name} is of mode='implicit'; got mode={options.mode!r}.")


def _warn(found: Hypergradient, damping: float) -> None:
    """Warns if a derivative is not what it is taken for."""
    if not np.isfinite(found.value):
        return
    wrong = [name for name, slope in found.gradient.items() if not np.isfinite(slope)]
    if wrong:
        warn_caller(
            f"the derivative in {wrong[0]!r} is not finite, though the run is. Where a gradient is exactly 0, Adam and "
            "RMSprop take the root of 0, which has no derivative: optax.adam(rate, eps_root=1e-8) has one everywhere. "
            "Proximal runs with clipping have none in mode='reverse': take mode='forward'."
        )
        return
    if found.mode != "implicit":
        return
    fields = (found.residual, found.curvature, found.gradient_norm, found.drift)
    residual, curvature, norm, drift = (float(np.asarray(field)) for field in fields)
    if curvature + damping <= 0:
        warn_caller(
            f"the Hessian has a Ritz value of {curvature:.3g}, so the end of the run is no minimum, and the implicit "
            "derivative is that of a saddle, to which no training goes. Train longer, take mode='forward', or "
            f"damping above {-curvature:.3g}, which biases the derivative."
        )
    if residual > 1e-3:
        warn_caller(
            f"the linear system was solved to a relative residual of {residual:.3g} only: raise num_iterations, "
            "take damping > 0, or compute in float64."
        )
    if abs(drift) > 1e-2 * abs(float(found.value)):
        warn_caller(
            f"the run has not come to rest (gradient norm {norm:.3g}): on the way to the stationary point the value "
            f"{float(found.value):.3g} would change by about {drift:.3g}. Train longer, or take mode='forward', the "
            "derivative of the run as it is."
        )
