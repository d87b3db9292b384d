"""Batches and splits whose arrays JAX can take, from what users hold."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from rnnreg._arrays import as_array
from rnnreg._signatures import typed
from rnnreg.data._records import Batch, Split


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


@typed
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
