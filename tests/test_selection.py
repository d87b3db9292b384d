"""Choosing λ: folds that leak nothing, glmnet's rule to the digit, and the refit."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from conftest import SEED, tolerance
from small import assert_same, make, sine

import rnnreg as rr
from rnnreg.selection import blocked_folds, choose, one_standard_error, refit
from rnnreg.sweeps import Group, SweepResult

KEY = jax.random.key(SEED)
GOLDEN = Path(__file__).parent / "golden" / "glmnet.json"


# ---- the rule -------------------------------------------------------------------------------------


def glmnet_slowly(folds, sizes, lam):
    """cv.glmnet's definition in loops: cvm, cvsd, λ_min, λ_1se."""
    cvm, cvsd = [], []
    for scores in folds:
        mean = sum(w * m for w, m in zip(sizes, scores, strict=True)) / sum(sizes)
        spread = sum(w * (m - mean) ** 2 for w, m in zip(sizes, scores, strict=True)) / sum(sizes)
        cvm.append(mean)
        cvsd.append((spread / (len(sizes) - 1)) ** 0.5)
    lam_min = max(x for x, m in zip(lam, cvm, strict=True) if m <= min(cvm))
    at = list(lam).index(lam_min)
    lam_1se = max(x for x, m in zip(lam, cvm, strict=True) if m <= cvm[at] + cvsd[at])
    return cvm, cvsd, lam_min, lam_1se


@pytest.mark.numerics
@pytest.mark.parametrize("seed", range(6))
def test_the_rule_equals_its_definition_with_unequal_folds(seed):
    rng = np.random.default_rng(seed)
    lam = rng.permutation(np.logspace(-4, 0, 9))  # the order of the grid does not matter
    folds = 1 + 0.1 * np.log10(lam)[:, None] ** 2 + rng.normal(size=(9, 5)) * 0.3
    folds[3] = folds[5]  # a tie goes to the larger λ
    sizes = rng.integers(3, 20, size=5)
    curve, best, one_se, _ = one_standard_error(folds, sizes, lam)
    cvm, cvsd, lam_min, lam_1se = glmnet_slowly(folds, sizes, lam)
    np.testing.assert_allclose(curve.mean, cvm, rtol=1e-12)
    np.testing.assert_allclose(curve.se, cvsd, rtol=1e-12)
    assert (lam[best], lam[one_se]) == (lam_min, lam_1se)


@pytest.mark.numerics
@pytest.mark.skipif(not GOLDEN.exists(), reason="no golden file of glmnet")
@pytest.mark.parametrize("model", ["cv_ridge", "cv_lasso"])
def test_the_rule_reproduces_glmnet(model):
    golden = json.loads(GOLDEN.read_text())
    cv = golden[model]
    folds, sizes = np.array(cv["fold_errors"]).T, golden["fold_sizes"]
    curve, best, one_se, _ = one_standard_error(folds, sizes, cv["lambda"])
    np.testing.assert_allclose(curve.mean, cv["cvm"], rtol=1e-12)
    np.testing.assert_allclose(curve.se, cv["cvsd"], rtol=1e-11)
    assert curve.lam[best] == cv["lambda_min"]
    assert curve.lam[one_se] == cv["lambda_1se"]


def test_ties_go_to_the_larger_lambda():
    _, best, one_se, paired = one_standard_error(np.ones((3, 2)), [1, 1], [1.0, 3.0, 2.0])
    assert (best, one_se, paired) == (1, 1, 1)


def test_exact_ties_of_random_rows_go_to_the_larger_lambda():
    rng = np.random.default_rng(7)
    for _ in range(200):
        num, num_folds = rng.integers(3, 12, size=2)
        folds = rng.uniform(size=(num, num_folds)) + 2
        one, two = rng.choice(num, size=2, replace=False)
        folds[one] = folds[two] = rng.uniform(size=num_folds)
        lam = rng.permutation(np.logspace(-5, 1, num))
        _, best, _, paired = one_standard_error(folds, rng.integers(1, 30, num_folds), lam)
        assert lam[best] == max(lam[one], lam[two])
        assert lam[paired] >= lam[best]


def test_the_paired_rule_uses_differences_fold_by_fold():
    # Folds differ much (an se of about 5), and λ = 1 is worse in each by nearly the same 0.5.
    folds = np.array([[0.0, 10.0, 20.0], [0.4, 10.5, 20.6], [0.2, 9.95, 20.1]])
    sizes = np.array([1.0, 2.0, 1.0])
    curve, best, one_se, paired = one_standard_error(folds, sizes, [0.1, 1.0, 0.5])
    assert (best, one_se, paired) == (0, 1, 2)
    difference = (0.4 + 2 * 0.5 + 0.6) / 4
    paired_se = np.sqrt(((0.1**2 + 0 + 0.1**2) / 4) / 2)
    np.testing.assert_allclose(curve.difference, [0, difference, 0.05], atol=1e-12)
    np.testing.assert_allclose(curve.paired_se[1], paired_se)
    assert curve.paired_se[0] == 0


def test_scores_that_are_not_finite_never_win():
    folds = [[0.0, np.nan], [1.0, 1.0], [-np.inf, 0.0], [2.0, 2.0]]
    _, best, one_se, paired = one_standard_error(folds, [1, 1], [1.0, 2.0, 3.0, 4.0])
    assert (best, one_se, paired) == (1, 1, 1)
    with pytest.raises(ValueError, match="no value on the axis has a finite score"):
        one_standard_error([[np.nan, 1.0]], [1, 1], [1.0])


# ---- folds ----------------------------------------------------------------------------------------


def test_folds_of_last_targets_by_hand():
    split = sine(12, window=3)  # nine rows with targets 3 … 11
    pairs = blocked_folds(3)(split)
    assert [(t.tolist(), v.tolist()) for t, v in pairs] == [
        ([3, 4, 5, 6, 7, 8], [0, 1, 2]),
        ([0, 1, 2, 6, 7, 8], [3, 4, 5]),
        ([0, 1, 2, 3, 4, 5], [6, 7, 8]),
    ]
    pairs = blocked_folds(3, embargo=2)(split)  # within two time units of the block's targets
    assert [t.tolist() for t, _ in pairs] == [[5, 6, 7, 8], [0, 8], [0, 1, 2, 3]]


def test_folds_of_all_targets_purge_a_window_on_either_side():
    split = sine(18, window=3, targets="all")  # row i has targets i + 1 … i + 3
    pairs = blocked_folds(3)(split)
    assert [v.tolist() for _, v in pairs] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14],
    ]
    # the middle block has targets 6 … 12: rows 0 … 2 end at 5, rows from 12 begin at 13
    assert [t.tolist() for t, _ in pairs] == [
        [7, 8, 9, 10, 11, 12, 13, 14],
        [0, 1, 2, 12, 13, 14],
        [0, 1, 2, 3, 4, 5, 6, 7],
    ]


@pytest.mark.parametrize("targets", ["last", "all"])
@pytest.mark.parametrize("embargo", [0, 1.5])
@pytest.mark.parametrize("num_folds", [2, 5])
def test_no_training_target_lies_inside_a_validation_block(targets, embargo, num_folds):
    split = sine(60, window=4, targets=targets)
    order = np.random.default_rng(1).permutation(len(split.train.ys))  # rows in any order
    split = split.replace(
        train=rr.data.take_rows(split.train, order), target_times=split.target_times[order]
    )
    validated = []
    for train, validation in blocked_folds(num_folds, embargo=embargo)(split):
        held = split.target_times[validation]
        low, high = held.min() - embargo, held.max() + embargo
        for first, last in split.target_times[train]:
            assert last < low or first > high
        validated.extend(validation.tolist())
    assert sorted(validated) == list(range(len(order)))  # each row once


def test_folds_of_a_standardised_split_are_scaled_one_by_one():
    split = rr.data.standardize(sine(40))
    folds, _ = rr.data.stack_folds(blocked_folds(3)(split), split)
    for number, (train, _) in enumerate(blocked_folds(3)(split)):
        expected = np.asarray(split.train.ys)[train]
        np.testing.assert_allclose(
            folds.scaling.y_shift[number], expected.mean(axis=0), **tolerance()
        )
        np.testing.assert_allclose(
            folds.scaling.y_scale[number], expected.std(axis=0), **tolerance()
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: blocked_folds(1.5), "num_folds must be a whole number; got 1.5"),
        (lambda: blocked_folds(3, embargo=-1), "embargo must not be negative; got -1"),
    ],
)
def test_impossible_folds_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


# ---- choose ---------------------------------------------------------------------------------------


def made_up(val_loss, *, grid, sizes=(1, 1), diverged=None, static=None, history=None, **more):
    """A sweep's result with the given scores: a DataArray with axes, seed and fold."""
    static = static or {}
    variables = {"val_loss": val_loss, **more}
    lanes = xr.zeros_like(val_loss, dtype=int)
    variables["diverged_at"] = lanes - 1 if diverged is None else xr.where(diverged, 3, lanes - 1)
    variables["finished"] = lanes == 0
    folds = None
    if "fold" in val_loss.dims:
        folds = val_loss.fold.values.tolist()
        if not isinstance(sizes, xr.DataArray):
            sizes = xr.DataArray(list(sizes), dims="fold")
        variables["fold_size"] = variables["fold_train_size"] = sizes
    if history is not None:
        variables["history_val_loss"] = history
    config = {
        "grid": grid,
        "folds": folds,
        "epoch_rows": [None] * 9,
        "seeds": val_loss.seed.values.tolist(),
        "penalties": [{"l2": {}}],
        "start": [None],
        "dims": [dim for dim in val_loss.dims if dim not in static],
    }
    groups = [Group({name: v}, {}) for name in static for v in static[name]]
    return SweepResult(xr.Dataset(variables), tuple(groups or [Group({}, {})]), config, "")


def scores(values, **coords):
    return xr.DataArray(np.asarray(values, float), coords=coords, dims=list(coords))


LAM = [0.0, 1e-3, 1e-2, 1e-1]
FOLDS = ["0", "1"]
GRID = {"l2": LAM, "learning_rate": 0.1}
VALLEY = np.array([3.0, 1.0, 2.0, 5.0])[:, None, None] + np.array([[[-0.2, 0.2]]])


def valley(**options):
    return made_up(scores(VALLEY, l2=LAM, seed=[0], fold=FOLDS), grid=GRID, **options)


def test_choice_holds_lambda_and_every_other_value():
    choice = choose(valley(sizes=(3, 1)))
    assert (choice.lam, choice.lam_min, choice.rule) == (1e-3, 1e-3, "min")
    assert choice.values == {"l2": 1e-3, "learning_rate": 0.1}
    np.testing.assert_allclose(choice.curve.mean, np.array([3, 1, 2, 5]) - 0.1)
    assert choice.curve.fold_sizes.tolist() == [3, 1]
    assert choice.warnings == ()


def test_seeds_are_combined_inside_a_fold_first():
    # The se over folds would be different had each seed counted as a fold.
    values = np.array([[[1.0, 3.0], [3.0, 5.0]], [[9.0, 9.0], [9.0, 9.0]]])  # [l2, seed, fold]
    choice = choose(made_up(scores(values, l2=[0.1, 1.0], seed=[0, 1], fold=FOLDS), grid=GRID))
    np.testing.assert_allclose(choice.curve.folds[0], [2.0, 4.0])
    np.testing.assert_allclose(choice.curve.se[0], 1.0)  # √(1 / (2 − 1)) of 2 and 4 about 3
    np.testing.assert_allclose(choice.curve.seed_sd[0], np.std([2.0, 4.0], ddof=1))
    assert choice.curve.seed_sd[1] == 0


def test_the_ensemble_is_scored_where_it_is_what_will_be_used():
    seeds = scores(np.ones((2, 2, 2)), l2=[0.1, 1.0], seed=[0, 1], fold=FOLDS)
    ensemble = scores([[0.9, 0.9], [0.5, 0.4]], l2=[0.1, 1.0], fold=FOLDS)
    result = made_up(seeds, grid=GRID, ensemble_val_loss=ensemble)
    choice = choose(result, combine="ensemble")
    assert choice.lam == 1.0
    np.testing.assert_allclose(choice.curve.mean, [0.9, 0.45])
    assert np.isnan(choice.curve.seed_sd).all()


def test_a_lambda_with_a_diverged_lane_never_wins():
    values = np.repeat(VALLEY, 2, axis=1)
    values[1, 1, 0] = np.nan  # one seed in one fold, at the best λ
    lanes = scores(values, l2=LAM, seed=[0, 1], fold=FOLDS)
    choice = choose(made_up(lanes, grid=GRID, diverged=np.isnan(lanes)))
    assert choice.lam == 1e-2
    assert any("1 lane diverged; a λ with a diverged lane" in text for text in choice.warnings)


def test_every_lane_that_failed_is_counted_and_shown():
    values = np.repeat(VALLEY, 2, axis=1)
    values[3, :, 0] = np.nan  # two lanes diverged
    values[2, 1, 1] = np.inf  # and one ended at a score that is none
    lanes = scores(values, l2=LAM, seed=[0, 1], fold=FOLDS)
    choice = choose(made_up(lanes, grid=GRID, diverged=np.isnan(lanes)))
    assert choice.failed == 3
    assert choice.curve.lam.tolist() == LAM  # nothing of the grid is dropped
    assert np.isnan(choice.curve.mean).tolist() == [False, False, True, True]
    said = repr(choice)
    assert "failed=3" in said
    assert "2 lanes diverged" in said
    assert "1 more lane has no finite val_loss" in said


def test_a_sweep_in_which_everything_diverged_has_no_choice():
    lanes = scores(np.full((4, 1, 2), np.nan), l2=LAM, seed=[0], fold=FOLDS)
    result = made_up(lanes, grid=GRID, diverged=np.isnan(lanes))
    with pytest.raises(ValueError, match=r"no l2 has a finite val_loss in every fold.*8 lanes div"):
        choose(result)


def test_a_grid_with_repeated_values_is_refused():
    with pytest.raises(ValueError, match="the axis 'l2' has a repeated value"):
        rr.sweep(make(), {"l2": [0.1, 0.1], "learning_rate": 0.1}, sine(), key=KEY)


def test_other_axes_are_taken_at_their_best():
    # [l2, learning_rate, seed, fold]: the best pair is (1e-2, 0.3)
    table = np.array([[5.0, 4.0], [2.0, 9.0], [3.0, 1.0], [6.0, 2.5]])
    lanes = scores(
        table[:, :, None, None] + [[[[-0.1, 0.1]]]],
        l2=LAM,
        learning_rate=[0.1, 0.3],
        seed=[0],
        fold=FOLDS,
    )
    choice = choose(made_up(lanes, grid={"l2": LAM, "learning_rate": [0.1, 0.3]}))
    assert choice.values == {"l2": 1e-2, "learning_rate": 0.3}
    np.testing.assert_allclose(choice.curve.mean, [4.0, 9.0, 1.0, 2.5])


def test_each_rule_chooses_its_own_lambda():
    folds = np.array([[0.0, 10.0, 20.0], [0.4, 10.5, 20.6], [0.2, 9.95, 20.1]])
    lanes = scores(folds[:, None], l2=[0.1, 1.0, 0.5], seed=[0], fold=["0", "1", "2"])
    result = made_up(lanes, grid={"l2": [0.1, 1.0, 0.5]}, sizes=(1, 2, 1))
    chosen = {rule: choose(result, rule=rule) for rule in ("min", "1se", "paired_1se")}
    assert {rule: choice.lam for rule, choice in chosen.items()} == {
        "min": 0.1,
        "1se": 1.0,
        "paired_1se": 0.5,
    }
    for choice in chosen.values():
        assert (choice.lam_min, choice.lam_1se, choice.lam_paired_1se) == (0.1, 1.0, 0.5)
        assert choice.values == {"l2": choice.lam}


def test_folds_weigh_by_their_size_also_under_a_static_axis():
    """A window as a static axis gives each value folds of its own sizes."""
    values = np.zeros((2, 2, 1, 2))  # [window, l2, seed, fold]
    values[0, :, 0] = [[2.0, 2.0], [3.0, 3.0]]
    values[1, :, 0] = [[0.0, 5.0], [3.0, 1.0]]
    lanes = scores(values, window=[4, 8], l2=[0.1, 1.0], seed=[0], fold=FOLDS)
    for sizes, expected in (
        ((9, 1), (8, 0.1, 0.5)),
        ((1, 1), (4, 0.1, 2.0)),
        ((1, 9), (8, 1.0, 1.2)),
    ):
        table = scores([[1, 1], sizes], window=[4, 8], fold=FOLDS)
        result = made_up(lanes, grid={"l2": [0.1, 1.0]}, sizes=table, static={"window": [4, 8]})
        choice = choose(result)
        assert (choice.values["window"], choice.lam) == expected[:2]
        assert choice.values == {"l2": expected[1], "window": expected[0]}
        np.testing.assert_allclose(choice.curve.mean[choice.curve.lam == choice.lam], expected[2])


def test_zipped_values_are_all_in_the_choice():
    lanes = scores(VALLEY, pair=range(4), seed=[0], fold=FOLDS)
    lanes = lanes.assign_coords(l2=("pair", LAM), learning_rate=("pair", [0.4, 0.3, 0.2, 0.1]))
    grid = {"pair": {"l2": LAM, "learning_rate": [0.4, 0.3, 0.2, 0.1]}}
    choice = choose(made_up(lanes, grid=grid), axis="l2")
    assert choice.lam == 1e-3
    assert choice.values == {"l2": 1e-3, "learning_rate": 0.3}


def test_a_common_number_of_epochs_is_chosen_over_all_folds():
    ends = scores(np.ones((2, 1, 2)), l2=[0.1, 1.0], seed=[0], fold=FOLDS)
    # [l2, seed, fold, epoch]: each fold has its own best epoch (10 and 30), together it is 20
    records = np.array([[[[1.0, 2.0, 9.0], [9.0, 2.0, 1.0]]], [[[5.0, 4.0, 5.0], [5.0, 4.0, 5.0]]]])
    history = scores(records, l2=[0.1, 1.0], seed=[0], fold=FOLDS, epoch=[10, 20, 30])
    choice = choose(made_up(ends, grid={"l2": [0.1, 1.0]}, history=history), num_epochs="common")
    assert choice.values == {"l2": 0.1, "num_epochs": 20}
    np.testing.assert_allclose(choice.curve.mean, [2.0, 4.0])
    diverged = scores([[[1, 0]], [[0, 0]]], l2=[0.1, 1.0], seed=[0], fold=FOLDS) > 0
    result = made_up(ends, grid={"l2": [0.1, 1.0]}, history=history, diverged=diverged)
    assert choose(result, num_epochs="common").lam == 1.0


def test_the_lane_all_scores_nothing():
    values = np.concatenate([VALLEY, np.full((4, 1, 1), np.nan)], axis=-1)
    lanes = scores(values, l2=LAM, seed=[0], fold=["0", "1", "all"])
    assert choose(made_up(lanes, grid=GRID, sizes=(1, 1, 0))).lam == 1e-3


def test_one_validation_set_has_no_standard_error():
    choice = choose(made_up(scores(VALLEY[:, :, 0], l2=LAM, seed=[0]), grid=GRID), rule="1se")
    assert choice.lam == choice.lam_min == 1e-3
    assert np.isnan(choice.curve.se).all()
    assert any("no standard error" in text for text in choice.warnings)


@pytest.mark.parametrize(
    ("means", "message"),
    [
        ([3.0, 2.0, 1.5, 1.0], "λ_min = 0.1 is the largest value that was tried; try larger ones"),
        ([3.0, 1.0, 1.1, 1.05], "λ_1se is the largest value"),
        ([3.0, 1.0, 2.0, 1.1], "not contiguous"),
    ],
)
def test_what_a_careful_reader_should_know_is_said(means, message):
    values = np.array(means)[:, None, None] + [[[-0.2, 0.2]]]
    choice = choose(made_up(scores(values, l2=LAM, seed=[0], fold=FOLDS), grid=GRID))
    assert any(message in text for text in choice.warnings)


def test_the_smallest_lambda_is_an_edge_unless_it_is_zero():
    values = np.array([1.0, 2.0, 3.0, 4.0])[:, None, None] + [[[-0.2, 0.2]]]
    for first, edges in ((0.0, 0), (1e-4, 1)):
        lam = [first, *LAM[1:]]
        choice = choose(made_up(scores(values, l2=lam, seed=[0], fold=FOLDS), grid={"l2": lam}))
        assert sum("smallest value that" in text for text in choice.warnings) == edges


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "val_mae"}, r"'val_mae', which the result lacks; it has \['val_loss'\]"),
        ({"metric": "loss"}, "Did you mean 'val_loss'"),
        ({"metric": "val_los"}, "Did you mean 'val_loss'"),
        (
            {"axis": "l1"},
            r"axis 'l1' is not a dimension of 'val_loss'; give axis=..., one of \['l2'\]",
        ),
        ({"rule": "2se"}, "rule must be 'min', '1se' or 'paired_1se'; got '2se'"),
        ({"combine": "median"}, "'mean' or 'ensemble'; got 'median'. It says how seeds"),
        ({"num_epochs": "best"}, "'fixed' or 'common'; got 'best'"),
        ({"num_epochs": "common", "combine": "ensemble"}, "history, which has no ensemble"),
    ],
)
def test_impossible_choices_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        choose(valley(), **options)


def of_axes(*names, penalties):
    """A result of axes of two values each, whose penalties have those names."""
    sizes = {key: [0.0, 1.0] for key in names}
    values = np.arange(2.0 ** len(names)).reshape(*[2] * len(names), 1, 1)
    result = made_up(scores(values, **sizes, seed=[0], fold=["0"]), grid=sizes, sizes=(1,))
    result.config["penalties"] = [{name: {} for name in penalties}]
    return result


@pytest.mark.parametrize(
    ("names", "penalties"),
    [(["decay"], ["decay"]), (["lr", "decay"], ["decay"]), (["lr"], ["decay"])],
)
def test_the_only_axis_that_can_be_that_of_lambda_is_taken(names, penalties):
    assert choose(of_axes(*names, penalties=penalties)).axis == names[-1]


@pytest.mark.parametrize("penalties", [["l1", "l2"], []])
def test_several_axes_that_can_be_that_of_lambda_are_named(penalties):
    with pytest.raises(ValueError, match=r"give axis=\.\.\., one of \['l1', 'l2'\]"):
        choose(of_axes("l1", "l2", penalties=penalties))


def test_a_sweep_of_seeds_alone_has_no_lambda():
    result = made_up(scores([[1.0]], seed=[0], fold=["0"]), grid={"l2": 0.1}, sizes=(1,))
    with pytest.raises(ValueError, match="no axis of numbers to choose over"):
        choose(result)


# ---- refit ----------------------------------------------------------------------------------------

TRAIN = make()


@pytest.fixture(scope="module")
def swept():
    """A sweep with the lane "all", its choice, and the refit that trains anew."""
    grid = {"pair": rr.zipped(l2=[0.0, 1e-2], learning_rate=[1e-2, 2e-2])}
    result = rr.sweep(
        TRAIN, grid, sine(), seeds=2, folds=blocked_folds(3), refit=True, key=KEY, progress=False
    )
    choice = choose(result, axis="l2")
    without = dataclasses.replace(result, config=result.config | {"folds": ["0", "1", "2"]})
    return result, choice, refit(TRAIN, without, choice, sine(), key=KEY, progress=False)


@pytest.mark.optimised
@pytest.mark.slow
def test_a_refit_equals_the_run_alone_on_all_rows(swept):
    _, choice, final = swept
    assert set(choice.values) == {"l2", "learning_rate"}
    assert final.dims == ("seed",)
    run = jax.jit(TRAIN)(
        choice.values, sine().replace(target_times=None), key=jax.random.fold_in(KEY, 1)
    )
    assert_same(final.params_at(seed=1), run.params)
    assert float(final.metrics.train_loss.sel(seed=1)) == float(run.metrics["train_loss"])


@pytest.mark.slow
def test_the_lanes_all_are_the_refit(swept):
    result, choice, trained = swept
    final = refit(lambda static: pytest.fail("trained"), result, choice, sine(), key=KEY)
    assert final.dims == ("seed",)
    assert final.metrics.val_loss.dims == ("seed",)
    pair = int(np.flatnonzero(result.metrics.l2.values == choice.values["l2"])[0])
    for seed in (0, 1):
        params = final.params_at(seed=seed)
        assert_same(params, result.params_at(pair=pair, seed=seed, fold="all"))
        for one, two in zip(
            jax.tree.leaves(params), jax.tree.leaves(trained.params_at(seed=seed)), strict=True
        ):
            np.testing.assert_allclose(one, two, **tolerance("float32"))
    assert final.config["chosen"] == choice.values


@pytest.fixture
def asked(monkeypatch):
    """What refit asks of sweep, without training anything."""
    calls = []

    def sweep(*args, **options):
        calls.append((args, options))
        return SweepResult(xr.Dataset(), (), {}, "")

    monkeypatch.setattr("rnnreg.selection._refit.sweep", sweep)
    return calls


def test_lambda_is_rescaled_to_the_rows_on_request(swept, asked):
    result, _, _ = swept
    choice = dataclasses.replace(
        choose(result, axis="l2"), values={"l2": 0.3, "learning_rate": 0.1}
    )
    refit(TRAIN, result, choice, sine(), key=KEY, rescale=True)
    (_, values, _), options = asked[0]
    assert values == {"l2": pytest.approx(0.3 * 24 / 36), "learning_rate": 0.1}
    assert options["seeds"] == [0, 1]
    assert choice.values["l2"] == 0.3  # the choice itself stays


def test_a_common_number_of_epochs_is_used_for_the_refit(swept, asked):
    result, choice, _ = swept
    values = choice.values | {"num_epochs": 4}
    refit(TRAIN, result, dataclasses.replace(choice, values=values), sine(), key=KEY)
    (train, values, _), _ = asked[0]
    assert train.settings.num_epochs == 4
    assert "num_epochs" not in values


def test_static_values_choose_the_run_and_its_rows(asked):
    lanes = scores(np.ones((2, 1, 1, 2)), window=[4, 8], l2=[0.1], seed=[7], fold=FOLDS)
    sizes = scores([[10, 10], [20, 40]], window=[4, 8], fold=FOLDS)
    result = made_up(lanes, grid={"l2": [0.1]}, sizes=sizes, static={"window": [4, 8]})
    choice = dataclasses.replace(choose(result), values={"l2": 0.1, "window": 8})
    made = []
    refit(
        lambda static: made.append(static) or TRAIN,
        result,
        choice,
        lambda static: sine(60, window=static["window"]),
        key=KEY,
        rescale=True,
    )
    (_, values, data), options = asked[0]
    assert made == [{"window": 8}]
    assert data.train.xs.shape == (52, 8, 1)
    assert values == {"l2": pytest.approx(0.1 * 30 / 52)}
    assert options["seeds"] == [7]


# ---- zipped axes, and runs that stop by themselves ------------------------------------------------


def _zipped(**options):
    lanes = scores(VALLEY, pair=range(4), seed=[0], fold=FOLDS)
    lanes = lanes.assign_coords(l2=("pair", LAM), learning_rate=("pair", [0.4, 0.3, 0.2, 0.1]))
    grid = {"pair": {"l2": LAM, "learning_rate": [0.4, 0.3, 0.2, 0.1]}}
    return made_up(lanes, grid=grid, **options)


def test_a_member_of_a_zipped_axis_gives_lambda_its_values():
    choice = choose(_zipped(), axis="l2", rule="1se")
    assert choice.curve.lam.tolist() == LAM
    assert (choice.lam_min, choice.lam_1se) == (1e-3, 1e-3)
    assert choice.values == {"l2": 1e-3, "learning_rate": 0.3}
    assert choice.labels == {"pair": 1}
    assert choice.moving == ("learning_rate",)
    assert "learning_rate changes with l2 from trial to trial" in choice.warnings[0]
    by_rate = choose(_zipped(), axis="learning_rate")
    assert (by_rate.lam, by_rate.values) == (0.3, choice.values)


def test_a_common_number_of_epochs_along_a_zipped_axis():
    records = VALLEY[..., None] + np.array([1.0, 0.0, 2.0])
    history = scores(records, pair=range(4), seed=[0], fold=FOLDS, epoch=[10, 20, 30])
    history = history.assign_coords(l2=("pair", LAM), learning_rate=("pair", [0.4, 0.3, 0.2, 0.1]))
    choice = choose(_zipped(history=history), axis="l2", num_epochs="common")
    assert choice.values == {"l2": 1e-3, "learning_rate": 0.3, "num_epochs": 20}
    np.testing.assert_allclose(choice.curve.mean, [3, 1, 2, 5])


@pytest.mark.slow
@pytest.mark.parametrize("stops", [{"keep_best": True}, {"patience": 2}])
def test_folds_that_stop_by_themselves_are_refitted_for_the_best_epoch_in_common(stops, asked):
    train = make(num_epochs=4, **stops)
    grid = {"l2": [0.0, 1e-2], "learning_rate": 1e-2}
    options = {"folds": blocked_folds(2), "seeds": 2, "key": KEY, "progress": False}
    result = rr.sweep(train, grid, sine(), **options)
    choice = choose(result)
    (said,) = (text for text in choice.warnings if "stopped at its own best epoch" in text)
    assert "sweep without them" in said
    losses = result.metrics.history_val_loss
    best = losses.epoch.values[losses.argmin("epoch")]
    np.testing.assert_array_equal(result.metrics.best_epoch, best)
    # a valley with its floor at epoch 2 in the larger fold, and at 4 in the smaller
    valley = np.array([[3.0, 1.0, 2.0, 2.0], [5.0, 5.0, 5.0, 4.5]])
    metrics = result.metrics.assign(
        history_val_loss=losses.copy(data=np.broadcast_to(valley, losses.shape)),
        fold_size=("fold", [20.0, 10.0]),
    )
    final = refit(train, dataclasses.replace(result, metrics=metrics), choice, sine(), key=KEY)
    assert final.config["chosen"] == choice.values | {"num_epochs": 2}
    chosen = dataclasses.replace(choice, values=choice.values | {"num_epochs": 3})
    refit(train, result, chosen, sine(), key=KEY)  # chosen by choose(num_epochs="common")
    for ((made, *_), _), num_epochs in zip(asked, [2, 3], strict=True):
        settings = made.settings
        assert settings.num_epochs == num_epochs
        assert (settings.keep_best, settings.patience) == (False, None)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"keep_best": True}])
def test_a_sweep_with_a_validation_set_is_refitted(options):
    split = rr.Split(sine().train, validation=sine().train)
    train = make(num_epochs=2, **options)
    result = rr.sweep(
        train, {"l2": [0.0, 1e-2], "learning_rate": 1e-2}, split, key=KEY, progress=False
    )
    final = refit(train, result, choose(result, axis="l2"), split, key=KEY, progress=False)
    assert final.dims == ("seed",)
    assert np.isfinite(final.metrics.ensemble_val_loss)


def test_a_refit_of_another_network_is_refused(swept):
    result, choice, _ = swept
    other = make(rr.network([rr.cells.gru(5)], 1, readout="last"))
    without = dataclasses.replace(result, config=result.config | {"folds": ["0", "1", "2"]})
    with pytest.raises(
        ValueError, match=r"train is not what the sweep was given: its network has layers .*gru"
    ):
        refit(other, without, choice, sine(), key=KEY)


def test_of_equal_scores_each_lambda_is_the_largest_whichever_axis_is_asked_for():
    grid = {"l2": [1e-6, 1e-5], "l1": [1e-7, 1e-6]}
    result = made_up(scores(np.ones((2, 2, 1, 2)), **grid, seed=[0], fold=FOLDS), grid=grid)
    result.config["penalties"] = [{"l2": {}, "l1": {}}]
    for axis in grid:
        assert choose(result, axis=axis).values == {"l2": 1e-5, "l1": 1e-6}


def test_the_room_shows_what_users_take_of_it():
    shown = {name for name in dir(rr.selection) if not name.startswith("_")}
    assert shown - set(rr.selection.__all__) == {"RULES", "axis_of", "is_zipped"}  # for others
