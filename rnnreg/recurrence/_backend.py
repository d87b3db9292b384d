"""The back ends of the recurrence, which of them runs a cell, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnreg._checks import check_choice
from rnnreg.cells import Cell, as_gate
from rnnreg.recurrence._fused import fused_scan
from rnnreg.recurrence._scan import plain_scan

# The input product moves into the loop where that was no slower on a CPU (experiments.benchmarks.scaling): each
# step then reads D numbers a row instead of G·H.
_MOST_INSIDE = 16


class BackendChoice(NamedTuple):
    """Which recurrence runs a cell.

    Attributes:
      backend: "scan" or "fused".
      inside: whether the input is projected inside the loop.
      reason: why, in words.
    """

    backend: str
    inside: bool
    reason: str

    def __str__(self) -> str:
        place = "inside the loop" if self.inside else "before the loop"
        return f"{self.backend}, inputs projected {place}: {self.reason}"


class Backend(NamedTuple):
    """One way to run a recurrence.

    Attributes:
      run: `run(cell, params, streams, state, recurrent_mask, *, reverse, precision, inside) -> (final, states)`.
      obstacle: `obstacle(cell)`, why it cannot run a cell, in words; None if it can.
      why: `why(cell)`, what "auto" says when it takes it.
      effect: what taking it means, added to the reason.
      can_project_inside: whether it can project the input inside its loop.
    """

    run: Callable[..., tuple[Any, Any]]
    obstacle: Callable[[Cell], str | None]
    why: Callable[[Cell], str]
    effect: str = ""
    can_project_inside: bool = False


def _no_fused(cell: Cell) -> str | None:
    if cell.gate is None or cell.weights is None:
        return f"{cell.name} does its own products"
    state = jax.eval_shape(lambda: cell.initial_state(1, jnp.float32))
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)):
        return f"the state of {cell.name} holds numbers that are not real"
    return None


def _why_fused(cell: Cell) -> str:
    stated = cell.gate is not None and as_gate(cell.gate).tangent is not None
    return "the gate states its tangent" if stated else "the gate's tangent is derived"


# In the order in which "auto" tries them; the last one runs every cell.
BACKENDS: dict[str, Backend] = {
    "fused": Backend(
        fused_scan,
        _no_fused,
        _why_fused,
        ", so weight gradients are one product a sequence",
        can_project_inside=True,
    ),
    "scan": Backend(plain_scan, lambda cell: None, lambda cell: _no_fused(cell) or "as asked"),
}
NAMES = ("auto", *reversed(BACKENDS))
PROJECTIONS = ("auto", "inside", "before")


def choose_backend(
    cell: Cell, *, input_size: int, backend: str = "auto", projection: str = "auto"
) -> BackendChoice:
    """The recurrence that runs a cell.

    "scan" is one `lax.scan`, differentiated by JAX; it runs every cell. "fused" has a derivative of its own, in
    which every weight gradient is one product a sequence; it needs a cell with a gate. The tangent of the gate is the
    one that it states, or else `jax.jvp` of the gate. Both give forward mode, reverse mode and higher orders, and
    agree to rounding.

    Args:
      cell: the cell.
      input_size: D.
      backend: "auto", "scan" or "fused".
      projection: where the fused recurrence projects its inputs, "inside" its loop, all of them "before" it, or "auto":
        inside on a CPU up to 16 features. "scan" always projects before.

    Returns:
      The choice, with its reason.

    Raises:
      ValueError: an unknown back end, or "fused" for a cell that it cannot run, with the reasons.

    >>> import rnnreg as rr
    >>> choose_backend(rr.cells.gru(8), input_size=2).backend
    'fused'
    >>> print(choose_backend(rr.cells.gru(8, reset="before"), input_size=2))
    scan, inputs projected before the loop: gru_reset_before does its own products
    """
    check_backend(cell, backend, projection)
    able = (name for name, one in BACKENDS.items() if one.obstacle(cell) is None)
    name = next(able) if backend == "auto" else backend
    chosen = BACKENDS[name]
    why = chosen.why(cell) if backend == "auto" else "as asked"
    cpu = jax.default_backend() == "cpu"
    small = cpu and input_size <= _MOST_INSIDE if projection == "auto" else projection == "inside"
    inside = chosen.can_project_inside and small
    return BackendChoice(name, inside, why + chosen.effect)


def check_backend(cell: Cell, backend: str, projection: str = "auto") -> None:
    """Raises if there is no such back end, or it cannot run the cell. It asks for no device, so it starts none."""
    check_choice(backend, "backend", NAMES)
    check_choice(projection, "projection", PROJECTIONS)
    obstacle = None if backend == "auto" else BACKENDS[backend].obstacle(cell)
    if obstacle:
        raise ValueError(
            f"backend={backend!r} cannot run this cell: {obstacle}. Use backend='auto' or 'scan', or give the cell a "
            "gate (rr.cells.Gate) and real states."
        )
