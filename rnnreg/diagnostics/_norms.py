"""Lengths whose squares neither under- nor overflow, and what is left of a tree once its length is taken out."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def wide(dtype: Any) -> Any:
    """The dtype that norms of a dtype are in: at least float32."""
    return jnp.promote_types(dtype, jnp.float32)


def safe_norm(values: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """‖·‖₂ along an axis, or several, scaled by the largest element; infinite where an element is, at least float32.

    >>> norms = safe_norm(jnp.array([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0], [1.0, jnp.inf]]))
    >>> [f"{norm:.3g}" for norm in norms]
    ['5e-30', '5e+30', '0', 'inf']
    """
    values = values.astype(wide(values.dtype))
    scale = _scale(jnp.max(jnp.abs(values), axis=axis, keepdims=True))
    norm = jnp.sqrt(jnp.sum(jnp.square(values / scale), axis=axis))
    return norm * jnp.squeeze(scale, axis)


def unit(tree: Any) -> tuple[Any, Array]:
    """A tree divided by its largest |element|, and the logarithm of that one: −∞ for zeros.

    One that is not finite is left as it is, so that it is seen later; its logarithm is 0.

    >>> divided, log = unit({"a": jnp.array([2.0, -4.0]), "b": jnp.zeros(1)})
    >>> divided["a"].tolist(), round(float(log), 4)
    ([0.5, -1.0], 1.3863)
    """
    parts = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]
    largest = functools.reduce(jnp.maximum, [part.astype(wide(part.dtype)) for part in parts])
    scale = _scale(largest)
    divided = jax.tree.map(lambda leaf: leaf / scale.astype(leaf.dtype), tree)
    return divided, jnp.where(largest == 0, -jnp.inf, jnp.log(scale))


def _scale(largest: Array) -> Array:
    return jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
