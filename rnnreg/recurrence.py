"""A cell through time: the one scan of the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.cells import Cell


def unroll(
    cell: Cell,
    params: dict[str, Any],
    xs: Array,
    state: Any,
    *,
    mask: Array | None = None,
    recurrent_mask: Array | None = None,
    perturbations: Array | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Runs a cell over a time-major sequence, `state_t = cell(params, state_{t−1}, xs_t)`.

    A masked step holds the state, so padding on either side changes nothing. The input projection
    x W_xh + b is one product for the whole sequence, outside the loop.

    Args:
      cell: the cell.
      params: its parameters, in the dtype of `xs`.
      xs: `[T, B, D]` inputs.
      state: the state before the first step (before the last one, with `reverse`).
      mask: `[T, B]`, 1 where a step counts.
      recurrent_mask: `[B, H]`, multiplies the h that enters the recurrent product at every step
        (variational dropout, Gal & Ghahramani 2016); the carried state is left alone.
      perturbations: `[T, B, H]`, added to h after each step; the gradient with respect to zeros is
        ∂L/∂h_t.
      reverse: run from the last step to the first.

    Returns:
      The state after the last step, and the states at every step, `[T, B, ...]`.

    Raises:
      ValueError: a recurrent mask for a cell that does its own product.

    >>> import rnnreg as rr
    >>> cell = rr.cells.elman(2, activation=lambda z: z, recurrent_init="identity")
    >>> params = cell.init(jax.random.key(0), 1) | {"W_xh": jnp.ones((1, 2))}
    >>> final, states = unroll(cell, params, jnp.ones((3, 1, 1)), cell.initial_state(1))
    >>> states.h[:, 0, 0].tolist(), final.h.tolist()
    ([1.0, 2.0, 3.0], [[3.0, 3.0]])
    """
    inputs, advance = _step_and_inputs(cell, params, xs, recurrent_mask)

    def body(state, step_inputs):
        x, keep, perturbation = step_inputs
        new = advance(state, x)
        if perturbation is not None:
            new = new._replace(h=new.h + perturbation)
        if keep is not None:
            new = jax.tree.map(
                lambda n, o: jnp.where(keep.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, state
            )
        return new, new

    keeps = None if mask is None else mask.astype(bool)
    return jax.lax.scan(body, state, (inputs, keeps, perturbations), reverse=reverse)


def cell_step(cell: Cell) -> Callable[[dict[str, Any], Any, Array], Any]:
    """One step of any cell, `step(params, state, x [B, D]) -> state`, products included."""
    if cell.step is not None:
        return cell.step

    def step(params, state, x):
        inputs, advance = _step_and_inputs(cell, params, x, None)
        return advance(state, inputs)

    return step


def _step_and_inputs(cell: Cell, params: dict[str, Any], xs: Array, recurrent_mask: Array | None):
    """What enters each step (projected where the cell allows it), and the step on it."""
    if cell.gate is None or cell.weights is None:
        if recurrent_mask is not None:
            raise ValueError(
                f"recurrent dropout needs a cell with a gate; {cell.name!r} does its own recurrent "
                "product. Use a gate cell (for example gru(reset='after')), or drop the state inside "
                "your step."
            )
        step = cell.step
        if step is None:
            raise ValueError(f"the cell {cell.name!r} has neither weights and a gate, nor a step.")
        return xs, lambda state, x: step(params, state, x)

    gate = cell.gate
    W_xh, W_hh, bias = cell.weights(params)

    def advance(state, x_proj):
        h = state.h if recurrent_mask is None else state.h * recurrent_mask
        return gate(params, state, x_proj, h @ W_hh)

    projected = xs @ W_xh
    return projected + jnp.broadcast_to(bias, projected.shape), advance
