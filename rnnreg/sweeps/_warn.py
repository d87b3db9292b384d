"""What a sweep warns of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnnreg._checks import warn_caller
from rnnreg.sweeps._job import Job


def warn_of_equal_starts(jobs: Sequence[Job]) -> None:
    """Warns if the seeds of a job start from the same parameters."""
    alike = next((job.alike for job in jobs if job.alike), [])
    if alike:
        warn_caller(
            f"every seed starts from the same parameters of {', '.join(alike)}, which do not depend on the key: a "
            "module that was made before keeps its own. Give a function that makes it, "
            "rr.from_equinox(lambda key: …) or rr.from_flax(lambda rngs: …), or take one seed."
        )


def warn_of_lanes(metrics: Any, *, interrupted: bool) -> None:
    """Warns if lanes did not finish or diverged."""
    finished = metrics["finished"]
    if interrupted:
        warn_caller(
            f"the sweep was interrupted: {int(finished.sum())} of {finished.size} lanes are finished; "
            "result.metrics.finished marks them, all other values are NaN."
        )
    diverged = int((metrics["diverged_at"].values >= 0).sum())
    if diverged:
        warn_caller(
            f"{diverged} of {finished.size} lanes diverged and were frozen at their last finite state; "
            "result.metrics.diverged_at holds the step, and their scores are NaN."
        )
