"""A training run as pure functions: init, update, advance, finish, and the whole run as one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from rnnreg._linalg import sigma_max, square_blocks
from rnnreg._tree import leaf_paths
from rnnreg.data import (
    Batch,
    Split,
    as_split,
    scale_batch,
    take_rows,
    unscale_outputs,
)
from rnnreg.losses import Loss
from rnnreg.networks import Network
from rnnreg.objective import make_objective
from rnnreg.penalties import Penalty
from rnnreg.training._gradients import gradients_of, row_weights, split_gradients_of
from rnnreg.training._records import Best, Run, TrainInfo, TrainState, note_best, select
from rnnreg.training._segments import check_segments, update_segments
from rnnreg.training._settings import (
    Settings,
    as_hyper,
    check_data,
    check_hyper,
    check_update,
    checked,
)

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Train:
    """A training run as pure functions; calling the record runs them all.

    Attributes:
      init: `init(hyper, data, *, key) -> TrainState`.
      update: `update(state, hyper, batch) -> (TrainState, TrainInfo)`, the step to jit and call by hand, on the
        whole batch that it is given; `network_state=info.network_state` of the update before goes on from there.
      advance: `advance(state, hyper, data, num_epochs) -> (TrainState, history)`, one scan.
      finish: `finish(state, hyper, data) -> Run`, with an empty history.
      settings: the static choices.
    """

    init: Callable[..., TrainState]
    update: Callable[..., tuple[TrainState, TrainInfo]]
    advance: Callable[..., tuple[TrainState, dict[str, Array]]]
    finish: Callable[..., Run]
    settings: Settings

    def __call__(self, hyper: Mapping[str, Any], data: Split | Batch, *, key: Array) -> Run:
        """The whole run: init, every epoch, finish."""
        state = self.init(hyper, data, key=key)
        state, history = self.advance(state, hyper, data, self.settings.num_epochs)
        return self.finish(state, hyper, data)._replace(history=history)

    def with_epochs(self, num_epochs: int) -> Train:
        """The same run with another number of epochs, recorded at the same stride where that divides it."""
        stride = self.settings.record_every
        return _build(
            checked(
                self.settings._replace(
                    num_epochs=num_epochs,
                    record_every=stride if num_epochs % stride == 0 else None,
                )
            )
        )

    def split_rows(self, devices: tuple[Any, ...]) -> Train:
        """The same run with the rows of every update split over devices, and their gradients summed.

        For one large network alone, and an objective that is a weighted mean over rows: every loss of `rr.losses`,
        penalties on weights, and penalties on states that are means over rows. It is then equal up to rounding
        (dropout draws other masks). A loss or penalty that sums over rows, or takes a root of their mean, is not.
        """
        return _build(self.settings._replace(devices=tuple(devices)))


def make_train(
    net: Network | Callable[[Mapping[str, Any]], Network],
    *,
    loss: Loss,
    penalties: Mapping[str, Penalty] | None = None,
    optimizer: optax.GradientTransformation
    | Callable[[Mapping[str, Any]], optax.GradientTransformation],
    num_epochs: int,
    batch_size: int | None = None,
    segment_steps: int | None = None,
    record_every: int | None = None,
    keep_best: bool = False,
    patience: int | None = None,
    metrics: Mapping[str, Loss] | None = None,
    track: Mapping[str, Any] | None = None,
) -> Train:
    """w ← w − α ∂(L + Σ_k λ_k R_k)/∂w, over minibatches drawn on the device from the key.

    What sets a shape is static and given here; what is a number is read from `hyper` inside the trace: each
    penalty's λ under its own name, and whatever `optimizer` and `net` read when they are functions of
    `hyper`. One compilation serves every value. Nothing is jitted here: jit `update`, or the record itself.

    An update whose loss, gradient or result is not finite is not applied: the run keeps its last finite
    state, and `diverged_at` holds the step.

    With `segment_steps=k`, each minibatch is cut in time into segments of k steps, and an update is made after
    each, on the loss of that segment alone (truncated back-propagation through time, Williams & Peng 1990). The
    network's state is carried from segment to segment, no gradient is, and it starts anew with each minibatch. So a
    minibatch makes ⌈T/k⌉ updates, whose backward passes keep k steps each; `rr.network(truncate=k)` cuts the
    gradient in the same places, and makes one update of them all. Where k does not divide T, the last segment is
    filled up with masked steps. A sequence counts in the segments in which it has a true step; a segment in
    which nothing is true makes no update. Penalties see one segment at a time, and dropout draws its masks for
    each. k ≥ T is the run without segments. Losses are recorded over whole sequences.

    Args:
      net: a network, or `lambda hyper: rr.network(..., dropout=hyper["dropout"])`.
      loss: the data loss.
      penalties: by name; the name is that of its λ in `hyper`.
      optimizer: an optax transformation, or `lambda hyper: optax.adam(hyper["learning_rate"])`. Global-norm
        clipping is `optax.chain(optax.clip_by_global_norm(…), …)`. A schedule wants a static shape with
        peak 1, times the traced rate.
      num_epochs: passes over the training rows; with `batch_size=None` and no segments, the number of updates.
      batch_size: rows an update; each epoch is a fresh order of the rows, and its last batch is filled up
        from the order's start. None takes all rows at once.
      segment_steps: k, the time steps an update; None takes whole sequences. It wants a loss at each step, and
        no layer that reads backwards.
      record_every: epochs between two records of the history; must divide `num_epochs`. None keeps at
        most 50 records.
      keep_best: return the parameters of the record with the least validation loss.
      patience: stop after so many records without improvement (where lanes run one by one, a stopped run
        costs no more than its records).
      metrics: further scores `f(outputs, ys, mask, weights)` by name, recorded as `train_<name>` and
        `val_<name>`.
      track: by name, `f(net, params, batch)` on the (scaled) training rows, an array or a tree of arrays that is
        recorded with the history as `<name>` or `<name>/<path>`; such as `rr.diagnostics.track_gradient_flow(loss)`,
        or `rr.training.Track(f, dims)`, whose axes have names in a sweep.

    Recorded: `train_loss` and `val_loss` (data losses without dropout, in the units of the split's arrays),
    `penalty_<name>` (without its λ), `gradient_norm` (of the last update), `norm/<path>` and
    `sigma_max/<path>` of every W_hh (the largest over its gate blocks).

    Raises:
      ValueError: an argument out of range, before anything compiles.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(hidden_size=4)], output_size=1, readout="last")
    >>> train = make_train(net, loss=rr.losses.squared_error("mean"), penalties={"l2": rr.penalties.l2()},
    ...                    optimizer=lambda hyper: optax.sgd(hyper["learning_rate"]), num_epochs=20)
    >>> batch = rr.Batch(jnp.ones((8, 3, 1)), jnp.ones((8, 1)))
    >>> run = jax.jit(train)({"l2": 1e-3, "learning_rate": 0.1}, batch, key=jax.random.key(0))
    >>> bool(run.metrics["train_loss"] < 0.1), run.history["train_loss"].shape
    (True, (20,))
    """
    return _build(
        checked(
            Settings(
                net=net,
                loss=loss,
                penalties=penalties,  # type: ignore[arg-type]
                optimizer=optimizer,  # type: ignore[arg-type]
                num_epochs=num_epochs,
                batch_size=batch_size,
                record_every=record_every,  # type: ignore[arg-type]
                keep_best=keep_best,
                patience=patience,
                metrics=metrics,  # type: ignore[arg-type]
                track=track,  # type: ignore[arg-type]
                segment_steps=segment_steps,
            )
        )
    )


def _build(settings: Settings) -> Train:
    """The run of checked settings."""
    loss, penalties, batch_size = settings.loss, settings.penalties, settings.batch_size

    def network_of(hyper):
        made = settings.net if isinstance(settings.net, Network) else settings.net(hyper)
        if not isinstance(made, Network):
            raise ValueError(
                f"net must be an rnnreg Network or a function that returns one; got {made!r}."
            )
        check_segments(made, settings.segment_steps)
        return made

    def optimizer_of(hyper):
        made = settings.optimizer(hyper)
        if not isinstance(made, optax.GradientTransformation):
            raise ValueError(
                "optimizer must return an optax transformation, as lambda hyper: "
                f"optax.adam(hyper['learning_rate']) does; got {type(made).__name__}."
            )
        return optax.with_extra_args_support(made)

    def init(hyper: Mapping[str, Any], data: Split | Batch, *, key: Array) -> TrainState:
        hyper, data = as_hyper(hyper), as_split(data)
        check_data(settings, data)
        check_hyper(settings, hyper)
        optimizer = optimizer_of(hyper)
        key_params, key_run = jax.random.split(key)
        xs = data.train.xs
        real = jnp.issubdtype(xs.dtype, jnp.floating)
        dtype = jnp.promote_types(xs.dtype, jnp.float32) if real else jnp.result_type(float)
        dtype = jax.dtypes.canonicalize_dtype(dtype)  # NumPy's float64 where x64 is off
        params = network_of(hyper).init(key_params, xs.shape[-1] if real else None, dtype=dtype)
        best = ()
        if settings.keep_best or settings.patience is not None:
            best = Best(
                params, jnp.asarray(jnp.inf, jnp.promote_types(dtype, jnp.float32)), jnp.int32(0)
            )
        return TrainState(
            params=params,
            opt_state=optimizer.init(params),
            penalty_state={name: penalty.init(params) for name, penalty in penalties.items()},
            key=key_run,
            step=jnp.int32(0),
            epoch=jnp.int32(0),
            diverged_at=jnp.int32(-1),
            best=best,
            stalled=jnp.int32(0),
        )

    def update(
        state: TrainState,
        hyper: Mapping[str, Any],
        batch: Batch,
        *,
        network_state: dict[str, Any] | None = None,
        fresh: Array | None = None,
    ) -> tuple[TrainState, TrainInfo]:
        check_update(hyper, batch)
        hyper = as_hyper(hyper)
        objective = make_objective(network_of(hyper), loss, penalties)
        key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)

        arguments = (state.params, hyper, batch, state.penalty_state)
        start = {"network_state": network_state, "fresh": fresh}
        if settings.devices is None:
            found = gradients_of(objective, *arguments, key=key, **start)
        else:
            found = split_gradients_of(
                objective, *arguments, key=key, devices=settings.devices, **start
            )
        total, gradients, penalty_state = found.total, found.gradients, found.penalty_state
        updates, opt_state = optimizer_of(hyper).update(
            gradients,
            state.opt_state,
            state.params,
            value=total,
            grad=gradients,
            value_fn=lambda params: objective(params, *arguments[1:], key=key, train=True, **start)[
                0
            ],
        )
        params = optax.apply_updates(state.params, updates)
        gradient_norm = optax.tree.norm(gradients)  # overflows before the optimiser's squares do
        finite = jnp.isfinite(total) & jnp.isfinite(gradient_norm) & _all_finite(params)
        running = state.diverged_at < 0
        new = state._replace(
            params=params, opt_state=opt_state, penalty_state=penalty_state, step=state.step + 1
        )
        kept = select(finite & running, new, state)
        diverged_at = jnp.where(running & ~finite, state.step, state.diverged_at)
        info = TrainInfo(
            total, found.data_loss, found.penalties, gradient_norm, finite, found.network_state
        )
        return kept._replace(diverged_at=diverged_at), info

    def sequences(state, hyper, batch):
        """The updates of one minibatch; the gradient norm of the last."""
        length = settings.segment_steps
        if length is None or length >= batch.xs.shape[1]:
            state, info = update(state, hyper, batch)
            return state, info.gradient_norm
        return update_segments(update, network_of(hyper), state, hyper, batch, length=length)

    def epoch(state, hyper, batch, epoch_rows):
        """One pass over the rows; the gradient norm of its last update."""
        if batch_size is None:
            state, norm = sequences(state, hyper, batch)
            return state._replace(epoch=state.epoch + 1), norm
        num_rows = batch.xs.shape[0]
        num_batches = -(-(epoch_rows or num_rows) // batch_size)
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0), state.epoch)
        draws = jax.random.uniform(key, (num_rows,))
        count = num_rows
        if batch.weights is not None:  # padding rows come last in the order, and are never reached
            draws = jnp.where(batch.weights > 0, draws, jnp.inf)
            count = jnp.sum(batch.weights > 0)
        order = jnp.argsort(draws)
        positions = jnp.arange(num_batches * batch_size) % count
        rows = order[positions].reshape(num_batches, batch_size)

        def step(state, rows):
            return sequences(state, hyper, take_rows(batch, rows))

        state, norms = jax.lax.scan(step, state, rows)
        return state._replace(epoch=state.epoch + 1), norms[-1]

    def score(outputs, batch, prefix):
        """Losses and further metrics of outputs in the units of the split's arrays."""
        nothing = ~jnp.any(row_weights(batch) > 0)
        scores = {f"{prefix}_loss": loss(outputs, batch.ys, batch.mask, batch.weights)}
        for name, metric in settings.metrics.items():
            scores[f"{prefix}_{name}"] = metric(outputs, batch.ys, batch.mask, batch.weights)
        return {name: jnp.where(nothing, jnp.nan, value) for name, value in scores.items()}

    def measure(params, penalty_state, hyper, data):
        """Everything that is recorded, and the outputs on the validation rows."""
        net = network_of(hyper)
        objective = make_objective(net, loss, penalties)
        seen = scale_batch(data.train, data.scaling)
        _, (parts, _) = objective(params, hyper, seen, penalty_state, key=None, train=False)
        values = score(unscale_outputs(parts.outputs, data.scaling), data.train, "train")
        values |= {f"penalty_{name}": value for name, value in parts.penalties.items()}
        predictions = None
        if data.validation is not None:
            seen = scale_batch(data.validation, data.scaling)
            outputs = net.apply(params, seen.xs, mask=seen.mask).outputs
            predictions = unscale_outputs(outputs, data.scaling)
            values |= score(predictions, data.validation, "val")
        for path, leaf in leaf_paths(params).items():
            if path.split("/")[-1] == "W_hh":
                blocks = square_blocks(leaf)
                values[f"norm/{path}"] = jnp.sqrt(jnp.sum(jnp.square(leaf)))
                values[f"sigma_max/{path}"] = jnp.max(jax.vmap(sigma_max)(blocks))
        return values, predictions

    def tracked(net, params, batch, taken):
        """What is tracked, by path; a lone array goes by its name."""
        found = {}
        for name, track in settings.track.items():
            for path, leaf in leaf_paths(track.function(net, params, batch)).items():
                found[f"{name}/{path}" if path else name] = jnp.asarray(leaf)
            if {name, *found} & {*taken, "gradient_norm"}:
                raise ValueError(f"track may not be named {name!r}, which is recorded already.")
        return found

    def advance(
        state: TrainState, hyper: Mapping[str, Any], data: Split | Batch, num_epochs: int
    ) -> tuple[TrainState, dict[str, Array]]:
        hyper, data = as_hyper(hyper), as_split(data)
        if num_epochs < 1 or num_epochs % settings.record_every:
            raise ValueError(
                f"advance goes on by a positive multiple of record_every={settings.record_every} epochs; "
                f"got num_epochs={num_epochs}."
            )
        batch = scale_batch(data.train, data.scaling)

        def run_epochs(state):
            state, norms = jax.lax.scan(
                lambda state, _: epoch(state, hyper, batch, data.epoch_rows),
                state,
                length=settings.record_every,
            )
            return state, norms[-1]

        def skip(state):
            return state, jnp.full((), jnp.nan, norm_dtype)

        norm_dtype = jax.eval_shape(run_epochs, state)[1].dtype

        def record(state, _):
            stopped = state.diverged_at >= 0
            if settings.patience is not None:
                stopped |= state.stalled >= settings.patience
            state, gradient_norm = jax.lax.cond(stopped, skip, run_epochs, state)
            values, _ = measure(state.params, state.penalty_state, hyper, data)
            values |= tracked(network_of(hyper), state.params, batch, taken=values)
            if state.best:
                state = note_best(state, values["val_loss"], stopped)
            return state, values | {"gradient_norm": gradient_norm}

        return jax.lax.scan(record, state, length=num_epochs // settings.record_every)

    def finish(state: TrainState, hyper: Mapping[str, Any], data: Split | Batch) -> Run:
        hyper, data = as_hyper(hyper), as_split(data)
        params = state.best.params if settings.keep_best else state.params
        values, predictions = measure(params, state.penalty_state, hyper, data)
        diverged = state.diverged_at >= 0
        return Run(
            params=params,
            history={},
            metrics={name: jnp.where(diverged, jnp.nan, value) for name, value in values.items()},
            predictions=predictions,
            diverged_at=state.diverged_at,
            num_updates=state.step,
        )

    return Train(init, update, advance, finish, settings)


def _all_finite(tree: Any) -> Array:
    leaves = jax.tree.leaves(tree)
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all()
