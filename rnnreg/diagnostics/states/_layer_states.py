"""The states of each layer along a batch, and the gates that made them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.cells import Cell
from rnnreg.diagnostics.dynamics._system import cell_start, dynamics_of, network_start
from rnnreg.diagnostics.dynamics._trajectory import before, states_along
from rnnreg.networks import Pass, Stack, Visit
from rnnreg.recurrence import cell_values, unroll


class Run(NamedTuple):
    """One layer along the batch."""

    name: str
    cell: Cell | None
    states: Array
    gates: dict[str, Array]


def network_runs(net, params, xs, mask, state, gates) -> Iterator[Run]:
    """Each pass over each layer, with the inputs and the states that its gates saw."""
    network_start(net, params, jnp.asarray(xs), state)
    if not isinstance(net.apply, Stack):
        raise ValueError(
            "the apply of this network is not that of rr.network, so its layers cannot be visited one by one; give one "
            "of its cells, or a step function."
        )
    visits, _ = net.apply.walk(params, xs, mask=mask, state=state)
    for one in visits:
        precision = net.recurrence.precision
        opened = _gates_along(
            one.place.cell, one.params, one.inputs, one.before(), precision, gates
        )
        yield Run(one.place.name, one.place.cell, jnp.swapaxes(one.states.h, 0, 1), opened)


def cell_runs(cell, params, xs, mask, state, gates) -> Iterator[Run]:
    """The one pass over a cell."""
    start = cell_start(cell, params, xs, state)
    inputs = jnp.swapaxes(xs, 0, 1)
    time_mask = None if mask is None else jnp.swapaxes(mask, 0, 1)
    final, states = unroll(cell, params, inputs, start, mask=time_mask)
    visit = Visit(Pass(0, None, None, cell), params, inputs, start, final, states)
    opened = _gates_along(cell, params, inputs, visit.before(), None, gates)
    yield Run("cell", cell, jnp.swapaxes(states.h, 0, 1), opened)


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


def _gates_along(cell, params, inputs, previous, precision, gates) -> dict[str, Array]:
    """The gates `[B, T, H]` by name, from the states before each step; all time first when they come in."""
    opens = cell.facts.opens
    if gates is None and not opens:
        return {}
    values = cell_values(cell, precision=precision) if gates is None else gates

    def along(state, x):
        found = values(params, state, x)
        return {name: found[name] for name in (found if gates is not None else opens)}

    return jax.vmap(along, out_axes=1)(previous, inputs)
