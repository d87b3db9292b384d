"""Paths of λ: each run of a lane starts from the parameters of the run before, as a scan inside one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rnnreg._checks import described
from rnnreg.data import Split
from rnnreg.lanes import Program, make_plan
from rnnreg.sweeps._compute import Done
from rnnreg.sweeps._config import describe_sweep
from rnnreg.sweeps._ended import warn_of_lanes
from rnnreg.sweeps._job import Job, make_job
from rnnreg.sweeps._label import label
from rnnreg.sweeps._lane import given_of
from rnnreg.sweeps._parts import Part
from rnnreg.sweeps._request import Request
from rnnreg.sweeps._result import SweepResult
from rnnreg.sweeps._starts import warn_of_equal_starts
from rnnreg.training import Run, Train, whole


def one_path(train: Train, lane: dict[str, Any], shared: dict[str, Any]) -> Run:
    """The runs of one path, `[n, …]`: the first starts as any run, each other one where the one before ended."""
    hyper, data, key, params = given_of(lane, shared)
    first = jax.tree.map(lambda values: values[0], lane["path"])
    start = train.init(hyper | first, data, key=key, params=params).params

    def go_on(params: Any, here: Any) -> tuple[Any, Run]:
        run = whole(train, hyper | here, data, key, params)[1]
        ended = jax.tree.map(lambda new, old: new.astype(old.dtype), run.params, params)
        return ended, run

    return jax.lax.scan(go_on, start, lane["path"])[1]


def sweep_path(
    train: Train, grid: Mapping[str, Any], data: Split, request: Request, *, down: bool, params: Any
) -> SweepResult:
    """A sweep along one axis, whose runs start from one another by rising (or falling) values.

    Args:
      train: the run.
      grid: one axis, and constants.
      data: the rows.
      request: key, seeds, folds and plan.
      down: whether the largest value comes first.
      params: where the first run starts, or None.

    Returns:
      A result with the labels of a sweep; `config["path"]` says how it came about.

    Raises:
      ValueError: bad arguments, or not one axis, before anything compiles.
    """
    job = make_job(train, data, request._replace(grid=grid), static={}, params=params)
    names = [axis.name for axis in job.axes]
    if len(names) != 1:
        raise ValueError(
            f"a path has one axis, whose values follow one another; got {names} in {described(grid)}. Give a list for "
            "λ and numbers for all else."
        )
    if request.refit:
        raise ValueError("a path has no fold 'all'; call rr.selection.refit on the choice.")
    (axis,) = job.axes
    num = len(axis.labels)
    order = np.argsort(next(iter(axis.values.values())), kind="stable")
    order = order[::-1] if down else order
    lanes, along = _lanes(job, list(axis.values), num, order)
    plan = make_plan(
        len(lanes["seed"]),
        lane_seconds=job.cost.lane_seconds * num,
        lane_bytes=job.cost.lane_bytes,
        hidden_size=job.cost.hidden_size,
        plan=request.plan,
        width=request.width,
        chunk=request.chunk,
        max_memory=request.max_memory,
    )
    warn_of_equal_starts([job.alike])
    program = Program(one_path, plan, lanes, job.shared, owner=job.train)
    found = program.collect(lanes, job.shared)
    store = jax.tree.map(lambda leaf: leaf[:, along].reshape(-1, *leaf.shape[2:]), found)
    finished = np.ones(job.plan.num_lanes, dtype=bool)
    job = dataclasses.replace(job, plan=dataclasses.replace(plan, num_lanes=job.plan.num_lanes))
    done = Done(
        store,
        finished,
        finished,
        seconds_compile=program.compile_seconds,
        fingerprint=program.fingerprint,
        compiled=program.compiled_now,
    )
    metrics, group = label(job, store, finished, request.seeds)
    config = describe_sweep([job], [done], request._replace(grid=grid), {}, Part())
    config["path"] = "down" if down else "up"
    warn_of_lanes(metrics, interrupted=False)
    return SweepResult(metrics, (group,), config, str(plan))


def _lanes(
    job: Job, names: list[str], num: int, order: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """One lane for each seed and fold, with its values in the order of the path; and the way back to the labels."""
    lanes = job.lanes  # seed × fold × axis

    def every(values):
        return values.reshape(-1, num)

    hyper = {name: every(values) for name, values in lanes["hyper"].items()}
    return {
        "hyper": {name: values[:, 0] for name, values in hyper.items() if name not in names},
        "path": {name: hyper[name][:, order] for name in names},
        "seed": every(lanes["seed"])[:, 0],
        "fold": every(lanes["fold"])[:, 0],
    }, np.argsort(order)
