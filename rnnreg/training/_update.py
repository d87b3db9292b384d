"""One update of a run, and the updates of one minibatch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.data import Batch
from rnnreg.networks import Network
from rnnreg.objective import make_objective
from rnnreg.penalties import check_kept
from rnnreg.training._gradients import Gradients, gradients_of, split_gradients_of
from rnnreg.training._proximal import proximal_step, pull_of
from rnnreg.training._records import Params, TrainInfo, TrainState, select
from rnnreg.training._segments import update_segments
from rnnreg.training._settings import Hyper, Settings, network_of, optimizer_of


def update(
    settings: Settings,
    state: TrainState,
    hyper: Hyper,
    batch: Batch,
    *,
    network_state: dict[str, Any] | None = None,
    fresh: Array | None = None,
) -> tuple[TrainState, TrainInfo]:
    """The state after one update, which is applied only if everything in it is finite."""
    net = network_of(settings, hyper)
    objective = make_objective(net, settings.loss, settings.penalties, proximal=settings.proximal)
    key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)
    arguments = (hyper, batch, state.penalty_state)
    options = {"key": key, "network_state": network_state, "fresh": fresh}
    if settings.devices is None:
        found = gradients_of(objective, state.params, *arguments, **options)
    else:
        found = split_gradients_of(
            objective, state.params, *arguments, devices=settings.devices, **options
        )

    if settings.proximal:
        pull = pull_of(settings, net, state, hyper)
        gradients = jax.tree.map(jnp.add, found.gradients, pull)
        found = found._replace(gradients=gradients)

    def total_of(params):  # for optimisers that search along a line
        return objective(params, *arguments, train=True, **options)[0]

    params, opt_state, proximal = _moved(settings, net, state, hyper, found, total_of)
    check_kept(state.penalty_state, found.penalty_state)
    gradient_norm, finite = _check(found, params)
    new = state._replace(
        params=params,
        opt_state=opt_state,
        penalty_state=found.penalty_state,
        step=state.step + 1,
        proximal=proximal,
    )
    running = state.diverged_at < 0
    kept = select(finite & running, new, state)
    diverged_at = jnp.where(running & ~finite, state.step, state.diverged_at)
    info = TrainInfo(
        found.total, found.data_loss, found.penalties, gradient_norm, finite, found.network_state
    )
    return kept._replace(diverged_at=diverged_at), info


def update_minibatch(
    settings: Settings, state: TrainState, hyper: Hyper, batch: Batch
) -> tuple[TrainState, Array]:
    """The state after the updates of one minibatch, one for each segment; and the gradient norm of the last."""
    length = settings.segment_steps
    if length is None or length >= batch.xs.shape[1]:
        state, info = update(settings, state, hyper, batch)
        return state, info.gradient_norm

    def update_segment(state, segment, **start):
        return update(settings, state, hyper, segment, **start)

    net = network_of(settings, hyper)
    return update_segments(update_segment, net, state, batch, length=length)


def _moved(
    settings: Settings,
    net: Network,
    state: TrainState,
    hyper: Hyper,
    found: Gradients,
    total_of: Any,
) -> tuple[Params, Any, Any]:
    """The parameters after a step of the optimiser, its state, and what proximal steps remember."""
    import optax

    if _has_two_sets(state.opt_state):
        raise ValueError(
            "optax.lookahead moves two sets of parameters, fast and slow, and a run has one. An average of the "
            "parameters is what optax.contrib.schedule_free(optimizer, learning_rate) keeps."
        )
    extra = {"value": found.total, "grad": found.gradients, "value_fn": total_of}
    updates, opt_state = optimizer_of(settings, hyper).update(
        found.gradients, state.opt_state, state.params, **extra
    )
    if settings.proximal:
        moved = proximal_step(settings, net, state, hyper, updates, opt_state, **extra)
        return moved[0], opt_state, moved[1]
    params: Any = optax.apply_updates(state.params, updates)
    return params, opt_state, state.proximal


def _has_two_sets(opt_state: Any) -> bool:
    """Whether an optimiser moves a pair of parameter trees."""
    import optax

    def is_pair(part):
        return isinstance(part, optax.LookaheadState)

    return any(map(is_pair, jax.tree.leaves(opt_state, is_leaf=is_pair)))


def _check(found: Gradients, params: Params) -> tuple[Array, Array]:
    """The norm of the gradient, and whether loss, gradient and the new parameters are finite."""
    import optax

    norm = optax.tree.norm(found.gradients)  # overflows before the optimiser's squares do
    every = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]).all()
    return norm, jnp.isfinite(found.total) & jnp.isfinite(norm) & every
