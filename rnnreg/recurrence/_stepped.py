"""A whole step through time, and its tangent at the states that a forward pass stored.

Both take what the passes of the fused recurrence take. A step does its own products, so it is given the weights.
"""

from __future__ import annotations

from typing import Any

import jax

from rnnreg.cells import Step, Weights
from rnnreg.recurrence._fused import Inputs, Stored
from rnnreg.recurrence._scan import gates_of, loop, settle, states_before


def step_pass(step: Step, inputs: Inputs, *, reverse: bool, store: bool = False) -> Stored:
    """The states, and with `store` what the step names at every one."""
    params = _params_of(inputs.weights)

    def body(state, step_inputs):
        x, *ending = step_inputs
        new, values = step.forward(params, state, x)
        new = settle(new, state, *ending)
        return new, (new, values if store else {})

    gates = gates_of(inputs.weights)
    _, (states, values) = loop(body, inputs.state, inputs.streams, gates=gates, reverse=reverse)
    return Stored(states, states, values)


def step_tangent_pass(
    step: Step, inputs: Inputs, d_inputs: Inputs, stored: Stored, *, reverse: bool
) -> Any:
    """The tangents of the states: `jax.jvp` of the step at each state that was stored, so linear in `d_inputs`."""
    params, d_params = _params_of(inputs.weights), _params_of(d_inputs.weights)
    xs, keeps, _, holds = inputs.streams
    d_xs, _, d_perturbations, _ = d_inputs.streams

    def body(d_state, step_inputs):
        state, x, d_x, *ending = step_inputs
        d_new = jax.jvp(step, (params, state, x), (d_params, d_state, d_x))[1]
        d_new = settle(d_new, d_state, *ending)
        return d_new, d_new

    previous = states_before(inputs.state, stored.states, reverse=reverse)
    streams = (previous, xs, d_xs, keeps, d_perturbations, holds)
    gates = gates_of(inputs.weights)
    return loop(body, d_inputs.state, streams, gates=gates, reverse=reverse)[1]


def _params_of(weights: Weights) -> dict[str, Any]:
    return {name: leaf for name, leaf in weights._asdict().items() if leaf is not None}
