"""Scaling of features: fitted on training rows, applied, and undone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from rnnreg._arrays import as_array
from rnnreg._signatures import Numbers, typed
from rnnreg.data._batches import as_batch, as_split
from rnnreg.data._checks import check_batch
from rnnreg.data._records import Batch, Scaling, Split, check_is_batch
from rnnreg.data._rows import row_numbers, row_weights


@typed
def fit_scaling(batch: Batch, *, rows: Numbers | None = None) -> Scaling:
    """Mean and standard deviation of the inputs and targets of the given training rows, taken in float64.

    Padding (mask 0, rows of weight 0) is left out; of the targets, so are steps of weight 0. A constant feature keeps
    scale 1: one whose standard deviation is below the rounding of its dtype, relative to its size. Token inputs and
    class targets are not scaled (shift 0, scale 1).

    Args:
      batch: the rows.
      rows: `[n]` numbers of the rows to fit on; None takes all.

    Returns:
      Shift and scale of each feature, float64.

    Raises:
      ValueError: no step is left to fit on; what `check_batch` refuses, such as NaN at steps that count.

    >>> batch = Batch(np.array([[[0.0], [2.0]], [[4.0], [6.0]]]), np.array([[1.0], [3.0]]))
    >>> fit_scaling(batch).y_shift.tolist(), fit_scaling(batch, rows=[0]).x_shift.tolist()
    ([2.0], [1.0])
    """
    batch = as_batch(batch)
    at = slice(None) if rows is None else row_numbers(rows, len(batch.ys), "rows")
    return _fit(batch, at, name="batch" if rows is None else "batch[rows]")


def _fit(batch: Batch, rows: Any, *, name: str) -> Scaling:
    check_is_batch(batch, name)
    batch = Batch(*(None if leaf is None else np.asarray(leaf)[rows] for leaf in batch))
    check_batch(batch, name=name)
    counted = np.asarray(row_weights(batch)) > 0
    xs, ys, mask, weights = jax.tree.map(lambda leaf: leaf[counted], batch)
    steps = None if mask is None else mask > 0
    scored = steps
    if weights is not None and weights.ndim == 2:
        scored = weights > 0 if steps is None else steps & (weights > 0)
    return Scaling(*_moments(xs, steps), *_moments(ys, scored))


def _moments(values: np.ndarray, steps: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature over `[n, T, D]` (the given steps) or `[n, D]`; integers: 0 and 1."""
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return np.zeros(1), np.ones(1)
    if steps is not None:  # with one target a row, rows without a step count for nothing
        values = values[steps if values.ndim == 3 else steps.any(axis=1)]
    flat = values.reshape(-1, values.shape[-1])
    if not len(flat):
        raise ValueError("no step is left to fit a scaling on: all are masked or have weight 0.")
    first = flat[0].astype(np.float64)
    moved = flat - first  # exactly 0 for a constant, and no loss beside a large mean
    mean, scale = moved.mean(axis=0), moved.std(axis=0)
    largest = np.maximum(np.abs(first), np.abs(first + mean) + scale)
    constant = scale <= jnp.finfo(flat.dtype).eps * largest
    return first + mean, np.where(constant, 1.0, scale)


@typed
def scale_batch(batch: Batch, scaling: Scaling | None) -> Batch:
    """The batch in the network's units: `(array - shift) / scale`, and 0 at masked steps; integers pass unchanged.

    Args:
      batch: rows in the units of the split's arrays.
      scaling: shift and scale; None changes nothing.

    Returns:
      The batch that the network sees.

    Raises:
      ValueError: another number of features than the scaling has.

    >>> batch = Batch(np.array([[[1.0], [3.0]]]), np.array([[5.0]]))
    >>> scale_batch(batch, Scaling(np.ones(1), 2 * np.ones(1), np.ones(1), np.ones(1))).xs.tolist()
    [[[0.0], [1.0]]]
    """
    if scaling is None:
        return batch
    steps = None if batch.mask is None else batch.mask > 0
    each = steps if batch.ys.ndim == 3 else None
    return batch._replace(
        xs=_scaled(batch.xs, scaling.x_shift, scaling.x_scale, steps, "x"),
        ys=_scaled(batch.ys, scaling.y_shift, scaling.y_scale, each, "y"),
    )


@typed
def unscale_outputs(outputs: Any, scaling: Scaling | None) -> Any:
    """Network outputs back in the units of the targets: `outputs * scale + shift`.

    Args:
      outputs: `[..., O]` what the network returns.
      scaling: shift and scale; None changes nothing.

    Returns:
      Outputs of the same shape.

    Raises:
      ValueError: another number of outputs than the scaling has targets; logits of classes are not scaled, and pass.

    >>> scaling = Scaling(np.zeros(1), np.ones(1), np.ones(1), 2 * np.ones(1))
    >>> unscale_outputs(np.array([[3.0]]), scaling).tolist()
    [[7.0]]
    """
    if scaling is None:
        return outputs
    outputs = as_array(outputs, "outputs")
    shift, scale = scaling.y_shift, scaling.y_scale
    if not _leaves_alone(shift, scale):
        _check_features(outputs, shift, "outputs", "y_shift")
    return outputs * _like(scale, outputs) + _like(shift, outputs)


def scale_inputs(xs: Any, future: Any, scaling: Scaling | None) -> tuple[Any, Any]:
    """Inputs, and the known ones of later steps (the last features of `xs`, or None), in the network's units.

    >>> scaling = Scaling(np.array([1.0, 5.0]), np.array([1.0, 2.0]), np.zeros(1), np.ones(1))
    >>> [part.tolist() for part in scale_inputs(np.array([[[2.0, 7.0]]]), np.array([[[9.0]]]), scaling)]
    [[[[1.0, 1.0]]], [[[2.0]]]]
    """
    if scaling is None:
        return xs, future
    if future is not None:
        known = slice(max(xs.shape[-1] - future.shape[-1], 0), None)
        future = _scaled(future, scaling.x_shift[known], scaling.x_scale[known], None, "x")
    return _scaled(xs, scaling.x_shift, scaling.x_scale, None, "x"), future


def _leaves_alone(shift: Any, scale: Any) -> bool:
    """Whether these are the single 0 and 1 of classes, whose logits are several; a trace hides values, so they may."""
    if jnp.shape(shift) != (1,):
        return False
    traced = isinstance(shift, Tracer) or isinstance(scale, Tracer)
    return traced or (np.asarray(shift).item() == 0 and np.asarray(scale).item() == 1)


def _check_features(values: Any, shift: Any, name: str, field: str) -> None:
    sizes = jnp.shape(values)[-1:], jnp.shape(shift)[-1:]
    if sizes[1] and sizes[0] != sizes[1]:
        raise ValueError(
            f"{name} of shape {jnp.shape(values)} must have as many features as the scaling has, {sizes[1][0]} (its "
            f"{field}): give the array with the features that the scaling was fitted on, in their order."
        )


def _like(values, array):
    return values.astype(array.dtype) if isinstance(values, (np.ndarray, Array)) else values


def _scaled(values, shift, scale, steps, letter):
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return values
    _check_features(values, shift, f"{letter}s", f"{letter}_shift")
    scaled = (values - _like(shift, values)) / _like(scale, values)
    if steps is None:
        return scaled
    where = jnp.where if isinstance(scaled, Array) or isinstance(steps, Array) else np.where
    return where(steps[..., None], scaled, np.zeros((), scaled.dtype))


@typed
def standardize(data: Split | Batch) -> Split:
    """The split with zero-mean, unit-variance features, fitted on its training rows alone.

    The map back to the data's own units is kept in `units`. Folds are scaled once more, each on its
    own training rows, so that no fold sees the mean of its validation block. Padding (mask 0) does not count in the
    moments, and is 0 afterwards.

    Args:
      data: the split in its own units, or a batch, which becomes its training rows.

    Returns:
      The standardised split, its test sets too.

    Raises:
      ValueError: it is standardised already; what `fit_scaling` refuses; rows with another number of features.

    >>> from rnnreg.data import windows
    >>> split = standardize(Split(windows(np.arange(6.0), window=2)[0]))
    >>> float(split.train.ys.mean()), split.units.y_shift.tolist()
    (0.0, [3.5])
    >>> padded = Batch(np.array([[[2.0], [4.0], [0.0]]]), np.array([[1.0]]), mask=np.array([[1, 1, 0]]))
    >>> standardize(padded).train.xs.tolist()
    [[[-1.0], [1.0], [0.0]]]
    """
    split = as_split(data)
    if split.units is not None:
        raise ValueError("the split is standardised already (its `units` are set).")
    scaling = _fit(split.train, slice(None), name="data.train")

    def apply(batch):
        return None if batch is None else scale_batch(batch, scaling)

    return split.replace(
        train=apply(split.train),
        validation=apply(split.validation),
        test={name: apply(batch) for name, batch in split.test.items()},
        units=scaling,
    )
