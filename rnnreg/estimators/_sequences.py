"""From what users of scikit-learn hold to sequences: arrays of two or three axes, and lists of unequal lengths."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnreg._checks import check_count
from rnnreg.data import lengths_to_mask
from rnnreg.estimators._sklearn import check_array, check_X_y, validate_data

_DTYPES: Any = [np.float64, np.float32]


class Sequences(NamedTuple):
    """Rows as a network reads them.

    Attributes:
      xs: `[N, T, D]`.
      mask: `[N, T]`, 1 for a true step; None if all are.
      ys: the targets as they were given, checked; None without.
    """

    xs: np.ndarray
    mask: np.ndarray | None
    ys: Any = None


def read_pairs(estimator: Any, X: Any, y: Any, *, input_size: int, **of_targets: Any) -> Sequences:
    """X and y to fit, checked by scikit-learn; sets `n_features_in_` of the estimator, and the form of X.

    A list of rows `[T]` of one length has the form of a table and of sequences. It is trained on as a table, and the
    estimator remembers that it was a list, so that later lists, a fold of a search say, may have other lengths.

    Args:
      estimator: which is fitted.
      X: `[N, T, D]`; `[N, T · D]`, step by step; or a list of N sequences `[T_i, D]` or `[T_i]`.
      y: targets of N rows.
      input_size: D of an X of two axes, and of sequences `[T_i]`.
      **of_targets: options of scikit-learn's `check_X_y`.

    Returns:
      The sequences, the shorter ones padded with zeros and masked, and the targets.

    Raises:
      ValueError: not such an X or y.
    """
    estimator._table = getattr(X, "ndim", 1) == 2
    X, mask = _padded(X, input_size)
    if getattr(X, "ndim", 2) == 3:
        X, ys = check_X_y(X, y, dtype=_DTYPES, allow_nd=True, **of_targets)
        estimator.n_features_in_ = X.shape[2]
    else:
        X, ys = validate_data(estimator, X, y, dtype=_DTYPES, **of_targets)
        X = _in_steps(X, input_size, "X")
    estimator._step_size = X.shape[2]
    return Sequences(X, mask, ys)


def read_sequences(estimator: Any, X: Any, *, input_size: int) -> Sequences:
    """X to predict from, checked by scikit-learn and against what the estimator was fitted on.

    Args:
      estimator: which was fitted.
      X: as in `read_pairs`; a list of rows `[T_i]` is one of sequences, unless the estimator was fitted on an array of
        two axes.
      input_size: as in `read_pairs`.

    Returns:
      The sequences.

    Raises:
      ValueError: not such an X, or not as many features as before.
    """
    X, mask = _padded(X, input_size, rows_are_sequences=not estimator._table)
    if getattr(X, "ndim", 2) == 3:
        X = check_array(X, dtype=_DTYPES, allow_nd=True)
        if X.shape[2] != estimator._step_size:
            raise ValueError(
                f"X has {X.shape[2]} features at each step, but {type(estimator).__name__} is expecting "
                f"{estimator._step_size} features as input."
            )
        return Sequences(X, mask)
    X = validate_data(estimator, X, dtype=_DTYPES, reset=False)
    return Sequences(_in_steps(X, input_size, "X"), mask)


def _in_steps(rows: np.ndarray, input_size: int, name: str) -> np.ndarray:
    """`[N, T · D]` as `[N, T, D]`."""
    if rows.shape[-1] % input_size:
        raise ValueError(
            f"{name} has rows of {rows.shape[-1]} numbers, which are not steps of input_size={input_size} features."
        )
    return rows.reshape(len(rows), -1, input_size)


def _padded(
    X: Any, input_size: int, *, rows_are_sequences: bool = False
) -> tuple[Any, np.ndarray | None]:
    """Sequences as one array, of unequal lengths with its mask; anything else as it is.

    Rows `[T]` of one length are sequences only if `rows_are_sequences`.
    """
    check_count(input_size, "input_size")
    if hasattr(X, "ndim") and (X.ndim != 1 or X.dtype != object):
        return X, None
    if not isinstance(X, (list, tuple, np.ndarray)) or len(X) == 0:
        return X, None
    try:
        rows = [np.asarray(row) for row in X]
    except ValueError:  # a row that is no array itself
        return X, None
    ranks = {row.ndim for row in rows}
    if ranks not in ({1}, {2}):
        return X, None
    if ranks == {1} and not rows_are_sequences and len({len(row) for row in rows}) == 1:
        return (np.stack(rows) if isinstance(X, np.ndarray) else X), None
    if ranks == {1}:
        rows = [_in_steps(row[None], input_size, f"X[{n}]")[0] for n, row in enumerate(rows)]
    sizes, lengths = {row.shape[1] for row in rows}, [len(row) for row in rows]
    if len(sizes) > 1 or min(lengths) == 0:
        raise ValueError(
            "every sequence of X must have at least one step, and the same features at each: [T_i, D]; got sequences "
            f"of {sorted(sizes)} features, the shortest of {min(lengths)} steps."
        )
    longest = max(lengths)
    if min(lengths) == longest:
        return np.stack(rows), None
    padded = [np.pad(row, ((0, longest - len(row)), (0, 0))) for row in rows]
    return np.stack(padded), lengths_to_mask(lengths, longest)
