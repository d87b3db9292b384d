"""The Elman network, and its identity-initialised form with rectified units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._signatures import Number, typed
from rnnreg.cells._activation import Activation, as_activation
from rnnreg.cells._base import (
    Cell,
    HiddenState,
    check_hidden_size,
    made_by,
    plain_weights,
    zero_hidden,
)
from rnnreg.cells._contracts import DrawFunction
from rnnreg.cells._gate import Facts, Gate
from rnnreg.cells._initializers import gate_blocks, identity, normal, resolve
from rnnreg.cells._norm import PLAIN, Norm, normal_gate


@typed
def elman(
    hidden_size: int,
    *,
    activation: Activation | str | Callable[[Array], Array] = jnp.tanh,
    recurrent_init: str | DrawFunction = "orthogonal",
    input_init: str | DrawFunction = "glorot_uniform",
) -> Cell:
    """h_t = φ(h_{t−1} W_hh + x_t W_xh + b_h), the simple recurrent network.

    Params: `W_xh [D, H]`, `W_hh [H, H]`, `b_h [H]` (zeros at the start).

    Args:
      hidden_size: H.
      activation: φ, elementwise: `jnp.tanh`, `jax.nn.relu`, or `jax.nn.identity` for a linear network, a name such as
        "tanh", an `Activation`, or any function (of which nothing more is then known).
      recurrent_init: name or initialiser of W_hh.
      input_init: name or initialiser of W_xh.

    Returns:
      The cell; it runs fused, and natively on a CPU.

    Raises:
      ValueError: a hidden size, an activation or an initialiser that is none.

    Source: Elman 1990, "Finding structure in time".

    >>> cell = elman(hidden_size=2)
    >>> params = cell.init(jax.random.key(0), 3)
    >>> {name: leaf.shape for name, leaf in params.items()}
    {'W_xh': (3, 2), 'W_hh': (2, 2), 'b_h': (2,)}
    """
    check_hidden_size(hidden_size)
    phi = as_activation(activation)
    draw_recurrent, draw_input = (
        resolve(recurrent_init, "recurrent_init"),
        resolve(input_init, "input_init"),
    )

    @typed
    def init(key, input_size: int, dtype: Any = jnp.float32):
        key_x, key_h = jax.random.split(key)
        return {
            "W_xh": gate_blocks(draw_input, key_x, input_size, hidden_size, 1, dtype),
            "W_hh": gate_blocks(draw_recurrent, key_h, hidden_size, hidden_size, 1, dtype),
            "b_h": jnp.zeros(hidden_size, dtype),
        }

    cell = Cell(
        name="elman",
        hidden_size=hidden_size,
        init=init,
        initial_state=zero_hidden(hidden_size),
        weights=plain_weights,
        gate=elman_gate(phi),
    )
    return made_by(
        "elman",
        cell,
        hidden_size=hidden_size,
        activation=phi,
        recurrent_init=draw_recurrent,
        input_init=draw_input,
    )


def elman_gate(phi: Activation, norm: Norm = PLAIN) -> Gate:
    """h = φ(x_proj + h_proj), with a tangent by hand where φ states its slope and nothing is normalised."""

    def forward(params, state, x_proj, h_proj):
        del state
        return HiddenState(h=phi(norm(params, 0, x_proj + h_proj))), {}

    def tangent(values, state, new, d_state, d_x_proj, d_h_proj):
        del values, state, d_state
        return HiddenState(h=slope(new.h) * (d_x_proj + d_h_proj))

    slope: Any = phi.slope
    native = f"elman_{phi.native}" if phi.native in ("tanh", "relu", "identity") else None
    facts = Facts(bounds=phi.bounds, max_slope=phi.max_slope, blocks=("hidden",), native=native)
    return normal_gate(forward, tangent if slope else None, additive=True, facts=facts, norm=norm)


@typed
def irnn(hidden_size: int, *, gain: Number = 1.0, input_stddev: Number = 1e-3) -> Cell:
    """Elman with rectified units, W_hh = gain·I and W_xh ~ N(0, input_stddev²) at the start.

    Args:
      hidden_size: H.
      gain: of the identity; may be traced.
      input_stddev: of W_xh; may be traced.

    Returns:
      The cell.

    Source: Le, Jaitly & Hinton 2015, "A simple way to initialize recurrent networks of rectified
    linear units", arXiv:1504.00941.

    >>> irnn(hidden_size=2, gain=0.5).init(jax.random.key(0), 1)["W_hh"].tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    return elman(
        hidden_size,
        activation=jax.nn.relu,
        recurrent_init=identity(gain),
        input_init=normal(input_stddev),
    )._replace(name="irnn")
