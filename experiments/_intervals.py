"""Intervals of proportions, which several experiments print."""

from __future__ import annotations

import numpy as np


def proportion(successes: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact (Clopper–Pearson) 95 % interval of a proportion.

    >>> [array.round(3).tolist() for array in proportion(np.array([0, 5, 10]), 10)]
    [[0.0, 0.187, 0.692], [0.308, 0.813, 1.0]]
    """
    from scipy.stats import beta

    k = np.asarray(successes)
    low = np.where(k > 0, beta.ppf(0.025, np.maximum(k, 1), num - k + 1), 0.0)
    high = np.where(k < num, beta.ppf(0.975, k + 1, np.maximum(num - k, 1)), 1.0)
    return low, high
