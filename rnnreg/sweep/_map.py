"""A function of one network's parameters, applied to every lane of a finished sweep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg.lanes import Program, make_plan
from rnnreg.penalties import leaf_paths
from rnnreg.sweep._label import join, plain_name

if TYPE_CHECKING:
    import xarray as xr

    from rnnreg.sweep._result import Group, SweepResult


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
    unknown = [key for key in dims if not any(_holds(key, name) for name in returned)]
    if unknown:
        raise ValueError(f"dims names {unknown[0]!r}, and the function returns {returned}.")
    axes = [_axes_of(each.outputs, dims, taken=result.dims) for each in lanes]
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
    plan = make_plan(count, hidden_size=_hidden_size(lanes.group.params), how=how)
    store = {name: np.empty((count, *out.shape), out.dtype) for name, out in lanes.outputs.items()}
    for numbers, found in Program(lanes.function, plan, lanes.params, ()).run(lanes.params, ()):
        for name, values in found.items():
            store[name][numbers] = values
    return store


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
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        plain_name(jax.tree_util.keystr(path, simple=True, separator="/")) or "value": jnp.asarray(
            leaf
        )
        for path, leaf in leaves
    }


def _holds(key: str, name: str) -> bool:
    """Whether the array of that name is the key, or lies in what it names."""
    return name == key or name.startswith(key + ".")


def _axes_of(
    outputs: dict[str, Any], dims: dict[str, Any], *, taken: Sequence[str]
) -> dict[str, list[str]]:
    """Names for the axes of each array: those given for it or for what holds it, else its own."""
    sizes, found = {}, {}
    for name, out in outputs.items():
        given = [key for key in dims if _holds(key, name)]
        own = [f"{name}.{axis}" for axis in range(len(out.shape))]
        axes = list(dims[max(given, key=len)]) if given else own
        if len(axes) != len(out.shape) or set(axes) & set(taken):
            raise ValueError(
                f"{name} has shape {out.shape} and so needs {len(out.shape)} names that the sweep does not have; got "
                f"dims={axes}, and the sweep has {list(taken)}."
            )
        for axis, size in zip(axes, out.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(
                    f"{name} has {size} along {axis!r}, and another array has {sizes[axis]}; give them two names."
                )
        found[name] = axes
    return found


def _hidden_size(params: dict[str, Any]) -> int:
    """H of the largest recurrent layer, by which the plan chooses."""
    found = [
        leaf.shape[-2]
        for path, leaf in leaf_paths(params).items()
        if path.split("/")[-1] == "W_hh" and np.ndim(leaf) > 1
    ]
    return max(found, default=32)
