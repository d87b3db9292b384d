"""Everyday scores. Every true step counts alike, times the weight of its row, however long the sequences are."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._linalg import wide
from rnnreg.losses import as_arrays, counted_pair, one_label, other_classes, softmax_cross_entropy
from rnnreg.metrics._base import Score


def accuracy() -> Score:
    """The share of right labels, over all true steps (and outputs); more is better.

    Integer classes `[B, T]` or `[B]` are compared with the largest output. Labels 0 and 1 of the shape of the outputs
    are compared with the sign of each output, the logit of `rr.losses.sigmoid_cross_entropy`.

    Every true step counts alike, times the weight of its row. So long sequences count for more, unlike in a loss.
    A run and `rr.evaluate` refuse targets that are no labels, such as those of a regression, before they compile.

    Returns:
      The score.

    >>> outputs = jnp.array([[0.2, 0.9], [0.8, 0.1], [0.3, 0.4]])
    >>> round(float(accuracy()(outputs, jnp.array([1, 0, 0]))), 3)
    0.667
    """
    return Score(_accuracy, maximise=True, refused=_no_labels)


def r2() -> Score:
    """R² = 1 − Σ w (y − ŷ)² / Σ w (y − ȳ)² of each output, and the mean of these over outputs; more is better.

    Both sums are over all true steps of all rows that are scored together, w the weight of the row, and ȳ is the
    weighted mean of the targets over the same steps. R² of a batch is not the mean of the R² of its parts.

    If the targets of an output are constant, its R² is 1 if every prediction is right and 0 otherwise, as in
    scikit-learn's `r2_score`.

    Returns:
      The score.

    >>> ys = jnp.array([[1.0], [2.0], [3.0]])
    >>> float(r2()(ys, ys)), float(r2()(jnp.full((3, 1), 2.0), ys))
    (1.0, 0.0)
    """
    return Score(_r2, maximise=True)


def perplexity() -> Score:
    """exp(Σ w (−log softmax(y)[ŷ]) / Σ w) for integer classes ŷ, over all true steps; less is better.

    Every true step counts alike, times the weight of its row. The mean is taken before the exponential, so perplexity
    of a batch is not the mean of that of its parts. With sequences of one length it is the exponential of
    `rr.losses.softmax_cross_entropy("mean")`.

    Returns:
      The score.

    >>> float(perplexity()(jnp.zeros((1, 3, 4)), jnp.array([[0, 1, 3]])))
    4.0
    """
    return Score(_perplexity, maximise=False, refused=other_classes)


def _accuracy(outputs: Array, ys: Array, mask: Any, weights: Any) -> Array:
    outputs, ys, mask, weights = as_arrays(outputs, ys, mask, weights)
    if outputs.shape == ys.shape:
        right = ((outputs > 0) == (ys > 0.5)).astype(wide(outputs.dtype)).mean(axis=-1)
    elif outputs.shape[:-1] == ys.shape and jnp.issubdtype(ys.dtype, jnp.integer):
        right = jnp.argmax(outputs, axis=-1) == ys.astype(jnp.int32)
    else:
        raise ValueError(
            f"accuracy compares integer classes of shape {outputs.shape[:-1]}, or labels 0 and 1 of shape "
            f"{outputs.shape}, with outputs of shape {outputs.shape}; got {ys.dtype} of shape {ys.shape}."
            f"{one_label(outputs, ys)}"
        )
    return _step_mean(right, _step_weights(outputs, mask, weights))


def _r2(outputs: Array, ys: Array, mask: Any, weights: Any) -> Array:
    outputs, ys, mask, weights = as_arrays(outputs, ys, mask, weights)
    if outputs.shape != ys.shape:
        raise ValueError(
            f"r2 needs outputs and targets of one shape; got outputs {outputs.shape} and ys {ys.shape}."
        )
    counted = _step_weights(outputs, mask, weights)
    outputs, ys = counted_pair(outputs, ys, mask, weights)
    predicted = outputs.astype(wide(outputs.dtype))
    ys = ys.astype(predicted.dtype)
    mean = _step_mean(ys, counted)
    left = _step_mean(jnp.square(ys - predicted), counted)
    spread = _step_mean(jnp.square(ys - mean.reshape(*[1] * (ys.ndim - 1), -1)), counted)
    constant = jnp.where(left > 0, 0.0, 1.0).astype(left.dtype)
    return jnp.where(spread > 0, 1 - left / jnp.where(spread > 0, spread, 1), constant).mean()


def _perplexity(outputs: Array, ys: Array, mask: Any, weights: Any) -> Array:
    outputs, ys, mask, weights = as_arrays(outputs, ys, mask, weights)
    loss = softmax_cross_entropy()
    loss.check(outputs, ys)
    errors, _ = loss.errors(*counted_pair(outputs, ys, mask, weights))
    return jnp.exp(_step_mean(errors, _step_weights(outputs, mask, weights)))


def _no_labels(ys: np.ndarray, num_outputs: int) -> tuple[np.ndarray, str]:
    if jnp.issubdtype(ys.dtype, jnp.integer):
        return other_classes(ys, max(num_outputs, 2))  # one output tells 0 from 1
    return (ys != 0) & (ys != 1), "labels for accuracy (a regression has rr.metrics.r2), 0 or 1"


def _step_weights(outputs: Array, mask: Any, weights: Any) -> Array:
    """How much each step counts, `[B, T]`; or each row, `[B]`, with one output a row."""
    dtype = wide(outputs.dtype)
    counted = jnp.ones(outputs.shape[:-1], dtype)
    if mask is not None:
        true = mask.astype(bool)
        counted = counted * (true if outputs.ndim == 3 else true.any(axis=1)).astype(dtype)
    if weights is not None:
        shape = weights.shape + (1,) * (counted.ndim - weights.ndim)
        counted = counted * weights.astype(dtype).reshape(shape)
    return counted


def _step_mean(values: Array, counted: Array) -> Array:
    """Σ w v / Σ w over rows and steps; 0 if nothing counts. A last axis of outputs stays."""
    values = values.astype(counted.dtype)
    steps = counted.reshape(*counted.shape, *[1] * (values.ndim - counted.ndim))
    axes = tuple(range(counted.ndim))
    total = counted.sum()
    return jnp.sum(jnp.where(steps > 0, steps * values, 0), axis=axes) / jnp.where(
        total > 0, total, 1
    )
