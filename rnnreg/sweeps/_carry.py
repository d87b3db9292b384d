"""What lanes carry from block to block, on the host: keys of random numbers are stored as their numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Kind:
    """What one lane has of a leaf: shape and type as it is stored, and of a key the generator."""

    shape: tuple[int, ...]
    dtype: Any
    generator: Any = None


def kind_of(leaf: Any) -> Kind:
    """The kind of an array, which may be traced."""
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return Kind(leaf.shape, np.dtype(leaf.dtype))
    data = jax.eval_shape(jax.random.key_data, leaf)
    return Kind(data.shape, np.dtype(data.dtype), str(jax.random.key_impl(leaf)))


def to_host(leaves: Iterable[Any]) -> list[np.ndarray]:
    """Leaves as they are stored."""

    def stored(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return [stored(leaf) for leaf in leaves]


def from_host(kinds: Sequence[Kind], leaves: Iterable[np.ndarray]) -> list[Any]:
    """Leaves as programs take them."""
    return [
        leaf if kind.generator is None else jax.random.wrap_key_data(leaf, impl=kind.generator)
        for kind, leaf in zip(kinds, leaves, strict=True)
    ]


def nothing(kinds: Any) -> Any:
    """What a lane carries that has not begun: a tree of kinds as zeros, leaves `[1, …]`."""
    leaves, structure = jax.tree.flatten(kinds)
    zeros = (np.zeros((1, *kind.shape), kind.dtype) for kind in leaves)
    return jax.tree.unflatten(structure, from_host(leaves, zeros))
