"""The long short-term memory cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._signatures import Number, typed
from rnnreg.cells._activation import Activation, as_activation
from rnnreg.cells._base import Cell, check_hidden_size, made_by, plain_weights
from rnnreg.cells._contracts import DrawFunction
from rnnreg.cells._gate import Facts, Gate
from rnnreg.cells._initializers import gate_blocks, resolve
from rnnreg.cells._norm import PLAIN, Norm, normal_gate


class LSTMState(NamedTuple):
    """What an LSTM carries.

    Attributes:
      h: `[B, H]` hidden state, which is also the output.
      c: `[B, H]` cell memory.
    """

    h: Array
    c: Array


@typed
def lstm(
    hidden_size: int,
    *,
    forget_bias: Number = 1.0,
    activation: Activation | str | Callable[[Array], Array] = jnp.tanh,
    gate_activation: Activation | str | Callable[[Array], Array] = jax.nn.sigmoid,
    recurrent_init: str | DrawFunction = "orthogonal",
    input_init: str | DrawFunction = "glorot_uniform",
) -> Cell:
    """c_t = f⊙c_{t−1} + i⊙g, h_t = o⊙φ(c_t), with input, forget and output gates i, f, o.

        i, f, o = σ(x W_x· + b_· + h W_h·)        g = φ(x W_xg + b_g + h W_hg)

    Params, gates in the order i, f, g, o on the last axis: `W_xh [D, 4H]`, `W_hh [H, 4H]`, `b_h [4H]`.

    Args:
      hidden_size: H.
      forget_bias: where b_f starts; 1 keeps memory open at first (Jozefowicz et al. 2015).
      activation: φ.
      gate_activation: σ.
      recurrent_init: name or initialiser of each gate's block of W_hh.
      input_init: name or initialiser of each gate's block of W_xh.

    Returns:
      The cell; it runs fused, and natively on a CPU.

    Raises:
      ValueError: a hidden size, an activation or an initialiser that is none.

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    >>> lstm(hidden_size=2).init(jax.random.key(0), 1)["b_h"].tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    check_hidden_size(hidden_size)
    phi, sigma = as_activation(activation), as_activation(gate_activation)
    draw_recurrent, draw_input = (
        resolve(recurrent_init, "recurrent_init"),
        resolve(input_init, "input_init"),
    )

    @typed
    def init(key, input_size: int, dtype: Any = jnp.float32):
        key_x, key_h = jax.random.split(key)
        bias = jnp.zeros(4 * hidden_size, dtype)
        bias = bias.at[hidden_size : 2 * hidden_size].set(jnp.asarray(forget_bias, dtype))
        return {
            "W_xh": gate_blocks(draw_input, key_x, input_size, hidden_size, 4, dtype),
            "W_hh": gate_blocks(draw_recurrent, key_h, hidden_size, hidden_size, 4, dtype),
            "b_h": bias,
        }

    def initial_state(batch_size: int, dtype: Any = jnp.float32):
        zeros = jnp.zeros((batch_size, hidden_size), dtype)
        return LSTMState(h=zeros, c=zeros)

    cell = Cell(
        name="lstm",
        hidden_size=hidden_size,
        init=init,
        initial_state=initial_state,
        weights=plain_weights,
        gate=lstm_gate(phi, sigma),
    )
    return made_by(
        "lstm",
        cell,
        hidden_size=hidden_size,
        forget_bias=forget_bias,
        activation=phi,
        gate_activation=sigma,
        recurrent_init=draw_recurrent,
        input_init=draw_input,
    )


def lstm_gate(phi: Activation, sigma: Activation, norm: Norm = PLAIN) -> Gate:
    """The gates i, f, g, o and the memory, with a tangent by hand where φ and σ state their slopes."""

    def forward(params, state, x_proj, h_proj):
        sums = jnp.split(x_proj + h_proj, 4, axis=-1)
        i, f, g, o = (norm(params, place, one) for place, one in enumerate(sums))
        i, f, o = sigma(i), sigma(f), sigma(o)
        g = phi(g)
        c = f * state.c + i * g
        y = phi(norm(params, "c", c))
        values = {"input": i, "forget": f, "candidate": g, "output": o, "memory": y}
        return LSTMState(h=o * y, c=c), values

    def tangent(values, state, new, d_state, d_x_proj, d_h_proj):
        i, f, g, o, y = (
            values[name] for name in ("input", "forget", "candidate", "output", "memory")
        )
        d_i, d_f, d_g, d_o = jnp.split(d_x_proj + d_h_proj, 4, axis=-1)
        d_i, d_f, d_o = sigma_slope(i) * d_i, sigma_slope(f) * d_f, sigma_slope(o) * d_o
        d_c = f * d_state.c + state.c * d_f + g * d_i + i * phi_slope(g) * d_g
        return LSTMState(h=o * phi_slope(y) * d_c + y * d_o, c=d_c)

    sigma_slope: Any = sigma.slope
    phi_slope: Any = phi.slope
    by_hand = sigma_slope and phi_slope
    facts, own = _facts(phi, sigma), tangent if by_hand else None
    return normal_gate(forward, own, additive=True, facts=facts, norm=norm)


def _facts(phi: Activation, sigma: Activation) -> Facts:
    """h = o φ(c) with o in [0, 1], so 0 is in its range beside that of φ."""
    opens = sigma.bounds == (0.0, 1.0)
    bounds = phi.bounds and (min(phi.bounds[0], 0.0), max(phi.bounds[1], 0.0))
    return Facts(
        opens=("input", "forget", "output") if opens else (),
        bounds=bounds if opens else None,
        blocks=("input", "forget", "candidate", "output"),
        keeps="forget",
        enters="input",
        native="lstm" if (phi.native, sigma.native) == ("tanh", "sigmoid") else None,
    )
