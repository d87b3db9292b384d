"""Data losses: records that are called as `loss(outputs, ys, mask=None, weights=None)`.

Every loss is the weighted mean over sequences of a `sum` or a `mean` over true steps (and outputs);
sequences without a true step, and padding rows of weight 0, count for nothing. Weights of steps, `[B, T]`, weigh the
steps inside a row, and a row counts as much as its heaviest step. Losses accumulate and return at least float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array

from rnnreg._linalg import wide
from rnnreg.data import loss_weights

__all__ = [
    "DataLoss",
    "Loss",
    "Metric",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
]


class Loss(Protocol):
    """A data loss: any function of these four arguments, such as a `DataLoss`.

    The library gives them by place. Nothing is known of a plain function, so the rows of an update are not split over
    devices unless you ask for it.
    """

    def __call__(
        self, outputs: Array, ys: Array, mask: Any = None, weights: Any = None, /
    ) -> Array:
        """L, which the run differentiates.

        Args:
          outputs: `[B, T, O]` with a readout at each step, `[B, O]` with one at the last true step.
          ys: targets, `[B, T, O]`, `[B, O]`, or integer classes `[B, T]` or `[B]`.
          mask: `[B, T]`, 1 for a true step; None if all are.
          weights: `[B]`, how much a row counts, or `[B, T]`, how much a step does; None if all count 1.

        Returns:
          A scalar of at least float32.
        """
        ...


class Metric(Protocol):
    """A score of outputs, recorded beside the loss; it need not be differentiable."""

    def __call__(
        self, outputs: Array, ys: Array, mask: Any = None, weights: Any = None, /
    ) -> Array:
        """The score.

        Args:
          outputs: `[B, T, O]` or `[B, O]`, in the units of the split's arrays.
          ys: targets in the same units, or integer classes.
          mask: `[B, T]`, 1 for a true step; None if all are.
          weights: `[B]`, how much a row counts, or `[B, T]`, how much a step does; None if all count 1.

        Returns:
          A real scalar. `rr.selection.choose` takes less as better.
        """
        ...


@dataclasses.dataclass(frozen=True)
class DataLoss:
    """Σ_b w_b e_b / Σ_b w_b, the weighted mean over rows of each row's error e_b, with the facts that are known of it.

    With weights of steps, e_b = Σ_t v_bt e_bt, divided by Σ_t v_bt for a mean, with v_bt = w_bt / w_b and w_b = max_t
    w_bt.

    Two losses with equal fields are equal, and share what was compiled.

    Attributes:
      name: short name, for records and messages.
      reduction: "sum" or "mean" over the true steps (and outputs) of a row.
      errors: `errors(outputs, ys) -> (errors, count)`: the error of each row and step, summed over outputs, `[B, T]`
        or `[B]`; and how many outputs were summed.
      check: `check(outputs, ys)` raises if their shapes or types do not fit.
      mean_over_rows: whether the loss is a weighted mean over rows, so that parts of a batch add up to it.
    """

    name: str
    reduction: str
    errors: Callable[[Array, Array], tuple[Array, int]]
    check: Callable[[Any, Any], None]
    mean_over_rows: bool = True

    def __post_init__(self) -> None:
        if self.reduction not in ("sum", "mean"):
            raise ValueError(
                f"reduction must be 'sum' or 'mean' over true steps; got {self.reduction!r}."
            )

    def __call__(
        self, outputs: Array, ys: Array, mask: Array | None = None, weights: Array | None = None
    ) -> Array:
        """The loss of a batch, a scalar of at least float32; arguments are those of `Loss`."""
        self.check(outputs, ys)
        if weights is not None and weights.ndim == 2 and outputs.ndim == 2:
            raise ValueError(
                f"weights {weights.shape} are one per step, and outputs {outputs.shape} are one per row: give one "
                "weight per row, [B], or a network with readout='all'."
            )
        rows, steps = loss_weights(mask, weights, dtype=wide(outputs.dtype))
        outputs, ys = _where_counted(outputs, ys, rows, steps)
        errors, num_outputs = self.errors(outputs, ys)  # [B, T], or [B] with one output a row
        rows = jnp.ones(errors.shape[0], errors.dtype) if rows is None else rows
        if errors.ndim == 2:
            errors = errors if steps is None else jnp.where(steps > 0, steps * errors, 0)
            count = errors.shape[1] if steps is None else jnp.maximum(steps.sum(axis=1), 1)
            errors = errors.sum(axis=1) / (count if self.reduction == "mean" else 1)
        if self.reduction == "mean":
            errors = errors / num_outputs
        total = rows.sum()
        return jnp.sum(rows * errors) / jnp.where(total > 0, total, 1)


def squared_error(reduction: str = "mean") -> DataLoss:
    """L = Σ_t Σ_o (y − ŷ)² of each sequence (`sum`), or its mean over true steps and outputs (`mean`).

    The reduction moves the meaning of λ: with T true steps of O outputs, λ of the `mean` loss is λ/(T·O)
    of the `sum` loss.

    Args:
      reduction: "sum" or "mean".

    Returns:
      The loss.

    Raises:
      ValueError: another reduction.

    >>> loss = squared_error("sum")
    >>> float(loss(jnp.array([[[1.0], [2.0]]]), jnp.zeros((1, 2, 1)), mask=jnp.array([[1, 0]])))
    1.0
    """
    return DataLoss("squared_error", reduction, _squared_errors, _same_shape)


def softmax_cross_entropy(reduction: str = "mean") -> DataLoss:
    """−log softmax(y)[ŷ] in nats, for integer classes ŷ, summed or averaged over true steps.

    A class outside 0 … O − 1 gives NaN, so that a run on it diverges and says so. Steps that are read and have no label
    get the weight 0: `weights` `[B, T]`. (A masked step is not read either.)

    Args:
      reduction: "sum" or "mean" over the steps of a sequence.

    Returns:
      The loss.

    Raises:
      ValueError: another reduction.

    >>> loss = softmax_cross_entropy()
    >>> round(float(loss(jnp.zeros((1, 3, 2)), jnp.array([[0, 1, 1]]))), 4)  # ln 2
    0.6931
    """
    return DataLoss("softmax_cross_entropy", reduction, _class_errors, _classes)


def sigmoid_cross_entropy(reduction: str = "mean") -> DataLoss:
    """−ŷ log σ(y) − (1−ŷ) log(1−σ(y)) in nats, for targets in [0, 1], over true steps and outputs.

    Args:
      reduction: "sum" or "mean" over steps and outputs.

    Returns:
      The loss.

    Raises:
      ValueError: another reduction.

    >>> round(float(sigmoid_cross_entropy("sum")(jnp.zeros((1, 3, 2)), jnp.ones((1, 3, 2)))), 4)  # 6 ln 2
    4.1589
    """
    return DataLoss("sigmoid_cross_entropy", reduction, _binary_errors, _same_shape)


def _squared_errors(outputs: Array, ys: Array) -> tuple[Array, int]:
    return jnp.sum(
        jnp.square(outputs.astype(wide(outputs.dtype)) - ys.astype(wide(ys.dtype))), axis=-1
    ), outputs.shape[-1]


def _class_errors(outputs: Array, ys: Array) -> tuple[Array, int]:
    import optax

    errors = optax.softmax_cross_entropy_with_integer_labels(
        outputs.astype(wide(outputs.dtype)), ys
    )
    return jnp.where((ys >= 0) & (ys < outputs.shape[-1]), errors, jnp.nan), 1


def _binary_errors(outputs: Array, ys: Array) -> tuple[Array, int]:
    import optax

    errors = optax.sigmoid_binary_cross_entropy(
        outputs.astype(wide(outputs.dtype)), ys.astype(wide(ys.dtype))
    )
    return jnp.sum(errors, axis=-1), outputs.shape[-1]


def _where_counted(
    outputs: Array, ys: Array, rows: Array | None, steps: Array | None
) -> tuple[Array, Array]:
    """Outputs and targets with 0 where they count for nothing: an error of NaN there, times 0, would be NaN."""
    if rows is None:
        return outputs, ys
    counted = rows > 0
    if steps is not None and outputs.ndim == 3:
        counted = counted[:, None] & (steps > 0)

    def clear(values):
        places = counted.reshape(*counted.shape, *[1] * (values.ndim - counted.ndim))
        return jnp.where(places, values, 0)

    return clear(outputs), clear(ys)


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
