"""Penalties on how far a matrix is from orthogonal, and from normal."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice, check_count
from rnnreg._signatures import typed
from rnnreg.penalties._base import Penalty
from rnnreg.penalties._blocks import on_blocks, times
from rnnreg.penalties._singular import largest, start_vector


@typed
def soft_orthogonality(
    paths: str | Sequence[str] = "W_hh",
    *,
    norm: str = "frobenius",
    num_iterations: int = 2,
    recurrent: str | None = "W_hh",
) -> Penalty:
    """‖WᵀW − I‖_F² = Σ_i (σ_i² − 1)², or ‖WᵀW − I‖₂ = max_i |σ_i² − 1|; of a gated W_hh, of each square block.

    The first (V17) has the gradient 4 W (WᵀW − I), and under gradient flow of λR each singular value goes its own
    way, σ(t)^(−2) = 1 + (σ(0)^(−2) − 1) e^(−8λt). It is 0, and flat, at W = 0. The second is the spectral restricted
    isometry property (SRIP): it pushes the worst direction alone, with the same force however close to 1 it is. In an
    update it is estimated by warm-started power iteration; in reports and in `penalty(params)` it is exact. A matrix
    that is wider than high has orthonormal rows instead: WWᵀ takes the place of WᵀW.

    Args:
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      norm: "frobenius" (squared) or "spectral" (not squared, as its authors have it).
      num_iterations: of the power iteration for "spectral", in each update.
      recurrent: pattern of the leaves that are read as square blocks, one a gate; None takes every matrix as one.

    Returns:
      The penalty; "spectral" remembers a vector for every block.

    Raises:
      ValueError: an unknown norm, `num_iterations` below 1; at `init` or in use, a pattern that matches no leaf, or a
        leaf that does not fit.

    Source: Vorontsov, Trabelsi, Kadoury & Pal 2017 (V17); Bansal, Chen & Wang 2018, "Can we gain more from
    orthogonality regularizations in training deep CNNs?" (SRIP).

    >>> params = {"layer_0": {"W_hh": 2 * jnp.eye(3)}}
    >>> float(soft_orthogonality()(params)), round(float(soft_orthogonality(norm="spectral")(params)), 5)
    (27.0, 3.0)
    """
    check_choice(norm, "norm", ("frobenius", "spectral"))
    check_count(num_iterations, "num_iterations")

    def frobenius(W, state, exact):
        return jnp.sum(jnp.square(_gram_minus_identity(W))), state

    def spectral(W, v, exact):
        off = _gram_minus_identity(W)
        size, v = largest(off, v, num_iterations=num_iterations, exact=exact)
        return jnp.sum(size), v

    def start(shape, dtype):
        G, M, N = shape
        return start_vector((G, min(M, N), min(M, N)), dtype) if norm == "spectral" else ()

    return on_blocks(
        "soft_orthogonality",
        frobenius if norm == "frobenius" else spectral,
        paths=paths,
        recurrent=recurrent,
        start=start,
        norm=norm,
        num_iterations=num_iterations,
    )


@typed
def non_normal(paths: str | Sequence[str] = "W_hh", *, recurrent: str | None = "W_hh") -> Penalty:
    """‖WᵀW − WWᵀ‖_F², which is 0 for normal matrices alone; of a gated W_hh, of each square block.

    It leaves eigenvalues free, and with them the memory of W, and shrinks what feeds one mode into the next. In the
    Schur form W = Q (Λ + N) Qᴴ, N strictly upper triangular, that is N, and ‖N‖_F² = ‖W‖_F² − Σ |eigenvalue|² is
    Henrici's departure from normality (`rr.diagnostics.matrix_spectrum(W).henrici`²). It has no derivative where
    eigenvectors meet, such as at a Jordan block, and eigenvalues are no work for an accelerator. The commutator is a
    polynomial with the same zeros, and it bounds ‖N‖_F² on both sides:

        R / (6 ‖W‖_F²)  ≤  ‖N‖_F²  ≤  √((H³ − H) / 12) √R.

    Where W = Q (Λ + N) Qᴴ is a parametrisation, l2 of N is the penalty that Kerg et al. 2019 use (δ = 1e-4).

    Args:
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      recurrent: pattern of the leaves that are read as square blocks, one a gate; None takes every matrix as one.

    Returns:
      The penalty.

    Raises:
      ValueError: at `init` or in use, a pattern that matches no leaf, or a matrix that is not square.

    Source: Henrici 1962, "Bounds for iterates, inverses, spectral variation and fields of values of non-normal
    matrices" (upper bound); Elsner & Paardekooper 1987, "On measures of nonnormality of matrices" (lower bound).

    >>> params = {"layer_0": {"W_hh": jnp.array([[0.0, 2.0], [0.0, 0.0]])}}
    >>> float(non_normal()(params))
    32.0
    """

    def value_of(W, state, exact):
        Wt = jnp.swapaxes(W, -2, -1)
        return jnp.sum(jnp.square(times(Wt, W) - times(W, Wt))), state

    return on_blocks("non_normal", value_of, paths=paths, recurrent=recurrent, square=True)


def _gram_minus_identity(W: Array) -> Array:
    """WᵀW − I of every block, or WWᵀ − I if that is smaller."""
    high = W if W.shape[-2] >= W.shape[-1] else jnp.swapaxes(W, -2, -1)
    return times(jnp.swapaxes(high, -2, -1), high) - jnp.eye(high.shape[-1], dtype=W.dtype)[None]
