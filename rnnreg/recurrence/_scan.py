"""The plain recurrence: one `lax.scan`, differentiated by JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._signatures import typed
from rnnreg.cells import Cell, Weights, as_gate, as_step, formed
from rnnreg.recurrence._product import check_precision, product

# A loop's turn costs a few microseconds on a CPU and a kernel launch or two elsewhere. Short sequences are written out
# instead, up to so many gate blocks in all: 16 steps of an Elman network, 5 of a GRU, 4 of an LSTM. Value and gradient
# are then 1.1 to 1.3 (Elman, 4 to 16 steps) and 1.2 to 2.7 times faster (4 steps of the gated cells) on two CPU cores;
# 16 steps of a GRU or LSTM would compile 2 to 6 times as long and run up to 9 times slower.
_WRITTEN_OUT = 16
_GATES_OF_A_STEP = 4  # of a cell that does its own products, so that their number is not known


class Streams(NamedTuple):
    """What enters at each step beside the state, time first.

    Attributes:
      xs: `[T, B, D]`.
      keeps: `[T, B]` or `[T, B, H]` booleans, False where the state (of a unit) is held; None where every step counts.
      perturbations: `[T, B, H]`, added to h after each step; None without.
      holds: by field of the state, `[T, B, H]` booleans, True where a unit holds it; None without.
    """

    xs: Array
    keeps: Array | None
    perturbations: Array | None
    holds: dict[str, Array] | None = None


def plain_scan(
    cell: Cell,
    params: dict[str, Any],
    streams: Streams,
    state: Any,
    recurrent_mask: Array | None,
    *,
    reverse: bool,
    precision: str | None,
    inside: bool = False,
) -> tuple[Any, Any]:
    """`unroll` as one scan; the input projection is one product for the whole sequence, outside the loop."""
    assert not inside
    inputs, advance = step_and_inputs(cell, params, streams.xs, recurrent_mask, precision)
    gates = _GATES_OF_A_STEP
    if cell.gate is not None and cell.weights is not None:
        gates = inputs.shape[-1] // cell.hidden_size  # the inputs are projected

    def body(state, step_inputs):
        x, *ending = step_inputs
        new = settle(advance(state, x), state, *ending)
        return new, new

    return loop(body, state, streams._replace(xs=inputs), gates=gates, reverse=reverse)


def loop(
    body: Callable[[Any, Any], Any], state: Any, streams: Any, *, gates: int, reverse: bool
) -> Any:
    """`lax.scan`, written out where the sequence is short for a cell of so many gates."""
    num_steps = jax.tree.leaves(streams)[0].shape[0]
    unroll = num_steps if num_steps * gates <= _WRITTEN_OUT else 1
    return jax.lax.scan(body, state, streams, reverse=reverse, unroll=max(unroll, 1))


def gates_of(weights: Weights) -> int:
    """G, the number of square blocks of W_hh."""
    return max(1, weights.W_hh.shape[-1] // weights.W_hh.shape[-2])


@typed
def cell_step(
    cell: Cell, *, precision: str | None = None
) -> Callable[[dict[str, Any], Any, Array], Any]:
    """One step of any cell, products included.

    Args:
      cell: the cell.
      precision: of the products; see `product`.

    Returns:
      `step(params, state, x [B, D]) -> state`, on rows.

    >>> import rnnreg as rr
    >>> cell = rr.cells.elman(2, activation=jax.nn.identity, recurrent_init="identity")
    >>> params = cell.init(jax.random.key(0), 1) | {"W_xh": jnp.ones((1, 2))}
    >>> cell_step(cell)(params, cell.initial_state(1), jnp.ones((1, 1))).h.tolist()
    [[1.0, 1.0]]
    """
    check_precision(precision)

    def step(params, state, x):
        inputs, advance = step_and_inputs(cell, formed(cell, params), x, None, precision)
        return advance(state, inputs)

    return step


def cell_values(
    cell: Cell, *, precision: str | None = None
) -> Callable[[dict[str, Any], Any, Array], dict[str, Array]]:
    """What a cell's gate or step names at one step, `values(params, state, x [B, D])`, such as its open gates."""
    if cell.gate is None and cell.step is not None:
        whole = as_step(cell.step)
        return lambda params, state, x: whole.forward(formed(cell, params), state, x)[1]

    def values(params, state, x):
        params = formed(cell, params)
        assert cell.weights is not None
        assert cell.gate is not None
        gate, (W_xh, W_hh, b_h, b_hh) = as_gate(cell.gate), Weights(*cell.weights(params))
        own = {} if gate.tangent else params
        x_proj, h_proj = affine(x, W_xh, b_h, precision), affine(state.h, W_hh, b_hh, precision)
        return gate.forward(own, state, x_proj, h_proj)[1]

    return values


def check_recurrent_dropout(cell: Cell) -> None:
    """Raises if what enters the recurrent product of a cell cannot be dropped."""
    if cell.gate is None or cell.weights is None:
        raise ValueError(
            f"recurrent dropout needs a cell with a gate; {cell.name!r} does its own recurrent "
            "product. Use a gate cell (for example gru(reset='after')), or drop the state inside "
            "your step."
        )


def step_and_inputs(
    cell: Cell,
    params: dict[str, Any],
    xs: Array,
    recurrent_mask: Array | None,
    precision: str | None,
):
    """What enters each step (projected where the cell allows it), and the step on it."""
    if recurrent_mask is not None:
        check_recurrent_dropout(cell)
    if cell.gate is None or cell.weights is None:
        step = cell.step
        if step is None:
            raise ValueError(f"the cell {cell.name!r} has neither weights and a gate, nor a step.")
        return xs, lambda state, x: step(params, state, x)

    gate = as_gate(cell.gate)
    W_xh, W_hh, b_h, b_hh = Weights(*cell.weights(params))

    def advance(state, x_proj):
        h = masked(state.h, recurrent_mask)
        return gate(params, state, x_proj, affine(h, W_hh, b_hh, precision))

    return affine(xs, W_xh, b_h, precision), advance


def affine(values: Array, weights: Array, bias: Array | None, precision: str | None) -> Array:
    """values W + b, over any leading axes."""
    projected = product(values, weights, precision=precision)
    return projected if bias is None else projected + jnp.broadcast_to(bias, projected.shape)


def masked(h: Array, recurrent_mask: Array | None) -> Array:
    """The h that enters the recurrent product."""
    return h if recurrent_mask is None else h * recurrent_mask


def settle(
    new: Any,
    old: Any,
    keep: Array | None,
    perturbation: Array | None,
    holds: dict[str, Array] | None = None,
) -> Any:
    """What a step ends with: the new state, or the old one in the units that hold it; h perturbed; else the old rows.

    Linear in states and perturbation, so tangents end alike.
    """
    for name, hold in (holds or {}).items():
        new = new._replace(**{name: jnp.where(hold, getattr(old, name), getattr(new, name))})
    if perturbation is not None:
        new = new._replace(h=new.h + perturbation)
    if keep is None:
        return new

    def kept(new, old):
        return jnp.where(keep.reshape(*keep.shape, *[1] * (new.ndim - keep.ndim)), new, old)

    return jax.tree.map(kept, new, old)


def states_before(start: Any, states: Any, *, reverse: bool = False) -> Any:
    """The states that each step starts from, `[T, B, …]`, from the first one and those after each step."""

    def shifted(start, after):
        joined = (after[1:], start[None]) if reverse else (start[None], after[:-1])
        return jnp.concatenate(joined)

    return jax.tree.map(shifted, start, states)
