"""A function of one network's parameters, applied to every lane of a finished sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._checks import check_called, in_words
from rnnreg._linalg import widen
from rnnreg._tree import leaf_paths
from rnnreg.lanes import Plan, Program, make_plan
from rnnreg.sweeps._group import Group
from rnnreg.sweeps._join import join
from rnnreg.sweeps._names import axes_of, holds, plain_name

if TYPE_CHECKING:
    import xarray as xr


def map_groups(
    function: Callable[..., Any],
    groups: Sequence[Group],
    metrics: xr.Dataset,
    *,
    networks: Sequence[Mapping[str, Any]],
    sweep_dims: Sequence[str],
    static: Mapping[str, list[Any]],
    dims: Mapping[str, Sequence[str]],
    plan: str | Plan,
) -> xr.Dataset:
    """`SweepResult.map`, which says what it does, on the parts of a result and the descriptions of their networks."""
    lanes = [_lanes_of(function, group, metrics, sweep_dims) for group in groups]
    returned = list(dict.fromkeys(name for each in lanes for name in each.outputs))
    unknown = [key for key in dims if not any(holds(key, name) for name in returned)]
    if unknown:
        raise ValueError(f"dims names {unknown[0]!r}, and the function returns {returned}.")
    axes = [axes_of(each.outputs, dims, taken=sweep_dims) for each in lanes]
    datasets = []
    for each, places, described in zip(lanes, axes, networks, strict=True):
        lanes_plan = make_plan(
            int(np.prod(each.shape)), plan=plan, hidden_size=_hidden_size(described)
        )
        program = Program(_measure, lanes_plan, each.params, None, owner=each.function)
        store = program.collect(each.params, None)
        datasets.append(_labelled(each, store, places, metrics, sweep_dims))
    return join(datasets, {name: static[name] for name in groups[0].static})


class _Lanes(NamedTuple):
    """The lanes of one static combination, in a row, and what is asked of each."""

    group: Group
    shape: tuple[int, ...]
    params: Any
    function: Callable[[Any], Any]
    outputs: dict[str, Any]


def _lanes_of(
    function: Callable[..., Any], group: Group, metrics: xr.Dataset, sweep_dims: Sequence[str]
) -> _Lanes:
    check_called(function, "function", 1)
    of_params = function(group.static) if group.static else function
    if not callable(of_params):
        raise ValueError(
            f"with static axes {list(group.static)}, give a function of them that returns the function of params, such "
            f"as lambda static: lambda params: …; got {type(of_params).__name__}."
        )
    shape = tuple(metrics.sizes[dim] for dim in sweep_dims)

    def flat(leaf):
        return np.asarray(leaf).reshape(-1, *np.shape(leaf)[len(shape) :])

    params = jax.tree.map(flat, group.params)
    lane = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    check_called(of_params, "function", 1)
    with in_words("the function of map"):
        outputs = jax.eval_shape(lambda params: _measure(of_params, params, None), lane)
    if not outputs:
        raise ValueError("the function of map returns no array; return what is measured.")
    return _Lanes(group, shape, params, of_params, outputs)


def _measure(function: Callable[[Any], Any], params: Any, shared: None) -> dict[str, Any]:
    """What the function returns for one lane, by name."""
    del shared
    return _by_name(function(params))


def _labelled(
    lanes: _Lanes,
    store: dict[str, np.ndarray],
    axes: dict[str, list[str]],
    metrics: xr.Dataset,
    sweep_dims: Sequence[str],
) -> xr.Dataset:
    import xarray as xr

    static = lanes.group.static
    metrics = metrics.sel(static)
    finished = metrics["finished"].transpose(*sweep_dims).values.reshape(-1)
    variables: dict[str, Any] = {}
    for name, values in store.items():
        if jnp.issubdtype(values.dtype, jnp.floating):
            values = widen(values)
            values[~finished] = np.nan
        shape = (*lanes.shape, *values.shape[1:])
        variables[name] = ([*sweep_dims, *axes[name]], values.reshape(shape))
    for name in ("finished", "diverged_at"):
        variables[name] = metrics[name].transpose(*sweep_dims)
    coords = {name: value for name, value in metrics.coords.items() if name != "epoch"}
    dataset = xr.Dataset(variables, coords)
    for name, value in static.items():
        dataset = dataset.drop_vars(name, errors="ignore").expand_dims({name: [value]})
    return dataset


def _by_name(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their place in it, such as "log_ratio.layer_0"; a lone array is "value"."""
    leaves = leaf_paths(tree)
    return {plain_name(path) or "value": jnp.asarray(leaf) for path, leaf in leaves.items()}


def _hidden_size(network: Mapping[str, Any]) -> int:
    """H of the largest recurrent layer of a described network, by which the plan chooses."""
    return max((entry["cell"]["hidden_size"] for entry in network["layers"]), default=32)
