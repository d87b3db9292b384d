"""Folds that are blocks of time, folds that go forward in time, and folds of whole groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnreg._checks import check_count, described
from rnnreg._signatures import typed, typed_with
from rnnreg.data import Split, check_span, check_target_times, shown, widened


@typed_with(num_folds="Call it first: folds=blocked_folds(5).")
def blocked_folds(
    num_folds: int, *, embargo: Any = 0
) -> Callable[[Split], list[tuple[np.ndarray, np.ndarray]]]:
    """K blocks of consecutive target times; each validates once, and the rest trains.

    A training row with any target between the first and the last target of the validation block is
    left out (with a target at every step that purges a window's rows on either side). Inputs may
    cross the border: at a forecast they are known.

    Args:
      num_folds: K.
      embargo: also leave out training rows with a target within this time of the block: a number in the unit of
        `target_times`; a timedelta of Python, NumPy or pandas if they are dates.

    Returns:
      A function of the split, which must have `target_times`; give it to `sweep(..., folds=…)`.

    Raises:
      ValueError: fewer than two folds, or a negative embargo; of the function: no `target_times`, or an embargo in
        another unit than theirs.
      TypeError: an embargo that is no length of time.

    >>> import rnnreg as rr
    >>> batch, times = rr.data.windows(np.arange(9.0), window=3)
    >>> split = rr.Split(batch, target_times=times)
    >>> [(len(train), val.tolist()) for train, val in blocked_folds(3, embargo=1)(split)]
    [(3, [0, 1]), (2, [2, 3]), (3, [4, 5])]

    The same by dates:

    >>> days = np.datetime64("2024-03-01") + np.arange(9)
    >>> dated = rr.Split(batch, target_times=rr.data.windows(np.arange(9.0), window=3, times=days)[1])
    >>> [len(train) for train, _ in blocked_folds(3, embargo=np.timedelta64(1, "D"))(dated)]
    [3, 2, 3]
    """
    check_count(num_folds, "num_folds", least=2, hint="A sweep takes folds=blocked_folds(5).")
    check_span(embargo, "embargo")

    def split_rows(split: Split) -> list[tuple[np.ndarray, np.ndarray]]:
        first, last = _times(split, "blocked_folds")
        slack = _slack(first, last)
        order = np.argsort(last, kind="stable")
        if len(order) < num_folds:
            raise ValueError(f"{num_folds} folds need at least as many rows; got {len(order)}.")
        pairs = []
        for block in np.array_split(order, num_folds):
            start, stop = widened(first[block].min(), last[block].max(), embargo, "embargo")
            apart = (last < start - slack) | (first > stop + slack)
            pairs.append((np.flatnonzero(apart), np.sort(block)))
        return pairs

    return split_rows


@typed_with(num_folds="Call it first: folds=rolling_origin(5, horizon=10).")
def rolling_origin(
    num_folds: int, *, horizon: Any, initial: Any = None, window: Any = None, gap: Any = 0
) -> Callable[[Split], list[tuple[np.ndarray, np.ndarray]]]:
    """Forecasts from K origins in turn: each fold trains on the past of its origin and validates on what follows.

        train:     (o_k − gap − window, o_k − gap]        validate:     (o_k, o_k + horizon]

    The origins o_k are one horizon apart. A row belongs to an interval if all its targets lie inside it, so every
    training target of a fold lies before all its validation targets. Inputs may cross the origin: at a forecast they
    are known. Times are those of the targets, in the unit of `target_times`; rows may come in any order.

    Args:
      num_folds: K.
      horizon: length of each validation interval: a number in the unit of `target_times`; a timedelta of Python, NumPy
        or pandas if they are dates.
      initial: length from the first target time to the first origin. None places the origins at the end, so that the
        last interval ends with the last target.
      window: length of the training interval, which then rolls; None trains on all of the past, which expands.
      gap: length that is left out between the training interval and the origin.

    Returns:
      A function of the split, which must have `target_times`; give it to `sweep(..., folds=…)`.

    Raises:
      ValueError: no fold, or a horizon or window that is not positive; of the function: no `target_times`, lengths in
        another unit than theirs, or an origin with no rows to train on or to validate on.
      TypeError: what is no length of time.

    Source: Tashman 2000, Out-of-sample tests of forecasting accuracy.

    >>> import rnnreg as rr
    >>> batch, times = rr.data.windows(np.arange(10.0), window=2)
    >>> split = rr.Split(batch, target_times=times)  # eight rows with targets 2 … 9
    >>> for train, validation in rolling_origin(2, horizon=2, gap=1)(split):
    ...     print(times[train, 0].astype(int), times[validation, 0].astype(int))
    [2 3 4] [6 7]
    [2 3 4 5 6] [8 9]
    """
    check_count(num_folds, "num_folds")
    lengths = {"horizon": horizon, "initial": initial, "window": window, "gap": gap}
    for name, value in lengths.items():
        if value is not None:
            check_span(value, name)
        if name in ("horizon", "window") and value is not None and not value:
            raise ValueError(f"{name} must be longer than 0; got {value!r}.")

    def split_rows(split: Split) -> list[tuple[np.ndarray, np.ndarray]]:
        first, last = _times(split, "rolling_origin")
        slack = _slack(first, last)
        later = lambda time, name: widened(time, time, lengths[name], name)[1]  # noqa: E731
        earlier = lambda time, name: widened(time, time, lengths[name], name)[0]  # noqa: E731
        origin = last.max() if initial is None else later(first.min(), "initial")
        for _ in range(num_folds if initial is None else 0):
            origin = earlier(origin, "horizon")
        pairs = []
        for number in range(num_folds):
            end = later(origin, "horizon")
            stop = earlier(origin, "gap")
            trains = last <= stop + slack
            if window is not None:
                trains &= first > earlier(stop, "window") + slack
            validates = (first > origin + slack) & (last <= end + slack)
            for side, rows in (("train", trains), ("validate", validates)):
                if not rows.any():
                    raise ValueError(
                        f"fold {number} of rolling_origin, with the origin {shown(origin)}, has no row to {side} on: "
                        f"the targets go from {shown(first.min())} to {shown(last.max())}. Use fewer folds, another "
                        "horizon or initial, or a smaller gap."
                    )
            pairs.append((np.flatnonzero(trains), np.flatnonzero(validates)))
            origin = end
        return pairs

    return split_rows


@dataclasses.dataclass(frozen=True)
class Grouped:
    """A scikit-learn splitter with the groups of the rows; called with a split, it returns the folds.

    Attributes:
      splitter: what has `split(X, y, groups)`.
      groups: `[N]`, the group of each training row.
    """

    splitter: Any
    groups: np.ndarray

    def __call__(self, split: Split) -> list[tuple[np.ndarray, np.ndarray]]:
        ys = np.asarray(split.train.ys)
        if len(self.groups) != len(ys):
            raise ValueError(
                f"groups must name the group of each of the {len(ys)} training rows; got {len(self.groups)}."
            )
        name = type(self.splitter).__name__
        try:
            found = self.splitter.split(
                np.zeros((len(ys), 1)), ys if ys.ndim == 1 else None, self.groups
            )
            return list(found)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name} cannot split these rows by their {len(np.unique(self.groups))} groups: {error}"
            ) from error

    def take(self, rows: np.ndarray) -> Grouped:
        """The same for some of the rows."""
        return Grouped(self.splitter, self.groups[rows])


@typed
def grouped(splitter: Any, groups: Any) -> Grouped:
    """Folds of whole groups, such as subjects: no group both trains and validates.

    Args:
      splitter: a scikit-learn splitter that looks at groups: `GroupKFold`, `LeaveOneGroupOut`, `GroupShuffleSplit`, or
        `StratifiedGroupKFold` for class targets `[N]`.
      groups: `[N]`, numbers or texts that name the group of each training row.

    Returns:
      A function of the split; give it to `sweep(..., folds=…)`.

    Raises:
      ValueError: no splitter, or groups that are no list of labels; of the function: another number of groups than
        rows, or fewer groups than folds.

    >>> import rnnreg as rr
    >>> from sklearn.model_selection import GroupKFold
    >>> split = rr.Split(rr.Batch(np.ones((4, 3, 1)), np.ones((4, 1))))
    >>> [val.tolist() for _, val in grouped(GroupKFold(2), ["ann", "bob", "bob", "ann"])(split)]
    [[1, 2], [0, 3]]
    """
    if not callable(getattr(splitter, "split", None)):
        raise ValueError(
            f"splitter must be a scikit-learn splitter, such as GroupKFold(5); got {described(splitter)}."
        )
    labels = np.asarray(groups) if np.iterable(groups) else np.zeros(())
    if labels.ndim != 1 or labels.dtype.kind not in "iufbUSO" or isinstance(groups, (str, bytes)):
        raise ValueError(
            f"groups must be a list with the group of each training row; got {described(groups)}."
        )
    return Grouped(splitter, labels)


def _times(split: Split, who: str) -> tuple[np.ndarray, np.ndarray]:
    if split.target_times is None:
        raise ValueError(
            f"{who} needs Split.target_times, the [N, 2] first and last target time of each row; "
            "rr.data.windows returns them."
        )
    return check_target_times(split.target_times, len(split.train.ys))


def _slack(first: np.ndarray, last: np.ndarray) -> Any:
    """How far two times may lie apart and be the same: sums of times such as .1 are rounded."""
    times = np.unique(np.concatenate([first, last]))
    if times.dtype.kind != "f" or len(times) < 2:
        return 0
    return 1e-6 * float(np.diff(times).min())
