"""Pascanu's Ω: a gradient that flows back one step should keep its norm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from rnnreg._checks import check_choice, check_number
from rnnreg._linalg import safe_divide, widen
from rnnreg._signatures import typed
from rnnreg._tree import leaf_paths, with_leaves
from rnnreg.cells import Cell, Weights, as_gate, recurrent_leaves
from rnnreg.networks import Visit
from rnnreg.penalties._base import Context, Penalty
from rnnreg.penalties._passes import (
    Layers,
    check_layers,
    chosen_visits,
    counted_steps,
    rows_of,
    running,
)
from rnnreg.recurrence import affine, product


@typed
def omega(
    layers: Layers = "*",
    *,
    derivative: str = "immediate",
    squared: bool = True,
    bound: float = 1e-20,
) -> Penalty:
    """Ω = mean_{b,t} (‖δ_t ∂h_t/∂h_{t−1}‖² / ‖δ_t‖² − 1)², with δ_t = ∂L/∂h_t: gradients neither vanish nor explode.

    The mean is over all steps (t = 1 starts from the initial state) and rows, by their weights, with ‖δ_t‖² ≥ bound;
    over the chosen layers it is a plain mean. h is all that the cell carries, so h and c of an LSTM.

    Two derivatives go with it. "immediate" is that of the authors' code: δ_t, the states and the slopes of the cell are
    constants, and W_hh moves where δ_t is multiplied by it. For an Elman network that is ∂/∂W_hh of
    ‖(δ_t ⊙ φ′(z_t)) W_hhᵀ‖². A cell that does its own products (`from_step`) does not tell its slopes apart, so there
    they move with the recurrent matrices too. "full" is the derivative of the number itself, with respect to all
    parameters, through the backward pass.

    Cost: on a CPU about 3 training steps on top of one, and 6 with "full" (Elman or GRU, H = 64, T = 100).

    Args:
      layers: "*", "last", or patterns of names: "layer_0", "layer_1/backward".
      derivative: "immediate" or "full".
      squared: the ratio of squared norms, as in the code and in eq. 10; False is that of norms, eq. 9.
      bound: the least ‖δ_t‖² that counts.

    Returns:
      The penalty.

    Raises:
      ValueError: layers that are not patterns, another derivative, a negative bound; in an objective, a pattern that
        matches no layer, or a network that is known as a function.

    Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", eq. 9 and 10, and
    their code (λ = 2, bound 1e-20; 4 in Fig. 7). Eq. 9 is a sum over steps, the code a mean: its λ is T times smaller.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(2, activation="identity", recurrent_init="orthogonal")], 1, readout="last")
    >>> objective = rr.make_objective(net, rr.losses.squared_error("mean"), {"omega": omega()})
    >>> batch, params = rr.Batch(jnp.ones((1, 5, 1)), jnp.ones((1, 1))), net.init(jax.random.key(0), 1)
    >>> parts = objective(params, {"omega": 2.0}, batch, {"omega": ()}, key=None, train=False)[1][0]
    >>> bool(parts.penalties["omega"] < 1e-9)  # an orthogonal matrix keeps every norm
    True
    """
    check_layers(layers)
    check_choice(derivative, "derivative", ("immediate", "full"))
    check_number(bound, "bound", least=0)

    def value(params, context, state):
        parts = [
            _mean_change(visit, context, derivative == "immediate", squared, bound)
            for visit in chosen_visits(context, layers)
        ]
        return jnp.stack(parts).mean(), state

    arguments = {"layers": layers, "derivative": derivative, "squared": squared, "bound": bound}
    return Penalty(
        lambda params: (),
        value,
        needs=frozenset({"state_gradients", "step"}),
        name="omega",
        arguments=tuple(arguments.items()),
    )


def _mean_change(
    visit: Visit, context: Context, immediate: bool, squared: bool, bound: float
) -> Array:
    """Ω of one pass."""
    assert context.state_gradients is not None
    assert context.step is not None
    given = visit.place.part_of(context.state_gradients)
    given = visit.before(), visit.inputs, jnp.swapaxes(given, 0, 1)
    given = running(jax.tree.map(widen, given), visit)
    before, inputs, gradients = jax.lax.stop_gradient(given) if immediate else given
    params = jax.tree.map(widen, visit.params)
    true = counted_steps(context, jnp.swapaxes(inputs, 0, 1)).T
    counted = running(true, visit)
    step = context.step[visit.place.layer]
    delta = _whole(step, params, before, inputs, gradients, counted)
    if immediate:
        params, delta = _recurrent_alone(visit.place.cell, params), jax.lax.stop_gradient(delta)
    before, inputs, delta, counted = rows_of((before, inputs, delta, counted))
    length = _squares(delta)
    counted = counted & (length >= bound) & (length > 0)
    scale = jax.lax.rsqrt(jnp.where(counted, length, 1))
    delta = jax.tree.map(lambda leaf: jnp.where(counted, scale, 0)[:, None] * leaf, delta)
    if immediate and visit.place.cell.gate is not None:
        pulled = _through_product(visit.place.cell, params, before, inputs, delta)
    else:
        pulled = jax.vjp(lambda state: step(params, state, inputs), before)[1](delta)[0]
    ratio = _squares(pulled)
    if not squared:
        ratio = jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1)), 0)
    weights = jnp.ones((), ratio.dtype) if context.weights is None else context.weights
    weights = jnp.broadcast_to(weights.astype(ratio.dtype), true.shape).reshape(-1)
    weights = jnp.where(counted, weights, 0)
    return safe_divide(jnp.sum(weights * jnp.square(ratio - 1)), jnp.sum(weights))


def _squares(rows: Any) -> Array:
    """‖·‖² of each row of a state `[R, …]`."""
    return jnp.sum(jnp.square(jax.vmap(lambda row: ravel_pytree(row)[0])(rows)), axis=-1)


def _whole(
    step: Any, params: Any, before: Any, inputs: Array, gradients: Array, counted: Array
) -> Any:
    """∂L/∂(state after each step) `[T, B, …]`, all of it, from ∂L/∂h_t: the rest flows back through the steps alone."""
    zeros = jax.tree.map(jnp.zeros_like, before)
    if len(jax.tree.leaves(zeros)) == 1:
        return zeros._replace(h=gradients)

    def back(later, at):
        state, x, gradient, true = at
        delta = later._replace(h=gradient)
        (earlier,) = jax.vjp(lambda state: step(params, state, x), state)[1](delta)

        def held(earlier, later):
            return jnp.where(true.reshape(-1, *[1] * (later.ndim - 1)), earlier, later)

        return jax.tree.map(held, earlier, later), delta

    last = jax.tree.map(lambda leaf: leaf[0], zeros)
    return jax.lax.scan(back, last, (before, inputs, gradients, counted), reverse=True)[1]


def _recurrent_alone(cell: Cell, params: Any) -> Any:
    """The parameters of a cell, all constant but its recurrent matrices; those of a parametrised one as they are."""
    if cell.gate is not None:
        return params
    leaves, moving = leaf_paths(params), recurrent_leaves(cell, params)
    held = {
        path: jax.lax.stop_gradient(leaf) for path, leaf in leaves.items() if path not in moving
    }
    return with_leaves(params, held)


def _through_product(cell: Cell, params: Any, before: Any, inputs: Array, delta: Any) -> Any:
    """(∂state_t/∂state_{t−1})ᵀ δ, all of it constant but the W_hh that the cotangent of h W_hh is multiplied by."""
    assert cell.weights is not None
    assert cell.gate is not None
    gate, (W_xh, W_hh, b_h, b_hh) = as_gate(cell.gate), Weights(*cell.weights(params))
    x_proj = affine(inputs, W_xh, b_h, None)

    def from_projection(state, h_proj):
        return gate(params, state, x_proj, h_proj)

    _, pull = jax.vjp(from_projection, before, affine(before.h, W_hh, b_hh, None))
    direct, d_proj = jax.lax.stop_gradient(pull(delta))
    return direct._replace(h=direct.h + product(d_proj, W_hh.T))
