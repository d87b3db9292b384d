"""The experiment on a λ for each matrix: its rows, its ways to choose, what it claims."""

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments._harness import plain
from experiments.per_weight_lambda import report, search, tasks
from experiments.per_weight_lambda.figures import draw
from experiments.per_weight_lambda.report import (
    ALONE,
    EACH,
    NONE,
    ONLINE,
    RANDOM,
    SHARED,
    SHARED_GRAD,
    Found,
)
from experiments.per_weight_lambda.search import BOX, NAMES, START, Tried


def rows_of(batch):
    return {row.tobytes() for row in np.asarray(batch.xs)}


@pytest.mark.parametrize("made", [tasks.yearly_sunspots, tasks.digits_by_rows, tasks.adding])
def test_rows_that_choose_and_rows_that_judge_were_not_trained_on(made):
    options = {tasks.digits_by_rows: (30,), tasks.adding: (30, 5)}.get(made, ())
    task = made(3, 1, *options, seed=0)
    assert task.num_repeats == 3
    for repeat in range(3):
        split, test = jax.tree.map(lambda leaf, repeat=repeat: leaf[repeat], task.draws)
        train, validation, judged = map(rows_of, (split.train, split.validation, test))
        assert not train & validation
        assert not (train | validation) & judged
    train, held = task.draws.split.train, task.draws.split.validation
    assert not np.array_equal(train.xs[0], train.xs[1])  # each repeat has rows of its own
    assert held is not None
    assert not np.array_equal(held.xs[0], held.xs[1])


def test_validation_years_of_the_sunspots_are_in_a_row():
    split = tasks.yearly_sunspots(4, 1, seed=0).draws.split
    assert split.validation is not None
    assert split.train.ys.shape[1] + split.validation.ys.shape[1] == 212  # 1709–1920
    windows = np.asarray(split.validation.xs)[..., 0]
    np.testing.assert_array_equal(
        windows[:, 1:, :-1], windows[:, :-1, 1:]
    )  # each begins a year later


def test_values_that_are_tried():
    grid = search.shared_grid(5)
    assert np.ptp(grid, axis=1).max() == 0
    np.testing.assert_allclose(grid[[0, -1], 0], BOX)
    alone = search.alone_grid(5, "hh")
    np.testing.assert_array_equal(alone[:, 1], grid[:, 1])
    assert not alone[:, [0, 2]].any()
    points = search.random_points(12)
    strata = np.log(points / BOX[0]) / np.log(BOX[1] / BOX[0]) * 12
    assert (np.sort(strata.astype(int), axis=0) == np.arange(12)[:, None]).all()


def test_what_errs_least_on_validation_rows_is_chosen():
    val, test = np.array([[3.0, 1.0, np.inf], [np.inf, 5.0, 4.0]]), np.arange(6.0).reshape(2, 3)
    lams = np.arange(18.0).reshape(2, 3, 3)
    best = Tried(lams, val, test, test).best()
    assert best.val.tolist() == [1.0, 4.0]
    assert best.test.tolist() == [1.0, 5.0]
    np.testing.assert_array_equal(best.lams, [lams[0, 1], lams[1, 2]])


@pytest.mark.slow
def test_lambda_goes_down_its_derivative_which_is_that_of_runs():
    with jax.enable_x64():
        task = tasks.adding(2, 2, 6, 4, seed=0)
        task = dataclasses.replace(task, hidden_size=2, batch_size=None, learning_rate=0.1)
        each, shared = (search.by_gradient(task, shared=one, budget=8.0) for one in (False, True))
        around = search.by_trial(task, search.around_start())
    checked = report.checked(around, each, shared)
    assert checked.differences.max() < 1e-5
    np.testing.assert_allclose(checked.chain, 1, rtol=1e-7)
    assert each.lams.shape == (2, 2, 3)
    assert shared.val.shape == (2, 2)  # 8 runs: two derivatives of 3.9, two of 2.9
    np.testing.assert_allclose(each.lams[:, 0], START)
    assert each.slopes is not None
    moved, slopes = np.log(each.lams[:, 1] / START), each.slopes[:, 0]
    np.testing.assert_array_equal(np.sign(moved), -np.sign(slopes))
    assert abs(moved).max() <= 1 + 1e-6  # by a factor of e at most
    # a run at the start has the error that the path begins with
    np.testing.assert_allclose(around.test[:, 0], each.test[:, 0], rtol=1e-3)


def made_up(seed, gain=0.3):
    """What might have been found: each λ is better than one by `gain` in logarithms, on validation rows too."""
    rng = np.random.default_rng(seed)
    repeats, chosen = 8, {}
    for name in (NONE, *ALONE.values(), SHARED, SHARED_GRAD, RANDOM, EACH, ONLINE):
        better = gain * (name in (EACH, RANDOM)) - 0.1 * (name == NONE)
        val = np.exp(-better + 0.001 * rng.normal(size=repeats))
        lams = np.array([1e-2, 1e-4, 1e-3]) * np.exp(0.01 * rng.normal(size=(repeats, 3)))
        chosen[name] = Tried(lams * (name != NONE), val, 1.1 * val, np.ones(repeats))
    lams = np.repeat(chosen[EACH].lams[:, None], 3, axis=1)
    path = Tried(lams, *np.ones((3, repeats, 3)))
    checked = report.Checked(np.full(repeats, 1e-6), np.ones(repeats), np.ones(repeats))
    return Found(chosen, {EACH: path, SHARED_GRAD: path}, dict.fromkeys(chosen, 1.0), checked)


@pytest.mark.parametrize(("gain", "verdict"), [(0.3, "holds"), (-0.3, "fails")])
def test_what_is_claimed_follows_the_errors(gain, verdict):
    found = {name: made_up(seed, gain) for seed, name in enumerate(("digits", "adding"))}
    claims = {claim.claim: claim.verdict for claim in report.claims_of(found)}
    for name in found:
        assert (
            claims[f"{name}: each by gradient errs less on test rows than shared by grid (p, Holm)"]
            == verdict
        )
        assert (
            claims[f"{name}: log error on validation rows, each by gradient − shared by grid"]
            == verdict
        )
        assert claims[f"{name}: a shared λ errs less on test rows than none (p, Holm)"] == "holds"
    assert claims["adding: λ of W_hh is below that of W_xh (p, Holm)"] == "holds"
    compared = report.comparisons(found)["digits"][f"{EACH} − {SHARED}"]
    assert compared.mean == pytest.approx(-gain, abs=0.01)
    assert f"{-gain:+.3f}"[:4] in report.tables(found)


def test_the_figure_has_a_path_for_each_matrix():
    found = {name: made_up(seed) for seed, name in enumerate(("sunspots", "digits", "adding"))}
    figure = draw(found)
    assert len(figure.axes) == 6
    assert all(len(ax.get_lines()) == 3 * 8 + 4 for ax in figure.axes[3:])
    plt.close(figure)
    assert set(plain(report.summary_of(found))["adding"]["chosen"]) == set(found["adding"].chosen)
    assert len(NAMES) == 3
