"""Products of step Jacobians, ∂h_T/∂h_t along real trajectories, over any number of steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_every, check_number
from rnnreg._linalg import safe_divide, starting_frame
from rnnreg._signatures import typed
from rnnreg.diagnostics.dynamics import _graded as graded
from rnnreg.diagnostics.dynamics._frames import (
    apart,
    check_inputs,
    how_many,
    orthonormalised,
    pulled,
    rounded,
)
from rnnreg.diagnostics.dynamics._system import Dynamics, System, dynamics_of, place_of
from rnnreg.diagnostics.dynamics._trajectory import backwards, check_arrays


class JacobianProducts(NamedTuple):
    """Singular values of ∂h_T/∂h_{T−ℓ}, as natural logarithms, against steps back ℓ.

    Attributes:
      lags: `[R]`, ℓ = 0, every, … T, steps back from the last state.
      log_norm: `[R]`, ln of the geometric mean over trajectories of the largest singular value, ‖∂h_T/∂h_{T−ℓ}‖₂;
        −inf where one of them is 0.
      log_singular: `[B, R, k]`, the evidence: ln σ_i, from large to small; −inf where lost.
      log_frobenius: `[B, R]`, ln ‖∂h_T/∂h_{T−ℓ}‖_F.
      unresolved: `[B, R, k]`, True where rounding may have moved ln σ_i by more than the tolerance, or the direction
        was lost (a singular Jacobian, or less than a rounding of the largest entry of one step's).
    """

    lags: Array
    log_norm: Array
    log_singular: Array
    log_frobenius: Array
    unresolved: Array


@typed
def jacobian_products(
    system: System,
    params: Any,
    xs: Any,
    *,
    state: Any = None,
    field: str | None = None,
    num_singular: int | None = None,
    every: int = 1,
    small_ones: bool = True,
    tolerance: float = 0.1,
) -> JacobianProducts:
    """ln σ_i(∂h_T/∂h_{T−ℓ}), with ∂h_T/∂h_t = J_T J_{T−1} … J_{t+1} and J_t = ∂h_t/∂h_{t−1} along the trajectory.

    The product is built from the end, one transposed Jacobian a step, and carried as orthonormal columns, logarithmic
    scales and rows of length 1, so that nothing under- or overflows at any T. Its singular values come from
    rotations that keep the scales as logarithms; each has its own bound on the rounding that it has gone through.

    How to read it: the largest singular value is how much the most lasting perturbation of h_t still moves h_T. A
    straight line is a rate, and that rate tends to the largest Lyapunov exponent. Spread between the singular values
    says that gradients keep few directions; all near 1 is dynamical isometry. It is about states and not about a
    loss: what a loss sees of it is in `gradient_flow`.

    Args:
      system: a network, a cell, or `step(params, state, x) -> state` on rows.
      params: its parameters.
      xs: `[B, T, D]` inputs, a trajectory a row; `jnp.zeros((B, T, 0))` for an autonomous step. True steps only:
        there is no mask, and padding would count as steps. Cut rows of several lengths to the shortest,
        `xs[:, :length]`, or measure those of one length at a time.
      state: the state before the first step; None is the system's own.
      field: the part of the state to look at, at both ends, such as "layer_0/h"; None is everything carried. What
        passes between the two times by way of other parts counts.
      num_singular: k, how many leading singular values are returned; None is all.
      every: steps between two results; T must be a multiple of it.
      small_ones: False carries the plain product with one scale and takes a dense SVD, which resolves what lies
        within a rounding of the largest singular value: faster for hundreds of units.
      tolerance: nats, of `unresolved`.

    Returns:
      The singular values at each lag.

    Raises:
      ValueError: an unknown field, more singular values than state numbers, T that is not a multiple of `every`,
        inputs, parameters or a state that do not fit the system, or a step that does not return a state like the one
        it was given.

    Source: Pascanu, Mikolov & Bengio 2013; Pennington, Schoenholz & Ganguli 2017 (dynamical isometry); Stewart 1997
    (graded products).

    >>> step = lambda params, state, x: state @ params
    >>> W, xs = jnp.diag(jnp.array([0.5, 1.0])), jnp.zeros((1, 300, 0))
    >>> products = jacobian_products(step, W, xs, state=jnp.ones((1, 2)))
    >>> [round(float(log / jnp.log(2))) for log in products.log_singular[0, -1]]  # 2⁻³⁰⁰ is no float32 number
    [0, -300]
    """
    check_arrays(xs)
    check_number(tolerance, "tolerance", least=0)
    check_every(every, check_inputs(xs))
    dynamics = dynamics_of(system, params, xs, state=state)
    place = place_of(dynamics, field)
    k = how_many(num_singular, "num_singular", place.stop - place.start)
    product = _graded_product if small_ones else _plain_product
    logs, doubt = product(dynamics, backwards(dynamics, xs, every), place)  # [R, B, m]
    first = jnp.zeros((1, *logs.shape[1:]), logs.dtype)
    logs, doubt = (jnp.swapaxes(jnp.concatenate([first, values]), 0, 1) for values in (logs, doubt))
    return JacobianProducts(
        lags=every * jnp.arange(logs.shape[1]),
        log_norm=logs[..., 0].mean(axis=0),
        log_singular=logs[..., :k],
        log_frobenius=jax.nn.logsumexp(2 * logs, axis=-1) / 2,
        unresolved=~(doubt[..., :k] <= tolerance) | (logs[..., :k] == -jnp.inf),
    )


def _pulled(dynamics: Dynamics, state: Array, x: Any, frame: Array) -> tuple[Array, Array]:
    """Jᵀ F, and how much of it rounding inside the step leaves open."""
    found = pulled(dynamics.step, state, x, frame)
    return found, apart(pulled(dynamics.floored, rounded(state), x, frame), found)


def _graded_product(dynamics: Dynamics, steps: Any, place: slice) -> tuple[Array, Array]:
    """ln σ and the doubt of each, `[R, B, m]`."""
    rows, size, dtype = dynamics.start.shape[0], place.stop - place.start, dynamics.start.dtype
    frame = jnp.zeros((dynamics.size, size), dtype).at[place].set(starting_frame(size, size, dtype))
    start = (frame, graded.identity(size, dtype))
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows, *leaf.shape)), start)

    def back(carry, at):
        (frame, product), (state, x) = carry, at
        frame, rounding = _pulled(dynamics, state, x, frame)
        frame, R, doubt = orthonormalised(frame, rounding)
        product = jax.vmap(graded.multiply)(R, doubt, product)
        product, order = jax.vmap(graded.sort)(product)
        return (jnp.take_along_axis(frame, order[:, None, :], axis=-1), product), None

    def resolved(frame, product):
        if size != dynamics.size:
            _, R, doubt = orthonormalised(frame[place])
            product, _ = graded.sort(graded.multiply(R, doubt, product))
        return graded.log_singular_values(product)

    def block(carry, at):
        carry, _ = jax.lax.scan(back, carry, at)
        return carry, jax.vmap(resolved)(*carry)

    return jax.lax.scan(block, start, steps)[1]


def _plain_product(dynamics: Dynamics, steps: Any, place: slice) -> tuple[Array, Array]:
    """The same from e^s M with one scale s and a dense SVD."""
    rows, size, dtype = dynamics.start.shape[0], place.stop - place.start, dynamics.start.dtype
    ends = jnp.eye(dynamics.size, dtype=dtype)[:, place]
    start = (
        jnp.broadcast_to(ends, (rows, *ends.shape)),
        jnp.zeros(rows, dtype),
        jnp.zeros(rows, dtype),
    )
    eps = jnp.finfo(dtype).eps

    def back(carry, at):
        (matrix, scale, doubt), (state, x) = carry, at
        matrix, rounding = _pulled(dynamics, state, x, matrix)
        largest = jnp.max(jnp.abs(matrix), axis=(1, 2))
        matrix = safe_divide(matrix, largest[:, None, None])
        return (matrix, scale + jnp.log(largest), doubt + eps * size**0.5 + rounding), None

    def block(carry, at):
        carry, _ = jax.lax.scan(back, carry, at)
        matrix, scale, doubt = carry
        values = jnp.linalg.svd(matrix[:, place], compute_uv=False)
        relative = safe_divide(values, values[:, :1])
        rounding = doubt[:, None]
        doubt = rounding / jnp.where(relative > 0, relative, rounding)
        return carry, (jnp.log(values) + scale[:, None], doubt)

    return jax.lax.scan(block, start, steps)[1]
