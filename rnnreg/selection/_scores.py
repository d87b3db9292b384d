"""The scores of a sweep that are compared: of one metric, along one axis, lane by lane."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnnreg._checks import check_choice, warn_caller
from rnnreg.selection._finished import finished_part
from rnnreg.sweeps import SweepResult, Zipped
from rnnreg.training import Train

if TYPE_CHECKING:
    import xarray as xr


def check_asked(
    train: Any, metric: str, grid: Mapping[str, Any], *, axis: str | None = None
) -> None:
    """Raises if a metric on validation rows, or an axis, is none of those that a sweep will have; before it runs.

    A function of static values is not looked at.
    """
    if isinstance(train, Train):
        known = [f"val_{name}" for name in ("loss", *train.settings.metrics)]
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1)
            raise ValueError(
                f"metric must be a score on validation rows, one of {known}; got {metric!r}."
                + (f" Did you mean {near[0]!r}?" if near else "")
            )
    names = [
        *grid,
        *(name for one in grid.values() if isinstance(one, Zipped) for name in one.values),
    ]
    if axis is not None and axis not in names:
        raise ValueError(f"axis must be that of λ, one of {names}; got {axis!r}.")


class Compared(NamedTuple):
    """The scores of the lanes that are finished for every value of every axis.

    Attributes:
      scores: along the axes, the fold (one, if there are none), the seed unless they are an ensemble, and the epoch.
      fold_sizes: what each fold weighs.
      interrupted: how many seeds and folds of an interrupted sweep these are, in words, or "".
      failed: how many lanes have no finite score.
      failures: the same in words.
    """

    scores: xr.DataArray
    fold_sizes: xr.DataArray
    interrupted: str
    failed: int
    failures: tuple[str, ...]


def check_combine(combine: str) -> None:
    """Raises if nobody knows such a way to combine seeds."""
    check_choice(combine, "combine", ("mean", "ensemble"), hint="It says how seeds are combined.")


def compare(
    result: SweepResult,
    metric: str,
    axis: str,
    *,
    combine: str = "mean",
    num_epochs: str = "fixed",
    unfinished: bool = False,
) -> Compared:
    """The scores by which λ is chosen, as `choose` describes them.

    Raises:
      ValueError: an unknown metric or axis, or an interrupted sweep that may not be compared.

    Warns:
      RuntimeWarning: how many seeds and folds of an interrupted sweep are compared.
    """
    scores = _along(result, scores_of(result, metric, combine, num_epochs), axis)
    used, counts = finished_part(result, every_seed=combine == "ensemble")
    if counts and not unfinished:
        raise ValueError(
            f"the sweep was interrupted: only {counts} are finished for every λ, and all of it may choose another. Run "
            "it again (with keep=folder it goes on where it stopped), or give unfinished=True, to compare these."
        )
    interrupted = ""
    if counts:
        interrupted = (
            f"the sweep was interrupted, so {counts} are compared, which are finished for every λ."
        )
        warn_caller(interrupted)
    scores = scores.sel({dim: labels for dim, labels in used.items() if dim in scores.dims})
    failed, failures = _failures(result, metric, scores, used)
    if "fold" in scores.dims:
        fold_sizes = result.metrics["fold_size"].sel(fold=scores.fold)
    else:
        scores = scores.expand_dims("fold")
        fold_sizes = scores.isel({dim: 0 for dim in scores.dims if dim != "fold"}).copy(data=[1.0])
    return Compared(scores, fold_sizes, interrupted, failed, failures)


def _failures(
    result: SweepResult, metric: str, scores: xr.DataArray, used: dict[str, list[Any]]
) -> tuple[int, tuple[str, ...]]:
    """How many lanes diverged, of all, or have no finite score, of those that are compared; and the same in words."""
    lost: Any = ~np.isfinite(scores)
    lost = lost.all("epoch") if "epoch" in lost.dims else lost
    every = result.metrics["diverged_at"] >= 0
    diverged = every.sel(used)
    if "seed" in diverged.dims and "seed" not in scores.dims:
        diverged = diverged.any("seed")  # an ensemble is lost with one of its seeds
    others, count = max(0, int(lost.sum()) - int(diverged.sum())), int(every.sum())
    found = []
    if count:
        found.append(
            f"{count} lane{'s' * (count > 1)} diverged; a λ with a diverged lane never wins."
        )
    if others:
        found.append(
            f"{others} more lane{'s' * (others > 1)} {'have' if others > 1 else 'has'} no finite {metric}; a λ with "
            "such a lane never wins."
        )
    return count + others, tuple(found)


def best_others(
    result: SweepResult,
    scores: xr.DataArray,
    fold_sizes: xr.DataArray,
    axis: str,
    maximise: bool,
) -> dict[Any, int]:
    """The place on every other axis of the lane with the best mean over seeds and (weighted) folds.

    Of equal ones, that with the largest λ.
    """
    others = [dim for dim in scores.dims if dim not in (axis, "seed", "fold")]
    combined = scores.mean("seed", skipna=False) if "seed" in scores.dims else scores
    weighted = over_folds(combined, fold_sizes).transpose(axis, *others)
    signed = -weighted.values if maximise else weighted.values
    ranked = np.where(np.isfinite(signed), signed, np.inf)
    ties = ranked == ranked.min()
    strength = np.where(ties, strength_of(result, weighted, but=axis), -1)
    place = np.unravel_index(np.argmax(strength), ranked.shape)
    return {dim: int(number) for dim, number in zip(others, place[1:], strict=True)}


def strength_of(result: SweepResult, scores: xr.DataArray, *, but: str | None = None) -> np.ndarray:
    """How strongly each place on the axes of some scores is penalised: the sum of the ranks of its λ, but one."""
    import xarray as xr

    lambdas = {name for group in result.config.get("penalties", []) for name in group} - {but}
    found = xr.zeros_like(scores, dtype=int)
    for name in sorted(lambdas & set(map(str, scores.coords))):
        lam = scores.coords[name]
        ranks = np.unique(lam.values, return_inverse=True)[1].reshape(lam.shape)
        found = found + lam.copy(data=ranks)
    return found.transpose(*scores.dims).values


def over_folds(scores: xr.DataArray, fold_sizes: xr.DataArray) -> xr.DataArray:
    """The mean over folds, weighted by their sizes, which a static axis may change; NaN if one of them is."""
    shares = fold_sizes / fold_sizes.sum("fold")
    return (scores * shares).sum("fold", skipna=False)


def axis_of(result: SweepResult, axis: str | None) -> str:
    """The axis of λ: as given, or the only one that is the λ of a penalty, or else the only one of numbers.

    Args:
      result: the sweep.
      axis: what the user gave; None asks for it.

    Returns:
      Its name; if all that may be λ change together along a zipped dimension, that of the dimension.

    Raises:
      ValueError: no such axis, or several.
    """
    axes = _axes(result)
    if axis is not None:
        if axis in ("seed", "fold"):
            raise ValueError(f"axis must be that of λ, one of {axes}; got {axis!r}.")
        return axis
    lambdas = {name for group in result.config.get("penalties", []) for name in group}
    for known in ([name for name in axes if name in lambdas], axes):
        swept = [name for name in known if result.metrics[name].size > 1] or known
        if len(swept) == 1:
            return swept[0]
        along = {dim for name in swept for dim in result.metrics[name].dims}
        if swept and len(along) == 1 and along <= set(result.dims):  # all of one search
            return str(*along)
        if swept:
            raise ValueError(f"several axes may be that of λ: give axis=..., one of {swept}.")
    raise ValueError(
        "the sweep has no axis of numbers to choose over: give several values in its grid, such as "
        '{"l2": [0, 1e-3, 1e-2]}.'
    )


def is_zipped(result: SweepResult, axis: str) -> bool:
    """Whether an axis is a zipped dimension itself, whose labels number trials."""
    return isinstance(result.config.get("grid", {}).get(axis), dict)


def _axes(result: SweepResult) -> list[str]:
    """The swept hyperparameters and static values that are numbers; of a zipped axis its members."""
    found = []
    for dim in (*result.dims, *(name for group in result.groups[:1] for name in group.static)):
        members = result.config.get("grid", {}).get(dim)
        found += list(members) if isinstance(members, dict) else [dim]
    return [
        name
        for name in found
        if name not in ("seed", "fold") and result.metrics[name].dtype.kind in "iuf"
    ]


def scores_of(
    result: SweepResult, metric: str, combine: str = "mean", num_epochs: str = "fixed"
) -> xr.DataArray:
    """The score of every lane; of the mean prediction over seeds with "ensemble", of every record with "common".

    Raises:
      ValueError: the result does not have it, or it is not one number for each lane.
    """
    metrics = result.metrics
    name = f"ensemble_{metric}" if combine == "ensemble" else metric
    name = f"history_{metric}" if num_epochs == "common" else name
    if name not in metrics:
        start = name.removesuffix(metric)  # "", "ensemble_" or "history_"
        known = [
            str(n).removeprefix(start)
            for n in metrics.data_vars
            if str(n).startswith(f"{start}val_")
        ]
        near = [n for n in known if n == f"val_{metric}"] or difflib.get_close_matches(
            metric, known
        )
        raise ValueError(
            f"metric {metric!r} needs the variable {name!r}, which the result lacks; it has {known}. "
            + (f"Did you mean {near[0]!r}? " if near else "")
            + "Scores on validation rows need folds or a validation set."
        )
    scores = metrics[name]
    if num_epochs == "common":  # a run that diverged or stopped scores nothing anywhere
        scores = scores.where(metrics["finished"] & (metrics["diverged_at"] < 0))
    own = set(metrics[name].dims) - {*result.dims, *result.groups[0].static, "epoch"}
    if own:
        raise ValueError(
            f"metric {metric!r} is an array for each lane, with the axes {sorted(map(str, own))}, and a choice needs "
            "one number: add a metric that is their mean, or one of them."
        )
    return scores


def _along(result: SweepResult, scores: xr.DataArray, axis: str) -> xr.DataArray:
    """The scores with the axis of λ as a dimension, which may be a hyperparameter of a zipped one."""
    if axis in scores.coords and axis not in scores.dims:  # a hyperparameter of a zipped dimension
        (dimension,) = scores.coords[axis].dims or ("",)
        if dimension in scores.dims:
            scores = scores.swap_dims({dimension: axis})
    if axis not in scores.dims:
        raise ValueError(
            f"axis {axis!r} is not a dimension of {scores.name!r}; give axis=..., one of {_axes(result)}."
        )
    return scores


def direction_of(result: SweepResult, metric: str, given: bool | None) -> bool:
    """Whether more of a metric is better, as it states itself in a result or as it was given."""
    name, stated = score_name(metric), None
    for metrics in result.config.get("metrics", []):
        stated = metrics.get(name, {}).get("maximise", stated)
    return agreed(metric, stated, given)


def score_name(metric: str) -> str:
    """The name of the score whose variable is meant.

    >>> score_name("val_accuracy")
    'accuracy'
    """
    return re.sub("^(history_|ensemble_)?(train|val)_", "", metric)


def agreed(metric: str, stated: bool | None, given: bool | None) -> bool:
    """Whether more of a metric is better, as it states itself or as it was given.

    Raises:
      ValueError: neither says so, or they differ.
    """
    name = score_name(metric)
    stated = False if name == "loss" else stated
    if stated is None and given is None:
        raise ValueError(
            f"nobody stated whether more of {metric!r} is better: give choose(..., maximise=True), or maximise=False "
            f"if less is better; or make_train(metrics={{{name!r}: rr.metrics.Score(function, maximise=...)}})."
        )
    if None not in (stated, given) and stated is not given:
        raise ValueError(
            f"of {metric!r} {'more' if stated else 'less'} is better, as it states itself; got maximise={given!r}."
        )
    return bool(given if stated is None else stated)
