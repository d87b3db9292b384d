"""Jacobians of single steps along trajectories, and their spectra."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._linalg import pushed
from rnnreg._signatures import typed
from rnnreg.diagnostics.dynamics._frames import check_inputs, time_first
from rnnreg.diagnostics.dynamics._spectra import Spectrum, matrix_spectrum
from rnnreg.diagnostics.dynamics._system import System, dynamics_of, place_of
from rnnreg.diagnostics.dynamics._trajectory import check_arrays


@typed
def step_jacobians(
    system: System, params: Any, xs: Any, *, state: Any = None, field: str | None = None
) -> Array:
    """J_t = ∂h_t/∂h_{t−1} `[B, T, n, n]` along each trajectory; entry i, j is ∂h_t,i / ∂h_{t−1},j.

    How to read it: row i is what unit i takes from each unit of a step before. A row of zeros is a unit that is
    saturated or dead at that step, a column of zeros one that nobody listens to, and a step near the identity passes
    gradients on unchanged. What many steps do follows from their product alone: `jacobian_products`, `lyapunov`.

    Args:
      system: a network, a cell, or `step(params, state, x) -> state` on rows.
      params: its parameters.
      xs: `[B, T, D]` inputs, a trajectory a row. True steps only: there is no mask, and padding would have a Jacobian
        like a true step. Cut rows of several lengths to the shortest, `xs[:, :length]`, or leave out what comes after
        the end of each row.
      state: the state before the first step; None is the system's own.
      field: the part of the state to look at, such as "layer_0/h"; None is everything carried.

    Returns:
      The Jacobians, `[B, T, n, n]`.

    Raises:
      ValueError: an unknown field, no step, inputs, parameters or a state that do not fit the system, or a step that
        does not return a state like the one it was given.

    >>> step = lambda W, state, x: state @ W  # rows, so that J = Wᵀ
    >>> W, xs = jnp.array([[0.0, 1.0], [0.0, 0.0]]), jnp.zeros((1, 1, 0))
    >>> step_jacobians(step, W, xs, state=jnp.ones((1, 2)))[0, 0].tolist()
    [[0.0, 0.0], [1.0, 0.0]]
    """
    check_arrays(xs)
    check_inputs(xs)
    dynamics = dynamics_of(system, params, xs, state=state)
    place = place_of(dynamics, field)
    ends = jnp.eye(dynamics.size, dtype=dynamics.start.dtype)[:, place]
    frame = jnp.broadcast_to(ends, (dynamics.start.shape[0], *ends.shape))

    def advance(state, x):
        new, J = pushed(dynamics.step, state, x, frame)
        return new, J[:, place]

    _, jacobians = jax.lax.scan(advance, dynamics.start, time_first(xs))
    return jnp.swapaxes(jacobians, 0, 1)


@typed
def step_spectra(
    system: System, params: Any, xs: Any, *, state: Any = None, field: str | None = None
) -> Spectrum:
    """Eigenvalues, singular values, ρ, σ_max, departure from normality and condition of each J_t, `[B, T, …]`.

    The Jacobians are one scan (`step_jacobians`); their spectra are those of `matrix_spectrum`, on the host in float64,
    or in the precision of the state inside `jit`, `vmap`, `SweepResult.map` and `track=`.

    How to read it: beside the spectrum of W_hh it shows what the nonlinearity leaves of it: a saturated unit shrinks
    its row. Each is one step only, and products of steps do not follow from the spectra of the steps: for those see
    `jacobian_products` and `lyapunov`.

    Args:
      system: as in `step_jacobians`.
      params: its parameters.
      xs: `[B, T, D]`, true steps only, as in `step_jacobians`.
      state: the state before the first step, or None.
      field: the part of the state to look at, or None.

    Returns:
      The spectrum of each J_t, with leading axes `[B, T]`.

    Raises:
      ValueError: as `step_jacobians`.

    >>> step = lambda W, state, x: jnp.tanh(state @ W)
    >>> found = step_spectra(step, 0.5 * jnp.eye(2), jnp.zeros((1, 3, 0)), state=jnp.zeros((1, 2)))
    >>> found.rho.tolist(), found.eigenvalues.shape
    ([[0.5, 0.5, 0.5]], (1, 3, 2))
    """
    return matrix_spectrum(step_jacobians(system, params, xs, state=state, field=field))
