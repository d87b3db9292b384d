"""The states of each layer along a batch, and the gates that made them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.cells import Cell, Weights
from rnnreg.diagnostics.dynamics._system import cell_start, dynamics_of, network_start
from rnnreg.diagnostics.dynamics._trajectory import before, states_along
from rnnreg.recurrence import unroll
from rnnreg.recurrence._scan import affine

Params = dict[str, Any]

# What the record of a gate's derivative holds, in order; None is not a gate.
GATES = {"gru": ("reset", "update"), "lstm": ("input", "forget", None, "output")}


class Run(NamedTuple):
    """One layer along the batch."""

    name: str
    cell: Cell | None
    states: Array
    gates: dict[str, Array]


def network_runs(net, params, xs, mask, state, gates) -> Iterator[Run]:
    """Each pass over each layer, with the inputs and the states that its gates saw."""
    inputs = xs = jnp.asarray(xs)
    start = network_start(net, params, xs, state)
    out = net.apply(params, xs, mask=mask, state=state)
    if "embedding" in params:
        inputs = jnp.asarray(params["embedding"]["W_embed"])[inputs]
    for index, entry in enumerate(net.layers):
        name = f"layer_{index}"
        repeated = entry.repeat > 1
        for application in range(entry.repeat):
            states, first = out.states[name], start[name]
            if repeated:
                states, first = states[application], first[application]
            label = f"{name}/{application}" if repeated else name
            sides = ("forward", "backward") if entry.bidirectional else (None,)
            for side in sides:
                own = params[name] if side is None else params[name][side]
                at = states if side is None else states[side]
                begin = first if side is None else first[side]
                opened = _gates_along(entry.cell, own, inputs, at, begin, side == "backward", gates)
                yield Run(label if side is None else f"{label}/{side}", entry.cell, at.h, opened)
            inputs = (
                jnp.concatenate([states[side].h for side in sides], axis=-1)
                if entry.bidirectional
                else states.h
            )


def cell_runs(cell, params, xs, mask, state, gates) -> Iterator[Run]:
    begin = cell_start(cell, params, xs, state)
    time_mask = None if mask is None else jnp.swapaxes(mask, 0, 1)
    _, states = unroll(cell, params, jnp.swapaxes(xs, 0, 1), begin, mask=time_mask)
    states = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), states)
    yield Run("cell", cell, states.h, _gates_along(cell, params, xs, states, begin, False, gates))


def step_runs(step, params, xs, mask, state, gates) -> Iterator[Run]:
    dynamics = dynamics_of(step, params, xs, state=state)
    if mask is not None:  # a masked step holds the state

        def held(flat, x):
            x, keep = x[:, :-1], x[:, -1:] > 0
            return jnp.where(keep, dynamics.step(flat, x), flat)

        keeps = jnp.asarray(mask, xs.dtype)[..., None]
        states = states_along(dynamics._replace(step=held), jnp.concatenate([xs, keeps], axis=-1))
    else:
        states = states_along(dynamics, xs)
    opened = {}
    if gates is not None:

        def along(flat, x):
            return gates(params, dynamics.unflatten(flat), x)

        opened = jax.vmap(along, in_axes=1, out_axes=1)(before(dynamics, states), xs)
    for name, place in dynamics.places.items():
        yield Run(name, None, states[..., place], opened)
        opened = {}


def _gates_along(cell, params, inputs, states, begin, reverse, gates) -> dict[str, Array]:
    """The gates `[B, T, H]` by name, computed again from the states before each step."""
    own = GATES.get(cell.name)

    def shifted(all_states, first):
        pieces = (
            [all_states[:, 1:], first[:, None]] if reverse else [first[:, None], all_states[:, :-1]]
        )
        return jnp.concatenate(pieces, axis=1)

    previous = jax.tree.map(shifted, states, begin)
    if gates is not None:
        return jax.vmap(lambda state, x: gates(params, state, x), in_axes=1, out_axes=1)(
            previous, inputs
        )
    if own is None or cell.weights is None or cell.derivative is None:
        return {}
    W_xh, W_hh, b_h, b_hh = Weights(*cell.weights(params))
    x_proj, h_proj = affine(inputs, W_xh, b_h, None), affine(previous.h, W_hh, b_hh, None)
    _, saved = cell.derivative.record(previous, x_proj, h_proj)
    return {name: value for name, value in zip(own, saved, strict=False) if name is not None}
