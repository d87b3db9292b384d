"""Constraints: each map against an independent one, what it leaves alone, its derivative, and runs that keep to it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.optimize
from conftest import SEED, tolerance
from small import make, sine

import rnnreg as rr
from rnnreg._linalg import clip_singular_values
from rnnreg.constraints import (
    connectivity,
    dale,
    fixed_norm,
    l1_ball,
    l2_ball,
    max_norm,
    non_negative,
    orthogonal,
    project,
    spectral_ball,
)

pytestmark = pytest.mark.numerics

H, GATES = 4, 2
RNG = np.random.default_rng(SEED)
W = RNG.normal(size=(H, GATES * H))
STEP = RNG.normal(size=W.shape)
SIGNS = np.array([1, -1, 0, 1])
CONNECTED = RNG.integers(0, 2, size=(H, H))


def blockwise(function):
    return lambda V, r: np.concatenate([function(B, r) for B in np.split(V, GATES, axis=1)], axis=1)


def shrunk_to(V, r):
    """The soft threshold whose result has the L1 norm r; its amount is found by a root finder."""
    if np.abs(V).sum() <= r:
        return V

    def left(amount):
        return np.maximum(np.abs(V) - amount, 0)

    amount = scipy.optimize.brentq(lambda t: left(t).sum() - r, 0, np.abs(V).max(), xtol=1e-15)
    return np.sign(V) * left(amount)


def clipped(V, r):
    U, s, Vt = np.linalg.svd(V)
    return U @ np.diag(np.minimum(s, r)) @ Vt


def allowed(V):
    return (SIGNS[:, None] * V >= 0) | (SIGNS[:, None] == 0)


# Of each constraint: what makes it from a radius, the nearest point in NumPy, and whether its set is convex.
CONSTRAINTS = {
    "l1_ball": (lambda r: l1_ball(r, paths="W_hh"), shrunk_to, True),
    "l2_ball": (
        lambda r: l2_ball(r, paths="W_hh"),
        lambda V, r: V * min(1, r / np.sqrt((V**2).sum())),
        True,
    ),
    "fixed_norm": (fixed_norm, lambda V, r: V * (r / np.sqrt((V**2).sum())), False),
    "max_norm": (
        lambda r: max_norm(r, paths="W_hh"),
        lambda V, r: V * np.minimum(1, r / np.sqrt((V**2).sum(axis=0))),
        True,
    ),
    "spectral_ball": (spectral_ball, blockwise(clipped), True),
    "orthogonal": (orthogonal, blockwise(lambda B, r: r * scipy.linalg.polar(B)[0]), False),
    "non_negative": (lambda r: non_negative("W_hh"), lambda V, r: np.maximum(V, 0), True),
    "dale": (lambda r: dale(SIGNS), lambda V, r: np.where(allowed(V), V, 0), True),
    "connectivity": (
        lambda r: connectivity(CONNECTED),
        lambda V, r: V * np.tile(CONNECTED, GATES),
        True,
    ),
}
WITH_RADIUS = ["l1_ball", "l2_ball", "fixed_norm", "max_norm", "spectral_ball", "orthogonal"]
every = pytest.mark.parametrize("name", CONSTRAINTS)
RADIUS = 1.3


def tree(matrix, dtype=float):
    """Parameters of one layer of which the matrix is the recurrent one."""
    rest = {"W_xh": np.full((2, matrix.shape[1]), 3.0), "b_h": np.full(matrix.shape[1], -3.0)}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), {"W_hh": matrix, **rest})


def moved(constraint, params, updates):
    changes, _ = constraint.update(updates, constraint.init(params), params)
    return optax.apply_updates(params, changes)


@jax.jit
def moved_by(radius, matrix, step):
    """By name, W_hh after the constraint with that radius: one program for all."""
    params, updates = tree(np.zeros(W.shape)), tree(np.zeros(W.shape))
    params["W_hh"], updates["W_hh"] = matrix, step
    return {
        name: moved(make(radius), params, updates)["W_hh"]
        for name, (make, _, _) in CONSTRAINTS.items()
    }


@pytest.mark.parametrize("radius", [0.4, RADIUS, 30.0])
def test_each_is_the_nearest_point_that_numpy_finds(radius):
    found = moved_by(radius, jnp.asarray(W), jnp.asarray(STEP))
    for name, (_, nearest, _) in CONSTRAINTS.items():
        np.testing.assert_allclose(
            found[name], nearest(W + STEP, radius), **tolerance(), err_msg=name
        )


def test_no_point_of_a_convex_set_is_nearer():
    """⟨W − P(W), z − P(W)⟩ ≤ 0 for every z of the set: the definition, without a formula of P."""
    found = moved_by(RADIUS, jnp.asarray(W), jnp.zeros(W.shape))
    for seed in range(20):
        z = np.random.default_rng(seed).normal(size=W.shape)
        other = {
            "l1_ball": z * RADIUS / np.abs(z).sum(),
            "l2_ball": z * RADIUS / np.linalg.norm(z),
            "max_norm": z * RADIUS / np.linalg.norm(z, axis=0),
            "spectral_ball": blockwise(lambda B, r: r * B / np.linalg.norm(B, 2))(z, RADIUS),
            "non_negative": np.abs(z),
            "dale": np.where(SIGNS[:, None] == 0, z, SIGNS[:, None] * np.abs(z)),
            "connectivity": z * np.tile(CONNECTED, GATES),
        }
        for name, point in other.items():
            P = np.asarray(found[name], np.float64)
            assert np.sum((W - P) * (point - P)) <= tolerance()["atol"], name
    assert set(other) == {name for name, (_, _, convex) in CONSTRAINTS.items() if convex}


def test_a_point_of_the_set_stays_where_it_is():
    once = moved_by(RADIUS, jnp.asarray(W), jnp.asarray(STEP))
    for name, point in once.items():
        twice = moved_by(RADIUS, point, jnp.zeros(W.shape))[name]
        np.testing.assert_allclose(twice, point, **tolerance(), err_msg=name)
    inside = jnp.asarray(W) / 100
    for name in ("l1_ball", "l2_ball", "max_norm", "spectral_ball"):
        still = moved_by(RADIUS, inside, jnp.zeros(W.shape))[name]
        np.testing.assert_array_equal(still, inside, err_msg=name)


@every
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_dtype_is_kept_and_other_leaves_are_left_alone(name, dtype):
    if dtype == "float64" and not jax.config.jax_enable_x64:
        pytest.skip("needs JAX_ENABLE_X64=1")
    build, nearest, _ = CONSTRAINTS[name]
    constraint, params, updates = build(RADIUS), tree(W, dtype), tree(STEP, dtype)

    @jax.jit
    def change(updates, params):
        return constraint.update(updates, constraint.init(params), params)[0]

    changes = change(updates, params)
    assert jax.tree.map(lambda leaf: leaf.dtype, changes) == jax.tree.map(
        lambda leaf: leaf.dtype, updates
    )
    for other in ("W_xh", "b_h"):
        np.testing.assert_array_equal(changes[other], updates[other])
    after = np.asarray(optax.apply_updates(params, changes)["W_hh"], np.float64)
    start = [np.asarray(leaf["W_hh"], np.float64) for leaf in (params, updates)]
    # in bfloat16 W + step and the step back are rounded too
    np.testing.assert_allclose(after, nearest(sum(start), RADIUS), **tolerance(dtype))


def test_the_radius_is_traced_under_vmap():
    traces = []

    @jax.jit
    @jax.vmap
    def after(radius):
        traces.append(None)
        return moved_by(radius, jnp.asarray(W), jnp.asarray(STEP))

    radii = jnp.array([0.4, 1.3, 30.0])
    found = after(radii)
    after(2 * radii)
    assert len(traces) == 1
    for lane, radius in enumerate(radii):
        alone = moved_by(radius, jnp.asarray(W), jnp.asarray(STEP))
        for name, value in alone.items():
            np.testing.assert_allclose(found[name][lane], value, **tolerance(), err_msg=name)


@pytest.mark.float64_only
def test_derivatives_by_radius_and_weights_equal_finite_differences():
    direction, size = RNG.normal(size=W.shape), 1e-6
    point = (jnp.asarray(RADIUS), jnp.asarray(W), jnp.asarray(STEP))
    ways = {"radius": (1.0, 0 * W, 0 * W), "weights": (0.0, direction, 0 * W)}
    for way in ways.values():
        way = tuple(map(jnp.asarray, way))
        _, found = jax.jvp(moved_by, point, way)
        ahead = moved_by(*(a + size * b for a, b in zip(point, way, strict=True)))
        behind = moved_by(*(a - size * b for a, b in zip(point, way, strict=True)))
        for name, value in found.items():
            expected = (ahead[name] - behind[name]) / (2 * size)
            np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-8, err_msg=name)


@jax.jit
@jax.jacrev
def gradients(matrix):
    found = moved_by(RADIUS, matrix, jnp.zeros_like(matrix))
    return jax.tree.map(lambda leaf: jnp.sum(leaf * STEP), found)


@pytest.mark.parametrize("start", ["zero", "identity", "orthogonal"])
def test_values_and_gradients_are_finite_at_zero_and_at_repeated_singular_values(start):
    Q = np.linalg.qr(W[:, :H])[0]
    block = {"zero": 0 * Q, "identity": 2 * np.eye(H), "orthogonal": 2 * Q}[start]
    for name, gradient in gradients(jnp.asarray(np.tile(block, GATES))).items():
        assert np.isfinite(gradient).all(), name


@pytest.mark.float64_only
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_the_derivative_of_clipping_equals_finite_differences(shape):
    """Between the clipped and the free, at repeated singular values, of full rank and at 0."""
    V, dV = (jnp.asarray(RNG.normal(size=shape)) for _ in range(2))
    U, s, Vt = jnp.linalg.svd(V, full_matrices=False)
    repeated = (U * jnp.array([3.0, 3.0, 0.5, 0.5])[: len(s)]) @ Vt
    for matrix in (V, repeated, jnp.zeros(shape)):
        point, way, size = (matrix, jnp.asarray(1.2)), (dV, jnp.asarray(0.3)), 1e-6
        _, found = jax.jvp(clip_singular_values, point, way)
        ahead, behind = (
            clip_singular_values(matrix + sign * size * dV, 1.2 + sign * size * 0.3)
            for sign in (1, -1)
        )
        np.testing.assert_allclose(found, (ahead - behind) / (2 * size), rtol=1e-6, atol=1e-7)


def test_pure_maps_are_strict_about_types_and_ranks():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for name in ("fixed_norm", "spectral_ball", "orthogonal", "dale", "connectivity"):
            constraint = CONSTRAINTS[name][0](RADIUS)
            params = tree(W, jnp.float32)
            jax.eval_shape(lambda p, c=constraint: c.update(p, c.init(p), p)[0], params)
        matrix, limit = jnp.ones((4, 4), jnp.float32), jnp.float32(1.0)
        jax.eval_shape(jax.jacrev(clip_singular_values, argnums=(0, 1)), matrix, limit)


def test_only_recurrent_matrices_are_cut_into_blocks():
    V = RNG.normal(size=(2, 12))
    params = {"W_xh": jnp.asarray(V), "W_hh": jnp.asarray(W)}
    zero = jax.tree.map(jnp.zeros_like, params)
    after = moved(spectral_ball(0.5, paths="*"), params, zero)
    np.testing.assert_allclose(after["W_xh"], clipped_thin(V, 0.5), **tolerance())
    np.testing.assert_allclose(after["W_hh"], blockwise(clipped)(W, 0.5), **tolerance())
    whole = moved(spectral_ball(0.5, recurrent=None), params, zero)
    np.testing.assert_allclose(whole["W_hh"], clipped_thin(W, 0.5), **tolerance())
    wide = moved(orthogonal(paths="W_xh"), params, zero)["W_xh"]
    np.testing.assert_allclose(wide @ wide.T, np.eye(2), **tolerance())
    tall = moved(spectral_ball(0.5), {"W_hh": jnp.asarray(W.T)}, {"W_hh": jnp.zeros(W.T.shape)})
    np.testing.assert_allclose(tall["W_hh"], blockwise(clipped)(W, 0.5).T, **tolerance())


def clipped_thin(V, r):
    U, s, Vt = np.linalg.svd(V, full_matrices=False)
    return (U * np.minimum(s, r)) @ Vt


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e3])
def test_the_polar_factor_is_found_from_badly_conditioned_matrices(condition):
    U, _, Vt = np.linalg.svd(W[:, :H])
    V = U @ np.diag(np.geomspace(1, 1 / condition, H)) @ Vt
    found = moved(orthogonal(0.9), {"W_hh": jnp.asarray(V)}, {"W_hh": jnp.zeros((H, H))})["W_hh"]
    # a small singular value is known only up to rounding of the large ones
    np.testing.assert_allclose(found, 0.9 * U @ Vt, **tolerance(loosen=max(1, condition / 10)))


def test_without_a_radius_the_norm_of_the_start_is_kept():
    constraint, params = fixed_norm(), tree(W)
    state = constraint.init(params)
    for _ in range(3):
        changes, state = constraint.update(tree(STEP), state, params)
        params = optax.apply_updates(params, changes)
    np.testing.assert_allclose(np.linalg.norm(params["W_hh"]), np.linalg.norm(W), **tolerance())


def test_hyperball_is_a_chain_of_parts():
    """R Normalize(W − η R Normalize(u)), u the direction of the optimiser (Wen et al. 2026)."""
    rate = 0.3
    turn = optax.masked(optax.scale_by_trust_ratio(), rr.constraints.covering("W_hh"))
    chain = optax.chain(turn, optax.scale_by_learning_rate(rate), fixed_norm())
    found = moved(chain, tree(W), tree(STEP))
    R = np.linalg.norm(W)
    ahead = W - rate * R * STEP / np.linalg.norm(STEP)
    np.testing.assert_allclose(found["W_hh"], R * ahead / np.linalg.norm(ahead), **tolerance())
    np.testing.assert_allclose(found["b_h"], -3.0 + rate * 3.0, **tolerance())


def test_biases_are_covered_if_asked_for():
    params = {"b_h": jnp.array([3.0, -4.0]), "W_hh": jnp.ones((2, 2))}
    zero = jax.tree.map(jnp.zeros_like, params)
    after = moved(l2_ball(1.0, paths="b_h", include_biases=True), params, zero)
    np.testing.assert_allclose(after["b_h"], [0.6, -0.8], **tolerance())
    assert rr.constraints.covering("*")(params) == {"b_h": False, "W_hh": True}
    assert rr.constraints.covering("*", include_biases=True)(params) == {"b_h": True, "W_hh": True}


# ---- what is refused ------------------------------------------------------------------------------

PARAMS = {"W_hh": jnp.ones((2, 4)), "W_xh": jnp.ones((3, 4)), "b_h": jnp.ones(4)}
REFUSED = {
    **{
        f"{name} {radius}": (
            lambda name=name, radius=radius: CONSTRAINTS[name][0](radius),
            r"must be a number( above 0| or None)?; got",
        )
        for name in WITH_RADIUS
        for radius in (0.0, -1, np.nan, "1")
    },
    "no leaf": (lambda: spectral_ball(1.0, paths="W_hx").init(PARAMS), r"constraint path 'W_hx'"),
    "a bias": (
        lambda: spectral_ball(1.0, paths="b_h").init(PARAMS),
        r"spectral_ball constrains matrices; its path 'b_h' matches b_h of shape \(4,\)",
    ),
    "a bias for an entry constraint": (
        lambda: non_negative("b_h").init(PARAMS),
        r"constraint path 'b_h' matches only leaves that are not weights.*include_biases=True",
    ),
    "three axes": (
        lambda: max_norm(1.0).init({"W_hh": jnp.ones((2, 2, 2))}),
        r"max_norm constrains matrices; .*\(2, 2, 2\)",
    ),
    "no square blocks": (
        lambda: orthogonal(paths="W_xh", recurrent="W_xh").init(PARAMS),
        r"the recurrent matrix 'W_xh' must be \[H, G·H\].*shape \(3, 4\).*recurrent=None",
    ),
    "signs": (lambda: dale([1, 2]), r"signs must hold only \[-1, 0, 1\]; got 2"),
    "signs of another size": (
        lambda: dale([1, -1, 1]).init(PARAMS),
        r"one number for each row of W_hh, whose shape is \(2, 4\); got 3",
    ),
    "signs of two axes": (lambda: dale(np.ones((2, 2))), "signs must be an array with 1 axis"),
    "connections": (lambda: connectivity([[0.5]]), r"connected must hold only \[0, 1\]; got 0.5"),
    "connections of another shape": (
        lambda: connectivity(np.ones((3, 3))).init(PARAMS),
        r"connected must have the shape of W_hh, \(2, 4\), or of one.*got \(3, 3\)",
    ),
    "no parameters": (
        lambda: l2_ball(1.0).update(PARAMS, l2_ball(1.0).init(PARAMS)),
        r"need the parameters: call update\(updates, state, params\)",
    ),
    "a map that changes the shape": (
        lambda: moved(project(jnp.sum, paths="W_hh"), PARAMS, PARAMS),
        r"must keep the shape \(2, 4\) of W_hh",
    ),
    "no map": (lambda: project(1.0, paths="W_hh"), "function must be a function"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


# ---- in a run -------------------------------------------------------------------------------------


def test_a_sweep_over_the_radius_of_a_gru_keeps_every_gate_in_its_ball():
    """The start, σ = 1 in every gate, is outside of the smaller balls."""
    train = make(
        rr.network([rr.cells.gru(H)], 1, readout="last"),
        penalties={},
        optimizer=lambda hyper: optax.chain(optax.adam(3e-2), spectral_ball(hyper["radius"])),
    )
    radii, split = [0.3, 0.8, 50.0], sine()
    result = rr.sweep(train, {"radius": radii}, split, key=jax.random.key(0))
    found = result.map(
        lambda params: jnp.linalg.norm(
            rr._linalg.square_blocks(params["layer_0"]["W_hh"]), 2, axis=(-2, -1)
        )
    )["value"].values
    assert found.shape == (3, 1, 3)
    np.testing.assert_allclose(found[0], 0.3, rtol=1e-4)
    assert (found[1] <= 0.8 * (1 + 1e-4)).all()
    assert (found[2] > 0.8).all()
    with pytest.raises(ValueError, match=r"radius must be a number above 0; got"):
        rr.sweep(train, {"radius": [0.0, 1.0]}, split, key=jax.random.key(0))


def test_a_run_is_differentiable_by_the_radius():
    train = make(
        penalties={},
        optimizer=lambda hyper: optax.chain(optax.sgd(0.1), spectral_ball(hyper["radius"])),
        num_epochs=3,
    )

    @jax.jit
    @jax.value_and_grad
    def loss_of(radius):
        run = train({"radius": radius}, sine(), key=jax.random.key(0))
        return run.metrics["train_loss"]

    value, slope = loss_of(0.5)
    size = 1e-4 if jax.config.jax_enable_x64 else 3e-2
    expected = (loss_of(0.5 + size)[0] - loss_of(0.5 - size)[0]) / (2 * size)
    assert np.isfinite(value)
    np.testing.assert_allclose(slope, expected, rtol=3e-2)  # a difference over a finite step


BALL = l2_ball(0.5, paths="W_hh")
UNDONE = {
    "rate": optax.chain(BALL, optax.sgd(0.1)),
    "momentum": optax.chain(BALL, optax.sgd(0.1, momentum=0.9)),
    "adam": optax.chain(BALL, optax.adam(0.1)),
    "decay": optax.chain(optax.sgd(0.1), BALL, optax.add_decayed_weights(0.1)),
}
KEPT = {
    "last": optax.chain(optax.adam(0.1), BALL),
    "another": optax.chain(optax.sgd(0.1), BALL, non_negative("W_hh")),
    "injected": optax.inject_hyperparams(lambda rate: optax.chain(optax.sgd(rate), BALL))(0.1),
    "a branch": optax.apply_if_finite(optax.chain(optax.sgd(0.1), BALL), 3),
    "several updates": optax.MultiSteps(optax.chain(optax.sgd(0.1), BALL), 2),
}


def _start_of(optimizer, net=None):
    train = make(net, penalties={}, optimizer=optimizer)
    return jax.eval_shape(lambda: train.init({}, sine(), key=jax.random.key(0)))


@pytest.mark.parametrize("name", [*UNDONE, *KEPT])
def test_a_constraint_that_is_not_the_end_warns(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _start_of((UNDONE | KEPT)[name])
    told = [str(one.message) for one in caught]
    assert len(told) == (name in UNDONE)
    assert all("constraint of ['layer_0/W_hh'] is followed by another" in one for one in told)


@pytest.mark.parametrize(("activation", "signed"), [("tanh", False), ("relu", True)])
def test_dale_warns_of_units_without_a_sign(activation, signed):
    net = rr.network([rr.cells.elman(4, activation=activation)], 1, readout="last")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _start_of(optax.chain(optax.sgd(0.1), dale([1, 1, -1, 0])), net)
    told = [str(one.message) for one in caught]
    assert len(told) == (not signed)
    assert all("rows of 'layer_0/W_hh' signs" in one for one in told)
