"""λ by gradient while a network trains."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_count, check_number, warn_caller
from rnnreg._signatures import typed
from rnnreg.data import Split, as_split, scale_batch
from rnnreg.runtime import Kept, may_compile, weakly
from rnnreg.selection._slopes import (
    as_number,
    check_tunable,
    goes_forward,
    tuned_names,
    value_and_slopes,
    with_values,
)
from rnnreg.training import (
    Run,
    Train,
    as_hyper,
    averaged,
    check_reads,
    check_start,
    minibatches,
    monitored,
    recorded,
    train_on,
)

if TYPE_CHECKING:
    import optax

Params = dict[str, Any]
_PROGRAMS = Kept()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["run", "hyper", "path", "gradient"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class OnlineTuning:
    """A run whose λ moved while it trained; a tree of arrays.

    Attributes:
      run: parameters, final scores, and the history with a record after each of R blocks (without `gradient_norm`).
      hyper: every number of the run at its end, by name, for `train(tuned.hyper, data, key=key)`.
      path: by name `[R]`, the λ of each block; the first is the one that was given.
      gradient: by name `[R]`, the derivative of the validation score in log λ after each block. Where it is not finite,
        or the run has diverged, λ stays.
    """

    run: Run
    hyper: dict[str, Array]
    path: dict[str, Array]
    gradient: dict[str, Array]


class _Options(NamedTuple):
    """What picks the code of a run with moving λ."""

    names: tuple[str, ...]
    every: int
    last: int
    bounds: tuple[float, float]
    optimizer: Any


@typed
def tune_online(
    train: Train,
    hyper: Mapping[str, Any],
    data: Split,
    *,
    key: Array,
    every: int,
    params: Params | None = None,
    names: str | Sequence[str] | None = None,
    last: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    bounds: tuple[float, float] = (1e-8, 1e4),
) -> OnlineTuning:
    """One run that moves λ after each block of updates, down the validation loss:

        w_{i+1} = U(w_i, λ_r)  for a block of `every` updates,   then   log λ_{r+1} = log λ_r − η · dL_val / d log λ

    The derivative is that through the last K = `last` updates of the block: the state before them counts as constant.
    With K = 1 and SGD it is −α λ ∂L_val/∂w · ∂R/∂w, as Luketina et al. 2016 alternate: λ grows if a step that shrinks
    the penalty lowers the validation loss too. (Baydin et al. 2018 do the same for the learning rate, on the training
    loss.) All λ move in one run, each by its own derivative, where a grid takes many runs.

    What it finds is not the minimiser of the validation loss at the end of training. A derivative of few updates sees
    what λ does at once, and not what it does to the optimum (short-horizon bias, Wu et al. 2018). Learning rates come
    out too small: to tune one, take a large K. λ falls while weights are small and grow, and rises when they overfit.
    So wait until the path levels off, look at it, and train again from the start with the λ at its end. The validation
    rows have chosen λ, and their loss is no estimate for new data.

    Called with arrays it runs one compiled program, which is kept while `train` lives, for the same `optimizer`;
    inside `jax.jit`, `jax.vmap` and `rr.lanes.map_lanes` it is part of theirs, and every lane has a λ of its own. The
    mode is the one that `hypergradient` takes by itself.

    Args:
      train: the run; without `keep_best` and `patience`. Its `num_epochs` say how long. It may have proximal penalties:
        their derivative does not see a weight leave 0.
      hyper: every number of the run, by name, where λ starts.
      data: the rows, with validation rows.
      key: root of all randomness; updates draw as in `train`.
      every: updates (minibatches) of a block; must divide those of the run.
      params: the parameters to start from; None draws them from the key.
      names: the hyperparameters that move, all above 0: by default the λ of every penalty.
      last: K, at most `every`.
      optimizer: of log λ, an optax transformation; None is `optax.adam(0.05, b1=0.9, b2=0.9)`, which moves a λ by 5 % a
        block at most, however large or small its derivative is, and in the end goes to and fro by about 10 %.
      bounds: the least and the largest value of what moves.

    Returns:
      The run, the λ at its end, their paths and their derivatives.

    Raises:
      ValueError: as `hypergradient`; `every` that does not divide the run, `last` beyond it, or a value outside of the
        bounds.

    Warns:
      RuntimeWarning: derivatives that are not finite though the run is.

    Sources: Luketina et al. 2016, "Scalable gradient-based tuning of continuous regularization hyperparameters"; Baydin
    et al. 2018, "Online learning rate adaptation with hypergradient descent"; Wu et al. 2018, "Understanding
    short-horizon bias in stochastic meta-optimization".

    >>> import optax, rnnreg as rr
    >>> batch = rr.Batch(np.linspace(-1, 1, 24).reshape(8, 3, 1), np.linspace(0, 1, 8)[:, None])
    >>> data = rr.Split(rr.data.take_rows(batch, np.arange(5)), validation=rr.data.take_rows(batch, np.arange(5, 8)))
    >>> train = rr.make_train(rr.network([rr.cells.elman(2)], 1, readout="last"), loss=rr.losses.squared_error(),
    ...     penalties={"l2": rr.penalties.l2()}, optimizer=optax.sgd(0.1), num_epochs=20)
    >>> tuned = tune_online(train, {"l2": 0.1}, data, key=jax.random.key(0), every=5)
    >>> tuned.path["l2"].shape, tuned.run.history["val_loss"].shape, bool(tuned.hyper["l2"] != 0.1)
    ((4,), (4,), True)
    """
    hyper, data = as_hyper(hyper), as_split(data)
    names = tuned_names(train.settings, hyper, names, log=True)
    check_tunable(train.settings, data, "tune_online")
    check_count(every, "every")
    check_count(last, "last", most=every, hint="A block has every updates.")
    lower, upper = _checked_bounds(bounds, hyper, names)
    options = _Options(names, int(every), int(last), (lower, upper), optimizer or _adam())
    arrays = (dict(hyper), data.replace(test={}, target_times=None), key, params)
    if not may_compile(arrays):
        return _tuned(train, options, *arrays)
    check_start(train.settings, hyper, data, key=key, params=params)
    of = weakly(train)
    program = _PROGRAMS.get(
        train, options, lambda: jax.jit(lambda *given: _tuned(of(), options, *given))
    )
    found = program(*arrays)
    fine = all(np.isfinite(slopes).all() for slopes in found.gradient.values())
    if not fine and found.run.diverged_at < 0:
        warn_caller(
            "some derivatives in log λ are not finite, and λ stayed there. Where a gradient is exactly 0, Adam and "
            "RMSprop take the root of 0, which has no derivative: train with optax.adam(rate, eps_root=1e-8)."
        )
    return found


def _tuned(
    train: Train, options: _Options, hyper: Any, data: Split, key: Array, params: Any
) -> OnlineTuning:
    """The run, as it is traced."""
    settings, hyper = train.settings, as_hyper(hyper)
    every, last, optimizer = options.every, options.last, options.optimizer
    batch = scale_batch(data.train, data.scaling)
    state = train.init(hyper, data, key=key, params=params)
    rows = minibatches(settings, state, batch, data.epoch_rows)
    if len(rows) % every:
        raise ValueError(
            f"every must divide the updates of the run; got every={every} and {len(rows)} updates."
        )
    least, most = (math.log(bound) for bound in options.bounds)
    forward = goes_forward(settings, options.names)
    sign = -1 if settings.maximise else 1

    def block(carry, rows):
        state, logs, opt_state = carry
        values = jax.tree.map(jnp.exp, logs)
        now = with_values(hyper, values)
        state = train_on(settings, state, now, batch, rows[: every - last])

        def ahead(hyper):
            after = train_on(settings, state, hyper, batch, rows[every - last :])
            return monitored(settings, averaged(after), hyper, data)[0], after

        _, slopes, state = value_and_slopes(ahead, now, options.names, log=True, forward=forward)
        stopped = state.diverged_at >= 0
        state, record = recorded(settings, state, now, data, batch, stopped)
        fine = ~stopped & jnp.stack([jnp.isfinite(slope) for slope in slopes.values()]).all()
        descent = jax.tree.map(lambda slope: sign * slope, slopes)
        steps, moved_state = optimizer.update(descent, opt_state, logs)
        moved = jax.tree.map(lambda log, step: jnp.clip(log + step, least, most), logs, steps)
        logs, opt_state = jax.tree.map(
            lambda new, old: jnp.where(fine, new, old), (moved, moved_state), (logs, opt_state)
        )
        return (state, logs, opt_state), (record, values, slopes)

    logs = {name: jnp.log(_strong(value)) for name, value in hyper.items() if name in options.names}
    blocks = rows.reshape(len(rows) // every, every, rows.shape[1])
    carry, (history, path, gradient) = jax.lax.scan(
        block, (state, logs, optimizer.init(logs)), blocks
    )
    state, logs, _ = carry
    final = with_values(hyper, jax.tree.map(jnp.exp, logs))
    run = train.finish(state._replace(epoch=state.epoch + settings.num_epochs), final, data)
    check_reads(hyper)
    numbers = {name: jnp.asarray(value) for name, value in final.items()}
    return OnlineTuning(run._replace(history=history), numbers, path, gradient)


@functools.cache
def _adam() -> optax.GradientTransformation:
    """The same optimiser each time, so that programs are found again."""
    import optax

    return optax.adam(0.05, b1=0.9, b2=0.9)  # with equal decays no step is longer than the rate


def _strong(value: Any) -> Array:
    """A number in a dtype of its own, as it is between two turns of a loop."""
    value = as_number(value)
    return jax.lax.convert_element_type(value, value.dtype)


def _checked_bounds(
    bounds: Sequence[float], hyper: Mapping[str, Any], names: Sequence[str]
) -> tuple[float, float]:
    """The bounds as floats; raises if they are none, or if a value lies outside."""
    if len(bounds) != 2:
        raise ValueError(f"bounds must be a pair, the least and the largest value; got {bounds!r}.")
    for bound in bounds:
        check_number(bound, "bounds", least=0, above=True)
    lower, upper = map(float, bounds)
    if lower >= upper:
        raise ValueError(f"bounds must rise, as (1e-8, 1e4) do; got {bounds!r}.")
    for name in names:
        value = hyper[name]
        if not isinstance(value, jax.core.Tracer) and not lower <= float(value) <= upper:
            raise ValueError(
                f"hyper[{name!r}] must lie in bounds={bounds!r}; got {float(value):g}."
            )
    return lower, upper
