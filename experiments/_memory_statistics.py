"""Statistics of `experiments.memory_thresholds`: the law of its thresholds, and scores of predictors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Law(NamedTuple):
    """λ_cold = c · T · g^(T−2).

    Attributes:
      constant: c.
      low: lower end of its 95 % interval.
      high: upper end.
      residual: standard deviation of ln λ_cold around the law.
      free: (intercept, power of T, factor of T ln g) of ln λ_cold = a + b ln T + d (T − 2) ln g fitted freely; the law
        is (ln c, 1, 1). NaN where the thresholds' T and gains do not determine all three.
      num: thresholds that it was fitted on.
    """

    constant: float
    low: float
    high: float
    residual: float
    free: tuple[float, float, float]
    num: int

    def __call__(self, num_steps: Any, gain: Any) -> Any:
        """The law's λ_cold."""
        return self.constant * num_steps * np.power(gain, np.asarray(num_steps) - 2.0)


def fit_law(num_steps: np.ndarray, gains: np.ndarray, lams: np.ndarray) -> Law:
    """One constant, from the mean of ln(λ_cold / (T g^(T−2))), and the free fit beside it.

    >>> T, g = np.array([5.0, 10, 20, 5, 10, 20]), np.array([0.8, 0.8, 0.8, 0.9, 0.9, 0.9])
    >>> law = fit_law(T, g, 0.06 * T * g ** (T - 2))
    >>> round(law.constant, 6), [round(float(x), 4) for x in law.free[1:]]
    (0.06, [1.0, 1.0])
    """
    from scipy.stats import t

    T, g = np.asarray(num_steps, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    logs = np.log(lams)
    rest = logs - np.log(T) - (T - 2) * np.log(g)
    if not len(rest):
        return Law(np.nan, np.nan, np.nan, np.nan, (np.nan, np.nan, np.nan), 0)
    spread = float(rest.std(ddof=1)) if len(rest) > 1 else np.nan
    half = t.ppf(0.975, max(len(rest) - 1, 1)) * spread / np.sqrt(len(rest))
    design = np.stack([np.ones_like(T), np.log(T), (T - 2) * np.log(g)], axis=1)
    free, _, rank, _ = np.linalg.lstsq(design, logs, rcond=None)
    if rank < 3:
        free = np.full(3, np.nan)
    centre = float(rest.mean())
    return Law(
        float(np.exp(centre)),
        float(np.exp(centre - half)),
        float(np.exp(centre + half)),
        spread,
        (float(free[0]), float(free[1]), float(free[2])),
        len(rest),
    )


class Score(NamedTuple):
    """How well a predictor meets what was measured.

    Attributes:
      r2: 1 − Σ(measured − predicted)² / Σ(measured − mean)², of the predictor as it is (no line is fitted).
      bias: mean of predicted − measured.
      correlation: Pearson's.
    """

    r2: float
    bias: float
    correlation: float


def score(measured: np.ndarray, predicted: np.ndarray) -> Score:
    """R², bias and correlation of a prediction; NaN of fewer than two.

    >>> score(np.array([0.0, 1.0, 2.0]), np.array([0.1, 1.1, 2.1]))
    Score(r2=0.985, bias=0.1, correlation=1.0)
    """
    if len(measured) < 2:
        return Score(np.nan, np.nan, np.nan)
    error = predicted - measured
    total = np.sum((measured - measured.mean()) ** 2)
    correlation = np.corrcoef(measured, predicted)[0, 1]
    return Score(
        round(float(1 - np.sum(error**2) / total), 12),
        round(float(error.mean()), 12),
        round(float(correlation), 12),
    )
