"""The sweep itself: plan, compile, run call by call, label."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, Literal, overload

import jax
import numpy as np
from jax import Array

from rnnreg.data import Batch, Split, as_split
from rnnreg.lanes import Program
from rnnreg.runtime import environment
from rnnreg.sweeps._axes import read_seeds, read_static
from rnnreg.sweeps._dry_run import DryRun, describe
from rnnreg.sweeps._job import make_job
from rnnreg.sweeps._label import empty, join, label
from rnnreg.sweeps._result import SweepResult
from rnnreg.training import Train


@overload
def sweep(
    train: Train | Callable[[Mapping[str, Any]], Train],
    grid: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    refit: bool = False,
    static: Mapping[str, Iterable[Any]] | None = None,
    plan: str = "auto",
    width: int | None = None,
    chunk: int | None = None,
    dry_run: Literal[False] = False,
    progress: bool = True,
) -> SweepResult: ...


@overload
def sweep(
    train: Train | Callable[[Mapping[str, Any]], Train],
    grid: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    refit: bool = False,
    static: Mapping[str, Iterable[Any]] | None = None,
    plan: str = "auto",
    width: int | None = None,
    chunk: int | None = None,
    dry_run: Literal[True],
    progress: bool = True,
) -> DryRun: ...


def sweep(
    train: Train | Callable[[Mapping[str, Any]], Train],
    grid: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    refit: bool = False,
    static: Mapping[str, Iterable[Any]] | None = None,
    plan: str = "auto",
    width: int | None = None,
    chunk: int | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> SweepResult | DryRun:
    """Every run of grid × seeds × folds, in one compiled program a static combination.

    Lanes differ by seed only in their key, `fold_in(key, seed)`: every λ, learning rate and fold shares its
    initialisation and order of rows, so differences are paired, and a longer grid or more seeds leave the
    old lanes as they were, bit for bit where they run one by one (one lane alone may have its rows split over the
    cores, and lanes in chunks or under `vmap` round differently: the plan says which). A lane equals
    `train(hyper, take_fold(data, fold), key=fold_in(key, seed))`.

    Args:
      train: from `make_train`, or a function of the static values that returns one.
      grid: by name, a list of values (an axis), a number (no axis), or `rr.zipped(...)`; λ = 0 is welcome.
      data: the rows, or a function of the static values.
      key: root of all randomness.
      seeds: how many, or which.
      folds: a scikit-learn splitter, `rr.selection.blocked_folds(5)`, any function of the split, or a list of
        (training rows, validation rows).
      refit: add the fold "all", every run on all the training rows, in the same program.
      static: axes that set shapes, `{"hidden_size": [16, 32]}`, each combination compiled by itself.
      plan: "auto", "one_by_one", "chunks", "vmap" or "split_rows"; how lanes run (see `rr.lanes.make_plan`).
      width: lanes a call; None chooses.
      chunk: lanes together, for "chunks"; None chooses.
      dry_run: print and return what would be done, and compile nothing.
      progress: show a bar on anything longer than a few seconds.

    Returns:
      A `SweepResult`; after Ctrl-C, one whose `finished` marks what was done. With `dry_run`, a `DryRun`.

    Raises:
      ValueError: bad arguments, before anything compiles.

    Warns:
      RuntimeWarning: lanes diverged, or the sweep was interrupted.

    >>> import rnnreg as rr, optax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> split = rr.Split(batch, target_times=times)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = sweep(train, {"l2": [0, 1e-3]}, split, seeds=2, key=jax.random.key(0), progress=False)
    >>> result.metrics.train_loss.dims, result.params_at(l2=1e-3, seed=1)["layer_0"]["W_hh"].shape
    (('l2', 'seed'), (4, 4))
    """
    static = read_static(static)
    seed_numbers = read_seeds(seeds)
    jobs = []
    for combination in product(*static.values()):
        chosen = dict(zip(static, combination, strict=True))
        made = train if isinstance(train, Train) else train(chosen)
        if static and isinstance(train, Train):
            raise ValueError(
                f"static axes {list(static)} need `train` as a function of them, such as "
                "lambda static: rr.make_train(rr.network([rr.cells.elman(static['hidden_size'])], 1), …)."
            )
        rows = as_split(data(chosen) if callable(data) else data)
        job = make_job(
            made,
            grid,
            rows,
            key=key,
            seeds=seed_numbers,
            folds=folds,
            refit=refit,
            static=chosen,
            plan=plan,
            width=width,
            chunk=chunk,
        )
        jobs.append(job)
    if dry_run:
        described = describe(jobs)
        print(described)
        return described
    return _run_jobs(jobs, grid, seed_numbers, static, progress)


def _run_jobs(jobs, grid, seeds, static, progress) -> SweepResult:
    from tqdm import tqdm

    total = sum(job.plan.num_lanes for job in jobs)
    datasets, groups, hashes = [], [], []
    seconds_compile = seconds_compute = 0.0
    interrupted = False
    bar = tqdm(total=total, unit="lane", desc="sweep", delay=3, disable=not progress)
    with bar:
        for job in jobs:
            store = empty(job)
            finished = np.zeros(job.plan.num_lanes, dtype=bool)
            try:
                if not interrupted:
                    bar.set_description("compiling", refresh=False)
                    program = Program(job.lane, job.plan, job.lanes, job.shared)
                    bar.set_description("sweep", refresh=False)
                    bar.unpause()  # the rate is that of running
                    seconds_compile += program.compile_seconds
                    hashes.append(program.fingerprint)
                    start = time.perf_counter()
                    for numbers, outputs in program.run(job.lanes, job.shared):
                        jax.tree.map(
                            lambda kept, new, n=numbers: kept.__setitem__(n, new), store, outputs
                        )
                        finished[numbers] = True
                        bar.update(len(numbers))
                        seconds_compute += time.perf_counter() - start
                        start = time.perf_counter()
            except KeyboardInterrupt:
                interrupted = True
            dataset, group = label(job, store, finished, seeds)
            datasets.append(dataset)
            groups.append(group)
    metrics: Any = join(datasets, static)
    config = {
        "grid": {name: _listed(value) for name, value in grid.items()},
        "seeds": [int(seed) for seed in seeds],
        "folds": jobs[0].fold_labels,
        "static": static,
        "dims": jobs[0].dims,
        "loss": getattr(jobs[0].train.settings.loss, "__name__", "loss"),
        "penalties": list(jobs[0].train.settings.penalties),
        "num_epochs": [job.train.settings.num_epochs for job in jobs],
        "batch_size": [job.train.settings.batch_size for job in jobs],
        "segment_steps": [job.train.settings.segment_steps for job in jobs],
        "updates": [job.updates for job in jobs],
        "keep_best": [job.train.settings.keep_best for job in jobs],
        "early_stopping": [job.train.settings.patience is not None for job in jobs],
        "epoch_rows": [job.shared["folds"].epoch_rows if job.fold_labels else None for job in jobs],
        "lanes": total,
        "compilations": len(hashes),
        "seconds_compile": seconds_compile,
        "seconds_compute": seconds_compute,
        "program_sha256": hashes,
        "recurrence": [job.recurrence for job in jobs],
        "interrupted": interrupted,
        "environment": environment(),
    }
    _warn(metrics, interrupted)
    return SweepResult(metrics, tuple(groups), config, "\n".join(map(str, jobs)))


def _listed(value: Any) -> Any:
    values = getattr(value, "values", None)
    if isinstance(values, dict):
        return {name: array.tolist() for name, array in values.items()}
    return np.asarray(value, dtype=np.float64).tolist()


def _warn(metrics, interrupted: bool) -> None:
    finished = metrics["finished"]
    if interrupted:
        warnings.warn(
            f"the sweep was interrupted: {int(finished.sum())} of {finished.size} lanes are finished; "
            "result.metrics.finished marks them, all other values are NaN.",
            RuntimeWarning,
            stacklevel=4,
        )
    diverged = int((metrics["diverged_at"].values >= 0).sum())
    if diverged:
        warnings.warn(
            f"{diverged} of {finished.size} lanes diverged and were frozen at their last finite state; "
            "result.metrics.diverged_at holds the step, and their scores are NaN.",
            RuntimeWarning,
            stacklevel=4,
        )
