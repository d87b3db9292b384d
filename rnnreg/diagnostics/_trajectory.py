"""The states along a trajectory, which several diagnostics look at."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.diagnostics._dynamics import Dynamics


def states_along(dynamics: Dynamics, xs: Array) -> Array:
    """The flat states after each step, `[B, T, n]`."""

    def step(state, x):
        new = dynamics.step(state, x)
        return new, new

    _, states = jax.lax.scan(step, dynamics.start, jnp.swapaxes(xs, 0, 1))
    return jnp.swapaxes(states, 0, 1)


def check_sequences(xs: Array) -> Array:
    """The inputs as an array; raises where they are not `[B, T, D]`."""
    xs = jnp.asarray(xs)
    if xs.ndim != 3 or not jnp.issubdtype(xs.dtype, jnp.floating):
        raise ValueError(
            f"xs must be [B, T, D] real numbers, one row a sequence; got shape {xs.shape} of {xs.dtype}. "
            "Give a single sequence as xs[None]."
        )
    return xs
