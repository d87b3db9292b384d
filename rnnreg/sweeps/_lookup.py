"""From labels to places: the group of static values, and the position on a dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import jax
import numpy as np

from rnnreg._checks import check_choice, described
from rnnreg.sweeps._group import Group


def group_number(
    groups: Sequence[Group],
    labels: Mapping[str, Any],
    dims: Sequence[str],
    grid: Mapping[str, Any],
) -> int:
    """The number of the one group at the given static values.

    Raises:
      ValueError: an unknown dimension, or static values that leave no group or several.
    """
    static_names = list(groups[0].static)
    unknown = set(labels) - set(dims) - set(static_names)
    if unknown:
        name = sorted(unknown)[0]
        constant = np.ndim(grid.get(name, [0])) == 0
        raise ValueError(
            f"unknown dimension {name!r}; the sweep has {[*static_names, *dims]}."
            + (f" {name!r} is constant in this sweep." if constant else "")
        )
    numbers = [
        number
        for number, group in enumerate(groups)
        if all(labels.get(n, group.static[n]) == group.static[n] for n in static_names)
    ]
    if len(numbers) != 1:
        choices = [group.static for group in groups]
        raise ValueError(
            f"give one value of each static axis; the sweep has {choices}, got {dict(labels)}."
        )
    return numbers[0]


def default_position(dim: str, coordinate: np.ndarray) -> int | None:
    """The place that is meant without a label: the only one, or the fold "all"; else None."""
    if len(coordinate) == 1:
        return 0
    if dim == "fold" and "all" in coordinate:
        return int(np.flatnonzero(coordinate == "all")[0])
    return None


def position(
    dim: str, coordinate: np.ndarray, labels: Mapping[str, Any], method: str | None
) -> int:
    """The place of a label on a dimension.

    Raises:
      ValueError: a label that is missing, of another kind, or not there; an unknown method.
    """
    check_choice(method, "method", (None, "nearest"))
    if dim not in labels:
        if (place := default_position(dim, coordinate)) is not None:
            return place
        raise ValueError(f"give a label for {dim!r}; it has {coordinate.tolist()}.")
    label = labels[dim]
    if isinstance(label, (np.ndarray, jax.Array)) and np.size(label) == 1:
        label = np.asarray(label).item()
    if isinstance(label, (np.ndarray, jax.Array, list, tuple, dict)) or label is None:
        raise ValueError(
            f"{dim} takes one label of {coordinate.tolist()}; got {described(label)}. result.select and "
            "result.metrics.sel take parts of an axis."
        )
    if coordinate.dtype.kind in "OUST":
        found = np.flatnonzero(coordinate.astype(str) == str(label))
    elif not isinstance(label, Real) or label != label:
        raise ValueError(f"{dim} has numbers, {coordinate.tolist()}; got {label!r}.")
    elif method == "nearest":
        found = [int(np.argmin(np.abs(coordinate - label)))]
    else:
        found = np.flatnonzero(np.isclose(coordinate, float(label), rtol=1e-6, atol=0))
    if len(found) == 0:
        advice = {"seed": "", "fold": " The fold 'all' is there after sweep(..., refit=True)."}
        raise ValueError(
            f"{dim}={label!r} is not on the axis, which has {coordinate.tolist()}."
            + advice.get(dim, " method='nearest' takes the nearest number.")
        )
    return int(found[0])
