"""A run as one row of minibatches, which can be cut after any of them and differentiated within little memory."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.data import Batch, take_rows
from rnnreg.training._epoch import rows_of_epoch
from rnnreg.training._records import TrainState
from rnnreg.training._settings import Hyper, Settings
from rnnreg.training._update import update_minibatch


def minibatches(
    settings: Settings, state: TrainState, batch: Batch, epoch_rows: int | None
) -> Array:
    """`[N, batch_size]` row numbers of every minibatch of a run, epoch by epoch; `[N, 0]` if each takes all rows.

    Args:
      settings: the static choices of the run.
      state: the state before the first update.
      batch: the training rows.
      epoch_rows: rows that make an epoch; None takes all.

    Returns:
      Row numbers, as `Train.advance` draws them.
    """
    if settings.batch_size is None:
        return jnp.zeros((settings.num_epochs, 0), jnp.int32)

    def of_epoch(number):
        return rows_of_epoch(settings, state.key, number, batch, epoch_rows)

    rows = jax.lax.map(of_epoch, jnp.arange(settings.num_epochs))
    return rows.reshape(-1, settings.batch_size)


def train_on(
    settings: Settings,
    state: TrainState,
    hyper: Hyper,
    batch: Batch,
    rows: Array,
    *,
    remat: str | int = "full",
) -> TrainState:
    """The state after the updates of some minibatches. It counts no epochs.

    Args:
      settings: the static choices of the run.
      state: the state before.
      hyper: every number of the run, by name.
      batch: the training rows, as the network sees them (scaled).
      rows: `[n, batch_size]`, as `minibatches` returns them.
      remat: what reverse mode keeps: "full" keeps all that it needs of all n updates; an int k keeps the states at the
        ends of blocks of k updates, and runs each block again on the way back; "sqrt" is k = ⌈√n⌉.

    Returns:
      The state afterwards.
    """

    def step(state, rows):
        own = batch if settings.batch_size is None else take_rows(batch, rows)
        return update_minibatch(settings, state, hyper, own)[0], None

    def run(state, rows):
        return jax.lax.scan(step, state, rows)[0]

    if remat == "full" or not len(rows):
        return run(state, rows)
    length = math.ceil(math.sqrt(len(rows))) if remat == "sqrt" else min(int(remat), len(rows))
    whole = len(rows) - len(rows) % length
    blocks = rows[:whole].reshape(whole // length, length, rows.shape[1])
    # inside a scan nothing needs to keep the second pass apart from the first
    block = jax.checkpoint(lambda state, rows: (run(state, rows), None), prevent_cse=False)
    state, _ = jax.lax.scan(block, state, blocks)
    return jax.checkpoint(run)(state, rows[whole:]) if whole < len(rows) else state
