"""A result on disk: one tree of Datasets, in one netCDF file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._linalg import widen
from rnnreg._tree import leaf_paths
from rnnreg.sweeps._group import Group

if TYPE_CHECKING:
    import xarray as xr

_SCORED = ("predictions", "targets", "weights")


def write_tree(
    path: Path, metrics: xr.Dataset, groups: Sequence[Group], header: dict[str, Any]
) -> None:
    """Writes metrics at the root, and below it `params/<group>/…` and `predictions/<group>`.

    Below `params/<group>` a dict of parameters (a list, a tuple) is a node, and an array a variable of it; the header
    holds the tree. The file is written beside its
    place and moved there, so an interruption leaves no half a file.
    """
    import xarray as xr

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    header = header | {
        "groups": [group.static for group in groups],
        "trees": [tree_of(group.params) for group in groups],
    }
    nodes = {"/": metrics.assign_attrs(rnnreg=json.dumps(header))}
    for number, group in enumerate(groups):
        nodes |= _params_nodes(f"/params/{number}", group.params)
        if group.predictions is not None:
            arrays = {name: _variable(name, getattr(group, name)) for name in _SCORED}
            nodes[f"/predictions/{number}"] = xr.Dataset(arrays)
    tree = xr.DataTree.from_dict(nodes)
    tree.to_netcdf(partial, engine="h5netcdf")
    partial.replace(path)


def read_tree(path: Path) -> tuple[xr.Dataset, tuple[Group, ...], dict[str, Any]]:
    """Metrics, groups and header of a file that `write_tree` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is another one.
    """
    import xarray as xr

    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except OSError as error:
        raise ValueError(f"{path} is not a netCDF file ({error}).") from error
    if "rnnreg" not in tree.attrs:
        raise ValueError(f"{path} was not written by rnnreg's SweepResult.save.")
    header = json.loads(tree.attrs.pop("rnnreg"))
    if "trees" not in header:
        raise ValueError(
            f"{path} was written by an earlier rnnreg, in another layout; run the sweep again."
        )
    groups = []
    for number, static in enumerate(header["groups"]):
        scored = {}
        if "predictions" in tree.children and str(number) in tree["predictions"].children:
            node: Any = tree[f"predictions/{number}"]
            scored = {name: node[name].values for name in _SCORED}
        params = _params_of(tree[f"params/{number}"], header["trees"][number])
        groups.append(Group(static, params, **scored))
    return tree.to_dataset(), tuple(groups), header


def tree_of(params: Any) -> Any:
    """A tree of parameters as JSON: dicts, lists, tuples and None as they are nested, and the dtype of each array.

    Raises:
      ValueError: another kind of node, which no file could give back, or two leaves of one path.

    >>> tree_of({"W": np.zeros(2), "rest": (None,)})
    {'dict': [['W', 'float64'], ['rest', {'tuple': [None]}]]}
    """
    if len(leaf_paths(params)) < len(jax.tree.leaves(params)):
        raise ValueError(
            "two parameters have one path, joined by '/'; give them other names: "
            f"{[path for path, _ in jax.tree_util.tree_leaves_with_path(params)]}."
        )
    return _tree_of(params)


def _tree_of(node: Any) -> Any:
    if node is None:
        return None
    if type(node) is dict:
        return {"dict": [[key, _tree_of(value)] for key, value in node.items()]}
    if type(node) in (list, tuple):
        return {type(node).__name__: [_tree_of(value) for value in node]}
    if not hasattr(node, "dtype") or not jax.tree_util.all_leaves([node]):
        raise ValueError(
            "parameters must be nested dicts, lists and tuples of arrays, which a file can hold; got "
            f"{type(node).__name__}. Let init return plain dicts."
        )
    return str(node.dtype)


def _parts(tree: Any) -> list[tuple[Any, str, Any]]:
    """Key, name in the file and tree of every part of a node."""
    ((kind, parts),) = tree.items()
    pairs = parts if kind == "dict" else enumerate(parts)
    return [(key, _name(str(key)), part) for key, part in pairs]


def _name(key: str) -> str:
    """A key as netCDF takes it; what it does not take is written as its number, `%2f`."""
    safe = re.sub(r"^\.|[^\w.\-]", lambda found: f"%{ord(found[0]):02x}", key)
    return safe or "%"


def _params_nodes(place: str, params: dict[str, Any]) -> dict[str, xr.Dataset]:
    """The nodes of a tree of parameters by path, such as "/params/0/layer_0"."""
    import xarray as xr

    nodes: dict[str, dict[str, Any]] = {}

    def fill(path, values, tree):
        own = nodes.setdefault(f"{place}{path}", {})
        for key, name, part in _parts(tree):
            if isinstance(part, dict):
                fill(f"{path}/{name}", values[key], part)
            elif part is not None:
                own[name] = _variable(f"{path}/{name}"[1:].replace("/", "."), values[key])

    fill("", params, tree_of(params))
    return {node: xr.Dataset(variables) for node, variables in nodes.items()}


def _params_of(node: Any, tree: Any) -> Any:
    """The tree of parameters of a node."""

    def part_of(name, part):
        if part is None:
            return None
        return _params_of(node[name], part) if isinstance(part, dict) else _array(node[name], part)

    ((kind, _),) = tree.items()
    found = [(key, part_of(name, part)) for key, name, part in _parts(tree)]
    made = {"dict": dict, "list": lambda pairs: [v for _, v in pairs]}
    return made[kind](found) if kind in made else tuple(value for _, value in found)


def _array(variable: Any, dtype: str) -> np.ndarray:
    values = variable.values
    if dtype.startswith("complex"):
        values = values[..., 0] + 1j * values[..., 1]
    return values.astype(jnp.dtype(dtype))


def _variable(name: str, values: Any) -> tuple[list[str], np.ndarray]:
    """An array with dimensions of its own: those of the metrics are joined over static combinations."""
    values = np.asarray(values)
    if np.iscomplexobj(values):
        values = np.stack([values.real, values.imag], axis=-1)
    values = widen(values)
    return [f"{name}:{axis}" for axis in range(values.ndim)], values
