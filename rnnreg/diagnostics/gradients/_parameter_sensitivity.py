"""How much the last state moves with the weights, ‖∂h_T/∂W‖, beside how much it moves with an earlier state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_every
from rnnreg._linalg import safe_norm, unit
from rnnreg._signatures import typed
from rnnreg._tree import is_learned_start, leaf_paths, matching, with_leaves
from rnnreg.diagnostics.dynamics._frames import check_inputs
from rnnreg.diagnostics.dynamics._system import Dynamics, System, dynamics_of, place_of
from rnnreg.diagnostics.dynamics._trajectory import backwards


class ParameterSensitivity(NamedTuple):
    """Frobenius norms of derivatives of the last state, as natural logarithms, against steps back ℓ.

    Attributes:
      lags: `[R]`, ℓ = 0, every, … T, steps back from the last state.
      log_parameters: `[B, R]`, ln ‖∂h_T/∂W‖_F where W is moved in the last ℓ steps alone; at ℓ = T it is the whole
        derivative, and a learned start, which enters before the first step, is part of it there. −inf at ℓ = 0.
      log_state: `[B, R]`, ln ‖∂h_T/∂h_{T−ℓ}‖_F.
    """

    lags: Array
    log_parameters: Array
    log_state: Array


@typed
def parameter_sensitivity(
    system: System,
    params: Any,
    xs: Any,
    *,
    state: Any = None,
    field: str | None = None,
    paths: str | Sequence[str] | None = "W_hh",
    every: int = 1,
) -> ParameterSensitivity:
    """‖∂h_T/∂W‖_F, ∂h_T/∂W = Σ_t (∂h_T/∂h_t) ∂h_t/∂W (h_{t−1} held), beside ‖∂h_T/∂h_{T−ℓ}‖_F.

    How to read it: the sum grows with ℓ for as long as earlier steps still count. As a network comes close to the
    edge, where ∂h_T/∂h_t no longer decays, the derivative with respect to W grows with T although no gradient with
    respect to a state explodes: learning gets hard by sensitivity and not by vanishing.

    It carries m × |W| numbers a row (m numbers of state at the end), so it is meant for small networks.

    Args:
      system: a network, a cell, or `step(params, state, x) -> state` on rows.
      params: its parameters.
      xs: `[B, T, D]` inputs, a trajectory a row.
      state: the state before the first step; None is the system's own.
      field: the part of the state to look at, such as "layer_0/h"; None is everything carried.
      paths: one pattern or several for the leaves to differentiate by, as in `spectra`; None is all parameters, a
        learned start among them where `state` is None.
      every: steps between two results; T must be a multiple of it.

    Returns:
      The logarithms of both norms at each lag, by trajectory.

    Raises:
      ValueError: no such field, no such leaf, or T that is not a multiple of `every`.

    Source: Zucchet & Orvieto 2024.

    >>> step = lambda w, state, x: w * state + x
    >>> found = parameter_sensitivity(step, jnp.ones(()), jnp.ones((1, 3, 1)), state=jnp.zeros((1, 1)), paths=None)
    >>> jnp.exp(found.log_parameters[0]).round(2).tolist()  # Σ h_{t−1} over the last ℓ steps, h = 0, 1, 2
    [0.0, 2.0, 3.0, 3.0]
    """
    check_every(every, check_inputs(xs))
    dynamics = dynamics_of(system, params, xs, state=state)
    place = place_of(dynamics, field)
    chosen = _chosen(params, paths)
    pull = _pull_of_a_row(system, params, chosen, dynamics)
    rows, dtype = dynamics.start.shape[0], dynamics.start.dtype
    ends = jnp.eye(dynamics.size, dtype=dtype)[place]  # [m, n]
    sums = {path: jnp.zeros((len(ends), *leaf.shape), dtype) for path, leaf in chosen.items()}
    start = (ends, jnp.zeros((), dtype), sums, jnp.full((), -jnp.inf, dtype))
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows, *leaf.shape)), start)

    def back(carry, at):
        return jax.vmap(_one_step_back(pull))(carry, *at), None

    def block(carry, at):
        carry, _ = jax.lax.scan(back, carry, at)
        ends, scale, sums, sum_scale = carry
        states_too = scale + _log_norms([ends[:, :, place]])
        return carry, (sum_scale + _log_norms(list(sums.values())), states_too)

    carry, (parameters, of_state) = jax.lax.scan(block, start, backwards(dynamics, xs, every))
    if state is None and any(map(is_learned_start, chosen)):
        whole = jax.vmap(_start_added(_pull_of_the_start(system, params, chosen, xs)))(carry)
        parameters = parameters.at[-1].set(whole[1] + _log_norms(list(whole[0].values())))
    first = jnp.full((1, rows), -jnp.inf, dtype)
    size = jnp.full((1, rows), 0.5 * jnp.log(jnp.asarray(len(ends), dtype)), dtype)
    return ParameterSensitivity(
        every * jnp.arange(len(parameters) + 1),
        jnp.concatenate([first, parameters]).T,
        jnp.concatenate([size, of_state]).T,
    )


def _chosen(params: Any, paths: str | Sequence[str] | None) -> dict[str, Array]:
    """The leaves to differentiate by, by path."""
    leaves = leaf_paths(params)
    chosen = leaves if paths is None else matching(leaves, paths)
    if not chosen:
        raise ValueError(
            f"paths={paths!r} matches no parameter; there are {list(leaves)}. None takes them all."
        )
    return jax.tree.map(jnp.asarray, chosen)


def _pull_of_a_row(system: System, params: Any, chosen: dict[str, Array], dynamics: Dynamics):
    """`pull(state [n], x, cotangent [m, n]) -> (weights' [m, …], state's [m, n])` of one row's step."""

    def step(leaves, state, x):
        row = state[None]
        inputs = jax.tree.map(lambda leaf: leaf[None, None], x)
        own = dynamics_of(
            system, with_leaves(params, leaves), inputs, state=dynamics.unflatten(row)
        )
        return own.step(row, jax.tree.map(lambda leaf: leaf[None], x))[0]

    def pull(state, x, cotangents):
        _, transposed = jax.vjp(lambda leaves, state: step(leaves, state, x), chosen, state)
        return jax.vmap(transposed)(cotangents)

    return pull


def _pull_of_the_start(system: System, params: Any, chosen: dict[str, Array], xs: Any):
    """`pull(cotangent [m, n]) -> weights' [m, …]` of the system's own state before the first step."""
    one = jax.tree.map(lambda leaf: leaf[:1], xs)

    def start(leaves):
        return dynamics_of(system, with_leaves(params, leaves), one).start[0]

    _, transposed = jax.vjp(start, chosen)
    return jax.vmap(lambda cotangent: transposed(cotangent)[0])


def _one_step_back(pull):
    """One step of one row: both derivatives with a logarithmic scale each."""

    def back(carry, state, x):
        ends, scale, sums, sum_scale = carry
        added, ends = pull(state, x, ends)
        sums, sum_scale = _sum(sums, sum_scale, added, scale)
        ends, grown = unit(ends)
        return ends, scale + grown, sums, sum_scale

    return back


def _start_added(pull):
    """What the sums and their scale are with the part of the start, once all steps are behind."""

    def added(carry):
        ends, scale, sums, sum_scale = carry
        return _sum(sums, sum_scale, pull(ends), scale)

    return added


def _sum(sums: Any, sum_scale: Array, added: Any, scale: Array) -> tuple[Any, Array]:
    """e^sum_scale · sums + e^scale · added, as such a pair."""
    top = jnp.maximum(scale, sum_scale)
    top = jnp.where(top == -jnp.inf, 0, top)
    before, now = jnp.exp(sum_scale - top), jnp.exp(scale - top)
    sums, grown = unit(jax.tree.map(lambda old, new: before * old + now * new, sums, added))
    return sums, top + grown


def _log_norms(leaves: list[Array]) -> Array:
    """ln of the Frobenius norm of all leaves `[B, …]` together, row by row."""
    norms = [safe_norm(leaf.reshape(len(leaf), -1)) for leaf in leaves]
    return jnp.log(safe_norm(jnp.stack(norms, axis=-1)))
