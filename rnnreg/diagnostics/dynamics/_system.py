"""A recurrence as one map of flat states: what the diagnostics of dynamics step and differentiate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import described
from rnnreg._tree import leaf_paths
from rnnreg.cells import Cell, made_for
from rnnreg.diagnostics._rows import check_apart, check_cell_apart, check_network_apart
from rnnreg.diagnostics._slopes import steady, unfused
from rnnreg.networks import Network, start_of, start_state
from rnnreg.recurrence import cell_step

System = Network | Cell | Callable[[Any, Any, Array], Any]


class Dynamics(NamedTuple):
    """`state' = step(state, x)` on rows, with everything that is carried laid out in one vector of n numbers.

    Attributes:
      step: `step(state [B, n], x [B, D]) -> [B, n]`, row by row.
      floored: the same, whose Jacobian is 0 only where it is 0 to mathematics, for a look at its rounding.
      start: `[B, n]`, the state before the first step.
      size: n, over all layers and fields.
      places: by name, such as "layer_0/h", the slice of the n numbers that a field of the state takes.
      unflatten: `unflatten(state [B, n])`, the state as the system carries it.
    """

    step: Callable[[Array, Array], Array]
    floored: Callable[[Array, Array], Array]
    start: Array
    size: int
    places: dict[str, slice]
    unflatten: Callable[[Array], Any]


def dynamics_of(system: System, params: Any, xs: Array, *, state: Any = None) -> Dynamics:
    """The map that a network, a cell or a step function iterates.

    Args:
      system: a network (the states of all layers together; without dropout), a cell, or a function
        `step(params, state, x [B, …]) -> state` on rows, whose state is any tree of `[B, …]` arrays.
      params: its parameters.
      xs: `[B, T, …]`, the inputs that it will be driven by.
      state: the state before the first step; None is the system's own, which a function does not have.

    Raises:
      ValueError: a network that reads backwards, inputs, parameters or a state that do not fit the system, a function
        without a state, a step that changes the shapes, the dtypes or the structure of its state, or that mixes rows.
    """
    check_order(system, xs)
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, 0], xs)
    advance, given = _stepped(system, params, first, state)
    _check_rows(given, first)
    given = jax.tree.map(jnp.asarray, given)
    leaves, structure = jax.tree.flatten(given)
    _check_step(advance, given, first)
    if isinstance(system, Network):
        check_network_apart(system, params, first[:, None])
    elif isinstance(system, Cell):
        check_cell_apart(system, params, first.shape[-1])
    else:
        who = "the step function"
        check_apart(lambda rows: advance(*rows), (given, first), params, who=who)
    shapes = [leaf.shape[1:] for leaf in leaves]
    ends = [0]
    for leaf in leaves:
        ends.append(ends[-1] + leaf[0].size)

    def unflatten(flat):
        parts = [
            flat[:, begin:end].reshape(len(flat), *shape)
            for begin, end, shape in zip(ends, ends[1:], shapes, strict=False)
        ]
        return jax.tree.unflatten(structure, parts)

    names = [path or "state" for path in leaf_paths(given)]
    places = {
        name: slice(begin, end) for name, begin, end in zip(names, ends, ends[1:], strict=False)
    }

    def step(state, x):
        return flattened(advance(unflatten(state), x))

    return Dynamics(
        steady(step),
        steady(step, floored=True),
        flattened(given),
        ends[-1],
        places,
        unflatten,
    )


def flattened(state: Any) -> Array:
    """Everything that is carried in one vector a row, `[B, n]`."""
    leaves = jax.tree.leaves(state)  # a field may be empty, [B, 0]
    rows = [leaf.reshape(len(leaf), math.prod(leaf.shape[1:])) for leaf in leaves]
    return jnp.concatenate(rows, axis=1)


def settled(system: System, state: Any) -> Any:
    """The state with its counts of steps at their end, from where each step of a cell or a network is the same map."""

    def of(cell, state):
        own = None if cell.training is None else cell.training.settled
        if own is None:
            return state
        return jax.tree.map(own, state, is_leaf=lambda part: hasattr(part, "h"))

    if isinstance(system, Cell):
        return of(system, state)
    if not isinstance(system, Network) or not system.layers:
        return state
    cells = {f"layer_{index}": layer.cell for index, layer in enumerate(system.layers)}
    return {name: of(cells[name], part) for name, part in state.items()}


def check_order(system: Any, xs: Any) -> None:
    """Raises if parameters stand in the place of the inputs of a network or a cell."""
    if isinstance(system, (Network, Cell)) and isinstance(xs, Mapping):
        raise ValueError(
            f"xs must be an array [B, T, …]; got {described(xs)}. The order is (system, params, xs)."
        )


def _stepped(
    system: System, params: Any, first: Array, state: Any
) -> tuple[Callable[[Any, Array], Any], Any]:
    """`advance(state, x) -> state` of a system, and the state that it starts from."""
    if isinstance(system, Network):
        net = system
        if not all(entry.forwards for entry in net.layers):
            raise ValueError(
                "a network that reads backwards has no state that goes forwards alone, so no dynamics; give one of its "
                "cells."
            )
        state = network_start(net, params, first[:, None], state)
        apply = unfused(net).apply
        return lambda state, x: apply(params, x[:, None], state=state).final_state, state
    if isinstance(system, Cell):
        step = cell_step(system)
        given = cell_start(system, params, first[:, None], state)
        return lambda state, x: step(params, state, x), given
    if not callable(system):
        raise ValueError(
            f"system must be a network, a cell or a function step(params, state, x); got {system!r}."
        )
    if state is None:
        raise ValueError(
            "a step function has no initial state of its own: give state, a tree of [B, …] arrays."
        )
    return lambda state, x: system(params, state, x), state


def network_start(net: Network, params: Any, xs: Any, state: Any) -> Any:
    """What a network starts from on xs `[B, T, …]`; raises where its parameters or a given state do not fit."""
    if net.layers and (not isinstance(params, dict) or "layer_0" not in params):
        held = list(params) if isinstance(params, dict) else type(params).__name__
        raise ValueError(
            f"params of a network have an entry for each layer, such as layer_0; got {held}. Of a lone cell give the "
            "cell, and not the network."
        )
    if state is None:
        return start_state(net, params, xs)
    own = jax.eval_shape(lambda: start_state(net, params, xs))
    _check_like(state, own, "a network is what final_state of its output holds, by layer")
    return state


def cell_start(cell: Cell, params: Any, xs: Any, state: Any) -> Any:
    """What a cell starts from on xs `[B, T, D]`; raises where inputs, parameters or a given state do not fit."""
    if isinstance(params, dict) and "layer_0" in params:
        raise ValueError(
            f"params are those of a network, with {list(params)}, and the system is a cell; give params['layer_0'], "
            "or the network."
        )
    if not isinstance(xs, jax.Array) or not jnp.issubdtype(xs.dtype, jnp.floating):
        raise ValueError(
            f"xs of a cell must be [B, T, D] real numbers; got {jax.tree.map(jnp.result_type, xs)}. For tokens give a "
            "network with an embedding."
        )
    expected = made_for(cell, params)
    if expected is not None and (xs.ndim != 3 or xs.shape[-1] != expected):
        raise ValueError(
            f"the cell was made for {expected} input features; each step of xs has shape "
            f"{xs.shape[2:]}."
        )
    if state is None:
        return start_of(cell, params, jnp.swapaxes(xs, 0, 1))
    own = jax.eval_shape(lambda: cell.initial_state(len(xs), xs.dtype))
    _check_like(state, own, f"the cell {cell.name!r} is a record")
    return state


def _check_like(state: Any, own: Any, what: str) -> None:
    """Raises where a given state has not the structure, or not the shapes, of the system's own."""
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (own, state)]
    if shapes[0] != shapes[1] or jax.tree.structure(own) != jax.tree.structure(state):
        raise ValueError(
            f"the state of {what}, with a row for each of xs: {shapes[0]} (shapes); got {shapes[1]}."
        )


def _check_rows(state: Any, first: Any) -> None:
    """Raises where a state is not made of real arrays with a row for each sequence."""
    rows = {len(leaf) for leaf in jax.tree.leaves(first)}
    if len(rows) != 1:
        raise ValueError(f"all of xs must have the same number of rows B; got {sorted(rows)}.")
    rows = rows.pop()
    if not jax.tree.leaves(state):
        raise ValueError("the state is empty, so there is nothing to differentiate.")
    for path, leaf in leaf_paths(state).items():
        name = f"state/{path}" if path else "state"
        if jnp.ndim(leaf) < 1 or jnp.shape(leaf)[0] != rows:
            raise ValueError(
                f"the state must hold arrays [B, …] with a row for each of the {rows} in xs; {name} has shape "
                f"{jnp.shape(leaf)}."
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"the state must be real numbers, which can be differentiated; {name} is "
                f"{jnp.result_type(leaf)}. Carry a count as a float or as an input, and a complex number as two reals."
            )


def place_of(dynamics: Dynamics, field: str | None) -> slice:
    """Which of the n state numbers a field is; all for None."""
    if field is None:
        return slice(0, dynamics.size)
    if field not in dynamics.places:
        raise ValueError(f"field {field!r} is not in the state, which has {list(dynamics.places)}.")
    return dynamics.places[field]


def _check_step(advance: Callable[[Any, Array], Any], state: Any, x: Array) -> None:
    """Raises where a step does not return what it was given, in shapes, dtypes and structure."""
    new = jax.eval_shape(advance, state, x)
    before = jax.tree.map(lambda leaf: (jnp.shape(leaf), str(jnp.result_type(leaf))), state)
    after = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), new)
    if jax.tree.structure(before) != jax.tree.structure(after) or before != after:
        raise ValueError(
            "a step must return a state like the one it was given, so that it can be iterated; it was given "
            f"{before} and returns {after} (shape, dtype)."
        )
