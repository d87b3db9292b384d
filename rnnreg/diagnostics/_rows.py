"""Jacobians row by row need rows that go through a step apart from one another; others are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import Array

from rnnreg.cells import Cell
from rnnreg.networks import Network, cell_mixes_rows, mixes_rows, mixing_part


def check_apart(function: Callable[[Any], Any], rows: Any, params: Any, *, who: str) -> None:
    """Raises where what `function(rows)` returns of the first row depends on the other rows."""
    _refuse(who if mixes_rows(function, rows, params) else None)


def check_cell_apart(cell: Cell, params: Any, input_size: int) -> None:
    """Raises where the step of a cell mixes rows."""
    _refuse(f"the cell {cell.name!r}" if cell_mixes_rows(cell, params, input_size) else None)


def check_network_apart(net: Network, params: Any, xs: Array) -> None:
    """Raises where a network mixes rows: one of its cells, or all of it if it is known as a function."""
    _refuse(mixing_part(net, params, xs))


def _refuse(who: str | None) -> None:
    if who is not None:
        raise ValueError(
            f"{who} mixes the rows of a batch: the first row comes out otherwise if the other rows change, so it "
            "has no Jacobian of its own. Statistics over the batch do that: use stored averages (the mode for "
            "prediction), or normalise over features."
        )
