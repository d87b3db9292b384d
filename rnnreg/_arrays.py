"""Arrays of numbers from what users hold: pandas, PyTorch, other byte orders, objects, booleans."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, tree
from jax.core import Tracer


def as_array(values: Any, name: str) -> Any:
    """A NumPy array of numbers or booleans that JAX can take; arrays of JAX, and those that fit already, as they are.

    Raises:
      ValueError: what is no array of numbers, with what to do.

    >>> as_array(np.array([1, None], object), "ys")
    array([ 1., nan])
    >>> as_array(["a", "b"], "ys")
    Traceback (most recent call last):
    ValueError: ys holds strings: number the classes, np.unique(ys, return_inverse=True)[1].
    """
    if isinstance(values, Array):
        return values
    if isinstance(values, (list, tuple)) and any(
        isinstance(v, Tracer) for v in tree.leaves(values)
    ):
        return jnp.asarray(values)
    if hasattr(values, "detach"):  # PyTorch: off its graph and its device
        values = values.detach().cpu()
        values = (values.float() if "bfloat16" in str(values.dtype) else values).numpy()
    if np.ma.is_masked(values):
        raise ValueError(
            f"{name} is a masked array: fill it, values.filled(0), and mark the masked steps in `mask`."
        )
    try:
        array = np.asarray(values)
        array = _numbers(array) if array.dtype == object else array
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is no array of numbers ({error}).{_cure(values, error)}"
        ) from error
    number = array.dtype == bool or jnp.issubdtype(array.dtype, jnp.number)
    if not number and hasattr(values, "columns"):
        raise ValueError(f"{name} must hold numbers; got {array.dtype}.{_TABLE}")
    if array.dtype.kind in "US":
        raise ValueError(
            f"{name} holds strings: number the classes, np.unique({name}, return_inverse=True)[1]."
        )
    if not number:
        raise ValueError(
            f"{name} must hold numbers; got {array.dtype}. Dates become features as numbers, such as "
            "(dates - dates[0]) / np.timedelta64(1, 'D')."
        )
    if array.dtype.kind == "c":
        raise ValueError(
            f"{name} holds complex numbers: give real and imaginary parts as two features."
        )
    if array.dtype == np.longdouble:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


_TABLE = " Columns are features. Make dates the index: table.set_index(pd.to_datetime(table.pop('date')))."


def _cure(values: Any, error: Exception) -> str:
    """What to do with a table that has columns of text, and with sequences of unequal lengths."""
    if hasattr(values, "columns"):
        return _TABLE
    if "inhomogeneous" in str(error):
        return (
            " Sequences of unequal lengths are padded with 0, with mask=rr.data.lengths_to_mask(lengths, "
            "num_steps)."
        )
    return ""


def _numbers(array: np.ndarray) -> np.ndarray:
    """An array of objects as numbers: whole ones stay whole, None and pandas' NA become NaN."""
    import pandas as pd

    flat = array.ravel()
    empty = pd.isna(flat)
    if empty.any():
        flat = np.where(empty, np.nan, flat).astype(np.float64)
    return np.array(flat.tolist()).reshape(array.shape)
