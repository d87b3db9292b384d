"""The back ends of the recurrence, which of them runs a cell, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnreg._checks import check_choice, check_count
from rnnreg._signatures import typed
from rnnreg.cells import Cell, as_gate
from rnnreg.recurrence._fused import fused_scan
from rnnreg.recurrence._product import check_precision
from rnnreg.recurrence._scan import plain_scan
from rnnreg.recurrence.native import kernel_library

# The input product moves into the loop where that was no slower on a CPU (experiments.benchmarks.scaling): each
# step then reads D numbers a row instead of G·H.
_MOST_INSIDE = 16


class BackendChoice(NamedTuple):
    """Which recurrence runs a cell.

    Attributes:
      backend: "scan", "fused" or "native".
      inside: whether the input is projected inside the loop.
      reason: why, in words.
    """

    backend: str
    inside: bool
    reason: str

    def __str__(self) -> str:
        place = "inside the loop" if self.inside else "before the loop"
        return f"{self.backend}, inputs projected {place}: {self.reason}"


class Asked(NamedTuple):
    """What a recurrence is asked for beside the cell.

    Attributes:
      projection: where to project the inputs.
      precision: of the products.
      dtype: of all arrays; None where they differ.
      holds: whether units hold fields of the state each by a mask of its own.
    """

    projection: str = "auto"
    precision: str | None = None
    dtype: Any = jnp.float32
    holds: bool = False


class Backend(NamedTuple):
    """One way to run a recurrence.

    Attributes:
      run: `run(cell, params, streams, state, recurrent_mask, *, reverse, precision, inside) -> (final, states)`.
      obstacle: `obstacle(cell, asked)`, why it cannot run a cell so, in words; None if it can.
      why: `why(cell, asked)`, what "auto" says when it takes it.
      effect: what taking it means, added to the reason.
      inside: `inside(input_size, projection)`, whether it projects the input inside its loop.
    """

    run: Callable[..., tuple[Any, Any]]
    obstacle: Callable[[Cell, Asked], str | None]
    why: Callable[[Cell, Asked], str]
    effect: str = ""
    inside: Callable[[int, str], bool] = lambda input_size, projection: False


def _no_fused(cell: Cell, asked: Asked | None = None) -> str | None:
    if cell.gate is None or cell.weights is None:
        return f"{cell.name} does its own products"
    state = jax.eval_shape(lambda: cell.initial_state(1, jnp.float32))
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)):
        return f"the state of {cell.name} holds numbers that are not real"
    return None


def _why_fused(cell: Cell, asked: Asked) -> str:
    stated = cell.gate is not None and as_gate(cell.gate).tangent is not None
    return "the gate states its tangent" if stated else "the gate's tangent is derived"


def _no_native(cell: Cell, asked: Asked) -> str | None:
    if cell.weights is None or cell.facts.native is None:
        return f"{cell.name} has no compiled kernel"
    if asked.precision == "bfloat16":
        return "the compiled kernel has no products of bfloat16"
    if asked.holds:
        return (
            "the compiled kernel holds h and c of a unit together, and adds nothing to a held unit"
        )
    if asked.dtype not in (jnp.float32, jnp.float64):
        return "the compiled kernel takes arrays of float32 or of float64, all alike"
    if asked.projection == "before":
        return "the compiled kernel projects inputs inside its loop"
    if jax.default_backend() != "cpu":
        return "the compiled kernel is for CPUs"
    found = kernel_library(asked.dtype)
    return found.reason if found.path is None else None


def _run_native(*args: Any, **options: Any) -> tuple[Any, Any]:
    # It needs jax.extend, which costs more than an import of this package may.
    from rnnreg.recurrence.native._calls import native_scan

    return native_scan(*args, **options)


def _fused_inside(input_size: int, projection: str) -> bool:
    small = jax.default_backend() == "cpu" and input_size <= _MOST_INSIDE
    return small if projection == "auto" else projection == "inside"


# In the order in which "auto" tries them; the last one runs every cell.
BACKENDS: dict[str, Backend] = {
    "native": Backend(
        _run_native,
        _no_native,
        lambda cell, asked: kernel_library(asked.dtype).reason,
        inside=lambda input_size, projection: True,
    ),
    "fused": Backend(
        fused_scan,
        _no_fused,
        _why_fused,
        ", so weight gradients are one product a sequence",
        inside=_fused_inside,
    ),
    "scan": Backend(
        plain_scan, lambda cell, asked: None, lambda cell, asked: _no_fused(cell) or "as asked"
    ),
}
NAMES = ("auto", *reversed(BACKENDS))
PROJECTIONS = ("auto", "inside", "before")


@typed
def choose_backend(
    cell: Cell,
    *,
    input_size: int,
    backend: str = "auto",
    projection: str = "auto",
    precision: str | None = None,
    dtype: Any = jnp.float32,
    holds: bool = False,
) -> BackendChoice:
    """The recurrence that runs a cell.

    "scan" is one `lax.scan`, differentiated by JAX; it runs every cell. "fused" has a derivative of its own, in
    which every weight gradient is one product a sequence; it needs a cell with a gate. The tangent of the gate is the
    one that it states, or else `jax.jvp` of the gate. "native" is compiled for this processor, forwards and
    backwards; it needs a CPU, a C++ compiler the first time, and a gate or a step that names its kernel
    (`Facts.native`). Other derivatives than the gradient, other devices, and programs that `jax.export` makes then run
    as "fused" does, or for a step as "scan" does. It runs whole on each device where `jit` divides its arguments over
    CPU devices; `shard_map` divides it. All give forward mode, reverse mode and higher orders, and agree to rounding.

    Args:
      cell: the cell.
      input_size: D.
      backend: "auto", "scan", "fused" or "native".
      projection: where the fused recurrence projects its inputs, "inside" its loop, all of them "before" it, or "auto":
        inside on a CPU up to 16 features. "scan" always projects before, "native" inside.
      precision: of the products.
      dtype: of the arrays; None where they differ.
      holds: whether units hold fields of the state each by a mask of its own (zoneout), or h is perturbed as well.

    Returns:
      The choice, with its reason.

    Raises:
      ValueError: an unknown back end, or one that cannot run this cell so, with the reasons.

    >>> import rnnreg as rr
    >>> choose_backend(rr.cells.gru(8), input_size=2, projection="before").backend
    'fused'
    >>> print(choose_backend(rr.cells.gru(8, activation="relu", reset="before"), input_size=2))
    scan, inputs projected before the loop: gru_reset_before does its own products
    """
    check_choice(backend, "backend", NAMES)
    check_choice(projection, "projection", PROJECTIONS)
    check_precision(precision)
    check_count(input_size, "input_size", least=0)
    asked = Asked(projection, precision, dtype, holds)
    if backend != "auto":
        _check_able(cell, backend, asked)
        name, why = backend, "as asked"
    else:
        name = next(name for name, one in BACKENDS.items() if one.obstacle(cell, asked) is None)
        why = BACKENDS[name].why(cell, asked)
    chosen = BACKENDS[name]
    why += chosen.effect
    if backend == "auto" and name != "native" and cell.facts.native is not None:
        why += f"; {_no_native(cell, asked)}"
    return BackendChoice(name, chosen.inside(input_size, projection), why)


def check_backend(
    cell: Cell, backend: str, projection: str = "auto", precision: str | None = None
) -> None:
    """Raises if there is no such back end, or it cannot run the cell. It asks for no device, so it starts none."""
    check_choice(backend, "backend", NAMES)
    check_choice(projection, "projection", PROJECTIONS)
    if backend == "native":  # the rest depends on the device
        if cell.facts.native is None or cell.weights is None:
            _check_able(cell, backend, Asked(projection, precision))
    elif backend != "auto":
        _check_able(cell, backend, Asked(projection, precision))


def _check_able(cell: Cell, backend: str, asked: Asked) -> None:
    obstacle = BACKENDS[backend].obstacle(cell, asked)
    if obstacle:
        gate = (
            ", or give the cell a gate (rr.cells.Gate) and real states" if _no_fused(cell) else ""
        )
        raise ValueError(
            f"backend={backend!r} cannot run this cell: {obstacle}. Use backend='auto' or 'scan'{gate}."
        )
