"""A run in blocks of epochs: one program for all of them, which is told where to start and where to stop."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._linalg import marked
from rnnreg.data import Split, scale_batch
from rnnreg.training._checks import check_reads
from rnnreg.training._epoch import epoch, is_stopped, recorded
from rnnreg.training._measure import finish
from rnnreg.training._records import Params, Run, TrainState
from rnnreg.training._segments import NO_UPDATE
from rnnreg.training._settings import Settings, as_hyper
from rnnreg.training._start import start


class Progress(NamedTuple):
    """A run on its way.

    Attributes:
      state: what the next update needs.
      run: what the run will produce. Its history is filled record by record, and the rest at the end.
      gradient_norm: of the last update of the record that is under way.
      stopped: whether that record makes no updates.
    """

    state: TrainState
    run: Run
    gradient_norm: Array
    stopped: Array


def go_on(
    settings: Settings,
    progress: Progress,
    hyper: Mapping[str, Any],
    data: Split,
    first: Array,
    last: Array,
    *,
    key: Array,
    params: Params | None = None,
) -> Progress:
    """The run after the epochs from `first` up to `last`, which are traced numbers.

    The loops run as often as they are told, so the numbers do not depend on where a run was cut. They have no reverse
    mode, which `advance` has.

    Args:
      settings: the static choices.
      progress: the run before. Of a run that has not begun only the shapes count.
      hyper: every number of the run, by name.
      data: the rows.
      first: epochs that are done; 0 begins the run.
      last: epochs that will be done, more than `first`; all of them end the run.
      key: root of the run's randomness.
      params: the parameters to start from; None draws them from the key.

    Returns:
      The run afterwards.
    """
    hyper, total, stride = as_hyper(hyper), settings.num_epochs, settings.record_every
    batch = scale_batch(data.train, data.scaling)

    def record(number, progress):
        begin, end = number * stride, jnp.minimum((number + 1) * stride, total)
        now, stop = jnp.maximum(begin, first), jnp.minimum(end, last)
        stopped = jnp.where(now == begin, is_stopped(settings, progress.state), progress.stopped)

        def train(state, norm):
            def one(_, carry):
                return epoch(settings, carry[0], hyper, batch, data.epoch_rows)

            return jax.lax.fori_loop(now, stop, one, (state, norm))

        def skip(state, norm):
            return state, jnp.full_like(norm, NO_UPDATE)

        def measured(state):
            state, values = recorded(settings, state, hyper, data, batch, stopped)
            return _strong((state, values | {"gradient_norm": norm}))

        def as_before(state):
            at = functools.partial(jax.lax.dynamic_index_in_dim, index=number, keepdims=False)
            return state, {name: at(values) for name, values in history.items()}

        before, history = (progress.state, progress.gradient_norm), progress.run.history
        state, norm = _strong(jax.lax.cond(stopped, skip, train, *before))
        state, values = jax.lax.cond(stop == end, measured, as_before, state)
        put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=number, axis=0)
        history = {name: put(each, values[name]) for name, each in history.items()}
        return Progress(state, progress.run._replace(history=history), norm, stopped)

    def finished(progress):
        history = dict(progress.run.history)
        norms = history["gradient_norm"]
        history["gradient_norm"] = marked(norms == NO_UPDATE, norms)
        run = finish(settings, progress.state, hyper, data)
        return progress._replace(run=_strong(run._replace(history=history)))

    state = jax.lax.cond(
        first == 0,
        lambda: _strong(start(settings, hyper, data, key=key, params=params)),
        lambda: progress.state,
    )
    records = (first // stride, (last + stride - 1) // stride)
    progress = jax.lax.fori_loop(*records, record, progress._replace(state=state))
    progress = jax.lax.cond(last == total, finished, lambda progress: progress, progress)
    check_reads(hyper)
    return progress


def recorded_so_far(
    settings: Settings, progress: Progress, num_epochs: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """What runs have recorded that stopped on their way, in NumPy.

    Args:
      settings: the static choices.
      progress: of several runs, leaves `[L, …]`.
      num_epochs: the epochs that they have done.

    Returns:
      The history `[L, R, …]` by name, NaN from the first record on that is not there; where each run diverged, `[L]`,
      as `finish` tells it; and the updates of each, `[L]`.
    """
    num_records = num_epochs // settings.record_every
    history = {name: np.array(values) for name, values in progress.run.history.items()}
    for name, values in history.items():
        if np.issubdtype(values.dtype, np.inexact):
            values[:, num_records:] = np.nan
        if name == "gradient_norm":
            values[values == NO_UPDATE] = np.nan
    diverged_at, step = np.asarray(progress.state.diverged_at), np.asarray(progress.state.step)
    if num_records:
        lost = ~np.isfinite(history["train_loss"][:, num_records - 1])
        diverged_at = np.where((diverged_at < 0) & lost, step, diverged_at)
    return history, diverged_at, step


def _strong(tree: Any) -> Any:
    """The tree in types that do not give way to others, as they are between two programs."""

    def strong(leaf):
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strong, tree)
