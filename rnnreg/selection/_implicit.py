"""The derivative of a trained optimum in λ, by one symmetric linear system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import eigh_tridiagonal

from rnnreg._linalg import lanczos, safe_divide, safe_norm
from rnnreg.data import Split, scale_batch
from rnnreg.objective import make_objective
from rnnreg.selection._slopes import value_and_slopes
from rnnreg.training import Hyper, Settings, TrainState, averaged, monitored, network_of


class Solution(NamedTuple):
    """The solution of a symmetric system, and how good it is.

    Attributes:
      x: `[P]`, where ‖(H + δ I) x − b‖ is least in the Krylov space.
      residual: ‖(H + δ I) x − b‖ / ‖b‖.
      curvature: the smallest Ritz value of H.
    """

    x: Array
    residual: Array
    curvature: Array


def implicit_slopes(
    settings: Settings,
    state: TrainState,
    hyper: Hyper,
    data: Split,
    names: Sequence[str],
    *,
    log: bool,
    damping: Any,
    num_iterations: int | None,
    key: Array,
) -> tuple[Array, dict[str, Array], Any, dict[str, Array]]:
    """The validation score, its slopes at a stationary point, the parameters there, and how far all that holds."""
    net = network_of(settings, hyper)
    if getattr(net.apply, "random", False):
        raise ValueError(
            "mode='implicit' needs an objective that is the same at every update, and this network draws random "
            "numbers in training (dropout, noise). Take mode='forward'."
        )
    batch = scale_batch(data.train, data.scaling)
    trained = averaged(state)
    flat, unravel = ravel_pytree(trained)
    given, hyper = hyper, Hyper(dict(hyper.items()))  # to see what objective and score read

    def objective(flat, hyper):
        total = make_objective(network_of(settings, hyper), settings.loss, settings.penalties)
        arguments = (unravel(flat), hyper, batch, state.penalty_state)
        return total(*arguments, key=None, train=True)[0]

    def score(flat, hyper):
        return monitored(settings, unravel(flat), hyper, data)

    def product(v):
        return jax.jvp(lambda w: jax.grad(objective)(w, hyper), (flat,), (v,))[1]

    slope, params = jax.grad(score, has_aux=True)(flat, hyper)
    size = min(100, flat.size) if num_iterations is None else min(num_iterations, flat.size)
    found = minres(product, slope, size, damping=damping, key=key)

    def lagrangian(hyper):
        value = score(flat, hyper)[0]
        along = jax.jvp(lambda w: objective(w, hyper), (flat,), (found.x,))[1]
        return value - along, value

    _, slopes, value = value_and_slopes(lagrangian, hyper, names, log=log, forward=False)
    still = [name for name in names if name not in hyper.reads]
    given.reads |= hyper.reads
    if still:
        raise ValueError(
            f"{still[0]!r} is in neither the objective nor the score, so the point where training comes to rest does "
            "not depend on it: leave it out of names=…, or take mode='forward', the derivative of the run itself."
        )
    gradient = jax.grad(objective)(flat, hyper)
    found_out = {
        "residual": found.residual,
        "curvature": found.curvature,
        "gradient_norm": safe_norm(gradient),
        "drift": -found.x @ gradient,
    }
    return value, slopes, params, found_out


def minres(
    product: Callable[[Array], Array],
    b: Array,
    num_iterations: int,
    *,
    damping: Any = 0.0,
    key: Array,
) -> Solution:
    """x with the least ‖(H + δ I) x − b‖ in the Krylov space of b, for a symmetric H that may be indefinite.

    MINRES (Paige & Saunders 1975): Lanczos makes H tridiagonal, Givens rotations make that triangular. The rows of
    Lanczos are kept, which costs m vectors of the size of b; so they stay orthogonal, and the triangular system is
    solved backwards.

    >>> scales = jnp.array([1.0, 5.0, -2.0])
    >>> found = minres(lambda v: scales * v, jnp.array([1.0, 5.0, 4.0]), 3, key=jax.random.key(0))
    >>> found.x.round(3).tolist(), round(float(found.curvature), 3), bool(found.residual < 1e-5)
    ([1.0, 1.0, -2.0], -2.0, True)
    """
    length = safe_norm(b)
    start = safe_divide(b, length)
    basis, diagonal, beside = lanczos(product, start, num_iterations, key=key)
    smallest = eigh_tridiagonal(
        diagonal, beside[:-1], eigvals_only=True, select="i", select_range=(0, 0)
    )[0]
    x = _least_squares(diagonal + damping, beside, length) @ basis
    left = product(x) + damping * x - b
    return Solution(x, safe_divide(safe_norm(left), length), smallest)


def _least_squares(diagonal: Array, beside: Array, length: Array) -> Array:
    """y with the least ‖T y − length · e₁‖, where T `[m + 1, m]` is tridiagonal and symmetric in its first m rows."""
    tiny = 10 * jnp.finfo(diagonal.dtype).eps * jnp.max(jnp.abs(diagonal) + beside)
    one, zero = jnp.ones_like(length), jnp.zeros_like(length)

    def rotate(carry, column):
        (c, s), (c_before, s_before), rest = carry
        above, along, below = column
        two_above, above = s_before * above, c_before * above
        above, along = c * above + s * along, c * along - s * above
        pivot = jnp.hypot(along, below)
        usable = pivot > tiny
        scale = jnp.where(usable, pivot, 1)
        c_new, s_new = jnp.where(usable, along / scale, 1), jnp.where(usable, below / scale, 0)
        row = (jnp.where(usable, 1 / scale, 0), above, two_above, c_new * rest)
        return ((c_new, s_new), (c, s), -s_new * rest), row

    columns = (jnp.concatenate([zero[None], beside[:-1]]), diagonal, beside)
    start = ((one, zero), (one, zero), length)
    _, (inverse, first, second, right) = jax.lax.scan(rotate, start, columns)

    def substitute(carry, row):  # R has the pivots, and two diagonals above them
        after, two_after = carry
        inverse, first, second, right = row
        y = (right - first * after - second * two_after) * inverse
        return (y, after), y

    first, second = (
        jnp.append(first[1:], zero),
        jnp.concatenate([second[2:], jnp.zeros(2)])[: len(right)],
    )
    rows = (inverse, first, second.astype(right.dtype), right)
    return jax.lax.scan(substitute, (zero, zero), rows, reverse=True)[1]
