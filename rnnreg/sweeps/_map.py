"""A function of one network's parameters, applied to every lane of a finished sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._tree import leaf_paths
from rnnreg.lanes import Program, make_plan
from rnnreg.sweeps._label import join
from rnnreg.sweeps._names import axes_of, holds, plain_name

if TYPE_CHECKING:
    import xarray as xr

    from rnnreg.sweeps._result import Group, SweepResult


def map_lanes(
    result: SweepResult,
    function: Callable[..., Any],
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    plan: str = "auto",
) -> xr.Dataset:
    """`SweepResult.map`, which says what it does."""
    names = list(result.groups[0].static)
    dims = dict(dims or {})
    lanes = []
    for group in result.groups:
        one = function(group.static) if names else function
        if not callable(one):
            raise ValueError(
                f"with static axes {names}, give a function of them that returns the function of params, such as "
                f"lambda static: lambda params: …; got {type(one).__name__}."
            )
        lanes.append(_lanes_of(result, group, one))
    returned = list(dict.fromkeys(name for each in lanes for name in each.outputs))
    unknown = [key for key in dims if not any(holds(key, name) for name in returned)]
    if unknown:
        raise ValueError(f"dims names {unknown[0]!r}, and the function returns {returned}.")
    axes = [axes_of(each.outputs, dims, taken=result.dims) for each in lanes]
    datasets = [
        _labelled(result, each, _run(each, plan), places)
        for each, places in zip(lanes, axes, strict=True)
    ]
    return join(datasets, {name: result.config["static"][name] for name in names})


class _Lanes(NamedTuple):
    """The lanes of one static combination, in a row, and what is asked of each."""

    group: Group
    shape: tuple[int, ...]
    params: Any
    function: Callable[[Any, Any], dict[str, Any]]
    outputs: dict[str, Any]


def _lanes_of(result: SweepResult, group: Group, function: Callable[[Any], Any]) -> _Lanes:
    shape = tuple(result.metrics.sizes[dim] for dim in result.dims)

    def flat(leaf):
        return np.asarray(leaf).reshape(-1, *np.shape(leaf)[len(shape) :])

    def one(params, shared):
        del shared
        return _by_name(function(params))

    params = jax.tree.map(flat, group.params)
    lane = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    return _Lanes(group, shape, params, one, jax.eval_shape(one, lane, ()))


def _run(lanes: _Lanes, how: str) -> dict[str, np.ndarray]:
    """What the function returns, `[L, …]` by name."""
    count = math.prod(lanes.shape)
    plan = make_plan(count, hidden_size=_hidden_size(lanes.group.params), plan=how)
    return Program(lanes.function, plan, lanes.params, ()).collect(lanes.params, ())


def _labelled(
    result: SweepResult, lanes: _Lanes, store: dict[str, np.ndarray], axes: dict[str, list[str]]
) -> xr.Dataset:
    import xarray as xr

    static = lanes.group.static
    metrics = result.metrics.sel(static)
    finished = metrics["finished"].transpose(*result.dims).values.reshape(-1)
    variables: dict[str, Any] = {}
    for name, values in store.items():
        if jnp.issubdtype(values.dtype, jnp.floating):
            values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
            values[~finished] = np.nan
        shape = (*lanes.shape, *values.shape[1:])
        variables[name] = ([*result.dims, *axes[name]], values.reshape(shape))
    for name in ("finished", "diverged_at"):
        variables[name] = metrics[name].transpose(*result.dims)
    coords = {name: value for name, value in metrics.coords.items() if name != "epoch"}
    dataset = xr.Dataset(variables, coords)
    for name, value in static.items():
        dataset = dataset.drop_vars(name, errors="ignore").expand_dims({name: [value]})
    return dataset


def _by_name(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their place in it, such as "log_ratio.layer_0"; a lone array is "value"."""
    leaves = leaf_paths(tree)
    return {plain_name(path) or "value": jnp.asarray(leaf) for path, leaf in leaves.items()}


def _hidden_size(params: dict[str, Any]) -> int:
    """H of the largest recurrent layer, by which the plan chooses."""
    found = [
        leaf.shape[-2]
        for path, leaf in leaf_paths(params).items()
        if path.split("/")[-1] == "W_hh" and np.ndim(leaf) > 1
    ]
    return max(found, default=32)
