"""Orthogonal matrices from skew ones, and matrices whose singular values stay within a margin of 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice, check_share
from rnnreg._linalg import each
from rnnreg._signatures import Number, typed
from rnnreg.cells import Cell, made_by
from rnnreg.parametrizations._base import Parametrization, with_map

_SQUARINGS = 10  # of expm: up to ‖A‖₁ near 4,000; beyond that the matrix is NaN, and a run says that it diverged
_ROOTS = 4  # a rotation by θ ≤ π is then one by π/16, and the series of its logarithm has 8 terms


@typed
def orthogonal(cell: Cell, *, method: str = "expm", start: str = "nearest") -> Cell:
    """W_hh = exp(A) or W_hh = (I − A/2)⁻¹(I + A/2), A = S − Sᵀ from the lower triangle of the trained S.

    Each gate block is a rotation (orthogonal, determinant 1) for any S, to rounding: all its singular values are 1,
    so that a linear network keeps the norm of every gradient. Both maps have the derivative dW = dA at A = 0.
    `expm` reaches every rotation; `cayley`, one linear solve and the cheaper of the two, all without the eigenvalue −1.

    In the parameters `W_hh` is `{"skew": S [G, H, H]}`. Penalties see W_hh, not S: ‖W_hh‖² is H whatever S is, so an L2
    penalty has no gradient here (`make_train` warns). A decay inside the optimiser (AdamW) shrinks S, and so pulls
    W_hh to the identity. Its authors train S at a tenth of the learning rate of the other parameters.

    Args:
      cell: any cell that states its recurrent matrices.
      method: "expm" or "cayley".
      start: "nearest" starts at the rotation nearest to the W_hh that the cell draws, at W_hh itself if it is one (of a
        reflection one direction is turned round; a plane that turns by exactly π is at rest).
        "henaff" starts at planes that turn by angles θ ~ U(−π, π), as expRNN does.

    Returns:
      The cell.

    Raises:
      ValueError: another method or start, or a cell without recurrent matrices of square blocks.

    Source: Lezcano-Casado & Martínez-Rubio 2019, "Cheap orthogonal constraints in neural networks" (expm); Helfrich,
    Willmott & Ye 2018, "Orthogonal recurrent neural networks with scaled Cayley transform"; Henaff, Szlam & LeCun 2016
    (the start). PyTorch's `parametrizations.orthogonal` is the same map times a fixed base.

    >>> import rnnreg as rr
    >>> cell = orthogonal(rr.cells.elman(4))
    >>> W = cell.effective(cell.init(jax.random.key(0), 1))["W_hh"]
    >>> bool(jnp.allclose(W @ W.T, jnp.eye(4), atol=1e-5))
    True
    """
    check_choice(method, "method", MAPS)
    check_choice(start, "start", ("nearest", "henaff"))
    own = MAPS[method]

    def begin(key, W):
        if start == "nearest":
            return {"skew": jnp.tril(own.inverse(_rotation(W)), -1)}
        return {"skew": _turning(own, key, W)}

    def form(leaves):
        return own.matrix(_skew(leaves["skew"]))

    found = with_map(cell, Parametrization("orthogonal", begin, form, isometric=True))
    return made_by("orthogonal", found, cell=cell, method=method, start=start)


@typed
def singular_margin(cell: Cell, margin: Number, *, method: str = "expm") -> Cell:
    """W_hh = U diag(s) Vᵀ with s = 1 + 2m(σ(p) − ½), so that every singular value lies within m of 1.

    U and V are rotations from trained skew matrices, as in `orthogonal`. m = 0 keeps W_hh orthogonal; how far singular
    values use their room is read from `rr.diagnostics.spectra`.

    In the parameters `W_hh` is `{"left", "right": [G, H, H], "place": p [G, H]}`. Penalties see W_hh.

    Args:
      cell: any cell that states its recurrent matrices.
      margin: m in [0, 1]; may be traced, so that it can be an axis of a sweep.
      method: "expm" or "cayley", for U and V.

    Returns:
      The cell. It starts at the W_hh that the cell draws, its singular values brought inside the margin. At m = 0 they
      have no place to start from, and p = 0.

    Raises:
      ValueError: a margin outside [0, 1], another method, or a cell without recurrent matrices of square blocks.

    Source: Vorontsov, Trabelsi, Kadoury & Pal 2017, "On orthogonality and learning recurrent networks with long term
    dependencies", equation 6; Zhang, Lei & Dhillon 2018.

    >>> import rnnreg as rr
    >>> cell = singular_margin(rr.cells.elman(4, recurrent_init="gaussian"), 0.1)
    >>> W = cell.effective(cell.init(jax.random.key(0), 1))["W_hh"]
    >>> s = jnp.linalg.svd(W, compute_uv=False)
    >>> bool((s > 0.9 - 1e-5).all()), bool((s < 1.1 + 1e-5).all())
    (True, True)
    """
    check_share(margin, "margin", hint="Singular values lie in 1 − margin … 1 + margin.")
    check_choice(method, "method", MAPS)
    own = MAPS[method]

    def begin(key, W):
        del key
        U, s, Vh = jnp.linalg.svd(W)
        # u_i and v_i may change their sign together; V has then no eigenvalue −1 if it is a matrix of signs
        signs = jnp.where(jnp.diagonal(Vh) < 0, -1, 1).astype(W.dtype)[None]
        m = jnp.asarray(margin, W.dtype)
        room = jnp.where(m > 0, 2 * m, 1)
        # a singular value at the edge would have an infinite p; 1 % of the room is kept free
        place = jnp.where(m > 0, jnp.clip((s - 1) / room, -0.49, 0.49), 0)
        skew = each(lambda Q: own.inverse(_proper(Q * signs)), jnp.stack([U, Vh.T]))
        left, right = jnp.tril(skew, -1)
        return {"left": left, "right": right, "place": jnp.log((0.5 + place) / (0.5 - place))}

    def form(leaves):
        U, V = each(lambda S: own.matrix(_skew(S)), jnp.stack([leaves["left"], leaves["right"]]))
        p = leaves["place"]
        s = 1 + 2 * jnp.asarray(margin, p.dtype) * (jax.nn.sigmoid(p) - 0.5)
        return U * s[None] @ V.T

    found = with_map(cell, Parametrization("singular_margin", begin, form))
    return made_by("singular_margin", found, cell=cell, margin=margin, method=method)


# ---- rotations and skew matrices, `[H, H]` ----------------------------------------------------------


def _skew(S: Array) -> Array:
    lower = jnp.tril(S, -1)
    return lower - lower.T


def _exponential(A: Array) -> Array:
    return jax.scipy.linalg.expm(A, max_squarings=_SQUARINGS)


def _logarithm(Q: Array) -> Array:
    """The skew A with exp(A) = Q, angles in (−π, π), of a rotation; a plane that turns by π becomes one at rest.

    The orthogonal factor of I + Q is the square root of Q. After a few roots, log Q = 2 artanh((Q − I)(Q + I)⁻¹).
    """
    one = jnp.eye(len(Q), dtype=Q.dtype)
    for _ in range(_ROOTS):
        Q = _rotation(one + Q)
    X = _tangents(Q)
    square = X @ X
    total = one / 15
    for odd in range(13, 0, -2):
        total = one / odd + square @ total
    A = 2.0 ** (_ROOTS + 1) * (X @ total)
    return (A - A.T) / 2


def _cayley(A: Array) -> Array:
    one = jnp.eye(len(A), dtype=A.dtype)
    return jnp.linalg.solve(one - A / 2, one + A / 2)


def _cayley_inverse(Q: Array) -> Array:
    """The skew A of a rotation; a plane that turns by π becomes one at rest."""
    return 2 * _tangents(Q)


def _tangents(Q: Array) -> Array:
    """(Q − I)(Q + I)⁻¹, with the eigenvalues i tan(θ/2), from the positive definite 2I + Q + Qᵀ."""
    one = jnp.eye(len(Q), dtype=Q.dtype)
    rounding = 4 * jnp.finfo(Q.dtype).eps
    X = jnp.linalg.solve((2 + rounding) * one + Q + Q.T, Q - Q.T)
    return (X - X.T) / 2


def _rotation(W: Array) -> Array:
    """The rotation nearest to W in the Frobenius norm."""
    U, _, Vh = jnp.linalg.svd(W)
    return U.at[:, -1].multiply(jnp.linalg.det(U) * jnp.linalg.det(Vh)) @ Vh


def _proper(Q: Array) -> Array:
    """An orthogonal matrix, its last column turned round if its determinant is −1."""
    return Q.at[:, -1].multiply(jnp.linalg.det(Q))


def _turning(own: Map, key: Array, W: Array) -> Array:
    """The lower triangle of A for planes (0, 1), (2, 3), … that turn by θ ~ U(−π, π); an odd unit stays."""
    planes = len(W) // 2
    angles = jax.random.uniform(key, (planes,), W.dtype, -jnp.pi, jnp.pi)
    places = 2 * jnp.arange(planes)
    return jnp.zeros_like(W).at[places + 1, places].set(own.of_angle(angles))


class Map(NamedTuple):
    """A map from skew matrices onto rotations.

    Attributes:
      matrix: from A to Q.
      inverse: from Q to A.
      of_angle: the entry of a 2 × 2 block of A that makes it turn by an angle.
    """

    matrix: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    of_angle: Callable[[Array], Array]


MAPS = {
    "expm": Map(_exponential, _logarithm, lambda angle: angle),
    "cayley": Map(_cayley, _cayley_inverse, lambda angle: 2 * jnp.tan(angle / 2)),
}
