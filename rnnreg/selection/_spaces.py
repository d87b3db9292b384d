"""Where to search: distributions of hyperparameters, and trials drawn from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from rnnreg._checks import check_choice, check_count, check_number, check_share, described
from rnnreg._signatures import Numbers, typed
from rnnreg.sweeps import Zipped, zipped

METHODS = ("random", "sobol", "latin_hypercube")
_BELOW_ONE = math.nextafter(1.0, 0.0)
_DIGITS = 6  # so many digits of a decimal survive float32, in which runs compute


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A number between two bounds, every one as likely as another.

    Attributes:
      low: the lower bound.
      high: the upper bound.

    >>> Uniform(0, 0.5).quantile([0, 0.5]).tolist()
    [0.0, 0.25]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_bounds(self)

    @typed
    def quantile(self, shares: Numbers) -> np.ndarray:
        """The values below which such shares of the distribution lie.

        Args:
          shares: any shape, in [0, 1).

        Returns:
          The values, of the same shape.
        """
        return self.low + (self.high - self.low) * _checked(shares)


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """A positive number whose logarithm is uniform between two bounds, or 0 with a probability of its own.

    The share of 0 is for a λ: the unregularised run is then among the trials.

    Attributes:
      low: the lower bound, above 0.
      high: the upper bound.
      zero: the probability of 0.

    >>> LogUniform(1e-4, 1.0).quantile([0, 0.5]).round(6).tolist()
    [0.0001, 0.01]
    >>> LogUniform(1e-4, 1.0, zero=0.2).quantile([0.1, 0.2, 0.6]).round(6).tolist()
    [0.0, 0.0001, 0.01]
    """

    low: float
    high: float
    zero: float = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        _check_bounds(self, hint="On a logarithmic axis 0 is reached by zero=, its probability.")
        check_share(self.zero, "LogUniform: zero", ends="[)")

    @typed
    def quantile(self, shares: Numbers) -> np.ndarray:
        """The values below which such shares of the distribution lie.

        Args:
          shares: any shape, in [0, 1).

        Returns:
          The values, of the same shape.
        """
        shares = _checked(shares)
        above = np.maximum(shares - self.zero, 0) / (1 - self.zero)
        values = np.exp(math.log(self.low) + math.log(self.high / self.low) * above)
        return np.where(shares < self.zero, 0.0, values)


@dataclasses.dataclass(frozen=True)
class IntUniform:
    """A whole number between two bounds, which are among them, every one as likely as another.

    Attributes:
      low: the least.
      high: the largest.

    >>> IntUniform(1, 4).quantile([0, 0.5, 0.99]).tolist()
    [1.0, 3.0, 4.0]
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        _check_bounds(self)
        if not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ValueError(
                f"IntUniform: low and high must be whole numbers; got {self.low!r} and {self.high!r}."
            )

    @typed
    def quantile(self, shares: Numbers) -> np.ndarray:
        """The values below which such shares of the distribution lie.

        Args:
          shares: any shape, in [0, 1).

        Returns:
          The values, of the same shape.
        """
        return np.floor(self.low + (self.high - self.low + 1) * _checked(shares))


@dataclasses.dataclass(frozen=True)
class OneOf:
    """One of several numbers, every one as likely as another.

    Attributes:
      values: the numbers; one that is there twice is twice as likely.

    >>> OneOf([0.0, 0.1, 0.5]).quantile([0, 0.5, 0.99]).tolist()
    [0.0, 0.1, 0.5]
    """

    values: Sequence[float]

    def __post_init__(self) -> None:
        given: Any = self.values
        if isinstance(given, str | bytes | Mapping) or np.ndim(given) != 1 or not len(given):
            raise ValueError(f"OneOf: values must be a list of numbers; got {described(given)}.")
        for value in given:
            check_number(value, "OneOf: values")
        object.__setattr__(self, "values", tuple(float(value) for value in given))

    @typed
    def quantile(self, shares: Numbers) -> np.ndarray:
        """The values below which such shares of the distribution lie, in the order in which they were given.

        Args:
          shares: any shape, in [0, 1).

        Returns:
          The values, of the same shape.
        """
        return np.asarray(self.values)[(len(self.values) * _checked(shares)).astype(int)]


@typed
def sample(
    space: Mapping[str, Any], num_trials: int, *, key: Array, method: str = "random"
) -> Zipped:
    """Trials drawn from a space, for an axis of a sweep: all its hyperparameters change from trial to trial.

    With few hyperparameters that matter, random trials find better ones than a grid of the same size, since each of
    them tries a new value of every one. "sobol" and "latin_hypercube" spread trials more evenly: so does a scrambled
    Sobol sequence over the whole space, best if their number is a power of two, and a Latin hypercube along each
    hyperparameter. More trials leave the first ones as they are, but in a Latin hypercube. Values have six significant
    digits, which float32 tells apart.

    Args:
      space: by hyperparameter, `LogUniform`, `Uniform`, `IntUniform` or `OneOf`; a distribution of SciPy, such
        as `scipy.stats.loguniform(1e-5, 1)`; or anything else with a method `quantile`, from shares in [0, 1) to
        values.
      num_trials: how many.
      key: root of the draws; another one than the sweep's.
      method: "random" draws trials independently; "sobol" or "latin_hypercube".

    Returns:
      The trials, as `rr.zipped` makes them.

    Raises:
      ValueError: an empty space, an entry that is no distribution, no trial, or an unknown method.

    Source: Bergstra & Bengio 2012 (random search); Sobol' 1967, Owen 1998 (scrambling); McKay et al. 1979 (Latin
    hypercubes).

    >>> space = {"l2": LogUniform(1e-5, 1, zero=0.1), "learning_rate": LogUniform(1e-3, 1e-1)}
    >>> trials = sample(space, 64, key=jax.random.key(1), method="sobol")
    >>> sorted(trials.values), int((trials.values["l2"] == 0).sum())
    (['l2', 'learning_rate'], 6)

    As an axis of a sweep: `rr.sweep(train, {"trial": trials}, split, key=jax.random.key(0))`.
    """
    check_count(num_trials, "num_trials")
    check_choice(method, "method", METHODS)
    check_space(space)
    seed = np.asarray(jax.random.bits(key, (4,), "uint32"))
    shares = _shares(len(space), int(num_trials), method, np.random.default_rng(seed))
    return zipped(
        **{
            name: _values(each, own).tolist()
            for (name, each), own in zip(space.items(), shares.T, strict=True)
        }
    )


def check_space(space: Mapping[str, Any]) -> None:
    """Raises if a space is empty, or holds something else than distributions."""
    if not space:
        raise ValueError('space must name hyperparameters, such as {"l2": LogUniform(1e-5, 1)}.')
    for name, each in space.items():
        if _quantile(each) is None:
            raise ValueError(
                f"space[{name!r}] must be a distribution, such as rr.selection.LogUniform(1e-5, 1) or OneOf([0, 0.1]); "
                f"got {described(each)}."
            )


def _shares(num: int, num_trials: int, method: str, generator: np.random.Generator) -> np.ndarray:
    """`[num_trials, num]` numbers in [0, 1)."""
    from scipy.stats import qmc

    if method == "random":
        return generator.random((num_trials, num))
    drawn: Any = {"seed": generator}  # SciPy calls it rng from 1.15 on, and takes both names
    if method == "sobol":  # whole powers of two, of which the first are taken
        power = max(1, math.ceil(math.log2(num_trials)))
        return qmc.Sobol(num, **drawn).random_base2(power)[:num_trials]
    return qmc.LatinHypercube(num, **drawn).random(num_trials)


def _values(distribution: Any, shares: np.ndarray) -> np.ndarray:
    """The values of a distribution in few digits, within its bounds."""
    quantile: Any = _quantile(distribution)
    values = np.asarray(quantile(shares), dtype=np.float64)
    short = np.array([float(f"{value:.{_DIGITS}g}") for value in values])
    low, high = (quantile(np.array([end]))[0] for end in (0.0, _BELOW_ONE))
    return np.where((short < low) | (short > high), values, short)


def _quantile(distribution: Any) -> Any:
    """The map from shares to values, as it is called here or, as `ppf`, in SciPy; None if there is none."""
    for name in ("quantile", "ppf"):
        if callable(getattr(distribution, name, None)):
            return getattr(distribution, name)
    return None


def _check_bounds(space: Any, hint: str = "") -> None:
    name, positive = type(space).__name__, isinstance(space, LogUniform)
    for bound in ("low", "high"):
        least = 0.0 if positive else -math.inf
        check_number(
            getattr(space, bound), f"{name}: {bound}", least=least, above=positive, hint=hint
        )
    if space.low >= space.high:
        raise ValueError(
            f"{name}: low must be below high; got {space.low!r} and {space.high!r}. OneOf([value]) has one value."
        )


def _checked(shares: Any) -> np.ndarray:
    shares = np.asarray(shares, dtype=np.float64)
    if not ((shares >= 0) & (shares < 1)).all():
        raise ValueError(f"shares must lie in [0, 1); got {described(shares)}.")
    return shares
