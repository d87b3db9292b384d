"""The Elman network, and its identity-initialised form with rectified units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.cells._activation import slope_of
from rnnreg.cells._base import (
    Cell,
    Derivative,
    HiddenState,
    check_hidden_size,
    gate_of,
    plain_weights,
    zero_hidden,
)
from rnnreg.cells._initializers import Initializer, gate_blocks, identity, normal, resolve


def elman(
    hidden_size: int,
    *,
    activation: Callable[[Array], Array] = jnp.tanh,
    recurrent_init: str | Initializer = "orthogonal",
    input_init: str | Initializer = "glorot_uniform",
) -> Cell:
    """h_t = φ(h_{t−1} W_hh + x_t W_xh + b_h), the simple recurrent network.

    Params: `W_xh [D, H]`, `W_hh [H, H]`, `b_h [H]` (zeros at the start).

    Args:
      hidden_size: H.
      activation: φ, elementwise: `jnp.tanh`, `jax.nn.relu`, or `jax.nn.identity` for a linear network; any function
        serves, and these (with `jax.nn.sigmoid`) have the fused recurrence.
      recurrent_init: name or initialiser of W_hh.
      input_init: name or initialiser of W_xh.

    Source: Elman 1990, "Finding structure in time".

    >>> cell = elman(hidden_size=2)
    >>> params = cell.init(jax.random.key(0), 3)
    >>> {name: leaf.shape for name, leaf in params.items()}
    {'W_xh': (3, 2), 'W_hh': (2, 2), 'b_h': (2,)}
    """
    check_hidden_size(hidden_size)
    recurrent_init, input_init = resolve(recurrent_init), resolve(input_init)

    def init(key, input_size: int, dtype: Any = jnp.float32):
        key_x, key_h = jax.random.split(key)
        return {
            "W_xh": gate_blocks(input_init, key_x, input_size, hidden_size, 1, dtype),
            "W_hh": gate_blocks(recurrent_init, key_h, hidden_size, hidden_size, 1, dtype),
            "b_h": jnp.zeros(hidden_size, dtype),
        }

    def record(state, x_proj, h_proj):
        del state
        return HiddenState(h=activation(x_proj + h_proj)), ()

    slope = slope_of(activation)

    def tangent(saved, state, new, d_state, d_x_proj, d_h_proj):
        del saved, state, d_state
        return HiddenState(h=slope(new.h) * (d_x_proj + d_h_proj))

    return Cell(
        name="elman",
        hidden_size=hidden_size,
        init=init,
        initial_state=zero_hidden(hidden_size),
        weights=plain_weights,
        gate=gate_of(record),
        derivative=Derivative(record, tangent, additive=True) if slope else None,
    )


def irnn(hidden_size: int, *, gain: Any = 1.0, input_stddev: Any = 1e-3) -> Cell:
    """Elman with rectified units, W_hh = gain·I and W_xh ~ N(0, input_stddev²) at the start.

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
