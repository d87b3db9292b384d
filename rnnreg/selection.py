"""Choosing λ: blocked folds, the one-standard-error rules, and the refit."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jax import Array

from rnnreg._checks import is_count, printable
from rnnreg.data import (
    Batch,
    Split,
    as_split,
    check_span,
    check_target_times,
    row_weights,
    widened,
)
from rnnreg.networks import Network, describe
from rnnreg.sweeps import SweepResult, sweep
from rnnreg.training import Settings, Train

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Choice", "Curve", "blocked_folds", "choose", "one_standard_error", "refit"]

RULES = ("min", "1se", "paired_1se")


def blocked_folds(
    num_folds: int, *, embargo: Any = 0
) -> Callable[[Split], list[tuple[np.ndarray, np.ndarray]]]:
    """K blocks of consecutive target times; each validates once, and the rest trains.

    A training row with any target between the first and the last target of the validation block is
    left out (with a target at every step that purges a window's rows on either side). Inputs may
    cross the border: at a forecast they are known.

    Args:
      num_folds: K.
      embargo: also leave out training rows with a target within this time of the block: a number in the unit of
        `target_times`; a timedelta of Python, NumPy or pandas if they are dates.

    Returns:
      A function of the split, which must have `target_times`; give it to `sweep(..., folds=…)`.

    Raises:
      ValueError: fewer than two folds, or a negative embargo; of the function: no `target_times`, or an embargo in
        another unit than theirs.
      TypeError: an embargo that is no length of time.

    >>> import rnnreg as rr
    >>> batch, times = rr.data.windows(np.arange(9.0), window=3)
    >>> split = rr.Split(batch, target_times=times)
    >>> [(len(train), val.tolist()) for train, val in blocked_folds(3, embargo=1)(split)]
    [(3, [0, 1]), (2, [2, 3]), (3, [4, 5])]

    The same by dates:

    >>> days = np.datetime64("2024-03-01") + np.arange(9)
    >>> dated = rr.Split(batch, target_times=rr.data.windows(np.arange(9.0), window=3, times=days)[1])
    >>> [len(train) for train, _ in blocked_folds(3, embargo=np.timedelta64(1, "D"))(dated)]
    [3, 2, 3]
    """
    if not is_count(num_folds, least=2):
        raise ValueError(f"num_folds must be an int of at least 2; got {num_folds!r}.")
    check_span(embargo, "embargo")

    def split_rows(split: Split) -> list[tuple[np.ndarray, np.ndarray]]:
        if split.target_times is None:
            raise ValueError(
                "blocked_folds needs Split.target_times, the [N, 2] first and last target time of each row; "
                "rr.data.windows returns them."
            )
        first, last = check_target_times(split.target_times, len(split.train.ys))
        order = np.argsort(last, kind="stable")
        if len(order) < num_folds:
            raise ValueError(f"{num_folds} folds need at least as many rows; got {len(order)}.")
        pairs = []
        for block in np.array_split(order, num_folds):
            start, stop = widened(first[block].min(), last[block].max(), embargo, "embargo")
            pairs.append((np.flatnonzero((last < start) | (first > stop)), np.sort(block)))
        return pairs

    return split_rows


class Curve(NamedTuple):
    """A cross-validation curve along one axis.

    Attributes:
      lam: `[n]` values, in the order of the sweep.
      mean: `[n]`, the mean over folds, weighted by their sizes.
      se: `[n]`, its standard error over folds, as glmnet's cvsd.
      difference: `[n]`, the mean over folds of the difference to λ_min.
      paired_se: `[n]`, the standard error of that difference.
      folds: `[n, K]`, the folds' scores, seeds combined.
      fold_sizes: `[K]`.
      seed_sd: `[n]`, the standard deviation between seeds of the mean over folds; shown apart, in no rule.
    """

    lam: np.ndarray
    mean: np.ndarray
    se: np.ndarray
    difference: np.ndarray
    paired_se: np.ndarray
    folds: np.ndarray
    fold_sizes: np.ndarray
    seed_sd: np.ndarray


@dataclasses.dataclass(frozen=True, repr=False)
class Choice:
    """What was chosen, and from what.

    Attributes:
      axis: the axis of λ.
      metric: the score.
      maximise: whether more of it is better.
      rule: "min", "1se" or "paired_1se".
      lam: λ by that rule.
      lam_min: λ_min, the largest minimiser (maximiser, if more is better).
      lam_1se: the largest λ whose mean is within one standard error of the best.
      lam_paired_1se: the largest λ whose mean difference to the best is within one standard error of
        that difference.
      values: every hyperparameter (and static value) of the choice; `num_epochs` where it was chosen.
      labels: its label on every dimension but seed and fold, static ones included.
      curve: along the axis, at the chosen values of all others.
      warnings: what a careful reader should know.
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
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return printable(
            f"Choice({self.axis} = {self.lam:.4g} by {self.rule!r} of {self.metric}; lam_min={self.lam_min:.4g}, "
            f"lam_1se={self.lam_1se:.4g}, lam_paired_1se={self.lam_paired_1se:.4g}, values={self.values}, "
            f"warnings={self.warnings})"
        )


def one_standard_error(
    folds: Any, fold_sizes: Any, lam: Any, *, maximise: bool = False
) -> tuple[Curve, int, int, int]:
    """glmnet's λ_min and λ_1se, and the paired rule, from the folds' scores.

        cvm = Σ w_k m_k / Σ w_k        cvsd = √(Σ w_k (m_k − cvm)² / Σ w_k / (K − 1))

    λ_min is the largest minimiser of cvm; λ_1se the largest λ anywhere with cvm ≤ cvm(λ_min) + cvsd(λ_min).
    The paired rule takes differences to λ_min fold by fold, so that what all λ share cancels. Scores that
    are not finite never win. If more is better, λ_min is the largest maximiser (it keeps glmnet's name), and the rules
    hold for −m_k.

    Args:
      folds: `[n, K]` scores m_k.
      fold_sizes: `[K]` weights w_k.
      lam: `[n]`.
      maximise: whether more is better.

    Returns:
      The curve, and the places of λ_min, λ_1se and the paired λ_1se.

    Raises:
      ValueError: no value has a finite score in every fold.

    Source: Friedman, Hastie & Tibshirani 2010 (glmnet), `cv.glmnet`.

    >>> _, best, one_se, _ = one_standard_error([[1.0, 2.0], [1.1, 2.0], [3.0, 3.0]], [1, 1], [0.1, 1, 10])
    >>> best, one_se
    (0, 1)
    """
    folds, sizes, lam = (np.asarray(a, dtype=np.float64) for a in (folds, fold_sizes, lam))
    folds = np.where(np.isfinite(folds), folds, np.nan)
    num_folds = folds.shape[1]
    weights = sizes / sizes.sum()

    def mean_and_se(values):
        # not a matrix product, which may round equal rows differently and break a tie
        mean = np.sum(values * weights, axis=1)
        spread = np.sum(np.square(values - mean[:, None]) * weights, axis=1)
        return mean, np.sqrt(spread / (num_folds - 1)) if num_folds > 1 else np.full(
            len(mean), np.nan
        )

    mean, se = mean_and_se(folds)
    finite = np.isfinite(mean)
    if not finite.any():
        raise ValueError(
            "no value on the axis has a finite score in every fold: lanes diverged, or did not finish."
        )
    sign = -1 if maximise else 1
    ranked = np.where(finite, sign * mean, np.inf)
    best = _largest(lam, ranked == ranked.min())
    difference, paired_se = mean_and_se(folds - folds[best])
    one_se = paired = best
    if num_folds > 1:
        one_se = _largest(lam, ranked <= ranked[best] + se[best])
        paired = _largest(lam, finite & (sign * difference <= paired_se))
    curve = Curve(lam, mean, se, difference, paired_se, folds, sizes, np.full(len(lam), np.nan))
    return curve, best, one_se, paired


def choose(
    result: SweepResult,
    *,
    metric: str = "val_loss",
    maximise: bool | None = None,
    axis: str | None = None,
    combine: str = "mean",
    rule: str = "min",
    num_epochs: str = "fixed",
) -> Choice:
    """λ by cross-validation over one axis of a sweep, at the best values of all its other axes.

    Seeds are combined inside a fold first, as what will be used: "mean" scores one network of a random
    seed, "ensemble" the mean prediction of all seeds. A value with a diverged lane never wins.

    Args:
      result: a sweep with folds (or a validation set: then there is no standard error).
      metric: a variable of `result.metrics`.
      maximise: whether more of it is better; needed if the metric does not state it. Losses, the scores of `rr.metrics`
        and `rr.metrics.Score` do, and the result remembers it on disk.
      axis: the dimension of λ; None takes the only one that is the λ of a penalty, or else the only one of numbers.
      combine: how seeds are combined, "mean" or "ensemble".
      rule: which λ becomes `choice.lam`: "min", "1se" or "paired_1se".
      num_epochs: "fixed" scores the end of the runs; "common" also chooses the number of epochs, the same
        for all folds, from the recorded history (never each fold at its own best).

    Returns:
      λ by every rule, the values of all axes, and the curve.

    Raises:
      ValueError: an unknown metric, axis, rule or way to combine seeds; a metric whose direction nobody stated, or
        another direction than it states.

    >>> import rnnreg as rr, jax, optax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = rr.sweep(train, {"l2": [1e-3, 1e-1]}, rr.Split(batch, target_times=times),
    ...     folds=blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> choose(result).lam_min
    0.001
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES}; got {rule!r}.")
    if combine not in ("mean", "ensemble"):
        raise ValueError(f"combine must be 'mean' or 'ensemble' (of the seeds); got {combine!r}.")
    if num_epochs not in ("fixed", "common"):
        raise ValueError(f"num_epochs must be 'fixed' or 'common'; got {num_epochs!r}.")
    if num_epochs == "common" and combine == "ensemble":
        raise ValueError(
            "num_epochs='common' scores the recorded history, which has no ensemble; use combine='mean'."
        )
    axis = axis_of(result, axis)
    scores = _scores(result, metric, axis, combine, num_epochs)
    maximise = _direction(result, metric, maximise)
    if "fold" in result.metrics.dims:
        scores = scores.sel(fold=[label for label in scores.fold.values if label != "all"])
        fold_sizes = result.metrics["fold_size"].sel(fold=scores.fold)
    else:
        scores = scores.expand_dims("fold")
        fold_sizes = scores.isel({dim: 0 for dim in scores.dims if dim != "fold"}).copy(data=[1.0])

    others = [dim for dim in scores.dims if dim not in (axis, "seed", "fold")]
    combined = scores.mean("seed", skipna=False) if "seed" in scores.dims else scores
    # a static axis may change the rows, and so the folds
    shares = fold_sizes / fold_sizes.sum("fold")
    weighted = (combined * shares).sum("fold", skipna=False).transpose(axis, *others).values
    ranked = np.where(np.isfinite(weighted), -weighted if maximise else weighted, np.inf)
    place = np.unravel_index(np.argmin(ranked), weighted.shape)
    at = {dim: int(number) for dim, number in zip(others, place[1:], strict=True)}
    along = combined.isel(at).transpose(axis, "fold")
    static_at = {dim: number for dim, number in at.items() if dim in fold_sizes.dims}
    sizes = fold_sizes.isel(static_at).values
    curve, best, one_se, paired = one_standard_error(
        along.values, sizes, along[axis].values, maximise=maximise
    )
    if "seed" in scores.dims and scores.sizes["seed"] > 1:
        per_seed = scores.isel(at).transpose(axis, "seed", "fold").values @ (sizes / sizes.sum())
        curve = curve._replace(seed_sd=per_seed.std(axis=1, ddof=1))

    chosen = {"min": best, "1se": one_se, "paired_1se": paired}[rule]
    place = scores.isel(at).isel({axis: chosen})
    lam = curve.lam
    return Choice(
        axis=axis,
        metric=metric,
        maximise=maximise,
        rule=rule,
        lam=float(lam[chosen]),
        lam_min=float(lam[best]),
        lam_1se=float(lam[one_se]),
        lam_paired_1se=float(lam[paired]),
        values=_values_at(result, place),
        labels={
            dim: place.coords[dim].item()
            for dim in (*result.dims, *result.groups[0].static)
            if dim not in ("seed", "fold")
        },
        curve=curve,
        warnings=tuple(_warnings(result, curve, best, one_se, maximise)),
    )


def refit(
    train: Train | Callable[[Mapping[str, Any]], Train],
    result: SweepResult,
    choice: Choice,
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    params: Any = None,
    rescale: bool = False,
    progress: bool = True,
) -> SweepResult:
    """The chosen run on all the training rows, one lane for each seed.

    If the sweep has the lane "all" (`refit=True`) and nothing has to change, those lanes are taken;
    otherwise they are trained. With the same key, and all rows at once, both are the same. A run with `keep_best` or
    `patience` has nothing to stop on here: it is trained for the number of epochs that had the best monitored score,
    mean over the folds and seeds of the chosen runs (`config["chosen"]["num_epochs"]`), the same for all.
    Without folds the runs are trained as the sweep trained them, and a validation set is still no training data.

    Args:
      train: what the sweep was given.
      result: the sweep.
      choice: from `choose`.
      data: what the sweep was given.
      key: what the sweep was given.
      params: what the sweep was given.
      rescale: multiply λ by n_fold / n_full: with a mean loss the best λ falls like 1/n, and the folds
        trained on fewer rows.
      progress: show a bar on anything longer than a few seconds.

    Returns:
      A `SweepResult` with the dimension `seed` alone.

    Raises:
      ValueError: `params` are missing, `train` has another network than the sweep had, or the chosen runs have no
        finite validation loss.

    >>> import rnnreg as rr, jax, optax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> split = rr.Split(batch, target_times=times)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = rr.sweep(train, {"l2": [1e-3, 1e-1]}, split, folds=blocked_folds(3), refit=True,
    ...     key=jax.random.key(0), progress=False)
    >>> refit(train, result, choose(result), split, key=jax.random.key(0)).dims
    ('seed',)
    """
    values = dict(choice.values)
    num_epochs = values.pop("num_epochs", None)
    static_names = list(result.groups[0].static)
    static = {name: values.pop(name) for name in static_names}
    data = as_split(data(static) if callable(data) else data)
    folds = result.config["folds"]
    if folds and "all" in folds and not rescale and num_epochs is None:
        return _noted(result.select(**choice.labels, fold="all"), choice.values)
    if rescale and folds:
        sizes = result.metrics["fold_train_size"]
        share = float(sizes.sel(static).sel(fold=[f for f in folds if f != "all"]).mean())
        rows = float(np.sum(row_weights(data.train)))
        for name in _lambda_names(result, choice):
            values[name] = values[name] * share / rows
    job = [group.static for group in result.groups].index(static)
    if folds:  # as many updates an epoch as the folds made
        data = data.replace(epoch_rows=result.config["epoch_rows"][job])
    made = train if isinstance(train, Train) else train(static)
    _check_same_network(made.settings.net, result.config.get("network", ())[job : job + 1])
    if params is None and any(result.config["start"]):
        raise ValueError(
            "the sweep started from given parameters, and so must the refit: give refit(..., params=...)."
        )
    if folds and (made.settings.keep_best or made.settings.patience is not None):
        num_epochs = (
            _common_epochs(result, choice, made.settings) if num_epochs is None else num_epochs
        )
        made = made.with_epochs(int(num_epochs), early_stopping=False)
    elif num_epochs is not None:
        made = made.with_epochs(int(num_epochs))
    final = sweep(
        made,
        values,
        data,
        key=key,
        seeds=result.config["seeds"],
        params=params(static) if callable(params) else params,
        progress=progress,
    )
    epochs = {} if num_epochs is None else {"num_epochs": int(num_epochs)}
    return _noted(final, choice.values | epochs)


def _check_same_network(net: Any, swept: Sequence[Mapping[str, Any]]) -> None:
    """Raises if the network is not made as that of the sweep; one that depends on `hyper` is not looked at."""
    for name in ("layers", "output_size", "readout") if isinstance(net, Network) and swept else ():
        own, other = (
            json.dumps(made.get(name), sort_keys=True) for made in (describe(net), *swept)
        )
        if own != other:
            raise ValueError(
                f"train is not what the sweep was given: its network has {name} {own}, and that of the sweep {other}."
            )


def _noted(final: SweepResult, values: dict[str, Any]) -> SweepResult:
    return dataclasses.replace(final, config=final.config | {"chosen": values})


def _common_epochs(result: SweepResult, choice: Choice, settings: Settings) -> int:
    """The epoch with the best monitored score, mean over seeds and (weighted) folds, of the chosen runs."""
    at = {dim: [label] for dim, label in choice.labels.items()}
    chosen = result.metrics.sel(at).squeeze(list(at), drop=True)
    chosen = chosen.sel(fold=[label for label in chosen.fold.values if label != "all"])
    scores = chosen[f"history_val_{settings.monitor}"].mean("seed", skipna=False)
    mean = scores.weighted(chosen["fold_size"]).mean("fold", skipna=False)
    if not np.isfinite(mean.values).any():
        raise ValueError(
            f"the chosen runs have no epoch with a finite val_{settings.monitor} in every fold."
        )
    best = np.nanargmax if settings.maximise else np.nanargmin
    return int(mean["epoch"].values[best(mean.values)])


def axis_of(result: SweepResult, axis: str | None) -> str:
    """The axis of λ: as given, or the only one that is the λ of a penalty, or else the only one of numbers.

    Args:
      result: the sweep.
      axis: what the user gave; None asks for it.

    Returns:
      Its name.

    Raises:
      ValueError: no such axis, or several.
    """
    if axis is not None:
        return axis
    axes = _axes(result)
    lambdas = {name for group in result.config.get("penalties", []) for name in group}
    for known in ([name for name in axes if name in lambdas], axes):
        swept = [name for name in known if result.metrics[name].size > 1] or known
        if len(swept) == 1:
            return swept[0]
        if swept:
            raise ValueError(f"several axes may be that of λ: give axis=..., one of {swept}.")
    raise ValueError(
        "the sweep has no axis of numbers, so no λ can be chosen: give several values in its grid, "
        'such as {"l2": [0, 1e-3, 1e-2]}.'
    )


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


def _scores(
    result: SweepResult, metric: str, axis: str, combine: str, num_epochs: str
) -> xr.DataArray:
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
    zipped = result.config["grid"].get(axis)
    if isinstance(zipped, dict):
        raise ValueError(
            f"{axis!r} is a zipped dimension, whose labels are only numbers; give one of its hyperparameters, "
            f"{sorted(zipped)}, as the axis."
        )
    if axis in scores.coords and axis not in scores.dims:  # a hyperparameter of a zipped dimension
        (dimension,) = scores.coords[axis].dims or ("",)
        if dimension in scores.dims:
            scores = scores.swap_dims({dimension: axis})
    if axis not in scores.dims:
        raise ValueError(
            f"axis {axis!r} is not a dimension of {name!r}; give axis=..., one of {_axes(result)}."
        )
    own = set(metrics[name].dims) - {*result.dims, *result.groups[0].static, "epoch"}
    if own:
        raise ValueError(
            f"metric {metric!r} is an array for each lane, with the axes {sorted(map(str, own))}, and a choice needs "
            "one number: add a metric that is their mean, or one of them."
        )
    return scores


def _direction(result: SweepResult, metric: str, given: bool | None) -> bool:
    """Whether more of a metric is better, as it states itself or as it was given."""
    name = re.sub("^(history_|ensemble_)?(train|val)_", "", metric)
    stated = False if name == "loss" else None
    for metrics in result.config.get("metrics", []):
        stated = metrics.get(name, {}).get("maximise", stated)
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


def _values_at(result: SweepResult, lane: xr.DataArray) -> dict[str, Any]:
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


def _lambda_names(result: SweepResult, choice: Choice) -> list[str]:
    penalties = {name for group in result.config["penalties"] for name in group}
    return sorted(penalties & set(choice.values))


def _largest(lam: np.ndarray, allowed: np.ndarray) -> int:
    return int(np.argmax(np.where(allowed, lam, -np.inf)))


def _warnings(
    result: SweepResult, curve: Curve, best: int, one_se: int, maximise: bool
) -> list[str]:
    found = []
    order = np.argsort(curve.lam)
    rank = int(np.flatnonzero(order == best)[0])
    if len(order) > 1 and rank == len(order) - 1:
        found.append(
            f"λ_min = {curve.lam[best]:.3g} is the largest of the grid; extend the grid upwards."
        )
    if len(order) > 1 and rank == 0 and curve.lam[best] > 0:
        found.append(
            f"λ_min = {curve.lam[best]:.3g} is the smallest of the grid; extend the grid downwards, or add 0."
        )
    if np.isfinite(curve.se[best]):
        sign = -1 if maximise else 1
        within = (sign * curve.mean <= sign * curve.mean[best] + curve.se[best])[order]
        reach = int(np.flatnonzero(order == one_se)[0])
        if not within[min(rank, reach) : max(rank, reach) + 1].all():
            found.append(
                "the λ within one standard error are not contiguous; look at the curve before you trust λ_1se."
            )
        if one_se == order[-1]:
            found.append("λ_1se is the largest of the grid; extend the grid upwards.")
    else:
        found.append("one validation set gives no standard error: λ_1se is λ_min; use folds.")
    if result.config["folds"] and any(
        result.config.get("keep_best", []) + result.config.get("early_stopping", [])
    ):
        found.append(
            "each fold stopped at its own best epoch (keep_best or patience), so the curve is too good; sweep without "
            "them, with num_epochs fixed or chosen by choose(num_epochs='common')."
        )
    diverged = int((result.metrics["diverged_at"].values >= 0).sum())
    if diverged:
        found.append(f"{diverged} lanes diverged; a λ with one of them never wins.")
    unfinished = int((~result.metrics["finished"].values.astype(bool)).sum())
    if unfinished:
        found.append(f"{unfinished} lanes did not finish; their λ never win.")
    return found
