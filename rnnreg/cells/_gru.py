"""The gated recurrent unit, with the reset gate after or before the recurrent product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice
from rnnreg._signatures import typed
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
from rnnreg.cells._gate import Facts, Gate, Step
from rnnreg.cells._initializers import gate_blocks, resolve
from rnnreg.cells._norm import PLAIN, Norm, inner_bias, normal_gate


@typed
def gru(
    hidden_size: int,
    *,
    reset: str = "after",
    recurrent_bias: bool = True,
    activation: Activation | str | Callable[[Array], Array] = jnp.tanh,
    gate_activation: Activation | str | Callable[[Array], Array] = jax.nn.sigmoid,
    recurrent_init: str | DrawFunction = "orthogonal",
    input_init: str | DrawFunction = "glorot_uniform",
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

    Returns:
      The cell. It runs natively on a CPU; elsewhere fused with `reset="after"`, through the plain scan with "before".

    Raises:
      ValueError: another `reset`, or a hidden size, an activation or an initialiser that is none.

    Source: Cho et al. 2014, arXiv:1406.1078, equations 5–8.

    >>> cell = gru(hidden_size=2, recurrent_bias=False)
    >>> {name: leaf.shape for name, leaf in cell.init(jax.random.key(0), 1).items()}
    {'W_xh': (1, 6), 'W_hh': (2, 6), 'b_h': (6,)}
    """
    check_hidden_size(hidden_size)
    phi, sigma = as_activation(activation), as_activation(gate_activation)
    draw_recurrent, draw_input = (
        resolve(recurrent_init, "recurrent_init"),
        resolve(input_init, "input_init"),
    )
    check_choice(reset, "reset", ("after", "before"))

    @typed
    def init(key, input_size: int, dtype: Any = jnp.float32):
        key_x, key_h = jax.random.split(key)
        params = {
            "W_xh": gate_blocks(draw_input, key_x, input_size, hidden_size, 3, dtype),
            "W_hh": gate_blocks(draw_recurrent, key_h, hidden_size, hidden_size, 3, dtype),
            "b_h": jnp.zeros(3 * hidden_size, dtype),
        }
        return params | ({"b_hh": jnp.zeros(3 * hidden_size, dtype)} if recurrent_bias else {})

    zeros = zero_hidden(hidden_size)
    if reset == "before":
        own = {"name": "gru_reset_before", "step": reset_before(phi, sigma)}
    else:
        own = {"name": "gru", "gate": gru_gate(phi, sigma)}
    cell = Cell(
        hidden_size=hidden_size, init=init, initial_state=zeros, weights=plain_weights, **own
    )
    return made_by(
        "gru",
        cell,
        hidden_size=hidden_size,
        reset=reset,
        recurrent_bias=recurrent_bias,
        activation=phi,
        gate_activation=sigma,
        recurrent_init=draw_recurrent,
        input_init=draw_input,
    )


def gru_gate(phi: Activation, sigma: Activation, norm: Norm = PLAIN) -> Gate:
    """The gate with the reset after the product, with a tangent by hand where φ and σ state their slopes."""

    def forward(params, state, x_proj, h_proj):
        x_r, x_z, x_n = jnp.split(x_proj, 3, axis=-1)
        h_r, h_z, h_n = jnp.split(h_proj, 3, axis=-1)
        r, z = sigma(norm(params, 0, x_r + h_r)), sigma(norm(params, 1, x_z + h_z))
        n = phi(norm(params, 2, x_n + r * h_n))
        values = {"reset": r, "update": z, "candidate": n, "h_candidate": h_n}
        return _combined(z, n, state.h), values

    def tangent(values, state, new, d_state, d_x_proj, d_h_proj):
        del new
        r, z, n = values["reset"], values["update"], values["candidate"]
        h_n = values["h_candidate"]
        dx_r, dx_z, dx_n = jnp.split(d_x_proj, 3, axis=-1)
        dh_r, dh_z, dh_n = jnp.split(d_h_proj, 3, axis=-1)
        d_r = sigma_slope(r) * (dx_r + dh_r)
        d_z = sigma_slope(z) * (dx_z + dh_z)
        d_n = phi_slope(n) * (dx_n + d_r * h_n + r * dh_n)
        return HiddenState(h=(1 - z) * d_n + z * d_state.h + (state.h - n) * d_z)

    sigma_slope: Any = sigma.slope
    phi_slope: Any = phi.slope
    by_hand = sigma_slope and phi_slope
    facts = _facts(phi, sigma, "gru")
    return normal_gate(forward, tangent if by_hand else None, facts=facts, norm=norm)


def reset_before(phi: Activation, sigma: Activation, norm: Norm = PLAIN) -> Step:
    """The step with the reset before the product, which it does itself."""

    def forward(params, state, x):
        hidden_size = state.h.shape[-1]
        W_gates, W_n = jnp.split(params["W_hh"], [2 * hidden_size], axis=-1)
        own = inner_bias(params, norm)
        bias = own + params["b_hh"] if "b_hh" in params else own
        x_proj = x @ params["W_xh"]
        x_proj = x_proj + jnp.broadcast_to(bias, x_proj.shape)
        x_gates, x_n = jnp.split(x_proj, [2 * hidden_size], axis=-1)
        z_r, z_z = jnp.split(x_gates + state.h @ W_gates, 2, axis=-1)
        r, z = sigma(norm(params, 0, z_r)), sigma(norm(params, 1, z_z))
        n = phi(norm(params, 2, x_n + (r * state.h) @ W_n))
        return _combined(z, n, state.h), {"reset": r, "update": z, "candidate": n}

    facts = _facts(phi, sigma, "gru_reset_before")
    return Step(forward, facts if norm is PLAIN else facts._replace(native=None))


def _combined(z: Array, n: Array, h: Array) -> HiddenState:
    return HiddenState(h=n + z * (h - n))


def _facts(phi: Activation, sigma: Activation, kernel: str) -> Facts:
    """h lies between φ and the last h, from 0 on, so long as the update gate is in [0, 1]."""
    opens = sigma.bounds == (0.0, 1.0)
    bounds = phi.bounds and (min(phi.bounds[0], 0.0), max(phi.bounds[1], 0.0))
    return Facts(
        opens=("reset", "update") if opens else (),
        bounds=bounds if opens else None,
        blocks=("reset", "update", "candidate"),
        keeps="update",
        native=kernel if (phi.native, sigma.native) == ("tanh", "sigmoid") else None,
    )
