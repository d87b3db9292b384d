"""Data losses: records that are called as `loss(outputs, ys, mask=None, weights=None)`.

Every loss is the weighted mean over sequences of a `sum` or a `mean` over true steps (and outputs);
sequences without a true step, and padding rows of weight 0, count for nothing. Weights of steps, `[B, T]`, weigh the
steps inside a row, and a row counts as much as its heaviest step. Losses accumulate and return at least float32.

A function of your own serves as a loss too, with these four arguments or with `(outputs, ys)` alone:

>>> import optax, rnnreg as rr
>>> def log_cosh(outputs, ys):
...     return jnp.mean(jnp.log(jnp.cosh(outputs - ys)))
>>> net = rr.network([rr.cells.elman(4)], 1, readout="last")
>>> train = rr.make_train(net, loss=log_cosh, optimizer=optax.sgd(0.1), num_epochs=5)
>>> batch = rr.Batch(jnp.ones((8, 3, 1)), jnp.ones((8, 1)))
>>> losses = train({}, batch, key=jax.random.key(0)).history["train_loss"]
>>> bool(losses[-1] < losses[0])
True
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_marks, check_row_weights
from rnnreg._linalg import wide, widen_labels
from rnnreg._signatures import typed
from rnnreg.data import Batch, counted, loss_weights, where_counted

__all__ = [
    "DataLoss",
    "Loss",
    "Metric",
    "huber",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
]


class Loss(Protocol):
    """A data loss: any function of these four arguments, or of the first two, such as a `DataLoss`.

    The library gives them by place. Nothing is known of a plain function, so the rows of an update are not split over
    devices unless you ask for it. A function of `(outputs, ys)` alone is a mean over rows and true steps if the data
    has a mask or weights: that is checked, and then they count as in `squared_error("mean")`.
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
    """A score of outputs, recorded next to the loss; it need not be differentiable.

    `rr.metrics.Score(function, maximise=…)` declares whether more is better. A plain function declares nothing.
    """

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
          A real number; or an array of them, such as one for each output, whose shape does not depend on the number of
          rows. In a sweep an array has axes of its own, with folds and without; `rr.selection.choose`, `keep_best` and
          `patience` need one number.
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
      errors: `errors(outputs, ys, **arguments) -> (errors, count)`: the error of each row and step, summed over
        outputs, `[B, T]` or `[B]`; and how many outputs were summed.
      check: `check(outputs, ys)` raises if their shapes or types do not fit.
      mean_over_rows: whether the loss is a weighted mean over rows, so that parts of a batch add up to it.
      refused: `refused(ys, num_outputs) -> (wrong, expected)`: which targets the loss cannot take, and in words which
        it can; None if it takes every number.
      arguments: further arguments of `errors`, pairs of name and value.
      maximise: False, since less is better.
    """

    name: str
    reduction: str
    errors: Callable[..., tuple[Array, int]]
    check: Callable[[Any, Any], None]
    mean_over_rows: bool = True
    refused: Callable[[np.ndarray, int], tuple[np.ndarray, str]] | None = None
    arguments: tuple[tuple[str, Any], ...] = ()
    maximise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.reduction not in ("sum", "mean"):
            raise ValueError(
                f"reduction must be 'sum' or 'mean' over true steps; got {self.reduction!r}."
            )

    def __call__(self, outputs: Any, ys: Any, mask: Any = None, weights: Any = None) -> Array:
        """The loss of a batch, a scalar of at least float32; arguments are those of `Loss`."""
        outputs, ys, mask, weights = as_arrays(outputs, ys, mask, weights)
        self.check(outputs, ys)
        _check_counts(outputs, mask, weights)
        if weights is not None and weights.ndim == 2 and outputs.ndim == 2:
            raise ValueError(
                f"weights {weights.shape} are one per step, and outputs {outputs.shape} are one per row: give one "
                "weight per row, [B], or a network with readout='all'."
            )
        outputs, ys = counted_pair(outputs, ys, mask, weights)
        real = jnp.issubdtype(ys.dtype, jnp.floating)  # a class that is none gives NaN
        if self.refused is not None and real and not isinstance(ys, jax.core.Tracer):
            wrong, expected = self.refused(np.asarray(ys), outputs.shape[-1])
            if np.any(wrong):
                raise ValueError(f"ys must hold {expected}; got {np.asarray(ys)[wrong][0]}.")
        errors, num_outputs = self.errors(outputs, ys, **dict(self.arguments))
        return row_mean(errors, mask, weights, reduction=self.reduction, num_outputs=num_outputs)


def _check_counts(outputs: Any, mask: Any, weights: Any) -> None:
    """Raises unless a mask is `[B, T]`, and weights `[B]` or `[B, T]`, of the outputs' rows and steps."""
    lead = outputs.shape[: outputs.ndim - 1]
    steps = len(lead) == 2
    expected = f"[B, T] = {lead}" if steps else f"[B, T] with B = {lead[0]}"
    for name, given, ranks in (("mask", mask, (2,)), ("weights", weights, (1, 2))):
        if given is None:
            continue
        if given.ndim not in ranks or given.shape[: len(lead)] != lead[: given.ndim]:
            rows = f"[B] = {lead[:1]} or " if name == "weights" else ""
            raise ValueError(f"{name} must be {rows}{expected}; got {given.shape}.")
    check_marks(mask)
    check_row_weights(weights)


def check_targets(loss: Any, batch: Batch, num_outputs: int, *, name: str) -> None:
    """Raises if concrete targets hold values that the loss cannot take, such as a class that the network does not have.

    Args:
      loss: the loss.
      batch: the rows; masked steps and rows that do not count may hold anything.
      num_outputs: O, of the network.
      name: what messages call the batch.

    Raises:
      ValueError: such a value.
    """
    refused = getattr(loss, "refused", None)
    if refused is None or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(batch)):
        return
    ys = np.asarray(batch.ys)
    wrong, expected = refused(ys, num_outputs)
    places = counted(batch.mask, batch.weights, by_step=ys.shape[:2] == batch.xs.shape[:2])
    wrong = np.asarray(where_counted(places, wrong), bool)
    if wrong.any():
        where = tuple(int(place) for place in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name}.ys must hold {expected}; got {ys[where]} at {where}, and {int(wrong.sum())} such values in all. "
            "Give steps without a label the weight 0: weights [N, T]."
        )


def as_arrays(*leaves: Any) -> Iterator[Any]:
    """Arrays of JAX, in a dtype that it has; None stays None."""
    return (None if leaf is None else jnp.asarray(leaf) for leaf in leaves)


def counted_pair(outputs: Any, ys: Any, mask: Any, weights: Any) -> tuple[Any, Any]:
    """Outputs and targets with 0 where they do not count: NaN there, times a zero gradient, would be NaN.

    Args:
      outputs: `[B, T, O]` or `[B, O]`.
      ys: the targets.
      mask: `[B, T]`, or None.
      weights: `[B]` of rows, `[B, T]` of steps, or None.
    """
    places = counted(mask, weights, by_step=outputs.ndim == 3)
    return where_counted(places, outputs), where_counted(places, ys)


def row_mean(errors: Array, mask: Any, weights: Any, *, reduction: str, num_outputs: int) -> Array:
    """The weighted mean over rows of errors `[B, T]` or `[B]`, each reduced over its true steps and outputs.

    Args:
      errors: of each step or row, summed over outputs.
      mask: `[B, T]`, or None.
      weights: `[B]` of rows, `[B, T]` of steps, or None.
      reduction: "sum" or "mean".
      num_outputs: how many outputs were summed.
    """
    rows, steps = loss_weights(mask, weights, dtype=errors.dtype)
    rows = jnp.ones(errors.shape[0], errors.dtype) if rows is None else rows
    if errors.ndim == 2:
        errors = errors if steps is None else jnp.where(steps > 0, steps * errors, 0)
        count = errors.shape[1] if steps is None else jnp.maximum(steps.sum(axis=1), 1)
        errors = errors.sum(axis=1) / (count if reduction == "mean" else 1)
    if reduction == "mean":
        errors = errors / num_outputs
    errors = jnp.where(rows > 0, errors, 0)
    total = rows.sum()
    return jnp.sum(rows * errors) / jnp.where(total > 0, total, 1)


@typed
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


@typed
def huber(reduction: str = "mean", *, delta: float = 1.0) -> DataLoss:
    """e²/2 where |e| ≤ δ and δ(|e| − δ/2) beyond, of e = y − ŷ, so that outliers pull with a bounded force.

    Args:
      reduction: "sum" or "mean" over steps and outputs.
      delta: δ, in the units of the targets.

    Returns:
      The loss.

    Raises:
      ValueError: another reduction, or a δ that is not positive.

    Source: Huber 1964; `torch.nn.HuberLoss` and `optax.huber_loss` are the same.

    >>> huber("sum")(jnp.array([[0.5], [3.0]]), jnp.zeros((2, 1))).item()  # (.125 + 2.5) / 2 rows
    1.3125
    """
    if not delta > 0:
        raise ValueError(f"delta must be a positive number; got {delta!r}.")
    return DataLoss(
        "huber", reduction, _huber_errors, _same_shape, arguments=(("delta", float(delta)),)
    )


@typed
def softmax_cross_entropy(reduction: str = "mean") -> DataLoss:
    """−log softmax(y)[ŷ] in nats, for integer classes ŷ, summed or averaged over true steps.

    A run refuses classes outside 0 … O − 1 before it compiles; where the loss itself meets one it gives NaN. Steps that
    are read and have no label get the weight 0: `weights` `[B, T]`. (A masked step is not read either.)

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
    return DataLoss(
        "softmax_cross_entropy", reduction, _class_errors, _classes, refused=other_classes
    )


@typed
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
    return DataLoss(
        "sigmoid_cross_entropy", reduction, _binary_errors, _same_shape, refused=_no_shares
    )


def _squared_errors(outputs: Array, ys: Array) -> tuple[Array, int]:
    return jnp.sum(jnp.square(_differences(outputs, ys)), axis=-1), outputs.shape[-1]


def _huber_errors(outputs: Array, ys: Array, *, delta: float) -> tuple[Array, int]:
    size = jnp.abs(_differences(outputs, ys))
    small = jnp.minimum(size, delta)  # e²/2 up to δ, then straight on
    return jnp.sum(small * (size - 0.5 * small), axis=-1), outputs.shape[-1]


def _differences(outputs: Array, ys: Array) -> Array:
    return outputs.astype(wide(outputs.dtype)) - ys.astype(wide(ys.dtype))


def _class_errors(outputs: Array, ys: Array) -> tuple[Array, int]:
    import optax

    ys = widen_labels(ys)
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


def _same_shape(outputs: Any, ys: Any) -> None:
    if outputs.shape != ys.shape:
        one_output = (*ys.shape, 1) == outputs.shape
        raise ValueError(
            f"outputs and targets must have the same shape; got outputs {outputs.shape} and ys {ys.shape}. "
            + ("Give ys[..., None], with an axis for the one output. " if one_output else "")
            + "A readout at each step wants ys [B, T, O], readout='last' wants [B, O]."
        )


def _classes(outputs: Any, ys: Any) -> None:
    if outputs.shape[:-1] != ys.shape or not jnp.issubdtype(ys.dtype, jnp.integer):
        one_hot = ys.shape == outputs.shape and ys.ndim > 1
        whole = ys.shape == outputs.shape[:-1]
        advice = " Cast them with ys.astype(np.int32)." if whole else ""
        raise ValueError(
            f"ys must be integer classes of shape {outputs.shape[:-1]}; got {ys.dtype} of shape {ys.shape}."
            + (" Of one-hot targets take ys.argmax(axis=-1)." if one_hot else advice)
            + one_label(outputs, ys)
        )


def one_label(outputs: Any, ys: Any) -> str:
    """What to do with classes that have an axis of size 1 too many; "" if they do not."""
    extra = ys.shape == (*outputs.shape[:-1], 1) != outputs.shape
    return " Drop the last axis: ys.squeeze(-1)." if extra else ""


def other_classes(ys: np.ndarray, num_outputs: int) -> tuple[np.ndarray, str]:
    """Which targets are no class of the network, and what classes it has."""
    wrong = (ys < 0) | (ys >= num_outputs)  # NumPy compares as the numbers are, in any dtype
    return wrong, f"classes 0 … {num_outputs - 1}, since the network has {num_outputs} outputs"


def _no_shares(ys: np.ndarray, num_outputs: int) -> tuple[np.ndarray, str]:
    del num_outputs
    return (ys < 0) | (ys > 1), "numbers from 0 to 1 for a sigmoid"
