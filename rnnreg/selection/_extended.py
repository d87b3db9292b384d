"""A sweep whose grid is extended where the best λ lies on its edge."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from rnnreg._checks import check_count, warn_caller
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split
from rnnreg.selection._choice import choose
from rnnreg.selection._scores import check_asked, check_combine
from rnnreg.sweeps import SweepResult, Zipped, sweep
from rnnreg.training import Train


@typed
def sweep_extended(
    train: Train | Callable[[Mapping[str, Any]], Train],
    grid: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    metric: str = "val_loss",
    maximise: bool | None = None,
    combine: str = "mean",
    num_added: int = 3,
    max_extensions: int = 3,
    max_lanes: int | None = None,
    keep: str | Path | None = None,
    **options: Any,
) -> SweepResult:
    """`rr.sweep`, again with a longer grid as long as the best λ is the largest or the smallest one that was tried.

    The grid goes on beyond that edge by the ratio of the two values there, `num_added` values at a time; below, only if
    0 is not on it. Every axis that is the λ of a penalty is looked at, at the best values of all other axes. Lanes that
    are finished are loaded from the folder and none is trained twice; the program is kept for the same `train`, so that
    an extension compiles nothing.

    Args:
      train: as in `rr.sweep`.
      grid: as in `rr.sweep`; several λ make a product, each extended by itself. Zipped values stay as they are.
      data: as in `rr.sweep`.
      key: as in `rr.sweep`.
      metric: a variable of `result.metrics`, by which the best is told, as in `choose`.
      maximise: whether more of it is better; needed if the metric does not state it.
      combine: how seeds are combined, as in `choose`.
      num_added: values by which an axis grows at a time.
      max_extensions: how often the sweep is run again, at most.
      max_lanes: of the last sweep; an extension beyond it is not made. None sets no limit.
      keep: a folder for finished lanes, as in `rr.sweep`; None takes one for the time of the call.
      **options: further ones of `rr.sweep`, such as `folds` and `seeds`.

    Returns:
      The last sweep; `config["extended"]` holds the values that were added by axis.

    Raises:
      ValueError: as `rr.sweep` and `choose`; no λ on any axis, or one with less than two values above 0.

    Warns:
      RuntimeWarning: the budget is spent, and the best is still on an edge.

    >>> import optax, jax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = sweep_extended(train, {"l2": [0, 1e-2, 1e-1]}, rr.Split(batch, target_times=times),
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> result.config["extended"]
    {}
    """
    for name, value in (("num_added", num_added), ("max_extensions", max_extensions)):
        check_count(value, name)
    if max_lanes is not None:
        check_count(max_lanes, "max_lanes")
    check_combine(combine)
    by = {"metric": metric, "maximise": maximise, "combine": combine}
    check_asked(train, metric, grid)
    if isinstance(train, Train):
        _check_axes(grid, train.settings.penalties)
    grid, added = dict(grid), {}
    for name in ("folds", "seeds"):  # every sweep reads them
        if isinstance(options.get(name), Iterator):
            options[name] = list(options[name])
    with _folder(keep) as folder:
        result = sweep(train, grid, data, key=key, keep=folder, **options)
        axes = _check_axes(grid, {name for group in result.config["penalties"] for name in group})
        for turn in range(max_extensions + 1):
            edges = _edges(result, axes, by)
            more = {name: _beyond(grid[name], edge, num_added) for name, edge in edges.items()}
            lanes = result.config["lanes"] * math.prod(
                1 + len(values) / len(grid[name]) for name, values in more.items()
            )
            if not more:
                break
            if turn == max_extensions or (max_lanes is not None and lanes > max_lanes):
                said = " and ".join(f"the {edge} {name}" for name, edge in edges.items())
                spent = (
                    f"after {turn} extensions"
                    if turn == max_extensions
                    else f"and {lanes:.0f} lanes are more than max_lanes={max_lanes}"
                )
                warn_caller(
                    f"the best lies at {said} that was tried, {spent}; look further by hand."
                )
                break
            for name, values in more.items():
                grid[name] = sorted([*map(float, grid[name]), *values])
                added.setdefault(name, []).extend(values)
            result = sweep(train, grid, data, key=key, keep=folder, **options)
    return dataclasses.replace(result, config=result.config | {"extended": added})


@contextlib.contextmanager
def _folder(keep: str | Path | None) -> Iterator[str | Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield folder


def _check_axes(grid: Mapping[str, Any], penalties: Collection[str]) -> list[str]:
    """The axes that are the λ of a penalty; raises if there is none, or one that no ratio can be taken of."""
    lists = [
        n for n, given in grid.items() if np.ndim(given) == 1 and not isinstance(given, Zipped)
    ]
    axes = [name for name in lists if name in penalties]
    if not axes:
        raise ValueError(
            "grid has no list of λ that could be extended: give one under the name of a penalty, such as "
            '{"l2": [1e-4, 1e-3]}.'
        )
    for name in axes:
        positive = [float(value) for value in grid[name] if value > 0]
        if len(positive) < 2:
            raise ValueError(
                f"the axis {name!r} has {positive} above 0, and an extension needs the ratio of two such values."
            )
    return axes


def _edges(result: SweepResult, axes: list[str], by: Mapping[str, Any]) -> dict[str, str]:
    """By axis, "largest" or "smallest" where the best λ is the one that was tried."""
    found = {}
    for name in axes:
        best = choose(result, axis=name, **by).lam_min
        values = result.config["grid"][name]
        if best > 0 and best == max(values):
            found[name] = "largest"
        elif best > 0 and best == min(values):
            found[name] = "smallest"
    return found


def _beyond(values: Any, edge: str, num: int) -> list[float]:
    """So many values beyond an edge, by the ratio of the two values there."""
    positive = np.sort([value for value in map(float, values) if value > 0])
    last, before = positive[[-1, -2]] if edge == "largest" else positive[[0, 1]]
    return [float(f"{last * (last / before) ** step:.12g}") for step in range(1, num + 1)]
