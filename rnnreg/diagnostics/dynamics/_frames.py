"""Frames of tangent vectors that a step moves, and what a QR says they lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_count
from rnnreg._linalg import safe_divide, safe_norm


def pulled(step: Callable[[Array, Array], Array], state: Array, x: Any, frame: Array) -> Array:
    """Jᵀ F: the frame `[B, n, k]` moved by the transposed Jacobian of the step at `state`, row by row."""
    _, pull = jax.vjp(lambda state: step(state, x), state)
    return jnp.moveaxis(jax.vmap(lambda row: pull(row)[0])(jnp.moveaxis(frame, -1, 0)), 0, -1)


def rounded(state: Array) -> Array:
    """The states `[B, n]` one rounding away, some up and some down."""
    signs = np.random.default_rng(0).choice((-1, 1), size=state.shape[1:])
    return state * (1 + jnp.finfo(state.dtype).eps * jnp.asarray(signs, state.dtype))


def apart(again: Array, frame: Array) -> Array:
    """‖F̃ − F‖_F / ‖F‖_F `[B]` of a frame that a Jacobian moved and the one of a rounded state; of F = 0, ‖F̃‖_F.

    More than a few ε is what cancellation inside the step leaves open: a slope of 1e-9 that is made of 1 − 1.
    """
    length = safe_norm(frame, axis=(-2, -1))
    return safe_divide(safe_norm(again - frame, axis=(-2, -1)), length)


def orthonormalised(frame: Array, rounding: Any = 0.0) -> tuple[Array, Array, Array]:
    """Q `[..., n, k]`, R `[..., k, k]` and (ε + rounding) ‖R‖_F / |r_ii| `[..., k]`, what may have changed ln |r_ii|.

    `rounding` is that inside the Jacobians, relative to the frame that they made. Where the doubt reaches 1 the frame
    has lost a direction to rounding, or to a singular Jacobian.
    """
    Q, R = jnp.linalg.qr(frame)
    diagonal = jnp.abs(jnp.diagonal(R, axis1=-2, axis2=-1))
    relative = jnp.finfo(frame.dtype).eps + jnp.asarray(rounding, frame.dtype)
    rounding = (relative * safe_norm(R, axis=(-2, -1)))[..., None]
    doubt = rounding / jnp.where(diagonal == 0, 1, diagonal)
    return Q, R, jnp.where(diagonal == 0, jnp.inf, doubt)


def time_first(xs: Any) -> Any:
    """Inputs `[B, T, …]` as a scan takes them, `[T, B, …]`."""
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), xs)


def check_inputs(xs: Any) -> int:
    """T; raises where the inputs are not `[B, T, …]` with at least one step."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(xs)]
    if not shapes or any(len(shape) < 2 or shape[1] < 1 for shape in shapes):
        raise ValueError(
            f"xs must be [B, T, …] with at least one step; got shapes {shapes}. For an autonomous system give "
            "jnp.zeros((B, T, 0)), or the constant input."
        )
    return shapes[0][1]


def how_many(count: int | None, name: str, most: int) -> int:
    """How many are wanted, all for None; raises outside 1 … most."""
    if count is None:
        return most
    check_count(count, name, most=most, hint=f"The state has {most} numbers.")
    return count
