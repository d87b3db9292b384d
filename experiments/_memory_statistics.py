"""Thresholds on a λ axis with intervals: a bracket for each seed, a logistic distribution over seeds, proportions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Threshold(NamedTuple):
    """The λ at which half of the seeds have lost what they had, with a 95 % interval.

    Attributes:
      value: exp(μ) of the logistic distribution of ln λ*; 0 or ∞ where at least half of the seeds lie off the grid.
      low: lower end of the profile-likelihood interval; 0 where the grid does not bound it.
      high: upper end; ∞ where the grid does not bound it.
      scale: s, the spread of ln λ* over seeds.
      num_seeds: n.
      below: seeds that have nothing at the smallest λ.
      above: seeds that still have it at the largest.
      unordered: seeds whose losses do not come in one piece (alive again above a dead λ); they count by their number.
    """

    value: float
    low: float
    high: float
    scale: float
    num_seeds: int
    below: int
    above: int
    unordered: int


def brackets(lams: np.ndarray, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln λ between which each seed's threshold lies, `[seed]` each, from `alive [λ, seed]` on positive, ascending λ.

    A seed that is alive at k of the λ has its threshold between the k-th and the next.

    >>> low, high = brackets(np.array([1.0, np.e, np.e**2]), np.array([[1, 0], [1, 0], [0, 0]], bool))
    >>> low.tolist(), high.tolist()
    ([1.0, -inf], [2.0, 0.0])
    """
    edges = np.concatenate([[-np.inf], np.log(lams), [np.inf]])
    counts = alive.sum(axis=0)
    return edges[counts], edges[counts + 1]


def fit_threshold(lams: np.ndarray, alive: np.ndarray) -> Threshold:
    """Maximum likelihood of a logistic distribution of ln λ* over seeds, from `alive [λ, seed]`.

    λ of one seed share their start, so they are no independent trials: each seed is one observation, a bracket of ln λ,
    and P(alive at λ) = 1 / (1 + exp((ln λ − μ) / s)). The interval is the profile likelihood of μ, cut at
    (n/2) ln(1 + t²/(n − 1)) with Student's t, which is exact for normal data and fair for few seeds.

    >>> lams = np.geomspace(0.1, 10, 9)
    >>> alive = lams[:, None] < np.array([0.8, 1.0, 1.1, 1.3, 0.9, 1.2])
    >>> found = fit_threshold(lams, alive)
    >>> 0.9 < found.value < 1.2, found.low < found.value < found.high
    (True, True)
    """
    from scipy.stats import t

    order = np.argsort(lams)
    lams, alive = np.asarray(lams, dtype=np.float64)[order], np.asarray(alive, dtype=bool)[order]
    low, high = brackets(lams, alive)
    n, below, above = len(low), int((~alive[0]).sum()), int(alive[-1].sum())
    counts = alive.sum(axis=0)
    unordered = int(sum(not alive[:count, seed].all() for seed, count in enumerate(counts)))
    logs = np.log(lams)
    spacing = float(np.diff(logs).max()) if len(lams) > 1 else 1.0
    if max(below, above) * 2 >= n:  # the median seed is off the grid
        edge = (0.0, 0.0, lams[0]) if below >= above else (np.inf, lams[-1], np.inf)
        return Threshold(*edge, np.nan, n, below, above, unordered)

    reach = 6 * spacing + 0.5 * (logs[-1] - logs[0])
    mu = np.linspace(logs[0] - reach, logs[-1] + reach, 1001)
    scales = np.geomspace(spacing / 50, 3 * spacing + (logs[-1] - logs[0]), 40)
    profile, best = np.full(len(mu), -np.inf), np.zeros(len(mu))
    for s in scales:
        upper = 1 / (1 + np.exp(-np.clip((high[:, None] - mu) / s, -700, 700)))
        lower = 1 / (1 + np.exp(-np.clip((low[:, None] - mu) / s, -700, 700)))
        likelihood = np.log(np.maximum(upper - lower, 1e-300)).sum(axis=0)
        better = likelihood > profile
        profile, best = np.where(better, likelihood, profile), np.where(better, s, best)
    top = profile.max()
    flat = np.flatnonzero(profile >= top - 0.02)  # all seeds in one bracket: any μ inside it
    middle = (flat[0] + flat[-1]) // 2
    quantile = t.ppf(0.975, n - 1) if n > 1 else np.inf
    cut = n / 2 * np.log1p(quantile**2 / max(n - 1, 1))
    inside = np.flatnonzero(profile >= top - cut)
    return Threshold(
        value=float(np.exp(mu[middle])),
        low=float(np.exp(mu[inside[0]])) if inside[0] > 0 else 0.0,
        high=float(np.exp(mu[inside[-1]])) if inside[-1] < len(mu) - 1 else np.inf,
        scale=float(best[middle]),
        num_seeds=n,
        below=below,
        above=above,
        unordered=unordered,
    )


class Law(NamedTuple):
    """λ_cold = c · T · g^(T−2).

    Attributes:
      constant: c.
      low: lower end of its 95 % interval.
      high: upper end.
      residual: standard deviation of ln λ_cold around the law.
      free: (intercept, power of T, factor of T ln g) of ln λ_cold = a + b ln T + d (T − 2) ln g fitted freely; the law
        is (ln c, 1, 1).
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
    spread = float(rest.std(ddof=1)) if len(rest) > 1 else np.nan
    half = t.ppf(0.975, max(len(rest) - 1, 1)) * spread / np.sqrt(len(rest))
    design = np.stack([np.ones_like(T), np.log(T), (T - 2) * np.log(g)], axis=1)
    free = np.linalg.lstsq(design, logs, rcond=None)[0]
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
    """R², bias and correlation of a prediction.

    >>> score(np.array([0.0, 1.0, 2.0]), np.array([0.1, 1.1, 2.1]))
    Score(r2=0.985, bias=0.1, correlation=1.0)
    """
    error = predicted - measured
    total = np.sum((measured - measured.mean()) ** 2)
    correlation = np.corrcoef(measured, predicted)[0, 1]
    return Score(
        round(float(1 - np.sum(error**2) / total), 12),
        round(float(error.mean()), 12),
        round(float(correlation), 12),
    )
