"""The recurrence with a derivative of its own: one weight-gradient product a sequence, not one a step.

Autodiff of a scan carries ∂L/∂W through the backward loop and adds an H×H product to it at every step. Here
the derivative is stated forwards, as the linearised recurrence

    d_state_t = tangent_t(d_state_{t−1}, u_t + d h_{t−1} W_hh),
    u_t = h_{t−1} dW_hh + x_t dW_xh + db + dx_t W_xh                  for all t in one product, outside the loop,

whose coefficients come from activations that the forward pass stored: those that a gate names and its tangent reads,
or the projections, on which the gate is then linearised by `jax.jvp`. JAX transposes it: the backward loop then
has the one product δ_t W_hhᵀ and carries the state's cotangent alone, and every weight gradient is the one product
Σ_t [h_{t−1}, x_t, 1]ᵀ δ_t after it. Being a `custom_jvp`, it serves forward mode and higher orders as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.cells import Cell, Gate, Weights, as_gate
from rnnreg.recurrence._product import lax_precision, rounded
from rnnreg.recurrence._scan import (
    Streams,
    affine,
    gates_of,
    loop,
    masked,
    plain_scan,
    settle,
    states_before,
)


class Inputs(NamedTuple):
    """Everything that the recurrence depends on, so that each part can have a tangent."""

    weights: Weights
    params: Any
    streams: Streams
    state: Any
    recurrent_mask: Array | None


class Stored(NamedTuple):
    """What the forward pass keeps for the derivative: states, the gate's output, and what its tangent reads."""

    states: Any
    gated: Any
    saved: Any


def fused_scan(
    cell: Cell,
    params: dict[str, Any],
    streams: Streams,
    state: Any,
    recurrent_mask: Array | None,
    *,
    reverse: bool,
    precision: str | None,
    inside: bool,
) -> tuple[Any, Any]:
    """`unroll` with a derivative of its own.

    Args:
      cell: a cell with a gate.
      params: its parameters.
      streams: what enters at each step.
      state: the state before the first step.
      recurrent_mask: `[B, H]` or None.
      reverse: run from the last step to the first.
      precision: of the products.
      inside: project each input inside the loop (small D), or all of them before it.
    """
    assert cell.weights is not None
    assert cell.gate is not None
    if streams.xs.shape[0] == 0:  # no step, so nothing to be fused
        options = {"reverse": reverse, "precision": precision}
        return plain_scan(cell, params, streams, state, recurrent_mask, **options)
    options = {"reverse": reverse, "precision": precision, "inside": inside}
    gate = as_gate(cell.gate)

    @jax.custom_jvp
    def states_of(inputs: Inputs) -> Any:
        return forward_pass(gate, inputs, **options).states

    @states_of.defjvp
    def _(primals, tangents):
        (inputs,), (d_inputs,) = primals, tangents
        stored = forward_pass(gate, inputs, **options, store=True)
        return stored.states, tangent_pass(gate, inputs, d_inputs, stored, **options)

    weights = Weights(*cell.weights(params))
    if weights.b_h is None:  # a cell without a bias
        weights = weights._replace(b_h=jnp.zeros_like(weights.W_hh[0]))
    gate, own = _closed(gate, params, state, weights)
    states = states_of(Inputs(weights, own, streams, state, recurrent_mask))
    return jax.tree.map(lambda leaf: leaf[0 if reverse else -1], states), states


def forward_pass(
    gate: Gate,
    inputs: Inputs,
    *,
    reverse: bool,
    precision: str | None,
    inside: bool,
    store: bool = False,
) -> Stored:
    W_xh, W_hh, b_h, b_hh = inputs.weights
    recurrent_mask = inputs.recurrent_mask
    xs = inputs.streams.xs
    project = functools.partial(affine, weights=W_xh, bias=b_h, precision=precision)

    def body(state, step_inputs):
        x, keep, perturbation, holds = step_inputs
        h = masked(state.h, recurrent_mask)
        x_proj = project(x) if inside else x
        h_proj = affine(h, W_hh, b_hh, precision)
        gated, values = gate.forward(inputs.params, state, x_proj, h_proj)
        new = settle(gated, state, keep, perturbation, holds)
        saved = () if not store else values if gate.tangent else (x_proj, h_proj)
        # A row that is held has no tangent, so its state serves; a unit that is held shares its row with others.
        by_unit = holds is not None or (keep is not None and keep.ndim > 1)
        apart = by_unit or perturbation is not None
        return new, (new, gated if apart else None, saved)

    xs = xs if inside else project(xs)
    streams = inputs.streams._replace(xs=xs)
    _, (states, gated, saved) = loop(
        body, inputs.state, streams, gates=gates_of(inputs.weights), reverse=reverse
    )
    return Stored(states, states if gated is None else gated, saved)


def tangent_pass(
    gate: Gate,
    inputs: Inputs,
    d_inputs: Inputs,
    stored: Stored,
    *,
    reverse: bool,
    precision: str | None,
    inside: bool,
) -> Any:
    """The tangents of all states, linear in `d_inputs`."""
    W_xh, W_hh, _, _ = inputs.weights
    dW_xh, dW_hh, db_h, db_hh = d_inputs.weights
    xs, keeps, _, holds = inputs.streams
    d_xs, _, d_perturbations, _ = d_inputs.streams
    mask, d_mask = inputs.recurrent_mask, d_inputs.recurrent_mask
    linear = functools.partial(_linear, precision=precision)

    previous = states_before(inputs.state, stored.states, reverse=reverse)
    W_xh, W_hh, xs = (rounded(value, precision) for value in (W_xh, W_hh, xs))
    h = rounded(masked(previous.h, mask), precision)
    d_x = linear(d_xs, W_xh)
    if gate.additive and inside:  # one product serves W_hh, W_xh and b_h
        joined = jnp.concatenate([h, xs, jnp.ones((*xs.shape[:2], 1), xs.dtype)], axis=-1)
        bias = db_h if db_hh is None else db_h + db_hh
        u_x, u_h = d_x, linear(joined, jnp.concatenate([dW_hh, dW_xh, bias[None]]))
    else:
        u_x, u_h = d_x + linear(xs, dW_xh, db_h), linear(h, dW_hh, db_hh)
    if mask is not None:
        u_h = u_h + linear(previous.h * d_mask, W_hh)
    if gate.additive:
        u_x, u_h = u_x + u_h, None

    tangent = gate.tangent or _derived_tangent(gate, inputs.params, d_inputs.params)
    # Its transpose δ W_hhᵀ is then an ordinary product with a matrix that was transposed once.
    W_T = jax.lax.optimization_barrier(W_hh.T)

    def recurrent(d_h):
        contract_last = (((1,), (1,)), ((), ()))
        return jax.lax.dot_general(d_h, W_T, contract_last, precision=lax_precision(precision))

    # Without the checkpoint the scan's transpose would store φ′ beside the activations that it is made of.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def body(d_state, step_inputs):
        state, gated, saved, u_x, u_h, *ending = step_inputs
        d_h_proj = recurrent(masked(d_state.h, mask))
        d_h_proj = d_h_proj if u_h is None else d_h_proj + u_h
        d_new = tangent(saved, state, gated, d_state, u_x, d_h_proj)
        d_new = settle(d_new, d_state, *ending)
        return d_new, d_new

    ends = (keeps, d_perturbations, holds)
    streams = (previous, stored.gated, stored.saved, u_x, u_h, *ends)
    gates = gates_of(inputs.weights)
    return loop(body, d_inputs.state, streams, gates=gates, reverse=reverse)[1]


def _closed(gate: Gate, params: Any, state: Any, weights: Weights) -> tuple[Gate, Any]:
    """The gate, and its parameters: {} for one with a tangent, else its own and all that it closes over.

    A gate of a function of `hyper` closes over traced numbers, which a `custom_jvp` would not see. They become
    parameters, and a tangent by hand, which does not know them, gives way to the derived one.
    """
    own = {} if gate.tangent else params
    projected = jnp.zeros((state.h.shape[0], weights.W_hh.shape[-1]), state.h.dtype)
    forward, captured = jax.closure_convert(gate.forward, own, state, projected, projected)
    if gate.tangent and not captured:
        return gate, own

    def opened(own, state, x_proj, h_proj):
        return forward(own[0], state, x_proj, h_proj, *own[1])

    closed = Gate(opened, additive=gate.additive, facts=gate.facts)
    return closed, (own, captured)


def _derived_tangent(gate: Gate, params: Any, d_params: Any) -> Callable[..., Any]:
    """The tangent of a gate that states none: `jax.jvp` of it at the projections that the forward pass stored."""

    def tangent(saved, state, new, d_state, d_x_proj, d_h_proj):
        del new
        x_proj, h_proj = saved
        if gate.additive:  # all of the tangent is in one of the two
            d_h_proj, d_x_proj = d_x_proj + d_h_proj, jnp.zeros_like(d_x_proj)

        def forward(*point):
            return gate.forward(*point)[0]

        point, direction = (params, state, x_proj, h_proj), (d_params, d_state, d_x_proj, d_h_proj)
        return jax.jvp(forward, point, direction)[1]

    return tangent


def _linear(
    values: Array, weights: Array, bias: Array | None = None, *, precision: str | None
) -> Array:
    """values W + b with time and batch as one axis, so that the transpose is one plain product."""
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])  # -1 needs a number
    out = jnp.matmul(flat, weights, precision=lax_precision(precision))
    out = out if bias is None else out + bias[None]
    return out.reshape(*values.shape[:-1], weights.shape[-1])
