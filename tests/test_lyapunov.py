"""Lyapunov spectra against closed forms, determinants and maps of the literature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance
from small_dynamics import KEY, autodiff_jacobians, linear_step, orthogonal, systems, tanh_step

import rnnreg as rr
from rnnreg.diagnostics import lyapunov

pytestmark = pytest.mark.numerics


def autonomous(steps, rows=1):
    return jnp.zeros((rows, steps, 0))


@functools.partial(
    jax.jit, static_argnums=(0, 3), static_argnames=("discard", "every", "num_exponents")
)
def _spectrum(step, params, start, steps, **options):
    return lyapunov(step, params, autonomous(steps, len(start)), state=start, **options)


def spectrum(step, params, start, steps, **options):
    return _spectrum(step, params, jnp.asarray(start, float), steps, **options)


# ---- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 5])
def test_an_orthogonal_map_neither_stretches_nor_shrinks(every):
    found = spectrum(linear_step, orthogonal(6), jnp.zeros((2, 6)), 200, every=every)
    np.testing.assert_allclose(found.exponents, np.zeros((2, 6)), **tolerance())
    np.testing.assert_allclose(found.trace, 0, **tolerance())
    assert not found.unconverged.any()
    assert (found.lost == 0).all()


@pytest.mark.float64_only
def test_a_linear_map_has_the_logarithms_of_its_eigenvalues():
    W = np.random.default_rng(1).normal(size=(7, 7)) / np.sqrt(7)
    found = spectrum(linear_step, jnp.asarray(W), np.zeros((1, 7)), 6000, discard=2000)
    eigenvalues = sorted(np.linalg.eigvals(W), key=abs, reverse=True)
    expected = np.log(np.abs(eigenvalues))
    # within a conjugate pair the frame turns, and only the sum converges; a real one converges by itself
    place = 0
    while place < 7:
        size = 2 if abs(eigenvalues[place].imag) > 1e-12 else 1
        pair = slice(place, place + size)
        np.testing.assert_allclose(
            found.exponents[0, pair].sum(), expected[pair].sum(), rtol=0, atol=1e-6
        )
        place += size
    assert any(abs(value.imag) > 1e-12 for value in eigenvalues)
    np.testing.assert_allclose(
        found.exponents.sum(), np.log(abs(np.linalg.det(W))), rtol=0, atol=1e-6
    )


def test_the_sum_is_the_mean_log_determinant():
    W = 1.5 * np.random.default_rng(2).normal(size=(5, 5)) / np.sqrt(5)
    W = jnp.asarray(W)
    xs = 0.3 * jax.random.normal(KEY, (2, 60, 5))
    found = jax.jit(lambda: lyapunov(tanh_step, W, xs, state=0.1 * jnp.ones((2, 5)), discard=20))()

    @jax.jit
    def advance(h, x):
        return tanh_step(W, h[None], x[None])[0]

    jacobian = jax.jit(jax.jacobian(advance))
    for row in range(2):
        state, logs = 0.1 * jnp.ones(5), []
        for x in np.asarray(xs[row]):
            logs.append(np.linalg.slogdet(np.asarray(jacobian(state, x), np.float64))[1])
            state = advance(state, x)
        np.testing.assert_allclose(
            found.exponents[row].sum(), np.mean(logs[20:]), **tolerance(loosen=10)
        )


def test_the_logistic_map_at_4_gains_one_bit_a_step():
    def logistic(params, state, x):
        return 1 - params * state * state  # of the same family as 4x(1 − x); exponent ln 2

    starts = np.random.default_rng(0).uniform(-0.9, 0.9, size=(8, 1))
    # just below 2, where float32 orbits do not fall into the fixed point −1
    found = spectrum(logistic, 1.99999, starts, 4000)
    assert abs(found.exponents.mean() - np.log(2)) < 0.02
    assert not found.unconverged.any()


@pytest.mark.float64_only
def test_the_henon_map_has_the_published_spectrum():
    def henon(params, state, x):
        u, v = state[:, :1], state[:, 1:]
        return jnp.concatenate([1 - 1.4 * u * u + v, 0.3 * u], axis=1)

    starts = np.random.default_rng(0).uniform(-0.1, 0.1, size=(8, 2))
    found = spectrum(henon, 0.0, starts, 20_000)
    # Sprott 2003: λ = .41922, −1.62319, Kaplan–Yorke dimension 1.25827
    errors = np.sqrt(np.square(found.standard_error[:, 0]).mean() / 8)
    np.testing.assert_allclose(found.exponents[:, 0].mean(), 0.41922, rtol=0, atol=4 * errors)
    assert errors < 1e-3
    np.testing.assert_allclose(found.exponents.sum(axis=1), np.log(0.3), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.kaplan_yorke.mean(), 1.25827, rtol=0, atol=3e-3)
    np.testing.assert_allclose(found.entropy_rate, found.exponents[:, 0])


# ---- summaries ------------------------------------------------------------------------------------


def test_dimension_and_entropy_from_the_exponents():
    rates = np.array([0.5, 0.1, -0.2, -3.0])
    W = jnp.diag(jnp.exp(jnp.asarray(rates)))
    found = spectrum(linear_step, W, np.zeros((1, 4)), 400, discard=200)
    np.testing.assert_allclose(found.exponents[0], rates, **tolerance(loosen=10))
    np.testing.assert_allclose(found.kaplan_yorke, 3 + 0.4 / 3.0, **tolerance(loosen=10))
    np.testing.assert_allclose(found.entropy_rate, 0.6, **tolerance(loosen=10))
    few = spectrum(linear_step, W, np.zeros((1, 4)), 400, discard=200, num_exponents=1)
    np.testing.assert_allclose(few.exponents[0], rates[:1], **tolerance(loosen=10))
    assert np.isnan(few.kaplan_yorke).all()
    assert np.isnan(few.entropy_rate).all()
    shrinking = spectrum(linear_step, 0.5 * W, np.zeros((1, 4)), 400, discard=200)
    assert shrinking.kaplan_yorke.tolist() == shrinking.entropy_rate.tolist() == [0.0]
    growing = spectrum(linear_step, 100 * W, np.zeros((1, 4)), 400, discard=200)
    assert growing.kaplan_yorke.tolist() == [4.0]


def test_a_starting_frame_may_be_drawn():
    W = jnp.diag(jnp.array([0.5, 2.0, 1.0]))
    one, other, fixed = (
        spectrum(linear_step, W, np.zeros((1, 3)), 10, discard=0, key=key)
        for key in (KEY, jax.random.key(1), None)
    )
    assert not np.array_equal(one.exponents, other.exponents)
    for found in (one, other, fixed):
        np.testing.assert_allclose(found.exponents.sum(), 0, **tolerance())


@pytest.mark.slow
def test_an_unconverged_spectrum_is_flagged():
    def fold(params, state, x):
        return 1 - 1.9 * state * state

    short = spectrum(fold, 0.0, [[0.3]], 60)  # chaos, seen for too short a time
    assert short.unconverged.all()
    assert (short.standard_error > 0.01).all()
    drifting = jnp.linspace(0.0, 1.0, 100)[
        None, :, None
    ]  # every step stretches more than the one before
    drift = jax.jit(
        lambda xs: lyapunov(lambda p, h, x: h * jnp.exp(x), 0.0, xs, state=jnp.zeros((1, 1)))
    )(drifting)
    assert drift.unconverged.all()
    settled = spectrum(linear_step, orthogonal(2), np.zeros((1, 2)), 200)
    assert not settled.unconverged.any()
    nans = spectrum(lambda p, h, x: h * jnp.nan, 0.0, np.ones((1, 2)), 20)
    assert np.isnan(nans.exponents).all()
    assert nans.unconverged.all()


def test_dead_directions_are_minus_infinity_and_counted():
    def relu(W, h, x):
        return jax.nn.relu(h @ W)

    W = jnp.asarray(np.abs(np.random.default_rng(3).normal(size=(4, 4))))
    W = W.at[:, 2:].multiply(-1.0)  # the last two units die at once
    found = spectrum(relu, W, np.ones((1, 4)), 100)
    alive = np.sort(np.log(np.abs(np.linalg.eigvals(np.asarray(W[:2, :2], np.float64)))))[::-1]
    np.testing.assert_allclose(found.exponents[0, :2], alive, **tolerance(loosen=10))
    assert found.exponents[0, 2:].tolist() == [-np.inf, -np.inf]
    assert found.lost[0].tolist() == [0, 0, 1, 1]
    assert not found.unconverged.any()
    assert not np.isnan(found.kaplan_yorke).any()


@pytest.mark.float32_only
@pytest.mark.parametrize(("small", "every"), [(0.1, 10), (1e-8, 1)])
def test_a_direction_lost_to_rounding_is_flagged(small, every):
    W = jnp.diag(jnp.array([1.0, small]))
    found = spectrum(linear_step, W, np.ones((1, 2)), 100, every=every)
    assert found.exponents[0, 1] == -np.inf  # ln small, which float32 does not resolve
    assert found.unconverged.tolist() == [[False, True]]
    dead = spectrum(linear_step, jnp.diag(jnp.array([1.0, 0.0])), np.ones((1, 2)), 100)
    assert dead.exponents[0, 1] == -np.inf
    assert dead.unconverged.tolist() == [[False, False]]


@pytest.mark.float32_only
def test_one_lost_step_in_many_is_flagged():
    xs = jnp.zeros((1, 1000, 1)).at[0, 500].set(jnp.log(1e-8))
    second = jnp.array([0.0, 1.0])  # it halves at each step, and once falls by 10⁻⁸

    def step(params, state, x):
        return state * jnp.exp(second * (x - jnp.log(2.0)))

    found = jax.jit(lambda: lyapunov(step, None, xs, state=jnp.ones((1, 2))))()
    np.testing.assert_allclose(found.exponents, [[0, -np.inf]], **tolerance())
    np.testing.assert_allclose(found.lost, [[0, 1 / 900]], **tolerance())
    assert found.unconverged.tolist() == [[False, True]]


# ---- systems, transformations ---------------------------------------------------------------------


@pytest.mark.parametrize("name", systems())
def test_every_system_agrees_with_a_qr_of_its_jacobians(name):
    system, params, xs, start, _ = systems()[name](KEY)
    found = jax.jit(lambda params, xs: lyapunov(system, params, xs, discard=0))(params, xs)
    size = start.shape[-1]
    total = np.zeros((len(xs), size))
    for row, steps in enumerate(autodiff_jacobians(name)):
        frame = np.eye(size)
        for J in steps:
            frame, R = np.linalg.qr(J @ frame)
            total[row] += np.log(np.abs(np.diag(R)))
    # frames differ, so only the volume of the whole frame is the same after few steps
    np.testing.assert_allclose(
        found.exponents.sum(axis=-1), total.sum(axis=-1) / xs.shape[1], **tolerance(loosen=20)
    )
    assert found.trace.shape == (len(xs), xs.shape[1], size)


@pytest.mark.slow
def test_leading_exponents_are_those_of_the_full_spectrum():
    W = jnp.asarray(np.random.default_rng(4).normal(size=(8, 8)) / 2)
    full = spectrum(tanh_step, W, 0.1 * np.ones((2, 8)), 50, discard=0)
    some = spectrum(tanh_step, W, 0.1 * np.ones((2, 8)), 50, discard=0, num_exponents=8)
    np.testing.assert_array_equal(full.exponents, some.exponents)
    leading = spectrum(tanh_step, W, 0.1 * np.ones((2, 8)), 3000, num_exponents=2)
    longer = spectrum(tanh_step, W, 0.1 * np.ones((2, 8)), 3000)
    np.testing.assert_allclose(leading.exponents, longer.exponents[:, :2], atol=0.02)


@pytest.mark.slow
@pytest.mark.float32_only
def test_lanes_of_parameters_are_measured_as_alone():
    cell = rr.cells.gru(3)
    params = jax.vmap(lambda key: cell.init(key, 2))(jax.random.split(KEY, 3))
    xs = jax.random.normal(KEY, (2, 20, 2), params["W_xh"].dtype)
    together = jax.jit(jax.vmap(lambda params: lyapunov(cell, params, xs)))(params)
    by_itself = jax.jit(lambda params: lyapunov(cell, params, xs))
    for lane in range(3):
        alone = by_itself(jax.tree.map(lambda leaf: leaf[lane], params))
        np.testing.assert_allclose(
            together.exponents[lane], alone.exponents, **tolerance("float32")
        )


@pytest.mark.float32_only
def test_ten_thousand_steps_stay_finite_in_float32():
    W = jnp.asarray(2.5 * np.random.default_rng(5).normal(size=(6, 6)) / np.sqrt(6))
    found = spectrum(tanh_step, W, 0.1 * np.ones((1, 6)), 10_000, num_exponents=3)
    for values in found:
        assert np.isfinite(np.asarray(values, float)).all() or values is found.kaplan_yorke
    assert found.exponents.dtype == jnp.float32


# ---- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 3}, "every must divide the number of steps; got every=3 and T=10"),
        ({"num_exponents": 5}, "num_exponents must lie in 1 … 2"),
        ({"discard": 10}, "discard must leave at least 1 of the T=10 steps"),
        ({"num_batches": 1}, "num_batches must be at least 2"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        lyapunov(linear_step, orthogonal(2), autonomous(10), state=jnp.zeros((1, 2)), **options)


def test_a_step_that_changes_its_state_is_refused():
    with pytest.raises(ValueError, match="a step must return a state like the one it was given"):
        lyapunov(lambda p, h, x: h[:, :1], 0.0, autonomous(10), state=jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="at least one step"):
        lyapunov(linear_step, orthogonal(2), autonomous(0), state=jnp.zeros((1, 2)))
