"""Data losses. Each factory returns `loss(outputs, ys, mask=None, weights=None) -> scalar`.

Every loss is the weighted mean over sequences of a `sum` or a `mean` over true steps (and outputs);
sequences without a true step, and padding rows of weight 0, count for nothing. Losses accumulate and
return at least float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

__all__ = ["Loss", "sigmoid_cross_entropy", "softmax_cross_entropy", "squared_error"]

Loss = Callable[..., Array]


def squared_error(reduction: str = "mean") -> Loss:
    """L = Σ_t Σ_o (y − ŷ)² a sequence (`sum`), or its mean over true steps and outputs (`mean`).

    The reduction moves the meaning of λ: with T true steps of O outputs, λ of the `mean` loss is λ/(T·O)
    of the `sum` loss.

    Args:
      reduction: "sum" or "mean".

    >>> loss = squared_error("sum")
    >>> float(loss(jnp.array([[[1.0], [2.0]]]), jnp.zeros((1, 2, 1)), mask=jnp.array([[1, 0]])))
    1.0
    """

    def elementwise(outputs, ys):
        return jnp.sum(jnp.square(_wide(outputs) - _wide(ys)), axis=-1), outputs.shape[-1]

    return _masked(elementwise, reduction, "squared_error", _same_shape)


def softmax_cross_entropy(reduction: str = "mean") -> Loss:
    """−log softmax(y)[ŷ] in nats, for integer classes ŷ, summed or averaged over true steps.

    A class outside 0 … O − 1 gives NaN, so that a run on it diverges and says so; mask what is unlabelled.

    Args:
      reduction: "sum" or "mean" over the steps of a sequence.

    >>> loss = softmax_cross_entropy()
    >>> round(float(loss(jnp.zeros((1, 3, 2)), jnp.array([[0, 1, 1]]))), 4)  # ln 2
    0.6931
    """

    def elementwise(outputs, ys):
        errors = optax.softmax_cross_entropy_with_integer_labels(_wide(outputs), ys)
        return jnp.where((ys >= 0) & (ys < outputs.shape[-1]), errors, jnp.nan), 1

    return _masked(elementwise, reduction, "softmax_cross_entropy", _classes)


def sigmoid_cross_entropy(reduction: str = "mean") -> Loss:
    """−ŷ log σ(y) − (1−ŷ) log(1−σ(y)) in nats, for targets in [0, 1], over true steps and outputs.

    Args:
      reduction: "sum" or "mean" over steps and outputs.

    >>> round(float(sigmoid_cross_entropy("sum")(jnp.zeros((1, 3, 2)), jnp.ones((1, 3, 2)))), 4)  # 6 ln 2
    4.1589
    """

    def elementwise(outputs, ys):
        errors = optax.sigmoid_binary_cross_entropy(_wide(outputs), _wide(ys))
        return jnp.sum(errors, axis=-1), outputs.shape[-1]

    return _masked(elementwise, reduction, "sigmoid_cross_entropy", _same_shape)


def _wide(values: Array) -> Array:
    return values.astype(jnp.float64 if values.dtype == jnp.float64 else jnp.float32)


def _masked(elementwise, reduction: str, name: str, check) -> Loss:
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean' over true steps; got {reduction!r}.")

    def loss(
        outputs: Array, ys: Array, mask: Array | None = None, weights: Array | None = None
    ) -> Array:
        check(outputs, ys)
        if mask is not None and outputs.ndim == 3:  # NaN at padding, times a zero gradient, is NaN
            true_steps = mask.astype(bool)
            ys = jnp.where(true_steps[..., None] if ys.ndim == 3 else true_steps, ys, 0)
        errors, num_outputs = elementwise(outputs, ys)  # [B, T], or [B] with one output a row
        dtype = errors.dtype
        true = None if mask is None else mask.astype(bool).astype(dtype)
        rows = jnp.ones(errors.shape[0], dtype) if weights is None else weights.astype(dtype)
        if true is not None:
            rows = rows * (true.max(axis=1) > 0).astype(dtype)
        if errors.ndim == 2:
            errors = errors if true is None else jnp.where(true > 0, errors, 0)
            steps = errors.shape[1] if true is None else jnp.maximum(true.sum(axis=1), 1)
            errors = errors.sum(axis=1) / (steps if reduction == "mean" else 1)
        if reduction == "mean":
            errors = errors / num_outputs
        errors = jnp.where(rows > 0, errors, 0)
        total = rows.sum()
        return jnp.sum(rows * errors) / jnp.where(total > 0, total, 1)

    loss.__name__ = loss.__qualname__ = f"{name}_{reduction}"
    return loss


def _same_shape(outputs: Any, ys: Any) -> None:
    if outputs.shape != ys.shape:
        raise ValueError(
            f"outputs and targets must have the same shape; got outputs {outputs.shape} and ys {ys.shape}. "
            "A readout at each step wants ys [B, T, O], readout='last' wants [B, O]."
        )


def _classes(outputs: Any, ys: Any) -> None:
    if outputs.shape[:-1] != ys.shape or not jnp.issubdtype(ys.dtype, jnp.integer):
        raise ValueError(
            f"ys must be integer classes of shape {outputs.shape[:-1]}; got {ys.dtype} of shape {ys.shape}."
        )
