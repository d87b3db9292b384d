"""Jacobians and gradients of saturated units, against closed forms that do not round: every cell, any function."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnreg as rr
from rnnreg.diagnostics import gradient_flow, jacobian_products, lyapunov, step_jacobians
from rnnreg.diagnostics._slopes import steady

pytestmark = pytest.mark.numerics

FLAT = jnp.zeros((1, 4, 0))


def log_slope(z):
    """ln tanh′(z), however far z is from 0."""
    z = np.abs(np.asarray(z, np.float64))
    return math.log(4) - 2 * z - 2 * np.log1p(np.exp(-2 * z))


def settled(w):
    """The fixed point of h = tanh(w h), where the exponent is ln w + ln tanh′(w h)."""
    h = 1.0
    for _ in range(1000):
        h = math.tanh(w * h)
    return math.log(w) + float(log_slope(w * h))


def sech_squared(z):
    return 4 * np.exp(-2 * np.abs(z)) / (1 + np.exp(-2 * np.abs(z))) ** 2


def bell(z):
    return np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))) ** 2


# ---- the slopes themselves ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (jnp.tanh, sech_squared),
        (jax.nn.sigmoid, bell),
        (jax.lax.logistic, bell),
        (jax.jit(lambda z: jnp.tanh(z)), sech_squared),
        (jax.checkpoint(jax.nn.sigmoid), bell),
        (lambda z: jax.lax.cond(z[0] > -99, jnp.tanh, jnp.sin, z), sech_squared),
        (
            lambda z: jax.lax.scan(lambda c, _: (c, jnp.tanh(c)), z, length=2)[1][1],
            sech_squared,
        ),
    ],
)
def test_slopes_keep_their_digits_however_far_a_unit_is_saturated(function, slope):
    z = jnp.asarray([-40.0, -15.0, -8.5, -2.0, -0.1, 0.0, 0.3, 5.0, 9.0, 20.0, 40.0])
    value, found = jax.jvp(steady(function), (z,), (jnp.ones_like(z),))
    np.testing.assert_array_equal(value, function(z))
    wide = np.asarray(z, np.float64)
    np.testing.assert_allclose(found, slope(wide), rtol=100 * float(jnp.finfo(z.dtype).eps))
    back = jax.grad(lambda z: steady(function)(z).sum())(z)
    np.testing.assert_allclose(back, found, rtol=1e-6)


def test_elu_below_0_keeps_its_slope():
    found = jax.grad(steady(jax.nn.elu))(-30.0)
    np.testing.assert_allclose(float(found), math.exp(-30), rtol=1e-5)


def test_second_and_third_derivatives_are_right_at_0_and_beside_it():
    def third(function):
        return jax.vmap(jax.grad(jax.grad(jax.grad(function))))

    z = jnp.asarray([-1.0, 0.0, 0.5])
    for function in (jnp.tanh, jax.nn.sigmoid):
        np.testing.assert_allclose(third(steady(function))(z), third(function)(z), atol=1e-5)


def test_a_derivative_of_a_users_own_is_kept_and_parameters_are_differentiated():
    @jax.custom_jvp
    def own(z):
        return jnp.tanh(z)

    own.defjvps(lambda dz, y, z: 7 * dz)
    found = jax.jit(jax.grad(lambda w: steady(lambda z: own(w * z))(2.0)))(1.0)
    assert float(found) == 14
    assert (
        steady(lambda tree: {"a": jnp.tanh(tree["a"]), "n": tree["n"] + 1})(
            {"a": jnp.zeros(2), "n": jnp.zeros((), int)}
        )["n"].item()
        == 1
    )


# ---- what reads them ------------------------------------------------------------------------------


@pytest.mark.parametrize("w", [2.0, 7.0, 12.0, 20.0])
def test_exponents_and_products_of_a_saturated_unit(w):
    step = lambda w, state, x: jnp.tanh(w * state)  # noqa: E731 - the system under test
    start = jnp.ones((1, 1))
    xs = jnp.zeros((1, 100, 0))
    found = jax.jit(lambda w: lyapunov(step, w, xs, state=start, discard=60))(w)
    np.testing.assert_allclose(found.exponents, settled(w), rtol=1e-5)
    assert not found.unconverged.any()
    products = jax.jit(lambda w: jacobian_products(step, w, xs, state=start))(w)
    rates = np.diff(np.asarray(products.log_singular[0, :20, 0]))
    np.testing.assert_allclose(rates, settled(w), rtol=1e-4)
    assert not products.unresolved.any()


@pytest.mark.slow
@pytest.mark.float32_only
def test_a_slope_that_is_no_number_of_the_dtype_is_not_called_exact():
    def step(w, state, x):
        return jnp.stack([jnp.tanh(w * state[:, 0]), 0.5 * state[:, 1]], axis=1)

    xs = jnp.zeros((1, 20, 0))
    found = jax.jit(lambda w: lyapunov(step, w, xs, state=jnp.ones((1, 2))))(60.0)
    assert found.exponents[0, 1] == -jnp.inf
    assert found.unconverged.tolist() == [[False, True]]
    dead = jax.jit(
        lambda w: lyapunov(lambda w, s, x: jax.nn.relu(w * s - 100), w, xs, state=jnp.ones((1, 1)))
    )(1.0)
    assert dead.exponents[0, 0] == -jnp.inf
    assert not dead.unconverged.any()


@pytest.mark.slow
@pytest.mark.float32_only
@pytest.mark.parametrize(("w", "open_"), [(10.0, False), (3000.0, True)])
def test_cancellation_inside_a_step_is_flagged(w, open_):
    """z / √(1 + z²) has the slope 1/√· − z²/√·³ to autodiff, which cancels more and more."""
    step = lambda w, s, x: w * s / jnp.sqrt(1 + (w * s) ** 2)  # noqa: E731
    start = jnp.ones((1, 1))
    xs = jnp.zeros((1, 8, 0))
    found = jax.jit(lambda w: lyapunov(step, w, jnp.zeros((1, 40, 0)), state=start))(w)
    products = jax.jit(lambda w: jacobian_products(step, w, xs, state=start))(w)
    plain = jax.jit(lambda w: jacobian_products(step, w, xs, state=start, small_ones=False))(w)
    assert bool(found.unconverged[0, 0]) is open_
    assert bool(products.unresolved[0, -1, 0]) is open_
    assert bool(plain.unresolved[0, -1, 0]) is open_


def saturating(cell, factor=9.0):
    """Parameters of a cell of 2 units whose units saturate, and a start that is saturated."""
    params = cell.init(jax.random.key(3), 1, jnp.result_type(float))
    return jax.tree.map(lambda leaf: factor * leaf, params)


def wide_jacobian(cell, params, state, x):
    """∂state′/∂state in NumPy float64 by complex steps, which neither cancel nor saturate early."""
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    flat = np.concatenate([np.asarray(part, np.float64).ravel() for part in state])
    columns = []
    for place in range(len(flat)):
        moved = flat.astype(complex)
        moved[place] += 1e-150j
        columns.append(_NUMPY[cell.name](weights, moved, np.asarray(x, np.float64)).imag / 1e-150)
    return np.stack(columns, axis=1)


def _tanh(z):
    """tanh of complex numbers z + i·tiny, with sech² in the imaginary part."""
    return np.tanh(z.real) + 1j * z.imag * sech_squared(z.real)


def _sigma(z):
    return 1 / (1 + np.exp(-z.real)) + 1j * z.imag * bell(z.real)


def _elman(p, h, x):
    return _tanh(x @ p["W_xh"] + h @ p["W_hh"] + p["b_h"])


def _gru(p, h, x):
    xs, hs = x @ p["W_xh"] + p["b_h"], h @ p["W_hh"] + p["b_hh"]
    (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(xs, 3), np.split(hs, 3)
    r, z = _sigma(x_r + h_r), _sigma(x_z + h_z)
    n = _tanh(x_n + r * h_n)
    return (1 - z) * n + z * h


def _gru_before(p, h, x):
    size = len(h)
    xs = x @ p["W_xh"] + p["b_h"] + p["b_hh"]
    r, z = np.split(_sigma(xs[: 2 * size] + h @ p["W_hh"][:, : 2 * size]), 2)
    n = _tanh(xs[2 * size :] + (r * h) @ p["W_hh"][:, 2 * size :])
    return (1 - z) * n + z * h


def _lstm(p, state, x):
    h, c = np.split(state, 2)
    i, f, g, o = np.split(x @ p["W_xh"] + h @ p["W_hh"] + p["b_h"], 4)
    c = _sigma(f) * c + _sigma(i) * _tanh(g)
    return np.concatenate([_sigma(o) * _tanh(c), c])


_NUMPY = {"elman": _elman, "gru": _gru, "gru_reset_before": _gru_before, "lstm": _lstm}


@pytest.mark.parametrize(
    "cell",
    [rr.cells.elman(2), rr.cells.gru(2), rr.cells.gru(2, reset="before"), rr.cells.lstm(2)],
    ids=lambda cell: cell.name,
)
def test_jacobians_of_every_cell_are_those_of_float64_where_it_saturates(cell):
    params = saturating(cell)
    start = jax.tree.map(lambda leaf: leaf + jnp.asarray([0.9, -0.8]), cell.initial_state(1))
    dtype = jnp.result_type(float)
    start = jax.tree.map(lambda leaf: leaf.astype(dtype), start)
    x = jnp.asarray([0.7], dtype)
    jacobians = jax.jit(step_jacobians, static_argnums=0)
    found = jacobians(cell, params, x[None, None], state=start)[0, 0]
    expected = wide_jacobian(cell, params, start, x)
    np.testing.assert_allclose(found, expected, rtol=3e-5, atol=3e-7 * np.abs(expected).max())
    net = rr.network([cell], None)
    of_net = jacobians(net, {"layer_0": params}, x[None, None], state={"layer_0": start})
    np.testing.assert_allclose(of_net[0, 0], found, rtol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradient_flow_of_saturated_units_is_measured(bidirectional):
    """Step by step, and by plain autodiff where a network has no single way back."""
    w, steps = 12.0, 3
    own = {"W_xh": jnp.ones((1, 1)), "W_hh": jnp.full((1, 1), w), "b_h": jnp.zeros(1)}
    net = rr.network([rr.layer(rr.cells.elman(1), bidirectional=bidirectional)], None)
    params = {"layer_0": {"forward": own, "backward": own} if bidirectional else own}
    xs = jnp.zeros((1, steps, 1)).at[0, 0, 0].set(3.0)
    h, expected = 0.0, 0.0
    for t in range(steps):
        z = w * h + float(xs[0, t, 0])
        expected += (math.log(w) + float(log_slope(z))) if t else 0
        h = math.tanh(z)
    first = lambda outputs, ys, mask=None, weights=None: jnp.sum(outputs[:, -1, 0])  # noqa: E731
    batch = rr.Batch(xs, jnp.zeros((1, steps, 2 if bidirectional else 1)))
    flow = jax.jit(lambda: gradient_flow(net, first, params, batch, step=None))()
    found = flow.log_ratio["layer_0"]
    found = found["forward"] if bidirectional else found
    np.testing.assert_allclose(found[-1], expected, rtol=1e-5)
