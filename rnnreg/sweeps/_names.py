"""Names for arrays and for their axes, in a labelled result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def plain_name(name: str) -> str:
    """The path of a leaf as a name; netCDF names have no slash."""
    return name.replace("/", ".")


def holds(key: str, name: str) -> bool:
    """Whether the array of that name is the key, or lies in what it names."""
    return name == key or name.startswith(key + ".")


def axes_of(
    arrays: Mapping[str, Any], dims: Mapping[str, Any], *, taken: Sequence[str]
) -> dict[str, list[str]]:
    """Names for the axes of each array: those given for it or for what holds it, else its own.

    Raises:
      ValueError: a number of names that is not that of the axes, a name that is taken, or one name for two sizes.
    """
    sizes, found = {}, {}
    for name, array in arrays.items():
        given = [key for key in dims if holds(key, name)]
        own = [f"{name}.{axis}" for axis in range(len(array.shape))]
        axes = list(dims[max(given, key=len)]) if given else own
        if len(axes) != len(array.shape) or set(axes) & set(taken):
            raise ValueError(
                f"{name} has shape {array.shape} and so needs {len(array.shape)} names that the sweep does not have; "
                f"got dims={axes}, and the sweep has {list(taken)}."
            )
        for axis, size in zip(axes, array.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(
                    f"{name} has {size} along {axis!r}, and another array has {sizes[axis]}; give them two names."
                )
        found[name] = axes
    return found
