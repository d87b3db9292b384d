"""Successive halving: trials train together, and the worst are dropped on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jax import Array

from rnnreg._signatures import typed
from rnnreg.data import Batch, Split
from rnnreg.lanes import Plan
from rnnreg.selection._rungs import (
    Halving,
    at_records,
    check_schedule,
    num_cuts,
    rungs_down,
    rungs_up,
)
from rnnreg.selection._search import Bracket, search
from rnnreg.sweeps import Stages
from rnnreg.training import Train


@typed
def halving(
    train: Train | Callable[[Mapping[str, Any]], Train],
    grid: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    metric: str = "val_loss",
    maximise: bool | None = None,
    factor: int = 3,
    min_epochs: int | None = None,
    static: Mapping[str, Iterable[Any]] | None = None,
    params: Any = None,
    plan: str | Plan = "auto",
    width: int | None = None,
    chunk: int | None = None,
    max_memory: int | None = None,
    progress: bool = True,
) -> Halving:
    """Successive halving over the trials of a grid: of `factor` trials one goes on from rung to rung.

        r_i = r_0 · η^i epochs        n_i = ⌊n_0 / η^i⌋ trials, at least one

    A trial is one combination of values of all axes, and its lanes are its seeds and folds. All trials train for r_0
    epochs. Then they are ranked by the mean of their scores over seeds and folds, as `choose` combines them, and the
    best 1/η go on from where they are, with all their seeds and folds; nothing trains twice. The last rung is the end
    of the runs. A trial that goes all the way has the numbers of the same sweep: one by one on a CPU bit for bit,
    otherwise up to rounding. So the choice differs from that of a sweep only if the best trial was dropped early. Early
    scores favour trials that begin well, such as large learning rates: where a λ pays late, begin with more epochs, or
    take `hyperband`.

    A rung compares the last record before it and no mean of several: that is what a run of so many epochs would be
    chosen by, the seeds and folds are averaged already, and a mean over time would favour trials that begin well. With
    `keep_best` it compares the best record so far. A rung between two records is moved to the later one
    (`make_train(record_every=…)`). Of equal trials those with the larger λ go on, and then the first in the order of
    the grid. A trial with a lane that diverged is ranked last and goes no further.

    The lanes that are left are dealt into calls anew, so the work shrinks with them. One by one on a CPU that compiles
    nothing; under `vmap` and in chunks on other numbers of lanes at most one program per rung. Between rungs, what
    lanes carry (parameters, state of the optimiser) waits in the memory of the host.

    Args:
      train: as in `rr.sweep`.
      grid: as in `rr.sweep`; `{"trial": rr.selection.sample(space, 64, key=key)}` for random trials.
      data: as in `rr.sweep`; it needs folds or a validation set.
      key: as in `rr.sweep`.
      seeds: as in `rr.sweep`.
      folds: as in `rr.sweep`.
      metric: a score that is recorded during training, "val_loss" or "val_" and the name of a metric.
      maximise: whether more of it is better; needed if the metric does not state it, as in `choose`.
      factor: η; of so many trials one goes on.
      min_epochs: r_0, the first rung; None takes the least that leaves one trial (or fewer than η) at the end,
        num_epochs / η^k.
      static: as in `rr.sweep`; its combinations are trials too, compared after equal numbers of epochs.
      params: as in `rr.sweep`.
      plan: as in `rr.sweep`.
      width: as in `rr.sweep`.
      chunk: as in `rr.sweep`.
      max_memory: as in `rr.sweep`.
      progress: show a bar on anything longer than a few seconds; it counts parts of lanes too.

    Returns:
      A `Halving`: the choice, what was compared at each rung, the updates that it took, and the `SweepResult`. Refit
      the choice with `rr.selection.refit(train, found.result, found.choice, data, key=key)`.

    Raises:
      ValueError: bad arguments, as in `rr.sweep` and `choose`, fewer than two trials, or no rung before the end; after
        training, if no trial has a finite score.
      KeyboardInterrupt: Ctrl-C.
      SystemExit: SIGTERM.
      Exception: what a run raises. The `partial_result` of any error while lanes train is the `SweepResult` so far:
        the lanes that ended, and the histories of the others.

    Warns:
      RuntimeWarning: lanes diverged, and others as in `rr.sweep`.

    Source: Karnin, Koren & Somekh 2013; Jamieson & Talwalkar 2016.

    >>> import optax, rnnreg as rr, jax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> split = rr.Split(batch, target_times=times)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=9)
    >>> found = halving(train, {"l2": [0, 1e-4, 1e-3, 1e-2, 1e-1, 1]}, split,
    ...     folds=rr.selection.blocked_folds(2), key=jax.random.key(0), progress=False)
    >>> [rung[1:5] for rung in found.rungs]
    [(3, 6, 0, 2), (9, 2, 0, 2)]
    >>> found.num_updates, found.full_updates
    (60, 108)
    """
    stages = Stages(
        train,
        grid,
        data,
        key=key,
        seeds=seeds,
        folds=folds,
        static=static,
        params=params,
        plan=plan,
        width=width,
        chunk=chunk,
        max_memory=max_memory,
    )
    num_trials, settings = int(np.prod(stages.shape, dtype=int)), stages.settings
    check_schedule(settings, min_epochs, factor)
    if num_trials < 2:
        raise ValueError(
            "halving compares trials, and this grid has one; give several values, such as "
            '{"l2": [0, 1e-3, 1e-2]}.'
        )
    if min_epochs is None:
        rungs = rungs_down(settings.num_epochs, max(1, num_cuts(num_trials, factor)), factor)
    else:
        rungs = rungs_up(settings.num_epochs, min_epochs, factor)
    bracket = Bracket(np.ones(stages.shape, dtype=bool), at_records(rungs, settings.record_every))
    return search(
        stages, [bracket], metric, maximise, factor=factor, method="halving", progress=progress
    )
