"""Trials drawn from a space: the right distribution, the same for the same key, and an axis of a sweep."""

import figure_cases
import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy import stats
from small import make, sine
from test_selection import FOLDS, LAM, VALLEY, made_up, scores

import rnnreg as rr
from rnnreg.selection import IntUniform, LogUniform, OneOf, Uniform, choose, sample

KEY = jax.random.key(3)
SPACE = {
    "l2": LogUniform(1e-5, 1, zero=0.25),
    "learning_rate": LogUniform(1e-3, 1e-1),
    "dropout": Uniform(0, 0.5),
    "depth": IntUniform(1, 4),
    "decay": OneOf([0.0, 0.1, 0.9]),
}
METHODS = ["random", "sobol", "latin_hypercube"]


def test_quantiles_are_those_of_scipy():
    shares = np.linspace(0, 0.999, 101)
    for ours, theirs in (
        (LogUniform(1e-5, 1), stats.loguniform(1e-5, 1)),
        (Uniform(-2, 3), stats.uniform(-2, 5)),
    ):
        np.testing.assert_allclose(ours.quantile(shares), theirs.ppf(shares), rtol=1e-9, atol=1e-12)
    whole = IntUniform(-1, 3).quantile(shares)
    np.testing.assert_array_equal(whole[1:], stats.randint(-1, 4).ppf(shares[1:]))


@pytest.mark.parametrize("method", METHODS)
def test_samples_have_their_distribution_within_their_bounds(method):
    values = sample(SPACE, 1000, key=KEY, method=method).values
    assert list(values) == list(SPACE)
    assert np.mean(values["l2"] == 0) == pytest.approx(0.25, abs=0.05)
    for name, low, high, log in (
        ("l2", 1e-5, 1, True),
        ("learning_rate", 1e-3, 1e-1, True),
        ("dropout", 0, 0.5, False),
    ):
        drawn = values[name][values[name] > 0] if name == "l2" else values[name]
        assert low <= drawn.min() < drawn.max() <= high
        shape = stats.loguniform(low, high) if log else stats.uniform(low, high - low)
        assert stats.kstest(drawn, shape.cdf).pvalue > 1e-3
    for name, choices in (("depth", [1, 2, 3, 4]), ("decay", [0, 0.1, 0.9])):
        found, counts = np.unique(values[name], return_counts=True)
        assert found.tolist() == choices
        assert stats.chisquare(counts).pvalue > 1e-3
    pairs = np.corrcoef(np.log(values["learning_rate"]), values["dropout"])[0, 1]
    assert abs(pairs) < 4 / np.sqrt(1000)  # four standard errors


@pytest.mark.parametrize("method", METHODS)
def test_samples_are_those_of_their_key(method):
    one, same, other = (
        sample(SPACE, 20, key=key, method=method).values["l2"]
        for key in (KEY, jax.random.key(3), jax.random.key(4))
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    longer = sample(SPACE, 40, key=KEY, method=method).values["l2"]
    assert np.array_equal(longer[:20], one) == (method != "latin_hypercube")


def test_a_latin_hypercube_has_one_value_in_each_part():
    drawn = sample({"x": Uniform(0, 10)}, 10, key=KEY, method="latin_hypercube").values["x"]
    assert sorted(np.floor(drawn)) == list(range(10))


def test_sobol_trials_fill_a_square_evenly():
    drawn = sample({"x": Uniform(0, 4), "y": Uniform(0, 4)}, 16, key=KEY, method="sobol").values
    cells = set(zip(np.floor(drawn["x"]), np.floor(drawn["y"]), strict=True))
    assert len(cells) == 16


def test_values_are_told_apart_in_float32():
    values = sample({"x": Uniform(0, 1)}, 20_000, key=KEY).values["x"]
    assert len(np.unique(values.astype(np.float32))) == len(np.unique(values)) < 20_000


class Half:
    """A distribution of a user's own."""

    def quantile(self, shares):
        return 0.5 + 0 * shares


def test_a_distribution_of_ones_own_is_one_and_one_of_scipy_too():
    assert sample({"x": Half()}, 3, key=KEY).values["x"].tolist() == [0.5] * 3
    ours, theirs = LogUniform(1e-4, 1e-1), stats.loguniform(1e-4, 1e-1)
    drawn = [sample({"x": each}, 5, key=KEY).values["x"] for each in (ours, theirs)]
    np.testing.assert_allclose(*drawn, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: LogUniform(0, 1),
            r"low must be a number above 0; got 0\. On a logarithmic axis 0",
        ),
        (lambda: LogUniform(-1, 1), "low must be a number above 0; got -1"),
        (lambda: LogUniform(1, 0.1), "low must be below high; got 1 and 0.1"),
        (lambda: LogUniform(1, 1), r"OneOf\(\[value\]\) has one value"),
        (lambda: LogUniform(0.1, 1, zero=1), r"zero must lie in \[0, 1\); got 1"),
        (lambda: Uniform(0, np.inf), "Uniform: high must be a finite number; got inf"),
        (lambda: Uniform("a", 1), "Uniform: low must be a finite number; got 'a'"),
        (lambda: IntUniform(1, 2.5), "must be whole numbers; got 1 and 2.5"),
        (lambda: OneOf([]), r"values must be a list of numbers; got \[\]"),
        (lambda: OneOf("ab"), "values must be a list of numbers; got 'ab'"),
        (lambda: OneOf([1, "a"]), "values must be a finite number; got 'a'"),
        (lambda: Uniform(0, 1).quantile([1.0]), r"shares must lie in \[0, 1\)"),
        (lambda: sample({}, 3, key=KEY), "space must name hyperparameters"),
        (lambda: sample({"l2": [0, 1]}, 3, key=KEY), r"space\['l2'\] must be a distribution"),
        (lambda: sample(SPACE, 0, key=KEY), "num_trials must be at least 1"),
        (lambda: sample(SPACE, 3, key=KEY, method="halton"), "method must be 'random', 'sobol' or"),
    ],
)
def test_impossible_spaces_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_trials_are_an_axis_of_a_sweep_and_no_name_is_there_twice():
    trials = sample({"l2": LogUniform(1e-4, 1), "learning_rate": Uniform(0.01, 0.1)}, 5, key=KEY)
    planned = rr.dry_run(make(num_epochs=1), {"trial": trials}, sine(), seeds=2, key=KEY)
    assert planned.lanes == 10
    with pytest.raises(ValueError, match="the name 'l2' is given twice"):
        rr.dry_run(make(num_epochs=1), {"trial": trials, "l2": [0.0]}, sine(), key=KEY)
    with pytest.raises(ValueError, match="the zipped axis 'l2' has the name of one of its"):
        rr.dry_run(make(num_epochs=1), {"l2": trials}, sine(), key=KEY)


# ---- the choice of a trial ------------------------------------------------------------------------


def search(penalties=("l1", "l2"), values=VALLEY, **options):
    """A search over trials whose λ move together, scored by hand: the second is the best."""
    members = {"l1": [0.3, 0.1, 0.1, 0.0], "l2": LAM}
    lanes = scores(values, trial=range(4), seed=[0], fold=FOLDS)
    lanes = lanes.assign_coords({name: ("trial", own) for name, own in members.items()})
    result = made_up(lanes, grid={"trial": members, "learning_rate": 0.1}, **options)
    result.config["penalties"] = [{name: {} for name in penalties}]
    return result


@pytest.mark.parametrize("axis", [None, "trial"])
def test_the_best_trial_is_chosen_with_all_its_values(axis):
    choice = choose(search(), axis=axis, rule="1se")
    assert (choice.axis, choice.lam, choice.lam_1se) == ("trial", 1.0, 1.0)
    assert choice.values == {"l1": 0.1, "l2": 1e-3, "learning_rate": 0.1}
    assert choice.labels == {"trial": 1}
    assert choice.moving == ("l1", "l2")
    assert choice.curve.lam.tolist() == [0, 1, 2, 3]
    (said,) = choice.warnings
    assert "trial numbers trials, so there is no rule" in said


def test_the_number_of_the_best_trial_is_no_edge():
    values = np.sort(VALLEY, axis=0)
    assert len(choose(search(values=values)).warnings) == 1  # the first
    assert len(choose(search(values=values[::-1])).warnings) == 1  # and the last


def test_of_equal_trials_the_first_is_chosen():
    assert choose(search(values=np.ones_like(VALLEY))).labels == {"trial": 0}
    assert (
        choose(search(values=np.ones_like(VALLEY)), axis="l1").lam == 0.3
    )  # of equal λ the largest


def test_one_penalty_of_a_search_is_still_its_axis():
    choice = choose(search(penalties=("l2",)))
    assert (choice.axis, choice.lam, choice.moving) == ("l2", 1e-3, ("l1",))


def test_trials_next_to_an_axis_of_their_own_leave_the_question_open():
    lanes = scores(np.ones((2, 2, 1, 2)), l2=[0.0, 1.0], trial=[0, 1], seed=[0], fold=FOLDS)
    lanes = lanes.assign_coords(l1=("trial", [0.0, 1.0]))
    result = made_up(lanes, grid={"l2": [0.0, 1.0], "trial": {"l1": [0.0, 1.0]}})
    result.config["penalties"] = [{"l1": {}, "l2": {}}]
    with pytest.raises(ValueError, match=r"give axis=..., one of \['l2', 'l1'\]"):
        choose(result)


@pytest.mark.parametrize("axis", ["trial", "l2"])
def test_a_search_is_drawn_as_points(axis):
    result = search()
    ax = rr.plotting.cv_curve(result, choose(result, axis=axis))
    lines = [line for line in ax.lines if line.get_marker() == "o"]
    assert all(line.get_linestyle() == "None" for line in lines)
    assert ax.get_xlabel() == ("trial" if axis == "trial" else "λ (l2)")
    assert ax.get_xscale() == ("linear" if axis == "trial" else "log")
    plt.close(ax.figure)


@pytest.mark.parametrize("axis", ["trial", "l2"])
def test_figures_along_lambda_send_trials_to_the_curve(axis):
    result = search()
    with pytest.raises(
        ValueError, match=rf"'{axis}' is no axis of its own .* are drawn by cv_curve"
    ):
        rr.plotting.cv_map(result, choose(result, axis=axis))


def test_learning_curves_of_a_search_have_the_colours_of_their_lambda():
    result = search()
    history = xr.DataArray(
        np.ones((4, 1, 2, 3)), dims=("trial", "seed", "fold", "epoch"), coords={"epoch": [1, 2, 3]}
    )
    metrics = result.metrics.assign(history_train_loss=history)
    result = rr.SweepResult(metrics, result.groups, result.config, "")
    ax = rr.plotting.history(result, axis="l1")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(labels) == ["λ = 0", "λ = 0.1", "λ = 0.3"]  # two trials have 0.1
    plt.close(ax.figure)
    with pytest.raises(ValueError, match=r"axis='trial' numbers trials.*\['l1', 'l2'\]"):
        rr.plotting.history(result)


def test_an_improvement_over_trial_0_is_refused():
    with pytest.raises(ValueError, match=r"'trial' numbers trials.*\['l1', 'l2'\]"):
        rr.selection.improvement(search(), axis="trial")


# ---- figures --------------------------------------------------------------------------------------


def test_lines_of_a_halving_end_where_trials_were_dropped():
    found = figure_cases.make_halving(2)
    ax = rr.plotting.halving_brackets(found)
    lines = [line for line in ax.lines if len(line.get_xdata()) > 2]
    ends = sorted(line.get_xdata()[-1] for line in lines)
    assert ends == [3] * 12 + [9] * 4 + [27] * 2
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["dropped", "bracket 1", "chosen (bracket 0): l2 = $10^{-4}$"]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [3, 9]
    plt.close(ax.figure)


@pytest.mark.parametrize("maximise", [False, True])
def test_regret_is_that_of_the_best_so_far(maximise):
    scores = np.array([3.0, np.nan, 5.0, 2.0, 1.0])
    ax = rr.plotting.regret(
        {"one": -scores if maximise else scores}, -1 if maximise else 1, maximise=maximise
    )
    (line,) = ax.lines
    assert line.get_xdata().tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(line.get_ydata()[:4], [2, 2, 2, 1])
    assert line.get_ydata()[4] == ax.get_ylim()[0] == 0.5  # found: on the edge
    assert ax.get_yscale() == "log"
    plt.close(ax.figure)


def test_a_better_score_than_the_best_known_one_is_drawn_too():
    ax = rr.plotting.regret(
        {"one": [3.0, 0.5], "two": [np.nan, 2.0]}, 1.0, steps={"one": [10, 20], "two": [5, 9]}
    )
    assert ax.get_yscale() == "linear"
    assert ax.lines[0].get_ydata().tolist() == [2.0, -0.5]
    assert ax.get_xlabel() == "updates"
    plt.close(ax.figure)


@pytest.mark.parametrize(
    ("scores", "steps", "message"),
    [
        ([1.0], None, "scores must be a dict"),
        ({"a": []}, None, r"scores\['a'\] must have shape \[n\] or \[n, S\]"),
        ({"a": [1.0, 2.0]}, {"a": [1]}, r"steps\['a'\] must have shape \[2\]"),
        ({"a": [1.0, 2.0]}, {"b": [1, 2]}, r"steps\['a'\] must have shape \[2\]"),
    ],
)
def test_impossible_regrets_are_named(scores, steps, message):
    with pytest.raises(ValueError, match=message):
        rr.plotting.regret(scores, 1.0, steps=steps)
