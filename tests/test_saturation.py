"""Saturation, gates and dimension against counts by hand in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance

import rnnreg as rr
from rnnreg.diagnostics import saturation

pytestmark = pytest.mark.numerics

KEY = jax.random.key(SEED)
B, T, D, H = 4, 5, 2, 3
RIGHT = rr.data.lengths_to_mask([5, 3, 1, 4], T)
MASKS = {"none": None, "right": RIGHT, "left": RIGHT[:, ::-1].copy()}
XS = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, D)) * 2)


@functools.cache
def _network(kind):
    cells = {
        "elman": [rr.cells.elman(H), rr.cells.elman(H)],
        "gru": [rr.cells.elman(2), rr.cells.gru(H)],
        "lstm": [rr.cells.lstm(H)],
        "sides": [rr.layer(rr.cells.gru(H), bidirectional=True)],
        "repeat": [rr.cells.elman(H), rr.layer(rr.cells.lstm(H), repeat=2)],
    }[kind]
    net = rr.network(cells, 1, initial_state="learned" if kind == "gru" else "zero")
    params = net.init(KEY, D)
    # larger weights, so that units saturate and gates open and close
    return net, jax.tree.map(lambda leaf: 2.5 * leaf + 0.1, params)


@functools.cache
def _measured(kind, mask):
    net, params = _network(kind)
    return jax.jit(lambda: saturation(net, params, XS, mask=MASKS[mask]))()


@functools.cache
def _run(kind, mask):
    net, params = _network(kind)
    return jax.jit(lambda: net.apply(params, XS, mask=MASKS[mask]))()


def _jitted(system, params, xs, **options):
    return jax.jit(lambda: saturation(system, params, xs, **options))()


def _true(mask):
    return np.ones((B, T), bool) if MASKS[mask] is None else MASKS[mask] > 0


@pytest.mark.parametrize("mask", MASKS)
def test_shares_are_counts_over_true_steps(mask):
    out = _run("elman", mask)
    true = _true(mask)
    found = _measured("elman", mask)
    assert list(found) == ["layer_0", "layer_1"]
    for name, record in found.items():
        h = np.asarray(out.states[name].h, np.float64)
        full, linear = np.abs(h) >= 0.9, np.abs(h) <= 0.3
        assert 0 < full[true].mean() < 1
        assert record.bounds == (-1, 1)
        np.testing.assert_allclose(record.saturated, full[true].mean(), **tolerance())
        np.testing.assert_allclose(record.linear, linear[true].mean(), **tolerance())
        np.testing.assert_allclose(record.saturated_units, full[true].mean(axis=0), **tolerance())
        np.testing.assert_allclose(record.linear_units, linear[true].mean(axis=0), **tolerance())
        for t in range(T):
            rows = h[true[:, t], t]
            np.testing.assert_allclose(
                record.saturated_steps[t], (np.abs(rows) >= 0.9).mean(), **tolerance()
            )
            counts, _ = np.histogram(rows, np.asarray(record.edges))
            np.testing.assert_allclose(record.histogram[t], counts / rows.size, **tolerance())
        eigenvalues = np.linalg.eigvalsh(np.cov(h[true].T))
        ratio = eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()
        np.testing.assert_allclose(record.participation, ratio, **tolerance(loosen=10))


def _sigma(z):
    return 1 / (1 + np.exp(-z))


def _gates_by_hand(kind, params, xs, true, start):
    """{gate: [B, T, H]} of one GRU or LSTM, masked steps held."""
    weights = {
        name: np.asarray(leaf, np.float64) for name, leaf in params.items() if name != "initial"
    }
    h, c = start
    kept = []
    for t in range(xs.shape[1]):
        x_proj, h_proj = xs[:, t] @ weights["W_xh"] + weights["b_h"], h @ weights["W_hh"]
        if kind == "gru":
            h_proj = h_proj + weights["b_hh"]
            r, z = np.split(_sigma(x_proj + h_proj)[:, : 2 * H], 2, axis=1)
            n = np.tanh(x_proj[:, 2 * H :] + r * h_proj[:, 2 * H :])
            new, gates = ((1 - z) * n + z * h, c), {"reset": r, "update": z}
        else:
            i, f, g, o = np.split(x_proj + h_proj, 4, axis=1)
            c_new = _sigma(f) * c + _sigma(i) * np.tanh(g)
            new = (_sigma(o) * np.tanh(c_new), c_new)
            gates = {"input": _sigma(i), "forget": _sigma(f), "output": _sigma(o)}
        keep = true[:, t, None]
        h, c = np.where(keep, new[0], h), np.where(keep, new[1], c)
        kept.append(gates)
    return {name: np.stack([gates[name] for gates in kept], axis=1) for name in kept[0]}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_gates_are_those_of_the_cell(kind, mask):
    _, params = _network(kind)
    true, name = _true(mask), "layer_1" if kind == "gru" else "layer_0"
    xs, start = np.asarray(XS, np.float64), np.zeros((B, H))
    if kind == "gru":
        xs = np.asarray(_run(kind, mask).states["layer_0"].h, np.float64)
        start = np.tile(np.asarray(params[name]["initial"]["h"], np.float64), (B, 1))
    expected = _gates_by_hand(kind, params[name], xs, true, (start, np.zeros((B, H))))
    found = _measured(kind, mask)[name].gates
    assert set(found) == set(expected)
    for gate, values in expected.items():
        np.testing.assert_allclose(found[gate].mean, values[true].mean(), **tolerance())
        np.testing.assert_allclose(found[gate].open, (values[true] > 0.9).mean(), **tolerance())
        np.testing.assert_allclose(found[gate].closed, (values[true] < 0.1).mean(), **tolerance())
        units = (values[true] > 0.9).mean(axis=0)
        np.testing.assert_allclose(found[gate].open_units, units, **tolerance())
        for t in range(T):
            mean = values[true[:, t], t].mean()
            np.testing.assert_allclose(found[gate].mean_steps[t], mean, **tolerance())


def test_a_backward_cell_is_the_forward_one_on_the_reversed_sequence():
    net, params = _network("sides")
    swapped = params | {
        "layer_0": {
            "forward": params["layer_0"]["backward"],
            "backward": params["layer_0"]["forward"],
        }
    }
    found = jax.jit(lambda: saturation(net, params, XS, mask=RIGHT))()
    other = jax.jit(lambda: saturation(net, swapped, XS[:, ::-1], mask=RIGHT[:, ::-1]))()
    one, two = found["layer_0/backward"], other["layer_0/forward"]
    np.testing.assert_allclose(one.saturated, two.saturated, **tolerance())
    for gate in ("reset", "update"):
        np.testing.assert_allclose(
            one.gates[gate].mean_steps, two.gates[gate].mean_steps[::-1], **tolerance()
        )


def test_layers_cells_and_steps_are_named_and_agree():
    assert list(_measured("repeat", "none")) == ["layer_0", "layer_1/0", "layer_1/1"]
    net, params = _network("lstm")
    cell, own = net.layers[0].cell, params["layer_0"]
    by_net = _measured("lstm", "right")["layer_0"]
    by_cell = jax.jit(lambda: saturation(cell, own, XS, mask=RIGHT))()["cell"]
    step = rr.recurrence.cell_step(cell)
    start = cell.initial_state(B, XS.dtype)
    bounds = {"h": (-1, 1), "c": (None, None)}
    by_step = _jitted(step, own, XS, mask=RIGHT, state=start, bounds=bounds)
    assert [by_step[name].bounds for name in bounds] == [(-1, 1), (-np.inf, np.inf)]
    assert set(by_step) == {"h", "c"}
    for other in (by_cell, by_step["h"]):
        np.testing.assert_allclose(other.saturated_steps, by_net.saturated_steps, **tolerance())
        np.testing.assert_allclose(
            other.participation, by_net.participation, **tolerance(loosen=10)
        )
    for gate, record in by_net.gates.items():
        np.testing.assert_allclose(by_cell.gates[gate].mean, record.mean, **tolerance())


def test_a_step_says_its_own_gates():
    def leaky(params, state, x):
        z = jax.nn.sigmoid(x)
        return z * state + (1 - z) * jnp.tanh(x)

    def gates(params, state, x):
        return {"leak": jax.nn.sigmoid(x)}

    found = jax.jit(
        lambda: saturation(
            leaky, None, XS, state=jnp.zeros((B, D)), gates=gates, mask=RIGHT, bounds=(-1, 1)
        )
    )()
    true = RIGHT > 0
    expected = _sigma(np.asarray(XS, np.float64))[true].mean()
    np.testing.assert_allclose(found["state"].gates["leak"].mean, expected, **tolerance())


def test_a_rectifier_is_dead_only_where_it_never_wakes():
    net = rr.network([rr.cells.irnn(3)], 1)
    params = net.init(KEY, 1)
    params["layer_0"] |= {"W_hh": jnp.zeros((3, 3)), "W_xh": jnp.array([[1.0, 0.0, 0.0]])}
    params["layer_0"]["b_h"] = jnp.array([0.0, -1.0, 2.0])
    xs = jnp.array([[[1.0], [-1.0], [3.0]]])
    found = jax.jit(lambda: saturation(net, params, xs))()["layer_0"]
    assert found.bounds == (0.0, np.inf)
    np.testing.assert_allclose(found.saturated_units, [1 / 3, 1, 0], **tolerance())
    np.testing.assert_allclose(found.linear_units, [2 / 3, 0, 1], **tolerance())
    assert found.dead_units.tolist() == [False, True, False]
    np.testing.assert_allclose(found.dead, 1 / 3, **tolerance())
    # the padding would wake it
    masked = _jitted(
        net, params, jnp.full((1, 3, 1), -1.0).at[0, 2].set(5), mask=jnp.array([[1, 1, 0]])
    )
    assert masked["layer_0"].dead_units.tolist() == [True, True, False]


def test_a_flipping_unit_is_saturated_but_not_dead():
    def flip(params, state, x):
        return jnp.where(x > 0, 1.0, -1.0) * jnp.ones_like(state)

    xs = jnp.array([[[1.0], [-1.0]]])
    options = {"state": jnp.zeros((1, 1)), "bounds": (-1, 1)}
    found = _jitted(flip, None, xs, **options)["state"]
    assert float(found.saturated) == 1
    assert not found.dead_units[0]
    held = _jitted(flip, None, jnp.abs(xs), **options)["state"]
    assert bool(held.dead_units[0])


RANGES = {
    "tanh": (jnp.tanh, (-1, 1)),
    "sigmoid": (jax.nn.sigmoid, (0, 1)),
    "identity": (jax.nn.identity, (-np.inf, np.inf)),
    "relu": (jax.nn.relu, (0, np.inf)),
    "relu6": (jax.nn.relu6, (0, 6)),
    "sine": (jnp.sin, (-1, 1)),
    "softsign": (jax.nn.soft_sign, (-1, 1)),
    "elu": (jax.nn.elu, (-1, np.inf)),
    "leaky": (jax.nn.leaky_relu, (-np.inf, np.inf)),
    "silu": (jax.nn.silu, (-0.27846, np.inf)),
}


@pytest.mark.parametrize("name", RANGES)
def test_bounds_are_those_of_the_activation(name):
    activation, bounds = RANGES[name]
    cell = rr.cells.elman(2, activation=activation)
    params = cell.init(KEY, D)
    found = jax.jit(lambda: saturation(cell, params, XS))()["cell"]
    np.testing.assert_allclose(found.bounds, bounds, atol=1e-3)
    if name in ("tanh", "sigmoid", "identity", "relu", "relu6"):
        assert found.bounds == bounds
    if name == "identity":
        assert float(found.linear) == 1
        assert float(found.saturated) == 0
    np.testing.assert_allclose(found.histogram.sum(axis=1), 1, **tolerance())
    for gated in (rr.cells.gru, rr.cells.lstm):
        given = gated(2, activation=activation).facts.bounds
        np.testing.assert_allclose(given, found.bounds, **tolerance("float32"))
    before = rr.cells.gru(2, activation=activation, reset="before", recurrent_bias=False)
    np.testing.assert_allclose(before.facts.bounds, found.bounds, **tolerance("float32"))


def test_a_rectified_gru_is_not_saturated_at_1():
    cell = rr.cells.gru(2, activation=jax.nn.relu)
    params = jax.tree.map(lambda leaf: 2.5 * leaf + 0.1, cell.init(KEY, D, XS.dtype))
    found = jax.jit(lambda: saturation(cell, params, XS))()["cell"]
    assert found.bounds == (0, np.inf)
    start = cell.initial_state(B, XS.dtype)
    _, states = rr.recurrence.unroll(cell, params, jnp.swapaxes(XS, 0, 1), start)
    np.testing.assert_allclose(found.saturated, (np.asarray(states.h) <= 0).mean(), **tolerance())


def test_bounds_that_are_not_known_are_asked_for():
    def walk(params, state, x):
        return jax.nn.relu(state + x)

    start, xs = jnp.ones((B, D)), jnp.abs(XS)
    with pytest.raises(ValueError, match=r"in this function are not known: give bounds=\(low"):
        saturation(walk, None, xs, state=start)
    known = _jitted(walk, None, xs, state=start, bounds=(0, None))["state"]
    assert float(known.saturated) == float(known.dead) == 0
    custom = rr.cells.from_step(
        lambda params, state, x: rr.cells.HiddenState(h=3 * jnp.tanh(state.h + x)),
        init=lambda key, input_size, dtype: {},
        hidden_size=D,
    )
    net = rr.network([custom, rr.cells.gru(2)], None)
    params = net.init(KEY, D)
    with pytest.raises(ValueError, match=r"in the cell 'custom' .* or by layer, {'layer_0'"):
        saturation(net, params, XS)
    found = _jitted(net, params, XS, bounds={"layer_0": (-3, 3)})
    assert [record.bounds for record in found.values()] == [(-3, 3), (-1, 1)]
    with pytest.raises(ValueError, match=r"expected some of \['layer_0', 'layer_1'\]"):
        saturation(net, params, XS, bounds={"layer_7": (-3, 3)})
    squeezed = rr.cells.gru(2, gate_activation=jnp.tanh)  # its update is no weighted mean
    with pytest.raises(ValueError, match="in the cell 'gru' are not known"):
        saturation(squeezed, squeezed.init(KEY, D), XS)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu])
def test_states_that_are_not_finite_give_nan(activation):
    net = rr.network([rr.cells.elman(2, activation=activation), rr.cells.gru(2)], None)
    params = net.init(KEY, D)
    params["layer_0"]["b_h"] = jnp.array([0.1, jnp.nan])
    found = _jitted(net, params, XS, mask=RIGHT)
    for record in found.values():
        for share in (record.saturated, record.linear, record.dead, record.participation):
            assert np.isnan(share)
        assert np.isnan(record.histogram).all()
        assert np.isnan(record.saturated_steps).all()
        assert not record.dead_units.any()
    gate = found["layer_1"].gates["update"]
    assert np.isnan([gate.mean, gate.open, gate.closed]).all()
    fine = _jitted(net, net.init(KEY, D), XS.at[1, 4].set(jnp.nan), mask=RIGHT)  # padding
    assert np.isfinite(fine["layer_0"].saturated)
    held = jnp.array([[[1.0], [jnp.inf], [1.0]]])
    spike = _jitted(lambda p, s, x: x, None, held, state=jnp.zeros((1, 1)), bounds=(None, None))[
        "state"
    ]
    assert np.isnan(spike.histogram).all(axis=1).tolist() == [False, True, False]
    assert np.isnan(spike.linear)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "size"), [(1, 4), (4, 4)])
def test_participation_counts_directions(rank, size):
    basis = jnp.eye(size)[:rank]

    def step(params, state, x):
        return x @ params

    xs = jax.random.normal(KEY, (50, 40, rank))
    options = {"state": jnp.zeros((50, size)), "bounds": (None, None)}
    found = _jitted(step, basis, xs, **options)["state"]
    np.testing.assert_allclose(found.participation, rank, rtol=0.02)  # 2000 draws
    tiny = _jitted(step, 1e-15 * basis, xs, **options)["state"]
    np.testing.assert_allclose(tiny.participation, found.participation, **tolerance(loosen=10))
    still = _jitted(step, 0 * basis, xs, **options)["state"]
    assert np.isnan(still.participation)


def test_what_does_not_fit_is_named():
    net, params = _network("elman")
    with pytest.raises(ValueError, match="bounds must be"):
        saturation(net, params, XS, bounds=(1.0, -1.0))
    with pytest.raises(ValueError, match=r"mask must be \[B, T\]"):
        saturation(net, params, XS, mask=jnp.ones((B, T + 1)))
