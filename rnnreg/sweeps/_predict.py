"""Predictions of one lane of a result, in its own scaling, whether its network is at hand or described."""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._checks import check_choice
from rnnreg._tree import leaf_paths
from rnnreg.data import Batch, Scaling, scale_batch, unscale_outputs
from rnnreg.networks import Network, rebuild
from rnnreg.runtime import Kept

_FORWARD = Kept()
UNITS = ("scaled", "original")


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
) -> np.ndarray:
    """`SweepResult.predict`, which says what it does, of one lane's network, parameters and scaling."""
    check_choice(inputs, "inputs", UNITS)
    check_choice(outputs, "outputs", UNITS)
    xs, mask = (batch.xs, batch.mask) if isinstance(batch, Batch) else (batch, None)
    xs = np.asarray(xs)
    if xs.ndim == 3 and not jnp.issubdtype(xs.dtype, jnp.floating):
        xs = xs.astype(np.float64)  # counts; tokens are [N, T]
    for each in [units, scaling] if inputs == "original" else [scaling]:
        xs = scale_batch(Batch(xs, np.zeros(1, int)), each).xs
    _check_params(net, params, xs)
    found = _forward(net)(params, jnp.asarray(xs), None if mask is None else jnp.asarray(mask))
    for each in [scaling, units] if outputs == "original" else [scaling]:
        found = unscale_outputs(found, each)
    return np.asarray(found)


def _check_params(net: Network, params: Any, xs: Any) -> None:
    """Raises if the parameters are those of another network."""
    if not isinstance(net, Network):
        raise ValueError(f"network must be the network that was trained; got {type(net).__name__}.")
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
    try:
        apply = weakref.ref(net.apply)
    except TypeError:
        apply = lambda: net.apply  # noqa: E731

    def run(params, xs, mask):
        return apply()(params, xs, mask=mask).outputs  # type: ignore[misc]

    return _FORWARD.get(net.apply, "forward", lambda: jax.jit(run))


def scaling_of(stored: Mapping[str, Any] | None) -> Scaling | None:
    """A scaling as it was, of the lists that a result holds."""
    return None if stored is None else Scaling(**{k: np.asarray(v) for k, v in stored.items()})
