"""What a cell is: its weights, its gates, and the state that it carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from rnnreg._checks import is_count

Params = dict[str, Any]


class HiddenState(NamedTuple):
    """The state of a cell that carries its output alone.

    Attributes:
      h: `[B, H]` hidden state, which is also the output.
    """

    h: Array


class Weights(NamedTuple):
    """The effective weights of a cell, formed once a sequence from its parameters.

    Attributes:
      W_xh: `[D, G·H]`, enters as x W_xh + b_h.
      W_hh: `[H, G·H]`, enters as h W_hh + b_hh.
      b_h: `[G·H]`.
      b_hh: `[G·H]`, for cells whose recurrent product has a bias of its own; None without.
    """

    W_xh: Array
    W_hh: Array
    b_h: Array
    b_hh: Array | None = None


class Derivative(NamedTuple):
    """A gate's own derivative, from activations that the forward pass stores.

    Neither function may depend on parameters: what they use comes in through the projections.

    Attributes:
      record: `record(state, x_proj, h_proj) -> (state', saved)`, the gate, with a tuple of `[B, …]` arrays
        that its derivative needs beside the states before and after.
      tangent: `tangent(saved, state, state', d_state, d_x_proj, d_h_proj) -> d_state'`, linear in the d's. What h
        contributes through `h_proj` is not in it.
      additive: whether the gate sees its projections only as their sum; one stream of tangents then serves both.
    """

    record: Callable[..., tuple[Any, tuple[Array, ...]]]
    tangent: Callable[..., Any]
    additive: bool


class Cell(NamedTuple):
    """A recurrent cell as its gates; the library does the matrix products.

    One step, on rows: `state' = gate(params, state, x W_xh + b_h, h W_hh + b_hh)`. A cell whose recurrent
    product does not come first gives `step(params, state, x) -> state` instead of `gate`.

    Attributes:
      name: short name, for messages and records.
      hidden_size: H.
      init: `init(key, input_size, dtype) -> params`.
      initial_state: `initial_state(batch_size, dtype) -> state`, zeros; field `h` is the output.
      weights: `weights(params) -> Weights`, or the plain triple (W_xh, W_hh, b_h); formed once a sequence.
      gate: row-wise and pure, `gate(params, state, x_proj [B, G·H], h_proj [B, G·H]) -> state`.
      step: `step(params, state, x [B, D]) -> state`, for cells without `gate`.
      derivative: the gate's own derivative, which the fused recurrence needs; None leaves it to autodiff.
    """

    name: str
    hidden_size: int
    init: Callable[..., Params]
    initial_state: Callable[..., Any]
    weights: Callable[[Params], Any] | None = None
    gate: Callable[[Params, Any, Array, Array], Any] | None = None
    step: Callable[[Params, Any, Array], Any] | None = None
    derivative: Derivative | None = None


def plain_weights(params: Params) -> Weights:
    """The leaves themselves, for cells without a parametrisation."""
    return Weights(params["W_xh"], params["W_hh"], params["b_h"], params.get("b_hh"))


def gate_of(record: Callable[..., tuple[Any, Any]]) -> Callable[[Params, Any, Array, Array], Any]:
    """The gate whose record this is: the state alone, from projections alone."""

    def gate(params: Params, state: Any, x_proj: Array, h_proj: Array) -> Any:
        del params
        return record(state, x_proj, h_proj)[0]

    return gate


def zero_hidden(hidden_size: int) -> Callable[..., HiddenState]:
    """`initial_state` of a cell that carries only h."""

    def initial_state(batch_size: int, dtype: Any = jnp.float32) -> HiddenState:
        return HiddenState(h=jnp.zeros((batch_size, hidden_size), dtype))

    return initial_state


def check_hidden_size(hidden_size: int) -> None:
    """Raises where the hidden size is not a positive whole number (it sets shapes, so it is static)."""
    if not is_count(hidden_size):
        raise ValueError(
            f"hidden_size must be a positive int; got {hidden_size!r}. It sets shapes: sweep it as a "
            'static axis, static={"hidden_size": [16, 32]}.'
        )


def from_step(
    step: Callable[[Params, Any, Array], Any],
    *,
    init: Callable[..., Params],
    hidden_size: int,
    initial_state: Callable[..., Any] | None = None,
    name: str = "custom",
) -> Cell:
    """A cell from any `step(params, state, x) -> state`; welcome everywhere, through the plain scan.

    Args:
      step: one step on rows `x [B, D]`; the state is a NamedTuple whose field `h [B, H]` is the output.
      init: `init(key, input_size, dtype) -> params`, a dict of arrays.
      hidden_size: H.
      initial_state: `initial_state(batch_size, dtype) -> state`; None is a `HiddenState` of zeros.
      name: for messages and records.

    >>> leaky = from_step(
    ...     lambda params, state, x: HiddenState(h=0.5 * state.h + x @ params["W_xh"]),
    ...     init=lambda key, input_size, dtype: {"W_xh": jnp.ones((input_size, 3), dtype)},
    ...     hidden_size=3, name="leaky")
    >>> leaky.step({"W_xh": jnp.ones((1, 3))}, leaky.initial_state(1), jnp.ones((1, 1))).h.tolist()
    [[1.0, 1.0, 1.0]]
    """
    check_hidden_size(hidden_size)
    return Cell(name, hidden_size, init, initial_state or zero_hidden(hidden_size), step=step)
