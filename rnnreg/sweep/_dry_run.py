"""What a sweep would do, and roughly how long it would take."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from rnnreg.data import Fold, Split
from rnnreg.lanes import Plan, tree_bytes
from rnnreg.penalties import leaf_paths
from rnnreg.training import Settings

# Measured rates of one lane on one CPU core by hidden size, in 1e9 operations a second (Elman, plain scan).
_CORE_RATES = {8: 3.0, 16: 6.0, 32: 18.0, 64: 29.0, 128: 50.0}
_ACCELERATOR_STEP_SECONDS = 3e-5  # a step of a scan over many lanes is bound by launches


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What a sweep would do.

    Attributes:
      lanes: runs in all.
      updates: updates of one lane.
      compilations: programs to compile, one a static combination.
      bytes: memory of the stored result.
      seconds: rough estimate of the time of computing, from the number of operations; compilation
        comes on top.
      plans: how the lanes would run, one a static combination.
    """

    lanes: int
    updates: tuple[int, ...]
    compilations: int
    bytes: int
    seconds: float
    plans: tuple[Plan, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.lanes} lanes, {'/'.join(map(str, self.updates))} updates each, "
            f"{self.compilations} compilation(s), {self.bytes / 2**20:.1f} MiB of results, "
            f"about {self.seconds:.0f} s of computing (a rough estimate)",
            *(f"  {plan}" for plan in self.plans),
        ]
        return "\n".join(lines)


def describe(jobs: list[Any]) -> DryRun:
    """What the jobs would do."""

    def seconds(job):
        lanes = job.plan.num_lanes
        share = -(-lanes // len(job.plan.devices)) if job.plan.how == "one_by_one" else 1
        return share * job.lane_seconds

    return DryRun(
        lanes=sum(job.plan.num_lanes for job in jobs),
        updates=tuple(sorted({job.updates for job in jobs})),
        compilations=len(jobs),
        bytes=sum(job.plan.num_lanes * tree_bytes(job.output) for job in jobs),
        seconds=sum(map(seconds, jobs)),
        plans=tuple(job.plan for job in jobs),
    )


def estimate(settings: Settings, data: Split, folds: Fold | None, params: Any) -> tuple[int, float]:
    """Updates of a lane, and a rough time of one lane on one device."""
    num_rows = data.train.xs.shape[0] if folds is None else folds.train_rows.shape[1]
    batch = num_rows if settings.batch_size is None else settings.batch_size
    epoch_rows = num_rows if folds is None or folds.epoch_rows is None else folds.epoch_rows
    updates = settings.num_epochs * max(1, -(-epoch_rows // batch))
    steps = data.train.xs.shape[1]
    leaves = leaf_paths(params)
    weights = sum(leaf.size for path, leaf in leaves.items() if path.split("/")[-1] != "W_embed")
    hidden = max(
        (leaf.shape[0] for path, leaf in leaves.items() if path.endswith("W_hh")), default=16
    )
    operations = 6.0 * batch * steps * weights * updates
    if jax.default_backend() == "cpu":
        sizes = sorted(_CORE_RATES)
        rate = float(np.interp(hidden, sizes, [_CORE_RATES[size] for size in sizes]))
        return updates, operations / (1e9 * rate) + updates * steps * 4e-6
    return updates, updates * steps * _ACCELERATOR_STEP_SECONDS
