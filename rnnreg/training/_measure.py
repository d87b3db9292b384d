"""What is recorded of a run: losses, scores, penalties, norms, and what is tracked."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._linalg import each, marked, sigma_max, square_blocks, wide
from rnnreg._tree import leaf_paths
from rnnreg.data import (
    Batch,
    Split,
    cleared,
    per_row,
    row_weights,
    scale_batch,
    unscale_outputs,
)
from rnnreg.networks import (
    Network,
    calibrated,
    effective,
    recurrent_paths,
    trains_apart,
    weight_paths,
)
from rnnreg.objective import make_objective
from rnnreg.training._proximal import covered_by
from rnnreg.training._records import Params, Run, TrainState
from rnnreg.training._settings import Hyper, Settings, network_of


def measure(
    settings: Settings, params: Params, penalty_state: dict[str, Any], hyper: Hyper, data: Split
) -> tuple[dict[str, Array], Any]:
    """Everything that is recorded by name, and the outputs on the validation rows (None without any)."""
    net = network_of(settings, hyper)
    objective = make_objective(net, settings.loss, settings.penalties)
    seen = scale_batch(data.train, data.scaling)
    _, (parts, _) = objective(params, hyper, seen, penalty_state, key=None, train=False)
    outputs = unscale_outputs(parts.outputs, data.scaling)
    values = _scores(settings, outputs, data.train, "train")
    values |= {f"penalty_{name}": value for name, value in parts.penalties.items()}
    predictions = None
    if data.validation is not None:
        scores, predictions = validate(settings, net, params, data)
        values |= scores
    return values | _norms(net, params) | _zeros(settings, net, params), predictions


def validate(
    settings: Settings, net: Network, params: Params, data: Split
) -> tuple[dict[str, Array], Array]:
    """The scores on the validation rows by name, `val_…`, and the outputs there."""
    seen = cleared(scale_batch(data.validation, data.scaling))  # type: ignore[arg-type]
    outputs = net.apply(params, seen.xs, mask=seen.mask).outputs
    outputs = unscale_outputs(outputs, data.scaling)
    return _scores(settings, outputs, data.validation, "val"), outputs  # type: ignore[arg-type]


def monitored(
    settings: Settings, params: Params, hyper: Hyper, data: Split
) -> tuple[Array, Params]:
    """The monitored score on the validation rows, as a function of what was trained; and the parameters scored."""
    params = ready(settings, params, hyper, data)
    scores, _ = validate(settings, network_of(settings, hyper), params, data)
    return scores[f"val_{settings.monitor}"], params


def averaged(state: TrainState) -> Params:
    """The parameters to be measured: those of the state, or the averages that a schedule-free optimiser keeps.

    Raises:
      ValueError: such an optimiser inside a wrapper that sees a part of the parameters only.
    """
    from optax import contrib

    def is_free(part):
        return isinstance(part, contrib.ScheduleFreeState)

    found = [part for part in jax.tree.leaves(state.opt_state, is_leaf=is_free) if is_free(part)]
    if not found:
        return state.params
    if len(found) > 1 or jax.tree.structure(found[0].z) != jax.tree.structure(state.params):
        raise ValueError(
            "a schedule-free optimiser is scored at averaged parameters, and here it sees only some of them (it stands "
            "in optax.multi_transform, optax.partition or optax.masked). Wrap the whole optimiser instead: "
            "optax.contrib.schedule_free(optax.partition(…), learning_rate)."
        )
    mean = contrib.schedule_free_eval_params(found[0], state.params)
    return jax.tree.map(lambda new, old: new.astype(old.dtype), mean, state.params)


def ready(settings: Settings, params: Params, hyper: Hyper, data: Split) -> Params:
    """The parameters with the statistics of the training rows, if the network stores some for prediction."""
    net = network_of(settings, hyper)
    if not trains_apart(net):
        return params
    batch = scale_batch(data.train, data.scaling)
    return calibrated(net, params, batch.xs, weights=per_row(batch.weights))


def finish(settings: Settings, state: TrainState, hyper: Hyper, data: Split) -> Run:
    """The run that ends in a state, without its history."""
    params = state.best.params if settings.keep_best else averaged(state)
    params = ready(settings, params, hyper, data)
    values, predictions = measure(settings, params, state.penalty_state, hyper, data)
    # the last update may end where the loss is infinite, and no further one sees it
    lost = ~jnp.isfinite(values["train_loss"]) & jnp.any(row_weights(data.train) > 0)
    diverged_at = jnp.where((state.diverged_at < 0) & lost, state.step, state.diverged_at)
    diverged = diverged_at >= 0
    if state.best:
        values["best_epoch"] = state.best.epoch.astype(values["train_loss"].dtype)
    for path, W in _shrunk(settings, network_of(settings, hyper), params).items():
        rank = jnp.max(each(jnp.linalg.matrix_rank, _blocks(W)))
        values[f"rank/{path}"] = rank.astype(wide(W.dtype))
    return Run(
        params=params,
        history={},
        metrics={name: marked(diverged, value) for name, value in values.items()},
        predictions=predictions,
        diverged_at=diverged_at,
        num_updates=state.step,
    )


def track(
    settings: Settings, net: Network, params: Params, batch: Batch, *, taken: Container[str]
) -> dict[str, Array]:
    """What is tracked, by path; a lone array goes by its name."""
    found: dict[str, Array] = {}
    for name, entry in settings.track.items():
        for path, leaf in leaf_paths(entry.function(net, params, batch)).items():
            found[f"{name}/{path}" if path else name] = jnp.asarray(leaf)
        if any(one in taken or one == "gradient_norm" for one in (name, *found)):
            raise ValueError(f"track may not be named {name!r}, which is recorded already.")
    return found


def _scores(settings: Settings, outputs: Array, batch: Batch, prefix: str) -> dict[str, Array]:
    """Loss and further metrics of outputs in the units of the split's arrays; NaN if no row counts."""
    nothing = ~jnp.any(row_weights(batch) > 0)
    batch = cleared(batch)
    functions = {"loss": settings.loss, **settings.metrics}
    return {
        f"{prefix}_{name}": marked(
            nothing, jnp.asarray(function(outputs, batch.ys, batch.mask, batch.weights))
        )
        for name, function in functions.items()
    }


def _zeros(settings: Settings, net: Network, params: Params) -> dict[str, Array]:
    """Of each proximal penalty the weights that are exactly 0, of each recurrent matrix that it covers the units off.

    A unit is off if it takes no part in the recurrence: its row of `[H, G·H]`, what it sends, or its columns, what it
    receives through every gate, are all 0.
    """
    if not settings.proximal:
        return {}
    leaves = leaf_paths(params)

    def count(*arrays):
        dtype = jnp.result_type(float)
        return jnp.stack([jnp.sum(array, dtype=dtype) for array in arrays]).sum()

    values = {}
    for name, covers in covered_by(settings, params, weight_paths(net, params)).items():
        values[f"zeros_{name}"] = count(*(leaves[path] == 0 for path in covers))
    for path, W in _shrunk(settings, net, params).items():
        blocks = _blocks(W) == 0
        values[f"units_off/{path}"] = count(blocks.all(axis=(0, 1)) | blocks.all(axis=(0, 2)))
    return values


def _shrunk(settings: Settings, net: Network, params: Params) -> dict[str, Array]:
    """The recurrent matrices that a proximal penalty covers, by path."""
    if not settings.proximal:
        return {}
    own = covered_by(settings, params, weight_paths(net, params)).values()
    leaves = leaf_paths(params)
    return {p: leaves[p] for p in recurrent_paths(net, params) if any(p in one for one in own)}


def _norms(net: Network, params: Params) -> dict[str, Array]:
    """‖W‖_F and the largest σ_max over the gate blocks, for every recurrent matrix."""
    params = effective(net, params)
    values, leaves = {}, leaf_paths(params)
    for path in recurrent_paths(net, params):
        W = leaves[path]
        values[f"norm/{path}"] = jnp.sqrt(jnp.sum(jnp.square(W)))
        values[f"sigma_max/{path}"] = jnp.max(jax.vmap(sigma_max)(_blocks(W)))
    return values


def _blocks(W: Array) -> Array:
    """The gate blocks `[G, H, H]` of a recurrent matrix, `[H, G·H]` or `[G·H, H]`."""
    return square_blocks(W if W.shape[0] <= W.shape[1] else W.T)
