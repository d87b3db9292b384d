"""One table of cells; each property is written once and holds for all of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance

import rnnreg as rr
from rnnreg.cells import HiddenState
from rnnreg.recurrence import unroll

pytestmark = pytest.mark.numerics

D, H, B, T = 3, 4, 2, 5


def _scaled_step(params, state, x):
    """A user's own step, whose product does not come first: h normalised before W_hh."""
    h = state.h / (1 + jnp.abs(state.h))
    return HiddenState(h=jnp.tanh(x @ params["W_xh"] + h @ params["W_hh"] + params["b_h"][None]))


CELLS = {
    "elman_tanh": rr.cells.elman(H),
    "elman_relu": rr.cells.elman(H, activation=jax.nn.relu),
    "elman_linear": rr.cells.elman(H, activation=lambda z: z),
    "irnn": rr.cells.irnn(H),
    "gru_after": rr.cells.gru(H),
    "gru_after_one_bias": rr.cells.gru(H, recurrent_bias=False),
    "gru_before": rr.cells.gru(H, reset="before"),
    "gru_before_one_bias": rr.cells.gru(H, reset="before", recurrent_bias=False),
    "lstm": rr.cells.lstm(H),
    "own_step": rr.cells.from_step(
        _scaled_step,
        init=rr.cells.elman(H).init,
        initial_state=rr.cells.elman(H).initial_state,
        hidden_size=H,
        name="own",
    ),
}

DTYPES = [
    jnp.bfloat16,
    jnp.float32,
    pytest.param(jnp.float64, marks=pytest.mark.float64_only),
]

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())


# Compiled once a cell and dtype, whichever test asks first: a cell is hashable, so it can be static.
_run = jax.jit(unroll, static_argnums=0)


def _inputs(cell, seed=0, dtype=None):
    """Parameters (no leaf at 0, where a wrong bias could not be seen), inputs and a state."""
    rng = np.random.default_rng(seed)
    dtype = jnp.result_type(float) if dtype is None else dtype

    def draw(leaf):
        return jnp.asarray(0.5 * rng.normal(size=leaf.shape), dtype)

    shapes = jax.eval_shape(lambda key: cell.init(key, D), jax.random.key(0))
    state = jax.eval_shape(lambda: cell.initial_state(B))
    return jax.tree.map(draw, shapes), 2 * draw(np.zeros((T, B, D))), jax.tree.map(draw, state)


def _last_h(cell, params, xs, state):
    return _run(cell, params, xs, state)[0].h


def _wave(cell, params, xs, state):
    return jnp.sum(jnp.sin(_run(cell, params, xs, state)[1].h))


_gradient = jax.jit(jax.grad(_wave, argnums=(1, 2, 3)), static_argnums=0)


@every_cell
def test_pytree_round_trip_and_names(cell):
    params, _, state = _inputs(cell)
    for tree in (params, state):
        leaves, treedef = jax.tree.flatten(tree)
        again = jax.tree.unflatten(treedef, leaves)
        assert type(again) is type(tree)
        assert jax.tree.structure(again) == treedef
    assert {"W_xh", "W_hh", "b_h"} <= params.keys() <= {"W_xh", "W_hh", "b_h", "b_hh"}
    gates = params["W_hh"].shape[1] // H
    assert gates == {"gru": 3, "gru_reset_before": 3, "lstm": 4}.get(cell.name, 1)
    assert params["W_xh"].shape == (D, gates * H)
    assert params["W_hh"].shape == (H, gates * H)
    assert state.h.shape == (B, H)  # the output is always the field h
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(cell.initial_state(B)))
    made = cell.init(jax.random.key(0), D)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
    assert np.asarray(made["W_xh"]).any()
    assert np.asarray(made["W_hh"]).any()


@every_cell
def test_jit_equals_eager(cell):
    inputs = _inputs(cell)
    eager, jitted = unroll(cell, *inputs), _run(cell, *inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance()), eager, jitted)


@every_cell
def test_vmap_over_parameters_equals_a_loop(cell):
    """What a sweep does: the same inputs, another set of weights a lane."""
    _, xs, state = _inputs(cell)
    tables = [_inputs(cell, seed)[0] for seed in range(3)]
    lanes = jax.tree.map(lambda *leaves: np.stack(leaves), *tables)
    together = jax.jit(jax.vmap(lambda params: unroll(cell, params, xs, state)))(lanes)
    for lane, params in enumerate(tables):
        alone = _run(cell, params, xs, state)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[lane], b, **tolerance()), together, alone
        )
    assert not np.allclose(together[0].h[0], together[0].h[1])  # the lanes differ


@every_cell
def test_rows_of_a_batch_do_not_mix(cell):
    params, xs, state = _inputs(cell)
    whole = _run(cell, params, xs, state)[1].h
    other = jax.tree.map(lambda leaf: leaf.at[0].set(9.0), state)
    changed = _run(cell, params, xs.at[:, 0].set(-7.0), other)[1].h
    np.testing.assert_array_equal(changed[:, 1], whole[:, 1])
    assert not np.allclose(changed[:, 0], whole[:, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@every_cell
def test_dtype_is_kept(cell, dtype):
    inputs = _inputs(cell, dtype=dtype)

    def everything(*inputs):
        gradient = jax.grad(_wave, argnums=1)(cell, *inputs)
        return unroll(cell, *inputs), gradient, cell.initial_state(B, dtype)

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        shapes = jax.eval_shape(everything, *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(dtype)}
    assert np.isfinite(np.asarray(_last_h(cell, *inputs), np.float32)).all()


@pytest.mark.parametrize("start", ["given", "zeros"])
@every_cell
def test_gradients_are_finite_and_reach_every_leaf(cell, start):
    inputs = _inputs(cell)
    if start == "zeros":  # every pre-activation is 0, the kink of a relu
        inputs = jax.tree.map(jnp.zeros_like, inputs)
    for leaf in jax.tree.leaves(_gradient(cell, *inputs)):
        assert np.isfinite(leaf).all()
        if start == "given":
            assert np.asarray(leaf).any()


@pytest.mark.float64_only
@every_cell
def test_gradient_equals_finite_differences(cell):
    """Central differences along one direction of all arguments."""
    inputs = _inputs(cell)
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), inputs)

    def value(step):
        moved = jax.tree.map(lambda leaf, d: np.asarray(leaf) + step * d, inputs, direction)
        return np.sin(_run(cell, *moved)[1].h).sum()

    products = jax.tree.map(lambda g, d: np.sum(g * d), _gradient(cell, *inputs), direction)
    # The difference is wrong by step² f'''/6 and by rounding / step, both near 1e-10 of values near 100.
    # (A relu is smooth here too: no pre-activation lies within a step of its kink.)
    step, limit = 1e-5, 1e-6
    numeric = (value(step) - value(-step)) / (2 * step)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), numeric, rtol=limit, atol=limit)


def test_the_two_resets_agree_where_they_must_and_differ_elsewhere():
    """With r = 1 (a large b_r) before and after are the same function; else they are not."""
    after, before = CELLS["gru_after_one_bias"], CELLS["gru_before_one_bias"]
    params, xs, state = _inputs(after)
    open_reset = params | {"b_h": params["b_h"].at[:H].set(100.0)}
    one, two = (_last_h(cell, open_reset, xs, state) for cell in (after, before))
    np.testing.assert_allclose(one, two, **tolerance())
    one, two = (_last_h(cell, params, xs, state) for cell in (after, before))
    assert np.abs(one - two).max() > 1e-3


def test_recurrent_bias_sits_inside_the_reset():
    """b_hh of the candidate is multiplied by r when the reset comes after; b_h is not."""
    cell = CELLS["gru_after"]
    params, xs, state = _inputs(cell)
    zeros = jnp.zeros_like(params["b_h"])
    candidate = zeros.at[2 * H :].set(1.0)
    closed = params | {"b_h": zeros.at[:H].set(-100.0), "b_hh": zeros}  # r = 0
    base = _last_h(cell, closed, xs, state)
    inside = _last_h(cell, closed | {"b_hh": candidate}, xs, state)
    outside = _last_h(cell, closed | {"b_h": closed["b_h"] + candidate}, xs, state)
    np.testing.assert_allclose(inside, base, **tolerance())
    assert np.abs(outside - base).max() > 1e-2


def test_gate_order_is_the_documented_one():
    """An update gate of 1 (GRU) and a forget gate of 1 with input gate 0 (LSTM) hold the state."""
    xs = jnp.ones((T, B, D))
    gru, lstm = CELLS["gru_after_one_bias"], CELLS["lstm"]
    zeros = jax.tree.map(jnp.zeros_like, gru.init(jax.random.key(0), D))
    start = HiddenState(h=jnp.full((B, H), 0.7))
    held = zeros | {"b_h": zeros["b_h"].at[H : 2 * H].set(100.0)}
    np.testing.assert_allclose(_last_h(gru, held, xs, start), 0.7, rtol=1e-6)

    zeros = jax.tree.map(jnp.zeros_like, lstm.init(jax.random.key(0), D))
    bias = zeros["b_h"].at[:H].set(-100.0).at[H : 2 * H].set(100.0).at[3 * H :].set(100.0)
    state = rr.cells.LSTMState(h=jnp.zeros((B, H)), c=jnp.full((B, H), 0.7))
    final, _ = _run(lstm, zeros | {"b_h": bias}, xs, state)
    np.testing.assert_allclose(final.c, 0.7, rtol=1e-6)
    np.testing.assert_allclose(final.h, np.tanh(0.7), rtol=1e-6)  # the output gate is open


# ---- initialisers ---------------------------------------------------------------------------------


def _recurrent(init, key, hidden_size=H, make=rr.cells.elman):
    dtype = jnp.result_type(float)
    return make(hidden_size, recurrent_init=init).init(key, D, dtype)["W_hh"]


@pytest.mark.parametrize("gain", [1.0, 0.9, 1.5])
def test_orthogonal_blocks_have_singular_values_of_the_gain(gain, key):
    for make, gates in ((rr.cells.elman, 1), (rr.cells.gru, 3), (rr.cells.lstm, 4)):
        W = _recurrent(rr.cells.orthogonal(gain), key, 6, make)
        blocks = np.split(np.asarray(W), gates, axis=1)
        for block in blocks:
            values = np.linalg.svd(block, compute_uv=False)
            np.testing.assert_allclose(values, gain, **tolerance())
        for one, two in itertools.pairwise(blocks):
            assert not np.allclose(one, two)  # each gate draws its own


def test_gaussian_entries_have_standard_deviation_gain_over_root_of_hidden_size(key):
    hidden_size, gain = 100, 1.3
    W = np.asarray(_recurrent(rr.cells.gaussian(gain), key, hidden_size))
    expected = gain / np.sqrt(hidden_size)
    # n normal draws: the mean has standard error s / √n, the standard deviation s / √(2n)
    assert abs(W.mean()) < 4 * expected / np.sqrt(W.size)
    assert abs(W.std() - expected) < 4 * expected / np.sqrt(2 * W.size)
    # circular law: the spectral radius tends to the gain, with fluctuations of order H^(-1/2)
    radius = np.abs(np.linalg.eigvals(W)).max()
    assert abs(radius - gain) < 2 * gain / np.sqrt(hidden_size)


@pytest.mark.parametrize("name", ["glorot_uniform", "glorot_normal"])
def test_glorot_variance_is_two_over_fans(name, key):
    rows, columns, gain = 60, 140, 1.7
    init = {"glorot_uniform": rr.cells.glorot_uniform, "glorot_normal": rr.cells.glorot_normal}
    W = np.asarray(init[name](gain)(key, (rows, columns), jnp.float32))
    expected = gain * np.sqrt(2 / (rows + columns))
    assert abs(W.std() - expected) < 4 * expected / np.sqrt(2 * W.size)
    if name == "glorot_uniform":
        limit = gain * np.sqrt(6 / (rows + columns))
        assert 0.99 * limit < np.abs(W).max() <= limit


def test_identity_and_irnn(key):
    W = _recurrent(rr.cells.identity(0.5), key)
    np.testing.assert_array_equal(W, 0.5 * np.eye(H))
    params = rr.cells.irnn(50, gain=0.8, input_stddev=0.1).init(key, 40)
    np.testing.assert_allclose(params["W_hh"], 0.8 * np.eye(50), rtol=1e-6)
    assert abs(np.std(params["W_xh"]) - 0.1) < 4 * 0.1 / np.sqrt(2 * 50 * 40)
    assert not np.asarray(params["b_h"]).any()


@pytest.mark.parametrize("name", ["orthogonal", "gaussian", "identity", "glorot_uniform"])
def test_a_traced_gain_equals_a_number(name, key):
    """So that the gain can be an axis of a sweep, with one compilation."""
    make = getattr(rr.cells, name)
    traces = []

    @jax.jit
    def init(gain):
        traces.append(gain)
        return _recurrent(make(gain), key)

    for gain in (0.5, 1.25):
        np.testing.assert_allclose(init(gain), _recurrent(make(gain), key), **tolerance())
    assert len(traces) == 1
    np.testing.assert_allclose(init(2.0), 2.0 * init(1.0), **tolerance())
    np.testing.assert_array_equal(_recurrent(name, key), _recurrent(make(1.0), key))


@pytest.mark.parametrize("forget_bias", [0.0, 1.0, 2.5])
def test_lstm_forget_bias_is_the_second_block(forget_bias, key):
    expected = np.repeat([0.0, forget_bias, 0.0, 0.0], H)
    bias = rr.cells.lstm(H, forget_bias=forget_bias).init(key, D)["b_h"]
    np.testing.assert_array_equal(bias, expected)
    traced = jax.jit(lambda f: rr.cells.lstm(H, forget_bias=f).init(key, D)["b_h"])(forget_bias)
    np.testing.assert_array_equal(traced, expected)


@pytest.mark.parametrize("name", ["orthogonal", "gaussian", "glorot_normal", "identity"])
def test_initialisers_draw_in_bfloat16(name, key):
    W = rr.cells.elman(H, recurrent_init=name).init(key, D, jnp.bfloat16)["W_hh"]
    assert W.dtype == jnp.bfloat16
    assert np.isfinite(np.asarray(W, np.float32)).all()


# ---- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [rr.cells.elman, rr.cells.irnn, rr.cells.gru, rr.cells.lstm])
@pytest.mark.parametrize("hidden_size", [0, -3, 2.0])
def test_hidden_size_must_be_a_positive_int(make, hidden_size):
    with pytest.raises(
        ValueError,
        match=r"hidden_size must be .*a whole number.*static axis|hidden_size must be a whole number; got",
    ):
        make(hidden_size)


def test_unknown_names_are_listed(key):
    with pytest.raises(ValueError, match=r"unknown initialiser, 'orthogonl'.*'orthogonal'"):
        rr.cells.elman(H, recurrent_init="orthogonl").init(key, D)
    with pytest.raises(ValueError, match="reset must be 'after' or 'before'"):
        rr.cells.gru(H, reset="both")


@pytest.mark.parametrize("name", ["gru_before", "own_step"])
def test_recurrent_dropout_needs_a_gate(name):
    cell = CELLS[name]
    with pytest.raises(ValueError, match="recurrent dropout needs a cell with a gate"):
        unroll(cell, *_inputs(cell), recurrent_mask=jnp.ones((B, H)))
