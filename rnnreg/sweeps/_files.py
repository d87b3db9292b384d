"""A result on disk: one tree of Datasets, in one netCDF file."""

from __future__ import annotations

import io
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
from rnnreg.sweeps._disk import last_line, told, write_whole
from rnnreg.sweeps._group import Group

if TYPE_CHECKING:
    import xarray as xr

_SCORED = ("predictions", "targets", "weights")


def write_tree(
    path: Path, metrics: xr.Dataset, groups: Sequence[Group], header: dict[str, Any]
) -> None:
    """Writes metrics at the root, and below it `params/<group>/…` and `predictions/<group>`.

    Below `params/<group>` a dict of parameters (a list, a tuple) is a node, and an array a variable of it; the header
    holds the tree. The file is made in memory, and its last line is the SHA-256 of all before: HDF5 does not look
    behind its own end.

    Raises:
      OSError: it cannot be written; the message says why.
    """
    import xarray as xr

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
    image = bytes(xr.DataTree.from_dict(nodes).to_netcdf(engine="h5netcdf"))
    with told(path, "written", "The result is still in memory: make room or save it elsewhere."):
        write_whole(path, image + last_line(image))


def read_tree(path: Path) -> tuple[xr.Dataset, tuple[Group, ...], dict[str, Any]]:
    """Metrics, groups and header of a file that `write_tree` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: it cannot be read; the message says why.
      ValueError: the file is another one, or damaged.
    """
    import xarray as xr

    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    with told(path, "read", "Check the path and its access rights."):
        image = _checked(path, path.read_bytes())
    groups = []
    with xr.open_datatree(io.BytesIO(image), engine="h5netcdf") as tree:
        metrics = tree.to_dataset().load()
        header = json.loads(metrics.attrs.pop("rnnreg"))
        for number, static in enumerate(header["groups"]):
            scored = {}
            if "predictions" in tree.children and str(number) in tree["predictions"].children:
                node: Any = tree[f"predictions/{number}"]
                scored = {name: node[name].values for name in _SCORED}
            params = _params_of(tree[f"params/{number}"], header["trees"][number])
            groups.append(Group(static, params, **scored))
    return metrics, tuple(groups), header


def _checked(path: Path, content: bytes) -> bytes:
    """The file without its last line, if that is right and nothing in it leads outside.

    The check comes before any library opens the file: a damaged HDF5 file can end the process.
    """
    if not content.startswith(b"\x89HDF\r\n\x1a\n"):
        raise ValueError(f"{path} is not a netCDF file.")
    size = len(last_line(b""))
    image, last = content[:-size], content[-size:]
    if not last.startswith(b"\nrnnreg-sha256:"):
        raise ValueError(
            f"{path} was not written by rnnreg's SweepResult.save, or was cut off or changed afterwards."
        )
    if last != last_line(image):
        raise ValueError(
            f"{path} is damaged: its bytes are not those that were saved. Take a copy of it, or run the sweep again."
        )
    _check_inside(path, image)
    return image


def _check_inside(path: Path, image: bytes) -> None:
    """Refuses what a saved result never has: links, data in other files, and arrays larger than the file."""
    import h5py

    def check(group):
        for name in group:
            node = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
            if isinstance(node, h5py.Group):
                check(node)
            elif node is None or node.external or node.is_virtual or _stored(node) > len(image):
                where = f"{group.name.rstrip('/')}/{name}"
                raise ValueError(
                    f"{path} has an array that is not in the file itself, {where}: it was not written by rnnreg's "
                    "SweepResult.save."
                )

    with h5py.File(io.BytesIO(image), "r") as file:
        check(file)


def _stored(node: Any) -> int:
    """Bytes that an array takes when read; a dimension without numbers has none."""
    named = bytes(node.attrs.get("NAME", b"")) if "NAME" in node.attrs else b""
    return 0 if named.startswith(b"This is a netCDF dimension but not") else node.nbytes


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
