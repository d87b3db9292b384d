"""Rows of sequences: windows, masks, scaling, and folds that never see their validation rows."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from conftest import require, tolerance

import rnnreg as rr
from rnnreg.data import (
    Batch,
    Scaling,
    Split,
    as_split,
    check_batch,
    fit_scaling,
    lengths_to_mask,
    row_weights,
    scale_batch,
    stack_folds,
    standardize,
    take_fold,
    take_rows,
    unscale_outputs,
    windows,
)

pytestmark = pytest.mark.numerics

# Unequal sizes, so that padding happens on both sides.
PAIRS = [([0, 1, 2, 3, 4], [5, 6]), ([5, 6, 7], [0, 1, 2, 3]), ([2], [0, 7, 5])]


def _split(seed=0, num_rows=8):
    rng = np.random.default_rng(seed)
    batch = Batch(
        xs=rng.normal(3.0, 2.0, (num_rows, 5, 2)).astype(np.float32),
        ys=rng.normal(-1.0, 5.0, (num_rows, 1)).astype(np.float32),
    )
    return Split(train=batch, test={"later": take_rows(batch, jnp.arange(2))})


def _at(folds, index):
    return jax.tree.map(lambda leaf: leaf[index], folds)


# ---- windows and masks ----------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("targets", ["last", "all"])
def test_windows_equal_slices_by_hand(targets, horizon):
    series = np.random.default_rng(0).normal(size=(12, 2))
    times = 1700.0 + np.arange(12)
    batch, target_times = windows(series, 4, times=times, targets=targets, horizon=horizon)
    assert len(batch.xs) == len(batch.ys) == len(target_times) == 12 - 4 - horizon + 1
    for row in range(len(batch.xs)):
        np.testing.assert_array_equal(batch.xs[row], series[row : row + 4])
        ahead = slice(row + horizon, row + 4 + horizon)
        expected = series[ahead] if targets == "all" else series[ahead][-1]
        np.testing.assert_array_equal(batch.ys[row], expected)
        first = times[ahead][0] if targets == "all" else times[ahead][-1]
        np.testing.assert_array_equal(target_times[row], [first, times[ahead][-1]])


def test_the_last_window_uses_the_last_value():
    batch, target_times = windows(np.arange(10.0), window=3)
    assert batch.ys[-1, 0] == 9.0
    assert target_times[-1].tolist() == [9.0, 9.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 6}, "no window of 6 steps"),
        ({"window": 0}, "no window of 0 steps"),
        ({"window": 3, "horizon": 4}, "4 ahead"),
        ({"window": 2, "targets": "first"}, "'last' or 'all'"),
        ({"window": 2, "times": np.arange(5)}, "one entry a value: 6; got 5"),
    ],
)
def test_impossible_windows_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        windows(np.arange(6.0), **arguments)


def test_mask_of_lengths_counts_true_steps():
    mask = lengths_to_mask([0, 2, 5], num_steps=5)
    assert mask.shape == (3, 5)
    assert mask.sum(axis=1).tolist() == [0, 2, 5]
    assert (np.diff(mask, axis=1) <= 0).all()  # true steps come first


@pytest.mark.parametrize(
    ("lengths", "message"), [([6, 1], "got 6"), ([-1, 2], "got -1"), ([[1]], "got shape")]
)
def test_lengths_beyond_the_steps_raise(lengths, message):
    with pytest.raises(ValueError, match=message):
        lengths_to_mask(lengths, num_steps=5)


# ---- scaling --------------------------------------------------------------------------------------


def test_standardize_fits_training_rows_alone_and_can_be_undone():
    split = _split()
    seen = standardize(split)
    for name in ("xs", "ys"):
        values = np.asarray(getattr(seen.train, name))
        flat = values.reshape(-1, values.shape[-1])
        np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(flat.std(axis=0), 1, rtol=1e-5)
    back = unscale_outputs(seen.train.ys, seen.units)
    np.testing.assert_allclose(back, split.train.ys, **tolerance(jnp.float32))
    # the test set goes through the map of the training rows, not through its own
    rows = np.asarray(seen.test["later"].ys)
    np.testing.assert_allclose(rows, np.asarray(seen.train.ys)[:2], **tolerance(jnp.float32))

    other = split.replace(test={"later": take_rows(split.train, jnp.array([7]))})
    for one, two in zip(standardize(other).units, seen.units, strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="standardised already"):
        standardize(seen)


def test_scaling_ignores_padding_and_leaves_constants_and_tokens():
    xs = np.array([[[1.0, 7.0], [3.0, 7.0], [99.0, 99.0]]])
    scaling = fit_scaling(Batch(xs, np.array([[2]]), mask=np.array([[1, 1, 0]])))
    np.testing.assert_allclose(scaling.x_shift, [2.0, 7.0])
    np.testing.assert_allclose(scaling.x_scale, [1.0, 1.0])  # std of (1, 3); a constant keeps 1
    tokens = Batch(np.array([[4, 5]]), np.array([1]))
    scaled = scale_batch(tokens, fit_scaling(tokens))
    assert scaled.xs.tolist() == [[4, 5]]
    assert scaled.ys.tolist() == [1]


def test_scaling_ignores_rows_of_weight_zero():
    xs = np.array([[[1.0], [3.0]], [[99.0], [99.0]]])
    batch = Batch(xs, np.array([[5.0], [77.0]]), weights=np.array([1.0, 0.0]))
    assert fit_scaling(batch).x_shift.tolist() == [2.0]
    assert fit_scaling(batch, rows=np.array([1, 0])).y_shift.tolist() == [5.0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_scaling_keeps_the_dtype_of_the_data(dtype):
    batch = Batch(jnp.ones((2, 3, 1), dtype), jnp.ones((2, 1), dtype))
    scaling = Scaling(*(jnp.full(1, 2.0) for _ in range(4)))
    scaled = scale_batch(batch, scaling)
    assert scaled.xs.dtype == scaled.ys.dtype == dtype
    assert unscale_outputs(scaled.ys, scaling).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.1, -1234.567, 3e7, 1e-20, 0.0])
def test_a_constant_feature_keeps_scale_one_whatever_its_size(dtype, value):
    rng = np.random.default_rng(0)
    xs = np.stack([rng.normal(size=(500, 7)), np.full((500, 7), value)], -1).astype(dtype)
    scaling = fit_scaling(Batch(xs, xs[:, 0, 1:]))
    assert scaling.x_scale[1] == scaling.y_scale[0] == 1
    scaled = scale_batch(Batch(xs, xs[:, 0, 1:]), scaling)
    assert not scaled.xs[..., 1].any()
    assert not scaled.ys.any()


def test_what_varies_is_scaled_however_small_or_far_away():
    noise = np.random.default_rng(0).normal(size=(2000, 3, 1))
    for values in (1e-20 * noise, 1e6 + noise, 1e12 + noise, noise - 300):
        scaling = fit_scaling(Batch(values, values[:, 0]))
        expected = (values - values[0, 0]).std()  # NumPy's own is less exact far from 0
        np.testing.assert_allclose(scaling.x_scale, expected, rtol=1e-9)
    ulp = np.spacing(np.float32(0.1))  # rounding of a constant is no variation
    near = (np.float32(0.1) + ulp * np.random.default_rng(0).integers(0, 2, (100, 3, 1))).astype(
        np.float32
    )
    assert fit_scaling(Batch(near, near[:, 0])).x_scale.tolist() == [1.0]


def test_moments_of_long_series_are_taken_in_float64():
    values = np.random.default_rng(0).standard_normal((20_000, 50, 1), np.float32) + np.float32(300)
    scaling = fit_scaling(Batch(values, values[:, 0]))
    wide = values.astype(np.float64)
    np.testing.assert_allclose(scaling.x_shift, wide.mean(), rtol=1e-9)
    np.testing.assert_allclose(scaling.x_scale, wide.std(), rtol=1e-9)


def test_a_dummy_that_is_constant_in_a_fold_is_not_blown_up():
    series = np.stack([np.sin(np.arange(240) / 5), np.arange(240) >= 196], 1)
    batch, times = windows(series, 6)
    for dtype in (np.float32, np.float64):
        rows = Batch(batch.xs.astype(dtype), batch.ys[:, :1].astype(dtype))
        split = standardize(Split(rows, target_times=times))
        folds, _ = stack_folds(rr.selection.blocked_folds(5)(split), split)
        assert folds.scaling.x_scale[4, 1] == 1
        last = take_fold(split, _at(folds, 4))
        assert np.abs(scale_batch(last.validation, last.scaling).xs).max() < 5


@pytest.mark.parametrize("junk", [0.0, 99.0])
def test_standardising_a_batch_leaves_padding_out_and_at_zero(junk):
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(40, 2, (6, 5, 2)), rng.normal(-7, 3, (6, 5, 1))
    mask = lengths_to_mask([5, 3, 1, 0, 2, 4], 5)
    true = mask > 0
    padded = Batch(*(np.where(true[..., None], values, junk) for values in (xs, ys)), mask=mask)
    split = standardize(padded)
    for name, raw in (("xs", xs), ("ys", ys)):
        seen = getattr(split.train, name)
        assert not seen[~true].any()
        np.testing.assert_allclose(seen[true].mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(seen[true].std(axis=0), 1)
        np.testing.assert_allclose(
            seen[true], (raw[true] - raw[true].mean(axis=0)) / raw[true].std(axis=0)
        )
    folds, _ = stack_folds(
        [([0, 1], [2, 4]), ([2, 4, 5], [0, 1])], split
    )  # scaled again, inside a trace
    fold = take_fold(split, _at(folds, 0))
    again = jax.jit(scale_batch)(fold.train, fold.scaling)
    assert not np.asarray(again.xs)[np.asarray(fold.train.mask) == 0].any()


def test_steps_without_a_label_do_not_count_in_the_moments_of_the_targets():
    xs = np.arange(8.0).reshape(2, 4, 1)
    ys = np.array([[0, 0, 5, 7], [0, 0, 0, 9.0]])[..., None]
    labelled = (ys[..., 0] > 0).astype(float)
    scaling = fit_scaling(Batch(xs, ys, weights=labelled))
    assert scaling.x_shift.tolist() == [3.5]
    np.testing.assert_allclose(scaling.y_shift, [7.0])
    with pytest.raises(ValueError, match=r"batch.weights are all 0; at least one row must count"):
        fit_scaling(Batch(xs, ys, weights=np.zeros((2, 4))))
    only_padding = np.array([[0, 0, 0, 1.0]] * 2)
    with pytest.raises(ValueError, match="no step is left to fit a scaling on"):
        fit_scaling(Batch(xs, ys, mask=1 - only_padding, weights=only_padding))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["xs", "ys"])
def test_values_that_are_no_numbers_are_named_before_a_scaling_is_fitted(field, value):
    rows = {"xs": np.arange(24.0).reshape(4, 3, 2), "ys": np.arange(12.0).reshape(4, 3, 1)}
    rows[field][3, 2, 0] = value
    batch = Batch(**rows)
    wrong = rf"{field} has 1 values that are NaN or infinite, the first at \({{}}, 2, 0\)"
    with pytest.raises(ValueError, match="data.train." + wrong.format(3)):
        standardize(batch)
    with pytest.raises(ValueError, match="batch." + wrong.format(3)):
        fit_scaling(batch)
    with pytest.raises(ValueError, match=r"batch\[rows\]." + wrong.format(1)):
        fit_scaling(batch, rows=[0, 3])
    expected = fit_scaling(batch, rows=[0, 1, 2])
    row, step = np.array([1.0, 1, 1, 0]), np.ones((4, 3))
    step[3, 2] = 0
    for one, two in zip(fit_scaling(batch._replace(weights=row)), expected, strict=True):
        np.testing.assert_array_equal(one, two)
    for places in ({"mask": step}, {"mask": step, "weights": np.outer(row, np.ones(3))}):
        assert all(np.isfinite(part).all() for part in fit_scaling(batch._replace(**places)))
    if field == "ys":  # a step without a label
        assert np.isfinite(fit_scaling(batch._replace(weights=step)).y_shift).all()


def test_large_numbers_are_scaled_next_to_padding():
    batch = Batch(1e50 * np.array([[[1.0], [3.0], [9.0]]]), np.ones((1, 1)), np.array([[1, 1, 0]]))
    np.testing.assert_allclose(fit_scaling(batch).x_shift, [2e50])


def test_a_scaling_meets_as_many_features_as_it_has():
    scaling = Scaling(np.zeros(2), np.ones(2), np.ones(1), np.ones(1))
    wanted = "must have as many features as the scaling has"
    for size in (1, 3):
        with pytest.raises(ValueError, match=rf"xs of shape \(4, 5, {size}\) {wanted}, 2"):
            scale_batch(Batch(np.ones((4, 5, size)), np.ones((4, 1))), scaling)
    for scale in (scale_batch, jax.jit(scale_batch)):
        with pytest.raises(ValueError, match=rf"ys of shape \(4, 2\) {wanted}, 1"):
            scale(Batch(np.ones((4, 5, 2)), np.ones((4, 2))), scaling)
    with pytest.raises(ValueError, match=rf"outputs of shape \(4, 2\) {wanted}, 1"):
        unscale_outputs(np.ones((4, 2)), scaling)
    classes = scaling._replace(y_shift=np.zeros(1))
    np.testing.assert_array_equal(unscale_outputs(np.ones((4, 3)), classes), np.ones((4, 3)))
    split = Split(_split().train)
    with pytest.raises(ValueError, match=wanted):
        standardize(split.replace(test={"other": Batch(np.ones((2, 3, 7)), np.ones((2, 1)))}))


# ---- folds ----------------------------------------------------------------------------------------


def test_take_fold_equals_slicing_by_hand():
    split = _split()
    folds, labels = stack_folds(PAIRS, split)
    assert labels == ["0", "1", "2"]
    for index, (train, validation) in enumerate(PAIRS):
        fold = take_fold(split, _at(folds, index))
        for batch, rows in ((fold.train, train), (fold.validation, validation)):
            real = np.asarray(batch.weights) > 0
            assert real.sum() == len(rows)
            for leaf, whole in ((batch.xs, split.train.xs), (batch.ys, split.train.ys)):
                np.testing.assert_array_equal(np.asarray(leaf)[real], whole[rows])
        assert fold.scaling is None


def test_padded_rows_change_no_loss():
    split = _split()
    folds, _ = stack_folds(PAIRS, split)
    loss = rr.losses.squared_error("mean")
    for index, (train, validation) in enumerate(PAIRS):
        fold = take_fold(split, _at(folds, index))
        for batch, rows in ((fold.train, train), (fold.validation, validation)):
            measured = loss(0.5 * batch.ys, batch.ys, batch.mask, batch.weights)
            expected = np.mean((0.5 * split.train.ys[rows]) ** 2)
            np.testing.assert_allclose(measured, expected, **tolerance(jnp.float32))


def test_folds_can_be_taken_inside_vmap():
    split = _split()
    folds, _ = stack_folds(PAIRS, standardize(split))
    taken = jax.vmap(lambda fold: take_fold(split, fold).validation.ys)(folds)
    for index in range(len(PAIRS)):
        alone = take_fold(split, _at(folds, index)).validation.ys
        np.testing.assert_array_equal(taken[index], alone)


def _seen_in_training(split, pairs, index):
    folds, _ = stack_folds(pairs, split)
    fold = take_fold(split, _at(folds, index))
    batch = scale_batch(fold.train, fold.scaling)
    real = np.asarray(batch.weights) > 0
    return np.asarray(batch.xs)[real], np.asarray(batch.ys)[real]


def test_validation_rows_change_nothing_that_training_sees():
    """The leak that scaling once on all rows has: a fold would know the mean of its validation block."""
    raw = _split()
    for index, (train, validation) in enumerate(PAIRS):
        xs, ys = raw.train.xs.copy(), raw.train.ys.copy()
        xs[validation] = 40.0 - 7.0 * xs[validation]
        ys[validation] = -100.0 + ys[validation]
        changed = raw.replace(train=Batch(xs, ys))
        before = _seen_in_training(standardize(raw), PAIRS, index)
        after = _seen_in_training(standardize(changed), PAIRS, index)
        # two affine maps one after the other: equal up to rounding of the first
        for one, two in zip(before, after, strict=True):
            np.testing.assert_allclose(one, two, **tolerance(jnp.float32, loosen=10))
        if len(train) > 1:
            flat = before[0].reshape(-1, before[0].shape[-1])
            np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-5)
            np.testing.assert_allclose(flat.std(axis=0), 1, rtol=1e-4)


def test_the_fold_all_trains_on_every_row_as_it_stands():
    split = standardize(_split())
    folds, labels = stack_folds(PAIRS, split, include_all=True)
    assert labels[-1] == "all"
    fold = take_fold(split, _at(folds, -1))
    assert np.asarray(fold.train.weights).tolist() == [1.0] * 8
    np.testing.assert_array_equal(fold.train.xs, split.train.xs)
    assert not np.asarray(fold.validation.weights).any()
    seen = scale_batch(fold.train, fold.scaling)
    np.testing.assert_array_equal(seen.xs, split.train.xs)
    with_all, _ = stack_folds(PAIRS, split, include_all=True)
    without, _ = stack_folds(PAIRS, split)
    for one, two in zip(with_all.scaling, without.scaling, strict=True):
        np.testing.assert_array_equal(one[:-1], two)


def test_a_fold_multiplies_the_rows_own_weights():
    batch = _split().train._replace(weights=np.arange(8.0, dtype=np.float32))
    folds, _ = stack_folds(PAIRS, Split(train=batch))
    fold = take_fold(Split(train=batch), _at(folds, 1))
    assert np.asarray(fold.train.weights).tolist() == [5.0, 6.0, 7.0, 0.0, 0.0]


def test_no_fold_is_the_split_itself_and_a_batch_is_a_split():
    split = _split()
    assert take_fold(split, None) is split
    assert as_split(split) is split
    assert as_split(split.train).train is split.train


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "folds is empty"),
        ([([], [1])], "nothing to train on"),
        ([([0], [1]), ([1], [])], "fold 1 leaves nothing to validate on"),
        ([([0, 8], [1])], "names row 8; the data has rows 0 to 7"),
        ([([0, -1], [1])], "names row -1"),
        ([([0, 1, 2], [2, 3])], r"rows \[2\] on both sides"),
    ],
)
def test_impossible_folds_are_named(pairs, message):
    with pytest.raises(ValueError, match=message):
        stack_folds(pairs, _split())


def test_folds_may_be_masks_one_pair_or_objects_of_pandas():
    split = _split()
    expected, _ = stack_folds([([0, 1, 2], [5, 6])], split)
    train, validation = np.isin(np.arange(8), [0, 1, 2]), np.isin(np.arange(8), [5, 6])
    for given in (
        [(train, validation)],
        (train, validation),
        ([0, 1, 2], [5, 6]),
        (row for row in ((np.array([0, 1, 2]), np.array([5, 6])),)),
        [(pd.Index([0, 1, 2]), pd.Series([5, 6], index=[3, 4]))],
        (range(3), range(5, 7)),
    ):
        found, labels = stack_folds(given, split)
        assert labels == ["0"]
        np.testing.assert_array_equal(found.train_rows, expected.train_rows)
        np.testing.assert_array_equal(found.validation_rows, expected.validation_rows)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([([0.5], [1])], "whole numbers, or by a mask of booleans.*got float64"),
        ([([True, False], [False, True])], r"one entry per row, \(8,\); got bool of shape \(2,\)"),
        ([([0], [1], [2])], "must be a pair.*blocked_folds"),
        ([3], "must be a pair .*got 3"),
        ([(["a"], ["b"])], "whole numbers"),
    ],
)
def test_folds_that_name_no_rows_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        stack_folds(pairs, _split())


# ---- leaks through overlapping windows ------------------------------------------------------------


def _warnings_of(split, folds):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stack_folds(folds, split)
    return [str(one.message) for one in caught]


SHUFFLED = [
    (np.delete(np.arange(52), rows), rows)
    for rows in np.random.default_rng(0).permutation(52).reshape(4, 13)
]
BLOCKS = [(np.delete(np.arange(52), rows), rows) for rows in np.arange(52).reshape(4, 13)]


@pytest.mark.parametrize("dated", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_shuffled_folds_of_overlapping_windows_warn(dated, scaled):
    batch, times = windows(np.sin(np.arange(60.0)), 8)
    split = Split(batch, target_times=times if dated else None)
    split = standardize(split) if scaled else split
    (message,) = _warnings_of(split, SHUFFLED)
    assert re.search("overlapping windows of 8 steps.*blocked_folds.*unshuffled", message)
    assert _warnings_of(split, BLOCKS) == []
    # rows in any order: the times say what lies next to what
    if dated:
        order = np.random.default_rng(1).permutation(52)
        mixed = Split(take_rows(split.train, order), target_times=times[order])
        assert len(_warnings_of(mixed, BLOCKS)) == 1


@pytest.mark.parametrize("kind", ["unrelated", "constant", "apart"])
def test_rows_that_do_not_overlap_may_be_shuffled(kind):
    xs = np.random.default_rng(0).normal(size=(52, 8, 1))
    if kind == "constant":
        xs = np.zeros_like(xs)
    if kind == "apart":
        xs = np.sin(np.arange(52 * 8.0)).reshape(52, 8, 1)
    assert _warnings_of(Split(Batch(xs, xs[:, 0])), SHUFFLED) == []


def test_shuffled_windows_of_tokens_warn_too():
    text = np.random.default_rng(0).integers(0, 5, 61)
    xs = np.stack([text[row : row + 8] for row in range(52)])
    assert len(_warnings_of(Split(Batch(xs, text[8:60])), SHUFFLED)) == 1


# ---- weights of steps -----------------------------------------------------------------------------


def test_weights_of_steps_go_where_rows_go():
    steps = np.array([[0, 1, 2], [0, 0, 0], [1, 1, 1.0]])
    batch = Batch(np.ones((3, 3, 1)), np.ones((3, 3, 1)), weights=steps)
    check_batch(batch)
    assert np.asarray(row_weights(batch)).tolist() == [2, 0, 1]
    assert np.asarray(row_weights(batch._replace(mask=np.array([[1, 1, 0]] * 3)))).tolist() == [
        1,
        0,
        1,
    ]
    taken = take_rows(batch, np.array([2, 0]), weights=np.array([1.0, 0.0]))
    assert np.asarray(taken.weights).tolist() == [[1, 1, 1], [0, 0, 0]]


XS, YS = np.ones((3, 4, 2), np.float32), np.ones((3, 4, 1), np.float32)
NAN = XS.copy()
NAN[1, 2, 0] = np.nan


# ---- arrays of other libraries --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.ones((3, 4, 2), ">f4"), np.float32),
        (np.full((3, 4, 2), 1.0, object), np.float64),
        (np.ones((3, 4, 2), np.longdouble), np.float64),
        (np.ones((3, 4, 2)).tolist(), np.float64),
        (np.ones((3, 4, 2), bool), jnp.result_type(float)),
        (np.ma.masked_array(np.ones((3, 4, 2))), np.float64),
    ],
)
def test_arrays_become_what_jax_can_take(given, dtype):
    split = as_split(Batch(given, np.ones((3, 1))))
    assert split.train.xs.dtype == dtype
    assert split.train.xs.dtype.isnative
    np.testing.assert_array_equal(split.train.xs, np.ones((3, 4, 2)))
    check_batch(split.train)
    assert as_split(split) is split


def test_booleans_and_tables_become_numbers_by_their_place():
    bits = np.array([True, False, True])
    one = as_split(Batch(bits[:, None].repeat(4, 1), pd.Series(bits))).train
    assert one.xs.dtype == one.ys.dtype == np.int32  # tokens and classes
    two = as_split(Batch(np.ones((3, 4, 1)), pd.DataFrame({"a": bits}))).train
    assert two.ys.tolist() == [[1.0], [0.0], [1.0]]
    three = as_split(Batch(np.ones((3, 4, 1)), pd.Series([1, 0, 2], dtype="Int64"))).train
    assert three.ys.tolist() == [1, 0, 2]
    assert np.issubdtype(three.ys.dtype, np.integer)
    four = as_split(Batch(XS, YS, weights=np.ones((3, 4), bool)))
    assert np.issubdtype(four.train.weights.dtype, np.floating)


def test_tensors_of_torch_are_taken_in_every_part_of_a_split():
    torch = require("torch")
    xs = torch.ones((3, 4, 2), requires_grad=True)
    ys = torch.ones((3, 1), dtype=torch.bfloat16)
    split = as_split(Split(Batch(xs, ys), Batch(xs, ys), {"later": Batch(xs, ys)}))
    for batch in (split.train, split.validation, split.test["later"]):
        check_batch(batch)
        assert isinstance(batch.ys, np.ndarray)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (Batch([[[1.0], [2.0]], [[1.0]]], YS), "data.train.xs is no array of numbers.*lengths_to_mask"),
        (Batch(XS, np.array(["a", "b", "a"])), "data.train.ys holds strings.*np.unique"),
        (Batch(XS, pd.Series(["a", "b", "a"])), "data.train.ys holds strings"),
        (Batch(XS.astype("datetime64[s]"), YS), "must hold numbers; got datetime64.*Dates become features"),
        (Batch(np.ma.masked_equal(XS, 1), YS), "is a masked array.*mark the masked steps"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_named_with_its_cure(batch, message):
    with pytest.raises(ValueError, match=message):
        as_split(batch)


# ---- check_batch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((XS, YS), "must be a Batch .*got a tuple"),
        (Batch(XS[0], YS), r"\[N, T, D\] real numbers; got shape \(4, 2\)"),
        (Batch(XS.astype(int), YS), r"\[N, T\] integer tokens; got shape \(3, 4, 2\)"),
        (Batch(XS[:0], YS[:0]), "has no rows"),
        (Batch(XS, YS[:2]), "as many rows as xs: 3; got 2"),
        (Batch(XS, YS, mask=np.ones((4, 3))), r"\(3, 4\); got \(4, 3\).*lengths_to_mask"),
        (Batch(XS, YS, mask=np.zeros((3, 4))), "masks every step"),
        (Batch(XS, YS, weights=np.ones(4)), r"weights must be \[N\] = .*or \[N, T\] = \(3, 4\)"),
        (
            Batch(XS, YS[:, 0], weights=np.ones((3, 4))),
            "one per step, and ys has one target per row",
        ),
        (
            Batch(XS, YS[:, 0, 0]),
            r"got shape \(3,\) of float32. One number per row is ys\[:, None\]",
        ),
        (Batch(XS[..., 0], YS), r"got shape \(3, 4\) of float32. One feature: xs\[..., None\]"),
        (Batch(XS, np.where(YS == 1, np.nan, YS)), r"weights=~np.isnan\(ys\).any\(axis=-1\)"),
        (Batch(XS.tolist(), YS), "must be a NumPy or JAX array; got list"),
        (Batch(XS, YS, weights=np.zeros(3)), "weights are all 0"),
        (Batch(NAN, YS), r"mine.xs has 1 values that are NaN.*\(1, 2, 0\)"),
        (Batch(XS, np.full_like(YS, np.inf)), "mine.ys has 12 values that are NaN or infinite"),
    ],
)
def test_check_batch_says_what_is_wrong(batch, message):
    with pytest.raises(ValueError, match=message):
        check_batch(batch, name="mine")


def test_check_batch_passes_what_is_right_and_looks_at_shapes_inside_a_trace():
    check_batch(Batch(XS, YS, np.ones((3, 4)), np.ones(3)))
    check_batch(Batch(np.zeros((3, 4), int), np.zeros(3, int)))
    check_batch(Batch(jnp.asarray(XS, jnp.bfloat16), jnp.asarray(YS, jnp.bfloat16)))

    def traced(xs, mask):
        check_batch(Batch(xs, YS, mask))
        return xs

    jax.jit(traced)(NAN, np.zeros((3, 4)))  # values are unknown inside a trace: no error
    with pytest.raises(ValueError, match="mask must be"):
        jax.jit(traced)(XS, np.ones((3, 3)))


def test_rows_print_their_shapes_and_no_numbers():
    batch = Batch(np.ones((5, 4, 1), np.float32), np.ones((5, 1), np.float32), np.ones((5, 4)))
    text = "Batch(xs=float32[5, 4, 1], ys=float32[5, 1], mask=float64[5, 4])"
    assert repr(batch) == text
    seen = []
    jax.jit(lambda xs: seen.append(repr(Batch(xs, None))))(batch.xs)
    assert seen == ["Batch(xs=float32[5, 4, 1])"]
    split = Split(batch, test={"later": batch}, target_times=np.zeros((5, 2), "datetime64[D]"))
    lines = [
        "Split(",
        f"  train={text},",
        "  target_times=datetime64[D][5, 2],",
        f"  test['later']={text},",
        ")",
    ]
    assert repr(split).splitlines() == lines
