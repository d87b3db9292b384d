"""What a cell does at a step, and what is known of it: gates, whole steps, facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from rnnreg._signatures import typed
from rnnreg.cells._contracts import GateFunction, Params, StepFunction

Values = dict[str, Array]


class Facts(NamedTuple):
    """What is known of a gate or a step besides the states that it returns; None and () are "not known".

    The facts belong to the function beside which they stand: a cell whose gate is replaced loses them.

    Attributes:
      opens: names, among the values that the function returns, of gates in [0, 1].
      bounds: (low, high) that h stays inside, infinite where it has no bound.
      max_slope: γ with ‖∂h′/∂h_proj‖₂ ≤ γ for a gate that sees the state through its projection alone.
      blocks: names of the gate blocks on the last axis of W_xh, W_hh and b_h, in order.
      keeps: the block of the gate that keeps the state from step to step.
      enters: the block of the gate that lets new values in.
      native: the name of the compiled kernel that does what the gate and its tangent, or the step, do.
    """

    opens: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    max_slope: float | None = None
    blocks: tuple[str, ...] = ()
    keeps: str | None = None
    enters: str | None = None
    native: str | None = None


class _GateFields(NamedTuple):
    forward: Callable[[Params, Any, Array, Array], tuple[Any, Values]]
    tangent: Callable[..., Any] | None = None
    additive: bool = False
    facts: Facts = Facts()


class Gate(_GateFields):
    """A row-wise gate: its forward map, its derivative if one is written by hand, and what is known of it.

    Calling the record gives the state alone. Without a tangent the derivative is `jax.jvp` of `forward`, which runs
    about as fast. Everything else belongs to `forward`: a gate whose forward map is replaced forgets the rest. With
    another tangent it forgets the name of its kernel.

    Attributes:
      forward: `forward(params, state, x_proj, h_proj) -> (state', values)`; `values` names the `[B, …]` arrays that
        the tangent needs or that diagnostics show.
      tangent: `tangent(values, state, state', d_state, d_x_proj, d_h_proj) -> d_state'`, linear in the d's; state' is
        what `forward` returned (in a row that a mask holds, the old state). What h
        contributes through `h_proj` is not in it. A gate with a tangent is given no parameters ({}): what it uses
        comes in through the projections.
      additive: whether the gate sees its projections only as their sum; one stream of tangents then serves both.
      facts: what is known of the gate.
    """

    __slots__ = ()

    def __call__(self, params: Params, state: Any, x_proj: Array, h_proj: Array) -> Any:
        return self.forward({} if self.tangent else params, state, x_proj, h_proj)[0]

    def _replace(self, **changes: Any) -> Gate:
        if "forward" in changes:
            changes = {"tangent": None, "additive": False, "facts": Facts()} | changes
        elif changes.get("tangent") is not None:
            changes = {"facts": self.facts._replace(native=None)} | changes
        return Gate(**(self._asdict() | changes))

    __replace__ = _replace


class _StepFields(NamedTuple):
    forward: Callable[[Params, Any, Array], tuple[Any, Values]]
    facts: Facts = Facts()


class Step(_StepFields):
    """A whole step and what is known of it; calling the record gives the state alone.

    Attributes:
      forward: `forward(params, state, x) -> (state', values)`, its own matrix products included.
      facts: what is known of the step; `max_slope` has no meaning here.
    """

    __slots__ = ()

    def __call__(self, params: Params, state: Any, x: Array) -> Any:
        return self.forward(params, state, x)[0]

    def _replace(self, **changes: Any) -> Step:
        if "forward" in changes:
            changes = {"facts": Facts()} | changes
        return Step(**(self._asdict() | changes))

    __replace__ = _replace


@typed
def as_gate(given: Gate | GateFunction) -> Gate:
    """The record of a gate that is given as a record or as a plain function of which nothing is known.

    Args:
      given: a `Gate`, or `gate(params, state, x_proj, h_proj) -> state`.

    Returns:
      The record.

    >>> as_gate(lambda params, state, x_proj, h_proj: state).tangent is None
    True
    """
    if isinstance(given, Gate):
        return given
    return Gate(lambda params, state, x_proj, h_proj: (given(params, state, x_proj, h_proj), {}))


@typed
def as_step(given: Step | StepFunction) -> Step:
    """The record of a step that is given as a record or as a plain function of which nothing is known.

    Args:
      given: a `Step`, or `step(params, state, x) -> state`.

    Returns:
      The record.

    >>> as_step(lambda params, state, x: state).facts.bounds is None
    True
    """
    if isinstance(given, Step):
        return given
    return Step(lambda params, state, x: (given(params, state, x), {}))
