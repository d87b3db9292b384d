"""Trees of arrays: their leaves by path, and the bytes that they take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp

from rnnreg._signatures import typed


@typed
def leaf_paths(tree: Any, *, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """The leaves of a tree by path; a lone leaf has the path "".

    Args:
      tree: any tree of dicts, tuples and records.
      is_leaf: what counts as a leaf too, such as a record.

    Returns:
      A flat dict in the tree's own order of leaves.

    >>> leaf_paths({"layer_0": {"W_hh": 1.0, "b_h": 2.0}})
    {'layer_0/W_hh': 1.0, 'layer_0/b_h': 2.0}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
    }


@typed
def with_leaves(tree: Any, leaves: dict[str, Any]) -> Any:
    """The tree with the leaves at some paths replaced.

    Args:
      tree: any tree.
      leaves: new leaves by path.

    Returns:
      A tree of the same structure.

    Raises:
      ValueError: a path that the tree does not have.

    >>> with_leaves({"layer_0": {"W_hh": 1.0, "b_h": 2.0}}, {"layer_0/b_h": 0.0})
    {'layer_0': {'W_hh': 1.0, 'b_h': 0.0}}
    """
    own = leaf_paths(tree)
    unknown = [path for path in leaves if path not in own]
    if unknown:
        raise ValueError(f"path {unknown[0]!r} names no leaf; the leaves are {sorted(own)}.")
    return jax.tree.unflatten(jax.tree.structure(tree), (own | leaves).values())


def leaf_name(path: str) -> str:
    """The last part of a path, such as "W_hh" of "layer_0/W_hh"."""
    return path.rpartition("/")[2]


def beside(path: str, name: str) -> str:
    """The path of a leaf of another name next to one.

    >>> beside("layer_0/W_hh", "b_h"), beside("W_hh", "b_h")
    ('layer_0/b_h', 'b_h')
    """
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{name}"


def path_matches(path: str, pattern: str) -> bool:
    """Whether a pattern is that of the whole path, or of its last part.

    >>> path_matches("layer_0/W_hh", "W_*"), path_matches("layer_0/W_hh", "layer_1/*")
    (True, False)
    """
    return fnmatchcase(path, pattern) or fnmatchcase(leaf_name(path), pattern)


def matching(leaves: dict[str, Any], patterns: str | Sequence[str]) -> dict[str, Any]:
    """The leaves whose path matches one of the patterns; one pattern may stand alone.

    >>> matching({"layer_0/W_hh": 1.0, "layer_0/b_h": 2.0}, "W_*")
    {'layer_0/W_hh': 1.0}
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return {
        path: leaf
        for path, leaf in leaves.items()
        if any(path_matches(path, pattern) for pattern in patterns)
    }


def matrices(leaves: dict[str, Any]) -> list[str]:
    """The paths of the leaves with two axes or more: not biases, gains or scales, in any naming, nor statistics."""
    stored = statistics(leaves)
    return [path for path, leaf in leaves.items() if jnp.ndim(leaf) > 1 and path not in stored]


def statistics(leaves: dict[str, Any]) -> set[str]:
    """The paths of a `mean_x` with a `variance_x` beside it: stored and not trained, as in `rr.cells.batch_norm`.

    >>> sorted(statistics({"layer_0/mean_x": 0.0, "layer_0/variance_x": 1.0, "mean_field": 2.0}))
    ['layer_0/mean_x', 'layer_0/variance_x']
    """
    pairs = [
        (path, beside(path, "variance_" + leaf_name(path).removeprefix("mean_")))
        for path in leaves
        if leaf_name(path).startswith("mean_")
    ]
    return {path for pair in pairs if pair[1] in leaves for path in pair}


def is_learned_start(path: str) -> bool:
    """Whether a path is that of a learned initial state, which enters once and not at every step."""
    return "initial" in path.split("/")


def tree_bytes(tree: Any) -> int:
    """The memory that the arrays (or shapes) of a tree take, in bytes.

    >>> tree_bytes({"W_hh": jnp.zeros((4, 4), jnp.float32)})
    64
    """
    return sum(
        math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
    )
