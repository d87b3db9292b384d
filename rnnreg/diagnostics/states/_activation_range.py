"""The range of a cell's activation φ, found by trying its gate."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg.cells import Cell
from rnnreg.recurrence import cell_step

_NEAR = np.concatenate([np.linspace(-20.0, 20.0, 801), [-1e4, 1e4]])
_FAR = np.array([-1e8, 1e8])


def activation_range(cell: Cell) -> tuple[float, float] | None:
    """(low, high) of φ, ±∞ where it has no bound; None where it is not known, or the output need not stay inside it.

    Elman: h = φ. GRU: h lies between φ and the last h, so long as the update gate is in [0, 1]. LSTM: h = o φ(c) with
    o in [0, 1], so 0 is in the range.
    """
    tries = {"elman": _elman, "irnn": _elman, "gru": _gru, "gru_reset_before": _gru, "lstm": _lstm}
    if cell.name not in tries:
        return None
    with jax.ensure_compile_time_eval():  # numbers, also while the caller is being traced
        try:
            near, far = (tries[cell.name](cell, points) for points in (_NEAR, _FAR))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None  # a cell of that name which is not the library's
    if near is None or far is None or np.isnan(near).all():
        return None
    low, high = float(np.nanmin(near)), float(np.nanmax(near))
    least, most = float(np.nanmin(far, initial=low)), float(np.nanmax(far, initial=high))
    room = 0.01 * (high - low)  # what goes on growing far out has no bound
    least = -math.inf if least < low - room else least
    most = math.inf if most > high + room else most
    return (least, most) if least < most else None


def _elman(cell: Cell, points: np.ndarray) -> np.ndarray:
    return _after(cell, cell.initial_state(len(points)), [points], "h")


def _gru(cell: Cell, points: np.ndarray) -> np.ndarray | None:
    zeros = cell.initial_state(len(points))
    ones = zeros._replace(h=jnp.ones_like(zeros.h))
    update = [_after(cell, state, [0, points, 0], "h") for state in (zeros, ones)]
    return _after(cell, zeros, [0, -1e4, points], "h") if _is_gate(update[1] - update[0]) else None


def _lstm(cell: Cell, points: np.ndarray) -> np.ndarray | None:
    zeros, c = cell.initial_state(len(points)), jnp.asarray(points)[:, None]
    forget = _after(cell, zeros._replace(c=jnp.ones_like(zeros.c)), [-1e4, points, 0, 0], "c")
    full = zeros._replace(c=jnp.broadcast_to(c, zeros.c.shape))
    phi = _after(cell, full, [-1e4, 1e4, 0, 1e4], "h")
    return np.append(phi, 0.0) if _is_gate(forget) else None


def _is_gate(values: np.ndarray) -> bool:
    """Whether a gate stays in [0, 1], and closes."""
    return bool(np.all((values > -1e-6) & (values < 1 + 1e-6)) and values[0] < 1e-6)


def _after(cell: Cell, state: Any, projections: list, field: str) -> np.ndarray:
    """A field of the first unit `[N]` after a step with these projections of each gate; h does not enter them."""
    rows, size = state.h.shape
    gates = len(projections)
    x = jnp.stack([jnp.broadcast_to(jnp.asarray(p, state.h.dtype), rows) for p in projections], 1)
    if cell.gate is not None:
        x_proj = jnp.repeat(x, size, axis=1)
        new = cell.gate({}, state, x_proj, jnp.zeros_like(x_proj))
    else:
        params = {
            "W_xh": jnp.repeat(jnp.eye(gates), size, axis=1),
            "W_hh": jnp.zeros((size, gates * size)),
            "b_h": jnp.zeros(gates * size),
            "b_hh": jnp.zeros(gates * size),
        }
        new = cell_step(cell)(params, state, x)
    return np.asarray(getattr(new, field), np.float64)[:, 0]
