"""What is wrong with a batch, in words."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._signatures import typed
from rnnreg.data._records import Batch, check_is_batch
from rnnreg.data._rows import cleared


@typed
def check_batch(batch: Batch, *, name: str = "data.train") -> None:
    """Raises a `ValueError` that says what is wrong with a batch of concrete or traced arrays.

    Shapes are always checked; values (NaN, a mask of zeros) only where arrays are concrete.

    Args:
      batch: the rows.
      name: what messages call it.

    Raises:
      ValueError: it is no batch, or one that cannot be trained on.
    """
    check_is_batch(batch, name)
    for field, values in batch._asdict().items():
        if values is None and field in ("mask", "weights"):
            continue
        if not isinstance(values, (np.ndarray, np.generic, Array, jax.ShapeDtypeStruct)):
            kind = f"{type(values).__module__.split('.')[0]}.{type(values).__name__}"
            raise ValueError(
                f"{name}.{field} must be a NumPy or JAX array; got {kind.removeprefix('builtins.')}. Wrap it in "
                "np.asarray."
            )
        if not (values.dtype == bool or any(jnp.issubdtype(values.dtype, kind) for kind in _REAL)):
            raise ValueError(
                f"{name}.{field} must hold real numbers; got {values.dtype}. Objects become numbers with "
                "values.astype(np.float32); a complex number is two features."
            )
    _check_shapes(batch, name)
    if any(isinstance(leaf, (jax.core.Tracer, jax.ShapeDtypeStruct)) for leaf in batch):
        return
    _check_values(batch, name)


def check_tokens(batch: Batch, num_tokens: int | None, *, name: str) -> None:
    """Raises if a concrete token that counts has no row in the embedding.

    Args:
      batch: the rows; masked steps and rows of weight 0 may hold anything.
      num_tokens: rows of the embedding; None without.
      name: what messages call the batch.

    Raises:
      ValueError: such a token.
    """
    if num_tokens is None or any(isinstance(leaf, jax.core.Tracer) for leaf in batch):
        return
    xs = np.asarray(cleared(batch).xs)
    wrong = (xs < 0) | (xs >= num_tokens)
    if wrong.any():
        where = tuple(int(place) for place in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name}.xs must hold tokens in 0 … {num_tokens - 1}; got {xs[where]} at {where}, and {int(wrong.sum())} "
            f"such values in all. Give network(..., embedding=({max(int(xs.max()) + 1, num_tokens)}, size)), or mark "
            "padding in mask."
        )


def _check_shapes(batch: Batch, name: str) -> None:
    xs, ys, mask, weights = batch
    tokens = jnp.issubdtype(xs.dtype, jnp.integer)
    if xs.ndim != (2 if tokens else 3):
        expected = "[N, T] integer tokens" if tokens else "[N, T, D] real numbers"
        cure = (
            " Whole numbers that are features become real: xs.astype(np.float32)."
            if tokens and xs.ndim == 3
            else ""
        )
        cure = " One feature: xs[..., None]." if not tokens and xs.ndim == 2 else cure
        raise ValueError(f"{name}.xs must be {expected}; got shape {xs.shape} of {xs.dtype}.{cure}")
    if xs.shape[0] == 0:
        raise ValueError(f"{name} has no rows.")
    if ys.ndim == 0 or len(ys) != len(xs):
        rows = len(ys) if ys.ndim else "a single number"
        raise ValueError(
            f"{name}.ys must have as many rows as xs: {len(xs)}; got {rows} (shape {ys.shape}).{_time_first(xs, ys)}"
        )
    if ys.ndim == 1 and jnp.issubdtype(ys.dtype, jnp.floating):  # outputs − ys would be [N, N]
        raise ValueError(
            f"{name}.ys must be [N, O] numbers, or [N] integer classes; got shape {ys.shape} of {ys.dtype}. One number "
            "per row is ys[:, None]; classes are ys.astype(int)."
        )
    if mask is not None and mask.shape != xs.shape[:2]:
        raise ValueError(
            f"{name}.mask must be [N, T] = {xs.shape[:2]}; got {mask.shape}. Make one from lengths with "
            "rr.data.lengths_to_mask(lengths, num_steps)."
        )
    if weights is None or weights.shape == xs.shape[:1]:
        return
    if weights.shape != xs.shape[:2]:
        raise ValueError(
            f"{name}.weights must be [N] = {xs.shape[:1]}, one per row, or [N, T] = {xs.shape[:2]}, one per step; got "
            f"{weights.shape}."
        )
    if ys.shape[:2] != xs.shape[:2]:
        raise ValueError(
            f"{name}.weights is [N, T], one per step, and ys has one target per row (shape {ys.shape}); give one "
            "weight per row, [N], or targets at each step, [N, T, …]."
        )


def _time_first(xs: Any, ys: Any) -> str:
    swapped = ys.ndim and len(ys) == xs.shape[1]
    return " Rows come first and time second: xs.swapaxes(0, 1)." if swapped else ""


def _check_values(batch: Batch, name: str) -> None:
    mask, weights = batch.mask, batch.weights
    bad = {
        field: ~np.isfinite(np.asarray(values, dtype=np.float64))
        for field, values in batch._asdict().items()
        if values is not None and jnp.issubdtype(values.dtype, jnp.floating)
    }
    with jax.ensure_compile_time_eval():  # arrays that a trace holds as constants are looked at too
        counted = cleared(batch._replace(xs=bad.get("xs", batch.xs), ys=bad.get("ys", batch.ys)))
    for field in bad:
        found = np.asarray(getattr(counted, field) if field in ("xs", "ys") else bad[field])
        if found.any():
            where = tuple(int(i) for i in np.argwhere(found)[0])
            raise ValueError(
                f"{name}.{field} has {int((found > 0).sum())} values that are NaN or infinite, the first at {where}; "
                f"{_CURES.get(field, 'remove them.')}"
            )
    if mask is not None and not np.isin(np.asarray(mask, dtype=np.float64), (0, 1)).all():
        raise ValueError(f"{name}.mask must hold 0 (padding) and 1 (a true step) only.")
    if weights is not None and (np.asarray(weights) < 0).any():
        raise ValueError(f"{name}.weights must not be negative; got {np.asarray(weights).min()}.")
    if mask is not None and not np.asarray(mask).any():
        raise ValueError(f"{name}.mask masks every step; at least one step must count (1).")
    if weights is not None and not np.asarray(weights).any():
        raise ValueError(f"{name}.weights are all 0; at least one row must count.")


_REAL = (jnp.integer, jnp.floating)
_CURES = {
    "xs": "remove them, or say in `mask` or `weights` that these steps or rows do not count.",
    "ys": "steps without a label are read and not scored with weights=~np.isnan(ys).any(axis=-1) ([N, T]); "
    "steps that are no data at all are marked in `mask`.",
}
