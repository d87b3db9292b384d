"""The state that a run starts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_key, warn_caller
from rnnreg._linalg import wide
from rnnreg._memory import check_fits
from rnnreg._tree import leaf_paths, tree_bytes
from rnnreg.constraints import decayed_paths, warn_of_constraints
from rnnreg.data import Split
from rnnreg.networks import (
    effective,
    effective_shapes,
    isometric_paths,
    num_tokens,
    trains_apart,
    weight_paths,
)
from rnnreg.runtime import counter_based, is_traced
from rnnreg.training._checks import (
    check_data,
    check_hyper,
    check_values,
    num_outputs,
    warn_of_same,
)
from rnnreg.training._proximal import check_proximal, start_pull
from rnnreg.training._records import Best, Params, TrainState
from rnnreg.training._settings import Hyper, Settings, network_of, optimizer_of


def start(
    settings: Settings, hyper: Hyper, data: Split, *, key: Array, params: Any = None
) -> TrainState:
    """The state before the first update: parameters drawn from the key, or those given."""
    check_start(settings, hyper, data, key=key, params=params)
    key_params, key_run = jax.random.split(counter_based(key))
    draw, dtype = _drawing(settings, hyper, data)
    if params is None:
        params = draw(key_params)
    else:
        params = _given(params, jax.eval_shape(draw, key_params))
    seen = effective(network_of(settings, hyper), params)
    best = ()
    if settings.keep_best or settings.patience is not None:
        worst = -jnp.inf if settings.maximise else jnp.inf
        best = Best(params, jnp.asarray(worst, dtype), jnp.int32(0), jnp.int32(0))
    opt_state = optimizer_of(settings, hyper).init(params)
    _warn_of_two_decays(settings, decayed_paths(opt_state), seen, network_of(settings, hyper))
    return TrainState(
        params=params,
        opt_state=opt_state,
        penalty_state={name: penalty.init(seen) for name, penalty in settings.penalties.items()},
        key=key_run,
        step=jnp.int32(0),
        epoch=jnp.int32(0),
        diverged_at=jnp.int32(-1),
        best=best,
        stalled=jnp.int32(0),
        proximal=start_pull(settings, network_of(settings, hyper), params, opt_state),
    )


def check_start(
    settings: Settings, hyper: Hyper, data: Split, *, key: Array, params: Any = None
) -> None:
    """Raises if key, data, hyperparameters or given parameters do not fit the run; traced values are not looked at."""
    check_key(key)
    check_data(settings, data)
    check_hyper(settings, hyper)
    optimizer_of(settings, hyper)
    wanted = jax.eval_shape(_drawing(settings, hyper, data)[0], jax.random.key(0))
    if params is not None:
        _given(params, wanted)
    if not is_traced((key, params)):
        what = f"training {sum(leaf.size for leaf in jax.tree.leaves(wanted))} parameters by their gradients"
        check_fits(2 * tree_bytes(wanted), what, "Take a smaller network.", jax.local_devices()[0])
    net = network_of(settings, hyper)
    if trains_apart(net) and 1 in (settings.batch_size, data.train.xs.shape[0]):
        raise ValueError(
            "rr.cells.batch_norm normalises over the rows of an update, and an update has 1 row here "
            f"(batch_size={settings.batch_size}, {data.train.xs.shape[0]} training rows): all that it normalises would "
            "be 0, whatever the inputs are. Take larger batches, or rr.cells.layer_norm."
        )
    check_values(settings, data, num_outputs(net, wanted, data.train), num_tokens(net))
    seen = effective_shapes(net, wanted)
    weights, fixed = weight_paths(net, seen), set(isometric_paths(net))
    covers = {  # a pattern that covers nothing is an error
        name: penalty.covers(seen, weights) for name, penalty in settings.penalties.items()
    }
    warn_of_same(settings, covers)
    warn_of_constraints(optimizer_of(settings, hyper), net, wanted)
    for name, penalty in settings.penalties.items():
        idle = fixed.intersection(covers[name])
        if penalty.isotropic and idle:
            warn_caller(
                f"penalties[{name!r}] does nothing to {sorted(idle)}: it looks at singular values, and the "
                "parametrisation keeps them all at 1. Leave these paths out, or use a parametrisation that lets them "
                "move, such as rr.parametrizations.singular_margin."
            )
    if settings.proximal:
        check_proximal(settings, hyper, net, wanted)


def _warn_of_two_decays(settings: Settings, decayed: set[str], params: Params, net: Any) -> None:
    """Warns if the optimiser decays a weight that a penalty decays too."""
    for name, penalty in settings.penalties.items() if decayed else ():
        both = decayed & set(penalty.covers(params, weight_paths(net, params)))
        if penalty.decays and both:
            warn_caller(
                f"penalties[{name!r}] and the decay in the optimiser both shrink {', '.join(sorted(both))}: the first "
                "through the gradient, the second beside it, so that neither strength alone says how much. Leave one "
                "out, or give them different paths."
            )


def _drawing(
    settings: Settings, hyper: Hyper, data: Split
) -> tuple[Callable[[Array], Params], Any]:
    """What draws the parameters from a key, and the dtype that it draws in."""
    xs = data.train.xs
    real = jnp.issubdtype(xs.dtype, jnp.floating)
    dtype = wide(xs.dtype) if real else jnp.result_type(float)
    dtype = jax.dtypes.canonicalize_dtype(dtype)  # NumPy's float64 where x64 is off

    def draw(key):
        return network_of(settings, hyper).init(key, xs.shape[-1] if real else None, dtype=dtype)

    return draw, dtype


def _given(params: Any, wanted: Any) -> Params:
    """The given parameters in the dtypes of the run; raises if they are those of another network."""
    shapes = {path: jnp.shape(leaf) for path, leaf in leaf_paths(params).items()}
    own = {path: leaf.shape for path, leaf in leaf_paths(wanted).items()}
    if shapes != own or jax.tree.structure(params) != jax.tree.structure(wanted):
        raise ValueError(
            f"params must be a tree of this network's parameters, with the shapes {own}; got {shapes}. "
            "train.network(hyper).init(key, input_size) makes one."
        )
    return jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), params, wanted)
