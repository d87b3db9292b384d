"""Times of a series: numbers or dates, spans between them, and which steps of a regular clock are missing."""

from __future__ import annotations

import datetime
import re
from numbers import Real
from typing import Any, NamedTuple

import numpy as np


def as_times(times: Any, name: str = "times") -> np.ndarray:
    """Times as float64, `datetime64` or `timedelta64`, of the shape that they came in.

    Dates with a time zone become UTC, so that a change to summer time is no gap; a period becomes its start.

    Raises:
      ValueError: strings, mixed kinds, or a time that is missing.

    >>> as_times([datetime.date(2020, 1, 31), datetime.date(2020, 2, 29)]).tolist()
    [datetime.date(2020, 1, 31), datetime.date(2020, 2, 29)]
    """
    plain = np.asarray(_without_zone(times))
    if plain.dtype.kind == "O" and plain.size:
        import pandas as pd

        values = plain.ravel().tolist()
        dates = pd.api.types.infer_dtype(values) == "date"  # pandas keeps them as objects
        flat = np.array(values, "datetime64[D]") if dates else _without_zone(pd.Index(values))
        plain = np.asarray(flat).reshape(plain.shape)
    if plain.dtype.kind not in "iufMm":
        raise ValueError(
            f"{name} must be numbers or dates; got {plain.dtype} such as {plain.ravel()[:1].tolist()}. Turn strings "
            "into dates with pandas.to_datetime."
        )
    plain = plain if plain.dtype.kind in "Mm" else plain.astype(np.float64)
    missing = ~(np.isfinite(plain))  # NaT is not finite either
    if missing.any():
        raise ValueError(
            f"{name} has {int(missing.sum())} entries that are missing or infinite, the first at "
            f"{tuple(int(i) for i in np.argwhere(missing)[0])}; drop those rows, or fill in their times."
        )
    return plain


def _without_zone(times: Any) -> Any:
    """The times of a pandas object without time zones and periods; anything else as it is."""
    if type(times).__module__.split(".")[0] != "pandas":
        return times
    import pandas as pd

    if isinstance(times, pd.DataFrame):
        return np.stack([np.asarray(_without_zone(times[one])) for one in times], axis=1)
    index = pd.Index(times)
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex) and index.tz is not None:
        index = index.tz_convert(None)
    return index.to_numpy()


def shown(time: Any) -> str:
    """A time in a message, without a clock at midnight and zeros after the point.

    >>> shown(np.datetime64("2020-03-01T00:00:00.000000")), shown(np.float64(20))
    ('2020-03-01', '20')
    """
    return re.sub(r"(T00:00:00)?(\.0+)?$", "", str(time))


def check_span(value: Any, name: str) -> None:
    """Raises if a value is no length of time: a number, or a timedelta of Python, NumPy or pandas; 0 or longer.

    >>> check_span(np.timedelta64(5, "D"), "embargo")
    >>> check_span("5D", "embargo")
    Traceback (most recent call last):
    TypeError: embargo must be a number or a timedelta, such as np.timedelta64(5, 'D'); got '5D'.
    """
    kinds = (Real, datetime.timedelta, np.timedelta64)
    if isinstance(value, (bool, np.bool)) or not isinstance(value, kinds):
        raise TypeError(
            f"{name} must be a number or a timedelta, such as np.timedelta64(5, 'D'); got {value!r}."
        )
    span = _plain_span(value)
    if not np.isfinite(span):
        raise ValueError(f"{name} must be finite; got {value!r}.")
    if span < 0:
        raise ValueError(f"{name} must not be negative; got {value!r}.")


def _plain_span(value: Any) -> Any:
    """A timedelta as NumPy's; a number as it is."""
    if isinstance(value, Real) and not isinstance(value, np.timedelta64):
        return value
    return value.to_timedelta64() if hasattr(value, "to_timedelta64") else np.timedelta64(value)


def widened(first: Any, last: Any, span: Any, name: str) -> tuple[Any, Any]:
    """`(first − span, last + span)`, in the unit of the times.

    Raises:
      ValueError: a bare number beside dates, a timedelta beside numbers, or months beside days.

    >>> day = np.datetime64("2020-03-01")
    >>> [str(end) for end in widened(day, day, np.timedelta64(1, "D"), "embargo")]
    ['2020-02-29', '2020-03-02']
    """
    dates, span = np.asarray(first).dtype.kind in "Mm", _plain_span(span)
    if not isinstance(span, np.timedelta64) and not dates:
        return first - span, last + span
    if not isinstance(span, np.timedelta64):
        if span == 0:
            return first, last
        raise ValueError(
            f"{name}={span!r} is a bare number, and the times are dates ({shown(first)}): say which unit counts, such "
            f"as {name}=np.timedelta64({span:g}, 'D') for days."
        )
    if not dates:
        raise ValueError(
            f"{name} is a timedelta ({span}), and the times are numbers ({first:g}): give {name} as a number in their "
            "unit, or dates as times."
        )
    try:
        return first - span, last + span
    except TypeError as error:
        raise ValueError(
            f"{name} is {span}, which has no fixed length next to times such as {shown(first)}: give it in days, such "
            f"as {name}=np.timedelta64(31, 'D')."
        ) from error


def check_target_times(target_times: Any, num_rows: int | None = None) -> tuple[Any, Any]:
    """The first and the last target time of each row, `[N]` each.

    Raises:
      ValueError: another shape, a time that is missing, or a last time before the first.
    """
    times = as_times(target_times, "target_times")
    wanted = (len(times) if times.ndim else 0) if num_rows is None else num_rows
    if times.shape != (wanted, 2):
        raise ValueError(
            f"target_times must be [N, 2] = {(wanted, 2)}, the first and the last target time of each row; got shape "
            f"{times.shape}. With one target a row: np.stack([times, times], axis=1)."
        )
    first, last = times.T
    if (last < first).any():
        row = int(np.argmax(last < first))
        raise ValueError(
            f"target_times of row {row} end before they start: {shown(first[row])} to {shown(last[row])}; put the "
            "earlier one first."
        )
    return first, last


class Clock(NamedTuple):
    """Where times stand on a clock of equal steps.

    Attributes:
      places: `[S]` whole numbers, from 0; two neighbours differ by 1 unless steps are missing between them.
      step: the length of a step, in words.
    """

    places: np.ndarray
    step: str

    @property
    def gaps(self) -> np.ndarray:
        """The numbers of the times after which steps are missing."""
        return np.flatnonzero(np.diff(self.places) > 1)


def clock_of(times: Any, plain: np.ndarray) -> Clock:
    """The clock of rising times: a step is what the shortest steps have in common, give or take a half.

    Dates may follow a calendar instead, in which one step is a period of pandas, a month of 28 to 31 days (or several),
    or a working day if no time lies on a weekend.

    Args:
      times: as the user gave them.
      plain: `[S]`, the same from `as_times`.

    Returns:
      The clock.

    Raises:
      ValueError: times that do not rise, or that follow no regular step.

    >>> clock_of(None, np.array([0.0, 1.1, 2.0, 5.0])).places.tolist()
    [0, 1, 2, 5]
    >>> clock_of(None, np.array(["2020-01-31", "2020-02-29", "2020-04-30"], "datetime64[D]"))
    Clock(places=array([0, 1, 3]), step='1 month')
    """
    if len(plain) < 2:
        return Clock(np.arange(len(plain)), "1")
    steps = np.diff(plain).astype(np.float64)
    _check_rising(plain, steps)
    elapsed = _clock(steps, _in_words(plain))
    if not elapsed.gaps.size:
        return elapsed
    calendars = _calendars(times, plain)
    found = next((one for one in calendars if not one.gaps.size), (calendars or [elapsed])[0])
    regular = 1 - found.gaps.size / len(steps)
    if regular < 0.1:
        raise ValueError(
            f"the times follow no regular step: {regular:.0%} of them follow the one before within {found.step}, the "
            "shortest. Resample the series, or number the observations (times=np.arange(len(series))) and give the "
            "time between them as a feature."
        )
    return found


def _clock(steps: np.ndarray, in_words: Any) -> Clock:
    step = float(np.median(steps[steps < 1.5 * steps.min()]))
    counts = np.maximum(np.rint(steps / step), 1).astype(np.int64)
    return Clock(np.concatenate([[0], np.cumsum(counts)]), in_words(step))


def _in_words(plain: np.ndarray) -> Any:
    """How the length of a step is written: dates in days and hours, numbers as they are."""
    if plain.dtype.kind == "f":
        return lambda step: f"{step:g}"
    unit, size = np.datetime_data(plain.dtype)
    if unit in "YM":
        return lambda step: f"{step * size:g} {'years' if unit == 'Y' else 'months'}"
    second = np.timedelta64(1, "s") / np.timedelta64(size, unit)
    return lambda step: str(datetime.timedelta(seconds=step / second))


def _calendars(times: Any, plain: np.ndarray) -> list[Clock]:
    """The clocks of the calendars that dates may follow; [] for numbers."""
    import pandas as pd

    if plain.dtype.kind != "M":
        return []
    if isinstance(times, pd.Series):
        times = pd.Index(times)
    if isinstance(times, pd.PeriodIndex):
        return [_clock(np.diff(times.asi8).astype(np.float64), lambda step: f"{step:g} period(s)")]
    found = []
    days = plain.astype("datetime64[D]")
    shortest = np.diff(days).astype(np.int64).min()
    if isinstance(times, pd.DatetimeIndex) and times.freq is not None:
        found.append(Clock(np.arange(len(plain)), str(times.freqstr)))
    months = np.diff(plain.astype("datetime64[M]").astype(np.int64))
    if shortest >= 28 and (months > 0).all():
        of_month = lambda step: "1 month" if step == 1 else f"{step:g} months"  # noqa: E731
        found.append(_clock(months.astype(np.float64), of_month))
    if shortest >= 1 and np.is_busday(days).all():
        working = np.busday_count(days[:-1], days[1:]).astype(np.float64)
        found.append(_clock(working, lambda step: f"{step:g} working day(s)"))
    return found


def _check_rising(plain: np.ndarray, steps: np.ndarray) -> None:
    """Raises at the first time that does not lie after the one before."""
    if (steps > 0).all():
        return
    place = int(np.argmax(steps <= 0))
    here = f"{shown(plain[place + 1])} comes after {shown(plain[place])} (place {place + 1})"
    if (steps < 0).all():
        raise ValueError(
            f"times must rise, and they fall: {here}, so that inputs would lie after their target. Reverse both: "
            "series[::-1] and times[::-1]."
        )
    if steps[place] == 0:
        raise ValueError(
            f"times must rise, and some are repeated: {here}. Average or drop the doubles; if a table holds several "
            "series, cut each into windows by itself."
        )
    raise ValueError(
        f"times must rise: {here}. Sort both: order = np.argsort(times); series[order] and times[order]."
    )
