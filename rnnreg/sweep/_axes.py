"""From a grid to lanes: named axes, their values, and the one lane of every combination."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RESERVED = frozenset({"seed", "fold", "epoch", "row", "time", "output"})


class Zipped(NamedTuple):
    """Hyperparameters that change together along one axis.

    Attributes:
      values: by hyperparameter, lists of the same length.
    """

    values: dict[str, np.ndarray]


class Axis(NamedTuple):
    """A named dimension of a sweep.

    Attributes:
      name: the dimension.
      values: by hyperparameter, `[n]`; a plain axis has one entry of its own name.
      labels: `[n]` coordinates of the dimension.
    """

    name: str
    values: dict[str, np.ndarray]
    labels: np.ndarray


def zipped(**values: Sequence[float]) -> Zipped:
    """Hyperparameters that change together: one axis instead of a product.

    Raises:
      ValueError: lists of different lengths, or none.

    >>> zipped(l2=[0.0, 1e-3], dropout=[0.5, 0.0]).values["l2"].tolist()
    [0.0, 0.001]
    """
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
    sizes = {name: len(array) for name, array in arrays.items()}
    if not sizes or len(set(sizes.values())) != 1:
        raise ValueError(f"zipped hyperparameters need lists of one length; got lengths {sizes}.")
    return Zipped(arrays)


def read_grid(
    grid: Mapping[str, Any], lambdas: Iterable[str], static: Mapping[str, Any] | None = None
) -> tuple[list[Axis], dict[str, float]]:
    """The axes of a grid, and its constants (plain numbers).

    Args:
      grid: by name, a list of values, a number, or `zipped(...)` under a dimension's name.
      lambdas: names that are penalty strengths, which must be finite and not negative.
      static: the static axes, whose names are taken.

    Raises:
      ValueError: an empty grid or axis, a reserved or repeated name, a value that is no number.
    """
    lambdas = set(lambdas)
    if not grid:
        raise ValueError(
            'grid is empty; expected at least one axis, such as {"l2": [0, 1e-4, 1e-3]}.'
        )
    axes: list[Axis] = []
    constants: dict[str, float] = {}
    taken: set[str] = set(static or ())
    for name, given in grid.items():
        names = {name, *given.values} if isinstance(given, Zipped) else {name}
        if names & RESERVED:
            raise ValueError(
                f"{sorted(names & RESERVED)[0]!r} is a reserved axis name ({', '.join(sorted(RESERVED))}); "
                "choose another (seeds and folds have arguments of their own)."
            )
        if names & taken:
            raise ValueError(
                f"the name {sorted(names & taken)[0]!r} is given twice, in the grid, in zipped(...) or in static; "
                "every hyperparameter belongs to one axis."
            )
        taken |= names
        if isinstance(given, Zipped):
            values = given.values
            axes.append(Axis(name, values, np.arange(len(next(iter(values.values()))))))
        elif np.ndim(given) == 0:
            values = {name: np.asarray([given], dtype=np.float64)}
            constants[name] = float(given)
        else:
            values = {name: np.asarray(given, dtype=np.float64)}
            axes.append(Axis(name, values, values[name]))
        for hyper, array in values.items():
            _check_values(hyper, array, hyper in lambdas, repeats=isinstance(given, Zipped))
    return axes, constants


def _check_values(name: str, values: np.ndarray, is_lambda: bool, repeats: bool) -> None:
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"the axis {name!r} needs a non-empty list of numbers; got shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"the axis {name!r} has a value that is not finite: {values.tolist()}.")
    if is_lambda and (values < 0).any():
        raise ValueError(
            f"λ must not be negative; the axis {name!r} has {values.min()}. Did you mean 10**x?"
        )
    if not repeats and len(np.unique(values)) != len(values):
        raise ValueError(f"the axis {name!r} has a repeated value: {values.tolist()}.")


def read_static(static: Mapping[str, Iterable[Any]] | None) -> dict[str, list[Any]]:
    """The static axes as lists.

    Raises:
      ValueError: an empty axis, a reserved name, a repeated value, or one that is no number or string (static
        values label the result and are stored with it).
    """
    axes = {name: list(values) for name, values in (static or {}).items()}
    for name, values in axes.items():
        if name in RESERVED:
            raise ValueError(
                f"{name!r} is a reserved axis name ({', '.join(sorted(RESERVED))}); choose another for the "
                "static axis."
            )
        if not values:
            raise ValueError(f"the static axis {name!r} is empty; expected at least one value.")
        for value in values:
            if not isinstance(value, (str, int, float)):
                raise ValueError(
                    f"the static axis {name!r} has the value {value!r}; static values label the result, so they "
                    "must be numbers or strings: name what you mean, and look it up in `train`, such as "
                    "CELLS[static['cell']]."
                )
        if len(set(values)) != len(values):
            raise ValueError(f"the static axis {name!r} has a repeated value: {values}.")
    return axes


def read_seeds(seeds: int | Iterable[int]) -> np.ndarray:
    """The seed numbers: 0 … S−1 for an int, or the given ones.

    Raises:
      ValueError: no seeds, a negative or a repeated one.
    """
    numbers = np.arange(seeds) if isinstance(seeds, int) else np.asarray(list(seeds))
    if numbers.size == 0 or not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0:
        raise ValueError(f"seeds must be a positive int or a list of ints from 0; got {seeds!r}.")
    if len(np.unique(numbers)) != len(numbers):
        raise ValueError(f"seeds are repeated: {numbers.tolist()}.")
    return numbers


def lane_values(
    axes: Sequence[Axis], constants: Mapping[str, float], seeds: np.ndarray, num_folds: int
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """One entry a lane, in the order axes × seed × fold, and the shape of that product."""
    shape = (*(len(axis.labels) for axis in axes), len(seeds), num_folds)
    index = [numbers.reshape(-1) for numbers in np.indices(shape)]
    hyper = {name: np.full(index[0].size, value) for name, value in constants.items()}
    for axis, numbers in zip(axes, index, strict=False):
        for name, values in axis.values.items():
            hyper[name] = values[numbers]
    return {"hyper": hyper, "seed": seeds[index[-2]], "fold": index[-1]}, shape
