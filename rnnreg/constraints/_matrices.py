"""Constraints on the singular values of a matrix, or of each of its gate blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._linalg import clip_singular_values, each, safe_divide, safe_norm
from rnnreg._signatures import Number, typed
from rnnreg.constraints._base import Paths, check_radius, constraint
from rnnreg.penalties import block_shape

if TYPE_CHECKING:
    import optax

# σ ← a σ + b σ³ + c σ⁵. The first (Jordan et al. 2024, Muon) multiplies small σ by 3.4 and leaves them between 0.7 and
# 1.2; the second (Newton–Schulz) converges from there with order 3. Eight and five bring every σ above 1e-4 ‖W‖_F to 1.
_GROWS, _CONVERGES = (3.4445, -4.7750, 2.0315), (15 / 8, -10 / 8, 3 / 8)
_COEFFICIENTS = (_GROWS,) * 8 + (_CONVERGES,) * 5


@typed
def spectral_ball(
    radius: Number, *, paths: Paths = "W_hh", recurrent: str | None = "W_hh"
) -> optax.GradientTransformation:
    """σ_max ≤ r of each gate block: singular values above r become r, the others stay.

    The nearest such matrix in Frobenius norm. An Elman network of tanh units with r < 1 contracts at every step, so it
    forgets (Miller & Hardt 2019 train with this constraint, and call such a network stable). Its
    derivative is finite where singular values repeat.

    It costs one eigendecomposition of each block an update: on a CPU about a quarter of a training step of 64 tanh
    units on 32 rows of 100 steps, a tenth of a GRU's.

    Args:
      radius: r above 0; may be traced.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      recurrent: pattern of the leaves whose square blocks, one a gate of `[H, G·H]`, are constrained each by itself;
        None takes every matrix as one.

    Returns:
      An optax transformation, for the end of a chain; see `project`.

    Raises:
      ValueError: a radius that is not above 0; at `init`, a pattern that matches no leaf, no matrix, or a recurrent
        matrix that is no row of square blocks.

    Source: Miller & Hardt 2019; Kanai, Fujiwara & Iwamura 2017 (of a GRU).

    >>> import optax
    >>> ball, params = spectral_ball(1.0), {"W_hh": jnp.array([[2.0, 0.0], [0.0, 0.5]])}
    >>> updates, _ = ball.update(jax.tree.map(jnp.zeros_like, params), ball.init(params), params)
    >>> optax.apply_updates(params, updates)["W_hh"].round(4).tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """
    check_radius(radius)

    def onto(W):
        return clip_singular_values(W, jnp.asarray(radius, W.dtype))

    return _of_blocks(onto, "spectral_ball", paths, recurrent)


@typed
def orthogonal(
    gain: Number = 1.0, *, paths: Paths = "W_hh", recurrent: str | None = "W_hh"
) -> optax.GradientTransformation:
    """W ← gain · polar(W + update), the nearest matrix whose singular values are all equal: WᵀW = gain² I.

    The polar factor W(WᵀW)^(−1/2) is a retraction onto the orthogonal matrices: the part of an update that leaves them
    is undone. It is found by 13 Newton–Schulz iterations of three products each, with a finite derivative; they cost
    somewhat more than `spectral_ball`. Singular values below 1e-4 ‖W‖_F do not reach 1 in one update, and W = 0 stays
    0. Rows are orthonormal in a wide matrix, columns in a tall one.

    After `optax.contrib.muon(rate)` it is Muon on the orthogonal matrices; `cells.orthogonal` starts there.

    Args:
      gain: the common singular value, above 0; may be traced.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      recurrent: pattern of the leaves whose square blocks, one a gate of `[H, G·H]`, are constrained each by itself;
        None takes every matrix as one.

    Returns:
      An optax transformation, for the end of a chain; see `project`.

    Raises:
      ValueError: a gain that is not above 0; at `init`, a pattern that matches no leaf, no matrix, or a recurrent
        matrix that is no row of square blocks.

    Source: Absil, Mahony & Sepulchre 2008, section 4.1 (retractions); Higham 2008, chapter 8 (the iteration).

    >>> import optax
    >>> retract, params = orthogonal(), {"W_hh": jnp.array([[0.0, -3.0], [0.5, 0.0]])}
    >>> updates, _ = retract.update(jax.tree.map(jnp.zeros_like, params), retract.init(params), params)
    >>> optax.apply_updates(params, updates)["W_hh"].round(4).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    check_radius(gain, "gain")

    def onto(W):
        return jnp.asarray(gain, W.dtype) * _polar(W)

    return _of_blocks(onto, "orthogonal", paths, recurrent)


def _of_blocks(
    function: Callable[[Array], Array], name: str, paths: Paths, recurrent: str | None
) -> optax.GradientTransformation:
    """The constraint that maps each block by itself."""

    def start(path, leaf):
        block_shape(name, path, leaf.shape, recurrent)  # raises if the leaf does not fit
        return ()

    def onto(path, W, _):
        count, axis = block_shape(name, path, W.shape, recurrent)[0], int(W.shape[1] > W.shape[0])
        blocks = jnp.stack(jnp.split(W, count, axis=axis))
        return jnp.concatenate(list(each(function, blocks)), axis=axis)

    return constraint(onto, paths, matrices=name, start=start)


def _polar(W: Array) -> Array:
    """The orthogonal polar factor U Vᵀ of W = U Σ Vᵀ."""
    if W.shape[0] > W.shape[1]:
        return _polar(W.T).T

    def iterate(X, coefficients):
        a, b, c = coefficients
        gram = X @ X.T
        return a * X + (b * gram + c * (gram @ gram)) @ X, None

    start = safe_divide(W, safe_norm(jnp.ravel(W)))
    return jax.lax.scan(iterate, start, jnp.asarray(_COEFFICIENTS, W.dtype))[0]
