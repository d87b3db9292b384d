"""Folds: pairs of row numbers stacked for one program, the split of one fold, and leaks between their sides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from rnnreg._checks import warn_caller
from rnnreg._signatures import typed
from rnnreg.data._records import Fold, Scaling, Split
from rnnreg.data._rows import row_numbers, take_rows
from rnnreg.data._scaling import fit_scaling
from rnnreg.data._times import check_target_times


@typed
def stack_folds(
    pairs: Iterable[tuple[Any, Any]], split: Split, *, include_all: bool = False
) -> tuple[Fold, list[str]]:
    """(training rows, validation rows) pairs as one `Fold` with a leading axis, and the folds' labels.

    Shorter lists are padded with weight 0, so that all folds run in one compiled program.

    Two leaks are warned of: a training row that shares target times with a validation row, and overlapping windows that
    are dealt out in small pieces, as by `KFold(shuffle=True)`, so that a training row's inputs hold its neighbours'
    targets.

    Args:
      pairs: what a scikit-learn splitter's `split` yields, or one such pair; row numbers, or masks `[N]` of booleans.
      split: whose training rows are meant; a standardised split gets a scaling for each fold.
      include_all: add the fold "all", which trains on every row and validates on none.

    Returns:
      The folds, and their labels "0" … and "all".

    Raises:
      ValueError: no folds, or no pairs of row numbers; a fold with nothing to train or validate on; a row outside the
        data; a row on both sides.

    >>> from rnnreg.data import windows
    >>> split = Split(windows(np.arange(6.0), window=2)[0])
    >>> folds, labels = stack_folds([([0, 1], [2]), ([3], [0, 1])], split, include_all=True)
    >>> labels, folds.train_weights.tolist()
    (['0', '1', 'all'], [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    """
    num_rows = len(split.train.ys)
    pairs = as_pairs(pairs, num_rows)
    _check_pairs(pairs)
    _warn_of_leaks(pairs, split)
    labels = [str(index) for index in range(len(pairs))]
    epoch_rows = max(len(train) for train, _ in pairs)
    if include_all:
        pairs = [*pairs, (np.arange(num_rows), np.arange(0))]
        labels.append("all")

    train_rows, train_weights = _padded([train for train, _ in pairs])
    validation_rows, validation_weights = _padded([val for _, val in pairs])
    scaling = None
    if split.units is not None:
        fitted = [fit_scaling(split.train, rows=train) for train, _ in pairs]
        if include_all:  # the arrays are standardised on all rows already
            fitted[-1] = Scaling(*(_identity(k, v) for k, v in fitted[-1]._asdict().items()))
        dtype = np.asarray(split.train.xs).dtype
        dtype = dtype if np.issubdtype(dtype, np.floating) else np.float32
        scaling = Scaling(*(np.stack(field).astype(dtype) for field in zip(*fitted, strict=True)))
    fold = Fold(train_rows, train_weights, validation_rows, validation_weights, scaling, epoch_rows)
    return fold, labels


def as_pairs(given: Any, num_rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of row numbers; a lone pair is a list of one."""
    pairs = list(given)
    if not pairs:
        raise ValueError(
            "folds is empty; expected at least one (train_rows, validation_rows) pair."
        )
    if len(pairs) == 2 and all(np.ndim(side[0]) == 0 for side in map(_listed, pairs) if len(side)):
        pairs = [tuple(pairs)]
    return [
        tuple(row_numbers(side, num_rows, f"fold {index}") for side in _two(pair, index))  # type: ignore[misc]
        for index, pair in enumerate(pairs)
    ]


def _listed(side: Any) -> Any:
    return side if isinstance(side, np.ndarray) else list(side) if np.iterable(side) else [side]


def _two(pair: Any, index: int) -> Any:
    if np.iterable(pair) and len(_listed(pair)) == 2:
        return pair
    raise ValueError(
        f"fold {index} must be a pair (train_rows, validation_rows); got {pair!r}. For blocks of time: "
        "rr.selection.blocked_folds(5)."
    )


def _check_pairs(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Raises if a side is empty, or shares a row with the other side."""
    for index, (train, val) in enumerate(pairs):
        if train.size == 0 or val.size == 0:
            side = "train" if train.size == 0 else "validate"
            raise ValueError(
                f"fold {index} leaves nothing to {side} on (got {train.size} training and {val.size} "
                "validation rows); use fewer folds, a shorter window or a smaller embargo."
            )
        if np.intersect1d(train, val).size:
            raise ValueError(
                f"fold {index} has rows {np.intersect1d(train, val)[:5].tolist()} on both sides; a row "
                "may train or validate, not both."
            )


def _warn_of_leaks(pairs: list[tuple[np.ndarray, np.ndarray]], split: Split) -> None:
    """Warns, once, of a fold in which training rows know targets of validation rows."""
    num_rows, times = len(split.train.ys), None
    order = np.arange(num_rows)
    if split.target_times is not None:
        times = check_target_times(split.target_times, num_rows)
        order = np.argsort(times[1], kind="stable")
        for index, (train, val) in enumerate(pairs):
            shared = _overlap(*(end[train] for end in times), *(end[val] for end in times))
            if shared.any():
                warn_caller(
                    f"fold {index}: {int(shared.sum())} training rows share target times with "
                    "validation rows, so the score is too good; use rr.selection.blocked_folds, which leaves "
                    "them out."
                )
                return
    window = _overlapping_steps(split.train.xs, order)
    for index, (train, val) in enumerate(pairs):
        pieces = _pieces(order, train, val)
        if pieces > 1 and len(val) / pieces < window:
            warn_caller(
                f"fold {index}: the rows are overlapping windows of {window} steps, and the {len(val)} validation rows "
                f"lie in {pieces} pieces between training rows, whose inputs hold their targets, so the score is too "
                "good; "
                "validate on blocks of time, folds=rr.selection.blocked_folds(K), or on unshuffled rows, KFold(K)."
            )
            return


def _overlap(first: Any, last: Any, other_first: Any, other_last: Any) -> np.ndarray:
    """Which intervals `[first, last]` meet one of the others: the latest end of those that start in time reaches back.

    >>> _overlap(np.array([0, 5]), np.array([2, 6]), np.array([9, 3]), np.array([9, 5])).tolist()
    [False, True]
    """
    order = np.argsort(other_first, kind="stable")
    latest = np.maximum.accumulate(other_last[order])
    started = np.searchsorted(other_first[order], last, side="right")
    return (started > 0) & (latest[np.maximum(started, 1) - 1] >= first)


def _overlapping_steps(xs: Any, order: np.ndarray, *, looked_at: int = 64) -> int:
    """T, if most rows hold the row before them moved by the same number of steps, at most half of T; else 0."""
    num_steps, rows = xs.shape[1], order[:looked_at]
    seen = np.asarray(xs[rows])
    if len(rows) < 3 or num_steps < 2 or (seen == seen[:1, :1]).all():
        return 0
    for stride in range(1, num_steps // 2 + 1):
        same = (seen[1:, :-stride] == seen[:-1, stride:]).reshape(len(rows) - 1, -1).all(axis=1)
        if same.mean() > 0.5:
            return num_steps
    return 0


def _pieces(order: np.ndarray, train: np.ndarray, val: np.ndarray) -> int:
    """Into how many pieces the training rows cut the validation rows, in the order of time."""
    side = np.zeros(len(order), int)
    side[train], side[val] = 1, 2
    side = side[order]
    side = side[side > 0]
    return int(np.sum((side == 2) & (np.concatenate([[0], side[:-1]]) != 2)))


def _identity(name, values):
    return np.zeros_like(values) if name.endswith("shift") else np.ones_like(values)


def _padded(rows):
    longest = max(map(len, rows))
    padded = np.stack([np.resize(r, longest) if len(r) else np.zeros(longest, int) for r in rows])
    weights = np.stack([np.arange(longest) < len(r) for r in rows])
    return padded.astype(np.int32), weights.astype(np.float32)


@typed
def take_fold(split: Split, fold: Fold | None) -> Split:
    """The split that one fold trains and validates on.

    Args:
      split: whose training rows are cut.
      fold: without its leading axis; None leaves the split as it is.

    Returns:
      A split with training and validation rows, and the fold's own scaling.

    >>> from rnnreg.data import windows
    >>> split = Split(windows(np.arange(6.0), window=2)[0])
    >>> folds, labels = stack_folds([([0, 1], [2]), ([2, 3], [0, 1])], split)
    >>> import jax
    >>> first = take_fold(split, jax.tree.map(lambda leaf: leaf[0], folds))
    >>> labels, first.train.ys[:, 0].tolist(), first.validation.weights.tolist()
    (['0', '1'], [2.0, 3.0], [1.0, 0.0])
    """
    if fold is None:
        return split
    return split.replace(
        train=take_rows(split.train, fold.train_rows, weights=fold.train_weights),
        validation=take_rows(split.train, fold.validation_rows, weights=fold.validation_weights),
        scaling=fold.scaling,
        epoch_rows=fold.epoch_rows,
        target_times=None,  # those of all rows
    )
