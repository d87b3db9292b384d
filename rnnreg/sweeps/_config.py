"""What a result says of its sweep: what was asked for, and what the runs were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnreg.runtime import environment
from rnnreg.sweeps._describe import describe_key
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
      done: what was computed of each, `rnnreg.sweeps._run._Done`.
      request: what was asked of all.
      static: the static axes.
      part: which of the lanes the call trained.
    """
    settings = [job.train.settings for job in jobs]
    by_group = {
        **{name: [job.description[name] for job in jobs] for name in jobs[0].description},
        "num_epochs": [each.num_epochs for each in settings],
        "batch_size": [each.batch_size for each in settings],
        "segment_steps": [each.segment_steps for each in settings],
        "updates": [job.cost.updates for job in jobs],
        "keep_best": [each.keep_best for each in settings],
        "monitor": [each.monitor for each in settings],
        "proximal": [list(each.proximal) for each in settings],
        "early_stopping": [each.patience is not None for each in settings],
        "epoch_rows": [None if job.folds is None else job.folds.rows.epoch_rows for job in jobs],
        "program_sha256": [one.fingerprint for one in done],  # None if the sweep ended before
    }
    return {
        "grid": {name: _listed(value) for name, value in request.grid.items()},
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
        "compilations": sum(one.compiled for one in done),
        "seconds_compile": sum(one.seconds_compile for one in done),
        "seconds_compute": sum(one.seconds_compute for one in done),
        "interrupted": any(one.stopped is not None for one in done),
        "environment": environment(),
    }


def _listed(value: Any) -> Any:
    values = getattr(value, "values", None)
    if isinstance(values, dict):
        return {name: array.tolist() for name, array in values.items()}
    return np.asarray(value, dtype=np.float64).tolist()
