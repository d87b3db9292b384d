"""Rows that overlap in time: shuffled folds against blocks of time, where the target is a mean of the next h values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter
from sklearn.model_selection import KFold

import rnnreg as rr
from experiments.one_standard_error.ridge import Curves, Pairs, cross_validate, powers

SCHEMES = ("shuffled", "blocks", "blocks + embargo")


class Series(NamedTuple):
    """Forecasts of an AR(1) of variance 1: from the last T values the mean of the next h.

    Attributes:
        num_rows: rows; targets of neighbours share h − 1 values.
        length: T.
        horizon: h; 1 is the next value.
        rho: coefficient of the AR(1).
    """

    num_rows: int
    length: int
    horizon: int
    rho: float = 0.9

    def draw(self, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """xs `[S, N, T]`, latest first, and ys `[S, N]` of S series."""
        rng = np.random.default_rng([seed, self.num_rows, self.length, self.horizon])
        steps = self.num_rows + self.length + self.horizon - 1
        noise = rng.normal(size=(num, steps)) * np.sqrt(1 - self.rho**2)
        noise[:, 0] /= np.sqrt(1 - self.rho**2)  # stationary from the start
        series = np.asarray(lfilter([1.0], [1.0, -self.rho], noise, axis=1))
        past = np.lib.stride_tricks.sliding_window_view(series[:, : -self.horizon], self.length, axis=1)
        coming = np.lib.stride_tricks.sliding_window_view(series[:, self.length :], self.horizon, axis=1)
        return np.ascontiguousarray(past[..., ::-1]), coming.mean(axis=-1)

    def error(self, fitted: np.ndarray) -> np.ndarray:
        """The mean squared error of Σ v_k x_{t−k} on another series, of v `[…, T]`.

        >>> round(float(Series(9, 3, 1, 0.5).error(np.array([0.5, 0.0, 0.0]))), 12)
        0.75
        """
        ahead = np.arange(1, self.horizon + 1)
        cross = (self.rho ** (np.arange(self.length)[:, None] + ahead)).mean(axis=1)
        return (
            powers(self.rho, self.horizon).mean()
            - 2 * fitted @ cross
            + np.sum(fitted @ powers(self.rho, self.length) * fitted, axis=-1)
        )

    def folds(self, scheme: str, num_folds: int) -> Pairs:
        """Row numbers: K shuffled folds, K blocks as the library makes them, or those with T + h left out around."""
        if scheme == "shuffled":
            return list(KFold(num_folds, shuffle=True, random_state=0).split(np.zeros(self.num_rows)))
        first = np.arange(self.num_rows, dtype=float) + self.length
        times = np.stack([first, first + self.horizon - 1], axis=1)
        split = rr.Split(rr.Batch(np.zeros((self.num_rows, 1, 1)), np.zeros((self.num_rows, 1))), target_times=times)
        embargo = self.length + self.horizon if scheme.endswith("embargo") else 0
        return rr.selection.blocked_folds(num_folds, embargo=embargo)(split)


class Dependent(NamedTuple):
    """S series of one kind under one scheme of folds.

    Attributes:
        series: the kind.
        scheme: of the folds.
        lams: `[λ]`.
        cv: their cross-validations.
        inner: `[S, λ, K]`, the true errors of the models of the folds.
    """

    series: Series
    scheme: str
    lams: np.ndarray
    cv: Curves
    inner: np.ndarray

    @property
    def bias(self) -> np.ndarray:
        """`[S, λ]`, the mean of the cross-validation less the mean true error of its own models."""
        return self.cv.mean - self.inner @ (self.cv.sizes / self.cv.sizes.sum())


def simulate(
    series: Series, lams: np.ndarray, *, num_simulations: int, num_folds: int, seed: int = 0
) -> dict[str, Dependent]:
    """By scheme, of the same series."""
    xs, ys = series.draw(num_simulations, seed)
    found = {}
    for scheme in SCHEMES:
        cv = cross_validate(xs, ys, lams, series.folds(scheme, num_folds))
        found[scheme] = Dependent(series, scheme, lams, cv, series.error(cv.fitted))
    return found
