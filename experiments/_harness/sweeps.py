"""What an experiment takes from sweeps: finished ones."""

from __future__ import annotations

import rnnreg as rr


def finished(result: rr.SweepResult) -> rr.SweepResult:
    """The result, if every lane of it is finished.

    Args:
        result: of `rr.sweep`, or from disk.

    Returns:
        The same.

    Raises:
        ValueError: lanes are not finished, and their NaN must not pass for runs that learned nothing.
    """
    done = result.metrics["finished"]
    if not done.all():
        raise ValueError(
            f"the sweep was interrupted: {int(done.sum())} of {done.size} lanes are finished. An experiment measures "
            "finished sweeps only, since a lane that did not run looks like one that learned nothing. Run it again."
        )
    return result
