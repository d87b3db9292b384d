"""Penalties on singular values: the largest, all of them, and those outside a margin around 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, check_share
from rnnreg._linalg import each, safe_divide, safe_norm
from rnnreg._signatures import Number, typed
from rnnreg.penalties._base import Penalty
from rnnreg.penalties._blocks import Shape, on_blocks, times
from rnnreg.penalties._prox import shrink_singular_values


class Vectors(NamedTuple):
    """The singular vectors of the last decomposition.

    Attributes:
      age: updates since then; 0 asks for a new one.
      U: `[G, M, K]`, K = min(M, N).
      Vt: `[G, K, N]`.
    """

    age: Array
    U: Array
    Vt: Array


@typed
def spectral_norm(
    paths: str | Sequence[str] = "W_hh", *, num_iterations: int = 1, recurrent: str | None = "W_hh"
) -> Penalty:
    """Σ σ_max², the squared spectral norm of each matrix, without a ½; of a gated W_hh, of each square block.

    The square is smooth at W = 0, where σ_max itself has a kink. In an update σ_max = uᵀ W v comes from power
    iteration, which starts from the vector of the update before: one product with W and one with Wᵀ. It is a lower
    bound, close after some ten updates. In reports, and in `penalty(params)`, it is exact, from an SVD. The vectors are
    constants for autodiff: the gradient 2 σ_max u vᵀ is right, and second derivatives leave out how u and v turn.

    Args:
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      num_iterations: of the power iteration, in each update.
      recurrent: pattern of the leaves that are read as square blocks, one a gate; None takes every matrix as one.

    Returns:
      The penalty; it remembers v of every block.

    Raises:
      ValueError: `num_iterations` below 1; at `init` or in use, a pattern that matches no leaf, or a leaf that does
        not fit.

    Source: Yoshida & Miyato 2017, "Spectral norm regularization for improving the generalizability of deep learning",
    whose factor ½ is left out here; one warm-started iteration as in Miyato et al. 2018.

    >>> params = {"layer_0": {"W_hh": jnp.diag(jnp.array([3.0, 1.0]))}}
    >>> round(float(spectral_norm()(params)), 5)
    9.0
    """
    check_count(num_iterations, "num_iterations")

    def value_of(W, v, exact):
        sigma, v = largest(W, v, num_iterations=num_iterations, exact=exact)
        return jnp.sum(jnp.square(sigma)), v

    return on_blocks(
        "spectral_norm",
        value_of,
        paths=paths,
        recurrent=recurrent,
        start=start_vector,
        num_iterations=num_iterations,
    )


@typed
def nuclear(
    paths: str | Sequence[str] = "W_hh", *, every: int = 20, recurrent: str | None = "W_hh"
) -> Penalty:
    """‖W‖_* = Σ_i σ_i, the nuclear norm of each matrix; of a gated W_hh, of each square block. It makes W of low rank.

    It equals min ½ (‖A‖_F² + ‖B‖_F²) over W = A B. Gradient steps make singular values small and not zero: that
    takes the proximal step, U max(Σ − a, 0) Vᵀ, with an SVD in every update and one rate for the matrix (SGD). The
    gradient is U Vᵀ, with 0 for singular values that are 0.

    In an update Σ_i |u_iᵀ W v_i| is taken with the singular vectors of the last decomposition, which is made anew at
    every twentieth update: a lower bound, whose error is of second order in how far W has moved since. In reports, and
    in `penalty(params)`, it is exact. The vectors are constants for autodiff, so second derivatives leave out how they
    turn. (Under `vmap` each update pays for a decomposition.)

    Args:
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      every: updates from one decomposition to the next; 1 for an exact gradient.
      recurrent: pattern of the leaves that are read as square blocks, one a gate; None takes every matrix as one.

    Returns:
      The penalty; it remembers the singular vectors of every block.

    Raises:
      ValueError: `every` below 1; at `init` or in use, a pattern that matches no leaf, or a leaf that does not fit.

    Source: Fazel, Hindi & Boyd 2001, "A rank minimization heuristic with application to minimum order system
    approximation".

    >>> params = {"layer_0": {"W_hh": jnp.diag(jnp.array([3.0, -1.0]))}}
    >>> round(float(nuclear()(params)), 5)
    4.0
    """

    def function(sigma):
        # Rounding makes a zero ±1e-8, whose sign means nothing.
        most = jnp.max(jnp.abs(sigma), axis=-1, keepdims=True)
        least = float(jnp.finfo(sigma.dtype).eps) * sigma.shape[-1] * most
        sign = jnp.where(jnp.abs(sigma) > least, jnp.sign(sigma), 0)
        return sigma * jax.lax.stop_gradient(sign)

    options: dict[str, Any] = {"paths": paths, "every": every, "recurrent": recurrent}
    return _of_singular_values("nuclear", function, prox=shrink_singular_values, **options)


@typed
def singular_value_margin(
    margin: Number = 0.1,
    *,
    paths: str | Sequence[str] = "W_hh",
    every: int = 20,
    recurrent: str | None = "W_hh",
) -> Penalty:
    """Σ_i max(|σ_i − 1| − m, 0)², what the singular values leave the band [1 − m, 1 + m] by; m = `margin`.

    It holds gradients within (1 ± m)^T over T linear steps without making W orthogonal. With m = 0 it is the Gaussian
    prior with mean 1 on singular values of Vorontsov et al. 2017, ‖W − Q‖_F² to the nearest orthogonal Q; they keep a
    margin by a parametrisation instead, σ_i = 2m (logistic(p_i) − ½) + 1. Of a gated W_hh it is taken for each square
    block. Decompositions are made as those of `nuclear`, and the same holds of derivatives.

    At W = 0 every singular vector is right: the gradient is −2 (1 − m) U Vᵀ with those that LAPACK names, and W leaves
    0.

    Args:
      margin: m in [0, 1]. It may be traced if the run is made in the same trace; it is no name of `hyper`, and no axis
        of a sweep.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      every: updates from one decomposition to the next; 1 for an exact gradient.
      recurrent: pattern of the leaves that are read as square blocks, one a gate; None takes every matrix as one.

    Returns:
      The penalty; it remembers the singular vectors of every block.

    Raises:
      ValueError: a margin outside [0, 1], `every` below 1; at `init` or in use, a pattern that matches no leaf, or a
        leaf that does not fit.

    Source: Vorontsov, Trabelsi, Kadoury & Pal 2017, "On orthogonality and learning recurrent networks with long term
    dependencies".

    >>> params = {"layer_0": {"W_hh": jnp.diag(jnp.array([1.6, 0.95, 0.4]))}}
    >>> round(float(singular_value_margin(0.1)(params)), 5)  # 0.5² + 0 + 0.5²
    0.5
    """
    hint = "A singular value is never negative, so a margin above 1 has no lower end."
    check_share(margin, "margin", hint=hint)

    def function(sigma):
        off = sigma - 1
        return jnp.square(jnp.maximum(jnp.maximum(off, -off) - margin, 0))

    name = "singular_value_margin"
    penalty = _of_singular_values(name, function, paths=paths, every=every, recurrent=recurrent)
    return replace(penalty, arguments=(("margin", margin), *penalty.arguments))


def _of_singular_values(
    name: str, function: Callable[[Array], Array], *, every: int, **options: Any
) -> Penalty:
    """Σ_i f(σ_i) over the singular values of every block."""
    check_count(every, "every")

    def start(shape: Shape, dtype: Any) -> Vectors:
        G, M, N = shape
        K = min(M, N)
        return Vectors(jnp.int32(0), jnp.zeros((G, M, K), dtype), jnp.zeros((G, K, N), dtype))

    def value_of(W, kept, exact):
        constant = jax.lax.stop_gradient(W)
        if exact:
            (U, Vt), after = _decomposed(constant), kept
        else:
            U, Vt = jax.lax.cond(kept.age == 0, _decomposed, lambda _: kept[1:], constant)
            after = Vectors((kept.age + 1) % every, U, Vt)
        sigma = jnp.sum(U * times(W, jnp.swapaxes(Vt, -2, -1)), axis=-2)
        return jnp.sum(function(sigma)), after

    return on_blocks(name, value_of, start=start, **options, every=every)


def _decomposed(W: Array) -> tuple[Array, Array]:
    U, _, Vt = each(lambda block: jnp.linalg.svd(block, full_matrices=False), W)
    return U, Vt


def largest(W: Array, v: Array, *, num_iterations: int, exact: bool) -> tuple[Array, Array]:
    """σ_max of every block `[G, M, N]`, by power iteration from v `[G, N]` or exactly; and the v to go on from."""
    constant = jax.lax.stop_gradient(W)
    if exact:
        U, Vt = _decomposed(constant)
        some = jnp.any(constant != 0, axis=(-2, -1))[..., None]  # the derivative at 0 is 0
        u, now = jnp.where(some, U[..., 0], 0), Vt[..., 0, :]
    else:
        u, now = jnp.zeros(W.shape[:2], W.dtype), v
        for _ in range(num_iterations):
            u = _unit(times(constant, now[..., None])[..., 0])
            again = _unit(times(u[..., None, :], constant)[..., 0, :])
            now = jnp.where(jnp.any(again != 0, axis=-1, keepdims=True), again, now)  # if W = 0
    sigma = times(times(u[..., None, :], W), now[..., None])[..., 0, 0]
    return sigma, v if exact else now


def start_vector(shape: Shape, dtype: Any) -> Array:
    """A fixed unit vector `[G, N]` that is orthogonal to nothing likely."""
    v = jnp.sin(1 + jnp.arange(shape[2], dtype=dtype))
    return jnp.broadcast_to(_unit(v), (shape[0], shape[2]))


def _unit(vectors: Array) -> Array:
    return safe_divide(vectors, safe_norm(vectors)[..., None])
