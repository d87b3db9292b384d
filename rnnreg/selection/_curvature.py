"""How much a penalty and a data loss curve at the start of a run, in the directions of the weights that it covers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from rnnreg._linalg import lanczos, safe_divide, safe_norm
from rnnreg._tree import leaf_paths, with_leaves
from rnnreg.data import Split, scale_batch
from rnnreg.networks import effective, weight_paths
from rnnreg.objective import make_objective
from rnnreg.training import Train

_PRODUCTS = (
    12  # the outer Ritz value of so many is within a few per cent, and the grid needs its size
)


class Curvatures(NamedTuple):
    """Curvatures at the start of a run.

    Attributes:
      loss: the largest |eigenvalue| of the Hessian of the data loss in the weights that the penalty covers.
      penalty: the same of R, or ‖∂R/∂w‖ / ‖w‖ where that is larger: the curvature of L1 is 0, and that of the quadratic
        which pulls as hard is this.
    """

    loss: Array
    penalty: Array


def curvatures(
    train: Train, name: str, hyper: dict[str, Any], data: Split, *, key: Array
) -> Curvatures:
    """The curvatures of a penalty and of the data loss at the parameters that the run starts from."""
    settings = train.settings
    key_start, key_lanczos = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    params = train.init(hyper, data, key=key_start).params
    net, penalty = train.network(hyper), settings.penalties[name]
    batch = scale_batch(data.train, data.scaling)
    seen = effective(net, params)
    state = {name: penalty.init(seen)}
    objective = make_objective(net, settings.loss, {name: penalty})
    covered = set(penalty.covers(seen, weight_paths(net, seen)))
    own = leaf_paths(params)
    moved = {path: leaf for path, leaf in own.items() if path in covered} or own

    def loss_of(leaves):
        given = with_leaves(params, leaves)
        return objective(given, {name: 0.0}, batch, state, key=None, train=False)[0]

    def penalty_of(leaves):
        given = with_leaves(params, leaves)
        parts = objective(given, {name: 0.0}, batch, state, key=None, train=False)[1][0]
        return parts.penalties[name]

    def largest(function, leaves, key):
        flat, unravel = ravel_pytree(leaves)
        gradient = jax.grad(lambda flat: function(unravel(flat)))
        start = jax.random.normal(key, flat.shape, flat.dtype)
        _, along, beside = lanczos(
            lambda vector: jax.jvp(gradient, (flat,), (vector,))[1],
            start / safe_norm(start),
            min(_PRODUCTS, flat.size),
            key=jax.random.fold_in(key, 0),
        )
        tridiagonal = jnp.diag(along) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
        return jnp.max(jnp.abs(jnp.linalg.eigvalsh(tridiagonal)))

    def norm(leaves):
        return safe_norm(ravel_pytree(leaves)[0])

    @jax.jit
    def measured(leaves, key):
        pull = safe_divide(norm(jax.grad(penalty_of)(leaves)), norm(leaves))
        curved = largest(penalty_of, leaves, key)
        return Curvatures(largest(loss_of, leaves, key), jnp.maximum(curved, pull))

    return measured(moved, key_lanczos)
