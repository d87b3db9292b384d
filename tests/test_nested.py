"""Nested cross-validation against an obvious loop, and every kind of fold that can be given."""

import numpy as np
import pytest
from conftest import tolerance
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)
from small import sine
from small_linear import KEY, linear_train, regression, ridge, squared

import rnnreg as rr
from rnnreg.selection import blocked_folds, choose, grouped, nested, rolling_origin
from rnnreg.sweeps import pairs_of

SIZE = 3
LAMS = [0.01, 0.3, 3.0]
TRAIN = linear_train(SIZE)
DATA = regression(24, SIZE, noise=2.0)


# ---- nested ---------------------------------------------------------------------------------------


def ridge_by_hand(outer, inner, data, lams=LAMS):
    """λ and error of each outer fold, by the closed form and two loops."""
    found = []
    for rows, held in outer(data):
        part = rr.Split(rr.data.take_rows(data.train, rows), target_times=data.target_times[rows])
        means = []
        for lam in lams:
            errors = [
                (
                    len(v),
                    squared(
                        rr.data.take_rows(part.train, v),
                        ridge(rr.data.take_rows(part.train, t), lam),
                    ),
                )
                for t, v in inner(part)
            ]
            means.append(sum(n * e for n, e in errors) / sum(n for n, _ in errors))
        lam = lams[int(np.argmin(means))]
        weights = ridge(part.train, lam)
        found.append((lam, squared(rr.data.take_rows(data.train, held), weights)))
    return found


@pytest.fixture(scope="module")
def found():
    options = {"outer": blocked_folds(3), "inner": blocked_folds(2), "progress": False}
    return nested(TRAIN, {"l2": LAMS}, DATA, key=KEY, **options)


@pytest.mark.numerics
def test_nested_ridge_is_what_two_loops_and_the_closed_form_say(found):
    expected = ridge_by_hand(blocked_folds(3), blocked_folds(2), DATA)
    assert found.lam.tolist() == [lam for lam, _ in expected]
    # gradient descent has come within 1e-4 of the minimum
    np.testing.assert_allclose(found.scores, [error for _, error in expected], rtol=1e-3)
    sizes = np.array([8, 8, 8])
    np.testing.assert_array_equal(found.fold_sizes, sizes)
    np.testing.assert_allclose(found.mean, found.scores.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.se, found.scores.std(ddof=1) / np.sqrt(3), rtol=1e-6)
    assert found.result.config["lanes"] == 3 * (3 + 3 * 2)
    assert found.inner == (("3", "4"), ("5", "6"), ("7", "8"))
    for (rows, _), labels in zip(found.folds, found.inner, strict=False):
        for train, validation in (found.folds[int(label)] for label in labels):
            assert set(train) | set(validation) <= set(rows)


@pytest.mark.slow
def test_nested_equals_a_loop_of_sweeps(found):
    for number, (rows, held) in enumerate(blocked_folds(3)(DATA)):
        part = DATA.replace(
            train=rr.data.take_rows(DATA.train, rows), target_times=DATA.target_times[rows]
        )
        options = {"key": KEY, "progress": False}
        choice = choose(rr.sweep(TRAIN, {"l2": LAMS}, part, folds=blocked_folds(2), **options))
        held_out = part.replace(validation=rr.data.take_rows(DATA.train, held))
        alone = rr.sweep(TRAIN, {"l2": [choice.lam]}, held_out, **options)
        assert choice.lam == found.lam[number]
        np.testing.assert_allclose(
            choice.curve.folds, found.choices[number].curve.folds, **tolerance()
        )
        score = float(alone.metrics.val_loss.squeeze())
        np.testing.assert_allclose(score, found.scores[number], **tolerance())


def test_the_optimistic_minimum_is_that_of_plain_cross_validation(found):
    outer = found.result.metrics.val_loss.sel(fold=["0", "1", "2"]).squeeze("seed")
    np.testing.assert_allclose(found.optimistic, outer.mean("fold").values.min(), rtol=1e-12)
    assert found.mean >= found.optimistic
    said = repr(found)
    assert said.isascii()
    assert f"{found.optimistic:.4g} if chosen on the same rows" in said
    assert said.count("outer fold") == 4


def test_inner_folds_take_groups_and_seeds_and_scaling_of_their_rows():
    split = rr.data.standardize(DATA)
    groups = np.arange(24) // 4
    found = nested(
        linear_train(SIZE, num_epochs=2),
        {"l2": LAMS[:2]},
        split,
        outer=grouped(GroupKFold(2), groups),
        inner=grouped(GroupKFold(3), groups),
        seeds=2,
        combine="ensemble",
        key=KEY,
        progress=False,
    )
    assert found.result.config["lanes"] == 2 * 2 * (2 + 2 * 3)
    assert np.isfinite(found.scores).all()
    inner = pairs_of(grouped(GroupKFold(2), groups), split)
    assert len(inner) == 2
    # each of the eight folds is scaled by rows of its own
    shifts = [
        scaling["y_shift"][0] for scaling in found.result.config["data"][0]["scaling"].values()
    ]
    assert len(set(shifts)) == 8


def test_inner_folds_must_fit_any_outer_fold():
    pairs = [(np.arange(4), np.arange(4, 8))]
    with pytest.raises(ValueError, match="inner must be a splitter or a function of the split"):
        nested(TRAIN, {"l2": LAMS}, DATA, outer=KFold(2), inner=pairs, key=KEY)
    with pytest.raises(
        ValueError, match=r"inner folds of outer fold 0: .*13 folds need at least as"
    ):
        nested(TRAIN, {"l2": LAMS}, DATA, outer=KFold(2), inner=blocked_folds(13), key=KEY)


# ---- splitters ------------------------------------------------------------------------------------

CLASSES = np.arange(12) % 3
LABELLED = rr.Split(rr.Batch(np.ones((12, 1, 1), np.float32), CLASSES))


@pytest.mark.parametrize(
    ("splitter", "num"),
    [
        (KFold(3), 3),
        (RepeatedKFold(n_splits=3, n_repeats=2, random_state=0), 6),
        (StratifiedKFold(4), 4),
        (TimeSeriesSplit(3, gap=1), 3),
        (PredefinedSplit(np.arange(12) // 4), 3),
        (ShuffleSplit(2, test_size=0.25, random_state=0), 2),
    ],
)
def test_splitters_of_scikit_learn_cut_the_rows_as_they_do(splitter, num):
    found = pairs_of(splitter, LABELLED)
    expected = list(splitter.split(np.zeros((12, 1)), CLASSES))
    assert len(found) == num
    for one, two in zip(found, expected, strict=True):
        for side, other in zip(one, two, strict=True):
            np.testing.assert_array_equal(side, other)
    rr.data.stack_folds(found, LABELLED)
    if isinstance(splitter, TimeSeriesSplit):
        assert all(train.max() + 1 < validation.min() for train, validation in found)
    if isinstance(splitter, StratifiedKFold):
        assert all(sorted(CLASSES[validation]) == [0, 1, 2] for _, validation in found)


def test_groups_are_given_with_their_splitter():
    groups = ["b", "a", "a", "c"] * 3
    for train, validation in pairs_of(grouped(GroupKFold(3), groups), LABELLED):
        assert not {groups[n] for n in train} & {groups[n] for n in validation}


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (
            GroupKFold(3),
            r"GroupKFold cannot split.*folds=rr.selection.grouped\(GroupKFold\(…\), groups",
        ),
        (StratifiedKFold(9), "StratifiedKFold cannot split these rows .*n_splits=9"),
        (KFold(13), "KFold cannot split these rows"),
        (grouped(GroupKFold(3), [1, 2]), "each of the 12 training rows; got 2"),
        (grouped(GroupKFold(3), [1] * 12), "GroupKFold cannot split these rows by their 1 groups"),
        (PredefinedSplit([-1] * 12), "folds is empty"),
        (PredefinedSplit(np.arange(14) // 7), "fold 0 names row 13; the data has rows 0 to 11"),
    ],
)
def test_splits_that_cannot_be_made_are_named(folds, message):
    with pytest.raises(ValueError, match=message):
        rr.data.stack_folds(pairs_of(folds, LABELLED), LABELLED)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((GroupKFold, [1, 2]), "splitter must be"),
        ((GroupKFold(2), "ab"), "groups must be a list"),
        ((GroupKFold(2), [[1], [2]]), "groups must be a list"),
        ((3, [1, 2]), "splitter must be"),
    ],
)
def test_what_is_no_splitter_or_no_group_is_named(given, message):
    if given[0] is GroupKFold:
        given = (None, given[1])
    with pytest.raises(ValueError, match=message):
        grouped(*given)


def test_a_stratified_splitter_needs_classes():
    with pytest.raises(ValueError, match=r"StratifiedKFold.*needs class targets ys \[N\]"):
        pairs_of(StratifiedKFold(3), DATA)


def test_a_batch_larger_than_the_smallest_fold_is_named():
    train = linear_train(SIZE, batch_size=9)
    with pytest.raises(
        ValueError, match="batch_size=9 is larger than the 6 training rows of the smallest"
    ):
        rr.sweep(train, {"l2": LAMS}, DATA, folds=TimeSeriesSplit(3), key=KEY)


# ---- rolling origin -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.1, 0.25, 1 / 12, 0.01, 3.7])
@pytest.mark.parametrize("start", [0.0, 1749.0])
def test_times_in_parts_of_one_are_those_in_whole_numbers(step, start):
    """Sums of a tenth are rounded, and no row may slip over a border by that."""
    count = np.arange(30)

    def split(times):
        batch = rr.Batch(np.ones((30, 1, 1)), np.ones((30, 1)))
        return rr.Split(batch, target_times=np.stack([times, times], axis=1))

    def listed(pairs):
        return [(train.tolist(), validation.tolist()) for train, validation in pairs]

    whole, parts = split(count), split(start + step * count)
    for gap in (0, 1, 3):
        rolling = rolling_origin(3, horizon=4, gap=gap, window=9)(whole)
        scaled = rolling_origin(3, horizon=4 * step, gap=gap * step, window=9 * step)(parts)
        assert listed(scaled) == listed(rolling)
        blocks = blocked_folds(5, embargo=gap)(whole)
        assert listed(blocked_folds(5, embargo=gap * step)(parts)) == listed(blocks)


def test_a_rolling_origin_by_hand():
    split = sine(13, window=3)  # ten rows with targets 3 … 12
    targets = split.target_times[:, 1]
    said = [
        (targets[t].tolist(), targets[v].tolist()) for t, v in rolling_origin(3, horizon=2)(split)
    ]
    assert said == [
        ([3, 4, 5, 6], [7, 8]),
        ([3, 4, 5, 6, 7, 8], [9, 10]),
        ([3, 4, 5, 6, 7, 8, 9, 10], [11, 12]),
    ]
    rolling = rolling_origin(2, horizon=2, initial=4, window=3, gap=1)(split)
    assert [(targets[t].tolist(), targets[v].tolist()) for t, v in rolling] == [
        ([4, 5, 6], [8, 9]),
        ([6, 7, 8], [10, 11]),
    ]


@pytest.mark.parametrize("targets", ["last", "all"])
@pytest.mark.parametrize("options", [{}, {"gap": 2}, {"window": 12, "gap": 1.5}, {"initial": 20}])
def test_every_training_target_lies_before_every_validation_target(targets, options):
    split = sine(60, window=4, targets=targets)
    order = np.random.default_rng(1).permutation(len(split.train.ys))
    split = split.replace(
        train=rr.data.take_rows(split.train, order), target_times=split.target_times[order]
    )
    pairs = rolling_origin(4, horizon=8, **options)(split)
    assert len(pairs) == 4
    for train, validation in pairs:
        past, future = split.target_times[train], split.target_times[validation]
        assert past.max() + options.get("gap", 0) < future.min()
        assert np.ptp(past) <= options.get("window", 60)
        assert np.ptp(future) < 8
    rr.data.stack_folds(pairs, split)  # and no leak is warned of


def test_a_rolling_origin_of_dates():
    days = np.datetime64("2024-01-01") + np.arange(40)
    batch, times = rr.data.windows(np.arange(40.0), window=4, times=days)
    split = rr.Split(batch, target_times=times)
    folds = rolling_origin(2, horizon=np.timedelta64(1, "W"), gap=np.timedelta64(2, "D"))
    sides = folds(split)
    assert [len(validation) for _, validation in sides] == [7, 7]
    assert times[sides[1][0]].max() == np.datetime64(
        "2024-01-31"
    )  # two days before 2 February … 9 February
    with pytest.raises(ValueError, match="horizon=7 is a bare number, and the times are dates"):
        rolling_origin(2, horizon=7)(split)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rolling_origin(0, horizon=1), "num_folds must be at least 1"),
        (lambda: rolling_origin(2, horizon=0), "horizon must be longer than 0"),
        (lambda: rolling_origin(2, horizon=1, gap=-1), "gap must not be negative"),
        (lambda: rolling_origin(2, horizon=1, window=0), "window must be longer than 0"),
        (
            lambda: rolling_origin(9, horizon=2)(sine(13)),
            "fold 0 of rolling_origin.*no row to train on",
        ),
        (lambda: rolling_origin(9, horizon=2, initial=4)(sine(13)), "no row to validate on"),
        (lambda: rolling_origin(2, horizon=1)(LABELLED), "rolling_origin needs Split.target_times"),
    ],
)
def test_impossible_origins_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
