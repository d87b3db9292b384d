"""What penalties on states and on Jacobians share: the layers chosen by name, what counts, steps of flat states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from rnnreg._checks import described
from rnnreg._linalg import safe_divide, widen
from rnnreg._tree import leaf_paths, path_matches
from rnnreg.networks import SIDES, Visit
from rnnreg.penalties._base import Context

Layers = str | Sequence[str]


def check_layers(layers: Any) -> None:
    """Raises if layers are not named by a pattern or several."""
    several = isinstance(layers, (tuple, list)) and layers
    if not all(isinstance(one, str) for one in (layers if several else [layers])):
        raise ValueError(
            "layers must be 'last', '*', a pattern such as 'layer_0', or a list of patterns; got "
            f"{described(layers)}."
        )


def chosen(names: Sequence[str], layers: Layers) -> list[str]:
    """The names of passes that are meant; raises where a pattern matches none.

    >>> names = ["layer_0", "layer_1/0/forward", "layer_1/0/backward", "layer_1/1/forward", "layer_1/1/backward"]
    >>> chosen(names, "last")
    ['layer_1/1/forward', 'layer_1/1/backward']
    >>> chosen(names, ["layer_0", "*/0/forward"])
    ['layer_0', 'layer_1/0/forward']
    """

    def place(name):
        return [(len(part), part) for part in name.split("/") if part not in SIDES]

    def matches(name, pattern):
        if pattern == "last":
            return place(name) == max(map(place, names))
        return path_matches(name, pattern) or path_matches(name.split("/")[0], pattern)

    patterns = [layers] if isinstance(layers, str) else layers
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            raise ValueError(
                f"layers={pattern!r} matches none of the network's, {list(names)}; 'last' is the last one, '*' are all."
            )
    return [name for name in names if any(matches(name, pattern) for pattern in patterns)]


def chosen_states(context: Context, layers: Layers) -> list[Array]:
    """The h of the chosen layers, `[B, T, H]`, at least float32."""
    states = leaf_paths(context.states, is_leaf=lambda state: hasattr(state, "h"))
    return [widen(states[name].h) for name in chosen(list(states), layers)]


def chosen_visits(context: Context, layers: Layers) -> list[Visit]:
    """The passes through the chosen layers."""
    if context.visits is None:
        raise ValueError(
            "a penalty on Jacobians goes through the passes of a network, and this one is known as a function alone; "
            "use rr.network."
        )
    visits = {visit.place.name: visit for visit in context.visits}
    return [visits[name] for name in chosen(list(visits), layers)]


def counted_steps(context: Context, values: Array) -> Array:
    """`[B, T]`, whether a step of `values [B, T, …]` is a true one of a row."""
    if context.mask is None:
        return jnp.ones(values.shape[:2], bool)
    return context.mask.astype(bool)


def mean_over_steps(values: Array, counted: Array, weights: Array | None) -> Array:
    """Σ_b w_b (mean over the counted steps of row b) / Σ_b w_b of `values [B, T, …]`, over the rows that have some.

    >>> values, counted = jnp.array([[1.0, 3.0], [4.0, 9.0], [7.0, 7.0]]), jnp.array([[1, 1], [1, 0], [0, 0]], bool)
    >>> float(mean_over_steps(values, counted, jnp.array([3.0, 1.0, 1.0])))
    2.5
    """
    number = jnp.sum(counted, axis=1).astype(values.dtype)
    rows = (number > 0).astype(values.dtype)
    rows = rows if weights is None else rows * weights.astype(values.dtype)
    share = safe_divide(safe_divide(rows, jnp.sum(rows)), number)
    shares = jnp.where(counted, share[:, None], 0)
    # A product, since a sum of products over all axes is no vector code on a CPU.
    return jnp.tensordot(shares, values, 2, precision="highest")


class FlatPass(NamedTuple):
    """One pass as steps of flat states, in the order of running; all fields that hold arrays have axes `[T, B]`.

    Attributes:
      step: `step(state [R, n], x [R, D]) -> [R, n]`, row by row.
      before: `[T, B, n]`, the state that each step starts from.
      inputs: `[T, B, D]`.
      counted: `[T, B]`, whether it is a true step.
    """

    step: Callable[[Array, Array], Array]
    before: Array
    inputs: Array
    counted: Array


def flat_pass(visit: Visit, context: Context, *, num_rows: int | None = None) -> FlatPass:
    """The steps of a pass of flat states, of the first rows or of all, in at least float32."""
    assert context.step is not None
    one_step = context.step[visit.place.layer]
    params, before, inputs = jax.tree.map(widen, (visit.params, visit.before(), visit.inputs))
    unflatten = ravel_pytree(jax.tree.map(lambda leaf: leaf[0, 0], before))[1]
    flat = jax.vmap(lambda row: ravel_pytree(row)[0])

    def step(state, x):
        return flat(one_step(params, jax.vmap(unflatten)(state), x))

    counted = counted_steps(context, jnp.swapaxes(inputs, 0, 1)).T
    arrays = [leaf[:, :num_rows] for leaf in (jax.vmap(flat)(before), inputs, counted)]
    return FlatPass(step, *(running(leaf, visit) for leaf in arrays))


def running(values: Any, visit: Visit) -> Any:
    """Values by step, time first, in the order in which the pass runs."""
    return jax.tree.map(lambda leaf: leaf[::-1], values) if visit.place.reverse else values


def rows_of(tree: Any) -> Any:
    """Values `[T, B, …]` with time and batch as one axis of rows."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
