"""The states along a trajectory, which several diagnostics look at."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg.diagnostics.dynamics._frames import time_first
from rnnreg.diagnostics.dynamics._system import Dynamics
from rnnreg.recurrence import states_before


def states_along(dynamics: Dynamics, xs: Any) -> Array:
    """The flat states after each step, `[B, T, n]`."""

    def step(state, x):
        new = dynamics.step(state, x)
        return new, new

    _, states = jax.lax.scan(step, dynamics.start, time_first(xs))
    return jnp.swapaxes(states, 0, 1)


def before(dynamics: Dynamics, states: Array) -> Array:
    """The states that each step starts from, `[B, T, n]`, from those after each step."""
    return time_first(states_before(dynamics.start, time_first(states)))


def backwards(dynamics: Dynamics, xs: Any, every: int) -> tuple[Array, Any]:
    """States before each step and inputs, from the last step to the first, `[R, every, B, …]`."""
    states = before(dynamics, states_along(dynamics, xs))
    return jax.tree.map(
        lambda leaf: leaf[::-1].reshape(len(leaf) // every, every, *leaf.shape[1:]),
        (time_first(states), time_first(xs)),
    )


def check_arrays(xs: Any) -> None:
    """Raises where inputs are lists of numbers: a tree of inputs has arrays for leaves."""
    if any(isinstance(leaf, (bool, int, float)) for leaf in jax.tree.leaves(xs)):
        raise ValueError(
            "xs must be arrays [B, T, …], and holds lists of numbers; give jnp.asarray(xs)."
        )
    for leaf in jax.tree.leaves(xs):
        seen = isinstance(leaf, jax.core.Tracer) or not jnp.issubdtype(leaf.dtype, jnp.floating)
        if not seen and not np.isfinite(np.asarray(leaf, np.float64)).all():
            raise ValueError("xs has values that are NaN or infinite, from which no state follows.")


def check_sequences(xs: Array) -> Array:
    """The inputs as an array; raises where they are not `[B, T, D]`."""
    xs = jnp.asarray(xs)
    if xs.ndim != 3 or not jnp.issubdtype(xs.dtype, jnp.floating):
        raise ValueError(
            f"xs must be [B, T, D] real numbers, one row a sequence; got shape {xs.shape} of {xs.dtype}. "
            "Give a single sequence as xs[None]."
        )
    return xs
