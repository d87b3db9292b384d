"""A training run as pure functions: init, update, advance, finish, and the whole run as one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax import Array

from rnnreg._memory import check_made
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split, as_split
from rnnreg.losses import Loss, Metric
from rnnreg.networks import Network
from rnnreg.penalties import Penalty
from rnnreg.runtime import Kept, checked_devices, may_compile, weakly
from rnnreg.training import _epoch, _measure, _start, _update
from rnnreg.training._checks import check_reads, check_update, checked
from rnnreg.training._contracts import NetworkFunction, OptimizerFunction, TrackFunction
from rnnreg.training._records import Run, TrainInfo, TrainState
from rnnreg.training._settings import Settings, as_hyper, lines_of, network_of, optimizer_of
from rnnreg.training._track import Track

if TYPE_CHECKING:
    import optax

Params = dict[str, Any]
_PROGRAMS = Kept()
_DERIVED = Kept()  # a run that is derived again is the same, and is not compiled again


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Train:
    """A training run as pure functions of its settings; calling the record runs them all.

    Every function is pure. Called with arrays, the record runs one compiled program, which is kept while the record
    lives: other numbers of the same shapes compile nothing, and as under `jax.jit` what its functions read is read
    once. Inside `jax.jit`, `jax.vmap` and other traces it is traced as it stands; under `jax_debug_nans` it runs step
    by step. The methods are not compiled: `jax.jit(train.update)` is one step. Arguments come in one order: state,
    hyper, data.

    Attributes:
      settings: the static choices.
    """

    settings: Settings

    def __post_init__(self) -> None:
        # A method is made anew each time it is looked up, and jax.jit would compile each of them: keep the first.
        for name in ("init", "update", "advance", "finish"):
            object.__setattr__(self, name, getattr(self, name))

    def __repr__(self) -> str:
        return f"Train(\n{lines_of(self.settings)})"

    @typed
    def __call__(
        self,
        hyper: Mapping[str, Any],
        data: Split | Batch,
        *,
        key: Array,
        params: Params | None = None,
    ) -> Run:
        """The whole run: init, every epoch, finish.

        Args:
          hyper: every number of the run, by name.
          data: the rows; a lone batch holds training rows only.
          key: root of all randomness.
          params: the parameters to start from; None draws them from the key.

        Returns:
          Parameters, history, scores and predictions.

        Raises:
          ValueError: as `init`; or a name in `hyper` that nothing reads.
        """
        hyper, data = as_hyper(hyper), as_split(data)
        arrays = (dict(hyper), data.replace(test={}, target_times=None), key, params)
        if not may_compile(arrays):
            return whole(self, *arrays)[1]
        # what a trace cannot see, the values of λ, tokens and targets, is checked first
        _start.check_start(self.settings, hyper, data, key=key, params=params)
        of = weakly(self)
        program = _PROGRAMS.get(self, "run", lambda: jax.jit(lambda *given: whole(of(), *given)[1]))
        hint = "Take fewer records (record_every), or a smaller network."
        check_made(program.eval_shape(*arrays), "what the run returns", hint)
        return program(*arrays)

    @typed
    def init(
        self,
        hyper: Mapping[str, Any],
        data: Split | Batch,
        *,
        key: Array,
        params: Params | None = None,
    ) -> TrainState:
        """The state before the first update.

        Args:
          hyper: every number of the run, by name.
          data: the rows, which set the number of inputs and the dtype.
          key: root of all randomness: of the parameters, the order of rows, and dropout masks.
          params: the parameters to start from, such as `run.params` of another run; None draws them from the key.
            Minibatches and dropout masks are the same either way.

        Returns:
          The state that `update` and `advance` take.

        Raises:
          ValueError: data, a λ, or given parameters that do not fit the run.
        """
        return _start.start(self.settings, as_hyper(hyper), as_split(data), key=key, params=params)

    @typed
    def update(
        self,
        state: TrainState,
        hyper: Mapping[str, Any],
        batch: Batch,
        *,
        network_state: dict[str, Any] | None = None,
        fresh: Array | None = None,
    ) -> tuple[TrainState, TrainInfo]:
        """w ← w − α ∂(L + Σ_k λ_k R_k)/∂w on the whole batch that it is given: the step to jit and call by hand.

        Proximal penalties are taken by their prox, as `make_train` says.

        Args:
          state: the state before; its `step` numbers the dropout masks.
          hyper: every number of the run, by name.
          batch: the rows, as the network sees them (scaled).
          network_state: `info.network_state` of the update before, to go on with the same sequences; None starts them.
            No gradient passes through it.
          fresh: scalar; if true, the network's own start replaces `network_state`.

        Returns:
          The state afterwards, which is the one before if something was not finite; and what the update saw.

        Raises:
          ValueError: arguments in another order, or no batch.
        """
        check_update(hyper, batch)
        return _update.update(
            self.settings, state, as_hyper(hyper), batch, network_state=network_state, fresh=fresh
        )

    @typed
    def advance(
        self,
        state: TrainState,
        hyper: Mapping[str, Any],
        data: Split | Batch,
        num_epochs: int,
    ) -> tuple[TrainState, dict[str, Array]]:
        """The run goes on for some epochs, as one scan over records.

        Args:
          state: the state before.
          hyper: every number of the run, by name.
          data: the rows.
          num_epochs: passes over the training rows. There is a record after every `settings.record_every` of them, and
            at the end.

        Returns:
          The state afterwards; and the history by name, `[R]` values at the record stride.

        Raises:
          ValueError: a number of epochs that is not positive.
        """
        return _epoch.advance(self.settings, state, as_hyper(hyper), as_split(data), num_epochs)

    @typed
    def finish(self, state: TrainState, hyper: Mapping[str, Any], data: Split | Batch) -> Run:
        """The run that ends in a state: its final scores and predictions.

        Args:
          state: the last state.
          hyper: every number of the run, by name; the network may depend on them.
          data: the rows to score.

        Returns:
          The run, with an empty history. Its parameters are those that were scored: the best ones with `keep_best`, and
          the averages that an optimiser of `optax.contrib.schedule_free` keeps.
        """
        return _measure.finish(self.settings, state, as_hyper(hyper), as_split(data))

    @typed
    def network(self, hyper: Mapping[str, Any]) -> Network:
        """The network of a `hyper`, whether or not it depends on it.

        Args:
          hyper: the numbers that the network reads, by name; `{}` if it reads none.

        Returns:
          The network.

        Raises:
          ValueError: a number that it reads is missing, or the function of hyper returns no network.
        """
        return network_of(self.settings, as_hyper(hyper))

    @typed
    def optimizer(self, hyper: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
        """The optimiser of a `hyper`, whether or not it depends on it.

        Args:
          hyper: the numbers that the optimiser reads, by name; `{}` if it reads none.

        Returns:
          An optax transformation that takes extra arguments.

        Raises:
          ValueError: a number that it reads is missing, or the function of hyper returns no transformation.
        """
        return optimizer_of(self.settings, as_hyper(hyper))

    @typed
    def with_epochs(self, num_epochs: int, *, early_stopping: bool = True) -> Train:
        """The same run with another number of epochs, recorded at the same stride if that divides it; made once.

        Args:
          num_epochs: passes over the training rows.
          early_stopping: whether `keep_best` and `patience` stay; without them no validation rows are needed.

        Returns:
          Another run.

        Raises:
          ValueError: it is not a positive int.
        """
        stride = self.settings.record_every
        record_every = stride if num_epochs % stride == 0 else None
        changed = self.settings._replace(num_epochs=num_epochs, record_every=record_every)  # type: ignore[arg-type]
        if not early_stopping:
            changed = changed._replace(keep_best=False, patience=None)
        key = (num_epochs, early_stopping)
        return _DERIVED.get(self, key, lambda: Train(checked(changed)))

    @typed
    def split_rows(self, devices: tuple[Any, ...]) -> Train:
        """The same run with the rows of every update split over devices, and their gradients summed.

        For one large network alone, and an objective that is a weighted mean over rows: every loss of `rr.losses`,
        penalties on weights, and penalties on states that are means over rows. It is then equal up to rounding
        (dropout draws other masks). A loss or penalty that sums over rows, or takes a root of their mean, is not.
        `rr.lanes` shows how weights that are too large for one device are split.

        Args:
          devices: such as `jax.devices()`.

        Returns:
          Another run.
        """
        changed = self.settings._replace(devices=checked_devices(devices))
        return _DERIVED.get(self, changed.devices, lambda: Train(changed))


def whole(
    train: Train, hyper: Mapping[str, Any], data: Split, key: Array, params: Any
) -> tuple[TrainState, Run]:
    """The whole run, as it is traced: its last state, and what it produces."""
    hyper = as_hyper(hyper)
    state = train.init(hyper, data, key=key, params=params)
    state, history = train.advance(state, hyper, data, train.settings.num_epochs)
    run = train.finish(state, hyper, data)
    check_reads(hyper)
    return state, run._replace(history=history)


@typed
def make_train(
    net: Network | NetworkFunction,
    *,
    loss: Loss,
    penalties: Mapping[str, Penalty] | None = None,
    optimizer: optax.GradientTransformation | OptimizerFunction,
    num_epochs: int,
    batch_size: int | None = None,
    segment_steps: int | None = None,
    record_every: int | None = None,
    keep_best: bool = False,
    patience: int | None = None,
    metrics: Mapping[str, Metric] | None = None,
    monitor: str = "loss",
    track: Mapping[str, Track | TrackFunction] | None = None,
    proximal: bool | str | Sequence[str] = False,
) -> Train:
    """w ← w − α ∂(L + Σ_k λ_k R_k)/∂w, over minibatches drawn on the device from the key.

    What sets a shape is static and given here; what is a number is read from `hyper` inside the trace: each
    penalty's λ under its own name, and whatever `optimizer` and `net` read when they are functions of
    `hyper`. One compilation serves every value; calling the record compiles, and keeps what it compiled.

    An update whose loss, gradient or result is not finite is not applied: the run keeps its last finite
    state, and `diverged_at` holds the step.

    With `segment_steps=k`, each minibatch is cut in time into segments of k steps, and an update is made after
    each, on the loss of that segment alone (truncated back-propagation through time, Williams & Peng 1990). The
    network's state is carried from segment to segment, no gradient is, and it starts anew with each minibatch. So a
    minibatch makes ⌈T/k⌉ updates, whose backward passes keep k steps each; `rr.network(truncate=k)` cuts the
    gradient in the same places, and makes one update of them all. If k does not divide T, the last segment is
    filled up with masked steps. A sequence counts in the segments in which it has a true step; a segment in
    which nothing is true makes no update. Penalties see one segment at a time, and dropout draws its masks for
    each. k ≥ T is the run without segments. Losses are recorded over whole sequences.

    With `proximal=`, updates end with the proximal map of these penalties, which makes exact zeros:

        w ← prox_{λD}(w + u − u_p),  prox_a(z) = argmin_v R(v) + ½ Σ_i (v_i − z_i)² / a_i

    where u is what the optimiser makes of ∂L/∂w + p (and of the other penalties' gradients), p is λ times the
    subgradient of R that the last prox took (at first its gradient), u_p is the part of u that it makes of this p and
    of those before, and D is the optimiser's step: how far it answers a gradient of −1 in every update so far. A λ that
    changes from update to update enters p and λD as it was in each (`rr.penalties.scheduled`). D and u_p are read
    from the derivative of its update, not from its settings: D = α for SGD, α (1 − β^t) / (1 − β) with momentum β,
    α / (√v̂ + ε) for Adam (whose v̂ has decayed once more). SGD then is proximal gradient descent,
    w ← prox_{αλ}(w − α ∂L/∂w); with momentum the prox follows the averaged gradient. Clipping and second moments see
    the gradient of the whole objective, as with smooth penalties, so that where the run comes to rest the objective is
    stationary, whatever the optimiser: a metric moves no minimiser. An optimiser without such a D is refused: one that
    takes signs (Lion, Rprop), mixes weights (line searches, L-BFGS, Muon, gradients normalised or centred), scales by
    their size (LAMB), bounds the scaled step (Adafactor), goes by the value of the loss (Polyak) or averages parameters
    (schedule-free); and the nuclear norm wants one D for a matrix, which Adam does not have.

    Args:
      net: a network, or `lambda hyper: rr.network(..., dropout=hyper["dropout"])`.
      loss: the data loss: one of `rr.losses`, or a function of `(outputs, ys, mask, weights)` or `(outputs, ys)`.
      penalties: by name; the name is that of its λ in `hyper`.
      optimizer: an optax transformation, or `lambda hyper: optax.adam(hyper["learning_rate"])`. Global-norm
        clipping is `optax.chain(optax.clip_by_global_norm(…), …)`. A schedule wants a static shape with
        peak 1, times the traced rate.
      num_epochs: passes over the training rows; with `batch_size=None` and no segments, the number of updates.
      batch_size: rows of each update; each epoch is a fresh order of the rows, and its last batch is filled up
        from the order's start. None takes all rows at once.
      segment_steps: k, the time steps of each update; None takes whole sequences. It needs a loss at each step, and
        no layer that reads backwards.
      record_every: epochs between two records of the history; must divide `num_epochs`. None keeps at
        most 50 records, the last of them at the end.
      keep_best: return the parameters of the best record, by `monitor` on the validation rows.
      patience: stop after so many records without improvement of `monitor` (if lanes run one by one, a stopped run
        costs no more than its records).
      metrics: further scores by name, recorded as `train_<name>` and `val_<name>`: those of `rr.metrics`, or functions
        `f(outputs, ys, mask, weights)` or `f(outputs, ys)`; `rr.metrics.Score(f, maximise=…)` states the direction.
      monitor: what `keep_best` and `patience` go by: "loss", or one of `metrics` that states its direction.
      track: by name, `f(net, params, batch)` on the (scaled) training rows, an array or a tree of arrays that is
        recorded with the history as `<name>` or `<name>/<path>`; such as `rr.diagnostics.track_gradient_flow(loss)`,
        or `rr.training.Track(f, dims)`, whose axes have names in a sweep.
      proximal: the penalties that are taken by their prox and not by their gradient: a name, several, or True for all
        that state one (`Penalty.prox`).

    Returns:
      The run, as a record of pure functions.

    Recorded: `train_loss` and `val_loss` (data losses without dropout, in the units of the split's arrays),
    `penalty_<name>` (without its λ), `gradient_norm` (of the last update), `norm/<path>` and
    `sigma_max/<path>` of every recurrent matrix that a cell states, such as W_hh (the largest over its gate blocks). Of
    proximal penalties also `zeros_<name>`, how many of the weights that it covers are exactly 0, and of the recurrent
    matrices among them `units_off/<path>`, how many units take no part in the recurrence (what they send, a row of
    `[H, G·H]`, or what they receive, their columns, is all 0), and at the end `rank/<path>` (the largest over the
    gate blocks, too). `gradient_norm` is then that of what the optimiser is given.

    Raises:
      ValueError: an argument out of range, before anything compiles; an optimiser that proximal steps are not defined
        for, and updates of one row with `rr.cells.batch_norm`, once hyperparameters and data are known.

    Warns:
      RuntimeWarning: then too, if the same penalty is taken by its prox and, under another name, by its gradient.

    Source of proximal steps: Beck & Teboulle 2009; in the metric of Adam, Yun, Lozano & Yang 2021, "Adaptive proximal
    gradient methods for structured neural networks".

    >>> import jax, jax.numpy as jnp, optax, rnnreg as rr
    >>> net = rr.network([rr.cells.elman(hidden_size=4)], output_size=1, readout="last")
    >>> train = make_train(net, loss=rr.losses.squared_error("mean"), penalties={"l2": rr.penalties.l2()},
    ...                    optimizer=lambda hyper: optax.sgd(hyper["learning_rate"]), num_epochs=20)
    >>> batch = rr.Batch(jnp.ones((8, 3, 1)), jnp.ones((8, 1)))
    >>> run = jax.jit(train)({"l2": 1e-3, "learning_rate": 0.1}, batch, key=jax.random.key(0))
    >>> bool(run.metrics["train_loss"] < 0.1), run.history["train_loss"].shape
    (True, (20,))
    """
    return Train(
        checked(
            Settings(
                net=net,
                loss=loss,
                penalties=penalties,  # type: ignore[arg-type]
                optimizer=optimizer,
                num_epochs=num_epochs,
                batch_size=batch_size,
                record_every=record_every,  # type: ignore[arg-type]
                keep_best=keep_best,
                patience=patience,
                metrics=metrics,  # type: ignore[arg-type]
                track=track,  # type: ignore[arg-type]
                segment_steps=segment_steps,
                monitor=monitor,
                proximal=proximal,  # type: ignore[arg-type]
            )
        )
    )
