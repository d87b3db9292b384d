"""The statistical peers of the sunspot experiment: persistence, autoregressions, ridge autoregressions.

Every method is fitted on target years up to 1920 and forecasts one year ahead from true past
values. A method is a function `(series, train_until) -> predict`; `predict(years)` gives one number
a year.

    series = sunspot_series()
    forecast = one_step(METHODS["linear_ar12"], series, range(1921, 1956))
    errors = truth(series, range(1921, 1956)) - forecast
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from rnnreg.datasets import inverse_sqrt, sqrt_transform
from rnnreg.selection import Curve, one_standard_error

Series = tuple[np.ndarray, np.ndarray]
"""Consecutive years `[S]` and the values of those years `[S]`."""

Predict = Callable[[Iterable[int]], np.ndarray]
Method = Callable[[Series, int], Predict]


class Published(NamedTuple):
    """A figure from the literature, in ARV.

    Attributes:
      name: authors and year.
      method: what they fitted.
      train: ARV on 1700–1920 (less the first lags).
      test_1921_1955: ARV on the first test span.
      test_1956_1979: ARV on the second test span.
      source: where the figure stands.
      verified: whether the figure was read in that source by us; print it as unverified otherwise.
    """

    name: str
    method: str
    train: float
    test_1921_1955: float
    test_1956_1979: float
    source: str
    verified: bool = False


# Quoted from memory of the literature. The open indices we searched know these papers but none of
# the texts within reach contains the table, nor a definition of the constant 1535.
TONG = "Tong & Lim (1980), J. R. Statist. Soc. B 42, 245–292; ARV as later papers quote it"
WEIGEND = "Weigend, Huberman & Rumelhart (1990), Int. J. Neural Systems 1, 193–209"
ELIMINATION = "feed-forward network with weight elimination, 12 lags"
PUBLISHED = (
    Published("Tong & Lim 1980", "threshold autoregression", 0.097, 0.097, 0.28, TONG),
    Published("Weigend, Huberman & Rumelhart 1990", ELIMINATION, 0.082, 0.086, 0.35, WEIGEND),
)


def truth(series: Series, years: Iterable[int]) -> np.ndarray:
    """The observed values of `years`."""
    return series[1][_positions(series, years)]


def lag_matrix(series: Series, years: Iterable[int], num_lags: int) -> np.ndarray:
    """`[len(years), num_lags]`: row i holds the values before `years[i]`, the latest first.

    Raises:
      ValueError: a year outside the series, or without `num_lags` years before it.
    """
    positions = _positions(series, years)
    if positions.size and positions.min() < num_lags:
        raise ValueError(
            f"{num_lags} lags reach back before the series, which begins in {series[0][0]}; the "
            f"first year that can be forecast is {series[0][0] + num_lags}, got "
            f"{series[0][positions.min()]}."
        )
    return series[1][positions[:, None] - 1 - np.arange(num_lags)]


def training_years(series: Series, num_lags: int, train_until: int) -> np.ndarray:
    """Target years that can be learned from: those with all lags, up to `train_until`."""
    years = series[0][num_lags:]
    years = years[years <= train_until]
    if len(years) <= num_lags:
        raise ValueError(
            f"{num_lags} lags leave {len(years)} training years up to {train_until}; use fewer "
            "lags or a later train_until."
        )
    return years


def _positions(series: Series, years: Iterable[int]) -> np.ndarray:
    years = np.asarray(list(years), dtype=int)
    positions = years - series[0][0]
    if years.size and (positions.min() < 0 or positions.max() >= len(series[0])):
        raise ValueError(
            f"the series has the years {series[0][0]} to {series[0][-1]}; got {years.min()} to {years.max()}."
        )
    return positions


def one_step(method: Method, series: Series, years: Iterable[int], train_until: int = 1920) -> np.ndarray:
    """One-year-ahead forecasts of `years`, fitted on target years up to `train_until`."""
    return method(series, train_until)(years)


def persistence(series: Series, train_until: int = 1920) -> Predict:
    """`x̂_t = x_{t−1}`: next year is like this year; nothing is fitted."""
    del train_until
    return lambda years: lag_matrix(series, years, 1)[:, 0]


def autoregression(order: int, *, transform: str = "identity") -> Method:
    """`x̂_t = a + Σ_k b_k x_{t−k}`, k = 1 … order, by least squares.

    With `transform="sqrt"` the fit is on 2(√(1 + x) − 1) and the forecast is mapped back, without a
    correction for the bias of the mean.
    """
    if transform not in ("identity", "sqrt"):
        raise ValueError(f"transform must be 'identity' or 'sqrt'; got {transform!r}.")

    def method(series: Series, train_until: int = 1920) -> Predict:
        from sklearn.linear_model import LinearRegression

        scaled = (series[0], sqrt_transform(series[1])) if transform == "sqrt" else series
        years = training_years(scaled, order, train_until)
        model = LinearRegression().fit(lag_matrix(scaled, years, order), truth(scaled, years))

        def predict(years: Iterable[int]) -> np.ndarray:
            forecast = model.predict(lag_matrix(scaled, years, order))
            return inverse_sqrt(forecast) if transform == "sqrt" else forecast

        return predict

    return method


class RidgePath(NamedTuple):
    """Cross-validation of a ridge autoregression over λ.

    Attributes:
      curve: mean squared errors of the validation blocks in raw units, over increasing λ in our convention.
      lam_min: the largest minimiser of its mean.
      lam_1se: the largest λ with a mean within one standard error of the minimum.
      lam_paired_1se: the same of the difference to the minimum, fold by fold.
    """

    curve: Curve
    lam_min: float
    lam_1se: float
    lam_paired_1se: float


def _ridge(lam: float, num_rows: int):
    # Ridge minimises ‖y − Xw‖² + α‖w‖²; the mean loss with λ‖w‖² has the same solution at α = nλ.
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), Ridge(alpha=num_rows * lam, solver="svd"))
    return TransformedTargetRegressor(model, transformer=StandardScaler())


def ridge_path(
    series: Series, *, window: int = 24, lams: Any = None, num_folds: int = 5, train_until: int = 1920
) -> RidgePath:
    """Errors of ridge autoregressions on `window` lags over λ, by blocked cross-validation.

    The folds are contiguous blocks of target years inside the training years. Lags and target are
    standardised on the training years of each fold. A row has one target, so no row needs purging;
    lags that reach over the border of a block stay, as they do in a forecast.

    Args:
      series: years and values.
      window: number of lags.
      lams: penalty strengths of the mean loss plus λ Σ w²; default 41 from 1e-5 to 1e1.
      num_folds: number of blocks.
      train_until: last target year that may be used.
    """
    from sklearn.model_selection import KFold

    lams = np.sort(np.logspace(-5, 1, 41) if lams is None else np.asarray(lams, dtype=float))
    years = training_years(series, window, train_until)
    xs, ys = lag_matrix(series, years, window), truth(series, years)
    folds = list(KFold(num_folds).split(xs))

    def error(lam, fit, val):
        return np.mean((_ridge(lam, len(fit)).fit(xs[fit], ys[fit]).predict(xs[val]) - ys[val]) ** 2)

    errors = np.array([[error(lam, fit, val) for fit, val in folds] for lam in lams])
    curve, *places = one_standard_error(errors, [len(val) for _, val in folds], lams)
    return RidgePath(curve, *(float(lams[place]) for place in places))


def ridge_autoregression(window: int = 24, *, rule: str = "min", lams: Any = None, num_folds: int = 5) -> Method:
    """Ridge on `window` lags, λ from `ridge_path` by rule "min", "1se" or "paired_1se", refitted on all years.

    λ stays what it was in the folds, as in glmnet; it belongs to the mean loss.
    """
    if rule not in ("min", "1se", "paired_1se"):
        raise ValueError(f"rule must be 'min', '1se' or 'paired_1se'; got {rule!r}.")

    def method(series: Series, train_until: int = 1920) -> Predict:
        path = ridge_path(series, window=window, lams=lams, num_folds=num_folds, train_until=train_until)
        lam = {"min": path.lam_min, "1se": path.lam_1se, "paired_1se": path.lam_paired_1se}[rule]
        years = training_years(series, window, train_until)
        model = _ridge(lam, len(years)).fit(lag_matrix(series, years, window), truth(series, years))
        return lambda years: model.predict(lag_matrix(series, years, window))

    return method


METHODS: dict[str, Method] = {
    "persistence": persistence,
    "linear_ar12": autoregression(12),
    "ar9": autoregression(9),
    "ar9_sqrt": autoregression(9, transform="sqrt"),
    "ridge_ar": ridge_autoregression(24),
}
