"""Proximal maps of arrays, argmin_v f(v) + ½ Σ_i (v_i − w_i)² / a_i, and of the leaves of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._linalg import safe_divide, scale_of, wide
from rnnreg._tree import leaf_paths, with_leaves

Params = dict[str, Any]


def on_leaves(
    function: Callable[[Array, Array], Array], params: Params, amount: Any, paths: Iterable[str]
) -> Params:
    """The tree with `function(leaf, its amount)` at some paths, computed in at least float32 and kept in its dtype.

    >>> halved = on_leaves(lambda w, a: w / (1 + a), {"W": jnp.ones(2), "b": jnp.ones(1)}, 1.0, ["W"])
    >>> halved["W"].tolist(), halved["b"].tolist()
    ([0.5, 0.5], [1.0])
    """
    leaves, amounts = leaf_paths(params), amounts_of(amount, params)

    def moved(path):
        leaf, dtype = leaves[path], wide(leaves[path].dtype)
        return function(leaf.astype(dtype), jnp.asarray(amounts[path], dtype)).astype(leaf.dtype)

    return with_leaves(params, {path: moved(path) for path in paths})


def amounts_of(amount: Any, params: Params) -> dict[str, Any]:
    """The amount of every leaf by path: one number for all, or a tree of them.

    >>> amounts_of(0.5, {"W": 1.0, "b": 2.0}), amounts_of({"W": 0.1, "b": 0.2}, {"W": 1.0, "b": 2.0})
    ({'W': 0.5, 'b': 0.5}, {'W': 0.1, 'b': 0.2})
    """
    if jax.tree.structure(amount) == jax.tree.structure(params):
        return leaf_paths(amount)
    return dict.fromkeys(leaf_paths(params), amount)


def soft_threshold(w: Array, amount: Array) -> Array:
    """sign(w) max(|w| − a, 0), the prox of |w|: exactly 0 for |w| ≤ a.

    >>> soft_threshold(jnp.array([-3.0, 0.5, 2.0]), jnp.array(1.0)).tolist()
    [-2.0, 0.0, 1.0]
    """
    return jnp.sign(w) * jnp.maximum(jnp.abs(w) - amount, 0)


def shrink_groups(groups: Array, amount: Array, *, num_steps: int = 20) -> Array:
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

    >>> shrink_groups(jnp.array([[3.0, 4.0], [0.3, 0.4]]), jnp.array(1.0)).round(6).tolist()
    [[2.4, 3.2], [0.0, 0.0]]
    """
    scale = scale_of(jnp.max(jnp.abs(groups), axis=1, keepdims=True))
    w = groups / scale
    squares = jnp.square(w)
    a = jnp.broadcast_to(amount / scale, w.shape)
    most = jnp.max(a, axis=1, keepdims=True)
    a = jnp.maximum(a, jnp.finfo(w.dtype).eps * most)  # an amount of 0 beside others
    outside = jnp.sum(squares / jnp.square(jnp.where(a > 0, a, 1)), axis=1, keepdims=True) > 1
    kept = outside | (most == 0)
    length = jnp.sqrt(jnp.where(kept, jnp.sum(squares, axis=1, keepdims=True), 1))
    tau = jnp.maximum(length - most, 0)
    if jnp.ndim(amount):

        def newton(_, tau):
            beyond = jnp.where(kept & (tau + a > 0), tau + a, 1)
            total = jnp.sum(squares / beyond**2, axis=1, keepdims=True)
            slope = jnp.sum(squares / beyond**3, axis=1, keepdims=True)
            return tau + safe_divide(total * (jnp.sqrt(total) - 1), slope)

        tau = jax.lax.fori_loop(0, num_steps, newton, tau)
    return groups * jnp.where(kept, safe_divide(tau, tau + a), 0)


def shrink_singular_values(W: Array, amount: Array) -> Array:
    """U max(Σ − a, 0) Vᵀ of `[..., M, N]`, the prox of the nuclear norm; one amount alone, for it is not elementwise.

    Raises:
      ValueError: an amount for each element.

    >>> shrink_singular_values(jnp.diag(jnp.array([3.0, -0.5])), jnp.array(1.0)).round(5).tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """
    if jnp.ndim(amount):
        raise ValueError(
            "the nuclear norm has no proximal step with another amount for each weight, which is what an optimiser "
            "such as Adam makes: train with one rate for a matrix, such as optax.sgd(0.1, momentum=0.9)."
        )
    U, sigma, Vt = jnp.linalg.svd(W, full_matrices=False)
    return jnp.matmul(
        U * soft_threshold(sigma, amount)[..., None, :], Vt, precision=jax.lax.Precision.HIGHEST
    )
