"""Windows of a series, and masks of sequences of unequal lengths."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnreg._arrays import as_array
from rnnreg._checks import check_choice, is_count
from rnnreg._memory import check_fits
from rnnreg._signatures import Numbers, typed
from rnnreg.data._records import Batch
from rnnreg.data._times import as_times, clock_of, shown


@typed
def lengths_to_mask(lengths: Numbers, num_steps: int) -> np.ndarray:
    """The mask `[N, T]` of sequences of the given true lengths.

    Args:
      lengths: `[N]` true steps of each sequence.
      num_steps: T, the steps of the padded arrays.

    Returns:
      float32 `[N, T]`, 1 where a step is true.

    Raises:
      ValueError: a length is negative or beyond `num_steps`.

    >>> lengths_to_mask([1, 3], num_steps=3).astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    lengths = np.asarray(lengths)
    if lengths.ndim != 1:
        raise ValueError(
            f"lengths must be one number a sequence, shape [N]; got shape {lengths.shape}."
        )
    if lengths.size and lengths.dtype.kind not in "iu" and (lengths != np.floor(lengths)).any():
        raise ValueError(f"every length must be a whole number; got {lengths.tolist()[:6]}.")
    if lengths.size and (lengths.min() < 0 or lengths.max() > num_steps):
        worst = lengths.max() if lengths.max() > num_steps else lengths.min()
        raise ValueError(
            f"every length must lie between 0 and num_steps={num_steps}; got {worst}. "
            "Cut the sequence, or pad all of them to a longer num_steps."
        )
    what, hint = f"a mask of {len(lengths)} × {num_steps} steps", "Take a smaller num_steps."
    check_fits((8 + 5 * len(lengths)) * int(num_steps), what, hint)
    return (np.arange(num_steps)[None, :] < lengths[:, None]).astype(np.float32)


@typed
def windows(
    series: Any,
    window: int,
    *,
    times: Any = None,
    targets: str = "last",
    horizon: int = 1,
    gaps: str = "error",
) -> tuple[Batch, np.ndarray]:
    """Sliding windows of a series, each with the value (or values) that follow.

    Row i sees `series[i : i + window]`. With `targets="last"` its target is the value `horizon` steps
    after the window's end; with `targets="all"` each step has the value `horizon` steps after it.

    Times are checked: they have to rise, and to follow a clock. A step is what the shortest steps have in common. So a
    little jitter is no gap, nor are months of 28 to 31 days, weekends in a series of working days, or a change to
    summer time. A step is missing if no time stands there, or if its value is NaN. Windows slide over the clock: a lag
    of three is three steps of it, whether or not there are values at all of them.

    Args:
      series: `[S]` or `[S, D]`; a pandas object brings its own dates as times, if they are its index.
      window: T, the number of steps that a row sees.
      times: `[S]` time of each value: numbers, or dates of NumPy, Python or pandas; default 0 … S−1.
      targets: "last" gives ys `[N, D]`, "all" gives ys `[N, T, D]`.
      horizon: how many steps ahead the target lies.
      gaps: what happens if steps are missing. "error" raises. "drop" leaves out every row that misses an input or a
        target. "mask" masks missing inputs; a row has to have its last input and its target, or with `targets="all"`
        some input with a target (`weights` `[N, T]` is 0 at the others).

    Returns:
      The batch, and `[N, 2]` first and last target time of each row, numbers or `datetime64`.

    Raises:
      ValueError: a series that has no such window; times of another length, or that fall, repeat or are missing; steps
        that are missing, unless `gaps` says what to do.

    >>> batch, target_times = windows(np.arange(6.0), window=3)
    >>> batch.xs[:, :, 0].tolist(), batch.ys[:, 0].tolist(), target_times[:, 1].tolist()
    ([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]], [3.0, 4.0, 5.0], [3.0, 4.0, 5.0])

    The value of 4 March is missing:

    >>> days = np.array(["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-05", "2024-03-06"], "datetime64[D]")
    >>> batch, target_times = windows([1.0, 2.0, 3.0, 5.0, 6.0], window=2, times=days, gaps="drop")
    >>> batch.xs[:, :, 0].tolist(), target_times[:, 1].astype(str).tolist()
    ([[1.0, 2.0]], ['2024-03-03'])
    >>> batch, _ = windows([1.0, 2.0, 3.0, 5.0, 6.0], window=2, times=days, gaps="mask")
    >>> batch.xs[:, :, 0].tolist(), batch.mask.tolist(), batch.ys[:, 0].tolist()
    ([[1.0, 2.0], [0.0, 5.0]], [[1.0, 1.0], [0.0, 1.0]], [3.0, 6.0])

    A text is cut in the same way. Its tokens become whole numbers without an axis of features, as an embedding reads
    them, and each has the next one as its target:

    >>> letters, tokens = np.unique(list("banana"), return_inverse=True)
    >>> batch, _ = windows(tokens, window=3, targets="all")
    >>> batch = Batch(*(tokens[..., 0].astype(int) for tokens in batch[:2]))
    >>> batch.xs.tolist(), batch.ys[0].tolist()
    ([[1, 0, 2], [0, 2, 0], [2, 0, 2]], [0, 2, 0])
    """
    check_choice(targets, "targets", ("last", "all"))
    check_choice(gaps, "gaps", ("error", "drop", "mask"))
    times = _own_times(series) if times is None else times
    values = _values(series)
    for name, count in (("window", window), ("horizon", horizon)):
        if not is_count(count) or len(values) < window + horizon:
            swapped = len(values) < values.shape[1]
            cure = " Time is the first axis: series.T, if it is transposed." if swapped else ""
            raise ValueError(
                f"a series of {len(values)} values has no window of {window} steps with a target {horizon} ahead: "
                f"{name} must be a whole number of at least 1, and their sum at most the number of values.{cure}"
            )
    on_clock = _on_clock(values, times, longest=window + horizon, gaps=gaps)
    num_rows = len(on_clock.values) - window - horizon + 1
    check_fits(
        num_rows * window * (8 + on_clock.values.shape[1] * on_clock.values.itemsize),
        f"{num_rows} windows of {window} steps",
        "Take a shorter window, or cut the series into parts.",
    )
    steps = np.arange(num_rows)[:, None] + np.arange(window)[None, :]
    aims = steps + horizon if targets == "all" else steps[:, -1:] + horizon
    seen, labelled = on_clock.present[steps], on_clock.present[aims]
    if gaps == "mask":  # [N, T], or [N, 1] with one target a row
        counted = labelled & (seen if targets == "all" else seen[:, -1:])
        kept = counted.any(axis=1)
    else:
        counted = labelled
        kept = labelled.all(axis=1) & seen.all(axis=1)
    if not kept.any():
        raise ValueError(
            f"no window of {window} steps with a target {horizon} ahead is left once gaps={gaps!r} is applied; use a "
            "shorter window, or fill the series."
        )
    steps, aims, seen, labelled, counted = (
        part[kept] for part in (steps, aims, seen, labelled, counted)
    )
    ys = on_clock.values[aims]
    batch = Batch(
        xs=on_clock.values[steps],
        ys=ys if targets == "all" else ys[:, 0],
        mask=None if seen.all() else seen.astype(np.float32),
        weights=None if targets == "last" or labelled.all() else labelled.astype(np.float32),
    )
    rows, last = np.arange(len(aims)), counted.shape[1] - 1 - np.argmax(counted[:, ::-1], axis=1)
    ends = aims[rows, np.argmax(counted, axis=1)], aims[rows, last]
    return batch, np.stack([on_clock.times[end] for end in ends], axis=1)


class _OnClock(NamedTuple):
    """A series with a place for every step of its clock, `[C]`.

    Attributes:
      values: `[C, D]`, 0 where nothing is known.
      times: `[C]`; where a step is missing, that of the value before.
      present: `[C]`, whether there is a value.
    """

    values: np.ndarray
    times: np.ndarray
    present: np.ndarray


def _on_clock(values: np.ndarray, times: Any, *, longest: int, gaps: str) -> _OnClock:
    """The series on its clock; raises if steps are missing and `gaps` is "error".

    A gap of `longest` steps is as good as a longer one: no row reaches across.
    """
    known = ~np.isnan(values).any(axis=1)
    if gaps == "error" and not known.all():
        raise ValueError(
            f"the series has {int((~known).sum())} steps that are NaN, the first at {int(np.argmin(known))}: fill "
            "them, or give gaps='drop' (leave out windows with one) or gaps='mask' (mask them)."
        )
    if times is None:
        marks, places = np.arange(len(values), dtype=float), np.arange(len(values))
    else:
        marks = as_times(times)
        if marks.shape != (len(values),):
            got = len(marks) if marks.ndim == 1 else marks.shape
            raise ValueError(f"times must have one entry a value: {len(values)}; got {got}.")
        clock = clock_of(times, marks)
        if gaps == "error" and clock.gaps.size:
            first = int(clock.gaps[0])
            raise ValueError(
                f"times have gaps ({len(clock.gaps)}): {shown(marks[first + 1])} comes after {shown(marks[first])}, "
                f"and a step is {clock.step}. Give gaps='drop' (leave out windows that touch one), gaps='mask' (mask "
                "the missing steps), or number the observations if none is missing: times=np.arange(len(series))."
            )
        jumps = np.minimum(np.diff(clock.places), longest)
        places = np.concatenate([[0], np.cumsum(jumps)])
    source = np.zeros(places[-1] + 1, int)
    source[places] = np.arange(len(values))
    source = np.maximum.accumulate(source)
    present = np.zeros(len(source), bool)
    present[places] = known
    return _OnClock(np.where(present[:, None], values[source], 0), marks[source], present)


def _values(series: Any) -> np.ndarray:
    """`[S, D]` real numbers; counts are numbers here, not tokens."""
    values = np.asarray(as_array(series, "series"))
    values = values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)
    if values.ndim not in (1, 2):
        raise ValueError(
            f"series must be [S] or [S, D], one series at a time; got shape {values.shape}."
        )
    return values[:, None] if values.ndim == 1 else values


def _own_times(series: Any) -> Any:
    """The index of a pandas object, if it holds dates or periods."""
    if type(series).__module__.split(".")[0] != "pandas":
        return None
    import pandas as pd

    dated = isinstance(series.index, (pd.DatetimeIndex, pd.PeriodIndex))
    return series.index if dated else None
