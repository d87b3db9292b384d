"""What is said of a sweep that has ended: which lanes did not finish or diverged, and what was done at an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rnnreg._checks import warn_caller
from rnnreg.sweeps._result import SweepResult


def attach(error: BaseException, done: Sequence[Any], result: Callable[[], SweepResult]) -> None:
    """Gives an error what is finished, and a note that says so."""
    finished = sum(int(one.finished.sum()) for one in done)
    begun = any((one.store.num_updates >= 0).any() for one in done)
    lanes = sum(one.finished.size for one in done)
    note = f"{finished} of {lanes} lanes are finished"
    try:
        if begun:
            error.partial_result = result()  # type: ignore[attr-defined]
            what = "them" if finished else "what others have recorded"
            note += f": error.partial_result has {what}."
            error.add_note(note)
    except Exception as other:  # the first error is the one to tell
        error.add_note(f"{finished} lanes were finished, and could not be labelled: {other!r}.")
    if isinstance(error, SystemExit):  # of which Python prints nothing
        warn_caller(f"the sweep was stopped by SIGTERM; {note}")


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
