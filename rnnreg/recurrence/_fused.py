"""The recurrence with a derivative of its own: one weight-gradient product a sequence, not one a step.

Autodiff of a scan carries ∂L/∂W through the backward loop and adds an H×H product to it at every step. Here
the derivative is stated forwards, as the linearised recurrence

    d_state_t = tangent_t(d_state_{t−1}, u_t + d h_{t−1} W_hh),
    u_t = h_{t−1} dW_hh + x_t dW_xh + db + dx_t W_xh                  for all t in one product, outside the loop,

whose coefficients come from activations that the forward pass stored. JAX transposes it: the backward loop then
has the one product δ_t W_hhᵀ and carries the state's cotangent alone, and every weight gradient is the one product
Σ_t [h_{t−1}, x_t, 1]ᵀ δ_t after it. Being a `custom_jvp`, it serves forward mode and higher orders as well.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.cells import Cell, Derivative, Weights
from rnnreg.recurrence._product import lax_precision, rounded
from rnnreg.recurrence._scan import Streams, affine, gates_of, loop, masked, settle


class _Inputs(NamedTuple):
    """Everything that the recurrence depends on, so that each part can have a tangent."""

    weights: Weights
    streams: Streams
    state: Any
    recurrent_mask: Array | None


class _Stored(NamedTuple):
    """What the forward pass keeps for the derivative: states, the gate's output, its saved activations."""

    states: Any
    gated: Any
    saved: tuple[Array, ...]


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
    """`unroll` with the gate's own derivative.

    Args:
      cell: a cell with a `derivative`.
      params: its parameters.
      streams: what enters at each step.
      state: the state before the first step.
      recurrent_mask: `[B, H]` or None.
      reverse: run from the last step to the first.
      precision: of the products.
      inside: project each input inside the loop (small D), or all of them before it.
    """
    assert cell.weights is not None
    assert cell.derivative is not None
    options = {"reverse": reverse, "precision": precision, "inside": inside}
    derivative = cell.derivative

    @jax.custom_jvp
    def states_of(inputs: _Inputs) -> Any:
        return _forward(derivative, inputs, **options).states

    @states_of.defjvp
    def _(primals, tangents):
        (inputs,), (d_inputs,) = primals, tangents
        stored = _forward(derivative, inputs, **options, store=True)
        return stored.states, _tangent(derivative, inputs, d_inputs, stored, **options)

    weights = Weights(*cell.weights(params))
    if weights.b_h is None:  # a cell without a bias
        weights = weights._replace(b_h=jnp.zeros_like(weights.W_hh[0]))
    states = states_of(_Inputs(weights, streams, state, recurrent_mask))
    return jax.tree.map(lambda leaf: leaf[0 if reverse else -1], states), states


def _forward(
    derivative: Derivative,
    inputs: _Inputs,
    *,
    reverse: bool,
    precision: str | None,
    inside: bool,
    store: bool = False,
) -> _Stored:
    W_xh, W_hh, b_h, b_hh = inputs.weights
    recurrent_mask = inputs.recurrent_mask
    xs, keeps, perturbations = inputs.streams
    project = functools.partial(affine, weights=W_xh, bias=b_h, precision=precision)

    def body(state, step_inputs):
        x, keep, perturbation = step_inputs
        h = masked(state.h, recurrent_mask)
        x_proj = project(x) if inside else x
        gated, saved = derivative.record(state, x_proj, affine(h, W_hh, b_hh, precision))
        new = settle(gated, state, keep, perturbation)
        return new, (new, None if perturbation is None else gated, saved if store else ())

    xs = xs if inside else project(xs)
    streams = Streams(xs, keeps, perturbations)
    _, (states, gated, saved) = loop(
        body, inputs.state, streams, gates=gates_of(inputs.weights), reverse=reverse
    )
    return _Stored(states, states if gated is None else gated, saved)


def _tangent(
    derivative: Derivative,
    inputs: _Inputs,
    d_inputs: _Inputs,
    stored: _Stored,
    *,
    reverse: bool,
    precision: str | None,
    inside: bool,
) -> Any:
    """The tangents of all states, linear in `d_inputs`."""
    W_xh, W_hh, _, _ = inputs.weights
    dW_xh, dW_hh, db_h, db_hh = d_inputs.weights
    xs, keeps, _ = inputs.streams
    d_xs, _, d_perturbations = d_inputs.streams
    mask, d_mask = inputs.recurrent_mask, d_inputs.recurrent_mask
    linear = functools.partial(_linear, precision=precision)

    def before(start, after):
        """The states that each step starts from."""
        joined = (after[1:], start[None]) if reverse else (start[None], after[:-1])
        return jnp.concatenate(joined)

    previous = jax.tree.map(before, inputs.state, stored.states)
    W_xh, W_hh, xs = (rounded(value, precision) for value in (W_xh, W_hh, xs))
    h = rounded(masked(previous.h, mask), precision)
    d_x = linear(d_xs, W_xh)
    if derivative.additive and inside:  # one product serves W_hh, W_xh and b_h
        joined = jnp.concatenate([h, xs, jnp.ones((*xs.shape[:2], 1), xs.dtype)], axis=-1)
        bias = db_h if db_hh is None else db_h + db_hh
        u_x, u_h = d_x, linear(joined, jnp.concatenate([dW_hh, dW_xh, bias[None]]))
    else:
        u_x, u_h = d_x + linear(xs, dW_xh, db_h), linear(h, dW_hh, db_hh)
    if mask is not None:
        u_h = u_h + linear(previous.h * d_mask, W_hh)
    if derivative.additive:
        u_x, u_h = u_x + u_h, None

    # Its transpose δ W_hhᵀ is then an ordinary product with a matrix that was transposed once.
    W_T = jax.lax.optimization_barrier(W_hh.T)

    def recurrent(d_h):
        contract_last = (((1,), (1,)), ((), ()))
        return jax.lax.dot_general(d_h, W_T, contract_last, precision=lax_precision(precision))

    # Without the checkpoint the scan's transpose would store φ′ beside the activations that it is made of.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def body(d_state, step_inputs):
        state, gated, saved, keep, u_x, u_h, d_perturbation = step_inputs
        d_h_proj = recurrent(masked(d_state.h, mask))
        d_h_proj = d_h_proj if u_h is None else d_h_proj + u_h
        d_new = derivative.tangent(saved, state, gated, d_state, u_x, d_h_proj)
        d_new = settle(d_new, d_state, keep, d_perturbation)
        return d_new, d_new

    streams = (previous, stored.gated, stored.saved, keeps, u_x, u_h, d_perturbations)
    gates = gates_of(inputs.weights)
    return loop(body, d_inputs.state, streams, gates=gates, reverse=reverse)[1]


def _linear(
    values: Array, weights: Array, bias: Array | None = None, *, precision: str | None
) -> Array:
    """values W + b with time and batch as one axis, so that the transpose is one plain product."""
    flat = values.reshape(-1, values.shape[-1])
    out = jnp.matmul(flat, weights, precision=lax_precision(precision))
    out = out if bias is None else out + bias[None]
    return out.reshape(*values.shape[:-1], -1)
