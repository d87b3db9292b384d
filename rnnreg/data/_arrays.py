"""Arrays of numbers from what users hold: pandas, PyTorch, other byte orders, objects, booleans."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg.data._records import Batch, Split


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


def as_batch(batch: Any, *, name: str = "batch") -> Any:
    """The batch with arrays that JAX can take; itself if it has them already, or if it is no batch.

    Booleans become numbers: features and targets with an axis of features 0.0 and 1.0, tokens and classes 0 and 1.

    Raises:
      ValueError: a field that is no array of numbers.

    >>> as_batch(Batch(np.array([[[True]]]), np.array([False]))).xs.tolist()
    [[[1.0]]]
    """
    if not isinstance(batch, Batch):
        return batch
    for field in ("xs", "ys"):
        if getattr(batch, field) is None:
            raise ValueError(
                f"{name}.{field} must be an array; got None. A batch has inputs and targets: rr.Batch(xs, ys)."
            )
    given = batch
    batch = Batch(
        *(
            None if leaf is None else as_array(leaf, f"{name}.{field}")
            for field, leaf in batch._asdict().items()
        )
    )
    xs, ys, weights = batch.xs, batch.ys, batch.weights
    tokens, classes = xs.ndim == 2, ys.ndim == 1 or (ys.ndim == 2 and ys.shape == xs.shape[:2])
    batch = batch._replace(
        xs=_from_booleans(xs, whole=tokens),
        ys=_from_booleans(ys, whole=classes),
        weights=None if weights is None else _from_booleans(weights, whole=False),
    )
    return given if all(one is two for one, two in zip(given, batch, strict=True)) else batch


def _from_booleans(values: Any, *, whole: bool) -> Any:
    if values is None or values.dtype != bool:
        return values
    return values.astype(np.int32 if whole else jax.dtypes.canonicalize_dtype(np.float64))


def as_split(data: Split | Batch) -> Split:
    """A bare batch is a split with training rows only; arrays of other libraries become NumPy's.

    Accepted are arrays of NumPy (any byte order, objects that are numbers), JAX, PyTorch and pandas. Booleans become
    numbers.

    Args:
      data: either.

    Returns:
      A split; the one that was given, if nothing has to change.

    Raises:
      ValueError: an array that holds no numbers.

    >>> as_split(Batch(np.zeros((3, 1, 1)), np.zeros((3, 1)))).validation is None
    True
    """
    if not isinstance(data, Split):
        return Split(train=as_batch(data, name="data.train"))
    new = {
        "train": as_batch(data.train, name="data.train"),
        "validation": as_batch(data.validation, name="data.validation"),
    }
    test = {name: as_batch(batch, name=f"data.test[{name!r}]") for name, batch in data.test.items()}
    if any(test[name] is not batch for name, batch in data.test.items()):
        new["test"] = test
    changed = {name: batch for name, batch in new.items() if batch is not getattr(data, name)}
    return data.replace(**changed) if changed else data
