"""Whether the rows of a batch go through a network apart from one another: statistics over the batch mix them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg.cells import Cell
from rnnreg.networks._records import Network
from rnnreg.networks._stack import Stack
from rnnreg.networks._walk import passes_of
from rnnreg.recurrence import cell_step
from rnnreg.runtime import is_traced


def mixes_rows(function: Callable[[Any], Any], rows: Any, params: Any) -> bool:
    """Whether what `function(rows)` returns of the first row depends on the other rows.

    Values are needed for that, so nothing is found with one row alone, or inside `jit` and other traces.

    >>> rows = jnp.array([[1.0], [2.0]])
    >>> mixes_rows(lambda rows: rows - rows.mean(0), rows, ()), mixes_rows(jnp.tanh, rows, ())
    (True, False)
    """
    if is_traced((rows, params)) or not any(
        jnp.ndim(leaf) > 0 and len(leaf) > 1 for leaf in jax.tree.leaves(rows)
    ):
        return False
    found = [jax.tree.leaves(function(given)) for given in (rows, jax.tree.map(_moved, rows))]
    if is_traced(found):
        return False
    for one, other in zip(*found, strict=True):
        first, again = (np.asarray(leaf[0], np.float64) for leaf in (one, other))
        room = 1e-3 * np.max(np.abs(first), initial=0, where=np.isfinite(first)) + 1e-6
        if not np.allclose(first, again, rtol=1e-3, atol=room, equal_nan=True):
            return True
    return False


def cell_mixes_rows(cell: Cell, params: Any, input_size: int) -> bool:
    """Whether the step of a cell mixes rows."""
    leaves = jax.tree.leaves(params)
    if is_traced(leaves):
        return False
    dtype = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
    state = cell.initial_state(2, dtype)
    rows = jax.tree.map(_drawn, (state, jnp.zeros((2, input_size), dtype)))
    step = cell_step(cell)
    return mixes_rows(lambda rows: step(params, *rows), rows, params)


def mixing_part(net: Network, params: Any, xs: Array, **options: Any) -> str | None:
    """What mixes rows, in words: a cell of the network, or all of it if it is known as a function; None for nothing.

    A network that is known as a function is called with the first rows, `net.apply(params, xs, **options)`.
    """
    if not isinstance(net.apply, Stack):
        first = jnp.asarray(xs)[:4]
        mixes = mixes_rows(lambda xs: net.apply(params, xs, **options).outputs, first, params)
        return "the network" if mixes else None
    embedding = net.apply.embedding
    width = xs.shape[-1] if embedding is None else embedding[1]
    for together in passes_of(net.layers):
        for place in together:
            if cell_mixes_rows(place.cell, place.params_of(params), width):
                return f"the cell {place.cell.name!r}"
        width = net.layers[together[0].index].width
    return None


def _is_real(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and jnp.ndim(leaf) > 0


def _drawn(leaf: Array) -> Array:
    """Real numbers in general position, of the same shape."""
    if not _is_real(leaf):
        return leaf
    return jnp.asarray(np.random.default_rng(0).normal(size=leaf.shape), leaf.dtype)


def _moved(leaf: Any) -> Any:
    """The same with other values in each row but the first; whole numbers, such as tokens, become those of the first.

    >>> _moved(np.array([1, 2, 3])).tolist(), _moved(np.array([1.0, 1.0], np.float32)).tolist()[0]
    ([1, 1, 1], 1.0)
    """
    leaf = jnp.asarray(leaf)
    if leaf.ndim == 0:
        return leaf
    others = 0.3 - 0.7 * leaf[1:] if _is_real(leaf) else jnp.broadcast_to(leaf[:1], leaf[1:].shape)
    return jnp.concatenate([leaf[:1], others]).astype(leaf.dtype)
