"""Some rows of a batch, and how much each row counts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._signatures import Numbers, typed
from rnnreg.data._batches import as_batch
from rnnreg.data._records import Batch


@typed
def row_weights(batch: Batch) -> Any:
    """How much each row counts in a mean over rows; 0 for padding and for rows without a step that counts.

    Weights of steps, `[N, T]`, give a row the weight of its heaviest true step.

    Args:
      batch: the rows, of NumPy or JAX.

    Returns:
      `[N]`.

    >>> import numpy as np
    >>> row_weights(Batch(np.ones((2, 3, 1)), np.ones(2), mask=np.array([[1, 1, 0], [0, 0, 0]]))).tolist()
    [1.0, 0.0]
    """
    weights = jnp.ones(len(batch.ys)) if batch.weights is None else batch.weights
    if batch.mask is None:
        return per_row(weights)
    true = (batch.mask > 0).astype(weights.dtype)
    return per_row(weights * true) if weights.ndim == 2 else weights * true.max(axis=1)


def per_row(weights: Any) -> Any:
    """`[N]` weights of rows: a row counts as much as its heaviest step; None stays None.

    >>> per_row(jnp.array([[0.0, 2.0], [0.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    return weights if weights is None or weights.ndim == 1 else weights.max(axis=1)


def loss_weights(mask: Any, weights: Any, *, dtype: Any) -> tuple[Any, Any]:
    """How much each row counts in a mean over rows, `[B]`, and how much each step in its row, `[B, T]`, the heaviest 1.

    Args:
      mask: `[B, T]`, or None.
      weights: `[B]` of rows, `[B, T]` of steps, or None.
      dtype: of both.

    Returns:
      Weights of rows, and of steps; None if all count 1.

    >>> rows, steps = loss_weights(jnp.array([[1, 1, 0]]), jnp.array([[0.0, 2.0, 3.0]]), dtype=float)
    >>> rows.tolist(), steps.tolist()
    ([2.0], [[0.0, 1.0, 0.0]])
    """
    steps = None if mask is None else mask.astype(bool).astype(dtype)
    rows = None if weights is None else weights.astype(dtype)
    if rows is None or rows.ndim == 1:
        if steps is None:
            return rows, None
        true = steps.max(axis=1)
        return true if rows is None else rows * true, steps
    counted = rows if steps is None else rows * steps
    rows = counted.max(axis=1)
    return rows, counted / jnp.where(rows > 0, rows, 1)[:, None]


def cleared(batch: Batch) -> Batch:
    """The batch with 0 where nothing counts, in rows of weight 0 and at masked steps: what stood there may be NaN.

    A step of weight 0 is read, and has no label: its target alone is 0.

    >>> import numpy as np
    >>> batch = Batch(np.full((2, 1, 1), np.nan), np.ones(2), weights=np.array([0.0, 1.0]))
    >>> clear = cleared(batch)
    >>> clear.xs.ravel().tolist(), clear.ys.tolist()
    ([0.0, nan], [0.0, 1.0])
    """
    mask, weights = batch.mask, batch.weights
    if mask is None and weights is None:
        return batch
    # [N, T] are whole numbers, which are no NaN, or [N, O] with as many outputs as steps
    by_step = batch.ys.ndim == 3 and batch.ys.shape[:2] == batch.xs.shape[:2]
    # Written so, XLA rounds the scores of a lane as it does those of the run alone: tests/test_lanes.py.
    rows = row_weights(batch) > 0
    read = rows[:, None] if mask is None else rows[:, None] & mask.astype(bool)
    labelled = read & (weights > 0) if weights is not None and weights.ndim == 2 else read
    labelled = labelled if by_step else rows
    return batch._replace(xs=where_counted(read, batch.xs), ys=where_counted(labelled, batch.ys))


def counted(mask: Any, weights: Any, *, by_step: bool) -> Any:
    """Where a target counts, `[B]` or by step `[B, T]` (or `[B, 1]`, if all steps of a row do); None if all do.

    >>> counted(jnp.array([[1, 1, 0]]), jnp.array([[0.0, 2.0, 3.0]]), by_step=True).tolist()
    [[False, True, False]]
    """
    dtype = jnp.float32 if weights is None else weights.dtype
    rows, steps = loss_weights(mask, weights, dtype=dtype)
    if rows is None:
        return None
    if not by_step:
        return rows > 0
    return rows[:, None] > 0 if steps is None else (rows[:, None] > 0) & (steps > 0)


def where_counted(counted: Any, values: Any) -> Any:
    """The values `[N, T, …]`, with 0 where `counted`, `[N]` or `[N, T]`, is false; None leaves all."""
    if counted is None:
        return values
    return jnp.where(
        counted.reshape(*counted.shape, *[1] * (values.ndim - counted.ndim)), values, 0
    )


@typed
def take_rows(batch: Batch, rows: Numbers, *, weights: Numbers | None = None) -> Batch:
    """The given rows of a batch; `weights` multiply the rows' own.

    Args:
      batch: the rows to choose from.
      rows: `[n]` row numbers, or `[N]` booleans.
      weights: `[n]` how much each counts (every step of it, if the batch weighs steps); None leaves the batch's own.

    Returns:
      A batch of n rows.

    Raises:
      ValueError: rows that are no whole numbers, or that the batch does not have.

    >>> import numpy as np
    >>> take_rows(Batch(np.zeros((3, 1, 1)), np.array([5, 6, 7])), np.array([2, 0])).ys.tolist()
    [7, 5]
    """
    if not isinstance(rows, jax.core.Tracer):
        rows = row_numbers(rows, len(batch.ys), "rows")

    def take(leaf):
        return None if leaf is None else jnp.take(leaf, rows, axis=0)

    taken = Batch(*(take(leaf) for leaf in as_batch(batch)))
    if weights is None:
        return taken
    own = taken.weights
    if own is not None:
        weights = jnp.asarray(weights, own.dtype)
        weights = (weights if own.ndim == 1 else weights[:, None]) * own
    return taken._replace(weights=weights)


def row_numbers(given: Any, num_rows: int, name: str) -> np.ndarray:
    """Row numbers from row numbers, or from a mask of booleans.

    Raises:
      ValueError: something else, or a row that there is not.

    >>> row_numbers([True, False, True], 3, "rows").tolist()
    [0, 2]
    """
    rows = np.asarray(given)
    if rows.dtype == bool and rows.shape == (num_rows,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or not (rows.dtype.kind in "iu" or rows.size == 0):
        raise ValueError(
            f"{name} must name rows by whole numbers, or by a mask of booleans with one entry per row, "
            f"{(num_rows,)}; got {rows.dtype} of shape {rows.shape}."
        )
    rows = rows.astype(int)
    if rows.size and (rows.min() < 0 or rows.max() >= num_rows):
        worst = rows.max() if rows.max() >= num_rows else rows.min()
        raise ValueError(f"{name} names row {worst}; the data has rows 0 to {num_rows - 1}.")
    return rows
