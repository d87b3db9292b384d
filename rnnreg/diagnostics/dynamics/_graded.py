"""Long products of matrices as a frame, logarithmic scales and rows; and the singular values of such a product.

A product P of many Jacobians has singular values that lie hundreds of orders of magnitude apart. It is carried as
P = Q diag(e^ℓ) Y, Q orthonormal columns, Y rows of length 1, ℓ from large to small, so that no entry under- or
overflows and small singular values are not drowned by large ones. One product with R (upper triangular) is

    R diag(e^ℓ) Y = diag(e^ℓ) [r_ij e^{ℓ_j − ℓ_i}] Y,

whose exponents ℓ_j − ℓ_i ≤ 0 above the diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._linalg import safe_divide, safe_norm
from rnnreg.diagnostics.dynamics._frames import orthonormalised

_SWEEPS = 15  # a preconditioned Jacobi iteration needs 2 to 6


class Graded(NamedTuple):
    """diag(e^ℓ) Y, and how far rounding may have moved each ℓ.

    Attributes:
      logs: `[n]`, ℓ; −inf for a direction that was lost.
      rows: `[n, n]`, Y, rows of length 1.
      doubt: `[n]`, nats.
    """

    logs: Array
    rows: Array
    doubt: Array


def identity(size: int, dtype) -> Graded:
    """The product of no matrices."""
    return Graded(jnp.zeros(size, dtype), jnp.eye(size, dtype=dtype), jnp.zeros(size, dtype))


def sort(graded: Graded) -> tuple[Graded, Array]:
    """Scales from large to small, and the order that the columns of the frame have to take too."""
    order = jnp.argsort(-graded.logs)
    return Graded(*(values[order] for values in graded)), order


def multiply(R: Array, doubt: Array, graded: Graded) -> Graded:
    """R diag(e^ℓ) Y for an upper triangular R `[n, n]` and sorted ℓ; `doubt [n]` is that of ln |r_ii|."""
    logs, rows, before = graded
    lost = (doubt >= 1) | (logs == -jnp.inf)
    safe = jnp.where(lost, 0, logs)
    apart = jnp.where(lost[None, :], -jnp.inf, safe[None, :] - safe[:, None])
    mixed = jnp.triu(R) * jnp.exp(jnp.minimum(apart, 0))
    new, norms = _normalised(mixed @ rows)
    new = jnp.where(lost[:, None], rows, new)
    return Graded(jnp.where(lost, -jnp.inf, safe + jnp.log(norms)), new, before + doubt)


def log_singular_values(graded: Graded) -> tuple[Array, Array]:
    """ln σ `[n]` from large to small (−inf where lost), and the doubt of each in nats.

    Two QRs of the transpose bring the product close to diagonal; one-sided Jacobi rotations of the rows, with the
    scales kept as logarithms, do the rest.
    """
    for _ in range(2):
        _, R, doubt = orthonormalised(graded.rows.T)
        logs, size = graded.logs, len(graded.logs)
        product = multiply(R, doubt, Graded(logs, jnp.eye(size, dtype=logs.dtype), graded.doubt))
        graded, _ = sort(product)
    logs, converged = _rotate(graded)
    doubt = jax.lax.cummax(graded.doubt)  # a smaller one is never surer than a larger one
    return logs, jnp.where(converged, doubt, jnp.inf)


def _normalised(rows: Array) -> tuple[Array, Array]:
    """Rows of length 1, and the lengths that they had."""
    norms = safe_norm(rows)
    return safe_divide(rows, norms[..., None]), norms


def _rotate(graded: Graded) -> tuple[Array, Array]:
    """ln of the lengths of the rows once they are orthogonal, sorted, and whether they came to be."""
    logs, rows, _ = graded
    size, dtype = len(logs), logs.dtype
    if size % 2:
        logs = jnp.concatenate([logs, jnp.full(1, -jnp.inf, dtype)])
        rows = jnp.concatenate([rows, jnp.zeros((1, size), dtype)])
    enough = jnp.sqrt(jnp.asarray(jnp.finfo(dtype).eps, dtype))  # rotating leaves its square

    def turn(carry, pairs):
        logs, rows, largest = carry
        first, second = pairs
        swap = logs[first] < logs[second]
        i, j = jnp.where(swap, second, first), jnp.where(swap, first, second)
        (upper, lower), overlap = _rotated(logs[i], rows[i], logs[j], rows[j])
        logs = logs.at[i].set(upper[0]).at[j].set(lower[0])
        rows = rows.at[i].set(upper[1]).at[j].set(lower[1])
        return (logs, rows, jnp.maximum(largest, jnp.max(overlap, initial=0))), None

    def sweep(carry):
        logs, rows, _, count = carry
        turned, _ = jax.lax.scan(turn, (logs, rows, jnp.zeros((), dtype)), _tournament(len(logs)))
        return (*turned, count + 1)

    def unfinished(carry):
        return (carry[2] > enough) & (carry[3] < _SWEEPS)

    start = sweep((logs, rows, jnp.zeros((), dtype), 0))
    logs, _, largest, _ = jax.lax.while_loop(unfinished, sweep, start)
    return -jnp.sort(-logs)[:size], largest <= enough


def _rotated(log_i: Array, y_i: Array, log_j: Array, y_j: Array):
    """Pairs of rows e^{ℓ_i} y_i and e^{ℓ_j} y_j, ℓ_i ≥ ℓ_j, turned until they are orthogonal; and |cos| before.

    With e = e^{ℓ_j − ℓ_i} and c = y_i · y_j the tangent of the angle is e τ, and no power of e is divided by:
    y_i ← cos (y_i − τ e² y_j), y_j ← cos (y_j + τ y_i).
    """
    live = log_j > -jnp.inf
    ratio = jnp.where(live, jnp.exp(jnp.where(live, log_j - log_i, 0)), 0)
    overlap = jnp.where(live, jnp.sum(y_i * y_j, axis=-1), 0)
    gap = (1 - ratio) * (1 + ratio)
    below = gap + jnp.sqrt(gap * gap + 4 * jnp.square(ratio * overlap))
    tau = safe_divide(-2 * overlap, below)
    cosine = jax.lax.rsqrt(1 + jnp.square(ratio * tau))[:, None]
    tau, square = tau[:, None], jnp.square(ratio)[:, None]
    upper, upper_norm = _normalised(cosine * (y_i - tau * square * y_j))
    lower, lower_norm = _normalised(cosine * (y_j + tau * y_i))
    upper_norm = jnp.where(live, upper_norm, 1)
    lower_log = jnp.where(live, log_j + jnp.log(lower_norm), -jnp.inf)
    upper_log = jnp.where(log_i > -jnp.inf, log_i + jnp.log(upper_norm), -jnp.inf)
    return ((upper_log, upper), (lower_log, lower)), jnp.abs(overlap)


def _tournament(size: int) -> tuple[Array, Array]:
    """Rounds `[n−1, n/2]` of disjoint pairs in which everybody meets everybody once (n even)."""
    players = np.arange(size)
    rounds = []
    for _ in range(size - 1):
        rounds.append((players[: size // 2], players[size // 2 :][::-1]))
        players = np.concatenate([players[:1], players[-1:], players[1:-1]])
    first, second = (np.stack(side) for side in zip(*rounds, strict=True))
    return jnp.asarray(first, jnp.int32), jnp.asarray(second, jnp.int32)
