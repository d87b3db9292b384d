"""What stands between the sums of a gate and its activations: nothing, or a normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from rnnreg.cells._contracts import Params
from rnnreg.cells._gate import Facts, Gate

# norm(params, place, z): z `[B, H]` is the sum of gate block number `place`, or the memory of an LSTM ("c").
Norm = Callable[[Params, int | str, Array], Array]


def PLAIN(params: Params, place: int | str, z: Array) -> Array:
    """Nothing is normalised."""
    del params, place
    return z


def normal_gate(
    forward: Callable[..., Any], tangent: Any, *, facts: Facts, norm: Norm, additive: bool = False
) -> Gate:
    """The gate; one that normalises has no tangent by hand, no bound on its slope and no kernel."""
    if norm is not PLAIN:
        tangent, facts = None, facts._replace(native=None, max_slope=None)
    return Gate(forward, tangent, additive=additive, facts=facts)


def inner_bias(params: Params, norm: Norm) -> Array:
    """b_h where it is added before the activation alone; 0 where it is the shift after a normalisation."""
    return params["b_h"] if norm is PLAIN else jnp.zeros_like(params["b_h"])
