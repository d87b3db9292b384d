"""Products of Jacobians against products of `jax.jacobian`, and in exact arithmetic beyond the range of floats."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance
from small_dynamics import KEY, autodiff_jacobians, linear_step, orthogonal, systems, tanh_step

import rnnreg as rr
from rnnreg.diagnostics import jacobian_products, parameter_sensitivity

pytestmark = pytest.mark.numerics


def autonomous(steps, rows=1):
    return jnp.zeros((rows, steps, 0))


@functools.partial(
    jax.jit, static_argnums=(0, 3), static_argnames=("every", "num_singular", "small_ones")
)
def _products(step, params, start, steps, **options):
    xs = autonomous(steps, len(start))
    return jacobian_products(step, params, xs, state=start, **options)


def products(step, params, start, steps, **options):
    return _products(step, params, jnp.asarray(start, float), steps, **options)


@functools.cache
def jacobians(name):
    """[B, T+1, n, n] ∂h_T/∂h_{T−ℓ} in float64, from the step Jacobians of one of the systems."""
    all_rows = []
    for steps in autodiff_jacobians(name):
        P = [np.eye(steps.shape[-1])]
        for J in steps[::-1]:
            P.append(P[-1] @ J)
        all_rows.append(P)
    return np.array(all_rows)


# ---- against jax.jacobian -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", systems())
@pytest.mark.parametrize("small_ones", [True, False])
def test_singular_values_are_those_of_jax_jacobian(name, small_ones):
    system, params, xs, *_ = systems()[name](KEY)
    found = jax.jit(
        lambda params, xs: jacobian_products(system, params, xs, small_ones=small_ones)
    )(params, xs)
    P = jacobians(name)
    expected = np.linalg.svd(P, compute_uv=False)
    assert found.lags.tolist() == list(range(7))
    np.testing.assert_allclose(
        np.exp(found.log_singular[..., 0]), expected[..., 0], **tolerance(loosen=3)
    )
    seen = ~np.asarray(found.unresolved)
    assert seen[:, :, 0].all()
    error = np.abs(np.asarray(found.log_singular) - np.log(expected))[seen]
    assert error.max() < 0.1  # what `unresolved` promises
    if small_ones:  # and graded, every digit that the dtype has, for each of them
        # (where NumPy's dense SVD has them too)
        known = (expected > 1e-6 * expected[..., :1])[seen]
        assert error[known].max() < tolerance()["rtol"] * 100
    np.testing.assert_allclose(
        np.exp(found.log_frobenius), np.linalg.norm(P, axis=(-2, -1)), **tolerance(loosen=3)
    )
    np.testing.assert_allclose(found.log_norm, found.log_singular[..., 0].mean(axis=0))


@pytest.mark.float32_only
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "field", "part"),
    [("network", "layer_0/h", slice(0, 3)), ("network", "layer_1/h", slice(3, 5))]
    + [("lstm", "h", slice(0, 3)), ("lstm", "c", slice(3, 6))],
)
@pytest.mark.parametrize("small_ones", [True, False])
def test_a_field_is_a_block_of_the_whole_product(name, field, part, small_ones):
    system, params, xs, *_ = systems()[name](KEY)
    found = jax.jit(
        lambda: jacobian_products(system, params, xs, field=field, small_ones=small_ones, every=2)
    )()
    expected = np.linalg.svd(jacobians(name)[:, ::2, part, part], compute_uv=False)
    assert found.lags.tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(np.exp(found.log_singular), expected, **tolerance(loosen=20))


# ---- closed forms, and far beyond the range of floats --------------------------------------------


@pytest.mark.parametrize("small_ones", [True, False])
def test_an_orthogonal_map_keeps_all_singular_values_at_1(small_ones):
    found = products(linear_step, orthogonal(5), np.zeros((1, 5)), 200, small_ones=small_ones)
    np.testing.assert_allclose(found.log_singular, 0, **tolerance())
    assert not found.unresolved.any()
    scaled = products(linear_step, 0.9 * orthogonal(5), np.zeros((1, 5)), 200, every=50)
    expected = np.log(0.9) * np.array([0, 50, 100, 150, 200])
    np.testing.assert_allclose(scaled.log_norm, expected, **tolerance())


@pytest.mark.optimised
def test_ten_thousand_steps_neither_under_nor_overflow():
    W = jnp.asarray(1.8 * np.random.default_rng(5).normal(size=(6, 6)) / np.sqrt(6))
    found = products(tanh_step, W, 0.1 * np.ones((1, 6)), 10_000, every=100)
    assert np.isfinite(found.log_singular).all()
    assert np.ptp(np.asarray(found.log_singular[0, -1])) > 1000  # no dtype holds e^1000
    assert not found.unresolved[..., 0].any()
    short = products(tanh_step, W, 0.1 * np.ones((1, 6)), 10_000, every=100, num_singular=2)
    np.testing.assert_array_equal(short.log_singular, found.log_singular[..., :2])


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 5])
def test_small_singular_values_are_resolved_hundreds_of_orders_below(size):
    """Against W^k = X Λ^k X⁻¹ in rational arithmetic, with conjugate pairs and close eigenvalues."""
    import fractions

    rng = np.random.default_rng(size)
    W = rng.integers(-3, 4, size=(size, size)) / 4
    W[0] *= 0.01
    exact = np.array([[fractions.Fraction(float(w)) for w in row] for row in W], dtype=object)
    steps = 128
    P = exact
    for _ in range(7):
        P = P @ P
    found = products(linear_step, jnp.asarray(W), np.zeros((1, size)), steps, every=steps)
    logs = np.asarray(found.log_singular[0, -1], np.float64)
    # the product of the leading j singular values is the norm of the j-th compound matrix
    import itertools

    def log_det(M):
        M, sign = M.copy(), fractions.Fraction(1)
        for i in range(len(M)):
            pivot = next((r for r in range(i, len(M)) if M[r, i] != 0), None)
            if pivot is None:
                return fractions.Fraction(0)
            if pivot != i:
                M[[i, pivot]], sign = M[[pivot, i]], -sign
            for r in range(i + 1, len(M)):
                M[r] = M[r] - M[i] * (M[r, i] / M[i, i])
        return sign * np.prod(np.diag(M))

    def log_of(value):
        from math import log

        return log(value.numerator) - log(value.denominator)

    for j in range(1, size + 1):
        sets = list(itertools.combinations(range(size), j))
        squares = sum(log_det(P[np.ix_(a, b)]) ** 2 for a in sets for b in sets)
        bound = log_of(squares) / 2  # ‖∧^j P‖_F, between Π σ and √(n choose j) Π σ
        slack = 0.5 * np.log(len(sets)) + 0.05
        assert bound - slack < logs[:j].sum() < bound + 0.05
    determinant = log_of(abs(log_det(P)))
    np.testing.assert_allclose(logs.sum(), determinant, rtol=1e-5 if logs.dtype == 0 else 1e-4)
    assert np.ptp(logs) > 100


def test_growth_that_changes_direction_is_followed():
    """50 doublings of one direction, then 100 of the other: the frame is right in neither order."""
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])

    def step(params, state, x):
        first, second = turn @ np.diag([2.0, 1.0]) @ turn.T, np.diag([1.0, 2.0])
        mixed = jnp.where(x[:, :1, None] > 0, jnp.asarray(second, float), jnp.asarray(first, float))
        return jnp.einsum("bi,bij->bj", state, mixed)

    xs = jnp.asarray((np.arange(150) >= 50).astype(float))[None, :, None]
    found = jax.jit(lambda: jacobian_products(step, 0.0, xs, state=jnp.zeros((1, 2)), every=150))()
    logs = np.asarray(found.log_singular[0, -1])
    # det = 2^150; the norm is 2^150 |⟨v, e₂⟩| with ⟨v, e₂⟩ = .6, up to 2⁻⁵⁰
    expected = np.array([150 * np.log(2) + np.log(0.6), -np.log(0.6)])
    np.testing.assert_allclose(logs, expected, **tolerance(loosen=10))
    assert not found.unresolved[0, -1].any()


@pytest.mark.slow
def test_dead_directions_are_flagged():
    W = jnp.asarray(np.diag([0.5, 0.5, -0.5]))
    found = products(lambda W, h, x: jax.nn.relu(h @ W), W, np.ones((1, 3)), 10)
    np.testing.assert_allclose(
        found.log_singular[0, 1:, 0], np.log(0.5) * np.arange(1, 11), rtol=1e-5
    )
    assert (np.asarray(found.log_singular[0, 1:, 2]) == -np.inf).all()
    assert found.unresolved[0, 1:, 2].all()
    assert not found.unresolved[0, :, :2].any()
    assert np.isfinite(found.log_frobenius).all()
    silent = products(lambda W, h, x: 0 * h, W, np.ones((1, 3)), 4)
    assert silent.log_norm.tolist() == [0, *4 * [-np.inf]]
    plain = products(lambda W, h, x: 0 * h, W, np.ones((1, 3)), 4, small_ones=False)
    assert plain.log_norm.tolist() == [0, *4 * [-np.inf]]
    assert plain.unresolved[0, 1:].all()


def test_a_plain_product_says_what_it_does_not_resolve():
    W = jnp.diag(jnp.array([1.0, 0.5]))
    found = products(linear_step, W, np.zeros((1, 2)), 400, small_ones=False, every=100)
    assert found.unresolved[0, :, 1].tolist() == [False, True, True, True, True]
    assert not found.unresolved[..., 0].any()


@pytest.mark.float32_only
@pytest.mark.slow
def test_lanes_of_parameters_are_measured_as_alone():
    cell = rr.cells.lstm(2)
    params = jax.vmap(lambda key: cell.init(key, 2))(jax.random.split(KEY, 3))
    xs = jax.random.normal(KEY, (2, 5, 2), params["W_xh"].dtype)
    together = jax.jit(jax.vmap(lambda params: jacobian_products(cell, params, xs)))(params)
    by_itself = jax.jit(lambda params: jacobian_products(cell, params, xs))
    for lane in range(3):
        alone = by_itself(jax.tree.map(lambda leaf: leaf[lane], params))
        np.testing.assert_allclose(
            together.log_singular[lane], alone.log_singular, **tolerance("float32", loosen=10)
        )


# ---- sensitivity to the weights -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "field"), [("elman", None), ("lstm", "h"), ("network", None)])
def test_sensitivity_is_that_of_jax_jacobian(name, field):
    system, params, xs, _start, _ = systems()[name](KEY)
    found = jax.jit(lambda: parameter_sensitivity(system, params, xs, field=field, every=3))()

    def last(params, row):
        if name == "network":
            final = system.apply(params, xs[row : row + 1]).final_state
            return jnp.concatenate([final["layer_0"].h, final["layer_1"].h], axis=1)
        state = system.initial_state(1, xs.dtype)
        for x in xs[row]:
            state = rr.recurrence.cell_step(system)(params, state, x[None])
        return jnp.concatenate(state, axis=1) if field is None else getattr(state, field)

    jacobian = jax.jit(jax.jacobian(last), static_argnums=1)
    for row in range(2):
        leaves = rr.leaf_paths(jacobian(params, row))
        squares = [np.square(leaf).sum() for path, leaf in leaves.items() if path.endswith("W_hh")]
        assert len(squares) == (2 if name == "network" else 1)
        np.testing.assert_allclose(
            np.exp(found.log_parameters[row, -1]), np.sqrt(sum(squares)), **tolerance(loosen=3)
        )
    part = slice(0, 3) if name == "lstm" else slice(None)
    P = jacobians(name)[:, ::3, part, part]
    np.testing.assert_allclose(
        np.exp(found.log_state), np.linalg.norm(P, axis=(-2, -1)), **tolerance(loosen=3)
    )
    assert found.lags.tolist() == [0, 3, 6]
    assert (np.asarray(found.log_parameters[:, 0]) == -np.inf).all()


def test_sensitivity_of_chaos_does_not_overflow():
    W = jnp.asarray(3 * np.random.default_rng(6).normal(size=(5, 5)) / np.sqrt(5))
    xs = autonomous(5000)
    found = jax.jit(
        lambda: parameter_sensitivity(
            lambda W, h, x: jnp.tanh(h @ W) * 1.5,
            W,
            xs,
            state=jnp.ones((1, 5)),
            paths=None,
            every=500,
        )
    )()
    assert np.isfinite(found.log_state).all()
    assert np.isfinite(found.log_parameters[:, 1:]).all()


# ---- bad input ------------------------------------------------------------------------------------


def test_bad_arguments_are_named():
    def call(**options):
        return jacobian_products(
            linear_step, orthogonal(2), autonomous(10), state=jnp.zeros((1, 2)), **options
        )

    with pytest.raises(ValueError, match="every must divide the number of steps"):
        call(every=4)
    with pytest.raises(ValueError, match="num_singular must lie in 1 … 2"):
        call(num_singular=3)
    with pytest.raises(ValueError, match="field 'h' is not in the state, which has"):
        call(field="h")
    with pytest.raises(ValueError, match="has no initial state of its own"):
        jacobian_products(linear_step, orthogonal(2), autonomous(10))
    cell = rr.cells.elman(2)
    params = cell.init(KEY, 1)
    with pytest.raises(ValueError, match="matches no parameter"):
        parameter_sensitivity(cell, params, jnp.zeros((1, 2, 1)), paths="W_hy")
