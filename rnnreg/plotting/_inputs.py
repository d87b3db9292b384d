"""What figures are given: records of the right type, as many names as records, histories along λ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from rnnreg._signatures import MAKERS
from rnnreg.plotting._axes import numbers
from rnnreg.selection import axis_of, is_zipped
from rnnreg.sweeps import SweepResult, position

R = TypeVar("R")


def one(given: Any, record: type[R]) -> R:
    """The record, or an error that says which function makes it."""
    if isinstance(given, record):
        return given
    entries = f" Take one of its entries {list(given)}." if isinstance(given, Mapping) else ""
    made = MAKERS[record.__name__]
    raise ValueError(
        f"the figure is of a {record.__name__}; got {type(given).__name__}. It is what rr.{made} returns."
        + entries
    )


def curves_by_name(given: Any, name: str) -> Mapping[str, Any]:
    """A dict of curves, or an error that says what was given in its place."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f'{name} must be a dict of arrays by name, such as {{"training": values}}; got {type(given).__name__}.'
        )
    return given


def by_label(given: Any, record: type[R]) -> dict[str, R]:
    """Several records by label, or one under the label ""; a Dataset of `SweepResult.map` has one for each λ."""
    if _is_mapped(given):
        records, lams = by_lambda(given, record)
        given = {f"λ = {lam}": one for lam, one in zip(numbers(lams), records, strict=True)}
    found = dict(given) if isinstance(given, Mapping) else {"": given}
    if not found:
        raise ValueError(
            f"give at least one {record.__name__}; rr.{MAKERS[record.__name__]} returns it."
        )
    return {label: one(entry, record) for label, entry in found.items()}


def by_lambda(
    given: Any, record: type[R], lams: Any = None, *, runs: bool = False
) -> tuple[Any, Any]:
    """The record of each λ and these λ, if a Dataset of `SweepResult.map` is given, or else what was given.

    With `runs`, a record keeps the axes of seeds and folds (but the fold "all") in front.
    """
    if not _is_mapped(given):
        return given, lams
    if "finished" not in given:
        raise ValueError(
            "a Dataset is drawn if result.map returned it; this one has no 'finished'."
        )
    if "fold" in given.dims and given.sizes["fold"] > 1:
        given = given.sel(fold=[fold for fold in given.fold.values if fold != "all"])
    sizes = {str(dim): given.sizes[dim] for dim in given["finished"].dims}
    known = [dim for dim in sizes if dim not in ("seed", "fold")]
    numeric = [dim for dim in known if given[dim].dtype.kind in "iuf"]
    swept = [dim for dim in numeric if sizes[dim] > 1] or numeric[:1]
    others = [dim for dim in sizes if dim not in swept and sizes[dim] > 1]
    others = [dim for dim in others if dim in known or not runs]
    if len(swept) != 1 or others:
        raise ValueError(
            f"the figure has one {record.__name__} per λ, and the Dataset has the axes {sizes}. Take one label of "
            f"each other axis, such as found.sel(seed=0)."
        )
    axis = given.squeeze([dim for dim in sizes if dim not in swept and sizes[dim] == 1])
    lanes = [axis.isel({swept[0]: place}) for place in range(sizes[swept[0]])]
    return [_rebuilt(lane, record) for lane in lanes], given[swept[0]].values


def _is_mapped(given: Any) -> bool:
    import xarray as xr

    return isinstance(given, xr.Dataset)


def _rebuilt(lane: Any, record: type[R]) -> R:
    """A record from its arrays by name, "log_ratio.layer_0" among them; runs in front."""
    runs, fields = lane["finished"].dims, {}
    arrays = {str(name): array.transpose(*runs, ...).values for name, array in lane.items()}
    for field in record._fields:  # pyright: ignore
        parts = {name: array for name, array in arrays.items() if name.startswith(f"{field}.")}
        if field not in arrays and not parts:
            raise ValueError(
                f"the Dataset has no {field!r}, which a {record.__name__} has: give result.map a function that returns "
                f"what rr.{MAKERS[record.__name__]} returns."
            )
        fields[field] = arrays.get(field, {})
        for name, array in parts.items():
            *groups, leaf = name.split(".")[1:]
            branch = fields[field]
            for group in groups:
                branch = branch.setdefault(group, {})
            branch[leaf] = array
    return record(**fields)


def in_order(given: Any, record: type[R], **each: Any) -> list[R]:
    """Several records, or a single one in a list; what `each` holds has one entry for each, or is None."""
    several = [*given] if isinstance(given, Iterable) and not isinstance(given, record) else [given]
    found = [one(entry, record) for entry in several]
    for name, entries in each.items():
        if entries is not None and np.shape(entries) != (len(found),):
            raise ValueError(
                f"{name} needs one entry per {record.__name__}; got {np.size(entries)} for {len(found)}."
            )
    if not found:
        raise ValueError(
            f"give at least one {record.__name__}; rr.{MAKERS[record.__name__]} returns it."
        )
    return found


def at_labels(found: Any, at: Mapping[str, Any] | None) -> Any:
    """What an array of a result has at some labels; raises for one that is not there."""
    at = dict(at or {})
    unknown = [dim for dim in at if dim not in found.dims]
    if unknown:
        raise ValueError(
            f"at names {unknown[0]!r}; the dimensions are {list(map(str, found.dims))}."
        )
    return found.isel({dim: position(dim, found[dim].values, at, None) for dim in at})


def history_by_lambda(
    result: SweepResult,
    variable: str,
    *,
    axis: str | None,
    at: Mapping[str, Any] | None,
    along: tuple,
) -> Any:
    """A variable `[λ, *along]` of the history, the mean over seeds and over folds other than "all"."""
    axis = axis_of(result, axis)
    if is_zipped(result, axis):
        raise ValueError(
            f"axis={axis!r} numbers trials, and curves are coloured by a λ: give axis=..., one of "
            f"{sorted(result.config['grid'][axis])}."
        )
    found = at_labels(result.metrics[variable], at)
    if (
        axis in found.coords and axis not in found.dims and found[axis].dims
    ):  # of a zipped dimension
        found = found.swap_dims({found[axis].dims[0]: axis})
    if "fold" in found.dims:
        found = found.sel(fold=[fold for fold in found.fold.values if fold != "all"])
    found = found.mean([dim for dim in ("seed", "fold") if dim in found.dims], skipna=False)
    extra = [dim for dim in found.dims if dim not in (axis, *along)]
    if axis not in found.dims or any(found.sizes[dim] > 1 for dim in extra):
        raise ValueError(
            f"the figure needs the dimension {axis!r} and a label for every other; after `at` the result has "
            f"{dict(found.sizes)}. Give at={{dimension: label}}, or another axis."
        )
    return found.squeeze(extra).transpose(axis, *along)


def names_after(start: str, result: SweepResult) -> list[str]:
    """What the result has recorded under names that begin so, without this beginning."""
    return [str(name).removeprefix(start) for name in result.metrics if str(name).startswith(start)]
