"""Whether regularising helps at all: the chosen λ against λ = 0, on folds that had no part in the choice."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from rnnreg._checks import check_share, printable
from rnnreg._signatures import typed
from rnnreg.selection._scores import axis_of, check_combine, compare, direction_of, is_zipped
from rnnreg.sweeps import SweepResult


@dataclasses.dataclass(frozen=True, repr=False)
class Improvement:
    """How much the chosen λ improves on λ = 0.

    Attributes:
      axis: the axis of λ.
      metric: the score.
      difference: its mean improvement over folds, weighted by their sizes; positive if regularising is better, whether
        more or less of the score is.
      interval: of the difference, at `level`.
      level: such as 0.95.
      p_value: one-sided, of the hypothesis that regularising does not help.
      se: the corrected standard error of the difference.
      by_fold: `[K]`, the improvement in each fold.
      lam: `[K]`, the λ that the other folds chose for it.
      num_seeds: over how many seeds each score is a mean.
    """

    axis: str
    metric: str
    difference: float
    interval: tuple[float, float]
    level: float
    p_value: float
    se: float
    by_fold: np.ndarray
    lam: np.ndarray
    num_seeds: int

    def __repr__(self) -> str:
        low, high = self.interval
        chosen, counts = np.unique(self.lam, return_counts=True)
        said = ", ".join(f"{lam:.3g} ({n})" for lam, n in zip(chosen, counts, strict=True))
        return printable(
            f"Improvement of {self.metric} by {self.axis} over λ = 0: {self.difference:.4g}, {self.level:.0%} interval "
            f"{low:.4g} to {high:.4g}, p = {self.p_value:.3g} (one-sided; {len(self.by_fold)} folds, {self.num_seeds} "
            f"seed{'s' * (self.num_seeds > 1)}; λ chosen by the other folds: {said})"
        )


@typed
def improvement(
    result: SweepResult,
    *,
    metric: str = "val_loss",
    maximise: bool | None = None,
    axis: str | None = None,
    combine: str = "mean",
    level: float = 0.95,
) -> Improvement:
    """Whether the best λ beats λ = 0 beyond what choosing the best of many on the same folds explains.

    The least mean of a curve is below its value at λ = 0 even if λ does nothing. So λ for fold k is chosen by the other
    folds, and compared with λ = 0 on fold k, which had no part in the choice:

        d_k = m_k(0) − m_k(λ_{−k})     d = Σ w_k d_k / Σ w_k     se² = (1/K + n_val / n_train) s²_d

    with seeds combined inside a fold, and both λ at the values of all other axes that the other folds choose for them.
    1/K alone would take the folds for independent, though they share training rows; the second term is the correction
    of Nadeau & Bengio. t = d / se goes by Student's distribution with K − 1 degrees of freedom.

    What is exact and what is not: the score of fold k has no part in λ_{−k}, but its rows trained the networks that the
    other folds score; `nested` keeps them apart too. The standard error is approximate, as every one from a single
    cross-validation (Bengio & Grandvalet 2004). Of twenty equal models, p ≤ 0.05 calls one better in about 4 % of
    simulated data sets with 3, 5 or 10 folds; without the correction, in 10 to 13 % (`tests/test_improvement.py`). If
    every fold chooses 0, the difference is 0 and p is 1. Folds should not overlap: of a repeated K-fold, the other
    folds validate on rows of fold k too.

    Args:
      result: a sweep with folds and λ = 0 on the axis.
      metric: a variable of `result.metrics`.
      maximise: whether more of it is better; needed if the metric does not state it.
      axis: the dimension of λ; None as in `choose`.
      combine: how seeds are combined, "mean" or "ensemble".
      level: of the interval.

    Returns:
      The difference, its interval and p.

    Raises:
      ValueError: no λ = 0, fewer than three folds, an interrupted sweep, runs without penalty that diverged; or a
        metric or axis as in `choose`.

    Source: Nadeau & Bengio 2003, Inference for the generalization error.

    >>> import rnnreg as rr, jax, optax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = rr.sweep(train, {"l2": [0, 1e-1, 1]}, rr.Split(batch, target_times=times),
    ...     folds=rr.selection.blocked_folds(5), key=jax.random.key(0), progress=False)
    >>> found = improvement(result)
    >>> found.lam.tolist(), found.difference, found.p_value
    ([0.0, 0.0, 0.0, 0.0, 0.0], 0.0, 1.0)
    """
    check_combine(combine)
    check_share(level, "level", ends="()")
    axis = axis_of(result, axis)
    if is_zipped(result, axis):
        raise ValueError(
            f"{axis!r} numbers trials, and λ = 0 is what they are compared with: give axis=..., one of "
            f"{sorted(result.config['grid'][axis])}."
        )
    scores, sizes, *_ = compare(result, metric, axis, combine=combine)
    maximise = direction_of(result, metric, maximise)
    num_folds, num_seeds = scores.sizes["fold"], result.metrics.sizes.get("seed", 1)
    if num_folds < 3:
        raise ValueError(
            f"a test over folds needs at least three of them; got {num_folds}. Sweep with folds, such as "
            "folds=rr.selection.blocked_folds(5)."
        )
    if "seed" in scores.dims:
        scores = scores.mean("seed", skipna=False)
    others = [dim for dim in scores.dims if dim not in (axis, "fold")]
    weights = sizes.broadcast_like(scores).transpose(axis, *others, "fold").values
    table = scores.transpose(axis, *others, "fold").values.reshape(-1, num_folds)
    weights = weights.reshape(-1, num_folds)
    lam = np.repeat(scores[axis].values, len(table) // scores.sizes[axis])
    if not (lam == 0).any():
        raise ValueError(
            f"the axis {axis!r} has no λ = 0 to compare with; it has {scores[axis].values.tolist()}. Put 0 on the "
            f'grid: {{"{axis}": [0, …]}}.'
        )
    found = cross_fitted(table, weights, lam == 0, maximise=maximise)
    if not np.isfinite(found.by_fold).all():
        raise ValueError(
            f"the runs with {axis} = 0 have no finite {metric} in every fold, so there is nothing to compare with: "
            "lanes diverged. Lower the learning rate, or clip the gradient."
        )
    trained = result.metrics["fold_train_size"].sel(fold=scores.fold.values)
    shared = float(sizes.mean()) / float(trained.mean())
    mean, se, p_value, half = corrected_t(found.by_fold, weights.mean(axis=0), shared, level)
    return Improvement(
        axis=axis,
        metric=metric,
        difference=mean,
        interval=(mean - half, mean + half),
        level=float(level),
        p_value=p_value,
        se=se,
        by_fold=found.by_fold,
        lam=lam[found.chosen],
        num_seeds=num_seeds,
    )


class CrossFitted(NamedTuple):
    """What each fold says of a choice that the other folds made.

    Attributes:
      by_fold: `[K]`, the improvement over what is best without a penalty; positive is better.
      chosen: `[K]`, the place that the other folds chose.
    """

    by_fold: np.ndarray
    chosen: np.ndarray


def cross_fitted(
    scores: np.ndarray, weights: np.ndarray, is_zero: np.ndarray, *, maximise: bool = False
) -> CrossFitted:
    """The improvement of the best place over the best of those without a penalty, fold by fold.

    Both are chosen by the other folds; of a tie, the first that has no penalty.

    Args:
      scores: `[M, K]`, of each place on all axes and each fold.
      weights: `[M, K]`, of the folds.
      is_zero: `[M]`, the places without a penalty.
      maximise: whether more is better.
    """
    signed = np.where(np.isfinite(scores), -scores if maximise else scores, np.inf)
    by_fold, chosen = np.full(scores.shape[1], np.nan), np.zeros(scores.shape[1], int)
    for fold in range(scores.shape[1]):
        rest = np.arange(scores.shape[1]) != fold
        means = np.sum(signed[:, rest] * weights[:, rest], axis=1) / weights[:, rest].sum(axis=1)
        means = np.where(np.isfinite(signed).all(axis=1), means, np.inf)
        without = int(np.argmin(np.where(is_zero, means, np.inf)))
        best = int(np.argmin(means))
        chosen[fold] = without if means[without] == means[best] else best
        if np.isfinite(means[without]):
            by_fold[fold] = signed[without, fold] - signed[chosen[fold], fold]
    return CrossFitted(by_fold, chosen)


def corrected_t(
    differences: np.ndarray, weights: np.ndarray, shared: float, level: float
) -> tuple[float, float, float, float]:
    """The weighted mean, its corrected standard error, the one-sided p, and half the width of the interval.

    Args:
      differences: `[K]`.
      weights: `[K]`, of the folds.
      shared: n_val / n_train.
      level: of the interval.
    """
    from scipy import stats

    num, weights = len(differences), weights / weights.sum()
    mean = float(np.sum(weights * differences))
    variance = float(np.sum(weights * np.square(differences - mean))) * num / (num - 1)
    se = float(np.sqrt((1 / num + shared) * variance))
    p_value = float(stats.t.sf(mean / se, num - 1)) if se > 0 else float(mean <= 0)
    return mean, se, p_value, float(stats.t.ppf((1 + level) / 2, num - 1)) * se
