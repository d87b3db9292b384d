"""Proximal maps of arrays, argmin_v f(v) + ½ Σ_i (v_i − w_i)² / a_i."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._linalg import each, safe_divide, scale_of
from rnnreg.penalties._blocks import times


def soft_threshold(w: Array, amount: Array) -> Array:
    """sign(w) max(|w| − a, 0), the prox of |w|: exactly 0 for |w| ≤ a.

    >>> soft_threshold(jnp.array([-3.0, 0.5, 2.0]), jnp.array(1.0)).tolist()
    [-2.0, 0.0, 1.0]
    """
    return jnp.sign(w) * jnp.maximum(jnp.abs(w) - amount, 0)


def shrink_groups(groups: Array, amount: Array, *, num_steps: int = 8) -> Array:
    """The prox of Σ_g ‖w_g‖₂; a group is exactly 0 if ‖w_g / a‖₂ ≤ 1.

    With one amount it is max(1 − a / ‖w_g‖, 0) w_g. Else w_i τ / (τ + a_i), where τ > 0 is the length of the result,
    the root of Σ_i w_i² / (τ + a_i)² = 1: Newton's method for one over the root of that sum, which is concave in τ,
    comes to it from below (as in the trust-region step of Moré & Sorensen 1983), at once if all a_i are equal.

    Args:
      groups: `[N, n]`, a group in each row.
      amount: one number, or `[N, n]`.
      num_steps: of Newton's method.

    Returns:
      `[N, n]`.

    >>> shrink_groups(jnp.array([[3.0, 4.0], [0.3, 0.4]]), jnp.array(2.5)).tolist()
    [[1.5, 2.0], [0.0, 0.0]]
    """
    largest = jnp.max(jnp.abs(groups), axis=1, keepdims=True)
    scale = jax.lax.stop_gradient(scale_of(largest))  # of no consequence
    w = groups / scale
    squares = jnp.square(w)
    a = jnp.broadcast_to(amount / scale, w.shape)
    most = jnp.max(a, axis=1, keepdims=True)
    a = jnp.maximum(a, jnp.finfo(w.dtype).eps * most)  # an amount of 0 beside others
    outside = jnp.sum(squares / jnp.square(jnp.where(a > 0, a, 1)), axis=1, keepdims=True) > 1
    kept = outside & (largest > 0)
    length = jnp.sqrt(jnp.where(kept, jnp.sum(squares, axis=1, keepdims=True), 1))
    tau = jnp.maximum(length - most, 0)
    if jnp.ndim(amount):

        def newton(_, tau):
            inverse = 1 / jnp.where(kept & (tau + a > 0), tau + a, 1)
            parts = squares * inverse * inverse
            total = jnp.sum(parts, axis=1, keepdims=True)
            slope = jnp.sum(parts * inverse, axis=1, keepdims=True)
            return tau + safe_divide(total * (jnp.sqrt(total) - 1), slope)

        tau = jax.lax.fori_loop(0, num_steps, newton, tau)
    return groups * jnp.where(most == 0, 1, jnp.where(kept, safe_divide(tau, tau + a), 0))


def shrink_singular_values(W: Array, amount: Array) -> Array:
    """U max(Σ − a, 0) Vᵀ of `[G, M, N]`, the prox of the nuclear norm; one amount alone, for it is not elementwise.

    Its derivative is made of divided differences of max(σ − a, 0) and is finite at repeated singular values, where that
    of the decomposition is not.

    Raises:
      ValueError: an amount for each element.

    >>> shrink_singular_values(jnp.diag(jnp.array([3.0, -0.5]))[None], jnp.array(1.0)).round(5).tolist()
    [[[2.0, 0.0], [0.0, 0.0]]]
    """
    if jnp.ndim(amount):
        raise ValueError(
            "the nuclear norm has no proximal step with another amount for each weight, which is what an optimiser "
            "such as Adam makes: train with one rate for a matrix, such as optax.sgd(0.1, momentum=0.9)."
        )
    return _shrunk_values(W, amount)


def _svd(block: Array) -> Any:
    return jnp.linalg.svd(block, full_matrices=False)


@jax.custom_jvp
def _shrunk_values(W: Array, amount: Array) -> Array:
    U, sigma, Vt = each(_svd, W)
    return times(U * jnp.maximum(sigma - amount, 0)[..., None, :], Vt)


@_shrunk_values.defjvp
def _shrunk_values_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (W, amount), (dW, da) = primals, tangents
    U, sigma, Vt = each(_svd, W)
    Ut, V = jnp.swapaxes(U, -2, -1), jnp.swapaxes(Vt, -2, -1)
    f = jnp.maximum(sigma - amount, 0)
    slope = (sigma > amount).astype(W.dtype)
    gap, total = (sign * sigma[..., None, :] + sigma[..., :, None] for sign in (-1, 1))
    rise, both = (sign * f[..., None, :] + f[..., :, None] for sign in (-1, 1))
    alike = jnp.abs(gap) <= 1e-5 * total  # their mean slope, for a difference of rounding errors
    mean = (slope[..., None, :] + slope[..., :, None]) / 2
    inner = times(times(Ut, dW), V)
    flipped = jnp.swapaxes(inner, -2, -1)
    even = jnp.where(alike, mean, rise / jnp.where(alike, 1, gap)) * (inner + flipped) / 2
    odd = safe_divide(both, total) * (inner - flipped) / 2
    share = safe_divide(f, sigma)[..., None, :]
    left = times((times(dW, V) - times(U, inner)) * share, Vt)
    right = times(U * share, times(Ut, dW) - times(inner, Vt))
    middle = even + odd - da * slope[..., None, :] * jnp.eye(sigma.shape[-1], dtype=W.dtype)
    return times(U * f[..., None, :], Vt), times(times(U, middle), Vt) + left + right
