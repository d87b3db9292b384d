"""Value and gradient of the objective on one batch: whole, or with the rows split over devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from rnnreg.data import Batch, row_weights, take_rows
from rnnreg.objective import Objective

Params = dict[str, Any]


class Gradients(NamedTuple):
    """What an update needs of one batch.

    Attributes:
      total: data loss + Σ λ_k R_k.
      data_loss: L.
      penalties: R_k by name.
      penalty_state: state of each penalty afterwards.
      gradients: of the total, like the parameters.
      network_state: the network's state after the last step, rows first.
    """

    total: Array
    data_loss: Array
    penalties: dict[str, Array]
    penalty_state: dict[str, Any]
    gradients: Params
    network_state: Any


def gradients_of(
    objective: Objective, params: Params, *arguments: Any, key: Array, **start: Any
) -> Gradients:
    """Value and gradient of `objective(params, hyper, batch, penalty_state, key=…, train=True, **start)`.

    `start`, a network state to go on from, is an argument of the objective and no function of the parameters:
    no gradient passes through it.
    """
    (total, (parts, state)), gradients = jax.value_and_grad(objective, has_aux=True)(
        params, *arguments, key=key, train=True, **start
    )
    return Gradients(total, parts.data_loss, parts.penalties, state, gradients, parts.final_state)


def split_gradients_of(
    objective: Objective,
    params: Params,
    hyper: Mapping[str, Any],
    batch: Batch,
    penalty_state: dict[str, Any],
    *,
    key: Array,
    devices: tuple[Any, ...],
    network_state: Any = None,
    fresh: Array | None = None,
) -> Gradients:
    """The same with the rows dealt to devices, each device's part weighted by its share of the rows' weights.

    A data loss is a weighted mean over rows, so the shares add up to it; a penalty that looks at states is taken
    as a mean over rows too. Dropout masks are drawn by each device for its own rows. The network's state is dealt like
    the rows.
    """
    num_rows = batch.xs.shape[0]
    mesh = Mesh(np.array(devices), ("rows",))
    rows, everywhere = PartitionSpec("rows"), PartitionSpec()
    specs = Gradients(everywhere, everywhere, everywhere, everywhere, everywhere, rows)  # type: ignore[arg-type]

    def part(params, hyper, batch, penalty_state, key, network_state, fresh):
        count = jnp.sum(row_weights(batch))
        all_rows = jax.lax.psum(count, "rows")
        share = jnp.where(
            all_rows > 0, count / jnp.where(all_rows > 0, all_rows, 1), 1 / len(devices)
        )
        key = jax.random.fold_in(key, jax.lax.axis_index("rows"))
        own = gradients_of(
            objective,
            params,
            hyper,
            batch,
            penalty_state,
            key=key,
            network_state=network_state,
            fresh=fresh,
        )
        shared = own._replace(penalty_state=(), network_state=())
        weighted = jax.tree.map(
            lambda leaf: jax.lax.psum(share.astype(leaf.dtype) * leaf, "rows"), shared
        )
        return weighted._replace(
            penalty_state=_mean(own.penalty_state), network_state=own.network_state
        )

    found = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(everywhere, everywhere, rows, everywhere, everywhere, rows, everywhere),
        out_specs=specs,
        check_vma=False,
    )(
        params,
        dict(hyper),
        _even(batch, len(devices)),
        penalty_state,
        key,
        jax.tree.map(
            lambda leaf: jnp.take(leaf, _places(num_rows, len(devices)), axis=0), network_state
        ),
        fresh,
    )
    kept = jax.tree.map(lambda leaf: leaf[:num_rows], found.network_state)
    return found._replace(network_state=kept)


def _even(batch: Batch, parts: int) -> Batch:
    """The batch with its last row repeated, at weight 0, until the parts are equal."""
    num_rows = batch.xs.shape[0]
    if num_rows % parts == 0:
        return batch
    places = _places(num_rows, parts)
    true = jnp.asarray(np.arange(len(places)) < num_rows, jnp.result_type(float))
    return take_rows(batch, places, weights=true)


def _places(num_rows: int, parts: int) -> np.ndarray:
    """Row numbers, the last one repeated until the parts are equal."""
    return np.minimum(np.arange(num_rows + -num_rows % parts), num_rows - 1)


def _mean(tree: Any) -> Any:
    def mean(leaf):
        real = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jax.lax.pmean(leaf, "rows") if real else leaf

    return jax.tree.map(mean, tree)
