"""Folds that are blocks of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rnnreg._checks import check_count
from rnnreg._signatures import typed_with
from rnnreg.data import Split, check_span, check_target_times, widened


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
        if split.target_times is None:
            raise ValueError(
                "blocked_folds needs Split.target_times, the [N, 2] first and last target time of each row; "
                "rr.data.windows returns them."
            )
        first, last = check_target_times(split.target_times, len(split.train.ys))
        order = np.argsort(last, kind="stable")
        if len(order) < num_folds:
            raise ValueError(f"{num_folds} folds need at least as many rows; got {len(order)}.")
        pairs = []
        for block in np.array_split(order, num_folds):
            start, stop = widened(first[block].min(), last[block].max(), embargo, "embargo")
            pairs.append((np.flatnonzero((last < start) | (first > stop)), np.sort(block)))
        return pairs

    return split_rows
