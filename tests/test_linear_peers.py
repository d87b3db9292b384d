"""The statistical peers: known errors, the ridge path against its definition, the bootstrap.

No error on 1980–2008 is computed here: those years are the clean test of the experiment.
"""

import numpy as np
import pytest

from experiments._sunspots import autoregression as linear
from experiments._sunspots import errors
from rnnreg.datasets import SUNSPOT_VARIANCE, sunspot_series

SPANS = {"1921-1955": np.arange(1921, 1956), "1956-1979": np.arange(1956, 1980)}


@pytest.fixture(scope="module")
def series():
    return sunspot_series()


def _arv(series, method, years):
    return errors.arv(linear.truth(series, years), linear.one_step(method, series, years))


@pytest.mark.parametrize(
    ("name", "num_lags", "expected"),
    [("linear_ar12", 12, (0.128, 0.126, 0.358)), ("ar9_sqrt", 9, (0.112, 0.117, 0.238))],
)
def test_autoregressions_have_the_known_errors(series, name, num_lags, expected):
    spans = [np.arange(1700 + num_lags, 1921), *SPANS.values()]
    measured = [_arv(series, linear.METHODS[name], years) for years in spans]
    np.testing.assert_allclose(measured, expected, atol=0.0015)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(linear.METHODS))
def test_forecasts_use_the_past_only(series, name):
    """A forecast of a year stays as it was when that year and all later ones change."""
    years, values = series
    changed = (years, np.where(years >= 1940, 0.5 * values + 3.0, values))
    target_years = np.arange(1921, 1941)
    before = linear.one_step(linear.METHODS[name], series, target_years)
    after = linear.one_step(linear.METHODS[name], changed, target_years)
    np.testing.assert_array_equal(before, after)


def test_autoregression_recovers_a_noiseless_recursion():
    values = [1.0, 2.0]
    for _ in range(60):
        values.append(1.5 * values[-1] - 0.9 * values[-2] + 2.0)
    series = (np.arange(1900, 1962), np.array(values))
    years = np.arange(1950, 1962)
    forecast = linear.one_step(linear.autoregression(2), series, years, train_until=1940)
    np.testing.assert_allclose(forecast, linear.truth(series, years), rtol=1e-8)


def test_lag_matrix_is_latest_first():
    series = (np.arange(2000, 2006), np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))
    assert linear.lag_matrix(series, [2003, 2005], 3).tolist() == [[2, 1, 0], [4, 3, 2]]
    assert linear.one_step(linear.persistence, series, [2001, 2004]).tolist() == [0, 3]


def test_ridge_minimises_the_mean_loss_plus_lambda(series):
    """The α = nλ of scikit-learn against the normal equations of mean(e²) + λ Σ w²."""
    lam, num_lags = 0.02, 5
    years = linear.training_years(series, num_lags, 1920)
    xs, ys = linear.lag_matrix(series, years, num_lags), linear.truth(series, years)
    method = linear.ridge_autoregression(num_lags, lams=[lam])
    zs, t = (xs - xs.mean(0)) / xs.std(0), (ys - ys.mean()) / ys.std()
    n = len(years)
    weights = np.linalg.solve(zs.T @ zs / n + lam * np.eye(num_lags), zs.T @ t / n)
    expected = zs @ weights * ys.std() + ys.mean()
    np.testing.assert_allclose(linear.one_step(method, series, years), expected, rtol=1e-9)


def test_ridge_path_follows_the_one_standard_error_rule(series):
    path = linear.ridge_path(series, lams=np.logspace(-4, 1, 11))
    curve = path.curve
    assert curve.fold_sizes.tolist() == [40, 40, 39, 39, 39]  # target years 1724 … 1920, unequal
    w = curve.fold_sizes / curve.fold_sizes.sum()
    mean = curve.folds @ w
    error = np.sqrt((curve.folds - mean[:, None]) ** 2 @ w / 4)
    np.testing.assert_allclose(curve.mean, mean)
    np.testing.assert_allclose(curve.se, error)
    best = int(np.argmin(mean))
    assert path.lam_min == curve.lam[best]
    assert path.lam_1se == curve.lam[mean <= mean[best] + error[best]].max()
    assert path.lam_min <= path.lam_1se


def test_ridge_choice_ignores_later_years(series):
    years, values = series
    changed = (years, np.where(years > 1920, 0.0, values))
    lams = np.logspace(-3, 0, 4)
    first, second = linear.ridge_path(series, lams=lams), linear.ridge_path(changed, lams=lams)
    np.testing.assert_array_equal(first.curve.folds, second.curve.folds)


def test_scores():
    y, yhat = np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 50.0])
    assert errors.arv(y, yhat) == pytest.approx(300 / SUNSPOT_VARIANCE)
    assert errors.r2(y, yhat) == pytest.approx(1 - 900 / 200)


def test_resamples_are_runs_of_consecutive_years_and_reproducible():
    rows = errors.stationary_resamples(35, num_resamples=2000, seed=3)
    np.testing.assert_array_equal(rows, errors.stationary_resamples(35, num_resamples=2000, seed=3))
    assert (rows != errors.stationary_resamples(35, num_resamples=2000, seed=4)).any()
    follows = (rows[:, 1:] - rows[:, :-1]) % 35 == 1
    share = 1 - (1 / 11) * (34 / 35)  # a jump lands on the next year once in 35 times
    assert follows.mean() == pytest.approx(
        share, abs=4 * np.sqrt(share * (1 - share) / follows.size)
    )


def test_bootstrap_of_independent_errors_has_the_textbook_standard_error():
    drawn = np.random.default_rng(0).normal(size=400) * 20
    interval = errors.bootstrap_interval(drawn, block_length=1, num_resamples=4000)
    expected = (drawn**2).std() / np.sqrt(400) / SUNSPOT_VARIANCE
    assert interval.standard_error == pytest.approx(expected, rel=4 / np.sqrt(2 * 4000))
    assert interval.low < interval.value < interval.high
    assert interval == errors.bootstrap_interval(drawn, block_length=1, num_resamples=4000)


def test_bootstrap_of_r2(series):
    years = SPANS["1921-1955"]
    y, yhat = linear.truth(series, years), linear.one_step(linear.autoregression(9), series, years)
    interval = errors.bootstrap_interval(y - yhat, targets=y, num_resamples=500)
    assert interval.value == pytest.approx(errors.r2(y, yhat))
    assert interval.low < interval.value < interval.high <= 1


def test_paired_bootstrap(series):
    years = np.concatenate(list(SPANS.values()))
    y = linear.truth(series, years)
    a = y - linear.one_step(linear.METHODS["ar9_sqrt"], series, years)
    b = y - linear.one_step(linear.METHODS["persistence"], series, years)
    better = errors.paired_bootstrap(a, b, num_resamples=2000)
    assert better.difference < 0
    assert better.high < 0
    assert better.p_better < 0.05 < better.p_worse
    worse = errors.paired_bootstrap(b, a, num_resamples=2000)
    assert (worse.difference, worse.p_worse) == (-better.difference, better.p_better)
    same = errors.paired_bootstrap(a, a, num_resamples=100)
    assert (same.difference, same.low, same.high, same.p_better) == (0, 0, 0, 1)


def test_published_figures_say_where_they_stand():
    for figure in linear.PUBLISHED:
        assert figure.source
        assert isinstance(figure.verified, bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: linear.lag_matrix(s, [1705], 12), "first year that can be forecast is 1712"),
        (lambda s: linear.truth(s, [2030]), "the series has the years 1700 to 2008"),
        (lambda s: linear.training_years(s, 12, 1720), "leave 9 training years"),
        (lambda s: linear.autoregression(9, transform="log"), "transform must be"),
        (lambda s: linear.ridge_autoregression(9, rule="best"), "rule must be"),
        (lambda s: errors.bootstrap_interval([1.0, np.nan]), "1 NaN or infinite"),
        (lambda s: errors.paired_bootstrap([1.0], [1.0, 2.0]), "must be of the same years"),
        (lambda s: errors.bootstrap_interval([1.0, 2.0], targets=[1.0]), "one entry a year"),
        (lambda s: errors.stationary_resamples(5, block_length=0), "must be at least 1"),
    ],
)
def test_bad_arguments(series, call, message):
    with pytest.raises(ValueError, match=message):
        call(series)
