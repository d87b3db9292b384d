"""Predictions and forecasts of one lane of a result, in its own scaling, its network at hand or described."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._arrays import as_array
from rnnreg._checks import check_choice, check_count, warn_caller
from rnnreg._tree import leaf_paths
from rnnreg.data import Batch, Scaling, scale_inputs, unscale_outputs
from rnnreg.networks import HELD, UNITS, Network, forecast, rebuild
from rnnreg.runtime import Kept, weakly

_FORWARD = Kept()
_FAR = 5.0  # standard deviations from the mean: no median of rows like those of the training lies there


class Ahead(NamedTuple):
    """How a forecast goes on after the rows that are given; the fields are those of `rr.forecast`."""

    num_steps: int
    window: int | None
    future: Any
    mask: Any


def network_of(described: Mapping[str, Any]) -> Network:
    """The network of a description, the same one each time.

    Raises:
      ValueError: it is made of functions that a description does not hold.
    """
    try:
        return _network_of(json.dumps(described))
    except ValueError as error:
        raise ValueError(
            f"the network of this result cannot be made again from what is stored: {error}. Give the network that was "
            "trained: result.predict(batch, network=net)."
        ) from error


def network_for(
    config: Mapping[str, Any], number: int, dims: Sequence[str], given: Network | None
) -> Network:
    """The network of all lanes along some dimensions: the given one, else that of the description.

    Raises:
      ValueError: there is no description, or the networks differ along a dimension by a rate of zoneout.
    """
    described, grid = config["network"][number], config["grid"]
    net = network_of(described) if given is None else given
    held = [name for name in HELD if isinstance(described.get("noise", {}).get(name), str)]
    for dim in dims if held else ():
        members = grid.get(dim)
        if {dim, *(members if isinstance(members, dict) else ())} & set(described["reads"]):
            raise ValueError(
                f"predictions depend on {held[0]}, which is a function of hyper, so the networks of the lanes along "
                f"{dim!r} may differ. Take one of them at a time, with its own network: "
                f"result.predict(batch, {dim}=label, network=train.network(hyper))."
            )
    return net


@functools.lru_cache(maxsize=32)
def _network_of(described: str) -> Network:
    return rebuild(json.loads(described))


def predict(
    net: Network,
    params: Any,
    batch: Batch | Any,
    *,
    scaling: Scaling | None,
    units: Scaling | None,
    inputs: str,
    outputs: str,
    ahead: Ahead | None = None,
) -> np.ndarray:
    """`SweepResult.predict`, or `forecast` with `ahead`, of one lane's network, parameters and scaling."""
    check_choice(inputs, "inputs", UNITS)
    check_choice(outputs, "outputs", UNITS)
    xs, mask = (batch.xs, batch.mask) if isinstance(batch, Batch) else (batch, None)
    future = None if ahead is None else ahead.future
    mask = mask if ahead is None or ahead.mask is None else ahead.mask
    xs = np.asarray(as_array(xs, "xs"))
    future = None if future is None else np.asarray(as_array(future, "future"))
    mask = None if mask is None else np.asarray(as_array(mask, "mask"))
    if xs.ndim == 3 and not jnp.issubdtype(xs.dtype, jnp.floating):
        xs = xs.astype(np.float64)  # counts; tokens are [N, T]
    _check_params(net, params, xs)
    future = None if future is None else future.astype(xs.dtype)
    _check_rows(xs, mask, units if inputs == "scaled" else None)
    for each in [units, scaling] if inputs == "original" else [scaling]:
        xs, future = scale_inputs(xs, future, each)
    if ahead is None:
        found = _forward(net)(params, xs, mask)
    else:
        check_count(ahead.num_steps, "num_steps")
        if ahead.window is not None:
            check_count(ahead.window, "window", most=xs.shape[1], hint="xs has no more steps.")
        run = _forecast(net, ahead.num_steps, ahead.window)
        found = run(params, xs, mask, future, _joined(scaling, units))
    found = np.asarray(found)
    for each in [scaling, units] if outputs == "original" else [scaling]:
        found = unscale_outputs(found, each)
    return found


def _check_rows(xs: np.ndarray, mask: np.ndarray | None, units: Scaling | None) -> None:
    """Raises for values that are not finite; warns where rows that should have been scaled by `units` were not."""
    if not np.issubdtype(xs.dtype, np.floating) or (
        mask is not None and mask.shape != xs.shape[:2]
    ):
        return  # tokens; a mask that the network refuses
    seen = xs if mask is None else xs[mask > 0]
    if not np.isfinite(seen).all():
        raise ValueError(
            f"the rows hold {int((~np.isfinite(seen)).sum())} values that are NaN or infinite. Mark steps without data "
            "with mask=, 0 where a step does not count."
        )
    middle = np.median(seen.reshape(-1, xs.shape[-1]), axis=0) if seen.size else np.zeros(1)
    if units is not None and np.abs(middle).max() > _FAR:
        warn_caller(
            f"the rows are taken as scaled, and their median is {np.abs(middle).max():.3g} standard deviations from "
            'the mean of what the network was trained on. Rows in the data\'s own units want inputs="original".'
        )


def _joined(inner: Scaling | None, outer: Scaling | None) -> Scaling | None:
    """One scaling that undoes the inner one and then the outer one."""
    if inner is None or outer is None:
        return inner if outer is None else outer
    return Scaling(
        inner.x_shift * outer.x_scale + outer.x_shift,
        inner.x_scale * outer.x_scale,
        inner.y_shift * outer.y_scale + outer.y_shift,
        inner.y_scale * outer.y_scale,
    )


def _check_params(net: Network, params: Any, xs: Any) -> None:
    """Raises if the parameters are those of another network."""
    if not isinstance(net, Network):
        raise ValueError(f"network must be the network that was trained; got {type(net).__name__}.")
    if xs.ndim not in (2, 3) or (xs.ndim == 2) != jnp.issubdtype(xs.dtype, jnp.integer):
        raise ValueError(
            f"batch must be [N, T, D] real numbers or [N, T] integer tokens; got shape {xs.shape} of {xs.dtype}."
        )
    size = xs.shape[-1] if jnp.issubdtype(xs.dtype, jnp.floating) else None
    wanted = jax.eval_shape(lambda: net.init(jax.random.key(0), size))
    shapes, own = (
        {path: jnp.shape(leaf) for path, leaf in leaf_paths(tree).items()}
        for tree in (wanted, params)
    )
    if shapes != own:
        raise ValueError(
            f"the lane has the parameters {own}; the network, with inputs of shape {xs.shape}, has {shapes}. Inputs "
            "are [rows, time, feature] as in training, or [rows, time] tokens."
        )


def _forward(net: Network) -> Any:
    """The outputs of a network under `jax.jit`, kept while the network lives."""
    apply = weakly(net.apply)

    def run(params, xs, mask):
        return apply()(params, xs, mask=mask).outputs

    return _FORWARD.get(net.apply, "forward", lambda: jax.jit(run))


def _forecast(net: Network, num_steps: int, window: int | None) -> Any:
    """`rr.forecast`, on the network's own scale, under `jax.jit` and kept in the same way."""
    apply = weakly(net.apply)
    facts = net._replace(init=None, apply=None, made=None)  # what holds no `apply`

    def run(params, xs, mask, future, scaling):
        whole = facts._replace(apply=apply())
        return forecast(
            whole,
            params,
            xs,
            num_steps,
            mask=mask,
            future=future,
            window=window,
            scaling=scaling,
            outputs="scaled",
        )

    return _FORWARD.get(net.apply, ("forecast", num_steps, window), lambda: jax.jit(run))


def scaling_of(stored: Mapping[str, Any] | None) -> Scaling | None:
    """A scaling as it was, of the lists that a result holds."""
    return None if stored is None else Scaling(**{k: np.asarray(v) for k, v in stored.items()})
