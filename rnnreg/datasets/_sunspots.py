"""Yearly sunspot numbers 1700–2008, the classical benchmark of nonlinear forecasting.

The split is that of Weigend, Huberman and Rumelhart (1990): learn up to 1920, test on 1921–1955 and
on 1956–1979, whose cycles are larger than any before. The years 1980–2008 came after the benchmark.
"""

from __future__ import annotations

from importlib import resources

import jax
import numpy as np

from rnnreg._checks import check_choice, check_count
from rnnreg._signatures import Numbers, typed
from rnnreg.data import Batch, Split, standardize, windows

TRAIN_YEARS = (1700, 1920)
"""First and last target year that may be learned from."""

TEST_YEARS = {"1921-1955": (1921, 1955), "1956-1979": (1956, 1979), "1980-2008": (1980, 2008)}
"""First and last target year of each test set."""

SUNSPOT_VARIANCE = 1535.0
"""What the literature divides the mean squared error by to get the average relative variance (ARV).

It is meant as the variance of the record as it stood around 1980, and is kept as a constant so that
figures compare across papers and spans. In the series shipped here the variance of 1700–1979 is
1495.6; no obvious span gives 1535 exactly, because early papers used slightly other numbers.
"""


def sunspot_series() -> tuple[np.ndarray, np.ndarray]:
    """Years `[309]` (1700 … 2008) and yearly mean sunspot numbers `[309]`, version 1, in float64.

    Version 1 is the series before the recalibration of July 2015; the benchmark was defined on it.

    Returns:
      The years and the values.

    >>> years, values = sunspot_series()
    >>> len(values), int(years[0]), int(years[-1]), float(values[0])
    (309, 1700, 2008, 5.0)

    Source: Royal Observatory of Belgium / SIDC, yearly mean sunspot number; public domain.
    """
    text = resources.files("rnnreg.datasets").joinpath("sunspots.csv").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if not line.startswith("#")][1:]
    table = np.loadtxt(rows, delimiter=",")
    return table[:, 0].astype(int), table[:, 1]


@typed
def sqrt_transform(values: Numbers) -> np.ndarray:
    """`z = 2(√(1 + x) − 1)`, which makes the noise of counts nearly constant and keeps 0 at 0.

    Args:
      values: counts, at least 0, of any shape.

    Returns:
      The transformed values, of the same shape.

    >>> sqrt_transform([0.0, 3.0, 8.0]).tolist()
    [0.0, 2.0, 4.0]

    Source: Ghaddar and Tong (1981), Applied Statistics 30, 238–248.
    """
    return 2.0 * (np.sqrt(1.0 + np.asarray(values)) - 1.0)


@typed
def inverse_sqrt(values: Numbers) -> np.ndarray:
    """`x = (z/2 + 1)² − 1`, the inverse of `sqrt_transform`.

    Forecasts below −2, which no count can reach, map to −1, so that the inverse never turns up.

    Args:
      values: transformed counts, of any shape.

    Returns:
      Counts of the same shape, at least −1.

    >>> inverse_sqrt([0.0, 2.0, 4.0]).tolist()
    [0.0, 3.0, 8.0]
    """
    return np.maximum(np.asarray(values) / 2.0 + 1.0, 0.0) ** 2 - 1.0


_TRANSFORMS = {"identity": np.asarray, "sqrt": sqrt_transform}


@typed
def sunspots(
    window: int = 24,
    *,
    transform: str = "identity",
    targets: str = "last",
    standardized: bool = True,
) -> Split:
    """Windows of `window` years with the year (or years) that follow, split by target year.

    Training rows have their last target in 1700–1920, so the first one aims at 1700 + window; the
    test sets are `"1921-1955"`, `"1956-1979"` and `"1980-2008"`. The inputs of a test row may reach
    back into earlier years: each forecast is one step ahead from true values.

    Args:
      window: T, the number of years that a row sees.
      transform: "identity", or "sqrt" for 2(√(1 + x) − 1); `inverse_sqrt` maps forecasts back.
      targets: "last" gives ys `[N, 1]`; "all" gives ys `[N, T, 1]`, a forecast at every step. With
        "all" only the last step of a test row lies in the named years; score that one.
      standardized: scale to zero mean and unit variance of the training rows; `units` maps back.

    Returns:
      A split with `target_times`; the arrays are float64 where JAX has 64-bit numbers enabled and
      float32 elsewhere.

    Raises:
      ValueError: unknown transform or targets; a window that leaves no training row.

    >>> data = sunspots(window=24)
    >>> data.train.xs.shape, data.train.ys.shape, data.target_times[0].tolist()
    ((197, 24, 1), (197, 1), [1724.0, 1724.0])
    >>> {name: len(batch.ys) for name, batch in data.test.items()}
    {'1921-1955': 35, '1956-1979': 24, '1980-2008': 29}

    Source: Weigend, Huberman and Rumelhart (1990), Int. J. Neural Systems 1, 193–209 (the split).
    """
    check_choice(transform, "transform", _TRANSFORMS)
    first, last = TRAIN_YEARS
    hint = f"A training row has to remain before {last + 1}."
    check_count(window, "window", most=last - first, hint=hint)
    years, values = sunspot_series()
    series = _TRANSFORMS[transform](values)
    rows, target_times = windows(series, window, times=years, targets=targets)

    def between(first: int, last: int) -> np.ndarray:
        return (target_times[:, 1] >= first) & (target_times[:, 1] <= last)

    def take(batch: Batch, keep: np.ndarray) -> Batch:
        return Batch(xs=batch.xs[keep], ys=batch.ys[keep])

    in_train = between(*TRAIN_YEARS)
    split = Split(
        train=take(rows, in_train),
        test={name: take(rows, between(*span)) for name, span in TEST_YEARS.items()},
        target_times=target_times[in_train],
    )
    split = standardize(split) if standardized else split
    dtype = jax.dtypes.canonicalize_dtype(np.float64)

    def cast(batch: Batch) -> Batch:
        return Batch(xs=batch.xs.astype(dtype), ys=batch.ys.astype(dtype))

    return split.replace(
        train=cast(split.train), test={name: cast(batch) for name, batch in split.test.items()}
    )
