"""The choice of λ from the scores of a sweep, and what a careful reader should know of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import check_choice, printable
from rnnreg._signatures import typed
from rnnreg.selection._curve import Curve, one_standard_error
from rnnreg.selection._scores import (
    axis_of,
    best_others,
    check_combine,
    compare,
    direction_of,
    is_zipped,
)
from rnnreg.sweeps import SweepResult

if TYPE_CHECKING:
    import xarray as xr

RULES: tuple[str, ...] = ("min", "1se", "paired_1se")
_SCATTERED = (
    "{1} changes with {0} from trial to trial, so there is no curve of {0} and no rule of one standard error: "
    "every λ is that of the best trial."
)
_NUMBERED = "{0} numbers trials, so there is no rule of one standard error: lam is the number of the best trial."


@dataclasses.dataclass(frozen=True, repr=False)
class Choice:
    """What was chosen, and from what.

    Attributes:
      axis: the axis of λ; or a zipped dimension, or "trial" of a search over several axes: the λ below are then numbers
        of trials, and `values` has what was chosen.
      metric: the score.
      maximise: whether more of it is better.
      rule: "min", "1se" or "paired_1se".
      lam: λ by that rule.
      lam_min: λ_min, the largest minimiser (maximiser, if more is better); of equal trials the first.
      lam_1se: the largest λ whose mean is within one standard error of the best.
      lam_paired_1se: the largest λ whose mean difference to the best is within one standard error of
        that difference.
      values: every hyperparameter (and static value) of the choice; `num_epochs` where it was chosen.
      labels: its label on every dimension but seed and fold, static ones included.
      curve: along the axis, at the chosen values of all others.
      moving: other hyperparameters that change along the axis, as in a search over `rr.zipped` values: no rule of one
        standard error holds then, and every λ is λ_min.
      warnings: what a careful reader should know.
      failed: how many lanes have no finite score: they diverged, or the score of their outputs is no number.
    """

    axis: str
    metric: str
    maximise: bool
    rule: str
    lam: float
    lam_min: float
    lam_1se: float
    lam_paired_1se: float
    values: dict[str, Any]
    labels: dict[str, Any]
    curve: Curve
    moving: tuple[str, ...]
    warnings: tuple[str, ...]
    failed: int = 0

    def __repr__(self) -> str:
        return printable(
            f"Choice({self.axis} = {self.lam:.4g} by {self.rule!r} of {self.metric}; lam_min={self.lam_min:.4g}, "
            f"lam_1se={self.lam_1se:.4g}, lam_paired_1se={self.lam_paired_1se:.4g}, values={self.values}, "
            f"failed={self.failed}, warnings={self.warnings})"
        )


@typed
def choose(
    result: SweepResult,
    *,
    metric: str = "val_loss",
    maximise: bool | None = None,
    axis: str | None = None,
    combine: str = "mean",
    rule: str = "min",
    num_epochs: str = "fixed",
    unfinished: bool = False,
) -> Choice:
    """λ by cross-validation over one axis of a sweep, at the best values of all its other axes.

    Seeds are combined inside a fold first, as what will be used: "mean" scores one network of a random
    seed, "ensemble" the mean prediction of all seeds. A value with a diverged lane never wins. An interrupted sweep is
    refused, unless `unfinished=True` asks for a choice from what there is.

    Args:
      result: a sweep with folds (or a validation set: then there is no standard error).
      metric: a variable of `result.metrics`.
      maximise: whether more of it is better; needed if the metric does not state it. Losses, the scores of `rr.metrics`
        and `rr.metrics.Score` do, and the result remembers it on disk.
      axis: the dimension of λ; None takes the only one that is the λ of a penalty, or else the only one of numbers;
        of a search over several λ at once the zipped dimension itself, which chooses the best trial.
      combine: how seeds are combined, "mean" or "ensemble".
      rule: which λ becomes `choice.lam`: "min", "1se" or "paired_1se".
      num_epochs: "fixed" scores the end of the runs; "common" also chooses the number of epochs, the same
        for all folds, from the recorded history (never each fold at its own best).
      unfinished: choose from an interrupted sweep too: the seeds and folds count that are finished for every value of
        every axis.

    Returns:
      λ by every rule, the values of all axes, and the curve.

    Raises:
      ValueError: an unknown metric, axis, rule or way to combine seeds; a metric whose direction nobody stated, or
        another direction than it states; an interrupted sweep, with `unfinished=True` one without a fold that is
        finished for every value.

    Warns:
      RuntimeWarning: with `unfinished=True`, how many seeds and folds of an interrupted sweep are compared.

    >>> import rnnreg as rr, jax, optax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = rr.sweep(train, {"l2": [1e-3, 1e-1]}, rr.Split(batch, target_times=times),
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> choose(result).lam_min
    0.001
    """
    check_choice(rule, "rule", RULES)
    check_combine(combine)
    check_choice(num_epochs, "num_epochs", ("fixed", "common"))
    if num_epochs == "common" and combine == "ensemble":
        raise ValueError(
            "num_epochs='common' scores the recorded history, which has no ensemble; use combine='mean'."
        )
    axis = axis_of(result, axis)
    options = {"combine": combine, "num_epochs": num_epochs, "unfinished": unfinished}
    compared = compare(result, metric, axis, **options)
    scores, fold_sizes = compared.scores, compared.fold_sizes
    maximise = direction_of(result, metric, maximise)

    at = best_others(result, scores, fold_sizes, axis, maximise)
    lanes = scores.isel(at)
    sizes = fold_sizes.isel({dim: at[dim] for dim in at if dim in fold_sizes.dims}).values
    combined = lanes.mean("seed", skipna=False) if "seed" in lanes.dims else lanes
    finite: Any = np.isfinite(combined)
    if not finite.all("fold").any():
        raise ValueError(
            f"no {axis} has a finite {metric} in every fold, so there is nothing to choose: "
            f"{' '.join(compared.failures)} result.metrics.diverged_at says where; lower the learning rate, or clip "
            "the gradient."
        )
    curve, places = _curve(result, lanes, sizes, axis, maximise)
    moving, numbered = _moving(result, axis), is_zipped(result, axis)
    places = dict.fromkeys(RULES, places["min"]) if moving else places
    place, lam = lanes.isel({axis: places[rule]}), curve.lam
    best, one_se = places["min"], None if moving else places["1se"]
    search = (_NUMBERED if numbered else _SCATTERED).format(axis, " and ".join(moving))
    return Choice(
        axis=axis,
        metric=metric,
        maximise=maximise,
        rule=rule,
        lam=float(lam[places[rule]]),
        lam_min=float(lam[best]),
        lam_1se=float(lam[places["1se"]]),
        lam_paired_1se=float(lam[places["paired_1se"]]),
        values=values_at(result, place),
        labels={
            dim: place.coords[dim].item()
            for dim in (*result.dims, *result.groups[0].static)
            if dim not in ("seed", "fold")
        },
        curve=curve,
        moving=moving,
        warnings=(
            *([compared.interrupted] if compared.interrupted else []),
            *([search] if moving else []),
            *cautions(result, curve, best, one_se, maximise, edges=not numbered),
            *compared.failures,
        ),
        failed=compared.failed,
    )


def _curve(
    result: SweepResult, lanes: xr.DataArray, sizes: np.ndarray, axis: str, maximise: bool
) -> tuple[Curve, dict[str, int]]:
    """The curve along an axis, and the place of each rule."""
    combined = lanes.mean("seed", skipna=False) if "seed" in lanes.dims else lanes
    order = (
        -1 if is_zipped(result, axis) else 1
    )  # of equal trials the first, of equal λ the largest
    scores, lam = combined.transpose(axis, "fold").values, order * lanes[axis].values
    curve, *places = one_standard_error(scores, sizes, lam, maximise=maximise)
    curve = curve._replace(lam=order * curve.lam)
    if lanes.sizes.get("seed", 1) > 1:
        known = lanes.where(np.isfinite(lanes)).transpose(axis, "seed", "fold").values
        per_seed = known @ (sizes / sizes.sum())
        curve = curve._replace(seed_sd=per_seed.std(axis=1, ddof=1))
    return curve, dict(zip(RULES, places, strict=True))


def _moving(result: SweepResult, axis: str) -> tuple[str, ...]:
    """The other hyperparameters that take several values along a zipped axis."""
    for dim, members in result.config["grid"].items():
        if isinstance(members, dict) and axis in (dim, *members):
            return tuple(
                name
                for name in members
                if name != axis and len(np.unique(result.metrics[name].values)) > 1
            )
    return ()


def values_at(result: SweepResult, lane: xr.DataArray) -> dict[str, Any]:
    """The hyperparameters and static values of a place on the axes, constants of the grid included."""
    values: dict[str, Any] = {}
    for name, given in result.config["grid"].items():
        if isinstance(given, dict):  # zipped: coordinates along the dimension
            values.update({hyper: float(lane.coords[hyper]) for hyper in given})
        elif isinstance(given, list):
            values[name] = float(lane.coords[name])
        else:
            values[name] = float(given)
    for name in result.groups[0].static:
        values[name] = lane.coords[name].item()
    if "epoch" in lane.coords:
        values["num_epochs"] = int(lane.coords["epoch"])
    return values


def cautions(
    result: SweepResult, curve: Curve, best: int, one_se: int | None, maximise: bool, *, edges: bool
) -> list[str]:
    """What a reader should know of a curve; without a place of λ_1se nothing is said of that rule."""
    found = []
    order = np.argsort(curve.lam)
    rank = int(np.flatnonzero(order == best)[0])
    if edges and len(order) > 1 and rank == len(order) - 1:
        found.append(
            f"λ_min = {curve.lam[best]:.3g} is the largest value that was tried; try larger ones."
        )
    if edges and len(order) > 1 and rank == 0 and curve.lam[best] > 0:
        found.append(
            f"λ_min = {curve.lam[best]:.3g} is the smallest value that was tried; try smaller ones, or 0."
        )
    if one_se is not None and np.isfinite(curve.se[best]):
        sign = -1 if maximise else 1
        within = (sign * curve.mean <= sign * curve.mean[best] + curve.se[best])[order]
        reach = int(np.flatnonzero(order == one_se)[0])
        if not within[min(rank, reach) : max(rank, reach) + 1].all():
            found.append(
                "the values of λ within one standard error are not contiguous; look at the curve before trusting λ_1se."
            )
        if len(order) > 1 and one_se == order[-1]:
            found.append("λ_1se is the largest value that was tried; try larger ones.")
    elif one_se is not None:
        found.append("one validation set gives no standard error: λ_1se is λ_min; use folds.")
    if result.config["folds"] and any(
        result.config.get("keep_best", []) + result.config.get("early_stopping", [])
    ):
        found.append(
            "each fold stopped at its own best epoch (keep_best or patience), so the curve is too good; sweep without "
            "them, with num_epochs fixed or chosen by choose(num_epochs='common')."
        )
    return found
