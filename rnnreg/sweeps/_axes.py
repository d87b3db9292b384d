"""From a grid to lanes: named axes, their values, and the one lane of every combination."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from numbers import Integral
from typing import Any, NamedTuple

import jax
import numpy as np

from rnnreg._checks import described
from rnnreg._memory import check_fits
from rnnreg._signatures import typed
from rnnreg.training import check_lambda

RESERVED = frozenset(
    {
        "seed",
        "fold",
        "epoch",
        "best_epoch",
        "row",
        "time",
        "output",
        "method",
        "network",
        "inputs",
        "outputs",
    }
    | {"finished", "diverged_at", "num_updates", "gradient_norm", "fold_size", "fold_train_size"}
)
_MOST_SEEDS = 2**32
_SEED_BYTES = 100  # the least that it takes to list a lane of each
_MOST_STATIC = 10_000
_VARIABLES = ("train_", "val_", "penalty_", "history_", "ensemble_")


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


@typed
def zipped(**values: Sequence[float]) -> Zipped:
    """Hyperparameters that change together: one axis instead of a product.

    Args:
      **values: by hyperparameter, lists of one length.

    Returns:
      An axis for the grid of `rr.sweep`, under a name of its own.

    Raises:
      ValueError: lists of different lengths, or none.

    >>> zipped(l2=[0.0, 1e-3], dropout=[0.5, 0.0]).values["l2"].tolist()
    [0.0, 0.001]
    """
    arrays = {name: read_numbers(name, value) for name, value in values.items()}
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
      ValueError: an empty axis, a reserved or repeated name, a value that is no number.
    """
    lambdas = set(lambdas)
    if not isinstance(grid, Mapping):
        raise ValueError(
            f'grid must be a dict of axes, such as {{"l2": [0, 1e-4, 1e-3]}}; got {type(grid).__name__}.'
        )
    axes: list[Axis] = []
    constants: dict[str, float] = {}
    taken: set[str] = set(static or ())
    for name, given in grid.items():
        names = {name, *given.values} if isinstance(given, Zipped) else {name}
        if isinstance(given, Zipped) and name in given.values:
            raise ValueError(
                f"the zipped axis {name!r} has the name of one of its hyperparameters; name the dimension itself, "
                f'such as {{"pair": rr.zipped({", ".join(f"{n}=…" for n in given.values)})}}.'
            )
        for each in names:
            check_name(each)
        if names & taken:
            raise ValueError(
                f"the name {sorted(names & taken)[0]!r} is given twice, in the grid, in zipped(...) or in static; "
                "every hyperparameter belongs to one axis."
            )
        taken |= names
        if isinstance(given, Zipped):
            values = given.values
            axes.append(Axis(name, values, np.arange(len(next(iter(values.values()))))))
        elif (numbers := read_numbers(name, given)).ndim:
            values = {name: numbers}
            axes.append(Axis(name, values, numbers))
        else:
            values = {name: numbers[None]}
            constants[name] = float(numbers)
        for hyper, array in values.items():
            _check_values(hyper, array, hyper in lambdas, repeats=isinstance(given, Zipped))
    return axes, constants


def check_name(name: str) -> None:
    """Raises where an axis or hyperparameter cannot label a result, or would hide one of its variables."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"{name!r} cannot name an axis: use a word of letters, digits and _, as in params_at(l2=…)."
        )
    if name in RESERVED or name.startswith(_VARIABLES):
        raise ValueError(
            f"{name!r} is a reserved axis name ({', '.join(sorted(RESERVED))}, and what begins with "
            f"{', '.join(_VARIABLES)}); choose another (seeds and folds have arguments of their own)."
        )


def read_numbers(name: str, given: Any) -> np.ndarray:
    """The values in float64; float32 values as the short decimal that was meant (0.001, not 0.0010000005)."""
    if any(isinstance(value, jax.core.Tracer) for value in jax.tree.leaves(given)):
        raise ValueError(
            f"the axis {name!r} has a traced value, and labels are numbers: call the sweep outside jax.jit."
        )
    try:
        values = np.asarray(given)
    except ValueError as error:  # lists of unequal lengths
        raise ValueError(f"the axis {name!r} needs numbers; got {described(given)}.") from error
    if values.dtype == np.float32:
        short = np.array([float(f"{value:.6g}") for value in values.reshape(-1)])
        distinct = len(np.unique(short)) == len(np.unique(values))
        return short.reshape(values.shape) if distinct else values.astype(np.float64)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"the axis {name!r} needs numbers; got {given!r}.")
    return values.astype(np.float64)


def _check_values(name: str, values: np.ndarray, is_lambda: bool, repeats: bool) -> None:
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"the axis {name!r} needs a non-empty list of numbers; got shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"the axis {name!r} has a value that is not finite: {values.tolist()}.")
    if is_lambda:
        check_lambda(name, values)
    if not repeats and len(np.unique(values)) != len(values):
        raise ValueError(f"the axis {name!r} has a repeated value: {values.tolist()}.")


def read_static(static: Mapping[str, Iterable[Any]] | None) -> dict[str, list[Any]]:
    """The static axes as lists.

    Raises:
      ValueError: an empty axis, a reserved name, a repeated value, one that is no number or string (static values
        label the result and are stored with it), or values of two kinds.
    """
    for name, values in (static or {}).items():
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise ValueError(
                f"the static axis {name!r} must be a list of values; got {described(values)}."
            )
        if isinstance(values, Sized) and len(values) > _MOST_STATIC:
            raise ValueError(
                f"the static axis {name!r} has {len(values)} values, each of which is compiled by itself; give at most "
                f"{_MOST_STATIC}. A number that sets no shape belongs into the grid."
            )
    axes = {
        name: [value.item() if isinstance(value, np.generic) else value for value in values]
        for name, values in (static or {}).items()
    }
    for name, values in axes.items():
        check_name(name)
        if not values:
            raise ValueError(f"the static axis {name!r} is empty; expected at least one value.")
        for value in values:
            if not isinstance(value, (str, int, float)):
                raise ValueError(
                    f"the static axis {name!r} has the value {value!r}; static values label the result, so they "
                    "must be numbers or strings: name what you mean, and look it up in `train`, such as "
                    "CELLS[static['cell']]."
                )
        if len({_kind(value) for value in values}) > 1:
            raise ValueError(
                f"the static axis {name!r} has values of different kinds, {values}; a coordinate has one kind: all "
                'numbers, all strings, or all True and False. Write them as strings, such as "all" and "3".'
            )
        if _kind(values[0]) == "number" and not np.isfinite(np.asarray(values, np.float64)).all():
            raise ValueError(f"the static axis {name!r} has a value that is not finite: {values}.")
        if np.asarray(values).dtype.kind == "O":
            raise ValueError(f"the static axis {name!r} has a number beyond 64 bits: {values}.")
        if len(set(values)) != len(values):
            raise ValueError(f"the static axis {name!r} has a repeated value: {values}.")
    return axes


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else "number"


def read_seeds(seeds: int | Iterable[int]) -> np.ndarray:
    """The seed numbers: 0 … S−1 for an int, or the given ones.

    Raises:
      ValueError: no seeds, one outside 32 bits, or a repeated one.
    """
    given: Any = None if isinstance(seeds, bool) else seeds
    if isinstance(given, Integral):
        count = int(given)
        if count > _MOST_SEEDS:
            raise ValueError(
                f"seeds must be at most 2**32, the number of seeds that there are; got {count}."
            )
        check_fits(_SEED_BYTES * count, f"a list of {count} seeds", "Take fewer seeds.")
        numbers = np.arange(max(0, count))
    else:
        numbers = np.asarray([] if given is None else list(given))
    if numbers.size == 0 or not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0:
        raise ValueError(f"seeds must be a positive int or a list of ints from 0; got {seeds!r}.")
    if numbers.max() >= _MOST_SEEDS:
        raise ValueError(
            f"a seed must be below 2**32, for it is folded into the key as 32 bits; got {numbers.max()}. Take "
            "seed % 2**32, or draw seeds of 32 bits."
        )
    if len(np.unique(numbers)) != len(numbers):
        raise ValueError(f"seeds are repeated: {numbers.tolist()}.")
    return numbers


def lane_values(
    axes: Sequence[Axis], constants: Mapping[str, float], seeds: np.ndarray, num_folds: int
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """One entry for each lane, and the shape of their order, seed × fold × axes."""
    shape = (len(seeds), num_folds, *(len(axis.labels) for axis in axes))
    _check_lanes(shape, len(constants) + sum(len(axis.values) for axis in axes))
    seed, fold, *places = (numbers.reshape(-1) for numbers in np.indices(shape))
    hyper = {name: np.full(seed.size, value) for name, value in constants.items()}
    for axis, numbers in zip(axes, places, strict=True):
        for name, values in axis.values.items():
            hyper[name] = values[numbers]
    return {"hyper": hyper, "seed": seeds[seed], "fold": fold}, shape


def _check_lanes(shape: tuple[int, ...], num_hyper: int) -> None:
    """Raises if there are more lanes than could even be listed."""
    lanes = math.prod(shape)
    sizes = dict(zip(("seeds", "folds", "values"), (*shape[:2], math.prod(shape[2:])), strict=True))
    said = " × ".join(f"{size} {name}" for name, size in sizes.items())
    each = 8 * (2 * len(shape) + 2 * num_hyper + 4)  # places, values and labels, in two types
    check_fits(each * lanes, f"a list of {lanes} lanes ({said})", "Take fewer of them.")


def narrowed(name: str, values: np.ndarray, dtype: Any) -> np.ndarray:
    """The values in the type of the run; raises if two of them, or one and 0 or infinity, are the same there."""
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    if len(np.unique(narrow)) < len(np.unique(values)) or not (
        np.isfinite(narrow).all() and ((narrow != 0) == (values != 0)).all()
    ):
        raise ValueError(
            f"the values {np.unique(values).tolist()} of {name!r} are {np.unique(narrow).tolist()} in "
            f"{np.dtype(dtype).name}, in which the run computes; leave out what it cannot tell apart, or use "
            "JAX_ENABLE_X64=1."
        )
    return narrow


def coarse_first(shape: tuple[int, ...], axes: Sequence[Axis]) -> np.ndarray:
    """The numbers of the lanes of a shape, seed × fold × axes, in the order in which they run.

    Seeds and folds come one after another, so whole paths of λ are finished whenever a sweep is interrupted. On a path
    the ends of every axis come first, then the middles, then the quarters: there is a coarse curve early.

    >>> axis = Axis("l2", {}, np.array([0.0, 1e-3, 1e-2, 1e-1, 1.0]))
    >>> coarse_first((1, 2, 5), [axis]).tolist()
    [0, 4, 2, 1, 3, 5, 9, 7, 6, 8]
    """
    level = np.zeros(shape[2:], int)
    for number, axis in enumerate(axes):
        own = _levels(len(axis.labels))[np.argsort(np.argsort(axis.labels))]
        level = np.maximum(level, own.reshape(-1, *[1] * (level.ndim - number - 1)))
    path = np.argsort(level.reshape(-1), kind="stable")
    return (np.arange(shape[0] * shape[1])[:, None] * path.size + path).reshape(-1)


def _levels(size: int) -> np.ndarray:
    """How often an axis is halved before each of its places is an end of a part."""
    levels, gaps, level = np.zeros(size, int), [(0, size - 1)], 0
    while gaps:
        level += 1
        middles = [(low, (low + high) // 2, high) for low, high in gaps if high - low > 1]
        for _, middle, _ in middles:
            levels[middle] = level
        gaps = [part for low, middle, high in middles for part in ((low, middle), (middle, high))]
    return levels
