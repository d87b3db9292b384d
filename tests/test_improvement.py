"""Whether regularising helps: the numbers by hand, and how often nothing is taken for something."""

import numpy as np
import pytest
import xarray as xr
from conftest import SEED
from scipy import stats
from test_selection import FOLDS, GRID, LAM, VALLEY, made_up, scores

from rnnreg.selection import improvement
from rnnreg.selection._improvement import corrected_t, cross_fitted


def by_hand(table, lam, sizes):
    """In loops: for each fold, the λ that is best in the others, against λ = 0."""
    found = []
    for k in range(table.shape[1]):
        rest = [j for j in range(table.shape[1]) if j != k]
        means = [
            sum(sizes[j] * row[j] for j in rest) / sum(sizes[j] for j in rest) for row in table
        ]
        found.append(table[lam.index(0.0)][k] - table[int(np.argmin(means))][k])
    return np.array(found)


def result_of(table, lam, sizes, train=20.0):
    lanes = scores(table[:, None], l2=lam, seed=[0], fold=[str(k) for k in range(table.shape[1])])
    result = made_up(lanes, grid={"l2": lam}, sizes=sizes)
    result.metrics["fold_train_size"] = ("fold", np.full(table.shape[1], train))
    return result


@pytest.mark.numerics
def test_the_improvement_by_hand():
    rng = np.random.default_rng(SEED)
    lam, sizes = [0.0, 0.1, 1.0], [3.0, 5.0, 4.0, 4.0]
    table = rng.normal(size=(3, 4)) + np.array([[0.0], [-1.0], [2.0]])
    found = improvement(result_of(table, lam, sizes))
    expected = by_hand(table, lam, sizes)
    np.testing.assert_allclose(found.by_fold, expected, rtol=1e-12)
    weights = np.array(sizes) / 16
    mean = weights @ expected
    se = np.sqrt((1 / 4 + 4 / 20) * (weights @ (expected - mean) ** 2) * 4 / 3)
    np.testing.assert_allclose([found.difference, found.se], [mean, se], rtol=1e-12)
    np.testing.assert_allclose(found.p_value, stats.t.sf(mean / se, 3), rtol=1e-12)
    half = stats.t.ppf(0.975, 3) * se
    np.testing.assert_allclose(found.interval, (mean - half, mean + half), rtol=1e-12)
    assert "p = " in repr(found)
    assert repr(found).isascii()


def test_more_may_be_better():
    table = np.array([[0.5, 0.6, 0.4, 0.5], [0.9, 0.9, 0.8, 0.9]])
    one = improvement(result_of(table, [0.0, 1.0], [1] * 4), maximise=None)
    result = result_of(table, [0.0, 1.0], [1] * 4)
    result.metrics["val_accuracy"] = result.metrics["val_loss"]
    two = improvement(result, metric="val_accuracy", maximise=True)
    assert (one.difference, one.p_value, one.lam.tolist()) == (0.0, 1.0, [0.0] * 4)
    assert two.difference > 0.3
    assert two.p_value < 0.01


def test_every_lambda_has_its_own_best_learning_rate():
    # λ = 0 wants the small rate, λ = 1 the large one, and both then are equal
    table = np.array([[1.0, 5.0], [5.0, 1.0]])[:, :, None, None] + np.zeros((2, 2, 1, 4))
    lanes = scores(
        table, l2=[0.0, 1.0], learning_rate=[0.1, 1.0], seed=[0], fold=["0", "1", "2", "3"]
    )
    grid = {"l2": [0.0, 1.0], "learning_rate": [0.1, 1.0]}
    assert improvement(made_up(lanes, grid=grid, sizes=[1] * 4)).by_fold.tolist() == [0] * 4


def test_a_lambda_that_diverged_anywhere_is_not_chosen():
    table = np.array([[1.0, 1, 1], [0.0, 0, np.nan], [0.5, 0.5, 0.4]])
    assert improvement(result_of(table, [0.0, 0.1, 1.0], [1] * 3)).lam.tolist() == [1.0] * 3
    with pytest.raises(ValueError, match="l2 = 0 have no finite val_loss in every fold"):
        improvement(result_of(table[[1, 0]], [0.0, 0.1], [1] * 3))


def test_what_cannot_be_tested_is_named():
    with pytest.raises(ValueError, match=r"'l2' has no λ = 0 to compare with; it has \[0.1, 1.0\]"):
        improvement(result_of(np.ones((2, 3)), [0.1, 1.0], [1] * 3))
    lanes = scores(VALLEY, l2=LAM, seed=[0], fold=FOLDS)
    with pytest.raises(ValueError, match="at least three of them; got 2"):
        improvement(made_up(lanes, grid=GRID))
    one = made_up(
        xr.DataArray(VALLEY[:, :, 0], {"l2": LAM, "seed": [0]}, ("l2", "seed")), grid=GRID
    )
    with pytest.raises(ValueError, match="at least three of them; got 1"):
        improvement(one)


def is_called_better(table, shared):
    """Whether the difference is called an improvement at 5 %."""
    is_zero = np.arange(len(table)) == 0
    found = cross_fitted(table, np.ones_like(table), is_zero)
    return corrected_t(found.by_fold, np.ones(table.shape[1]), shared, 0.95)[2] <= 0.05


def equal_models(rng, num_models, num_folds, num_rows=60, slope=1.0):
    """Cross-validated errors of models that are equal by construction: least squares on one noisy copy each of x."""
    x = rng.normal(size=num_rows)
    copies = x + rng.normal(size=(num_models, num_rows))
    y = slope * x + rng.normal(size=num_rows)
    table = np.zeros((num_models, num_folds))
    for fold, rows in enumerate(np.array_split(rng.permutation(num_rows), num_folds)):
        rest = np.setdiff1d(np.arange(num_rows), rows)
        coefficients = copies[:, rest] @ y[rest] / np.sum(copies[:, rest] ** 2, axis=1)
        table[:, fold] = np.mean((y[rows] - coefficients[:, None] * copies[:, rows]) ** 2, axis=1)
    return table


@pytest.mark.parametrize("num_folds", [3, 5, 10])
def test_equal_models_are_seldom_called_an_improvement(num_folds):
    rng = np.random.default_rng(SEED)
    num = 600
    found = sum(
        is_called_better(equal_models(rng, 20, num_folds), 1 / (num_folds - 1)) for _ in range(num)
    )
    # the least mean of the curve is always below that of λ = 0; at most 5 % may be called better, give or take 3 se
    assert found / num <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / num)


def test_a_true_improvement_is_found():
    rng = np.random.default_rng(SEED)
    tables = [equal_models(rng, 5, 5) for _ in range(100)]
    for table in tables:
        table[0] += 1.0  # all other models have two thirds of the error of the first
    assert sum(is_called_better(table, 1 / 4) for table in tables) > 60
