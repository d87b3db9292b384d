"""Epochs of minibatches, and the scan over records that a run is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count
from rnnreg._linalg import marked
from rnnreg.data import Batch, Split, per_row, scale_batch, take_rows
from rnnreg.training._measure import averaged, measure, ready, track
from rnnreg.training._records import TrainState, note_best
from rnnreg.training._segments import NO_UPDATE
from rnnreg.training._settings import Hyper, Settings, network_of
from rnnreg.training._update import update_minibatch


def advance(
    settings: Settings, state: TrainState, hyper: Hyper, data: Split, num_epochs: int
) -> tuple[TrainState, dict[str, Array]]:
    """The state after so many epochs, and the history of their records; one scan."""
    check_count(num_epochs, "num_epochs")
    stride = min(settings.record_every, num_epochs)
    last = state.epoch + num_epochs
    batch = scale_batch(data.train, data.scaling)

    def one(carry, _):
        return epoch(settings, carry[0], hyper, batch, data.epoch_rows), None

    def one_left(carry, _):  # the last record has fewer epochs
        go_on = carry[0].epoch < last
        return jax.lax.cond(
            go_on, lambda carry: one(carry, None)[0], lambda carry: carry, carry
        ), None

    def run(state):
        step = one_left if num_epochs % stride else one
        return jax.lax.scan(step, (state, jnp.zeros((), norm_dtype)), length=stride)[0]

    def skip(state):
        return state, jnp.full((), NO_UPDATE, norm_dtype)

    shapes = jax.eval_shape(
        lambda state: epoch(settings, state, hyper, batch, data.epoch_rows), state
    )
    norm_dtype = shapes[1].dtype

    def record(state, _):
        stopped = is_stopped(settings, state)
        state, gradient_norm = jax.lax.cond(stopped, skip, run, state)
        state, values = recorded(settings, state, hyper, data, batch, stopped)
        return state, values | {"gradient_norm": gradient_norm}

    state, history = jax.lax.scan(record, state, length=-(-num_epochs // stride))
    norms = history["gradient_norm"]
    return state, history | {"gradient_norm": marked(norms == NO_UPDATE, norms)}


def is_stopped(settings: Settings, state: TrainState) -> Array:
    """Whether a run makes no more updates: it diverged, or its patience is at an end."""
    stopped = state.diverged_at >= 0
    if settings.patience is not None:
        stopped |= state.stalled >= settings.patience
    return stopped


def recorded(
    settings: Settings, state: TrainState, hyper: Hyper, data: Split, batch: Batch, stopped: Array
) -> tuple[TrainState, dict[str, Array]]:
    """The state with its best record, and the values of this record by name; `batch` has the scaled training rows."""
    params = ready(settings, averaged(state), hyper, data)
    values, _ = measure(settings, params, state.penalty_state, hyper, data)
    net = network_of(settings, hyper)
    values |= track(settings, net, params, batch, taken=set(values))
    if state.best:
        score = values[f"val_{settings.monitor}"]
        state = note_best(state, params, score, stopped, maximise=settings.maximise)
    return state, values


def epoch(
    settings: Settings, state: TrainState, hyper: Hyper, batch: Batch, epoch_rows: int | None
) -> tuple[TrainState, Array]:
    """The state after one pass over the rows, and the gradient norm of its last update."""
    if settings.batch_size is None:
        state, norm = update_minibatch(settings, state, hyper, batch)
        return state._replace(epoch=state.epoch + 1), norm
    rows = rows_of_epoch(settings, state.key, state.epoch, batch, epoch_rows)

    def step(state, rows):
        return update_minibatch(settings, state, hyper, take_rows(batch, rows))

    state, norms = jax.lax.scan(step, state, rows)
    return state._replace(epoch=state.epoch + 1), norms[-1]


def rows_of_epoch(
    settings: Settings, key: Array, epoch: Array, batch: Batch, epoch_rows: int | None
) -> Array:
    """`[minibatches, batch_size]` row numbers of an epoch, by its number and the key of the run."""
    key = jax.random.fold_in(jax.random.fold_in(key, 0), epoch)
    return order_rows(key, batch, settings.batch_size, epoch_rows)  # type: ignore[arg-type]


def order_rows(key: Array, batch: Batch, batch_size: int, epoch_rows: int | None) -> Array:
    """`[minibatches, batch_size]` row numbers in a fresh order, the last minibatch filled up from its start.

    >>> rows = order_rows(jax.random.key(0), Batch(jnp.zeros((5, 1, 1)), jnp.zeros((5, 1))), 3, None)
    >>> rows.shape, sorted(rows.reshape(-1)[:5].tolist()), bool(rows[1, 2] == rows[0, 0])
    ((2, 3), [0, 1, 2, 3, 4], True)
    """
    num_rows = batch.xs.shape[0]
    num_batches = -(-(epoch_rows or num_rows) // batch_size)
    draws = jax.random.uniform(key, (num_rows,))
    count = num_rows
    if batch.weights is not None:  # padding rows come last in the order, and are never reached
        drawn = per_row(batch.weights) > 0
        draws = jnp.where(drawn, draws, jnp.inf)
        count = jnp.sum(drawn)
    positions = jnp.arange(num_batches * batch_size) % count
    return jnp.argsort(draws)[positions].reshape(num_batches, batch_size)
