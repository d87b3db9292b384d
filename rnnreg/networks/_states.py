"""What a network starts from, and whether it hands back states at all."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.networks._records import Network, Params


def start_state(net: Network, params: Params, xs: Array) -> dict[str, Any]:
    """What the network starts from, by layer, fields `[B, H]`: a masked step holds the state, and hands it back.

    Raises:
      ValueError: a network that hands back no state.
    """
    if jnp.ndim(xs) < 2:
        raise ValueError(
            f"xs must be [B, T, D] real numbers or [B, T] tokens; got shape {jnp.shape(xs)}."
        )
    first = jnp.asarray(xs)[:, :1]
    if not net.layers:
        check_states(jax.eval_shape(lambda: net.apply(params, first)).final_state)
    return net.apply(params, first, mask=jnp.zeros(first.shape[:2])).final_state


def check_states(states: Any) -> None:
    """Raises if a network handed back no states, which is all that is known of a module that is not recurrent."""
    if not jax.tree.leaves(states):
        raise ValueError(
            "this network hands back no states, and they are needed here. Of a recurrent cell of another library make "
            "a network with rr.from_flax(cell) or rr.from_equinox(cell); a function of your own can return "
            "rr.networks.NetworkOutput(outputs, states, final_state), and take state, mask and perturbations."
        )
