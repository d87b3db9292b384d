"""What lanes carry from block to block, as arrays that a host can hold: keys of random numbers as their numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StoredKey:
    """The numbers of a key, and the generator that they are for."""

    numbers: Any
    generator: Any = dataclasses.field(metadata={"static": True})


def stored(tree: Any) -> Any:
    """The tree with the numbers of keys in their place.

    >>> stored(jax.random.key(3)).numbers.tolist()
    [0, 3]
    """

    def store(leaf):
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return StoredKey(jax.random.key_data(leaf), jax.random.key_impl(leaf))

    return jax.tree.map(store, tree)


def usable(tree: Any) -> Any:
    """The tree with keys again.

    >>> bool(usable(stored(jax.random.key(3))) == jax.random.key(3))
    True
    """

    def is_key(leaf):
        return isinstance(leaf, StoredKey)

    def use(leaf):
        return jax.random.wrap_key_data(leaf.numbers, impl=leaf.generator) if is_key(leaf) else leaf

    return jax.tree.map(use, tree, is_leaf=is_key)


def nothing(shapes: Any, num_lanes: int) -> Any:
    """What lanes carry that have not begun, from the shapes of one: zeros, leaves `[L, …]`, which take no memory."""

    def zeros(leaf):
        return np.broadcast_to(np.zeros((), leaf.dtype), (num_lanes, *leaf.shape))

    return jax.tree.map(zeros, shapes)
