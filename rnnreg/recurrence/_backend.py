"""Which recurrence runs, and why."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnreg._checks import check_choice
from rnnreg.cells import Cell, as_gate

BACKENDS = ("auto", "scan", "fused")

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


def choose_backend(cell: Cell, *, input_size: int, backend: str = "auto") -> BackendChoice:
    """The recurrence that runs a cell.

    "scan" is one `lax.scan`, differentiated by JAX; it runs every cell. "fused" has a derivative of its own, in
    which every weight gradient is one product a sequence; it needs a cell with a gate. The tangent of the gate is the
    one that it states, or else `jax.jvp` of the gate. Both give forward mode, reverse mode and higher orders, and
    agree to rounding.

    Args:
      cell: the cell.
      input_size: D.
      backend: "auto", "scan" or "fused".

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
    check_backend(cell, backend)
    obstacle = _obstacle(cell)
    if obstacle or backend == "scan":
        return BackendChoice("scan", False, obstacle or "as asked")
    inside = jax.default_backend() == "cpu" and input_size <= _MOST_INSIDE
    stated = cell.gate is not None and as_gate(cell.gate).tangent is not None
    why = "the gate states its tangent" if stated else "the gate's tangent is derived"
    why = "as asked" if backend == "fused" else why
    return BackendChoice("fused", inside, f"{why}, so weight gradients are one product a sequence")


def check_backend(cell: Cell, backend: str) -> None:
    """Raises where there is no such back end, or it cannot run the cell. It asks for no device, so it starts none."""
    check_choice(backend, "backend", BACKENDS)
    obstacle = _obstacle(cell)
    if backend == "fused" and obstacle:
        raise ValueError(
            f"backend='fused' cannot run this cell: {obstacle}. Use backend='auto' or 'scan', or give the cell a gate "
            "(rr.cells.Gate) and real states."
        )


def _obstacle(cell: Cell) -> str | None:
    """Why a cell cannot run fused; None where it can."""
    if cell.gate is None or cell.weights is None:
        return f"{cell.name} does its own products"
    state = jax.eval_shape(lambda: cell.initial_state(1, jnp.float32))
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)):
        return f"the state of {cell.name} holds numbers that are not real"
    return None
