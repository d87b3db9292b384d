"""The experiment on the rules for λ: its closed forms against loops and samples, its truth, what it counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from experiments._harness import plain
from experiments.one_standard_error import exact, measures, overlap, recurrent, report, ridge
from experiments.one_standard_error.figures import draw
from rnnreg.selection import one_standard_error

LAMS = np.logspace(-3, 2, 6)
TASK = ridge.Task(22, 4, 1.0)


@pytest.fixture(scope="module")
def simulated():
    return ridge.simulate(TASK, LAMS, num_simulations=30, num_folds=4)


def test_a_task_is_what_its_docstring_says():
    task = ridge.Task(200, 5, 0.5)
    xs, ys = task.draw(300, seed=1)
    rows = xs.reshape(-1, 5)
    # 60,000 rows: an element of the covariance has a standard error of at most √2 / √60,000 = .006
    np.testing.assert_allclose(np.cov(rows.T), task.covariance, atol=0.025)
    assert task.weights @ task.covariance @ task.weights == pytest.approx(1)
    np.testing.assert_allclose(task.weights[1:] / task.weights[:-1], 0.8)
    wrong = np.array([0.3, 0.0, -0.2, 0.1, 0.5])
    squares = np.square(ys.ravel() - rows @ wrong - 0.4)
    error = squares.std() / np.sqrt(squares.size)
    assert task.error(wrong, 0.4) == pytest.approx(squares.mean(), abs=4 * error)
    again, other = task.draw(2, seed=1)[0], task.draw(2, seed=2)[0]
    np.testing.assert_array_equal(again, xs[:2])
    assert not np.isclose(other, again).any()


def test_fits_are_those_of_scikit_learn_whatever_the_lead():
    xs, ys = TASK.draw(3, seed=0)
    found = ridge.fit(xs, ys, LAMS)
    for number in range(3):
        for place, lam in enumerate(LAMS):
            model = Ridge(alpha=lam * 22, fit_intercept=False).fit(xs[number], ys[number])
            np.testing.assert_allclose(found[number, place], model.coef_, rtol=1e-9)


def test_a_simulation_is_a_loop_over_folds_and_inner_folds(simulated):
    xs, ys = TASK.draw(30, seed=0)

    def curve(x, y):
        errors, models = [], []
        for rows, held in KFold(4).split(x):
            fits = [Ridge(alpha=lam * len(rows), fit_intercept=False) for lam in LAMS]
            models.append([fit.fit(x[rows], y[rows]).coef_ for fit in fits])
            errors.append([np.mean((y[held] - x[held] @ coef) ** 2) for coef in models[-1]])
        return np.array(errors).T, np.swapaxes(models, 0, 1)

    for number in (0, 7):
        scores, models = curve(xs[number], ys[number])
        np.testing.assert_allclose(simulated.cv.scores[number], scores, rtol=1e-9)
        np.testing.assert_allclose(simulated.inner[number], TASK.error(models), rtol=1e-9)
        assert simulated.cv.sizes.tolist() == [6, 6, 5, 5]
        outside = []
        for fold, (rows, _) in enumerate(KFold(4).split(xs[number])):
            inside, _ = curve(xs[number][rows], ys[number][rows])
            best = np.argmin(inside @ [len(v) for _, v in KFold(4).split(rows)])
            outside.append((scores[best, fold], TASK.error(models[best, fold])))
        np.testing.assert_allclose(simulated.nested.scores[number], [s for s, _ in outside])
        np.testing.assert_allclose(simulated.nested.true[number], [t for _, t in outside])
        mean = np.average([s for s, _ in outside], weights=[6, 6, 5, 5])
        assert simulated.nested.mean[number] == pytest.approx(mean)
    refits = ridge.fit(xs, ys, LAMS)
    np.testing.assert_allclose(simulated.refit, TASK.error(refits))
    np.testing.assert_allclose(simulated.norm, np.linalg.norm(refits, axis=-1))


def test_glmnets_rule_is_ours_with_ties_and_unequal_folds(simulated):
    rng = np.random.default_rng(0)
    lams, sizes = np.array([3.0, 0.1, 1.0, 30.0]), np.array([5.0, 4.0, 4.0])
    for _ in range(200):
        folds = rng.integers(1, 4, (4, 3)).astype(float)
        _, *ours = one_standard_error(folds, sizes, lams)
        assert exact.glmnet_rule(folds, sizes, lams)[2:] == tuple(ours[:2])
    wrong, total, largest = exact.disagreements([simulated])
    assert (wrong, total) == (0, 30)
    assert largest < 1e-12
    places = simulated.cv.chosen | {"1se": simulated.cv.chosen["1se"] - 1}
    assert (
        exact.disagreements([simulated._replace(cv=simulated.cv._replace(chosen=places))])[0] == 30
    )


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_series_is_what_its_docstring_says(horizon):
    series = overlap.Series(40, 3, horizon, rho=0.6)
    xs, ys = series.draw(2000, seed=0)
    assert xs.shape == (2000, 40, 3)
    # targets are means of what comes, and the inputs of later rows
    np.testing.assert_allclose(ys[:, 0], xs[:, 1 : 1 + horizon, 0].mean(axis=1))
    np.testing.assert_array_equal(xs[:, 1:, 1], xs[:, :-1, 0])
    wrong = np.array([0.5, -0.2, 0.1])
    squares = np.square(ys - xs @ wrong).mean(axis=1)
    error = squares.std() / np.sqrt(2000)
    assert series.error(wrong) == pytest.approx(squares.mean(), abs=4 * error)


def test_blocks_share_no_target_and_an_embargo_no_input():
    series = overlap.Series(60, 4, 3)

    def nearest(scheme):
        return min(np.abs(rows[:, None] - held).min() for rows, held in series.folds(scheme, 5))

    assert nearest("shuffled") == 1
    assert nearest("blocks") == 3  # the values of a target, h apart
    assert nearest("blocks + embargo") == 3 + 4 + 3
    for scheme in overlap.SCHEMES:
        held = np.concatenate([each for _, each in series.folds(scheme, 5)])
        np.testing.assert_array_equal(np.sort(held), np.arange(60))


def test_the_response_of_a_linear_network_is_its_products():
    net = recurrent.linear_train(2, 1).network({})
    params = jax.vmap(lambda key: net.init(key, input_size=1))(
        jax.random.split(jax.random.key(0), 3)
    )
    params["layer_0"]["b_h"] = params["layer_0"]["b_h"] + 0.3
    params["readout"]["b_y"] = params["readout"]["b_y"] - 0.2
    weights, constants = recurrent.responses(net, params, 4)
    for number in range(3):
        W_xh, W_hh, b = (
            np.asarray(params["layer_0"][n][number], float) for n in ("W_xh", "W_hh", "b_h")
        )
        W_hy, b_y = (np.asarray(params["readout"][n][number], float) for n in ("W_hy", "b_y"))
        powers = [np.linalg.matrix_power(W_hh, k) for k in range(4)]
        expected = [(W_xh @ power @ W_hy).item() for power in powers]
        np.testing.assert_allclose(weights[number], expected, atol=1e-6)
        constant = sum((b @ power @ W_hy).item() for power in powers) + b_y.item()
        np.testing.assert_allclose(constants[number], constant, atol=1e-6)


def test_what_is_counted():
    mean, se, truth = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), np.array([1.5, 3.5, 3.0, 5.5])
    assert measures.covered(mean, se, truth, 1.0) == 0.5
    assert measures.covered(mean, se, truth, 1.6) == 1.0
    off = measures.bias(np.array([1.0, 1.2, 1.1]), np.full(3, 2.0))
    assert off.mean == pytest.approx(-0.45)
    assert off.p_better < 1e-6 < off.p_worse
    rng = np.random.default_rng(0)
    sizes = np.ones(5)
    scores = rng.normal(size=(4000, 1, 5))  # independent folds: SE² is unbiased
    cv = ridge.judged(scores, sizes, np.ones(1), scores)
    assert measures.variance_ratio(cv)[0] == pytest.approx(1, abs=4 * np.sqrt(2.5 / 4000))
    shares = measures.covered(cv.mean[:, 0], cv.se[:, 0], 0.0, 1.0)
    assert shares == pytest.approx(measures.student_share(1.0, 5), abs=4 * np.sqrt(0.25 / 4000))
    shifted = ridge.judged(scores + rng.normal(size=(4000, 1, 1)), sizes, np.ones(1), scores)
    assert measures.variance_ratio(shifted)[0] < 0.3  # folds that move together


def test_a_regret_is_to_the_best_of_each_data_set(simulated):
    found = measures.regrets(simulated.refit, simulated.cv)
    assert set(found) == set(ridge.RULES)
    assert all((values >= 0).all() for values in found.values())
    place = simulated.cv.chosen["1se"][3]
    best = simulated.refit.min(axis=1)
    expected = (simulated.refit[3, place] - best[3]) / best.mean()
    assert found["1se"][3] == pytest.approx(expected)
    assert measures.shrinkage(simulated.norm, simulated.cv)["1se"] <= 1


def test_everything_is_told(simulated):
    tasks = [simulated._replace(task=TASK._replace(snr=snr)) for snr in (0.1, 10.0)]
    one = simulated
    trained = recurrent.Trained(TASK, LAMS, one.cv, one.inner, one.norm, one.nested, lanes=1)
    series = {
        h: overlap.simulate(overlap.Series(40, 4, h), LAMS, num_simulations=5, num_folds=3)
        for h in (1, 3)
    }
    same = exact.Exact(0.0, 1e-9, 1e-5, 0.0, (1.0, 10.0), (1.0, 30.0), 1.0, LAMS, LAMS, LAMS)
    found = report.Found(same, exact.disagreements(tasks), tasks, trained, series)
    claims = report.claims_of(found)
    holds = [claim.holds for claim in claims[:8]]
    assert holds == [True, True, False, True, True, False, True, True]
    assert all(claim.measured is not None for claim in claims)
    assert len({claim.claim for claim in claims}) == len(claims)
    plain([report.summary_of(found), claims])
    text = report.tables(found)
    assert text.count("22 × 4") == 9
    figure = draw(found)
    assert len(figure.axes) == 6
    assert all(ax.get_xlabel() for ax in figure.axes)


@pytest.mark.slow
@pytest.mark.float64_only
def test_the_readout_is_ridge_and_nested_is_two_loops():
    found = exact.measure(np.logspace(-2, 1, 3), num_rows=30, few_rows=8, num_epochs=60)
    assert max(found.weights, found.scores, found.left_out, found.nested) < 1e-9
    assert found.chosen == found.expected
    assert found.ridge_cv == pytest.approx(found.chosen[0])


@pytest.mark.slow
def test_trained_networks_are_judged_by_their_own_truth():
    lams = np.array([1e-3, 3.0])
    task = ridge.Task(12, 3, 1.0)
    found = recurrent.simulate(
        task, lams, num_simulations=2, outer=3, inner=2, hidden_size=1, num_epochs=40
    )
    assert found.lanes == 2 * 2 * (3 + 3 * 2)
    assert found.cv.scores.shape == found.inner.shape == (2, 2, 3)
    assert (found.inner >= 1 / task.snr).all()
    # a penalty of 3 leaves nothing: the error of no forecast, but for a constant
    np.testing.assert_allclose(found.inner[:, 1], 2.0, atol=0.5)
    picked = [(found.nested.scores[0, k] == found.cv.scores[0, :, k]).any() for k in range(3)]
    assert all(picked)
    assert jnp.isfinite(found.nested.se).all()
