"""What the simulations say: how often an interval holds the truth, how far off a mean is, and which rule wins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments._harness import mean_and_error
from experiments.one_standard_error.overlap import Dependent
from experiments.one_standard_error.recurrent import Trained
from experiments.one_standard_error.ridge import RULES, Curves, Simulated


class Bias(NamedTuple):
    """A mean difference, as a share of what is estimated, over simulations.

    Attributes:
      mean: of estimate less truth, over the mean truth.
      error: its standard error.
    """

    mean: float
    error: float

    @property
    def z(self) -> float:
        """In standard errors."""
        return self.mean / self.error

    @property
    def p_better(self) -> float:
        """Small if the mean is shown to be below 0."""
        return float(stats.norm.cdf(self.z))

    @property
    def p_worse(self) -> float:
        """Small if the mean is shown to be above 0."""
        return float(stats.norm.sf(self.z))


def bias(estimate: np.ndarray, truth: np.ndarray) -> Bias:
    """Of S estimates of S truths.

    >>> bias(np.array([1.0, 3.0]), np.array([1.0, 1.0])).mean
    1.0
    """
    mean, error = mean_and_error(estimate - truth)
    return Bias(mean / float(truth.mean()), error / float(truth.mean()))


def at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Of `[S, λ, …]` those at one place of λ in each row, `[S, …]`."""
    return values[np.arange(len(values)), places]


def over_folds(values: np.ndarray, cv: Curves) -> np.ndarray:
    """The mean over the last axis, weighted by the sizes of the folds."""
    return values @ (cv.sizes / cv.sizes.sum())


def covered(mean: np.ndarray, se: np.ndarray, truth: np.ndarray, z: float) -> np.ndarray:
    """The share of simulations, the first axis, in which mean ± z se holds the truth."""
    return (np.abs(mean - truth) <= z * se).mean(axis=0)


def student(level: float, num_folds: int) -> float:
    """The quantile of Student's distribution with K − 1 degrees of freedom for a two-sided level.

    >>> round(student(0.95, 5), 3)
    2.776
    """
    return float(stats.t.ppf((1 + level) / 2, num_folds - 1))


def student_share(z: float, num_folds: int) -> float:
    """What ± z SE would hold if the scores of the folds were independent and Gaussian.

    >>> round(student_share(1.0, 5), 3), round(student_share(1.0, 100), 3)
    (0.626, 0.68)
    """
    return float(2 * stats.t.cdf(z, num_folds - 1) - 1)


ONE_SE = float(2 * stats.norm.cdf(1) - 1)  # what ± 1 SE would hold of a Gaussian with a known variance
LEVELS = {"1 SE": ("normal", ONE_SE), "1.96 SE": ("normal", 0.95), "t · SE": ("student", 0.95)}


def width(name: str, num_folds: int) -> float:
    """z of one of `LEVELS`."""
    kind, level = LEVELS[name]
    return student(level, num_folds) if kind == "student" else float(stats.norm.ppf((1 + level) / 2))


class Truth(NamedTuple):
    """What a cross-validation may be asked for, `[S, λ]` each.

    Attributes:
      average: the true error of a model of n (K − 1)/K rows, the mean over data sets.
      own: that of the K models that were scored, the mean over folds: of this data set.
    """

    average: np.ndarray
    own: np.ndarray


def truth_of(one: Simulated | Trained) -> Truth:
    """Of the models of the folds."""
    own = over_folds(one.inner, one.cv)
    return Truth(np.broadcast_to(own.mean(axis=0), own.shape), own)


def coverage(one: Simulated | Trained) -> dict[str, dict[str, float]]:
    """By width and kind of truth, how often the interval at λ_min, at the best fixed λ and of nested CV holds it."""
    truth, cv = truth_of(one), one.cv
    num_folds = len(cv.sizes)
    fixed = int(truth.average[0].argmin())
    nested, found = one.nested, {}
    own = over_folds(nested.true, cv)
    mean, se, own_min = (at(values, cv.chosen["min"]) for values in (cv.mean, cv.se, truth.own))
    for name in LEVELS:
        z = width(name, num_folds)
        found[name] = {
            "fixed λ, average": covered(cv.mean[:, fixed], cv.se[:, fixed], truth.average[:, fixed], z),
            "fixed λ, own": covered(cv.mean[:, fixed], cv.se[:, fixed], truth.own[:, fixed], z),
            "λ_min, own": covered(mean, se, own_min, z),
            "nested, average": covered(nested.mean, nested.se, np.full_like(own, own.mean()), z),
            "nested, own": covered(nested.mean, nested.se, own, z),
        }
    return {name: {kind: float(share) for kind, share in by.items()} for name, by in found.items()}


def variance_ratio(cv: Curves) -> np.ndarray:
    """`[λ]`, the mean of SE² over the variance of the mean over simulations: below 1 the SE is too small."""
    return np.square(cv.se).mean(axis=0) / cv.mean.var(axis=0, ddof=1)


def biases(one: Simulated | Trained) -> dict[str, Bias]:
    """Of the least mean of the cross-validation and of nested cross-validation, for the error of the procedure."""
    procedure = over_folds(one.nested.true, one.cv)
    return {"least mean": bias(one.cv.mean.min(axis=1), procedure), "nested": bias(one.nested.mean, procedure)}


def regrets(true: np.ndarray, cv: Curves) -> dict[str, np.ndarray]:
    """By rule, `[S]`: the true error of the chosen λ less that of the best λ for this data set, over the mean of those.

    Args:
      true: `[S, λ]`.
      cv: what chose.
    """
    best = true.min(axis=1)
    return {rule: (at(true, cv.chosen[rule]) - best) / best.mean() for rule in RULES}


def shrinkage(norm: np.ndarray, cv: Curves) -> dict[str, float]:
    """By rule, the mean ‖W‖ over that of λ_min."""
    base = at(norm, cv.chosen["min"]).mean()
    return {rule: float(at(norm, cv.chosen[rule]).mean() / base) for rule in RULES}


def conditional(one: Simulated) -> dict[str, float]:
    """At the smallest λ: how far CV is from the error of the model at hand, against from that of an average one.

    Mean squares over data sets, both for models of all n rows; and the correlation with the former.
    """
    mean, own = one.cv.mean[:, 0], one.refit[:, 0]
    average = own.mean()
    return {
        "ratio": float(np.mean((mean - average) ** 2) / np.mean((mean - own) ** 2)),
        "correlation": float(np.corrcoef(mean, own)[0, 1]),
    }


def dependent_bias(one: Dependent, *, chosen: bool = False) -> Bias:
    """Of the CV mean, for the true error of the same models: at λ_min, or at the λ whose average error is least."""
    own = over_folds(one.inner, one.cv)
    places = one.cv.chosen["min"] if chosen else np.full(len(own), own.mean(axis=0).argmin())
    return bias(at(one.cv.mean, places), at(own, places))
