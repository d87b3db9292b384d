"""What the compiled code does for each cell, the same in JAX, and what is known of a call."""

from __future__ import annotations

from typing import Any, NamedTuple

from jax import Array

from rnnreg.cells import Cell, Gate, HiddenState, LSTMState, Step, Weights, elman, gru, lstm
from rnnreg.recurrence._fused import Inputs, Stored, forward_pass, tangent_pass
from rnnreg.recurrence._scan import Streams
from rnnreg.recurrence._stepped import step_pass, step_tangent_pass


class Kernel(NamedTuple):
    """What the compiled code does for a cell.

    Attributes:
      rule: the same in JAX, a gate or a whole step.
      gates: G.
      saved: names of the values that the derivative reads, in the order in which they are stored.
      memory: whether the state has a c.
    """

    rule: Gate | Step
    gates: int
    saved: tuple[str, ...] = ()
    memory: bool = False

    def states(self, inputs: Inputs, call: Call, *, store: bool) -> Stored:
        """The forward pass in JAX."""
        if isinstance(self.rule, Step):
            return step_pass(self.rule, inputs, reverse=call.reverse, store=store)
        options = {"reverse": call.reverse, "precision": call.precision, "inside": True}
        return forward_pass(self.rule, inputs, **options, store=store)

    def tangents(self, inputs: Inputs, d_inputs: Inputs, stored: Stored, call: Call) -> Any:
        """The tangents of the states in JAX, linear in `d_inputs`."""
        if isinstance(self.rule, Step):
            return step_tangent_pass(self.rule, inputs, d_inputs, stored, reverse=call.reverse)
        options = {"reverse": call.reverse, "precision": call.precision, "inside": True}
        return tangent_pass(self.rule, inputs, d_inputs, stored, **options)


def _rule(cell: Cell) -> Gate | Step:
    rule = cell.gate or cell.step
    assert isinstance(rule, (Gate, Step))
    return rule


KERNELS = {
    "elman_tanh": Kernel(_rule(elman(1, activation="tanh")), 1),
    "elman_relu": Kernel(_rule(elman(1, activation="relu")), 1),
    "elman_identity": Kernel(_rule(elman(1, activation="identity")), 1),
    "gru": Kernel(_rule(gru(1)), 3, ("reset", "update", "candidate", "h_candidate")),
    "gru_reset_before": Kernel(_rule(gru(1, reset="before")), 3, ("reset", "update", "candidate")),
    "lstm": Kernel(
        _rule(lstm(1)), 4, ("input", "forget", "candidate", "output", "memory"), memory=True
    ),
}


class Call(NamedTuple):
    """What all three primitives know of a call.

    Attributes:
      cell: name of the kernel.
      reverse: whether time runs backwards.
      precision: of the products where XLA does them; the compiled ones are exact to rounding.
      operands: names of the operands that there are.
    """

    cell: str
    reverse: bool
    precision: str | None
    operands: tuple[str, ...]

    @property
    def kernel(self) -> Kernel:
        return KERNELS[self.cell]

    @property
    def states(self) -> tuple[str, ...]:
        """Names of what the forward pass gives at every step."""
        return ("h", "c") if self.kernel.memory else ("h",)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The states, and the last ones apart: a loss of these alone has no cotangent at the other steps."""
        return (*self.states, *(f"{name}_last" for name in self.states))

    @property
    def stored(self) -> tuple[str, ...]:
        """The states, and what else the derivative reads: of an Elman network h before it is perturbed."""
        apart = self.kernel.saved or "perturbations" in self.operands
        return (*self.states, "saved") if apart else self.states

    def with_last(self, states: Any) -> list[Array]:
        """All outputs, from the states (or their tangents) at all steps."""
        return [*states, *(leaf[0 if self.reverse else -1] for leaf in states)]

    def width(self, hidden_size: int) -> int:
        """Of a row of what is saved."""
        return max(1, len(self.kernel.saved)) * hidden_size

    def inputs(self, values: dict[str, Any]) -> Inputs:
        """Operands, or tangents of them, as the fused recurrence has them."""
        get = values.get
        state = LSTMState if self.kernel.memory else HiddenState
        return Inputs(
            Weights(values["W_xh"], values["W_hh"], values["b_h"], get("b_hh")),
            {},
            Streams(values["x"], get("keep"), get("perturbations")),
            state(*(values[f"{name}_0"] for name in self.states)),
            get("mask"),
        )
