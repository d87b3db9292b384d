"""What a result says of its sweep: what was asked for, and what the runs were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnnreg.runtime import environment
from rnnreg.sweeps._axes import Zipped, read_numbers
from rnnreg.sweeps._describe import describe_key
from rnnreg.sweeps._facts import facts_of_plan, kernel_of
from rnnreg.sweeps._job import Job
from rnnreg.sweeps._parts import Part
from rnnreg.sweeps._request import Request


def describe_sweep(
    jobs: Sequence[Job],
    done: Sequence[Any],
    request: Request,
    static: dict[str, list[Any]],
    part: Part,
) -> dict[str, Any]:
    """What was asked for and what the runs were, ready for JSON; `by_group` names the lists by static combination.

    Args:
      jobs: one for each static combination.
      done: what was computed of each, `rnnreg.sweeps._compute.Done`.
      request: what was asked of all.
      static: the static axes.
      part: which of the lanes the call trained.
    """
    described = [describe_job(job) for job in jobs]
    by_group = {
        **{name: [each[name] for each in described] for name in described[0]},
        "program_sha256": [one.fingerprint for one in done],  # None if the sweep ended before
        "lane_program_sha256": [one.lane_program for one in done],  # None without a folder
    }
    return {
        "grid": {name: _listed(name, value) for name, value in request.grid.items()},
        "seeds": [int(seed) for seed in request.seeds],
        "key": describe_key(request.key),
        "folds": jobs[0].fold_labels,
        "static": static,
        "dims": jobs[0].dims,
        **by_group,
        "by_group": list(by_group),
        "lanes": sum(job.plan.num_lanes for job in jobs),
        "shard": None if part.of == 1 else [part.number, part.of],
        "lanes_loaded": sum(one.loaded for one in done),
        "lanes_resumed": sum(one.resumed for one in done),
        "compilations": sum(one.compiled for one in done),
        "seconds_compile": sum(one.seconds_compile for one in done),
        "seconds_compute": sum(one.seconds_compute for one in done),
        "interrupted": any(one.stopped is not None for one in done),
        "environment": environment(),
    }


def describe_job(job: Job) -> dict[str, Any]:
    """What the runs of one static combination were, and how they ran, ready for JSON."""
    settings = job.train.settings
    return {
        **job.description,
        "num_epochs": settings.num_epochs,
        "batch_size": settings.batch_size,
        "segment_steps": settings.segment_steps,
        "updates": job.cost.updates,
        "keep_best": settings.keep_best,
        "monitor": settings.monitor,
        "proximal": list(settings.proximal),
        "early_stopping": settings.patience is not None,
        "epoch_rows": None if job.folds is None else job.folds.rows.epoch_rows,
        "plans": facts_of_plan(job.plan),
        "kernel": kernel_of(job),
    }


def _listed(name: str, value: Any) -> Any:
    if isinstance(value, Zipped):
        return {each: array.tolist() for each, array in value.values.items()}
    return read_numbers(name, value).tolist()
