"""Fisher information of a noisy linear state about its past inputs, lag by lag."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count
from rnnreg._memory import check_made
from rnnreg._signatures import typed


class FisherMemory(NamedTuple):
    """Fisher information of a noisy linear state about inputs of the past.

    Attributes:
      lags: `[K]`, k = 0 … K−1.
      curve: `[K]`, J(k), in units of one input's signal-to-noise ratio.
      total: J_tot = Σ_k J(k) over all lags, not only the K shown.
      spatial: `[n, n]`, Σ_k W^k C⁻¹ (W^k)ᵀ: J_tot of any input direction v is v · spatial · vᵀ; its trace is n with
        noise of variance 1 on every unit, and its leading eigenvector is the direction that is remembered best.
      covariance: `[n, n]`, C, the stationary covariance of the noise in the state.
      residual: what one more doubling of the sum would add to C, relative to C.
      converged: whether that is at rounding level and C is positive definite beyond rounding. False means that no
        such C was found (ρ(W) ≥ 1, or too near 1; a direction of the state that no noise reaches), and nothing
        above can be used.
    """

    lags: Array
    curve: Array
    total: Array
    spatial: Array
    covariance: Array
    residual: Array
    converged: Array


@typed
def fisher_memory(
    W: Array, v: Array, *, num_lags: int, noise: Array | None = None, num_doublings: int = 40
) -> FisherMemory:
    """J(k) = v W^k C⁻¹ (W^k)ᵀ vᵀ, what the state h_t tells about the input u_{t−k}, of a linear network in noise.

    The network is h_t = h_{t−1} W + u_t v + ε_t with ε_t ~ N(0, noise), in row vectors as everywhere here (columns
    and Wᵀ in the paper), so C = Σ_k (W^k)ᵀ noise W^k. The sum is formed by doubling, C ← C + Aᵀ C A with A ← A².

    How to read it: J(0) is at most 1, and J(k) is how much of an impulse's information is left after k steps. With
    noise of variance 1 on every unit, J_tot is 1 on average over the directions v of norm 1, whatever W. For a
    normal W (symmetric, orthogonal times a gain, …) it is 1 for each of them, whatever the eigenvalues: such a W can
    only trade short memory for long. A non-normal W has directions with more, at most n, and others with less. For a
    nonlinear network give its Jacobian at a fixed point as W. Where the noise comes in is part of the question: noise
    along v alone gives a delay line J(k) = 1 at every lag it has, which says nothing about W.

    Args:
      W: `[n, n]`, spectral radius below 1 (or nilpotent, such as a delay line of any gain).
      v: `[n]`, the input weights.
      num_lags: K.
      noise: `[n, n]` covariance of ε_t, for which C must come out positive definite; None is the identity.
      num_doublings: 2^num_doublings terms are summed; 40 serve ρ up to 1 − 10⁻¹¹ where the dtype can tell it
        from 1.

    Returns:
      J(k), its sum over all lags, and whether the covariance behind it was found.

    Raises:
      ValueError: W that is not square, v or noise of another size, complex numbers, or num_lags or num_doublings
        that are not whole numbers of at least 1.

    Source: Ganguli, Huh & Sompolinsky 2008, "Memory traces in dynamical systems".

    >>> delay_line = jnp.eye(4, k=1)
    >>> memory = fisher_memory(delay_line, jnp.eye(4)[0], num_lags=5)
    >>> [f"{share:.4f}" for share in memory.curve]  # 1/(k+1) while the line lasts
    ['1.0000', '0.5000', '0.3333', '0.2500', '0.0000']
    """
    W, v = jnp.asarray(W), jnp.asarray(v)
    if W.ndim != 2 or W.shape[0] != W.shape[1]:
        raise ValueError(
            f"W must be a square matrix [n, n]; got shape {W.shape}. Of a gated cell give one block."
        )
    size = W.shape[0]
    noise = jnp.eye(size) if noise is None else jnp.asarray(noise)
    if any(jnp.iscomplexobj(given) for given in (W, v, noise)):
        raise ValueError(
            f"W, v and noise must be real; got {W.dtype}, {v.dtype} and {noise.dtype}."
        )
    if v.shape != (size,) or noise.shape != (size, size):
        raise ValueError(
            f"W is [{size}, {size}], so v must be [{size}] and noise [{size}, {size}]; got {v.shape} and {noise.shape}."
        )
    check_count(num_lags, "num_lags")
    check_count(num_doublings, "num_doublings")
    shapes = jax.ShapeDtypeStruct((num_lags, 2 + size), "float32")
    check_made(shapes, f"{num_lags} lags", "Take a smaller num_lags.")
    dtype = W.dtype if jnp.issubdtype(W.dtype, jnp.floating) else jnp.zeros(0).dtype
    W, v, noise = (given.astype(dtype) for given in (W, v, noise))

    covariance, residual = _stationary(W, noise, num_doublings)
    factor = jnp.linalg.cholesky(covariance)

    def whitened(rows):
        return jax.scipy.linalg.solve_triangular(factor, rows.T, lower=True)

    def lag(row, _):
        return row @ W, row

    _, impulses = jax.lax.scan(lag, v, length=num_lags)
    inverse = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(size, dtype=W.dtype))
    spatial, _ = _stationary(W.T, inverse, num_doublings)
    eps = jnp.finfo(W.dtype).eps
    # what a unit adds to the units before it, beside the rounding of its variance; NaN where C is not definite
    own = jnp.square(jnp.diagonal(factor)) / jnp.diagonal(covariance)
    definite = (own > 10 * size * eps).all() & jnp.isfinite(spatial).all()
    return FisherMemory(
        lags=jnp.arange(num_lags),
        curve=jnp.sum(jnp.square(whitened(impulses)), axis=0),
        total=v @ spatial @ v,
        spatial=spatial,
        covariance=covariance,
        residual=residual,
        converged=(residual < 10 * eps) & definite,  # of NaN, False
    )


def _stationary(W: Array, noise: Array, num_doublings: int) -> tuple[Array, Array]:
    """C = Σ_k (W^k)ᵀ noise W^k, the solution of C = Wᵀ C W + noise, and what one more doubling would add to it."""

    def double(carry, _):
        total, power = carry
        total = total + power.T @ total @ power
        return (0.5 * (total + total.T), power @ power), None

    (total, power), _ = jax.lax.scan(double, (noise, W), length=num_doublings)
    return total, jnp.linalg.norm(power.T @ total @ power) / jnp.linalg.norm(total)
