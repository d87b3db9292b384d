"""A cross-validation curve, and the rules that choose λ from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rnnreg._signatures import Numbers, typed


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


@typed
def one_standard_error(
    folds: Numbers, fold_sizes: Numbers, lam: Numbers, *, maximise: bool = False
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
    if folds.ndim != 2 or not folds.size or (len(lam), len(sizes)) != folds.shape:
        raise ValueError(
            f"folds must be [n, K] scores with a value of lam [n] for each row and one of fold_sizes [K] for each "
            f"column; got shapes {folds.shape}, {lam.shape} and {sizes.shape}."
        )
    if not np.isfinite(lam).all():
        raise ValueError(f"lam must be finite; got {lam.tolist()}.")
    if not (np.isfinite(sizes).all() and (sizes >= 0).all() and sizes.sum() > 0):
        raise ValueError(f"fold_sizes must be weights of at least 0; got {sizes.tolist()}.")
    folds = np.where(np.isfinite(folds), folds, np.nan)
    num_folds = folds.shape[1]

    mean, se = mean_and_se(folds, sizes)
    finite = np.isfinite(mean)
    if not finite.any():
        raise ValueError(
            "no value on the axis has a finite score in every fold: lanes diverged, or did not finish."
        )
    sign = -1 if maximise else 1
    ranked = np.where(finite, sign * mean, np.inf)
    best = _largest(lam, ranked == ranked.min())
    difference, paired_se = mean_and_se(folds - folds[best], sizes)
    one_se = paired = best
    if num_folds > 1:
        one_se = _largest(lam, ranked <= ranked[best] + se[best])
        paired = _largest(lam, finite & (sign * difference <= paired_se))
    curve = Curve(lam, mean, se, difference, paired_se, folds, sizes, np.full(len(lam), np.nan))
    return curve, best, one_se, paired


def mean_and_se(folds: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cvm and cvsd of scores `[n, K]` with weights `[K]` or `[n, K]`; of a single fold cvsd is NaN."""
    weights = sizes / sizes.sum(axis=-1, keepdims=True)
    # not a matrix product, which may round equal rows differently and break a tie
    mean = np.sum(folds * weights, axis=1)
    spread = np.sum(np.square(folds - mean[:, None]) * weights, axis=1)
    others = folds.shape[1] - 1
    return mean, np.sqrt(spread / others) if others else np.full(len(mean), np.nan)


def _largest(lam: np.ndarray, allowed: np.ndarray) -> int:
    return int(np.argmax(np.where(allowed, lam, -np.inf)))
