"""Every combination of a sweep's axes in one table: its hyperparameters, and its score in each fold."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnreg.selection._choice import values_at
from rnnreg.selection._curve import mean_and_se
from rnnreg.selection._scores import direction_of, scores_of
from rnnreg.sweeps import SweepResult


class Combinations(NamedTuple):
    """The table; a row for each combination of axes and static values, in the order of the sweep.

    Attributes:
      values: hyperparameters and static values by name, constants of the grid included.
      folds: `[n, K]` scores, seeds combined; NaN where a lane diverged or did not finish. K = 1 without folds.
      sizes: `[n, K]`, validation rows.
      mean: `[n]`, over folds, weighted by their sizes, as `choose` has it.
      se: `[n]`, its standard error over folds; NaN without folds.
      diverged: `[n]`, how many lanes diverged.
      unfinished: `[n]`, how many lanes did not finish.
      history: `[n, R]`, the mean over seeds and folds at each record; None if there is none, or of an ensemble.
      epochs: `[R]`, after which it was recorded.
      fold_labels: K names, or [] without folds.
      maximise: whether more is better.
    """

    values: list[dict[str, Any]]
    folds: np.ndarray
    sizes: np.ndarray
    mean: np.ndarray
    se: np.ndarray
    diverged: np.ndarray
    unfinished: np.ndarray
    history: np.ndarray | None
    epochs: np.ndarray
    fold_labels: list[str]
    maximise: bool

    @property
    def swept(self) -> list[str]:
        """The names that take several values."""
        first = self.values[0]
        return [name for name in first if any(one[name] != first[name] for one in self.values)]


def combinations(
    result: SweepResult, *, metric: str, maximise: bool | None, combine: str
) -> Combinations:
    """The table of a sweep.

    Args:
      result: the sweep; it may be interrupted.
      metric: a variable of `result.metrics`.
      maximise: whether more of it is better; None asks the metric.
      combine: how seeds are combined inside a fold, "mean" or "ensemble".

    Returns:
      A row for each combination.

    Raises:
      ValueError: what `choose` says of the metric and its direction.
    """
    scores = scores_of(result, metric, combine)
    maximise = direction_of(result, metric, maximise)
    metrics = result.metrics
    has_folds = "fold" in scores.dims
    if has_folds:
        metrics = metrics.sel(fold=[label for label in metrics["fold"].values if label != "all"])
    dims = [*result.groups[0].static, *(d for d in result.dims if d not in ("seed", "fold"))]
    shape = tuple(metrics.sizes[dim] for dim in dims)

    def rows(name: str) -> np.ndarray:
        """`[n, K, …]` of a variable, mean over seeds."""
        found = metrics[name]
        found = found.mean("seed", skipna=False) if "seed" in found.dims else found
        found = found if has_folds else found.expand_dims("fold")
        missing = [dim for dim in dims if dim not in found.dims]
        found = found.expand_dims({dim: metrics[dim] for dim in missing})
        values = found.transpose(*dims, "fold", ...).values
        return values.reshape(-1, *values.shape[len(dims) :])

    folds = rows(str(scores.name))
    folds = np.where(np.isfinite(folds), folds, np.nan)
    sizes = rows("fold_size") if has_folds else np.ones_like(folds)
    mean, se = mean_and_se(folds, sizes)
    history = None
    if combine == "mean" and f"history_{metric}" in metrics:
        shares = sizes / sizes.sum(axis=1, keepdims=True)
        history = np.einsum("nkr,nk->nr", rows(f"history_{metric}"), shares)
    place = scores.isel({dim: 0 for dim in ("seed", "fold") if dim in scores.dims})
    lanes = [dim for dim in ("seed", "fold") if dim in metrics["finished"].dims]
    count = lambda flags: flags.sum(lanes).transpose(*dims).values.reshape(-1)  # noqa: E731
    return Combinations(
        values=[
            values_at(result, place.isel(dict(zip(dims, at, strict=True))))
            for at in np.ndindex(shape)
        ],
        folds=folds,
        sizes=sizes,
        mean=mean,
        se=se,
        diverged=count(metrics["diverged_at"] >= 0),
        unfinished=count(~metrics["finished"].astype(bool)),
        history=history,
        epochs=metrics["epoch"].values,
        fold_labels=[str(label) for label in metrics["fold"].values] if has_folds else [],
        maximise=maximise,
    )
