"""Noise in the recurrence: masks and draws against loops in NumPy, expectations, keys, prediction, sweeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance
from recurrent_cases import (
    CASES,
    HIDDEN,
    INSIDE,
    LONG,
    SHORT,
    assert_close,
    draw,
    either,
    forget_programs,  # noqa: F401 - it works by being here
    loop,
    run,
    split,
    wave,
)
from small import make, sine

import rnnreg as rr
from rnnreg.networks import expected_cell
from rnnreg.networks._noise import draw as draw_noise

pytestmark = pytest.mark.numerics
ROWS = 3
KEY = jax.random.key(SEED)
KINDS = ("zoneout", "zoneout_c", "dropconnect", "weight_noise", "recurrent_noise")
RATES = dict(zip(KINDS, (0.3, 0.4, 0.2, 0.1, 0.05), strict=True))
LINEAR = rr.cells.elman(HIDDEN, activation="identity")
LSTM = rr.cells.lstm(HIDDEN)


def drawn_params(net, input_size=INSIDE, scale=0.5):
    """Parameters from NumPy: no leaf is 0, and nothing has to be compiled."""
    rng = np.random.default_rng(SEED)
    shapes = jax.eval_shape(lambda key: net.init(key, input_size), KEY)
    real = jnp.result_type(float)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), real), shapes)


def inputs(steps=LONG, rows=ROWS, size=INSIDE):
    values = np.random.default_rng(SEED + 1).normal(size=(rows, steps, size))
    return jnp.asarray(values, jnp.result_type(float))


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def apply(net, params, xs, **arguments):
    return net.apply(params, xs, **arguments)


def trained(net, params, xs, key=KEY, **arguments):
    return apply(net, params, xs, train=True, key=key, **arguments)


# ---- units that hold fields of the state ----------------------------------------------------------

HELD = {
    "elman_tanh": ("h",),
    "gru": ("h",),
    "lstm": ("h", "c"),
    "lstm, c alone": ("c",),
    "layer_norm": ("h",),
}


def holding(name):
    """A case, its arguments, and masks of units that hold."""
    case, rng = CASES[name.split(",")[0]], np.random.default_rng(SEED)
    given = draw(case)
    holds = {field: jnp.asarray(rng.random((LONG, ROWS, HIDDEN)) < 0.4) for field in HELD[name]}
    return case, given, holds


@either
@pytest.mark.parametrize("name", HELD)
def test_held_units_equal_a_loop(name, backend):
    """Together with a mask of steps, recurrent dropout and perturbations, in both directions."""
    case, given, holds = holding(name)
    for reverse in (False, True):
        got = run(case.cell, **given, holds=holds, backend=backend, reverse=reverse)
        assert_close(got, loop(case, **given, holds=holds, reverse=reverse))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("backend", "remat"))
def gradient(cell, given, mask, holds, **options):
    return jax.grad(lambda given: wave(given, cell, mask=mask, holds=holds, **options))(given)


@pytest.mark.parametrize("name", HELD)
def test_gradients_of_held_units_agree(name):
    case, given, holds = holding(name)
    given, mask = split(given)
    fused, scan = (gradient(case.cell, given, mask, holds, backend=b) for b in ("fused", "scan"))
    assert_close(fused, scan)
    assert_close(gradient(case.cell, given, mask, holds, backend="fused", remat=6), scan)


@pytest.mark.parametrize("name", ["elman_tanh", "gru"])
def test_holding_a_state_of_h_alone_is_a_mask_for_each_unit(name):
    """So that every back end has it, the compiled one too."""
    case, given, holds = holding(name)
    given.pop("perturbations")
    expected = loop(case, **given, holds=holds)
    for backend in ("auto", "scan"):
        assert_close(run(case.cell, **given, holds=holds, backend=backend), expected)


def test_a_perturbation_reaches_held_units():
    """∂L/∂h_t is that of the state as it is carried, whether or not the unit took its step."""
    given = draw(CASES["elman_identity"], steps=1, but=("mask", "recurrent_mask"))
    holds = {"h": jnp.ones((1, ROWS, HIDDEN), bool)}
    final, _ = run(LINEAR, **given, holds=holds)
    assert_close(final.h, np.asarray(given["state"].h + given["perturbations"][0]))


# ---- networks in training -------------------------------------------------------------------------

STACKS = {
    "stacked": [rr.cells.gru(HIDDEN), LSTM],
    "tied": [rr.cells.gru(HIDDEN), rr.layer(rr.cells.elman(HIDDEN), repeat=2)],
    "both directions": [rr.layer(LSTM, bidirectional=True)],
}
GATES = {cell: CASES[cell] for cell in ("gru", "lstm")} | {"elman": CASES["elman_tanh"]}


def by_hand(net, params, xs, key, mask=None):
    """The h of the top layer in training, pass by pass in NumPy, with what `draw` draws for each pass."""
    sequence = np.swapaxes(np.asarray(xs, float), 0, 1)
    mask = None if mask is None else np.swapaxes(mask, 0, 1)
    cells = [
        (index, number, side, entry)
        for index, entry in enumerate(net.layers)
        for number in range(entry.repeat)
        for side in (("forward", "backward") if entry.bidirectional else (None,))
    ]
    joined = []
    for index, number, side, entry in cells:
        leaf = f"layer_{index}" + ("" if side is None else f"/{side}")
        name = f"layer_{index}" + (f"/{number}" if entry.repeat > 1 else "")
        name += "" if side is None else f"/{side}"
        own = params[f"layer_{index}"]
        own = own if side is None else own[side]
        start = entry.cell.initial_state(len(xs), jnp.result_type(float))
        noise = net.apply.noise
        drawn = draw_noise(
            noise, entry.cell, own, start, key=key, num_steps=len(sequence), name=name, leaf=leaf
        )
        weights = drawn.cell.weights(own)
        own = own | {"W_xh": weights.W_xh, "W_hh": weights.W_hh}
        added, reverse = drawn.added, side == "backward"
        options = {"mask": mask, "holds": drawn.holds, "perturbations": added, "reverse": reverse}
        _, states = loop(GATES[entry.cell.name], own, sequence, drawn.start, **options)
        joined.append(states[0])
        if side != "forward":
            sequence, joined = np.concatenate(joined, axis=-1), []
    return np.swapaxes(sequence, 0, 1)


@pytest.mark.parametrize("name", STACKS)
def test_a_network_in_training_equals_a_loop_with_the_same_draws(name):
    rates = RATES if name != "tied" else RATES | {"zoneout_c": 0.0}
    net = rr.network(STACKS[name], None, noise=rr.Noise(**rates))
    params, xs = drawn_params(net), inputs(SHORT)
    mask = jnp.asarray(np.random.default_rng(0).random((ROWS, SHORT)) < 0.7)
    got = trained(net, params, xs, mask=mask).outputs
    assert_close(got, by_hand(net, params, xs, KEY, mask))
    assert not np.allclose(got, apply(net, params, xs, mask=mask).outputs)
    assert not np.allclose(got, trained(net, params, xs, mask=mask, key=jax.random.key(1)).outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_acts_in_training_and_none_is_moved_by_another(kind):
    """What is drawn for one kind is the same whatever else is on."""
    start, params = LSTM.initial_state(ROWS), drawn_params(rr.network([LSTM], 1))["layer_0"]
    place = {"key": KEY, "num_steps": SHORT, "name": "layer_0", "leaf": "layer_0"}
    alone, together = (
        draw_noise(rr.Noise(**rates), LSTM, params, start, **place)
        for rates in ({kind: RATES[kind]}, RATES)
    )
    if kind in ("zoneout", "zoneout_c"):
        field = "c" if kind == "zoneout_c" else "h"
        np.testing.assert_array_equal(alone.holds[field], together.holds[field])
        assert set(alone.holds) == {field}
        assert 0 < np.mean(alone.holds[field]) < 1
    elif kind == "recurrent_noise":
        np.testing.assert_array_equal(alone.added, together.added)
        assert np.std(alone.added) > 0
    else:
        one, both = (drawn.cell.weights(params) for drawn in (alone, together))
        assert not np.allclose(one.W_hh, params["W_hh"])
        if kind == "weight_noise":
            np.testing.assert_array_equal(one.W_xh, both.W_xh)
        else:
            np.testing.assert_array_equal(one.W_hh == 0, both.W_hh == 0)


def masks_of(name, kind="zoneout", leaf="layer_0", key=KEY, num_steps=2000, cell=LSTM):
    """The numbers −1 and 1 behind a mask, flat."""
    params = drawn_params(rr.network([cell], 1))["layer_0"]
    drawn = draw_noise(
        rr.Noise(**{kind: 0.5}),
        cell,
        params,
        cell.initial_state(ROWS),
        key=key,
        num_steps=num_steps,
        name=name,
        leaf=leaf,
    )
    if kind == "dropconnect":
        return np.where(drawn.cell.weights(params).W_hh == 0, 1, -1).ravel()
    return np.where(drawn.holds["c" if kind == "zoneout_c" else "h"], 1, -1).ravel()


def test_masks_of_layers_kinds_and_keys_are_independent():
    first = masks_of("layer_0")
    others = {
        "another layer": masks_of("layer_1"),
        "another direction": masks_of("layer_0/backward"),
        "another kind": masks_of("layer_0", kind="zoneout_c"),
        "another key": masks_of("layer_0", key=jax.random.fold_in(KEY, 1)),
        "the next step": np.roll(first, -ROWS * HIDDEN),
        "the next unit": np.roll(first, -1),
    }
    for name, other in others.items():
        # products of independent signs have mean 0 and variance 1
        assert abs(np.mean(first * other)) < 4.5 / np.sqrt(first.size), name
    wide = rr.cells.elman(60)
    one, two = (masks_of("", "dropconnect", leaf, cell=wide) for leaf in ("layer_0", "layer_1"))
    assert abs(np.mean(one * two)) < 4.5 / np.sqrt(one.size)


def test_units_are_held_at_their_rate_and_steps_differ():
    rate = 0.15
    state = LSTM.initial_state(ROWS)
    noise = rr.Noise(zoneout=rate)
    drawn = draw_noise(noise, LSTM, {}, state, key=KEY, num_steps=4000, name="", leaf="")
    held = np.asarray(drawn.holds["h"])
    assert abs(held.mean() - rate) < 4.5 * np.sqrt(rate * (1 - rate) / held.size)
    assert (held.any(axis=0) & ~held.all(axis=0)).all()


def test_dropped_weights_are_one_mask_for_the_batch_with_mean_one():
    """h_1 = m ⊙ W / (1 − p) read off by unit vectors: the same for every row and step."""
    rate, size = 0.4, 50
    cell = rr.cells.elman(size, activation="identity")
    net = rr.network([cell], None, noise=rr.Noise(dropconnect=rate))
    W = np.random.default_rng(0).normal(size=(size, size)) + 3
    own = {"W_xh": jnp.zeros((1, size)), "W_hh": jnp.asarray(W), "b_h": jnp.zeros(size)}
    start = {"layer_0": rr.cells.HiddenState(jnp.eye(size))}
    out = trained(net, {"layer_0": own}, jnp.zeros((size, 2, 1)), state=start)
    once, twice = np.asarray(out.outputs[:, 0]), np.asarray(out.outputs[:, 1])
    kept = once != 0
    np.testing.assert_allclose(once[kept], (W / (1 - rate))[kept], rtol=1e-5)
    np.testing.assert_allclose(twice, once @ once, rtol=1e-4, atol=1e-3)
    assert abs(kept.mean() - (1 - rate)) < 4.5 * np.sqrt(rate * (1 - rate) / kept.size)


def test_noise_on_weights_and_states_has_its_standard_deviation():
    sigma, size = 0.3, 100
    cell = rr.cells.elman(size)
    noise = rr.Noise(weight_noise=sigma, recurrent_noise=sigma)
    params = {"W_xh": jnp.ones((40, size)), "W_hh": jnp.ones((size, size)), "b_h": jnp.ones(size)}
    start = cell.initial_state(10)
    drawn = draw_noise(noise, cell, params, start, key=KEY, num_steps=20, name="", leaf="")
    weights = drawn.cell.weights(params)
    for values in (weights.W_xh - 1, weights.W_hh - 1, drawn.added):
        error = 4.5 / np.sqrt(values.size)
        assert abs(np.mean(values)) < sigma * error
        assert abs(np.std(values) / sigma - 1) < error
    np.testing.assert_array_equal(weights.b_h, params["b_h"])


def test_repeats_of_a_layer_share_the_noise_of_its_weights():
    """The same weights are applied twice, so h = x (W + σ ε)² with one ε."""
    cell = rr.cells.elman(HIDDEN, activation="identity")
    net = rr.network([rr.layer(cell, repeat=2)], None, noise=rr.Noise(weight_noise=0.2))
    params = drawn_params(net, HIDDEN)
    params["layer_0"]["b_h"] = 0 * params["layer_0"]["b_h"]
    out = trained(net, params, jnp.eye(HIDDEN)[:, None])
    once, twice = (states.h[:, 0] for states in out.states["layer_0"])
    assert not np.allclose(once, params["layer_0"]["W_xh"])
    assert_close(twice, np.asarray(once @ once), loosen=10)


# ---- prediction: the expectation ------------------------------------------------------------------


def test_the_mean_over_draws_is_the_prediction_of_a_linear_network():
    noise = {"zoneout": 0.3, "recurrent_noise": 0.05}
    net = rr.network([LINEAR], 2, noise=rr.Noise(**noise))
    params, xs, num = drawn_params(net, scale=0.4), inputs(SHORT), 4000
    expected = np.asarray(apply(net, params, xs).outputs)
    rows = trained(net, params, jnp.repeat(xs, num, axis=0)).outputs
    rows = np.asarray(rows).reshape(ROWS, num, SHORT, 2)
    error = rows.std(axis=1) / np.sqrt(num)
    assert (np.abs(rows.mean(axis=1) - expected) < 5 * error + 1e-6).all()
    assert np.abs(rows - expected[:, None]).max() > 0.1
    # Noise of weights is one draw for a batch. From the third step on the outputs are no longer linear in W_hh.
    net = rr.network([LINEAR], 2, noise=rr.Noise(dropconnect=0.2, weight_noise=0.1, **noise))
    each = jax.jit(jax.vmap(lambda key: net.apply(params, xs, train=True, key=key).outputs))
    batches = np.asarray(each(jax.random.split(KEY, num)))[:, :, :2]
    error = batches.std(axis=0) / np.sqrt(num)
    assert (np.abs(batches.mean(axis=0) - expected[:, :2]) < 5 * error + 1e-6).all()


@pytest.mark.parametrize("cell", [LSTM, rr.cells.gru(HIDDEN, reset="before")], ids=["gate", "step"])
def test_prediction_blends_the_new_state_with_the_old_one(cell):
    noise = rr.Noise(**RATES | {"zoneout_c": 0.4 if cell is LSTM else 0.0, "dropconnect": 0.0})
    noise = noise if cell is LSTM else rr.Noise(zoneout=0.3)
    net = rr.network([cell], None, noise=noise)
    params, xs = drawn_params(net), inputs(SHORT)
    step = rr.recurrence.cell_step(cell)
    old, shares = cell.initial_state(ROWS, xs.dtype), {"h": 0.3, "c": 0.4}
    got = apply(net, params, xs).states["layer_0"]
    for t in range(SHORT):
        new = step(params["layer_0"], old, xs[:, t])
        old = type(new)(
            **{
                k: (1 - shares[k]) * v + shares[k] * getattr(old, k)
                for k, v in new._asdict().items()
            }
        )
        assert_close(jax.tree.map(lambda leaf, t=t: leaf[:, t], got), old, loosen=10)


@pytest.mark.parametrize("rate", [0.0, np.float32(0.0)])
def test_a_rate_of_zero_changes_no_bit(rate):
    zero = rr.Noise(*[rate] * len(KINDS))
    nets = [rr.network([LSTM], 1, dropout=0.0, noise=noise) for noise in (rr.Noise(), zero)]
    params, xs = drawn_params(nets[0]), inputs(SHORT)
    one, two = (jax.make_jaxpr(lambda p, n=net: n.apply(p, xs, train=True))(params) for net in nets)
    assert str(one) == str(two)
    assert not nets[1].random


def test_traced_rates_of_zero_are_no_noise_and_one_program_serves_all():
    params, xs = drawn_params(rr.network([LSTM], 1)), inputs(SHORT)
    traces = []

    @functools.partial(jax.jit, static_argnames="train")
    def outputs(rates, train):
        traces.append(train)
        net = rr.network([LSTM], 1, noise=rr.Noise(**rates))
        return net.apply(params, xs, train=train, key=KEY).outputs

    plain = apply(rr.network([LSTM], 1), params, xs).outputs
    given = rr.network([LSTM], 1, noise=rr.Noise(**RATES))
    for train, expected in ((True, trained), (False, apply)):
        none = outputs(dict.fromkeys(KINDS, 0.0), train)
        np.testing.assert_allclose(none, plain, **tolerance())
        noisy = outputs(RATES, train)
        np.testing.assert_allclose(noisy, expected(given, params, xs).outputs, **tolerance())
        assert not np.allclose(noisy, none)
    assert traces == [True, False]


@pytest.mark.parametrize("kind", ["zoneout", "zoneout_c", "dropconnect"])
@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_a_traced_rate_outside_its_range_makes_nan(kind, rate):
    params, xs = drawn_params(rr.network([LSTM], 1)), inputs(SHORT)

    @functools.partial(jax.jit, static_argnames="train")
    def outputs(rate, train):
        net = rr.network([LSTM], 1, noise=rr.Noise(**{kind: rate}))
        return net.apply(params, xs, train=train, key=KEY).outputs

    assert np.isnan(outputs(rate, train=True)[:, -1]).all()
    if kind != "dropconnect":
        assert np.isnan(outputs(rate, train=False)[:, -1]).all()


def test_vmap_over_rates_equals_a_loop_and_prediction_has_its_derivative():
    params, xs = drawn_params(rr.network([LSTM], 1)), inputs(SHORT)

    def value(rate, train, backend="auto"):
        noise = rr.Noise(zoneout=rate, zoneout_c=rate / 2, weight_noise=rate)
        net = rr.network([LSTM], 1, noise=noise, backend=backend)
        return jnp.sum(jnp.sin(net.apply(params, xs, train=train, key=KEY).outputs))

    rates = jnp.asarray([0.0, 0.2, 0.7], jnp.result_type(float))
    for train in (True, False):
        each = jax.jit(functools.partial(value, train=train))
        np.testing.assert_allclose(
            jax.vmap(each)(rates), [each(rate) for rate in rates], **tolerance(loosen=10)
        )
    slope = jax.jit(jax.grad(functools.partial(value, train=False)))(rates[1])
    scan = jax.jit(jax.grad(functools.partial(value, train=False, backend="scan")))(rates[1])
    np.testing.assert_allclose(slope, scan, **tolerance(loosen=10))
    if jax.config.jax_enable_x64:
        around = [value(rates[1] + step, train=False) for step in (-1e-6, 1e-6)]
        np.testing.assert_allclose(slope, (around[1] - around[0]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_padding_changes_nothing_and_nothing_is_added_to_it(train):
    noise = rr.Noise(**RATES)
    net = rr.network([rr.cells.gru(HIDDEN), LSTM], 1, noise=noise, readout="last")
    params, xs = drawn_params(net), inputs(LONG)
    lengths = [LONG, SHORT, 1]
    mask = jnp.asarray(rr.data.lengths_to_mask(lengths, LONG))
    spoiled = jnp.where(mask[..., None] > 0, xs, jnp.nan)
    once, again = (apply(net, params, x, mask=mask, train=train, key=KEY) for x in (xs, spoiled))
    np.testing.assert_array_equal(once.outputs, again.outputs)
    for row, length in enumerate(lengths):
        for leaf in jax.tree.leaves(once.states):
            held = np.asarray(leaf[row, length - 1 :])
            np.testing.assert_array_equal(held, np.broadcast_to(held[:1], held.shape))
    if not train:
        short = apply(net, params, xs[:, :SHORT]).outputs
        np.testing.assert_allclose(once.outputs[1], short[1], **tolerance())


# ---- diagnostics, forecasts, penalties: the network that predicts -----------------------------------

ZONED = rr.network([rr.cells.gru(HIDDEN)], 1, noise=rr.Noise(**RATES | {"zoneout_c": 0.0}))


@pytest.mark.slow
def test_diagnostics_take_the_expectation_and_draw_nothing():
    params, xs = drawn_params(ZONED), inputs(SHORT)
    batch = rr.Batch(xs, jnp.ones((ROWS, SHORT, 1), xs.dtype))
    loss = rr.losses.squared_error()

    def of(zeros):
        out = ZONED.apply(params, xs, perturbations={"layer_0": zeros})
        return loss(out.outputs, batch.ys)

    expected = jax.jit(jax.grad(of))(jnp.zeros((ROWS, SHORT, HIDDEN), xs.dtype))
    flow = rr.diagnostics.gradient_flow(ZONED, loss, params, batch, step=None)
    # by steps back, and per example, where the loss is a mean over rows
    norms = np.linalg.norm(np.asarray(expected) * ROWS, axis=-1)[:, ::-1]
    np.testing.assert_allclose(flow.norms["layer_0"], norms, rtol=1e-4)

    def after(h):
        state = {"layer_0": rr.cells.HiddenState(h[None])}
        return ZONED.apply(params, xs[:1, :1], state=state).final_state["layer_0"].h[0]

    h = jnp.linspace(-0.5, 0.5, HIDDEN)
    plain = rr.recurrence.cell_step(rr.cells.gru(HIDDEN))
    alone = jax.jacobian(
        lambda h: plain(params["layer_0"], rr.cells.HiddenState(h[None]), xs[:1, 0]).h[0]
    )(h)
    np.testing.assert_allclose(
        jax.jacobian(after)(h), 0.3 * np.eye(HIDDEN) + 0.7 * alone, **tolerance(loosen=10)
    )
    exponents = [
        rr.diagnostics.lyapunov(net, params, xs, discard=0).exponents
        for net in (ZONED, rr.network(ZONED.layers, 1, noise=rr.Noise(zoneout=0.3)))
    ]
    np.testing.assert_array_equal(*exponents)


def test_a_penalty_and_a_bound_see_the_cell_that_predicts():
    params, xs = drawn_params(ZONED), inputs(1)
    state = rr.cells.HiddenState(jnp.full((ROWS, HIDDEN), 0.2, xs.dtype))
    step = rr.recurrence.cell_step(expected_cell(ZONED, 0))
    expected = apply(ZONED, params, xs, state={"layer_0": state}).states["layer_0"].h[:, 0]
    np.testing.assert_allclose(step(params["layer_0"], state, xs[:, 0]).h, expected, **tolerance())
    elman = rr.network([rr.cells.elman(HIDDEN)], 1, noise=rr.Noise(zoneout=0.3))
    bounds = rr.diagnostics.jacobian_bounds(elman, drawn_params(elman))
    assert bounds is None or bounds.log_bound is None  # γ σ_max is none of p I + (1 − p) J


def test_a_forecast_has_the_expectation():
    net = rr.network([LSTM], 1, noise=rr.Noise(zoneout=0.3, zoneout_c=0.4))
    params, xs = drawn_params(net, 1), inputs(SHORT, size=1)
    values = rr.forecast(net, params, xs, 3)
    by_hand = xs
    for _ in range(3):
        last = apply(net, params, by_hand).outputs[:, -1:]
        by_hand = jnp.concatenate([by_hand, last], axis=1)
    np.testing.assert_allclose(values, by_hand[:, SHORT:], **tolerance(loosen=10))
    plain = rr.forecast(rr.network([LSTM], 1), params, xs, 3)
    assert not np.allclose(values, plain)


# ---- sweeps ---------------------------------------------------------------------------------------


def zoned_train(**options):
    def net(hyper):
        noise = rr.Noise(zoneout=hyper["zoneout"], dropconnect=0.1)
        return rr.network([rr.cells.gru(3)], 1, readout="last", noise=noise)

    return make(net, num_epochs=2, **options)


@pytest.mark.slow
def test_lanes_of_a_sweep_over_the_rate_equal_the_runs_alone_under_every_plan():
    train, data = zoned_train(), sine()
    grid = {"zoneout": [0.0, 0.1, 0.5], "l2": 0.0, "learning_rate": 0.1}
    results = {
        plan: rr.sweep(train, grid, data, key=KEY, plan=plan, progress=False, **more)
        for plan, more in (("one_by_one", {}), ("chunks", {"chunk": 2}), ("vmap", {}))
    }
    for lane, rate in enumerate(grid["zoneout"]):
        hyper = {"zoneout": rate, "l2": 0.0, "learning_rate": 0.1}
        alone = train(hyper, data, key=jax.random.fold_in(KEY, 0))
        for plan, result in results.items():
            got = result.params_at(zoneout=rate)
            np.testing.assert_allclose(
                got["layer_0"]["W_hh"],
                alone.params["layer_0"]["W_hh"],
                **tolerance(loosen=10),
                err_msg=f"{plan}, {lane}",
            )
    losses = results["one_by_one"].metrics["train_loss"].values
    assert len(np.unique(losses)) == 3


def test_predictions_of_a_result_have_the_rate_of_their_lane():
    data, rate = sine(), 0.4
    noise = rr.Noise(zoneout=rate, weight_noise=0.1)
    fixed = rr.network([rr.cells.gru(3)], 1, readout="last", noise=noise)
    grid = {"l2": 0.0, "learning_rate": 0.1}
    result = rr.sweep(make(fixed, num_epochs=2), grid, data, key=KEY, progress=False)
    expected = apply(fixed, result.params_at(), data.train.xs).outputs
    np.testing.assert_allclose(result.predict(data.train), expected, **tolerance(loosen=10))
    rebuilt = rr.networks.rebuild(rr.networks.describe(fixed))
    assert rebuilt.apply.noise == rr.Noise(zoneout=rate)

    train = zoned_train()
    swept = rr.sweep(train, grid | {"zoneout": [0.1, rate]}, data, key=KEY, progress=False, seeds=2)
    with pytest.raises(ValueError, match="its zoneout, which its predictions depend on, is traced"):
        swept.predict(data.train, zoneout=rate)
    net = train.network({"zoneout": rate})
    with pytest.raises(ValueError, match=r"along 'zoneout' may differ.*zoneout=label"):
        swept.predict(data.train, network=net)
    found = swept.predict(data.train, network=net, zoneout=rate)
    expected = apply(net, swept.params_at(zoneout=rate, seed=1), data.train.xs).outputs
    np.testing.assert_allclose(found.sel(seed=1), expected, **tolerance(loosen=10))


# ---- which back end, and messages -----------------------------------------------------------------


def test_explain_says_what_zoneout_runs_on(monkeypatch):
    monkeypatch.setenv("RNNREG_NATIVE", "0")
    noise = rr.Noise(zoneout=0.1, zoneout_c=0.2)
    layers = [rr.cells.gru(4), LSTM, rr.cells.gru(4, reset="before")]
    choices = rr.explain(rr.network(layers, 1, noise=noise), input_size=2)
    assert [choice.backend for choice in choices.values()] == ["fused", "fused", "scan"]
    ends = "in prediction zoneout has its expectation and runs {}"
    for choice, name in zip(choices.values(), ("fused", "fused", "scan"), strict=True):
        assert choice.reason.endswith(ends.format(name))
    quiet = rr.explain(rr.network(layers[:2], 1, noise=rr.Noise(dropconnect=0.1)), input_size=2)
    assert "zoneout" not in str(quiet)


def test_the_compiled_kernel_runs_what_it_can(monkeypatch):
    monkeypatch.delenv("RNNREG_NATIVE", raising=False)
    if rr.explain(rr.network([LSTM], 1), input_size=2)["layer_0"].backend != "native":
        pytest.skip("no compiler")
    layers = [rr.cells.gru(4), LSTM]
    for noise, expected in (
        (rr.Noise(zoneout=0.1), ["native", "fused"]),
        (rr.Noise(zoneout=0.1, recurrent_noise=0.1), ["fused", "fused"]),
        (rr.Noise(dropconnect=0.1, weight_noise=0.1, recurrent_noise=0.1), ["native", "native"]),
    ):
        choices = rr.explain(rr.network(layers, 1, noise=noise), input_size=2)
        assert [choice.backend for choice in choices.values()] == expected
        if "fused" in expected:
            assert "holds h and c of a unit together" in choices["layer_1"].reason


BEFORE = rr.cells.gru(HIDDEN, reset="before")
WRONG = {
    "not a record": (0.1, r"noise must be a Noise \(rr.Noise\(zoneout=0.1\)\); got 0.1"),
    "one": (rr.Noise(zoneout=1.0), r"noise: zoneout must lie in \[0, 1\); got 1.0"),
    "negative": (rr.Noise(dropconnect=-0.1), r"noise: dropconnect must lie in \[0, 1\)"),
    "text": (rr.Noise(zoneout="a"), r"noise: zoneout must lie in \[0, 1\); got 'a'"),
    "sigma": (rr.Noise(weight_noise=-1.0), "noise: weight_noise must be a number of at least 0"),
    "infinite": (rr.Noise(recurrent_noise=np.inf), "noise: recurrent_noise must be"),
    "no c": (rr.Noise(zoneout_c=0.1), "no cell of .* has one. Give zoneout="),
    "weights of a step": (rr.Noise(dropconnect=0.1), "does its own products. Use a gate cell"),
}


@pytest.mark.parametrize("name", WRONG)
def test_impossible_noise_is_named(name):
    noise, message = WRONG[name]
    cell = BEFORE if name == "weights of a step" else rr.cells.gru(HIDDEN)
    with pytest.raises(ValueError, match=message):
        rr.network([cell], 1, noise=noise)


def test_the_compiled_kernel_alone_cannot_predict_with_zoneout():
    with pytest.raises(ValueError, match="backend='native' cannot run zoneout in prediction"):
        rr.network([LSTM], 1, noise=rr.Noise(zoneout=0.1), backend="native")
    rr.network([LSTM], 1, noise=rr.Noise(dropconnect=0.1), backend="native")


def test_a_key_is_needed_only_where_something_is_drawn():
    xs = inputs(1)
    for kind in KINDS:
        net = rr.network([LSTM], 1, noise=rr.Noise(**{kind: 0.1}))
        params = drawn_params(net)
        assert net.random
        net.apply(params, xs)
        with pytest.raises(ValueError, match=r"pass apply\(..., train=True, key=key\)"):
            net.apply(params, xs, train=True)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_noise_keeps_the_dtype_under_strict_promotion(dtype):
    net = rr.network(
        [LSTM, BEFORE], 1, noise=rr.Noise(zoneout=0.1, zoneout_c=0.2, recurrent_noise=0.1)
    )
    weights = rr.network([LSTM], 1, noise=rr.Noise(dropconnect=0.1, weight_noise=0.1))
    for one in (net, weights):
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), drawn_params(one))
        for train in (True, False):
            with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
                out = apply(one, params, inputs(SHORT).astype(dtype), train=train, key=KEY)
            assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype(dtype)}
