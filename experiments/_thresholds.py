"""Thresholds on a λ axis, and ratios of two, with 95 % intervals: a bracket for each seed, a logistic over seeds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Threshold(NamedTuple):
    """The λ at which half of the seeds have lost what they had, with a 95 % interval.

    Attributes:
      value: exp(μ) of the logistic distribution of ln λ*; 0 or ∞ where more than half of the seeds lie off the grid on
        that side, and the other end is then the grid's edge; NaN without seeds.
      low: lower end of the profile-likelihood interval; 0 where the grid does not bound it.
      high: upper end; ∞ where the grid does not bound it.
      scale: s, the spread of ln λ* over seeds.
      num_seeds: n.
      below: seeds whose threshold lies below the grid.
      above: seeds whose threshold lies above it.
      unordered: seeds whose losses do not come in one piece (alive again above a dead λ).
    """

    value: float
    low: float
    high: float
    scale: float
    num_seeds: int
    below: int
    above: int
    unordered: int


def brackets(lams: np.ndarray, alive: np.ndarray, *, last: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """ln λ between which each seed's threshold lies, `[seed]` each, from `alive [λ, seed]` on positive, ascending λ.

    A seed that is alive at k of the λ has its threshold between the k-th and the next; with `last`, one that is alive
    at the k-th and never above.

    >>> low, high = brackets(np.array([1.0, np.e, np.e**2]), np.array([[1, 0], [1, 0], [0, 0]], bool))
    >>> low.tolist(), high.tolist()
    ([1.0, -inf], [2.0, 0.0])
    """
    edges = np.concatenate([[-np.inf], np.log(lams), [np.inf]])
    numbers = np.arange(1, len(lams) + 1)[:, None]
    counts = (alive * numbers).max(axis=0) if last else alive.sum(axis=0)
    return edges[counts], edges[counts + 1]


def fit_threshold(lams: np.ndarray, alive: np.ndarray, *, last: bool = False) -> Threshold:
    """Maximum likelihood of a logistic distribution of ln λ* over seeds, from `alive [λ, seed]`; λ = 0 is left out.

    λ of one seed share their start, so they are no independent trials: each seed is one observation, a bracket of ln λ,
    and P(alive at λ) = 1 / (1 + exp((ln λ − μ) / s)). The interval is the profile likelihood of μ, cut at
    (n/2) ln(1 + t²/(n − 1)) with Student's t, which is exact for normal data and fair for few seeds.

    Seeds that are dead at some λ and alive at larger ones count by the number of λ alive; with `last`, by the last of
    them, where what ends below has another cause than the penalty (training at a λ too small to keep it stable).

    >>> lams = np.geomspace(0.1, 10, 9)
    >>> alive = lams[:, None] < np.array([0.8, 1.0, 1.1, 1.3, 0.9, 1.2])
    >>> found = fit_threshold(lams, alive)
    >>> 0.9 < found.value < 1.2, found.low < found.value < found.high
    (True, True)
    """
    order = [place for place in np.argsort(lams) if lams[place] > 0]
    lams, alive = np.asarray(lams, dtype=np.float64)[order], np.asarray(alive, dtype=bool)[order]
    n = alive.shape[1]
    if not n:
        return Threshold(np.nan, 0.0, np.inf, np.nan, 0, 0, 0, 0)
    low, high = brackets(lams, alive, last=last)
    below, above = int(np.isneginf(low).sum()), int(np.isposinf(high).sum())
    unordered = int((alive[1:] & ~alive[:-1]).any(axis=0).sum())
    if max(below, above) * 2 > n:  # the median seed is off the grid
        edge = (0.0, 0.0, float(lams[0])) if below > above else (np.inf, float(lams[-1]), np.inf)
        return Threshold(*edge, np.nan, n, below, above, unordered)
    mu, scale, drop = _profile(np.log(lams), low, high)
    flat = np.flatnonzero(drop <= 0.02)  # all seeds in one bracket: any μ inside it
    middle = (flat[0] + flat[-1]) // 2
    inside = np.flatnonzero(drop <= _cut(n))
    return Threshold(
        value=float(np.exp(mu[middle])),
        low=float(np.exp(mu[inside[0]])) if inside[0] > 0 else 0.0,
        high=float(np.exp(mu[inside[-1]])) if inside[-1] < len(mu) - 1 else np.inf,
        scale=float(scale[middle]),
        num_seeds=n,
        below=below,
        above=above,
        unordered=unordered,
    )


def _profile(logs: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """μ on a grid, the likeliest s at each, and by how much its log likelihood falls short of the best."""
    from scipy.special import expit

    span = logs[-1] - logs[0]
    spacing = float(np.diff(logs).max()) if len(logs) > 1 else 1.0
    reach = 6 * spacing + 0.5 * span
    mu = np.linspace(logs[0] - reach, logs[-1] + reach, 1001)
    scales = np.geomspace(spacing / 50, 3 * spacing + span, 40)
    upper, lower = ((ends - mu[:, None]) / scales[:, None, None] for ends in (high, low))
    mass = expit(upper) - expit(lower)  # [s, μ, seed]
    likelihood = np.log(np.maximum(mass, 1e-300)).sum(axis=-1)
    profile = likelihood.max(axis=0)
    return mu, scales[likelihood.argmax(axis=0)], profile.max() - profile


def _cut(num_seeds: int) -> float:
    """By how much the profile falls at the ends of a 95 % interval: (n/2) ln(1 + t²/(n − 1))."""
    from scipy.stats import t

    if num_seeds == 1:
        return np.inf
    quantile = t.ppf(0.975, num_seeds - 1)
    return float(num_seeds / 2 * np.log1p(quantile**2 / (num_seeds - 1)))


class Ratio(NamedTuple):
    """One threshold over another, with a 95 % interval.

    Attributes:
      value: their quotient; 0 or ∞ where one of them is off the grid, NaN where both are on the same side.
      low: lower end; 0 where nothing bounds it.
      high: upper end; ∞ where nothing bounds it.
    """

    value: float
    low: float
    high: float


def ratio(upper: Threshold, lower: Threshold) -> Ratio:
    """upper / lower, the distances to the interval's ends added in squares, in ln λ and on either side apart.

    ln low = ln(u/l) − √(ln²(u/u_low) + ln²(l_high/l)), and the mirror image: exact for normal ln λ*, on the safe side
    where the same seeds make both thresholds. Where one is off the grid, the quotient of the ends.

    Source: Zou & Donner 2008, Statistics in Medicine 27: 1693.

    >>> one = Threshold(1.0, 0.5, 2.0, 0.1, 10, 0, 0, 0)
    >>> [round(x, 3) for x in ratio(one._replace(value=3.0, low=1.0, high=3.3), one)]
    [3.0, 0.818, 6.039]
    >>> off = Threshold(0.0, 0.0, 0.1, np.nan, 10, 10, 0, 0)  # below the grid
    >>> [round(x, 3) for x in ratio(off, one)]
    [0.0, 0.0, 0.2]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        u, l = (np.log(np.array([each.value, each.low, each.high])) for each in (upper, lower))
        middle = u[0] - l[0]
        if np.isfinite(middle):
            low = middle - np.hypot(u[0] - u[1], l[2] - l[0])
            high = middle + np.hypot(u[2] - u[0], l[0] - l[1])
        else:
            low, high = u[1] - l[2], u[2] - l[1]
    return Ratio(float(np.exp(middle)), float(np.exp(low)), float(np.exp(high)))


def interval(found: Threshold | Ratio) -> str:
    """A number with its interval: 0.12 [0.1, 0.15]; off the grid, only the bound.

    >>> interval(Ratio(0.134, 0.1, np.inf)), interval(Ratio(0.0, 0.0, 0.2)), interval(Ratio(np.nan, 0.0, np.inf))
    ('0.134 [0.1, ∞]', '< 0.2', '–')
    """
    if np.isnan(found.value):
        return "–"
    if found.value == 0:
        return f"< {found.high:.3g}"
    if not np.isfinite(found.value):
        return f"> {found.low:.3g}"
    high = "∞" if np.isinf(found.high) else f"{found.high:.2g}"
    return f"{found.value:.3g} [{found.low:.2g}, {high}]"
