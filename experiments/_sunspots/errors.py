"""Errors of sunspot forecasts and their uncertainty: ARV, R², and a bootstrap by blocks of years."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnreg.datasets import SUNSPOT_VARIANCE

CYCLE_YEARS = 11
"""Mean length of a solar cycle, and the mean block of the bootstrap."""


def arv(y: Any, yhat: Any) -> float:
    """Average relative variance, `mean((y − ŷ)²) / 1535`."""
    return float(np.mean((np.asarray(y) - np.asarray(yhat)) ** 2) / SUNSPOT_VARIANCE)


def r2(y: Any, yhat: Any) -> float:
    """`1 − Σ(y − ŷ)² / Σ(y − ȳ)²`, with the mean of the years scored."""
    return float(1 - np.mean((np.asarray(y) - np.asarray(yhat)) ** 2) / np.var(y))


class Interval(NamedTuple):
    """A statistic with its bootstrap interval.

    Attributes:
      value: on the years themselves.
      low: lower end of the percentile interval.
      high: upper end.
      standard_error: standard deviation over resamples.
    """

    value: float
    low: float
    high: float
    standard_error: float


class PairedComparison(NamedTuple):
    """Difference in ARV of two forecasts of the same years, `a − b`; negative when a is better.

    Attributes:
      difference: ARV of a less ARV of b.
      low: lower end of the percentile interval.
      high: upper end.
      p_better: one-sided p of "a is no better than b"; small when a is clearly better.
      p_worse: one-sided p of "a is no worse than b"; small when a is clearly worse.
    """

    difference: float
    low: float
    high: float
    p_better: float
    p_worse: float


def stationary_resamples(
    num_years: int, *, block_length: float = CYCLE_YEARS, num_resamples: int = 10_000, seed: int = 0
) -> np.ndarray:
    """Year indices `[num_resamples, num_years]` of a stationary bootstrap.

    Each resample follows the years in order and jumps to a random year with probability
    1/block_length, wrapping round at the end; block lengths are geometric with that mean. One-step
    errors are nearly uncorrelated, but their squares are not: those of AR(12) on the training years
    correlate by .27 and .14 at lags 1 and 2 and by .1 at lag 9, since large errors gather where
    activity is high. A block of one solar cycle keeps such stretches whole. Spans of 24 to 35 years
    hold only two or three blocks: the interval is rough, and rather too narrow than too wide.

    Source: Politis and Romano (1994), J. Amer. Statist. Assoc. 89, 1303–1313.
    """
    if num_years < 1 or block_length < 1 or num_resamples < 1:
        raise ValueError(
            "num_years, block_length and num_resamples must be at least 1; got "
            f"{num_years}, {block_length}, {num_resamples}."
        )
    rng = np.random.default_rng(seed)
    starts = rng.integers(num_years, size=(num_resamples, num_years))
    jumps = rng.random((num_resamples, num_years)) < 1.0 / block_length
    jumps[:, 0] = True
    steps = np.arange(num_years)
    last_jump = np.maximum.accumulate(np.where(jumps, steps, 0), axis=1)
    return (np.take_along_axis(starts, last_jump, axis=1) + steps - last_jump) % num_years


def bootstrap_interval(
    errors: Any,
    *,
    targets: Any = None,
    level: float = 0.9,
    block_length: float = CYCLE_YEARS,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the ARV of `errors` (in the order of years); of R², given `targets`.

    The forecaster is taken as given: the interval tells how much the score depends on which years
    were scored, and not how much it depends on the training years.
    """
    errors = _checked(errors, "errors")
    rows = stationary_resamples(len(errors), block_length=block_length, num_resamples=num_resamples, seed=seed)
    squares = np.mean(errors[rows] ** 2, axis=1)
    if targets is None:
        value, samples = np.mean(errors**2) / SUNSPOT_VARIANCE, squares / SUNSPOT_VARIANCE
    else:
        targets = _checked(targets, "targets")
        if len(targets) != len(errors):
            raise ValueError(f"targets must have one entry a year: {len(errors)}; got {len(targets)}.")
        value = 1.0 - np.mean(errors**2) / targets.var()
        samples = 1.0 - squares / targets[rows].var(axis=1)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), float(samples.std()))


def paired_bootstrap(
    errors_a: Any,
    errors_b: Any,
    *,
    level: float = 0.9,
    block_length: float = CYCLE_YEARS,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> PairedComparison:
    """Difference of two ARVs on the same resampled years, with both one-sided p-values.

    Pairing removes what both forecasters find hard. The p-values compare the difference with the
    resampled differences shifted to mean zero.
    """
    errors_a, errors_b = _checked(errors_a, "errors_a"), _checked(errors_b, "errors_b")
    if len(errors_a) != len(errors_b):
        raise ValueError(f"paired errors must be of the same years; got {len(errors_a)} and {len(errors_b)}.")
    gaps = (errors_a**2 - errors_b**2) / SUNSPOT_VARIANCE
    rows = stationary_resamples(len(gaps), block_length=block_length, num_resamples=num_resamples, seed=seed)
    difference, samples = gaps.mean(), gaps[rows].mean(axis=1)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    null = samples - difference
    p_better = (1 + np.sum(null <= difference)) / (num_resamples + 1)
    p_worse = (1 + np.sum(null >= difference)) / (num_resamples + 1)
    return PairedComparison(float(difference), float(low), float(high), float(p_better), float(p_worse))


def _checked(values: Any, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be one finite number a year, shape [years]; got shape {values.shape} "
            f"with {int((~np.isfinite(values)).sum())} NaN or infinite values."
        )
    return values
