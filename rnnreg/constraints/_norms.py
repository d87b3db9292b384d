"""Balls and spheres of norms of all entries, and the norm of what enters a unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rnnreg._linalg import safe_divide, safe_norm
from rnnreg._signatures import Number, typed
from rnnreg.constraints._base import Paths, check_radius, constraint, project

if TYPE_CHECKING:
    import optax


@typed
def l1_ball(
    radius: Number, *, paths: Paths = "*", include_biases: bool = False
) -> optax.GradientTransformation:
    """Σ_i |w_i| ≤ r of each covered leaf; entries below a common threshold become exact zeros.

    The nearest point is a soft threshold whose amount depends on W: sign(w) max(|w| − t, 0), with t such that the norm
    is r (Duchi et al. 2008; one sort an update).

    Args:
      radius: r above 0; may be traced.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      include_biases: cover leaves that are no matrices too.

    Returns:
      An optax transformation, for the end of a chain; see `project`.

    Raises:
      ValueError: a radius that is not above 0; at `init`, a pattern that matches no leaf.

    >>> import optax
    >>> ball, params = l1_ball(2.0), {"W_hy": jnp.array([[3.0, -2.0, 0.5]])}
    >>> updates, _ = ball.update(jax.tree.map(jnp.zeros_like, params), ball.init(params), params)
    >>> optax.apply_updates(params, updates)["W_hy"].tolist()
    [[1.5, -0.5, 0.0]]
    """
    import optax

    check_radius(radius)
    return project(
        lambda W: optax.projections.projection_l1_ball(W, jnp.asarray(radius, W.dtype)),
        paths=paths,
        include_biases=include_biases,
    )


@typed
def l2_ball(
    radius: Number, *, paths: Paths = "*", include_biases: bool = False
) -> optax.GradientTransformation:
    """‖W‖_F ≤ r of each covered leaf: W ← W min(1, r/‖W‖_F).

    With the radius of the solution at some λ it has the same stationary points as λ‖W‖²; unlike the penalty it does
    nothing inside of the ball.

    Args:
      radius: r above 0; may be traced.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      include_biases: cover leaves that are no matrices too.

    Returns:
      An optax transformation, for the end of a chain; see `project`.

    Raises:
      ValueError: a radius that is not above 0; at `init`, a pattern that matches no leaf.

    >>> import optax
    >>> ball, params = l2_ball(2.5), {"W_hh": jnp.array([[3.0, -4.0]])}
    >>> updates, _ = ball.update(jax.tree.map(jnp.zeros_like, params), ball.init(params), params)
    >>> optax.apply_updates(params, updates)["W_hh"].tolist()
    [[1.5, -2.0]]
    """
    import optax

    check_radius(radius)
    return project(
        lambda W: optax.projections.projection_l2_ball(W, jnp.asarray(radius, W.dtype)),
        paths=paths,
        include_biases=include_biases,
    )


@typed
def fixed_norm(
    radius: Number | None = None, *, paths: Paths = "W_hh", include_biases: bool = False
) -> optax.GradientTransformation:
    """‖W‖_F = r of each covered leaf: W ← r W/‖W‖_F. Only the direction of W is learnt.

    Of an update what is along W is undone, so decay of W does nothing to first order, and the learning rate is the
    angle by which W turns. Hyperball (Wen et al. 2026) gives the update a fixed norm too: η r. optax has that part,
    `scale_by_trust_ratio`, as in the example.

    W = 0 has no direction and stays 0; so does a leaf that starts at 0 without a radius.

    Args:
      radius: r above 0; may be traced. None keeps the norm that each leaf starts with.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      include_biases: cover leaves that are no matrices too.

    Returns:
      An optax transformation, for the end of a chain; see `project`.

    Raises:
      ValueError: a radius that is not above 0; at `init`, a pattern that matches no leaf.

    Source: Wen, Dang, Lyu, Ma & Liang 2026 (Hyperball); Salimans & Kingma 2016 (the direction alone).

    >>> import optax, rnnreg as rr
    >>> turned = optax.masked(optax.scale_by_trust_ratio(), rr.constraints.covering("W_hh"))
    >>> hyperball = optax.chain(optax.scale_by_adam(), turned, optax.scale_by_learning_rate(0.1), fixed_norm())
    >>> params = {"W_hh": jnp.array([[3.0, 0.0], [0.0, 4.0]])}
    >>> updates, _ = hyperball.update({"W_hh": jnp.ones((2, 2))}, hyperball.init(params), params)
    >>> round(float(jnp.linalg.norm(optax.apply_updates(params, updates)["W_hh"])), 4)
    5.0
    """
    if radius is not None:
        check_radius(radius)

    def start(path, leaf):
        return safe_norm(jnp.ravel(leaf)) if radius is None else ()

    def onto(path, W, kept):
        wanted = jnp.asarray(kept if radius is None else radius, W.dtype)
        return W * safe_divide(wanted, safe_norm(jnp.ravel(W)))

    return constraint(onto, paths, include_biases=include_biases, start=start)


@typed
def max_norm(limit: Number, *, paths: Paths = "*") -> optax.GradientTransformation:
    """‖W[:, j]‖₂ ≤ c: the weights that enter a unit, column j of `h @ W`, are shrunk to the norm c if it is larger.

    A unit of a GRU or LSTM has one column for each gate, and each is bounded by itself. The bias is not counted.

    Args:
      limit: c above 0; may be traced. Srivastava et al. 2014 take 3 or 4.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").

    Returns:
      An optax transformation, for the end of a chain; see `project`.

    Raises:
      ValueError: a limit that is not above 0; at `init`, a pattern that matches no leaf, or no matrix.

    Source: Srebro & Shraibman 2005; Srivastava et al. 2014, section 5.1.

    >>> import optax
    >>> columns, params = max_norm(1.0), {"W_xh": jnp.array([[0.0, 0.0], [4.0, 0.5]])}
    >>> updates, _ = columns.update(jax.tree.map(jnp.zeros_like, params), columns.init(params), params)
    >>> optax.apply_updates(params, updates)["W_xh"].tolist()
    [[0.0, 0.0], [1.0, 0.5]]
    """
    import optax

    check_radius(limit, "limit")

    def onto(path, W, _):
        ball = optax.projections.projection_l2_ball
        return jax.vmap(ball, in_axes=(1, None), out_axes=1)(W, jnp.asarray(limit, W.dtype))

    return constraint(onto, paths, matrices="max_norm")
