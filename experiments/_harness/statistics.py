"""Small statistics that several experiments print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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


class Comparison(NamedTuple):
    """Two methods on the same seeds.

    Attributes:
        mean: of the differences, the first less the second.
        error: standard error of that mean.
        p: of Student's paired test of both sides, corrected for the other comparisons.
    """

    mean: float
    error: float
    p: float

    @property
    def p_better(self) -> float:
        """Small if the first is shown to be larger."""
        return self.p if self.mean > 0 else 1.0

    @property
    def p_worse(self) -> float:
        """Small if the first is shown to be smaller."""
        return self.p if self.mean < 0 else 1.0


def paired(pairs: Sequence[tuple[Any, Any]]) -> list[Comparison]:
    """A family of paired comparisons with Holm's correction; equal numbers have p = 1.

    >>> found = paired([([1.0, 2.0, 3.0], [0.9, 1.8, 3.0]), ([1.0, 2.0], [1.0, 2.0])])
    >>> [(round(one.mean, 3), round(one.p, 3)) for one in found]
    [(0.1, 0.451), (0.0, 1.0)]
    """
    from scipy.stats import ttest_1samp

    differences = [np.asarray(one) - np.asarray(other) for one, other in pairs]
    alike = [np.ptp(each) < 1e-12 for each in differences]  # of which there is no t: p is 1 at 0, and 0 elsewhere
    raw = [
        float(np.allclose(each, 0)) if same else ttest_1samp(each, 0).pvalue
        for each, same in zip(differences, alike, strict=True)
    ]
    found = [mean_and_error(each) for each in differences]
    return [Comparison(mean, error, p) for (mean, error), p in zip(found, holm(raw), strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: the i-th smallest of m is multiplied by m − i + 1, and is at least the one before it.

    Source: Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(ps)
    scaled = np.maximum.accumulate(np.asarray(ps)[order] * np.arange(len(ps), 0, -1))
    return np.minimum(scaled, 1)[np.argsort(order)].tolist()
