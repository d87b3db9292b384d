"""Rungs of a search: when trials are compared, how many go on, and the record of what was done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnnreg._checks import check_count, printable
from rnnreg.selection._choice import Choice
from rnnreg.selection._scores import over_folds
from rnnreg.sweeps import SweepResult
from rnnreg.training import Settings

if TYPE_CHECKING:
    import xarray as xr


class Rung(NamedTuple):
    """One comparison of trials in a search.

    Attributes:
      bracket: the number of the bracket, from 0; 0 in `halving`.
      num_epochs: after so many epochs of each.
      num_trials: how many trials were compared.
      num_diverged: how many of them have no finite score in every fold and seed; they do not go on.
      num_survivors: how many go on; at the last rung those that have ended.
      best: the best score.
    """

    bracket: int
    num_epochs: int
    num_trials: int
    num_diverged: int
    num_survivors: int
    best: float


@dataclasses.dataclass(frozen=True, repr=False)
class Halving:
    """What successive halving or Hyperband found, and what it took.

    Attributes:
      result: every lane; those that were dropped are not `finished`, and their histories end where they were dropped.
      choice: the best trial of those that trained to the end, for `refit`.
      scores: by trial, `score` and `survived` at the rungs (`epoch`), and the `bracket`; NaN where a trial was not
        compared, or has no finite score.
      rungs: what was compared, and what went on.
      num_updates: the updates that all lanes made together.
      full_updates: the updates of a plain sweep over the same trials.
    """

    result: SweepResult
    choice: Choice
    scores: xr.Dataset
    rungs: tuple[Rung, ...]
    num_updates: int
    full_updates: int

    @property
    def values(self) -> dict[str, Any]:
        """The hyperparameters (and static values) of the chosen trial."""
        return self.choice.values

    @property
    def saved(self) -> float:
        """The share of the updates of a plain sweep that were not made."""
        return 1 - self.num_updates / self.full_updates

    def __repr__(self) -> str:
        several = len({rung.bracket for rung in self.rungs}) > 1
        head = ["bracket"] * several + ["epochs", "trials", "diverged", "go on", self.choice.metric]
        rows = [
            [*[str(rung.bracket)] * several, *map(str, rung[1:5]), f"{rung.best:.4g}"]
            for rung in self.rungs
        ]
        table = ["  ".join(f"{entry:>8}" for entry in row) for row in (head, *rows)]
        values = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.values.items()
        )
        return printable(
            "\n".join(
                [
                    f"Halving: {self.num_updates:,} of {self.full_updates:,} updates, {self.saved:.0%} saved",
                    *table,
                    f"  chosen: {values}",
                ]
            )
        )


def rungs_up(num_epochs: int, min_epochs: int, factor: int) -> list[int]:
    """Rungs that begin with so few epochs.

    >>> rungs_up(100, 5, 3)
    [5, 15, 45, 100]
    """
    rungs = [min_epochs]
    while rungs[-1] * factor < num_epochs:
        rungs.append(rungs[-1] * factor)
    return [*rungs, num_epochs]


def rungs_down(num_epochs: int, cuts: int, factor: int) -> list[int]:
    """Rungs that end with all epochs after so many cuts; parts of an epoch are rounded up.

    >>> rungs_down(100, 3, 3)
    [4, 12, 34, 100]
    """
    return [-(-num_epochs // factor**left) for left in range(cuts, -1, -1)]


def at_records(rungs: Sequence[int], record_every: int) -> list[int]:
    """Rungs at records: what lies between two is moved to the later one. The last rung is a record.

    >>> at_records([4, 12, 34, 100], 10)
    [10, 20, 40, 100]
    """
    moved = {-(-rung // record_every) * record_every for rung in rungs}
    return [*sorted(rung for rung in moved if rung < rungs[-1]), rungs[-1]]


def check_schedule(settings: Settings, min_epochs: int | None, factor: int) -> None:
    """Raises if there is no rung before the end of the runs."""
    num_epochs, stride = settings.num_epochs, settings.record_every
    check_count(factor, "factor", least=2, hint="Of so many trials one goes on.")
    if min_epochs is not None:
        check_count(min_epochs, "min_epochs", hint="It is the first rung.")
        if min_epochs >= num_epochs:
            raise ValueError(
                f"min_epochs must be below the {num_epochs} epochs of the runs, which are compared before they end; "
                f"got {min_epochs}."
            )
    if stride >= num_epochs:
        raise ValueError(
            f"trials are compared at records before the end, and there is none: num_epochs={num_epochs}, "
            f"record_every={stride}. Give make_train a smaller record_every, or more epochs."
        )


def num_cuts(num_trials: int, factor: int) -> int:
    """How often so many trials can be cut before one is left.

    >>> [num_cuts(num_trials, 3) for num_trials in (2, 3, 26, 27)]
    [0, 1, 2, 3]
    """
    cuts = 0
    while factor ** (cuts + 1) <= num_trials:
        cuts += 1
    return cuts


def num_left(num_trials: int, cuts: int, factor: int) -> int:
    """How many of so many trials are left after some cuts: at least one."""
    return max(1, num_trials // factor**cuts)


def trial_epochs(num_trials: int, rungs: Sequence[int], factor: int) -> int:
    """The epochs of all trials together, if no more are dropped than have to be.

    >>> trial_epochs(9, [1, 3, 9], 3)
    21
    """
    parts = np.diff([0, *rungs])
    left = [num_left(num_trials, cuts, factor) for cuts in range(len(rungs))]
    return int(parts @ left)


def best_first(scores: np.ndarray, strength: np.ndarray, *, maximise: bool) -> np.ndarray:
    """The places of the finite scores, the best first, of equal ones the most strongly penalised, and then the first.

    >>> best_first(np.array([2.0, np.nan, 1.0, 1.0]), np.array([0, 1, 0, 1]), maximise=False).tolist()
    [3, 2, 0]
    """
    order = np.lexsort((-strength, -scores if maximise else scores))
    return order[np.isfinite(scores[order])]


def score_at(so_far: SweepResult, metric: str, settings: Settings, num_epochs: int) -> xr.DataArray:
    """The score of every lane after so many epochs; NaN of one that diverged, or is not there yet.

    Ended runs have their final score, others that of their last record; with `keep_best`, of the best record so far.
    """
    metrics = so_far.metrics
    if num_epochs == settings.num_epochs:
        return metrics[metric].where(metrics["finished"])
    history = metrics[f"history_{metric}"].sel(epoch=slice(None, num_epochs))
    last = history.isel(epoch=-1, drop=True)
    if settings.keep_best:
        told = metrics[f"history_val_{settings.monitor}"].sel(epoch=slice(None, num_epochs))
        worst = -math.inf if settings.maximise else math.inf
        told = told.fillna(worst)
        best = told.argmax("epoch") if settings.maximise else told.argmin("epoch")
        last = history.isel(epoch=best, drop=True).where(last.notnull())
    return last.where(metrics["diverged_at"] < 0)


def over_runs(scores: xr.DataArray, so_far: SweepResult) -> xr.DataArray:
    """The score of every trial: the mean over seeds, then over folds by their sizes, as `choose` takes it."""
    scores = scores.mean("seed", skipna=False)
    return over_folds(scores, so_far.metrics["fold_size"]) if "fold" in scores.dims else scores
