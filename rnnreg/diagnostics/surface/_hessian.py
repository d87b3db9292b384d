"""The directions in which a loss curves most, by Lanczos on Hessian–vector products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice, check_count, check_key
from rnnreg._linalg import lanczos, safe_norm, scale_of
from rnnreg._signatures import typed
from rnnreg.diagnostics.surface._loss_surface import check_loss_of, flat_params

Params = Any


class HessianDirections(NamedTuple):
    """Leading eigenpairs of the Hessian of a loss, by Lanczos.

    Attributes:
      eigenvalues: `[k]`, in the order that was asked for.
      directions: a tree like params with a leading axis k, each of norm 1.
      residuals: `[k]`, ‖H d − θ d‖: some eigenvalue of H lies within this of θ.
      ritz_values: `[m]`, all estimates after m products, rising; the outer ones converge first.
      diagonal: `[m]`, of the tridiagonal matrix that H became.
      off_diagonal: `[m − 1]`, beside it; an (almost) zero entry is an invariant subspace that was found.
    """

    eigenvalues: Array
    directions: Any
    residuals: Array
    ritz_values: Array
    diagonal: Array
    off_diagonal: Array


@typed
def hessian_directions(
    loss_of: Callable[[Params], Array],
    params: Any,
    *,
    key: Array,
    num_directions: int = 2,
    num_iterations: int | None = None,
    which: str = "largest",
) -> HessianDirections:
    """The directions in which the loss curves most, by Lanczos on Hessian–vector products.

    Each product costs about two gradients and no Hessian is formed; every new vector is orthogonalised twice
    against all before it, so no eigenvalue shows up twice. `num_iterations` vectors of the size of params are kept.

    How to read it: curvature d ᵀ H d = θ along each; a plain gradient step is stable along it while its rate is
    below 2/θ. A residual that is not small beside the gap to the next eigenvalue says that the pair has not
    converged: iterate more. The smallest ones show whether a point is a saddle. Of a repeated eigenvalue Lanczos
    finds one direction.

    Args:
      loss_of: `loss_of(params) -> scalar`, twice differentiable.
      params: where.
      key: for the vector to start from.
      num_directions: k.
      num_iterations: m, the number of products, at most the number of parameters; None is 40, or all of them where
        there are fewer.
      which: "largest", "smallest" or "magnitude".

    Returns:
      The pairs of eigenvalue and direction, with their residuals and the tridiagonal matrix behind them.

    Raises:
      ValueError: m beyond the number of parameters, k beyond m, numbers that are not whole, parameters that are not
        real, or an unknown `which`.

    Source: Lanczos 1950; Golub & Van Loan, Matrix Computations (full reorthogonalisation).

    >>> scales = jnp.array([1.0, 5.0, -2.0])
    >>> found = hessian_directions(lambda w: 0.5 * jnp.sum(scales * w**2), jnp.zeros(3),
    ...     key=jax.random.key(0), num_directions=2, num_iterations=3)
    >>> found.eigenvalues.round(3).tolist(), jnp.abs(found.directions[0]).round(3).tolist()
    ([5.0, 1.0], [0.0, 1.0, 0.0])
    """
    check_key(key)
    centre, unravel = flat_params(params)
    check_loss_of(loss_of, params)
    size = centre.size
    if num_iterations is None:
        num_iterations = min(40, size)
    check_count(num_iterations, "num_iterations", most=size, hint="There are no more parameters.")
    hint = f"There are num_iterations={num_iterations} products."
    check_count(num_directions, "num_directions", most=num_iterations, hint=hint)
    orders = {
        "largest": lambda values: -values,
        "smallest": lambda values: values,
        "magnitude": lambda values: -jnp.abs(values),
    }
    check_choice(which, "which", orders)

    def flat_loss(flat):
        return loss_of(unravel(flat))

    def product(vector):
        return jax.jvp(jax.grad(flat_loss), (centre,), (vector,))[1]

    key_start, key_fresh = jax.random.split(key)
    start = jax.random.normal(key_start, (size,), centre.dtype)
    start = start / jnp.linalg.norm(start)
    basis, diagonal, off_diagonal = lanczos(product, start, num_iterations, key=key_fresh)
    off_diagonal = off_diagonal[:-1]
    tridiagonal = jnp.diag(diagonal) + jnp.diag(off_diagonal, 1) + jnp.diag(off_diagonal, -1)
    scale = scale_of(jnp.max(jnp.abs(tridiagonal)))
    ritz_values, vectors = jnp.linalg.eigh(tridiagonal / scale)
    ritz_values = scale * ritz_values
    chosen = jnp.argsort(orders[which](ritz_values))[:num_directions]
    directions = vectors[:, chosen].T @ basis
    eigenvalues = ritz_values[chosen]
    errors = jax.lax.map(product, directions) - eigenvalues[:, None] * directions
    return HessianDirections(
        eigenvalues,
        jax.vmap(unravel)(directions),
        safe_norm(errors),
        ritz_values,
        diagonal,
        off_diagonal,
    )
