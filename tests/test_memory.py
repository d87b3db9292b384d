"""Fisher memory against closed forms and a sum, recall against a regression, windows against truncated runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance

import rnnreg as rr
from rnnreg.diagnostics import fisher_memory, memory_curve, sufficient_window

pytestmark = pytest.mark.numerics

KEY = jax.random.key(SEED)
RNG = np.random.default_rng(SEED)

# ---- Fisher memory --------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="num_lags")
def _fisher(W, v, noise=None, num_lags=12):
    return fisher_memory(W, v, num_lags=num_lags, noise=noise)


def _by_sums(W, v, noise, num_lags):
    """J(k) from 2000 terms of the series."""
    W, power = np.asarray(W, np.float64), np.eye(len(W))
    covariance, impulses = np.zeros_like(W), []
    for k in range(2000):
        covariance += power.T @ noise @ power
        if k < num_lags:
            impulses.append(v @ power)
        power = power @ W
    return np.array([row @ np.linalg.solve(covariance, row) for row in impulses])


@pytest.mark.parametrize("gain", [0.95, 1.0, 1.05])
def test_a_delay_line_has_its_closed_form(gain):
    size = 20
    memory = _fisher(gain * jnp.eye(size, k=1), jnp.eye(size)[0], num_lags=size + 2)
    k = np.arange(size)
    expected = (
        1 / (k + 1) if gain == 1 else gain ** (2 * k) * (gain**2 - 1) / (gain ** (2 * (k + 1)) - 1)
    )
    assert bool(memory.converged)
    np.testing.assert_allclose(memory.curve, np.append(expected, [0, 0]), **tolerance())
    np.testing.assert_allclose(memory.total, expected.sum(), **tolerance())
    np.testing.assert_allclose(np.trace(memory.spatial), size, **tolerance())


@pytest.mark.parametrize("noisy", [False, True])
def test_the_curve_is_the_sum_that_defines_it(noisy):
    W = RNG.normal(size=(5, 5))
    W *= 0.8 / np.abs(np.linalg.eigvals(W)).max()
    factor, v = RNG.normal(size=(5, 5)), RNG.normal(size=5)
    noise = factor @ factor.T if noisy else np.eye(5)
    memory = _fisher(jnp.asarray(W), jnp.asarray(v), jnp.asarray(noise) if noisy else None)
    close = tolerance(loosen=100 if noisy else 10)  # C has a condition number of some hundreds
    np.testing.assert_allclose(memory.curve, _by_sums(W, v, noise, 12), **close)
    assert memory.curve.dtype == jnp.zeros(0).dtype
    np.testing.assert_allclose(memory.total, _by_sums(W, v, noise, 400).sum(), **close)


@pytest.mark.parametrize("kind", ["symmetric", "orthogonal", "rotations"])
def test_a_normal_network_has_a_total_of_one_in_every_direction(kind):
    W = RNG.normal(size=(6, 6))
    if kind == "symmetric":
        W = W + W.T
    else:
        W = np.linalg.qr(W)[0]
    if kind == "rotations":  # blocks of different radii in an orthonormal basis
        blocks = np.kron(np.diag([0.3, 0.6, 1.0]), np.array([[0.8, 0.6], [-0.6, 0.8]]))
        W = W.T @ blocks @ W
    W *= 0.9 / np.abs(np.linalg.eigvals(W)).max()
    v = RNG.normal(size=6)
    memory = _fisher(jnp.asarray(W), jnp.asarray(v / np.linalg.norm(v)))
    np.testing.assert_allclose(memory.total, 1, **tolerance(loosen=10))
    np.testing.assert_allclose(memory.spatial, np.eye(6), **tolerance(loosen=10))


def test_noise_along_the_input_alone_hides_what_the_line_forgets():
    first = jnp.eye(6)[0]
    memory = _fisher(jnp.eye(6, k=1), first, jnp.outer(first, first))
    np.testing.assert_allclose(memory.curve, [1] * 6 + [0] * 6, **tolerance())


@pytest.mark.parametrize("W", [np.eye(3), 1.1 * np.eye(3), np.diag([0.5, 2.0, -3.0])])
def test_a_network_without_a_stationary_state_is_flagged(W):
    assert not bool(_fisher(jnp.asarray(W), jnp.ones(3)).converged)


TURN = np.array([[0.8, -0.6], [0.6, 0.8]])


@pytest.mark.parametrize(
    ("W", "noise"),
    [
        (np.diag([0.5, 0.3]), np.diag([1.0, 0.0])),  # the second unit is without noise
        (TURN.T @ np.diag([0.5, 0.3]) @ TURN, TURN.T @ np.diag([1.0, 0.0]) @ TURN),
        (np.diag([0.5, 0.3]), -np.eye(2)),
        (np.diag([0.5, 0.3]), np.diag([1.0, np.nan])),
    ],
)
def test_noise_that_leaves_a_state_without_noise_is_flagged(W, noise):
    assert not bool(_fisher(jnp.asarray(W), jnp.ones(2), jnp.asarray(noise)).converged)


def test_whole_numbers_are_a_network_too():
    memory = fisher_memory(np.eye(4, k=1, dtype=int), [1, 0, 0, 0], num_lags=5)
    np.testing.assert_allclose(memory.curve, [1, 1 / 2, 1 / 3, 1 / 4, 0], **tolerance())
    assert memory.curve.dtype == jnp.zeros(0).dtype


@pytest.mark.parametrize(
    ("W", "v", "options", "message"),
    [
        (np.ones((3, 6)), np.ones(3), {}, "W must be a square matrix"),
        (np.ones((3, 3)), np.ones(2), {}, r"v must be \[3\]"),
        (np.ones((3, 3)), np.ones(3), {"noise": np.ones(3)}, r"noise \[3, 3\]"),
        (
            np.ones((3, 3)),
            np.ones(3),
            {"num_lags": 0},
            "num_lags must be at least 1, a whole number; got 0",
        ),
        (
            np.ones((3, 3)),
            np.ones(3),
            {"num_lags": 2.5},
            "num_lags must be a whole number; got 2.5",
        ),
        (
            np.ones((3, 3)),
            np.ones(3),
            {"num_doublings": -1},
            "num_doublings must be at least 1, a whole number; got -1",
        ),
        (1j * np.ones((3, 3)), np.ones(3), {}, "W holds complex numbers"),
        (np.ones((3, 3)), 1j * np.ones(3), {}, "v holds complex numbers"),
    ],
)
def test_fisher_memory_names_what_does_not_fit(W, v, options, message):
    with pytest.raises(ValueError, match=message):
        fisher_memory(W, v, **({"num_lags": 3} | options))


@pytest.mark.slow
def test_fisher_memory_is_strict_about_ranks_and_dtypes():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert bool(fisher_memory(0.5 * jnp.eye(3), jnp.ones(3), num_lags=3).converged)


# ---- memory curve ---------------------------------------------------------------------------------


def _line(params, state, x):
    del params
    return jnp.concatenate([x[:, :1], state[:, :-1]], axis=1)


INPUTS = jnp.asarray(np.random.default_rng(2).normal(size=(6, 200, 2)))


@functools.partial(jax.jit, static_argnames=("num_lags", "size", "channel"))
def _recall_of_a_line(key, num_lags=8, size=5, channel=0):
    xs = INPUTS
    return memory_curve(
        _line,
        None,
        xs,
        key=key,
        num_lags=num_lags,
        channel=channel,
        state=jnp.zeros((len(xs), size)),
    )


def test_a_delay_line_recalls_as_many_inputs_as_it_has_units():
    memory = _recall_of_a_line(KEY)
    assert memory.num_rows == 6 * (200 - 7)
    np.testing.assert_allclose(memory.recall[:5], 1, **tolerance())
    # R² of 5 regressors on unrelated inputs has mean 5/M and standard deviation about √10/M
    spread = np.sqrt(10) / memory.num_rows
    np.testing.assert_allclose(memory.recall[5:], 0, atol=5 * spread)
    np.testing.assert_allclose(memory.baseline, 5 / memory.num_rows, atol=5 * spread)
    np.testing.assert_allclose(memory.capacity, 5, atol=15 * spread)
    other = _recall_of_a_line(KEY, channel=1)  # never enters the line
    np.testing.assert_allclose(other.recall, 0, atol=5 * spread)


def test_r_squared_is_that_of_a_least_squares_fit():
    cell = rr.cells.elman(4)
    params, xs = cell.init(KEY, 2), INPUTS
    memory = jax.jit(lambda: memory_curve(cell, params, xs, key=KEY, num_lags=4, washout=10))()
    W_xh, W_hh = (np.asarray(params[name], np.float64) for name in ("W_xh", "W_hh"))
    h, states = np.zeros((6, 4)), []
    for t in range(200):
        h = np.tanh(np.asarray(xs[:, t], np.float64) @ W_xh + h @ W_hh)
        states.append(h)
    design = np.stack(states, axis=1)[:, 10:].reshape(-1, 4)
    design = np.column_stack([design, np.ones(len(design))])
    for k in range(4):
        target = np.asarray(xs[:, 10 - k : 200 - k, 0], np.float64).ravel()
        fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
        expected = 1 - np.sum((target - fitted) ** 2) / np.sum((target - target.mean()) ** 2)
        np.testing.assert_allclose(memory.r_squared[k], expected, **tolerance(loosen=10))


def test_ridge_takes_recall_away_and_a_dead_state_has_none():
    def faint(params, state, x):  # the second unit remembers, at a thousandth of the size
        return jnp.stack([x[:, 0], 1e-3 * state[:, 0]], axis=1)

    def curve(step, ridge):
        start = jnp.zeros((6, 2))
        options = {"key": KEY, "num_lags": 2, "state": start, "ridge": ridge}
        return jax.jit(lambda: memory_curve(step, None, INPUTS, **options))().recall

    np.testing.assert_allclose(curve(faint, 0.0), [1, 1], **tolerance(loosen=10))
    assert float(curve(faint, 1e-3)[1]) < 0.01
    np.testing.assert_array_equal(curve(lambda params, state, x: 0 * state, 0.0), [0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [10, 400])
def test_more_rows_lose_no_direction_of_the_states(num_rows):
    def faint_line(params, state, x):  # the last unit is 0.6¹⁹ = 6e-5 of the first
        return jnp.concatenate([x, 0.6 * state[:, :-1]], axis=1)

    xs = jax.random.normal(KEY, (num_rows, 100, 1))
    options = {"key": KEY, "num_lags": 25, "num_surrogates": 5, "state": jnp.zeros((num_rows, 20))}
    memory = jax.jit(lambda: memory_curve(faint_line, None, xs, **options))()
    np.testing.assert_allclose(memory.r_squared[:20], 1, atol=1e-4)
    # R² of an unseen lag has sd √40/M; the five share most of their terms, so their sum has up to 5 of that
    np.testing.assert_allclose(memory.capacity, 20, atol=4 * 5 * np.sqrt(40) / memory.num_rows)
    assert int(memory.num_dropped) == 0


def test_directions_that_rounding_makes_are_dropped_and_counted():
    def copies(params, state, x):  # two units say the same, the third is a millionth of a millionth
        return jnp.stack([x[:, 0], 3 * x[:, 0], 1e-12 * state[:, 0]], axis=1)

    options = {"key": KEY, "num_lags": 2, "state": jnp.zeros((6, 3))}
    memory = jax.jit(lambda: memory_curve(copies, None, INPUTS, **options))()
    exact = memory.recall.dtype == jnp.float64  # where 1e-12 is more than rounding
    assert int(memory.num_dropped) == (1 if exact else 2)
    np.testing.assert_allclose(memory.recall, [1, 1 if exact else 0], atol=1e-2)


def test_surrogates_depend_on_the_key_and_nothing_else_does():
    one, two = _recall_of_a_line(KEY), _recall_of_a_line(jax.random.key(1))
    np.testing.assert_array_equal(one.r_squared, two.r_squared)
    assert (np.asarray(one.surrogates) != np.asarray(two.surrogates)).any()


@pytest.mark.slow
@pytest.mark.parametrize(("num_rows", "num_steps"), [(1, 345), (2, 345), (4, 200)])
def test_surrogates_are_inputs_that_the_states_have_not_seen(num_rows, num_steps):
    size = 100  # more than a quarter of the steps
    xs = jax.random.normal(KEY, (num_rows, num_steps, 1))
    options = {"key": KEY, "num_lags": 10, "state": jnp.zeros((num_rows, size))}
    memory = jax.jit(lambda: memory_curve(_line, None, xs, **options))()
    # shifts that are near each other share most of their terms, so a mean of 20 is no better than one
    chance, spread = size / memory.num_rows, np.sqrt(2 * size) / memory.num_rows
    np.testing.assert_allclose(memory.baseline, chance, atol=3 * spread)
    assert float(memory.surrogates.max()) < chance + 6 * spread
    np.testing.assert_allclose(memory.recall, 1, **tolerance())


@pytest.mark.slow
def test_no_surrogate_of_a_short_sequence_is_the_sequence_itself():
    xs = jax.random.normal(KEY, (8, 1, 1))
    memory = memory_curve(_line, None, xs, key=KEY, num_lags=1, state=jnp.zeros((8, 1)))
    np.testing.assert_allclose(memory.recall, 1, **tolerance())
    assert float(memory.surrogates.max()) < 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel": 2}, "channel must lie in 0 … 1.* got 2. xs has 2 channels"),
        ({"channel": 0.5}, "channel must be a whole number; got 0.5"),
        ({"num_lags": 0}, "num_lags must be at least 1, a whole number; got 0"),
        ({"num_lags": 2.5}, "num_lags must be a whole number; got 2.5"),
        ({"num_surrogates": True}, "num_surrogates must be a whole number; got True"),
        ({"washout": 1.5}, "washout must be a whole number; got 1.5"),
        ({"ridge": float("nan")}, "ridge must be a number; got nan"),
        ({"washout": 199}, "6 pairs of state and input are too few to fit 5 state variables"),
        (
            {"xs": INPUTS[:1, :20]},
            "one sequence of 18 steps is too short for surrogates .* 24 steps",
        ),
        ({"xs": jnp.zeros((3, 4))}, r"xs must be \[B, T, D\] real numbers"),
    ],
)
def test_memory_curve_names_what_does_not_fit(options, message):
    options = {"xs": INPUTS, "num_lags": 3} | options
    xs = options.pop("xs")
    with pytest.raises(ValueError, match=message):
        memory_curve(_line, None, xs, key=KEY, state=jnp.zeros((len(xs), 5)), **options)


# ---- sufficient window ----------------------------------------------------------------------------


def test_the_window_of_a_leaky_unit_is_the_logarithm_of_the_tolerance():
    def leaky(params, state, x):
        return params * state + x

    def found(decay):
        xs, start = jnp.ones((3, 60, 1)), jnp.zeros((3, 1))
        return sufficient_window(
            leaky, decay, xs, tolerance=1e-3, windows=range(1, 40), state=start
        )

    record = jax.jit(found)(0.6)
    windows = np.arange(1, 40)
    exact = (0.6**windows - 0.6**60) / 0.4
    np.testing.assert_allclose(record.deviation[:, 0], exact, **tolerance())
    assert record.window.tolist() == [int(windows[exact <= 1e-3][0])] * 3
    assert int(record.whole) == record.window[0]
    lasting = jax.jit(found)(0.99)
    assert int(lasting.whole) == -1  # censored, not 39
    assert lasting.window.tolist() == [-1] * 3


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_a_truncated_run_is_the_network_on_the_last_inputs(cell):
    net = rr.network([getattr(rr.cells, cell)(3), rr.cells.elman(2)], 2)
    params, xs = net.init(KEY, 2), INPUTS[:, :9]
    record = jax.jit(lambda: sufficient_window(net, params, xs, tolerance=0.01))()
    assert record.windows.tolist() == [1, 2, 4, 8]
    xs = np.asarray(xs)
    cuts = jax.jit(lambda: [net.apply(params, xs[:, -n:]).outputs[:, -1] for n in (1, 2, 4, 8, 9)])
    *cuts, whole = (np.asarray(outputs, np.float64) for outputs in cuts())
    for place, cut in enumerate(cuts):
        expected = np.linalg.norm(cut - whole, axis=1)
        np.testing.assert_allclose(record.deviation[place], expected, **tolerance())


def test_a_network_of_tokens_has_a_window_and_no_linear_recall():
    net = rr.network([rr.cells.elman(3)], 2, embedding=(5, 4))
    params, tokens = net.init(KEY), np.arange(36).reshape(4, 9) % 5
    windows = np.array([3, 9])
    record = jax.jit(
        lambda params: sufficient_window(net, params, tokens, tolerance=0.01, windows=windows)
    )(params)
    apply = jax.jit(net.apply)
    part, whole = (np.asarray(apply(params, tokens[:, -n:]).outputs[:, -1]) for n in (3, 9))
    expected = [np.linalg.norm(part - whole, axis=1), np.zeros(4)]
    np.testing.assert_allclose(record.deviation, expected, **tolerance())
    with pytest.raises(ValueError, match=r"recalls real inputs .* whole numbers of shape \(4, 9\)"):
        memory_curve(net, params, tokens, key=KEY, num_lags=2)
    real = rr.network([rr.cells.elman(3)], 2)
    with pytest.raises(ValueError, match=r"xs must be \[B, T, D\] real numbers"):
        sufficient_window(real, real.init(KEY, 1), tokens, tolerance=0.01)


@pytest.mark.slow
def test_inputs_may_be_lists():
    xs = INPUTS[:2, :4].tolist()
    record = sufficient_window(_line, None, xs, tolerance=0.1, state=jnp.zeros((2, 2)))
    assert record.window.tolist() == [2, 2]
    assert memory_curve(_line, None, xs, key=KEY, num_lags=1, state=jnp.zeros((2, 2))).num_rows == 8


def test_a_window_that_fits_by_chance_is_not_taken():
    def rotation(params, state, x):  # by 90 degrees a step: every fourth window deviates by nothing
        return jnp.stack([-state[:, 1], state[:, 0]], axis=1) + 0 * x

    start = jnp.array([[1.0, 0.0]])
    xs = jnp.zeros((1, 8, 1))
    options = {"tolerance": 0.1, "windows": [3, 4, 5, 8], "state": start}
    record = sufficient_window(rotation, None, xs, **options)
    assert record.window.tolist() == [8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "tolerance must be positive; got 0.0"),
        ({"tolerance": float("nan")}, "tolerance must be a number; got nan"),
        ({"windows": [0, 2]}, "windows must be whole numbers in 1 … 9"),
        ({"windows": [10]}, "windows must be whole numbers in 1 … 9"),
        (
            {"windows": [1.7]},
            r"windows must hold whole numbers; got 1.7",
        ),
        ({"windows": []}, "windows must be whole numbers in 1 … 9"),
        ({"windows": 4}, "windows must be a list of whole numbers or None; got 4"),
    ],
)
def test_sufficient_window_names_what_does_not_fit(options, message):
    options = {"tolerance": 0.1} | options
    with pytest.raises(ValueError, match=message):
        sufficient_window(_line, None, INPUTS[:, :9], state=jnp.zeros((6, 5)), **options)
