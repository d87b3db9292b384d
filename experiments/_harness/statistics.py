"""Small statistics that several experiments print."""

from __future__ import annotations

from typing import Any

import numpy as np


def standard_error(values: Any, axis: int = -1) -> Any:
    """Of the mean along an axis.

    >>> round(float(standard_error([1.0, 2.0, 3.0])), 4)
    0.5774
    """
    values = np.asarray(values)
    return values.std(axis=axis, ddof=1) / np.sqrt(values.shape[axis])


def mean_and_error(values: Any) -> tuple[float, float]:
    """Mean and standard error of some numbers.

    >>> mean_and_error([1.0, 3.0])
    (2.0, 1.0)
    """
    values = np.asarray(values)
    return float(values.mean()), float(standard_error(values))


def proportion(successes: Any, num: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact (Clopper–Pearson) 95 % intervals of proportions: lower and upper ends, of the shape of `successes`.

    >>> [array.round(3).tolist() for array in proportion(np.array([0, 5, 10]), 10)]
    [[0.0, 0.187, 0.692], [0.308, 0.813, 1.0]]
    """
    from scipy.stats import binomtest

    counts = np.asarray(successes)
    ends = [binomtest(int(count), num).proportion_ci() for count in counts.ravel()]
    low, high = np.reshape(ends, (*counts.shape, 2)).T
    return low.T, high.T
