"""Whether the rows of a batch go through a step apart from one another, as Jacobians row by row need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg.cells import Cell
from rnnreg.networks import Network, Stack, passes_of
from rnnreg.recurrence import cell_step


def check_apart(function: Callable[[Any], Any], rows: Any, params: Any, *, who: str) -> None:
    """Raises where what `function(rows)` returns of the first row depends on the other rows.

    Values are needed for that, so nothing is checked of one row alone, or inside `jit` and other traces.
    """
    real = [leaf for leaf in jax.tree.leaves(rows) if _is_real(leaf)]
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((rows, params))):
        return
    if not any(len(leaf) > 1 for leaf in real):
        return
    found = [jax.tree.leaves(function(given)) for given in (rows, jax.tree.map(_moved, rows))]
    if any(isinstance(leaf, jax.core.Tracer) for leaves in found for leaf in leaves):
        return
    for one, other in zip(*found, strict=True):
        first, again = (np.asarray(leaf[0], np.float64) for leaf in (one, other))
        room = 1e-3 * np.max(np.abs(first), initial=0, where=np.isfinite(first)) + 1e-6
        if not np.allclose(first, again, rtol=1e-3, atol=room, equal_nan=True):
            raise ValueError(
                f"{who} mixes the rows of a batch: the first row comes out otherwise if the other rows change, so it "
                "has no Jacobian of its own. Statistics over the batch do that: use stored averages (the mode for "
                "prediction), or normalise over features."
            )


def check_cell_apart(cell: Cell, params: Any, input_size: int) -> None:
    """Raises where the step of a cell mixes rows."""
    leaves = jax.tree.leaves(params)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return
    dtype = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
    state = cell.initial_state(2, dtype)
    rows = jax.tree.map(_drawn, (state, jnp.zeros((2, input_size), dtype)))
    step = cell_step(cell)
    check_apart(lambda rows: step(params, *rows), rows, params, who=f"the cell {cell.name!r}")


def check_network_apart(net: Network, params: Any, xs: Array) -> None:
    """Raises where a network mixes rows: one of its cells, or all of it if it is known as a function."""
    if not isinstance(net.apply, Stack):
        start = jnp.asarray(xs)[:, :2]
        who = "the network"
        check_apart(lambda xs: net.apply(params, xs).outputs, start, params, who=who)
        return
    embedding = net.apply.embedding
    width = xs.shape[-1] if embedding is None else embedding[1]
    for together in passes_of(net.layers):
        for place in together:
            check_cell_apart(place.cell, place.params_of(params), width)
        width = net.layers[together[0].index].width


def _is_real(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and jnp.ndim(leaf) > 0


def _drawn(leaf: Array) -> Array:
    """Real numbers in general position, of the same shape."""
    if not _is_real(leaf):
        return leaf
    return jnp.asarray(np.random.default_rng(0).normal(size=leaf.shape), leaf.dtype)


def _moved(leaf: Any) -> Any:
    """The same with other values in each real row but the first."""
    if not _is_real(leaf):
        return leaf
    leaf = jnp.asarray(leaf)
    return jnp.concatenate([leaf[:1], 0.3 - 0.7 * leaf[1:]]).astype(leaf.dtype)
