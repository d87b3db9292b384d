"""One layer and a readout in NumPy, with the Jacobians of its steps by complex steps: the oracle of penalties that look
at states, gradients and Jacobians."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from conftest import SEED
from recurrent_cases import CASES, HIDDEN

import rnnreg as rr

# Cells whose NumPy gates take complex numbers.
NAMES = ("elman_tanh", "elman_relu", "gru", "lstm")
# Of the rows: one has no true step, and one the weight 0.
LENGTHS, WEIGHTS = (6, 4, 0, 5), (1.0, 2.0, 1.0, 0.0)
LOSS = rr.losses.squared_error("mean")


class Walk(NamedTuple):
    """What one row does: lists over its true steps.

    Attributes:
      h: hidden states.
      jacobians: ∂(state after)/∂(state before), `[n, n]`.
      pulls: ∂(state after)/∂(h W_hh), `[n, G·H]`.
      deltas: ∂L/∂(state after), `[n]`.
    """

    h: list
    jacobians: list
    pulls: list
    deltas: list


def problem(name, *, dtype=None):
    """A network, its parameters and a batch with a mask and weights of rows."""
    rng = np.random.default_rng([SEED, 13])
    net = rr.network([CASES[name].cell], 1)
    shapes = jax.eval_shape(lambda key: net.init(key, 2), jax.random.key(0))
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.6 * rng.normal(size=leaf.shape), dtype), shapes
    )
    mask = np.arange(6) < np.array(LENGTHS)[:, None]
    xs, ys = rng.normal(size=(4, 6, 2)), rng.normal(size=(4, 6, 1))
    arrays = [jnp.asarray(array, dtype) for array in (xs, ys)]
    return net, params, rr.Batch(*arrays, jnp.asarray(mask, int), jnp.asarray(WEIGHTS, dtype))


def objective_of(net, penalty):
    """`f(params, batch, state=None) -> (R, state)` of one penalty in an objective, jitted."""
    objective = rr.make_objective(net, LOSS, {"penalty": penalty})

    @jax.jit
    def run(params, batch, state=None):
        state = {"penalty": penalty.init(params) if state is None else state}
        _, (parts, after) = objective(params, {"penalty": 1.0}, batch, state, key=None, train=True)
        return parts.penalties["penalty"], after["penalty"]

    return run


def gradient_of(net, penalty):
    """`f(params, batch) -> (R, ∂R/∂params)`, jitted."""
    run = objective_of(net, penalty)
    return jax.jit(jax.value_and_grad(lambda params, batch: run(params, batch)[0]))


def walks(name: str, params: Any, batch: Any) -> list[Walk]:
    """Every row of weight and length above 0, in float64, one step after another."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
    xs, ys = np.asarray(batch.xs, float), np.asarray(batch.ys, float)
    return [
        _walk(name, params, xs[row, :length], ys[row, :length], WEIGHTS[row] / sum(counted()))
        for row, length in enumerate(LENGTHS)
        if length and WEIGHTS[row]
    ]


def counted():
    """The weights of the rows that have a true step."""
    return [weight for weight, length in zip(WEIGHTS, LENGTHS, strict=True) if length]


def weights():
    """Those of `walks`."""
    return [weight for weight in counted() if weight]


def _walk(name, params, xs, ys, weight) -> Walk:
    case, own, out = CASES[name], params["layer_0"], params["readout"]
    fields = 2 if name == "lstm" else 1
    state, found = np.zeros(fields * HIDDEN), Walk([], [], [], [])

    def projected(state, x):
        return x @ own["W_xh"] + own["b_h"], state[:HIDDEN] @ own["W_hh"] + own.get("b_hh", 0)

    def gate(state, x_proj, h_proj):
        new = case.gate(tuple(np.split(state[None], fields, 1)), x_proj[None], h_proj[None])
        return np.concatenate(new, axis=1)[0]

    for x in xs:
        x_proj, h_proj = projected(state, x)
        found.jacobians.append(_complex_step(lambda s, x=x: gate(s, *projected(s, x)), state))
        found.pulls.append(_complex_step(lambda h, s=state, x=x_proj: gate(s, x, h), h_proj))
        state = gate(state, x_proj, h_proj)
        found.h.append(state[:HIDDEN])
    later = np.zeros(fields * HIDDEN)
    for h, y, J in zip(found.h[::-1], ys[::-1], found.jacobians[::-1], strict=True):
        error = h @ out["W_hy"] + out["b_y"] - y
        later[:HIDDEN] += weight * 2 * error @ out["W_hy"].T / len(ys)
        found.deltas.insert(0, later)
        later = later @ J
    return found


def _complex_step(function, at):
    """The Jacobian of a function of a vector, exact to rounding."""
    steps = np.eye(len(at)) * 1e-30j
    return np.stack([function(at + step).imag / 1e-30 for step in steps], axis=1)


def along(params, seed=0):
    """A random direction of the parameters."""
    rng = np.random.default_rng([SEED, seed])
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params)


def slope(function, params, direction, size=1e-6):
    """The central difference of a function of NumPy along a direction."""
    ends = [
        function(
            jax.tree.map(
                lambda leaf, by: np.asarray(leaf, float) + sign * size * np.asarray(by),
                params,
                direction,
            )
        )
        for sign in (1, -1)
    ]
    return (ends[0] - ends[1]) / (2 * size)


def inner(one, other):
    """Σ of the products of two trees."""
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.vdot(a, b)), one, other)))
