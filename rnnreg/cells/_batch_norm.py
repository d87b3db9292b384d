"""Recurrent batch normalisation: statistics of each step over the rows of a batch, stored ones for prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, check_number
from rnnreg._linalg import wide
from rnnreg._signatures import Number, typed
from rnnreg.cells._base import Cell, HiddenState, Training, made_by, normalisable, plain_weights
from rnnreg.cells._contracts import Params
from rnnreg.cells._gate import Gate, as_gate
from rnnreg.cells._lstm import LSTMState, lstm_gate


class NormalisedState(NamedTuple):
    """What a batch-normalised cell carries; only h and c have derivatives.

    Attributes:
      h: `[B, H]` hidden state, which is also the output.
      c: `[B, H]` memory of an LSTM; `[B, 0]` in any other cell.
      step: `[B, 1]`, the step whose statistics come next: how many a row has taken, and at most T − 1.
      weight: `[B, 1]`, how much a row counts in statistics over the batch.
    """

    h: Array
    c: Array
    step: Array
    weight: Array


@typed
def batch_norm(cell: Cell, num_steps: int, *, gain: Number = 0.1, epsilon: Number = 1e-5) -> Cell:
    """BN(h_{t−1} W_hh; g_h) + BN(x_t W_xh; g_x) + b, with BN(z; g) = g ⊙ (z − E z) / √(Var z + ε) at each step t.

    An LSTM also reads its memory through one, h_t = o ⊙ φ(BN(c_t; g_c) + b_c). In training (`apply(…, train=True)`) E
    and Var are those of step t over the rows of the batch, by their weights. For prediction they are stored, for each
    step, so that a row gives alone what it gives in a batch: `rr.networks.calibrated` computes them from all training
    rows, and `make_train` does so before each record and at the end. Steps after the last of `num_steps` use its
    statistics.

    Every diagnostic looks at the network that predicts: its Jacobians are those of a row with E and Var held. In
    training the rows are one system, and no row has a Jacobian of its own; gradients of the loss go through E and Var.
    Beside h and c a state holds the count of steps and the weight of the row, two numbers without a derivative: in
    Jacobians of all that is carried their rows and columns are 0, so that two eigenvalues a layer are 0 and two
    Lyapunov exponents −∞. Give `field="layer_0/h"`, or ask for the leading exponents. Along data each step has its own
    statistics; from step T on the map is the same at every step, and its fixed points are what `fixed_points` finds.

    b_h is the shift. New are the gains `gain_x`, `gain_h [G·H]` and in an LSTM `gain_c`, `b_c [H]`, which penalties
    leave alone, and the statistics, which no gradient moves.

    Args:
      cell: from `elman`, `irnn`, `gru(reset="after")` or `lstm`, before any other change of it.
      num_steps: T, steps that have statistics of their own.
      gain: where the gains start. A tanh saturates at 1, and gradients vanish.
      epsilon: ε, added to the variance.

    Returns:
      The cell. Sequences with masks are refused in training, since a step has no fixed set of rows then.

    Raises:
      ValueError: another cell, or a number out of range.

    Source: Cooijmans, Ballas, Laurent, Gülçehre & Courville 2017, "Recurrent batch normalization", section 3.

    >>> import rnnreg as rr
    >>> cell = batch_norm(rr.cells.elman(2), num_steps=5)
    >>> {name: leaf.shape for name, leaf in cell.init(jax.random.key(0), 1).items() if name.startswith("mean")}
    {'mean_x': (5, 2), 'mean_h': (5, 2)}
    """
    check_count(num_steps, "num_steps")
    check_number(epsilon, "epsilon", least=0)
    check_number(gain, "gain")
    made = normalisable(cell, "batch_norm")
    memory = made.factory == "lstm"
    if cell.gate is None:
        raise ValueError(
            "batch_norm normalises the recurrent product, and gru(reset='before') does its own; use 'after'."
        )
    names = ("x", "h", "c") if memory else ("x", "h")

    def init(key, input_size: int, dtype: Any = jnp.float32):
        params = dict(cell.init(key, input_size, dtype))
        for name in names:
            size = cell.hidden_size if name == "c" else params["b_h"].size
            params |= {
                f"gain_{name}": jnp.full(size, gain, dtype),
                f"mean_{name}": jnp.zeros((num_steps, size), dtype),
                f"variance_{name}": jnp.ones((num_steps, size), dtype),
            }
        return params | ({"b_c": jnp.zeros(cell.hidden_size, dtype)} if memory else {})

    def initial_state(batch_size: int, dtype: Any = jnp.float32):
        start, one = cell.initial_state(batch_size, dtype), jnp.ones((batch_size, 1), dtype)
        c = getattr(start, "c", jnp.zeros((batch_size, 0), dtype))
        return NormalisedState(start.h, c, jnp.zeros_like(one), one)

    def weights(params):
        found = plain_weights(params)
        b_hh = None if found.b_hh is None else jnp.zeros_like(found.b_hh)
        return found._replace(b_h=jnp.zeros_like(found.b_h), b_hh=b_hh)

    def gate_with(moments: Moments) -> Gate:
        return _gate(cell, dict(made.arguments), moments, epsilon, memory=memory)

    in_training = gate_with(_of_batch)

    def statistics(params, xs, before, states, weight):
        W_xh, W_hh, *_ = weights(params)
        values = {"x": xs @ W_xh, "h": before.h @ W_hh}
        if memory:  # what the step reads, before units may hold the old c

            def memory_of(state, x_proj, h_proj):
                return in_training.forward(params, state, x_proj, h_proj)[0].c

            values["c"] = jax.vmap(memory_of)(before, values["x"], values["h"])
        found = {}
        for name in names:
            mean, variance = jax.vmap(_over_rows, (0, None))(values[name], weight)
            rows = jnp.minimum(jnp.arange(num_steps), len(mean) - 1)
            found |= {f"mean_{name}": mean[rows, 0], f"variance_{name}": variance[rows, 0]}
        return found

    def settled(state):
        return state._replace(step=jnp.full_like(state.step, num_steps - 1))

    found = cell._replace(
        name=f"batch_norm({cell.name})",
        init=init,
        initial_state=initial_state,
        weights=weights,
        gate=gate_with(_stored),
        decayed=("W_xh", "W_hh*"),  # also what stands in the place of W_hh in a parametrisation
        training=Training(in_training, statistics, settled),
    )
    return made_by("batch_norm", found, cell=cell, num_steps=num_steps, gain=gain, epsilon=epsilon)


Moments = Callable[[Params, NormalisedState, str, Array], tuple[Array, Array]]


def _stored(params: Params, state: NormalisedState, name: str, z: Array) -> tuple[Array, Array]:
    """E and Var of the step that each row is at."""
    mean, variance = params[f"mean_{name}"], params[f"variance_{name}"]
    step = jnp.round(state.step[:, 0])  # a diagnostic may move the state by a rounding
    at = jnp.clip(step.astype(jnp.int32), 0, len(mean) - 1)
    return mean[at].astype(z.dtype), variance[at].astype(z.dtype)


def _of_batch(params: Params, state: NormalisedState, name: str, z: Array) -> tuple[Array, Array]:
    """E and Var over the rows of a batch."""
    del params, name
    return _over_rows(z, jax.lax.stop_gradient(state.weight[:, 0]))


def _over_rows(z: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted mean and variance over the first axis, which stays, of size 1."""
    wider = z.astype(wide(z.dtype))
    share = weight.astype(wider.dtype)
    total = jnp.sum(share)
    share = (share / jnp.where(total > 0, total, 1))[:, None]
    mean = jnp.sum(share * wider, axis=0, keepdims=True)
    variance = jnp.sum(share * jnp.square(wider - mean), axis=0, keepdims=True)
    return mean.astype(z.dtype), variance.astype(z.dtype)


def _gate(
    cell: Cell, given: dict[str, Any], moments: Moments, epsilon: Any, *, memory: bool
) -> Gate:
    """The gate of the cell on normalised projections."""
    assert cell.gate is not None
    own = as_gate(cell.gate)

    def forward(params, state, x_proj, h_proj):
        def normalised(name, z):
            mean, variance = moments(params, state, name, z)
            return params[f"gain_{name}"][None] * (z - mean) * jax.lax.rsqrt(variance + epsilon)

        def norm(params, place, z):
            return normalised("c", z) + params["b_c"][None] if place == "c" else z

        plain, inner = own, HiddenState(h=state.h)
        if memory:
            plain = lstm_gate(given["activation"], given["gate_activation"], norm)
            inner = LSTMState(state.h, state.c)
        x_proj = normalised("x", x_proj) + params["b_h"][None]
        h_proj = normalised("h", h_proj)
        if "b_hh" in params:
            h_proj = h_proj + params["b_hh"][None]
        new, values = plain.forward(params, inner, x_proj, h_proj)
        step, weight = jax.lax.stop_gradient((state.step, state.weight))
        step = jnp.minimum(step + 1, len(params["mean_x"]) - 1)
        return NormalisedState(new.h, getattr(new, "c", state.c), step, weight), values

    return Gate(forward, facts=cell.facts._replace(native=None, max_slope=None))
