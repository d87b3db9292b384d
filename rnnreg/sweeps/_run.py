"""The sweep itself: plan, compute, label."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from rnnreg._checks import check_choice
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split, as_split
from rnnreg.lanes import Plan
from rnnreg.sweeps._axes import read_seeds, read_static
from rnnreg.sweeps._bar import Bar
from rnnreg.sweeps._compute import Done, run_jobs
from rnnreg.sweeps._config import describe_sweep
from rnnreg.sweeps._disk import read_path
from rnnreg.sweeps._dry_run import DryRun, check_memory, describe
from rnnreg.sweeps._ended import attach, warn_of_lanes
from rnnreg.sweeps._job import Job, make_job
from rnnreg.sweeps._join import join
from rnnreg.sweeps._keep import (
    Keeper,
    check_memory_of_kept,
    open_keepers,
    with_kept_plan,
)
from rnnreg.sweeps._label import empty, label
from rnnreg.sweeps._parts import Part, join_others, own_lanes, read_part
from rnnreg.sweeps._request import Request
from rnnreg.sweeps._result import SweepResult
from rnnreg.sweeps._signals import Signals
from rnnreg.sweeps._starts import warn_of_equal_starts
from rnnreg.training import Train

Params = dict[str, Any]


@typed
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
    params: Params | Callable[[Mapping[str, Any]], Params] | None = None,
    plan: str | Plan = "auto",
    width: int | None = None,
    chunk: int | None = None,
    max_memory: int | None = None,
    keep: str | Path | None = None,
    shard: tuple[int, int] | None = None,
    progress: bool = True,
    on_interrupt: str = "raise",
) -> SweepResult:
    """Every run of grid × seeds × folds, in one compiled program for each static combination.

    Lanes differ by seed only in their key, `fold_in(key, seed)`: every λ, learning rate and fold shares its
    initialisation and order of rows, so differences are paired, and a longer grid or more seeds leave the
    old lanes as they were. A lane equals `train(hyper, take_fold(data, fold), key=fold_in(key, seed))`.

    On the CPU, lanes that run one by one have the same bits for any number of devices and lanes: every core runs the
    same compiled program, in which a lane has no neighbours. Everything else is equal up to rounding: lanes in chunks,
    under `vmap` or on accelerators, a lone lane whose rows are split over the cores (the plan says which), another
    processor or version, and the run alone, which is compiled as a program of its own. `rr.verify` runs lanes again.

    Long lanes train in blocks of epochs of a second or two, so that progress, Ctrl-C and what is kept come within
    seconds; the numbers do not depend on the blocks. A stop loses nothing: what is finished is with what is raised, and
    in `keep`.

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
      params: the parameters that every lane starts from, or a function of the static values; None draws them from each
        lane's key.
      plan: how lanes run: "auto", "one_by_one", "chunks", "vmap", "split_rows", or a ready `rr.lanes.Plan` (see
        `rr.lanes.make_plan`).
      width: lanes a call; None chooses.
      chunk: lanes together, for "chunks"; None chooses.
      max_memory: bytes that the lanes which run at the same time may take, as the plan estimates them; fewer of
        them run together, or on fewer devices. None takes half of what is free.
      keep: a folder for finished lanes, written about once a second, and for what unfinished ones have learned, written
        every few seconds. After a kill, a crash or a power cut the same call loads the first, goes on with the second,
        runs the others by the same plan, and ends with the numbers of an uninterrupted sweep, bit for bit;
        `config["lanes_loaded"]` and `config["lanes_resumed"]` say how many there were. Values, seeds and folds may be
        added or reordered, and only new lanes run: a lane is known by its hyperparameters, seed, rows of the fold and
        given start. In chunks or under `vmap` new lanes run in calls of the same width, so they equal those of a sweep
        from scratch up to rounding. If a lone fold gets company, or a fold is longer than all before, all run again:
        the program or the padding is another one. Anything else that decides a number must be the same: network, loss,
        optimiser, data, key, versions, processor, precision, plan (of lanes that run one by one on a CPU the number of
        cores decides none). What Python functions do inside the program is not compared, nor are versions of CUDA.
        Damaged files are found by their check sums, missing ones by the gap that they leave, and a damaged manifest is
        made again from the others. Several processes may write into one folder, for the same network, data and key.
        None keeps nothing.
      shard: (i, n) trains the part i of n, counted from 0; `finished` marks all lanes that are in `keep` by then. Parts
        run at once or in turn, on machines of one kind that see the folder, such as the tasks of a job array
        (`#SBATCH --array=0-9`): `shard=(int(os.environ["SLURM_ARRAY_TASK_ID"]), 10)`. The same call without `shard`
        then loads all lanes and trains what is missing, with the bits of one sweep by the same plan. (No call is wider
        than a part needs: one by one that changes no bit.) None: all lanes; or, if JAX runs as several processes
        (`jax.distributed.initialize`), a part for each on its own devices, which waits until the lanes of the others
        are in `keep`, and returns all. If one dies, JAX ends the others; the same call goes on.
      progress: show a bar on anything longer than a few seconds.
      on_interrupt: what Ctrl-C does: "raise" a KeyboardInterrupt, which ends a script, or "return" the result so far,
        in which `finished` marks what was done.

    Returns:
      A `SweepResult`. Lanes run seed by seed and fold by fold, so whole paths of λ are finished early; on each path the
      ends of the grid come first, then its middle, so that a part of a path is a coarse curve.

    Raises:
      KeyboardInterrupt: Ctrl-C.
      SystemExit: SIGTERM, with the status 143, if the program has no handler of its own for it.
      ValueError: bad arguments, or sizes that no memory here holds, before anything compiles; or `keep` has lanes of
        another sweep, and the message names each field in which the two differ.
      OSError: `keep` cannot be read or written.
      Exception: what a run raises. If lanes are finished, its `partial_result` is the `SweepResult` so far, as that of
        a KeyboardInterrupt and a SystemExit is.

    Warns:
      RuntimeWarning: a device is out of memory, and half as many lanes run at the same time; lanes diverged, the sweep
        was interrupted, or every seed starts from the same parameters; files in `keep` are damaged, missing or of
        another sweep, and their lanes run again; a metric fails on the mean prediction of all seeds.

    >>> import jax, optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> split = rr.Split(batch, target_times=times)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = sweep(train, {"l2": [0, 1e-3]}, split, seeds=2, key=jax.random.key(0), progress=False)
    >>> result.metrics.train_loss.dims, result.params_at(l2=1e-3, seed=1)["layer_0"]["W_hh"].shape
    (('l2', 'seed'), (4, 4))

    The finished lanes can be kept, and a longer grid goes on from there:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = {"key": jax.random.key(0), "keep": folder, "progress": False}
    ...     first = sweep(train, {"l2": [0, 1e-3]}, split, **options)
    ...     longer = sweep(train, {"l2": [0, 1e-4, 1e-3]}, split, **options)
    >>> first.config["lanes_loaded"], longer.config["lanes_loaded"]
    (0, 2)

    Three jobs share the lanes, and a fourth call joins them:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = {"seeds": 3, "key": jax.random.key(0), "keep": folder, "progress": False}
    ...     parts = [sweep(train, {"l2": [0, 1e-3]}, split, shard=(i, 3), **options) for i in range(3)]
    ...     merged = sweep(train, {"l2": [0, 1e-3]}, split, **options)
    >>> [int(part.metrics.finished.sum()) for part in parts], merged.config["lanes_loaded"]
    ([2, 4, 6], 6)
    """
    check_choice(on_interrupt, "on_interrupt", ("raise", "return"))
    folder = None if keep is None else read_path(keep, folder=True)
    static, seeds = read_static(static), read_seeds(seeds)
    part = read_part(shard, folder)
    share = part.share(math.prod(map(len, static.values())))
    request = Request(grid, key, seeds, folds, refit, plan, width, chunk, max_memory, share)
    jobs = make_jobs(train, data, request, static=static, params=params, folder=folder)
    own = own_lanes([job.plan for job in jobs], part)
    done = [
        Done(empty(job), np.zeros(job.plan.num_lanes, dtype=bool), mine[np.argsort(job.order)])
        for job, mine in zip(jobs, own, strict=True)
    ]
    keepers: list[Keeper | None] = [None] * len(jobs)
    if folder is not None:
        keepers[:] = open_keepers(folder, jobs, request, [one[:2] for one in done])

    def result():
        return labelled(jobs, done, request, static, part)

    with Signals() as signals:
        with Bar(sum(int(one.todo.sum()) for one in done), shown=progress) as bar:
            done = run_jobs(jobs, done, keepers, signals, bar)
        if part.joined:
            with signals.listening():
                done = join_others(done, keepers, progress=progress)
        stopped = next((one.stopped for one in done if one.stopped is not None), None)

        def returned(error):
            return on_interrupt == "return" and type(error) is KeyboardInterrupt

        if stopped is not None and not returned(stopped):
            attach(stopped, done, result)
            raise stopped
        made = result()
        try:
            signals.answer()  # one that came meanwhile
        except (KeyboardInterrupt, SystemExit) as error:
            if not returned(error):
                attach(error, done, lambda: made)
                raise
    warn_of_lanes(made.metrics, interrupted=made.config["interrupted"])
    return made


@typed
def dry_run(
    train: Train | Callable[[Mapping[str, Any]], Train],
    grid: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    refit: bool = False,
    static: Mapping[str, Iterable[Any]] | None = None,
    params: Any = None,
    plan: str | Plan = "auto",
    width: int | None = None,
    chunk: int | None = None,
    max_memory: int | None = None,
) -> DryRun:
    """What `rr.sweep` would do with the same arguments, and roughly how long it would take; nothing is compiled.

    Args:
      train: as in `rr.sweep`.
      grid: as in `rr.sweep`.
      data: as in `rr.sweep`.
      key: as in `rr.sweep`.
      seeds: as in `rr.sweep`.
      folds: as in `rr.sweep`.
      refit: as in `rr.sweep`.
      static: as in `rr.sweep`.
      params: as in `rr.sweep`.
      plan: as in `rr.sweep`.
      width: as in `rr.sweep`.
      chunk: as in `rr.sweep`.
      max_memory: as in `rr.sweep`.

    Returns:
      Lanes, updates, compilations, bytes, seconds and plans; `print` shows them in words.

    Raises:
      ValueError: bad arguments, as in `rr.sweep`.

    >>> import jax, optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> planned = dry_run(train, {"l2": [0, 1e-3]}, batch, seeds=2, key=jax.random.key(0))
    >>> planned.lanes, planned.updates, planned.compilations
    (4, (20,), 1)
    """
    static = read_static(static)
    request = Request(grid, key, read_seeds(seeds), folds, refit, plan, width, chunk, max_memory)
    return describe(list(_jobs(train, data, request, static=static, params=params)))


def labelled(
    jobs: list[Job],
    done: list[Done],
    request: Request,
    static: dict[str, list[Any]],
    part: Part,
    *,
    ensembles: bool = True,
) -> SweepResult:
    """What was computed of the jobs, as a result; with or without predictions and the scores of their means."""
    parts = [
        label(job, one.store, one.finished, request.seeds, ensembles=ensembles)
        for job, one in zip(jobs, done, strict=True)
    ]
    metrics = join([dataset for dataset, _ in parts], static)
    config = describe_sweep(jobs, done, request, static, part)
    return SweepResult(
        metrics, tuple(group for _, group in parts), config, "\n".join(map(str, jobs))
    )


def make_jobs(train: Any, data: Any, request: Request, **options: Any) -> list[Job]:
    """The job of each static combination, checked before anything compiles; warns of seeds that start alike."""
    jobs = list(_jobs(train, data, request, **options))
    check_memory(jobs)
    warn_of_equal_starts([job.alike for job in jobs])
    return jobs


def _jobs(
    train: Any,
    data: Any,
    request: Request,
    *,
    static: dict[str, list[Any]],
    params: Any,
    folder: Path | None = None,
) -> Iterator[Job]:
    """The job of each static combination, checked; with the plan of the lanes that are in the folder."""
    if static and isinstance(train, Train):
        raise ValueError(
            f"static axes {list(static)} need `train` as a function of them, such as "
            "lambda static: rr.make_train(rr.network([rr.cells.elman(static['hidden_size'])], 1), …)."
        )
    if isinstance(request.folds, Iterator):  # which can be read once
        request = request._replace(folds=list(request.folds))
    for combination in product(*static.values()):
        chosen = dict(zip(static, combination, strict=True))
        rows: Any = data(chosen) if callable(data) else data
        own = request if folder is None else with_kept_plan(folder, chosen, request)
        job = make_job(
            train if isinstance(train, Train) or not callable(train) else train(chosen),
            as_split(rows),
            own,
            static=chosen,
            params=params(chosen) if callable(params) else params,
        )
        if folder is not None:
            check_memory_of_kept(folder, job, own)
        yield job
