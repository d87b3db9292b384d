"""Networks against runs by hand; padding, dropout, states that go on, and forecasts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance

import rnnreg as rr
from rnnreg.cells import HiddenState
from rnnreg.networks._dropout import uniform_24_bits

pytestmark = pytest.mark.numerics

B, T, D, H, O = 3, 6, 2, 4, 2


def _leaky(params, state, x):
    """A cell of a user's own: no gate, and leaves with names of its own."""
    new = jnp.tanh(x @ params["W_in"] + state.h * params["decay"][None] + params["b_in"][None])
    return HiddenState(h=0.5 * state.h + 0.5 * new)


def _leaky_init(key, input_size, dtype):
    return {
        "W_in": jax.random.normal(key, (input_size, H), dtype),
        "decay": jnp.full(H, 0.5, dtype),
        "b_in": jnp.zeros(H, dtype),
    }


CELLS = {
    "elman": rr.cells.elman(H),
    "gru": rr.cells.gru(H),
    "gru_before": rr.cells.gru(H, reset="before"),
    "lstm": rr.cells.lstm(H),
    "own": rr.cells.from_step(
        _leaky,
        init=_leaky_init,
        initial_state=rr.cells.elman(H).initial_state,
        hidden_size=H,
        name="leaky",
        decayed=("W_in", "decay"),
    ),
}
# Plain pytest tries one cell that runs fused and the one that has no gate.
every_cell = pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, id=name, marks=[] if name in ("gru", "own") else pytest.mark.slow)
        for name, cell in CELLS.items()
    ],
)

STACKS = {
    "one": [CELLS["elman"]],
    "stacked": [CELLS["gru"], CELLS["lstm"]],
    "tied": [CELLS["elman"], rr.layer(CELLS["gru"], repeat=2)],
    "bidirectional": [rr.layer(CELLS["lstm"], bidirectional=True), CELLS["own"]],
    "last_bidirectional": [CELLS["own"], rr.layer(CELLS["gru"], bidirectional=True)],
}
every_stack = pytest.mark.parametrize("stack", STACKS)


def _drawn(net, input_size=D, seed=0):
    """Parameters from NumPy: no leaf is 0, and nothing has to be compiled."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda key: net.init(key, input_size), jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(0.7 * rng.normal(size=leaf.shape)), shapes)


def _inputs(seed=1, batch=B, num_steps=T, size=D):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, num_steps, size)))


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def _apply(net, params, xs, **arguments):
    """`net.apply`, compiled once a network (a record of functions can be static) and shape."""
    return net.apply(params, xs, **arguments)


def _assert_close(one, two, **limits):
    limits = limits or tolerance()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **limits), one, two)


def _step(cell, params, state, x):
    """One step of any cell, by its record alone."""
    if cell.step is not None:
        return cell.step(params, state, x)
    W_xh, W_hh, b_h, b_hh = cell.weights(params)
    h_proj = state.h @ W_hh + (0 if b_hh is None else b_hh)
    return cell.gate(params, state, x @ W_xh + b_h, h_proj)


def _by_hand(cell, params, xs, state=None, backwards=False):
    """A Python loop over the steps of rows without padding: h [B, T, H], and the last state."""
    state = cell.initial_state(len(xs), xs.dtype) if state is None else state
    hs = []
    for t in reversed(range(xs.shape[1])) if backwards else range(xs.shape[1]):
        state = _step(cell, params, state, xs[:, t])
        hs.append(state.h)
    return jnp.stack(hs[::-1] if backwards else hs, axis=1), state


# ---- layers ---------------------------------------------------------------------------------------


@every_cell
def test_stacked_layers_equal_a_loop_by_hand(cell):
    net = rr.network([cell, CELLS["elman"]], output_size=O)
    params, xs = _drawn(net), _inputs(num_steps=3)

    @jax.jit
    def by_hand(params, xs):
        first, first_final = _by_hand(cell, params["layer_0"], xs)
        second, second_final = _by_hand(CELLS["elman"], params["layer_1"], first)
        outputs = second @ params["readout"]["W_hy"] + params["readout"]["b_y"]
        return outputs, first, second, first_final, second_final

    out = _apply(net, params, xs)
    measured = (
        out.outputs,
        out.states["layer_0"].h,
        out.states["layer_1"].h,
        out.final_state["layer_0"],
        out.final_state["layer_1"],
    )
    _assert_close(measured, by_hand(params, xs))


@every_cell
def test_a_tied_layer_is_the_same_layer_twice(cell):
    once = rr.network([CELLS["elman"], cell], O)
    net = rr.network([CELLS["elman"], rr.layer(cell, repeat=2)], O)
    last = rr.network(net.layers, O, readout="last")
    params, xs = _drawn(net), _inputs(num_steps=3)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, _drawn(once))

    @jax.jit
    def by_hand(params, xs):
        hidden, _ = _by_hand(CELLS["elman"], params["layer_0"], xs)
        first, first_final = _by_hand(cell, params["layer_1"], hidden)
        second, second_final = _by_hand(cell, params["layer_1"], first)
        outputs = second @ params["readout"]["W_hy"] + params["readout"]["b_y"]
        return outputs, (first, second), (first_final, second_final)

    out = _apply(net, params, xs)
    hs = tuple(state.h for state in out.states["layer_1"])
    _assert_close((out.outputs, hs, out.final_state["layer_1"]), by_hand(params, xs))
    _assert_close(_apply(last, params, xs).outputs, out.outputs[:, -1])


@every_cell
def test_a_bidirectional_layer_is_two_runs_joined(cell):
    net = rr.network([rr.layer(cell, bidirectional=True)], O)
    last = rr.network([rr.layer(cell, bidirectional=True)], O, readout="last")
    params, xs = _drawn(net), _inputs(num_steps=3)

    @jax.jit
    def by_hand(params, xs):
        layer, readout = params["layer_0"], params["readout"]
        ahead, ahead_final = _by_hand(cell, layer["forward"], xs)
        back, back_final = _by_hand(cell, layer["backward"], xs, backwards=True)
        joined = jnp.concatenate([ahead, back], axis=-1)
        ends = jnp.concatenate([ahead[:, -1], back[:, 0]], axis=-1)
        finals = {"forward": ahead_final, "backward": back_final}
        return (
            joined @ readout["W_hy"] + readout["b_y"],
            ends @ readout["W_hy"] + readout["b_y"],
            finals,
        )

    out = _apply(net, params, xs)
    measured = (out.outputs, _apply(last, params, xs).outputs, out.final_state["layer_0"])
    _assert_close(measured, by_hand(params, xs))


def test_embedding_looks_tokens_up():
    net = rr.network([CELLS["gru"]], O, embedding=(7, D))
    plain = rr.network([CELLS["gru"]], O)
    params = _drawn(net, None)
    assert params["embedding"]["W_embed"].shape == (7, D)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 7, (B, T)))
    looked_up = params["embedding"]["W_embed"][tokens]
    rest = {name: params[name] for name in ("layer_0", "readout")}
    _assert_close(_apply(net, params, tokens), _apply(plain, rest, looked_up))
    # only the tokens that occur have a gradient
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, tokens[:, :2]).outputs ** 2)))(
        params
    )
    rows = np.abs(gradient["embedding"]["W_embed"]).sum(axis=1) > 0
    assert set(np.flatnonzero(rows)) == set(np.asarray(tokens[:, :2]).ravel().tolist())


def test_readout_last_is_the_last_of_all_and_none_gives_the_states():
    xs, mask = _inputs(), rr.data.lengths_to_mask([6, 2, 4], T)
    every, last, none = (
        rr.network([CELLS["lstm"]], size, readout=readout)
        for size, readout in ((O, "all"), (O, "last"), (None, "all"))
    )
    params = _drawn(every)
    outputs = _apply(every, params, xs, mask=mask).outputs
    expected = outputs[jnp.arange(B), jnp.array([5, 1, 3])]
    _assert_close(_apply(last, params, xs, mask=mask).outputs, expected)
    assert set(_drawn(none)) == {"layer_0"}
    out = _apply(none, {"layer_0": params["layer_0"]}, xs)
    np.testing.assert_array_equal(out.outputs, out.states["layer_0"].h)


def test_init_draws_each_layer_anew_and_keeps_layers_when_one_is_added(key):
    """A deeper network with the same key shares the layers below: paths over depth are paired."""
    one, two = (rr.network([CELLS["elman"]] * n, O).init(key, H) for n in (1, 2))
    np.testing.assert_array_equal(one["layer_0"]["W_hh"], two["layer_0"]["W_hh"])
    assert not np.allclose(two["layer_0"]["W_hh"], two["layer_1"]["W_hh"])
    both = rr.network([rr.layer(CELLS["elman"], bidirectional=True)], O).init(key, D)["layer_0"]
    assert not np.allclose(both["forward"]["W_hh"], both["backward"]["W_hh"])


# ---- padding --------------------------------------------------------------------------------------

MASKS = {
    "right": [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]],
    "left": [[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]],
    "middle": [[1, 0, 0, 1, 0, 1], [0, 1, 0, 1, 0, 0], [1, 1, 0, 0, 1, 1]],
}
LOSS = rr.losses.squared_error("mean")


def _compact(values, mask, row):
    return np.asarray(values)[row : row + 1, np.flatnonzero(mask[row])]


# Both ways to read out, and every kind of layer below at least one of them.
PADDED = [("tied", "all"), ("bidirectional", "all"), ("stacked", "last")]
PADDED += [("last_bidirectional", "last")]
PADDED += [
    pytest.param(stack, "all", marks=pytest.mark.slow)
    for stack in ("one", "stacked", "last_bidirectional")
]


@pytest.mark.parametrize(("stack", "readout"), PADDED)
def test_padded_steps_change_nothing(stack, readout):
    """Junk at padding leaves true steps, final state, loss and gradients bit for bit alike."""
    size = H if stack == "tied" else D
    net = rr.network(STACKS[stack], O, readout=readout, initial_state="learned")
    params, xs = _drawn(net, size), np.asarray(_inputs(size=size))
    shape = (B, T, O) if readout == "all" else (B, O)
    ys = np.random.default_rng(2).normal(size=shape).astype(xs.dtype)

    @jax.jit
    def run(params, xs, ys, mask):
        def loss(params):
            out = net.apply(params, xs, mask=mask)
            return LOSS(out.outputs, ys, mask), out

        return jax.value_and_grad(loss, has_aux=True)(params)

    exact = {"rtol": 0, "atol": 0}
    for mask in map(np.array, MASKS.values()):
        padding = (mask == 0)[..., None]
        junk_ys = np.where(padding, -1e3, ys) if readout == "all" else ys
        (loss, out), gradient = jax.tree.map(np.asarray, run(params, xs, ys, mask))
        (junk_loss, junk_out), junk = run(params, np.where(padding, 1e3, xs), junk_ys, mask)
        _assert_close((loss, gradient), (junk_loss, junk), **exact)
        _assert_close(out.final_state, junk_out.final_state, **exact)
        true = mask > 0 if readout == "all" else slice(None)
        _assert_close(out.outputs[true], np.asarray(junk_out.outputs)[true], **exact)
        assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))

        # and padded rows are what the same rows are alone, without their padding
        for row in (1, 2):
            alone = _apply(net, params, _compact(xs, mask, row))
            expected = alone.outputs if readout == "all" else alone.outputs[0]
            measured = _compact(out.outputs, mask, row) if readout == "all" else out.outputs[row]
            _assert_close(measured, expected)
            final = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], out.final_state)
            _assert_close(final, alone.final_state)


def test_nan_and_unknown_tokens_at_padding_reach_no_gradient():
    mask = jnp.asarray(MASKS["middle"])
    net, real = rr.network([CELLS["lstm"]], O, embedding=(7, D)), rr.network([CELLS["lstm"]], O)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 7, (B, T)))

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=1)
    def gradient(net, params, xs):
        outputs = net.apply(params, xs, mask=mask).outputs
        return LOSS(outputs, jnp.ones_like(outputs), mask)

    params = _drawn(net, None)
    clean = gradient(net, params, tokens)
    for junk in (-1, 99):
        padded = gradient(net, params, jnp.where(mask > 0, tokens, junk))
        _assert_close(clean, padded, rtol=0, atol=0)
    params, xs = _drawn(real), jnp.where(mask[..., None] > 0, _inputs(), jnp.nan)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(real, params, xs)))


def test_a_row_of_padding_alone_keeps_its_first_state():
    net = rr.network([CELLS["lstm"]], O)
    params, xs = _drawn(net), _inputs()
    state = {"layer_0": rr.cells.LSTMState(h=jnp.full((B, H), 0.3), c=jnp.full((B, H), -2.0))}
    mask = jnp.asarray([[1] * T, [0] * T, [1] * T])
    final = _apply(net, params, xs, mask=mask, state=state).final_state["layer_0"]
    np.testing.assert_array_equal(final.h[1], state["layer_0"].h[1])
    np.testing.assert_array_equal(final.c[1], state["layer_0"].c[1])
    assert not np.allclose(final.h[0], state["layer_0"].h[0])


# ---- dropout --------------------------------------------------------------------------------------

RATES = ("input_dropout", "dropout", "output_dropout", "recurrent_dropout")


def _train(net, params, xs, seed=0):
    return _apply(net, params, xs, key=jax.random.key(seed), train=True).outputs


PLAIN = rr.network([CELLS["elman"], CELLS["elman"]], O)


@pytest.mark.parametrize("name", RATES)
def test_each_rate_acts_in_training_alone(name):
    params, xs = _drawn(PLAIN), _inputs()
    net = rr.network(PLAIN.layers, O, **{name: 0.5})
    without = _apply(PLAIN, params, xs).outputs
    np.testing.assert_array_equal(_apply(net, params, xs).outputs, without)
    outputs = _train(net, params, xs)
    assert not np.allclose(outputs, without)
    np.testing.assert_array_equal(outputs, _train(net, params, xs))  # the key decides
    assert not np.allclose(outputs, _train(net, params, xs, seed=1))


def test_traced_rates_equal_numbers_and_zero_is_none():
    params, xs = _drawn(PLAIN), _inputs()
    rates = dict(zip(RATES, (0.1, 0.2, 0.3, 0.4), strict=True))
    traces = []

    @jax.jit
    def outputs(rates):
        traces.append(rates)
        net = rr.network(PLAIN.layers, O, variational=True, **rates)
        return net.apply(params, xs, key=jax.random.key(0), train=True).outputs

    none = outputs(dict.fromkeys(RATES, 0.0))
    np.testing.assert_allclose(none, _apply(PLAIN, params, xs).outputs, **tolerance())
    given = _train(rr.network(PLAIN.layers, O, variational=True, **rates), params, xs)
    np.testing.assert_allclose(outputs(rates), given, **tolerance())
    assert len(traces) == 1
    assert not np.allclose(none, given)


def test_a_key_is_needed_only_where_something_is_dropped():
    params = _drawn(rr.network([CELLS["elman"]], O))
    rr.network([CELLS["elman"]], O).apply(params, _inputs(), train=True)
    for name in RATES:
        net = rr.network([CELLS["elman"]], O, **{name: 0.1})
        with pytest.raises(ValueError, match=r"pass apply\(..., train=True, key=key\)"):
            net.apply(params, _inputs(), train=True)


def _masks_seen(rate, *, variational, place, layers=None, num_rows=400, num_steps=5):
    """The dropout mask itself: ones go in, and what comes out is the mask [N, T, H]."""
    layers = [_IDENTITY, _IDENTITY] if layers is None else layers
    net = rr.network(layers, None, variational=variational, **{place: rate})
    params = {f"layer_{index}": {} for index in range(len(layers))}
    return np.asarray(_train(net, params, jnp.ones((num_rows, num_steps, 3))))


_IDENTITY = rr.cells.from_step(
    lambda params, state, x: HiddenState(h=x + 0 * state.h),
    init=lambda key, input_size, dtype: {},
    initial_state=rr.cells.elman(3).initial_state,
    hidden_size=3,
)


@pytest.mark.parametrize("place", ["input_dropout", "dropout", "output_dropout"])
@pytest.mark.parametrize("variational", [False, True])
def test_dropout_keeps_the_expectation_and_variational_masks_hold_over_time(variational, place):
    rate = 0.3
    masks = _masks_seen(rate, variational=variational, place=place)
    np.testing.assert_allclose(np.unique(masks), [0, 1 / (1 - rate)], rtol=1e-6)
    constant = (masks == masks[:, :1]).all()
    assert constant == variational
    draws = masks[:, 0] if variational else masks
    # each draw has mean 1 and variance rate / (1 − rate); rows, steps and units are independent
    error = np.sqrt(rate / (1 - rate) / draws.size)
    assert abs(draws.mean() - 1) < 4 * error
    rows = draws.reshape(len(draws), -1)
    assert len(np.unique(rows, axis=0)) > 5  # rows differ
    assert not (rows == rows[:, :1]).all(axis=1).all()  # and units differ


@pytest.mark.parametrize("layers", [[_IDENTITY] * 3, [rr.layer(_IDENTITY, repeat=3)]])
def test_each_place_between_layers_draws_its_own_mask(layers):
    """Two independent masks one after the other, also between the applications of a tied layer."""
    masks = _masks_seen(0.3, variational=False, place="dropout", layers=layers)
    np.testing.assert_allclose(np.unique(masks), [0, 1 / 0.7**2], rtol=1e-6)
    kept = np.mean(masks > 0)
    assert abs(kept - 0.49) < 4 * np.sqrt(0.49 * 0.51 / masks.size)


def test_recurrent_dropout_is_one_mask_over_time_on_what_enters_the_product():
    """h_t = m ⊙ h_{t−1} + 1 from 0 is 1, m + 1, m(m + 1) + 1, … with one m a row and unit."""
    rate, num_rows = 0.4, 300
    cell = rr.cells.elman(3, activation=lambda z: z)
    net = rr.network([cell], None, recurrent_dropout=rate)
    params = {"layer_0": {"W_xh": jnp.ones((1, 3)), "W_hh": jnp.eye(3), "b_h": jnp.zeros(3)}}
    h = np.asarray(_train(net, params, jnp.ones((num_rows, 4, 1))))
    m = h[:, 1] - 1
    np.testing.assert_allclose(np.unique(np.round(m, 4)), [0, np.round(1 / (1 - rate), 4)])
    np.testing.assert_allclose(h[:, 2], m * (m + 1) + 1, rtol=1e-5)
    np.testing.assert_allclose(h[:, 3], m * (m * (m + 1) + 1) + 1, rtol=1e-5)
    assert abs(m.mean() - 1) < 4 * np.sqrt(rate / (1 - rate) / m.size)


def _bits(seed, *shape):
    return np.asarray(uniform_24_bits(jax.random.key(seed), shape), np.float64) / 2**24


@pytest.mark.float32_only  # whole numbers: the same in either precision
def test_the_numbers_behind_a_mask_are_uniform_and_independent():
    """Each statistic within 4.5 of its standard errors, over elements, neighbours and keys."""
    n = 2**18
    draws = np.stack([_bits(seed, n) for seed in range(8)])
    assert np.abs(draws.mean(1) - 0.5).max() < 4.5 / np.sqrt(12 * n)
    counts = np.stack([np.bincount((row * 256).astype(int), minlength=256) for row in draws])
    chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum(1)
    assert np.abs(chi2 - 255).max() < 4.5 * np.sqrt(2 * 255)
    centred = (draws - 0.5) * np.sqrt(12)  # variance 1
    for lag in (1, 2, 3, 16, 32, 64, 100, 128, 1024, 3200, 65536):
        products = centred[:, lag:] * centred[:, :-lag]
        assert np.abs(products.mean(1)).max() * np.sqrt(n - lag) < 4.5, lag
    across = centred @ centred.T / np.sqrt(n)
    assert np.abs(across - np.diag(np.diag(across))).max() < 4.5
    for bit in range(24):  # each bit is fair, also beside the bit of the next element
        on = (draws * 2**24).astype(np.int64) >> bit & 1
        assert np.abs(on.mean(1) - 0.5).max() < 4.5 / (2 * np.sqrt(n))
        same = (on[:, 1:] == on[:, :-1]).mean(1)
        assert np.abs(same - 0.5).max() < 4.5 / (2 * np.sqrt(n))


@pytest.mark.float32_only
def test_masks_of_neighbouring_keys_and_of_folded_keys_are_unrelated():
    """An update folds its number into the key: the same place in 4096 masks in a row has no pattern."""
    key = jax.random.key(3)
    keys = jax.vmap(lambda step: jax.random.fold_in(key, step))(jnp.arange(4096))
    draws = np.asarray(jax.vmap(lambda key: uniform_24_bits(key, (4, 8)))(keys), np.float64) / 2**24
    centred = (draws.reshape(4096, 32) - 0.5) * np.sqrt(12)
    assert np.abs(centred.mean(0)).max() < 4.5 / np.sqrt(4096)
    covariance = centred.T @ centred / np.sqrt(4096)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 4.7  # the largest of 496
    in_time = (centred[1:] * centred[:-1]).mean(0) * np.sqrt(4095)
    assert np.abs(in_time).max() < 4.5
    sums = (draws > 0.3).sum(1).sum(1)  # units kept a mask: binomial
    variance = 32 * 0.7 * 0.3
    assert abs(sums.var() / variance - 1) < 4.5 * np.sqrt(2 / 4096)


def test_a_rate_outside_its_range_makes_a_mask_of_nan():
    net = rr.network([CELLS["elman"]], O)
    for rate in (-0.1, 1.0, jnp.nan):
        made = jax.jit(
            lambda rate: rr.network([CELLS["elman"]], O, output_dropout=rate).apply(
                _drawn(net), _inputs(), train=True, key=jax.random.key(5)
            )
        )(rate)
        assert np.isnan(made.outputs).all()


def test_a_network_knows_whether_training_draws():
    cells = [CELLS["elman"]]
    assert not rr.network(cells, O).random
    assert not rr.network(cells, O, dropout=np.float32(0)).random
    assert rr.network(cells, O, recurrent_dropout=0.1).random
    assert rr.network(cells, O, input_dropout=jnp.zeros(())).random  # a traced rate may be anything


def test_what_a_step_multiplies_has_no_precision():
    with pytest.raises(ValueError, match="does its own in its step"):
        rr.network([CELLS["gru_before"]], O, precision="bfloat16")


@pytest.mark.parametrize("shape", [(0, T, D), (B, 0, D)])
def test_an_empty_batch_is_refused(shape):
    net = rr.network([CELLS["elman"]], O)
    with pytest.raises(ValueError, match="at least one row and one step"):
        net.apply(_drawn(net), jnp.zeros(shape))


@pytest.mark.slow
def test_a_cell_without_a_bias_runs_fused():
    """Its gradient is that of the plain scan."""
    bare = CELLS["elman"]._replace(weights=lambda params: (params["W_xh"], params["W_hh"], None))
    grads = []
    for backend in ("scan", "fused"):
        net = rr.network([bare], O, backend=backend)
        params = _drawn(net)
        grads.append(jax.grad(lambda p, net=net: net.apply(p, _inputs()).outputs.sum())(params))
    for plain, fused in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(fused, plain, **tolerance())


def test_dropout_rates_are_exact_in_bfloat16():
    """Numbers drawn in bfloat16 have 128 values: a rate of 0.99 would come out as 126/128."""
    rate = 0.99
    net = rr.network([CELLS["elman"]], None, output_dropout=rate)
    params = jax.tree.map(jnp.zeros_like, _drawn(net)["layer_0"]) | {"b_h": jnp.ones(H)}
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), {"layer_0": params})
    out = _train(net, params, jnp.zeros((100, 200, D)))
    assert out.dtype == jnp.bfloat16
    share = np.mean(np.asarray(out, np.float32) == 0)
    assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / out.size)


# ---- states ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stack", "initial_state"), [("one", "zero"), ("stacked", "learned"), ("tied", "learned")]
)
def test_a_returned_state_continues_the_sequence(stack, initial_state):
    size = H if stack == "tied" else D
    net = rr.network(STACKS[stack], O, initial_state=initial_state)
    params, xs = _drawn(net, size), _inputs(size=size)
    whole = _apply(net, params, xs)
    first = _apply(net, params, xs[:, :4])
    second = _apply(net, params, xs[:, 4:], state=first.final_state)
    joined = jnp.concatenate([first.outputs, second.outputs], axis=1)
    _assert_close((joined, second.final_state), (whole.outputs, whole.final_state))


@pytest.mark.parametrize("cell", [CELLS["lstm"], CELLS["own"]], ids=["lstm", "own"])
def test_learned_initial_states_are_leaves_that_learn(cell):
    net = rr.network([cell], O, initial_state="learned")
    fresh = net.init(jax.random.key(0), D)["layer_0"]["initial"]
    assert set(fresh) == set(cell.initial_state(1)._fields)
    assert all(leaf.shape == (H,) and not np.asarray(leaf).any() for leaf in fresh.values())
    params, xs = _drawn(net), _inputs()
    start = cell.initial_state(B)
    given = type(start)(
        **{k: jnp.broadcast_to(v, (B, H)) for k, v in params["layer_0"]["initial"].items()}
    )
    plain = rr.network([cell], O)
    _assert_close(
        _apply(net, params, xs).outputs, _apply(plain, params, xs, state={"layer_0": given}).outputs
    )
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(net.apply(p, xs).outputs ** 2)))(params)
    assert all(np.asarray(leaf).any() for leaf in gradient["layer_0"]["initial"].values())


def test_perturbations_are_added_to_h():
    """What ∂L/∂h_t is taken with respect to."""
    cell = rr.cells.elman(3, activation=lambda z: z)
    net = rr.network([cell], None)
    params = {"layer_0": {"W_xh": jnp.zeros((1, 3)), "W_hh": 2 * jnp.eye(3), "b_h": jnp.zeros(3)}}
    bumps = jnp.zeros((1, 4, 3)).at[0, 1, 0].set(1.0)
    h = net.apply(params, jnp.zeros((1, 4, 1)), perturbations={"layer_0": bumps}).outputs
    np.testing.assert_array_equal(h[0, :, 0], [0, 1, 2, 4])
    assert not np.asarray(h[0, :, 1:]).any()


# ---- forecasts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stack", "readout"), [("one", "all"), ("stacked", "last")])
def test_forecast_equals_a_loop_by_hand(stack, readout):
    net = rr.network(STACKS[stack], D, readout=readout)
    params, xs = _drawn(net), _inputs()
    apply = jax.jit(lambda xs, state=None: net.apply(params, xs, state=state))

    def last(out):
        return out.outputs if readout == "last" else out.outputs[:, -1]

    carried, out = [], apply(xs)
    for _ in range(4):
        carried.append(last(out))
        out = apply(carried[-1][:, None], out.final_state)
    measured = jax.jit(lambda: rr.forecast(net, params, xs, 4))()
    assert measured.shape == (B, 4, D)
    _assert_close(measured, jnp.stack(carried, axis=1))

    past, slid = xs, []
    for _ in range(4):
        slid.append(last(apply(past[:, -3:])))
        past = jnp.concatenate([past, slid[-1][:, None]], axis=1)
    measured = jax.jit(lambda: rr.forecast(net, params, xs, 4, window=3))()
    _assert_close(measured, jnp.stack(slid, axis=1))
    assert not np.allclose(measured, jnp.stack(carried, axis=1))


def test_forecast_starts_from_a_given_state_and_needs_no_more_than_its_window():
    net = rr.network(STACKS["one"], D)
    params, xs = _drawn(net), _inputs()
    half = _apply(net, params, xs[:, :3])
    continued, whole = jax.jit(
        lambda: (
            rr.forecast(net, params, xs[:, 3:], 3, state=half.final_state),
            rr.forecast(net, params, xs, 3),
        )
    )()
    _assert_close(continued, whole)
    junk = xs.at[:, :2].set(9.0)
    forecast = jax.jit(lambda xs: rr.forecast(net, params, xs, 3, window=4))
    np.testing.assert_array_equal(forecast(xs), forecast(junk))


def test_a_bidirectional_network_forecasts_with_a_window_only():
    net = rr.network([rr.layer(CELLS["elman"], bidirectional=True)], D)
    params = _drawn(net)
    with pytest.raises(ValueError, match="cannot carry its state on; give window=T"):
        rr.forecast(net, params, _inputs(), 2)
    ahead = jax.eval_shape(lambda: rr.forecast(net, params, _inputs(), 2, window=4))
    assert ahead.shape == (B, 2, D)


@pytest.mark.parametrize("readout", ["all", "last"])
@pytest.mark.parametrize("window", [None, 3])
def test_a_forecast_goes_on_after_the_last_true_step_of_each_row(readout, window):
    net = rr.network(STACKS["one"], D, readout=readout)
    params, xs = _drawn(net), _inputs()
    lengths = [6, 4, 3]
    mask = jnp.asarray(rr.data.lengths_to_mask(lengths, T))
    padded = jnp.where(mask[..., None] > 0, xs, 7.0)
    found = jax.jit(lambda xs: rr.forecast(net, params, xs, 3, mask=mask, window=window))(padded)
    on = jax.jit(lambda xs: rr.forecast(net, params, xs, 3, window=window))
    for row, length in enumerate(lengths):
        alone = on(np.asarray(xs)[row : row + 1, :length])
        _assert_close(found[row], alone[0])


@pytest.mark.parametrize("window", [None, 3])
def test_a_forecast_reads_known_inputs_and_returns_own_units(window):
    net = rr.network(STACKS["one"], 1, readout="last")
    params, xs = _drawn(net), _inputs()
    future = jax.random.normal(jax.random.key(3), (B, 3, D - 1))
    scaling = rr.Scaling(
        jnp.array([5.0, 1.0]), jnp.array([2.0, 3.0]), jnp.array([4.0]), jnp.array([0.5])
    )
    past, state, values = xs, None, []
    out = _apply(net, params, xs if window is None else xs[:, -window:])
    for step in range(3):
        own = 0.5 * out.outputs + 4
        values.append(own)
        inputs = jnp.concatenate([(own - 5) / 2, future[:, step]], axis=1)[:, None]
        past = jnp.concatenate([past, inputs], axis=1)
        state = out.final_state if window is None else None
        out = _apply(net, params, inputs if window is None else past[:, -window:], state=state)
    options = {"window": window, "scaling": scaling, "outputs": "original"}
    found = jax.jit(lambda: rr.forecast(net, params, xs, 3, future=future, **options))()
    _assert_close(found, np.stack(values, axis=1))
    raw, ahead = xs * scaling.x_scale + scaling.x_shift, 3 * future + 1
    options |= {"inputs": "original", "outputs": "scaled"}
    for past, known in ((raw, ahead), (np.asarray(raw), np.asarray(ahead))):
        same = jax.jit(
            lambda past=past, known=known: rr.forecast(
                net, params, past, 3, future=known, **options
            )
        )()
        _assert_close(0.5 * same + 4, found)


def test_forecasts_whose_parts_do_not_fit_are_named():
    net, one = rr.network(STACKS["one"], D), rr.network(STACKS["one"], 1)
    params, xs = _drawn(net), _inputs()
    tokens = rr.network(STACKS["one"], 5, embedding=(5, 2))
    wrong = jnp.ones(1)
    for call, message in (
        (lambda: rr.forecast(tokens, _drawn(tokens, None), jnp.ones((B, T), int), 2), "goes on with rr.sample"),
        (lambda: rr.forecast(net, params, xs[0], 2), r"must be \[B, T, D\] real numbers.*xs\[None\]"),
        (lambda: rr.forecast(one, _drawn(one), xs, 2, future=xs[:, :3, 1:]), r"future must be .* = \(3, 2, 1\)"),
        (lambda: rr.forecast(one, _drawn(one), xs, 2), "known beforehand go last in xs, and into future"),
        (lambda: rr.forecast(net, params, xs, 2, mask=jnp.ones((B, 2))), r"mask must be \[B, T\] = \(3, 6\)"),
        (lambda: rr.forecast(net, params, xs, 0), "num_steps must be at least 1"),
        (lambda: rr.forecast(net, params, xs, 2, inputs="original"), "needs the scaling .*scaling=split.units"),
        (lambda: rr.forecast(net, params, xs, 2, outputs="raw"), "outputs must be 'scaled' or 'original'; got 'raw'"),
        (lambda: rr.forecast(net, params, xs, 2, scaling=rr.Scaling(*[wrong] * 4)), "scale of 2 inputs and 2 outputs"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()


def test_a_network_reads_booleans_as_numbers():
    net = rr.network(STACKS["one"], 1)
    params, bits = _drawn(net), np.asarray(_inputs()) > 0
    _assert_close(net.apply(params, bits).outputs, net.apply(params, 1.0 * bits).outputs)


# ---- dtypes, transformations, a user's own cell ------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [jnp.bfloat16, jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.float64_only)],
)
@every_stack
def test_parameters_decide_the_dtype_under_strict_promotion(stack, dtype):
    size = H if stack == "tied" else D
    rates = dict.fromkeys(("input_dropout", "dropout", "output_dropout"), 0.1)
    net = rr.network(STACKS[stack], O, initial_state="learned", variational=True, **rates)
    params, mask = _drawn(net, size), jnp.asarray(MASKS["right"], bool)

    def run(params, xs, lam):
        out = net.apply(params, xs, mask=mask, key=jax.random.key(0), train=True)
        penalty = rr.penalties.elastic_net(0.5).value(params, None, ())[0]
        return LOSS(out.outputs, jnp.zeros_like(out.outputs), mask) + lam * penalty, out

    xs = _inputs(size=size).astype(dtype)
    lam = jnp.ones((), jnp.result_type(float))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(dtype, jnp.float32)), params)
    lam = lam.astype(jnp.promote_types(dtype, jnp.float32))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        (loss, out), gradient = jax.eval_shape(
            jax.value_and_grad(run, has_aux=True), params, xs, lam
        )
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {lam.dtype}
    assert loss.dtype == lam.dtype
    for one, two in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True):
        assert one.dtype == two.dtype


def test_numpy_rows_and_lists_take_the_precision_in_force(recwarn):
    net = rr.network([CELLS["gru"]], O)
    params, xs = _drawn(net), np.asarray(_inputs(), np.float64)
    outputs = net.apply(params, xs).outputs
    assert outputs.dtype == jnp.result_type(float)
    np.testing.assert_allclose(outputs, net.apply(params, xs.tolist()).outputs, **tolerance())
    assert not [w for w in recwarn if "float64" in str(w.message)]


@pytest.mark.parametrize("stored", [jnp.float32, jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn])
def test_an_irnn_counts_to_3000_whatever_its_inputs_are_stored_in(stored):
    """Half precision has no 2049 (float16) and no 257 (bfloat16)."""
    net = rr.network([rr.cells.irnn(1)], None)
    ones = {"W_xh": jnp.ones((1, 1)), "W_hh": jnp.ones((1, 1)), "b_h": jnp.zeros(1)}
    out = net.apply({"layer_0": ones}, jnp.ones((1, 3000, 1), stored)).outputs
    assert float(out[0, -1, 0]) == 3000
    assert out.dtype == ones["b_h"].dtype


@pytest.mark.float32_only
def test_bfloat16_parameters_give_nearly_the_float32_outputs():
    net = rr.network(STACKS["stacked"], O)
    params, xs = _drawn(net), _inputs()
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    low = _apply(net, half, xs).outputs
    assert low.dtype == jnp.bfloat16
    # three steps of rounding a layer, each half a unit of 2⁻⁸, on weights near 1
    np.testing.assert_allclose(low.astype(jnp.float32), _apply(net, params, xs).outputs, atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["tied", "bidirectional"])
def test_jit_equals_eager_and_vmap_equals_a_loop(stack):
    size = H if stack == "tied" else D
    net = rr.network(STACKS[stack], O)
    xs = _inputs(size=size)
    tables = [_drawn(net, size, seed) for seed in range(2)]
    lanes = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tables)
    together = jax.jit(jax.vmap(lambda params: net.apply(params, xs)))(lanes)
    for lane, params in enumerate(tables):
        alone = net.apply(params, xs)
        _assert_close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], together), alone)


def test_a_users_own_cell_goes_through_everything():
    """Penalties, losses, masks, gradients and forecasts see a cell of a user's own like any other."""
    net = rr.network([CELLS["own"], rr.layer(CELLS["own"], repeat=2)], D, input_dropout=0.1)
    params, xs = _drawn(net), _inputs()
    mask = jnp.asarray(MASKS["right"])
    penalties = {"l2": rr.penalties.l2(), "decay": rr.penalties.l2("decay")}
    covered = rr.penalties.covered(penalties["decay"], params, net=net)
    assert covered == ["layer_0/decay", "layer_1/decay"]
    objective = rr.make_objective(net, LOSS, penalties)
    batch = rr.Batch(xs, jnp.ones((B, T, D)), mask)

    @jax.jit
    @jax.value_and_grad
    def step(params):
        hyper, states = {"l2": 0.1, "decay": 0.01}, {"l2": (), "decay": ()}
        return objective(params, hyper, batch, states, key=jax.random.key(1), train=True)[0]

    first, gradient = step(params)
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))
    moved = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient)
    assert step(moved)[0] < first
    assert np.isfinite(jax.jit(lambda: rr.forecast(net, params, xs, 3))()).all()


# ---- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rr.network([], 1), "non-empty sequence of cells or layers"),
        (lambda: rr.network([rr.cells.elman], 1), "non-empty sequence of cells or layers"),
        (lambda: rr.network(STACKS["one"], 1, readout="first"), "'last' or 'flatten'; got 'first'"),
        (
            lambda: rr.network(STACKS["one"], 1, initial_state="given"),
            "'zero' or 'learned'; got 'given'",
        ),
        (
            lambda: rr.network(STACKS["one"], 1, dropout=1.0),
            r"dropout must lie in \[0, 1\); got 1.0",
        ),
        (
            lambda: rr.network(STACKS["one"], 1, recurrent_dropout=-0.1),
            "recurrent_dropout must lie",
        ),
        (
            lambda: rr.network([CELLS["own"]], O, recurrent_dropout=0.1),
            "'leaky' does its own recurrent product",
        ),
        (
            lambda: jax.jit(
                lambda rate: rr.network([CELLS["gru_before"]], O, recurrent_dropout=rate)
            )(0.0),
            "recurrent dropout needs a cell with a gate",
        ),
        (
            lambda: rr.layer(CELLS["gru"], repeat=0),
            "repeat must be at least 1, a whole number; got 0",
        ),
        (lambda: rr.network(STACKS["one"], 1).init(jax.random.key(0)), "needs input_size"),
        (
            lambda: rr.network([rr.layer(CELLS["gru"], repeat=2)], 1).init(jax.random.key(0), 3),
            "applied 2 times.*input 3 and output 4",
        ),
    ],
)
def test_impossible_networks_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_inputs_are_named():
    net, tokens = rr.network(STACKS["one"], O), rr.network(STACKS["one"], O, embedding=(5, D))
    params = _drawn(net)
    with pytest.raises(ValueError, match=r"made for 2 input features; xs has 3 \(shape"):
        net.apply(params, jnp.ones((B, T, 3)))
    with pytest.raises(ValueError, match=r"mask must be \[B, T\] = \(3, 6\); got \(3, 5\)"):
        net.apply(params, _inputs(), mask=jnp.ones((B, T - 1)))
    with pytest.raises(ValueError, match=r"\[B, T, D\] real numbers; got shape \(3, 6\) of float"):
        net.apply(params, jnp.ones((B, T)))
    with pytest.raises(ValueError, match=r"\[B, T, D\] real numbers; got shape .* of int"):
        net.apply(params, jnp.ones((B, T, D), int))
    with pytest.raises(ValueError, match=r"\[B, T\] integer tokens; got shape"):
        tokens.apply(_drawn(tokens, None), jnp.ones((B, T, D)))
    with pytest.raises(ValueError, match=r"output_size must equal.*input features 2; got 1"):
        rr.forecast(rr.network(STACKS["one"], 1), params, _inputs(), 2)
    with pytest.raises(ValueError, match="window must lie in 1 … 6, a whole number; got 7"):
        rr.forecast(net, params, _inputs(), 2, window=7)


# ---- directions, merges, and a readout of all steps ---------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 3))
def _one_way(cell, params, xs, reverse, start=None, mask=None):
    state = cell.initial_state(B, xs.dtype) if start is None else start
    keep = None if mask is None else jnp.swapaxes(mask, 0, 1)
    _, states = rr.recurrence.unroll(
        cell, params, jnp.swapaxes(xs, 0, 1), state, mask=keep, reverse=reverse
    )
    return jnp.swapaxes(states.h, 0, 1)


MERGED = {
    "concat": lambda one, two: jnp.concatenate([one, two], axis=-1),
    "sum": lambda one, two: one + two,
    "mean": lambda one, two: (one + two) / 2,
    "product": lambda one, two: one * two,
}


@pytest.mark.parametrize("merge", MERGED)
def test_two_directions_are_merged_as_asked_and_may_start_anywhere(merge):
    cell = CELLS["elman"]
    entry = rr.layer(cell, bidirectional=True, merge=merge)
    net = rr.network([entry, CELLS["gru"]], O)
    params, xs = _drawn(net), _inputs()
    assert params["layer_1"]["W_xh"].shape[0] == entry.width
    whole = _apply(rr.network([entry], None), {"layer_0": params["layer_0"]}, xs).outputs
    own = params["layer_0"]
    ways = [_one_way(cell, own[side], xs, side == "backward") for side in ("forward", "backward")]
    _assert_close(whole, MERGED[merge](*ways))
    last = rr.network([entry], None, readout="last")
    _assert_close(
        _apply(last, {"layer_0": own}, xs).outputs, MERGED[merge](ways[0][:, -1], ways[1][:, 0])
    )
    starts = {
        side: rr.cells.HiddenState(jnp.full((B, H), value, xs.dtype))
        for side, value in (("forward", 0.3), ("backward", -0.5))
    }
    started = _apply(rr.network([entry], None), {"layer_0": own}, xs, state={"layer_0": starts})
    ways = [
        _one_way(cell, own[side], xs, side == "backward", starts[side])
        for side in ("forward", "backward")
    ]
    _assert_close(started.outputs, MERGED[merge](*ways))


def test_a_single_layer_may_read_backwards():
    cell = CELLS["gru"]
    net = rr.network([rr.layer(cell, reverse=True)], None)
    params, xs, mask = _drawn(net), _inputs(), jnp.asarray(MASKS["right"])
    expected = _one_way(cell, params["layer_0"], xs, True, mask=mask)
    _assert_close(_apply(net, params, xs, mask=mask).outputs, expected)
    last = rr.network([rr.layer(cell, reverse=True)], None, readout="last")
    _assert_close(_apply(last, params, xs, mask=mask).outputs, expected[:, 0])
    batch = rr.Batch(xs, jnp.zeros_like(expected))
    flow = jax.jit(lambda: rr.diagnostics.gradient_flow(net, LOSS, params, batch, step=0))()
    assert set(flow.ratio) == {"layer_0"}
    with pytest.raises(ValueError, match="reads backwards has no state that goes forwards"):
        rr.diagnostics.lyapunov(net, params, xs)
    with pytest.raises(ValueError, match="reads backwards cannot carry its state on"):
        rr.forecast(rr.network([rr.layer(cell, reverse=True)], D), params, xs, 2)


def test_a_flattened_readout_reads_all_steps_together():
    cells = [rr.layer(CELLS["gru"], bidirectional=True, merge="sum")]
    net = rr.network(cells, O, readout="flatten", num_steps=T)
    params, xs = _drawn(net), _inputs()
    assert params["readout"]["W_hy"].shape == (T * H, O)
    hidden = np.array(_apply(rr.network(cells, None), {"layer_0": params["layer_0"]}, xs).outputs)
    W_hy, b_y = (np.asarray(params["readout"][name]) for name in ("W_hy", "b_y"))
    expected = sum(hidden[:, t] @ W_hy[t * H : (t + 1) * H] for t in range(T)) + b_y
    _assert_close(_apply(net, params, xs).outputs, expected)
    mask = jnp.ones((B, T)).at[0, 1:].set(0)
    got = _apply(net, params, xs, mask=mask).outputs
    one = _apply(rr.network(cells, None), {"layer_0": params["layer_0"]}, xs, mask=mask).outputs
    _assert_close(got[0], np.asarray(one[0, 0]) @ W_hy[:H] + b_y)
    batch = rr.Batch(xs, jnp.zeros((B, O)))
    flow = jax.jit(lambda: rr.diagnostics.gradient_flow(net, LOSS, params, batch))()
    assert np.isfinite(flow.ratio["layer_0"]["forward"]).all()
    with pytest.raises(ValueError, match=f"made for {T} steps"):
        net.apply(params, xs[:, 1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rr.layer(CELLS["gru"], merge="sum"), "give bidirectional=True"),
        (lambda: rr.layer(CELLS["gru"], bidirectional=True, merge="max"), "merge must be 'concat'"),
        (
            lambda: rr.layer(CELLS["gru"], bidirectional=True, reverse=True),
            "reads both ways already",
        ),
        (lambda: rr.network([CELLS["gru"]], 1, readout="flatten"), "num_steps must be at least 1"),
        (lambda: rr.network([CELLS["gru"]], 1, num_steps=3), "num_steps is for readout='flatten'"),
    ],
)
def test_directions_and_readouts_that_do_not_exist_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_dropout_between_the_layers_of_one_layer_is_warned_about():
    with pytest.warns(
        RuntimeWarning, match="dropout acts between layers, and this network has one"
    ):
        rr.network([rr.cells.elman(2)], 1, dropout=0.5)


def test_a_network_prints_its_layers():
    layers = [rr.layer(rr.cells.gru(5), bidirectional=True, repeat=2), rr.cells.lstm(3)]
    net = rr.network(layers, 2, readout="last", dropout=0.1)
    assert repr(net) == (
        "Network(2 x bidirectional gru(5), lstm(3) -> 2, readout 'last', random in training)"
    )
    given = rr.from_functions(lambda key: {}, lambda params, xs: xs)
    assert repr(given) == "Network(from_functions, readout 'all')"
