"""The gated recurrent unit, with the reset gate after or before the recurrent product."""

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
from rnnreg.cells._initializers import Initializer, gate_blocks, resolve


def gru(
    hidden_size: int,
    *,
    reset: str = "after",
    recurrent_bias: bool = True,
    activation: Callable[[Array], Array] = jnp.tanh,
    gate_activation: Callable[[Array], Array] = jax.nn.sigmoid,
    recurrent_init: str | Initializer = "orthogonal",
    input_init: str | Initializer = "glorot_uniform",
) -> Cell:
    """h_t = (1 − z)⊙n + z⊙h_{t−1}, with reset gate r, update gate z and candidate n.

        r = σ(x W_xr + b_r + h W_hr + b_hr)        z = σ(x W_xz + b_z + h W_hz + b_hz)
        n = φ(x W_xn + b_n + r ⊙ (h W_hn + b_hn))            reset="after"
        n = φ(x W_xn + b_n + (r ⊙ h) W_hn + b_hn)            reset="before"

    `reset="after"` is the convention of cuDNN, PyTorch, Keras' `reset_after=True` and Flax;
    `reset="before"` is the paper's. With `recurrent_bias=False` every b_h· is absent.

    Params, gates in the order r, z, n on the last axis: `W_xh [D, 3H]`, `W_hh [H, 3H]`, `b_h [3H]`, and
    `b_hh [3H]` with `recurrent_bias`.

    Args:
      hidden_size: H.
      reset: "after" or "before" the recurrent product.
      recurrent_bias: whether the recurrent product has a bias of its own (inside the reset, when
        the reset comes after).
      activation: φ of the candidate.
      gate_activation: σ of the gates.
      recurrent_init: name or initialiser of each gate's block of W_hh.
      input_init: name or initialiser of each gate's block of W_xh.

    Source: Cho et al. 2014, arXiv:1406.1078, equations 5–8.

    >>> cell = gru(hidden_size=2, recurrent_bias=False)
    >>> {name: leaf.shape for name, leaf in cell.init(jax.random.key(0), 1).items()}
    {'W_xh': (1, 6), 'W_hh': (2, 6), 'b_h': (6,)}
    """
    check_hidden_size(hidden_size)
    recurrent_init, input_init = resolve(recurrent_init), resolve(input_init)
    if reset not in ("after", "before"):
        raise ValueError(f"reset must be 'after' or 'before' the recurrent product; got {reset!r}.")

    def init(key, input_size: int, dtype: Any = jnp.float32):
        key_x, key_h = jax.random.split(key)
        params = {
            "W_xh": gate_blocks(input_init, key_x, input_size, hidden_size, 3, dtype),
            "W_hh": gate_blocks(recurrent_init, key_h, hidden_size, hidden_size, 3, dtype),
            "b_h": jnp.zeros(3 * hidden_size, dtype),
        }
        return params | ({"b_hh": jnp.zeros(3 * hidden_size, dtype)} if recurrent_bias else {})

    def combine(z, n, h):
        return HiddenState(h=n + z * (h - n))

    def record(state, x_proj, h_proj):
        x_r, x_z, x_n = jnp.split(x_proj, 3, axis=-1)
        h_r, h_z, h_n = jnp.split(h_proj, 3, axis=-1)
        r, z = gate_activation(x_r + h_r), gate_activation(x_z + h_z)
        n = activation(x_n + r * h_n)
        return combine(z, n, state.h), (r, z, n, h_n)

    sigma_slope, phi_slope = slope_of(gate_activation), slope_of(activation)

    def tangent(saved, state, new, d_state, d_x_proj, d_h_proj):
        del new
        r, z, n, h_n = saved
        dx_r, dx_z, dx_n = jnp.split(d_x_proj, 3, axis=-1)
        dh_r, dh_z, dh_n = jnp.split(d_h_proj, 3, axis=-1)
        d_r = sigma_slope(r) * (dx_r + dh_r)
        d_z = sigma_slope(z) * (dx_z + dh_z)
        d_n = phi_slope(n) * (dx_n + d_r * h_n + r * dh_n)
        return HiddenState(h=(1 - z) * d_n + z * d_state.h + (state.h - n) * d_z)

    def step(params, state, x):
        W_gates, W_n = jnp.split(params["W_hh"], [2 * hidden_size], axis=-1)
        bias = params["b_h"] + params["b_hh"] if recurrent_bias else params["b_h"]
        x_proj = x @ params["W_xh"]
        x_proj = x_proj + jnp.broadcast_to(bias, x_proj.shape)
        x_gates, x_n = jnp.split(x_proj, [2 * hidden_size], axis=-1)
        r, z = jnp.split(gate_activation(x_gates + state.h @ W_gates), 2, axis=-1)
        return combine(z, activation(x_n + (r * state.h) @ W_n), state.h)

    zeros = zero_hidden(hidden_size)
    if reset == "before":
        return Cell("gru_reset_before", hidden_size, init, zeros, step=step)
    own = Derivative(record, tangent, additive=False) if sigma_slope and phi_slope else None
    return Cell(
        name="gru",
        hidden_size=hidden_size,
        init=init,
        initial_state=zeros,
        weights=plain_weights,
        gate=gate_of(record),
        derivative=own,
    )
