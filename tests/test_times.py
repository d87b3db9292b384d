"""Times of a series: which are refused, what a gap is, and folds whose unit is a date."""

import datetime

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from small import make

import rnnreg as rr
from rnnreg.data import Batch, Split, stack_folds, windows
from rnnreg.selection import blocked_folds

NUM = 30
SERIES = np.arange(float(NUM))
DAYS = np.datetime64("2024-03-20") + np.arange(NUM)


# ---- which times are times ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "times",
    [
        DAYS,
        DAYS.astype("datetime64[ns]"),
        DAYS.tolist(),
        pd.DatetimeIndex(DAYS),
        pd.Series(DAYS, index=np.arange(NUM) + 7),
        pd.date_range(
            "2024-03-20", periods=NUM, tz="Europe/Berlin"
        ),  # with a change to summer time
        list(pd.date_range("2024-03-20", periods=NUM, tz="Europe/Berlin")),
        [datetime.datetime(2024, 3, 20) + datetime.timedelta(days=k) for k in range(NUM)],
        pd.period_range("2024-03-20", periods=NUM, freq="D"),
    ],
)
def test_dates_of_every_kind_stay_dates(times):
    batch, target_times = windows(SERIES, 4, times=times)
    assert len(batch.xs) == NUM - 4
    assert target_times.dtype.kind == "M"
    distance = np.abs(target_times[:, 1] - DAYS[4:])  # a zone shifts the clock by an hour or two
    assert (distance <= np.timedelta64(2, "h")).all()


@pytest.mark.parametrize(
    "times",
    [
        pd.date_range("2020-01-31", periods=NUM, freq="ME"),  # 28 to 31 days
        pd.date_range("2020-01-31", periods=NUM, freq="ME").to_numpy(),
        pd.date_range("2020-01-01", periods=NUM, freq="QS").to_numpy(),
        pd.date_range("1990-01-01", periods=NUM, freq="YS").to_numpy(),
        np.datetime64("2020-01", "M") + np.arange(NUM),
        pd.bdate_range("2020-01-01", periods=NUM).to_numpy(),
        pd.period_range("2020-01", periods=NUM, freq="Q"),
        pd.timedelta_range("0D", periods=NUM, freq="15min"),
        1700 + np.arange(NUM),
        0.1 * np.arange(NUM) + np.random.default_rng(0).uniform(-0.02, 0.02, NUM),
    ],
)
def test_a_calendar_and_jitter_are_no_gaps(times):
    assert len(windows(SERIES, 4, times=times)[0].xs) == NUM - 4


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (SERIES[::-1], "they fall: 28 comes after 29.*inputs would lie after their target.*Reverse"),
        (DAYS[::-1], "they fall: 2024-04-17 comes after 2024-04-18"),
        (np.repeat(np.arange(15), 2), "some are repeated: 0 comes after 0 .*Average or drop"),
        (np.random.default_rng(0).permutation(NUM), "times must rise: .*np.argsort"),
        (np.where(SERIES == 20, np.nan, SERIES), r"missing or infinite, the first at \(20,\)"),
        (pd.to_datetime(["2020-01-01", None] * 15), r"15 entries that are missing"),
        ([str(day) for day in DAYS], "must be numbers or dates.*pandas.to_datetime"),
        (np.stack([DAYS, DAYS], 1), r"one entry a value: 30; got \(30, 2\)"),
        (np.cumsum(np.random.default_rng(0).exponential(size=NUM)), "follow no regular step.*Resample"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("gaps", ["error", "mask"])
def test_times_that_are_no_clock_are_refused(times, message, gaps):
    with pytest.raises(ValueError, match=message):
        windows(SERIES, 4, times=times, gaps=gaps)


# ---- gaps ----------------------------------------------------------------------------------------------


def _by_hand(series, present, window, horizon, targets, gaps):
    """(inputs, mask, target, weights, target places) of each row, step by step along the clock."""
    rows = []
    for start in range(len(series) - window - horizon + 1):
        seen = range(start, start + window)
        aims = [k + horizon for k in (seen if targets == "all" else [seen[-1]])]
        if gaps == "drop" and not all(present[k] for k in [*seen, *aims]):
            continue
        partners = seen if targets == "all" else [seen[-1]]
        scored = [aim for k, aim in zip(partners, aims, strict=True) if present[k] and present[aim]]
        if not scored:
            continue
        xs = [series[k] if present[k] else 0.0 for k in seen]
        ys = [series[k] if present[k] else 0.0 for k in aims]
        mask, weights = [present[k] for k in seen], [present[k] for k in aims]
        rows.append((xs, mask, ys, weights, (scored[0], scored[-1])))
    return rows


@pytest.mark.parametrize("gaps", ["drop", "mask"])
@pytest.mark.parametrize("targets", ["last", "all"])
@pytest.mark.parametrize("horizon", [1, 2])
@pytest.mark.parametrize("missing", [[5], [5, 6, 7], [3, 9, 10, 20]])
def test_windows_over_gaps_equal_a_walk_along_the_clock(gaps, targets, horizon, missing):
    clock = np.arange(NUM) + 0.5
    present = ~np.isin(np.arange(NUM), missing)
    expected = _by_hand(clock, present, 4, horizon, targets, gaps)
    options = {"targets": targets, "horizon": horizon, "gaps": gaps}
    blank = np.where(present, clock, np.nan)  # missing values, or missing times
    for series, times in ((clock[present], DAYS[present]), (blank, DAYS), (blank, None)):
        batch, target_times = windows(series, 4, times=times, **options)
        assert len(batch.xs) == len(expected)
        for row, (xs, mask, ys, weights, ends) in enumerate(expected):
            np.testing.assert_array_equal(batch.xs[row, :, 0], xs)
            np.testing.assert_array_equal(np.ravel(batch.ys[row]), ys)
            found = np.ones(4) if batch.mask is None else batch.mask[row]
            np.testing.assert_array_equal(found, mask)
            if targets == "all":
                found = np.ones(4) if batch.weights is None else batch.weights[row]
                np.testing.assert_array_equal(found, weights)
            if times is not None:
                np.testing.assert_array_equal(target_times[row], DAYS[list(ends)])


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.delete(np.arange(NUM + 3), [5, 6, 7]), r"gaps \(1\): 8 comes after 4, and a step is 1\."),
        (pd.date_range("2024-01-01", periods=NUM + 1, freq="h").delete(5), "a step is 1:00:00"),
        (pd.date_range("2024-01-31", periods=NUM + 1, freq="ME").delete(5), "a step is 1 month"),
        (pd.period_range("2024-01", periods=NUM + 1, freq="M").delete(5), "2024-07-01 comes after"),
        (pd.bdate_range("2024-01-01", periods=NUM + 1).delete(5), "a step is 1 working day"),
    ],
)  # fmt: skip
def test_a_gap_is_an_error_that_says_where_and_what_to_do(times, message):
    with pytest.raises(ValueError, match=message + ".*gaps='drop'.*gaps='mask'"):
        windows(SERIES, 4, times=times)


def test_a_series_with_missing_values_is_an_error_until_gaps_says_more():
    with pytest.raises(ValueError, match=r"1 steps that are NaN, the first at 3.*gaps='drop'"):
        windows(np.where(SERIES == 3, np.nan, SERIES), 4)
    with pytest.raises(ValueError, match="gaps must be 'error', 'drop' or 'mask'; got 'fill'"):
        windows(SERIES, 4, gaps="fill")
    with pytest.raises(ValueError, match=r"no window of 4 steps .*once gaps='drop' is applied"):
        windows(np.where(np.arange(NUM) % 3, SERIES, np.nan), 4, gaps="drop")


def test_a_long_gap_costs_no_memory():
    """A thousand years between two halves are as good as one window."""
    times = np.concatenate([np.arange(15), 365_000 * 86_400 + np.arange(15)])
    batch, _ = windows(SERIES, 4, times=times, gaps="mask")
    near = np.concatenate([np.arange(15), 30 + np.arange(15)])
    short, _ = windows(SERIES, 4, times=near, gaps="mask")
    np.testing.assert_array_equal(batch.xs, short.xs)


def test_a_pandas_series_brings_its_own_dates():
    table = pd.DataFrame({"a": SERIES, "b": -SERIES}, index=pd.DatetimeIndex(DAYS))
    batch, target_times = windows(table, 4)
    assert batch.xs.shape == (NUM - 4, 4, 2)
    assert target_times[0, 0] == DAYS[4]
    with pytest.raises(ValueError, match="times have gaps"):
        windows(table.drop(table.index[7]), 4)
    nullable = pd.Series([1, None, 2, 3, 4, 5], dtype="Float64")
    assert windows(nullable, 2, gaps="drop")[0].xs[:, :, 0].tolist() == [[2, 3], [3, 4]]


def test_masked_windows_train():
    known = SERIES != 9
    options = {"times": DAYS[known], "targets": "all", "gaps": "mask"}
    batch, _ = windows(np.sin(SERIES)[known], 4, **options)
    assert batch.mask is not None
    assert batch.weights is not None
    run = jax.jit(make(rr.network([rr.cells.elman(4)], 1)))(
        {"l2": 0.0, "learning_rate": 1e-2}, batch, key=jax.random.key(0)
    )
    assert np.isfinite(float(run.metrics["train_loss"]))


# ---- an embargo in time ---------------------------------------------------------------------------------


def _dated(times):
    batch, target_times = windows(SERIES, 4, times=times)
    return Split(batch, target_times=target_times)


def _sizes(split, embargo):
    return [len(train) for train, _ in blocked_folds(3, embargo=embargo)(split)]


@pytest.mark.parametrize("unit", ["D", "s", "us", "ns"])
def test_an_embargo_is_a_length_of_time_in_any_unit(unit):
    dates = _dated(DAYS.astype(f"datetime64[{unit}]"))
    expected = _sizes(_dated(SERIES), 5)
    assert expected != _sizes(_dated(SERIES), 0) == _sizes(dates, 0)
    for embargo in (
        np.timedelta64(5, "D"),
        np.timedelta64(120, "h"),
        datetime.timedelta(days=5),
        pd.Timedelta("5D"),
    ):
        assert _sizes(dates, embargo) == expected


def test_an_embargo_in_months_goes_with_times_in_months():
    months = np.datetime64("2020-01", "M") + np.arange(NUM)
    assert _sizes(_dated(months), np.timedelta64(5, "M")) == _sizes(_dated(SERIES), 5)
    with pytest.raises(ValueError, match=r"5 months, which has no fixed length.*give it in days"):
        _sizes(_dated(DAYS), np.timedelta64(5, "M"))


@pytest.mark.parametrize(
    ("times", "embargo", "error", "message"),
    [
        (DAYS, 5, ValueError, r"bare number.*dates \(2024-03-24\).*np.timedelta64\(5, 'D'\)"),
        (DAYS, 0.5, ValueError, "say which unit counts"),
        (SERIES, np.timedelta64(5, "D"), ValueError, "is a timedelta .5 days.*times are numbers"),
        (SERIES, datetime.timedelta(5), ValueError, "the times are numbers"),
        (DAYS, "5D", TypeError, "must be a number or a timedelta.*got '5D'"),
        (DAYS, True, TypeError, "got True"),
        (DAYS, pd.DateOffset(days=5), TypeError, "must be a number or a timedelta"),
        (DAYS, datetime.timedelta(-1), ValueError, "must not be negative"),
        (DAYS, np.timedelta64("NaT"), ValueError, "must be finite"),
        (SERIES, np.nan, ValueError, "must be finite; got nan"),
    ],
)
def test_an_embargo_of_another_kind_than_the_times_is_refused(times, embargo, error, message):
    with pytest.raises(error, match=message):
        _sizes(_dated(times), embargo)


@pytest.mark.parametrize(
    ("target_times", "message"),
    [
        (np.zeros(NUM - 4), r"must be \[N, 2\] = \(26, 2\).*np.stack"),
        (np.zeros((5, 2)), r"must be \[N, 2\] = \(26, 2\).*got shape \(5, 2\)"),
        (np.full((NUM - 4, 2), np.nan), "target_times has 52 entries that are missing"),
        (np.stack([SERIES[4:], SERIES[:-4]], 1), "row 0 end before they start: 4 to 0"),
    ],
)
def test_target_times_that_are_none_are_refused(target_times, message):
    split = Split(windows(SERIES, 4)[0], target_times=target_times)
    for use in (blocked_folds(3), lambda split: stack_folds([([0], [1])], split)):
        with pytest.raises(ValueError, match=message):
            use(split)


# ---- dates on their way through JAX ----------------------------------------------------------------------


def test_a_split_keeps_its_dates_through_jax():
    split = _dated(DAYS)
    mapped = jax.tree.map(jnp.asarray, split)
    np.testing.assert_array_equal(mapped.target_times, split.target_times)
    traces = []

    @jax.jit
    def total(split):
        traces.append(1)
        return split.train.xs.sum()

    for one in (split, mapped, _dated(DAYS)):  # equal dates, one compilation
        assert float(total(one)) == split.train.xs.sum()
    assert len(traces) == 1
    numbers = _dated(SERIES)
    assert jax.tree.map(lambda leaf: 2 * leaf, numbers).target_times[0, 0] == 8


def test_target_times_may_come_from_a_table():
    table = pd.DataFrame({"first": pd.DatetimeIndex(DAYS[4:]), "last": pd.DatetimeIndex(DAYS[4:])})
    split = Split(windows(SERIES, 4)[0], target_times=table)
    assert split.target_times.dtype.kind == "M"
    assert _sizes(split, np.timedelta64(5, "D")) == _sizes(_dated(SERIES), 5)
    listed = Split(split.train, target_times=[(day, day) for day in DAYS[4:].tolist()])
    np.testing.assert_array_equal(listed.target_times, split.target_times)


@pytest.mark.slow
def test_a_sweep_over_dates_equals_one_over_numbers():
    grid = {"l2": [0.0, 1e-2], "learning_rate": 1e-2}
    found = [
        rr.sweep(make(), grid, _dated(times), folds=blocked_folds(3, embargo=embargo),
                 key=jax.random.key(0), progress=False)
        for times, embargo in ((SERIES, 2), (DAYS, np.timedelta64(2, "D")))
    ]  # fmt: skip
    np.testing.assert_array_equal(*(one.metrics["val_loss"].values for one in found))


def test_dates_are_drawn_as_dates():
    split = _dated(DAYS)
    values = np.asarray(split.train.ys)
    times = split.target_times[:, 1]
    ax = rr.plotting.predicted_series(
        times, values, {"model": values}, spans={"test": (times[-5], times[-1])}
    )
    assert "Date" in type(ax.xaxis.get_major_locator()).__name__


# ---- leaks, found by sorting -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_shared_target_times_equal_all_pairs(seed):
    from rnnreg.data._folds import _overlap

    rng = np.random.default_rng(seed)

    def intervals(num):
        first = rng.integers(0, 60, num)
        return first, first + rng.integers(0, 6, num)

    (first, last), (other_first, other_last) = intervals(40), intervals(6)
    shared = (first[:, None] <= other_last) & (last[:, None] >= other_first)
    found = _overlap(first, last, other_first, other_last)
    np.testing.assert_array_equal(found, shared.any(axis=1))
    assert 0 < found.sum() < 40


def test_the_leak_check_takes_memory_in_proportion_to_the_rows():
    import tracemalloc

    num = 20_000
    batch = Batch(np.zeros((num, 1, 1), np.float32), np.zeros((num, 1), np.float32))
    times = np.stack([np.arange(float(num))] * 2, axis=1)
    split = Split(batch, target_times=times)
    pairs = blocked_folds(5)(split)
    tracemalloc.start()
    stack_folds(pairs, split)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500 * num  # all pairs: more than 3,000 bytes a row
