"""Leaves as matrices, a recurrent one as its square gate blocks; and penalties that are sums over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._linalg import joined_blocks, square_blocks, wide
from rnnreg._tree import path_matches
from rnnreg.penalties._base import Penalty, on_leaves, select

Shape = tuple[int, int, int]


def on_blocks(
    name: str,
    value_of: Callable[[Array, Any, bool], tuple[Array, Any]],
    *,
    paths: str | Sequence[str],
    recurrent: str | None,
    start: Callable[[Shape, Any], Any] = lambda shape, dtype: (),
    square: bool = False,
    prox: Callable[[Array, Array], Array] | None = None,
    **arguments: Any,
) -> Penalty:
    """R = Σ over matrices of one function of their blocks.

    Args:
      name: of the factory.
      value_of: `value_of(blocks [G, M, N], state, exact) -> (R, state)`, with blocks of at least float32; `exact` is
        False only in an update, which may go by an estimate.
      paths: which leaves.
      recurrent: pattern of the leaves that are read as square blocks, one a gate; None for none.
      start: `start((G, M, N), dtype) -> state` of one leaf.
      square: whether blocks must be square.
      prox: `prox(blocks [G, M, N], amount) -> blocks`; None for none.
      **arguments: of the factory, for descriptions.

    Returns:
      The penalty, whose state is that of each leaf by path.
    """

    def chosen(params, weights=None):
        leaves = select(params, paths, include_biases=False, weights=weights)
        return {
            path: (leaf, block_shape(name, path, leaf.shape, recurrent, square=square))
            for path, leaf in leaves.items()
        }

    def init(params):
        # Which leaves are weights is known later: every matrix that a pattern matches has a state.
        leaves = select(params, paths, include_biases=True)
        return {
            path: start(block_shape(name, path, leaf.shape, recurrent), wide(leaf.dtype))
            for path, leaf in leaves.items()
            if len(leaf.shape) == 2
        }

    def value(params, context, state):
        weights, exact = (
            (None, True) if context is None else (context.weight_paths, not context.train)
        )
        parts, after = [], dict(state)
        for path, (leaf, shape) in chosen(params, weights).items():
            part, after[path] = value_of(as_blocks(leaf, shape), state[path], exact)
            parts.append(part)
        return jnp.stack(parts).sum(), after

    def covers(params, weight_paths=None):
        return list(chosen(params, weight_paths))

    def step(params, amount, weight_paths=None, state=None):
        shapes = {path: shape for path, (_, shape) in chosen(params, weight_paths).items()}
        for path, shape in shapes.items():

            def moved(leaf, own, shape=shape):
                return from_blocks(prox(as_blocks(leaf, shape), own), leaf.shape)  # type: ignore[misc]

            params = on_leaves(moved, params, amount, [path])
        return params

    told = (("paths", paths), *arguments.items(), ("recurrent", recurrent))
    # on square blocks every one of them is a constant if the block is orthogonal
    return Penalty(
        init,
        value,
        covers=covers,
        name=name,
        arguments=told,
        isotropic=recurrent is not None,
        prox=None if prox is None else step,
    )


def block_shape(
    name: str, path: str, shape: tuple[int, ...], recurrent: str | None, *, square: bool = False
) -> Shape:
    """(G, M, N): a recurrent leaf has G square blocks, any other matrix is one; raises if the leaf does not fit."""
    if len(shape) != 2:
        raise ValueError(
            f"{name} is about matrices, and {path!r} has the shape {shape}; give paths= that leave it out."
        )
    small, large = sorted(shape)
    gated = recurrent is not None and path_matches(path, recurrent)
    if not gated:
        if square and small != large:
            raise ValueError(
                f"{name} is about square matrices, and {path!r} has the shape {shape}; give paths= of recurrent "
                "matrices, and recurrent= their name if they hold several gates."
            )
        return 1, *shape
    if small == 0 or large % small:
        raise ValueError(
            f"the recurrent matrix {path!r} must be [H, G·H], one square block a gate; it has the shape {shape}. "
            "recurrent=None takes every matrix as one."
        )
    return large // small, small, small


def as_blocks(leaf: Array, shape: Shape) -> Array:
    """A leaf as `[G, M, N]`, in at least float32."""
    W = leaf.astype(wide(leaf.dtype))
    if shape[0] == 1:
        return W[None]
    return square_blocks(W if W.shape[0] < W.shape[1] else W.T)


def from_blocks(blocks: Array, shape: tuple[int, ...]) -> Array:
    """The leaf of such a shape that `as_blocks` made blocks of."""
    side_by_side = joined_blocks(blocks)
    return side_by_side if side_by_side.shape == shape else side_by_side.T


def times(left: Array, right: Array) -> Array:
    """Products of blocks in full precision: accelerators would round operands, and WᵀW − I is a small difference."""
    if left.shape[0] == right.shape[0] == 1:  # a CPU takes twice as long for a batch of one
        return jnp.matmul(left[0], right[0], precision=jax.lax.Precision.HIGHEST)[None]
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
