"""Truncated back-propagation through time: one update a segment of the sequences, the state carried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import is_count
from rnnreg._tree import is_learned_start, leaf_paths
from rnnreg.data import Batch, row_weights
from rnnreg.networks import Network, start_state
from rnnreg.training._records import TrainState, select

NO_UPDATE = -1  # in place of the norm of a gradient that was not taken; NaN outside of the scans


def update_segments(
    update: Callable[..., Any],
    net: Network,
    state: TrainState,
    batch: Batch,
    *,
    length: int,
) -> tuple[TrainState, Array]:
    """The state after one update for each segment of `length` steps, and the last gradient norm (or `NO_UPDATE`).

    `update(state, segment, *, network_state, fresh)` is called once for each segment.

    The network's state enters each update as an argument, which it does not differentiate. Nothing else stops the
    gradient, so the derivative of a whole run with respect to a hyperparameter stays exact.
    """
    segments = cut(batch, length)
    # a learned start belongs to the parameters: the first segment has to find it inside its gradient
    learned = any(map(is_learned_start, leaf_paths(state.params)))
    first = jnp.arange(segments.xs.shape[0]) == 0

    def step(carry, of_segment):
        state, network_state = carry
        segment, first = of_segment
        if segment.weights is None:
            segment = segment._replace(weights=batch.weights)
        new, info = update(
            state,
            segment,
            network_state=network_state,
            fresh=first if learned else None,
        )
        true = jnp.any(row_weights(segment) > 0)
        state = select(true, new, state)
        return (state, info.network_state), (info.gradient_norm, true)

    start = (state, start_state(net, state.params, batch.xs))
    (state, _), (norms, made) = jax.lax.scan(step, start, (segments, first))
    last = jnp.max(jnp.where(made, jnp.arange(len(made)), 0))
    return state, jnp.where(jnp.any(made), norms[last], NO_UPDATE)


def cut(batch: Batch, length: int) -> Batch:
    """The steps of a batch in segments, `[S, B, length, …]`; what is missing in the last one is masked. Weights of
    steps go along, those of rows do not.

    >>> batch = Batch(jnp.ones((1, 5, 1)), jnp.arange(5.0).reshape(1, 5, 1))
    >>> segments = cut(batch, 2)
    >>> segments.ys[:, 0, :, 0].tolist(), segments.mask[:, 0].tolist()
    ([[0.0, 1.0], [2.0, 3.0], [4.0, 0.0]], [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    """
    num_rows, num_steps = batch.xs.shape[:2]
    short = -num_steps % length
    mask = jnp.ones((num_rows, num_steps)) if batch.mask is None and short else batch.mask

    def split(leaf):
        if leaf is None:
            return None
        padded = jnp.pad(leaf, [(0, 0), (0, short)] + [(0, 0)] * (leaf.ndim - 2))
        return jnp.swapaxes(padded.reshape(num_rows, -1, length, *leaf.shape[2:]), 0, 1)

    by_step = batch.weights is not None and batch.weights.ndim == 2
    weights = split(batch.weights) if by_step else None
    return Batch(split(batch.xs), split(batch.ys), split(mask), weights)


def as_segment_steps(length: Any) -> int | None:
    """The number of steps as a Python int.

    Raises:
      ValueError: it is not a positive integer.
    """
    if length is None:
        return None
    if not is_count(length):
        raise ValueError(
            f"segment_steps must be a positive int, the number of time steps an update, or None; got {length!r}."
        )
    return int(length)


def check_segments(net: Network, length: int | None) -> None:
    """Raises where a network cannot be trained in segments."""
    if length is None:
        return
    if net.readout != "all":
        raise ValueError(
            f"segment_steps={length} makes an update a segment, on the loss of its own steps, and "
            f"readout={net.readout!r} has one loss of the whole sequence; use readout='all' with targets ys at each "
            "step, or "
            f"rr.network(..., truncate={length}), which cuts the gradient and not the update."
        )
    for index, entry in enumerate(net.layers):
        if not entry.forwards:
            raise ValueError(
                f"segment_steps={length} carries the state forwards from segment to segment, and layer {index} reads "
                "backwards: it needs the whole sequence. Use layers that read forwards, or segment_steps=None."
            )


def check_targets(batch: Batch, length: int | None, *, name: str) -> None:
    """Raises where the targets cannot be cut in time with the inputs."""
    if length is not None and batch.ys.shape[:2] != batch.xs.shape[:2]:
        raise ValueError(
            f"segment_steps={length} cuts inputs and targets in time, so {name}.ys must have a target at each step: "
            f"[N, T, …] with [N, T] = {batch.xs.shape[:2]}; got shape {batch.ys.shape}."
        )
