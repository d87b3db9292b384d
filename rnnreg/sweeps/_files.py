"""A result on disk: one tree of Datasets, in one netCDF file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._tree import leaf_paths
from rnnreg.sweeps._group import Group

if TYPE_CHECKING:
    import xarray as xr

_SCORED = ("predictions", "targets", "weights")


def write_tree(
    path: Path, metrics: xr.Dataset, groups: Sequence[Group], header: dict[str, Any]
) -> None:
    """Writes metrics at the root, and below it `params/<group>/…` and `predictions/<group>`.

    Below `params/<group>` a dict of parameters is a node, and an array a variable of it. The file is written beside its
    place and moved there, so an interruption leaves no half a file.
    """
    import xarray as xr

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    header = header | {"groups": [group.static for group in groups]}
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
    if "params" not in tree.children:
        raise ValueError(
            f"{path} was written by an earlier rnnreg, in another layout; run the sweep again."
        )
    header = json.loads(tree.attrs.pop("rnnreg"))
    groups = []
    for number, static in enumerate(header["groups"]):
        scored = {}
        if "predictions" in tree.children and str(number) in tree["predictions"].children:
            node: Any = tree[f"predictions/{number}"]
            scored = {name: node[name].values for name in _SCORED}
        groups.append(Group(static, _params_of(tree[f"params/{number}"]), **scored))
    return tree.to_dataset(), tuple(groups), header


def _params_nodes(place: str, params: dict[str, Any]) -> dict[str, xr.Dataset]:
    """The nodes of a tree of parameters by path, such as "/params/0/layer_0"."""
    import xarray as xr

    nodes: dict[str, dict[str, Any]] = {place: {}}
    for path, leaf in leaf_paths(params).items():
        node, _, name = f"{place}/{path}".rpartition("/")
        nodes.setdefault(node, {})[name] = _variable(path.replace("/", "."), leaf)
    return {node: xr.Dataset(variables) for node, variables in nodes.items()}


def _params_of(node: Any) -> dict[str, Any]:
    """The nested dict of parameters of a node."""
    arrays = {str(name): node[name].values for name in node.data_vars}
    return arrays | {name: _params_of(child) for name, child in node.children.items()}


def _variable(name: str, values: Any) -> tuple[list[str], np.ndarray]:
    """An array with dimensions of its own: those of the metrics are joined over static combinations."""
    values = np.asarray(values)
    return [f"{name}.{axis}" for axis in range(values.ndim)], values
