"""The law of λ_cold: fitted, and what it says of T and gains that have not been run."""

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


def fit_law(num_steps: Any, gains: Any, lams: Any) -> Law:
    """One constant, from the mean of ln(λ_cold / (T g^(T−2))), and the free fit beside it.

    >>> T, g = np.array([5.0, 10, 20, 5, 10, 20]), np.array([0.8, 0.8, 0.8, 0.9, 0.9, 0.9])
    >>> law = fit_law(T, g, 0.06 * T * g ** (T - 2))
    >>> round(law.constant, 6), [round(float(x), 4) for x in law.free[1:]]
    (0.06, [1.0, 1.0])
    """
    from scipy.stats import sem, t

    T, g = np.asarray(num_steps, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    logs, num = np.log(lams), len(T)
    if not num:
        return Law(np.nan, np.nan, np.nan, np.nan, (np.nan, np.nan, np.nan), 0)
    rest = logs - np.log(T) - (T - 2) * np.log(g)
    centre, spread, half = rest.mean(), np.nan, np.nan
    if num > 1:
        spread, half = rest.std(ddof=1), t.ppf(0.975, num - 1) * sem(rest)
    design = np.stack([np.ones_like(T), np.log(T), (T - 2) * np.log(g)], axis=1)
    free, _, rank, _ = np.linalg.lstsq(design, logs, rcond=None)
    a, b, d = free if rank == 3 else np.full(3, np.nan)
    low, middle, high = np.exp([centre - half, centre, centre + half])
    return Law(float(middle), float(low), float(high), float(spread), (float(a), float(b), float(d)), num)


def law_of(config: Any, diagram: Any) -> Law:
    """The law from those of the diagram's λ_cold that the grid bounds, at the T and gains to fit it on."""
    rows = [
        (T, gain, found.value)
        for (T, gain), found in diagram.lam_cold.items()
        if T in config.num_steps and gain in config.fitted_gains and 0 < found.value < np.inf
    ]
    return fit_law(*np.array(rows).reshape(-1, 3).T)


def predict(config: Any, diagram: Any, law: Law) -> dict[str, list[dict[str, Any]]]:
    """What the law says of T and gains that have not been run; λ_c and λ_s by their power of T."""
    if not config.predicted_steps:
        return {"cold": [], "warm": []}
    pairs = [(T, config.predicted_gain) for T in (*config.num_steps, *config.predicted_steps)]
    pairs += [(T, gain) for T in config.predicted_steps for gain in config.fitted_gains[1:]]
    cold = [{"T": T, "gain": gain, "predicted": float(law(float(T), gain))} for T, gain in pairs]
    warm = []
    for name in ("lam_c", "lam_s"):
        values = {T: getattr(diagram, name)[T].value for T in config.num_steps}
        bounded = {T: value for T, value in values.items() if 0 < value < np.inf}
        if len(bounded) < 2:
            continue
        power, intercept = np.polyfit(np.log([*bounded]), np.log([*bounded.values()]), 1)
        for T in config.predicted_steps:
            value = float(np.exp(intercept + power * np.log(T)))
            warm.append({"T": T, "threshold": name, "power": float(power), "predicted": value})
    return {"cold": cold, "warm": warm}
