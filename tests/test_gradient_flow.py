"""Gradients that go back one step at a time against autodiff of the whole sequence, and against closed forms."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance
from diagnostic_records import flow_of

import rnnreg as rr
from rnnreg.diagnostics import decay_rate, gradient_flow, horizon
from rnnreg.objective import zero_perturbations

pytestmark = pytest.mark.numerics

KEY = jax.random.key(SEED)
B, T, D = 3, 5, 2
LOSS = rr.losses.squared_error("sum")
MASK = rr.data.lengths_to_mask([5, 3, 4], T)


def leaky(size=3):
    """A cell of a user's own, by its step."""

    def step(params, state, x):
        new = jnp.tanh(state.h @ params["W_hh"] + x @ params["W_xh"])
        return rr.cells.HiddenState(h=0.5 * state.h + 0.5 * new)

    return rr.cells.from_step(step, init=rr.cells.elman(size).init, hidden_size=size, name="leaky")


class Counting(NamedTuple):
    h: Any
    count: Any


def counting(size=3):
    """A cell that carries a whole number beside h, which no gradient goes through."""

    def step(params, state, x):
        new = jnp.tanh(state.h @ params["W_hh"] + x @ params["W_xh"])
        return Counting(new / (1 + state.count[:, None]), state.count + 1)

    def start(batch, dtype=jnp.float32):
        return Counting(jnp.zeros((batch, size), dtype), jnp.zeros(batch, jnp.int32))

    init = rr.cells.elman(size).init
    return rr.cells.from_step(step, init=init, initial_state=start, hidden_size=size)


NETWORKS = {
    "own state": [counting()],
    "elman": [rr.cells.elman(3)],
    "elman of any function": [rr.cells.elman(3, activation=jnp.sin)],
    "gru": [rr.cells.gru(3)],
    "gru before": [rr.cells.gru(3, reset="before")],
    "lstm": [rr.cells.lstm(3)],
    "own step": [leaky()],
    "two layers": [rr.cells.elman(3), rr.cells.lstm(2)],
    "tied": [rr.layer(rr.cells.elman(2), repeat=2), rr.cells.gru(3)],
    "two ways": [rr.layer(rr.cells.elman(3), bidirectional=True), rr.cells.gru(2)],
}


@functools.cache
def _made(name, **options):
    net = rr.network(NETWORKS[name], 2, **options)
    return net, net.init(KEY, D)


def _batch(readout="all", mask=None):
    rng = np.random.default_rng(3)
    ys = rng.normal(size=(B, T, 2) if readout == "all" else (B, 2))
    return rr.Batch(jnp.asarray(rng.normal(size=(B, T, D))), jnp.asarray(ys), mask)


def _by_autodiff(net, params, batch, step):
    """[B, T] norms of every layer by differentiating the whole sequence at once, at each time t."""
    counts = jnp.ones((B, T)) if batch.mask is None else jnp.asarray(batch.mask)
    if step is not None and net.readout == "all":
        counts = jnp.arange(T) == (T - 1 - jnp.argmax(counts[:, ::-1] > 0, axis=1))[:, None]

    def summed(perturbations):
        outputs = net.apply(params, batch.xs, mask=batch.mask, perturbations=perturbations).outputs
        errors = jnp.square(outputs - batch.ys).sum(axis=-1)
        return jnp.sum(errors * counts) if net.readout == "all" else jnp.sum(errors)

    gradients = jax.grad(summed)(zero_perturbations(net, params, batch))
    return jax.tree.map(lambda leaf: jnp.linalg.norm(leaf, axis=-1), gradients)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_agrees_with_autodiff(name):
    net, params = _made(name)

    @jax.jit
    def both(batch):  # one program for both masks
        return [
            (
                gradient_flow(net, LOSS, params, batch, step=step),
                _by_autodiff(net, params, batch, step),
            )
            for step in (-1, None)
        ]

    for mask in (np.ones((B, T), np.float32), MASK):
        for (flow, expected), whole in zip(both(_batch(mask=mask)), (False, True), strict=True):
            assert bool(flow.whole_loss) == whole
            assert jax.tree.structure(flow.norms) == jax.tree.structure(expected)
            pairs = zip(jax.tree.leaves(flow.norms), jax.tree.leaves(expected), strict=True)
            for found, norms in pairs:
                for row, size in enumerate(mask.sum(axis=1).astype(int)):
                    np.testing.assert_allclose(
                        found[row, :size], norms[row, :size][::-1], **tolerance(loosen=3)
                    )
                    assert np.isnan(found[row, size:]).all()


@pytest.mark.parametrize("options", [{"remat": 2}, {"truncate": 2}, {"initial_state": "learned"}])
def test_segments_and_a_learned_start_are_followed(options):
    net, params = _made("elman", readout="last", **options)
    if "initial_state" in options:
        params["layer_0"]["initial"] = {"h": jnp.array([0.3, -0.5, 0.9])}
    batch = _batch("last")
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch))()
    expected = jax.jit(lambda: _by_autodiff(net, params, batch, -1))()
    np.testing.assert_allclose(
        flow.norms["layer_0"], expected["layer_0"][:, ::-1], **tolerance(loosen=3)
    )
    if "truncate" in options:  # five steps end in a segment of one
        assert (np.asarray(flow.vanished["layer_0"]) == [0, 1, 1, 1, 1]).all()


def test_tokens_have_a_flow():
    net = rr.network([rr.cells.gru(3)], 2, embedding=(4, 2))
    params = net.init(KEY)
    batch = _batch()._replace(xs=jnp.arange(B * T).reshape(B, T) % 4)
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch))()
    expected = jax.jit(lambda: _by_autodiff(net, params, batch, -1))()
    np.testing.assert_allclose(
        flow.norms["layer_0"], expected["layer_0"][:, ::-1], **tolerance(loosen=3)
    )


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_the_whole_state_of_an_lstm(masked):
    """∂L/∂(h, c)_t, by running on from the state at t."""
    net, params = _made("two layers", readout="last")
    batch = _batch("last", MASK if masked else None)
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch, wrt="state"))()
    states = jax.jit(net.apply)(params, batch.xs, mask=batch.mask).states
    xs, ys, states = jax.tree.map(np.asarray, (batch.xs, batch.ys, states))

    @jax.jit
    @jax.grad
    def gradient_of(start, rest, ys):
        return jnp.sum(jnp.square(net.apply(params, rest, state=start).outputs - ys))

    lengths = MASK.sum(axis=1).astype(int) if masked else [T] * B
    for row in range(B):
        last = lengths[row] - 1
        for t in range(last):
            rest = xs[row : row + 1, t + 1 : last + 1]
            start = jax.tree.map(lambda leaf, r=row, t=t: leaf[r : r + 1, t], states)
            gradient = gradient_of(start, rest, ys[row : row + 1])["layer_1"]
            expected = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in gradient))
            np.testing.assert_allclose(
                flow.norms["layer_1"][row, last - t], expected, **tolerance(loosen=3)
            )


# ---- range --------------------------------------------------------------------------------------


def _linear(gain, num_steps, *, size=3, rotated=True):
    """h ← g h Q with nothing entering, read as it is: ‖∂L_τ/∂h_{τ−ℓ}‖ = g^ℓ ‖∂L_τ/∂h_τ‖."""
    orthogonal, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))
    net = rr.network([rr.cells.elman(size, activation=jax.nn.identity)], size)
    params = net.init(KEY, 1)
    W_hh = gain * jnp.asarray(orthogonal if rotated else np.eye(size))
    params["layer_0"] |= {"W_xh": jnp.zeros((1, size)), "W_hh": W_hh}
    params["readout"] = {"W_hy": jnp.eye(size), "b_y": jnp.zeros(size)}
    ys = jnp.broadcast_to(jnp.array([1.0, 2.0, -0.5]), (2, num_steps, size))
    return net, params, rr.Batch(jnp.zeros((2, num_steps, 1)), ys)


@jax.jit
def _read(logs):
    return decay_rate(logs), horizon(logs, threshold=1e-3)


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_powers_of_a_gain_are_measured_far_outside_float32(gain):
    net, params, batch = _linear(gain, 200)
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch))()
    lags = np.arange(200)
    # 0.5^199 = 1.2e-60, and 2^199 = 8e59: neither is a float32
    np.testing.assert_allclose(
        flow.log_ratio["layer_0"], lags * np.log(gain), rtol=1e-5, atol=200 * tolerance()["atol"]
    )
    assert (np.asarray(flow.vanished["layer_0"]) == 0).all()
    rate, reach = _read(flow.log_norms["layer_0"])
    assert float(rate.rate) == pytest.approx(np.log(gain), abs=1e-5)
    if gain < 1:
        assert float(reach.lag) == pytest.approx(np.log(1e-3) / np.log(gain), rel=1e-4)
    else:
        assert bool(reach.censored)
        assert np.isnan(reach.lag)


def test_an_orthogonal_network_keeps_every_gradient():
    net, params, batch = _linear(1.0, 200)
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch))()
    np.testing.assert_allclose(flow.ratio["layer_0"], np.ones(200), **tolerance(loosen=10))


def test_the_whole_loss_sums_over_all_later_steps():
    # scaled identity and outputs at rest: ∂L/∂h_t = Σ_{τ ≥ t} g^(τ−t) v, so r(ℓ) = Σ_{k ≤ ℓ} g^k
    net, params, batch = _linear(0.5, 200, rotated=False)
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch, step=None))()
    expected = (1 - 0.5 ** (np.arange(200) + 1.0)) / 0.5
    np.testing.assert_allclose(flow.ratio["layer_0"], expected, **tolerance(loosen=10))
    net, params, batch = _linear(2.0, 200, rotated=False)  # sums that overflow float32
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch, step=None))()
    lags = np.arange(200)
    np.testing.assert_allclose(
        flow.log_ratio["layer_0"], np.log(2.0**lags * (2 - 0.5**lags)), rtol=1e-5, atol=1e-5
    )


def _by_two_layers(net, params, num_steps):
    """ln ‖∂L/∂h‖ of the last output by lag, of a linear network whose upper layer is 0.1 times a rotation."""
    above, below = np.asarray(params["readout"]["W_hy"], np.float64)[:, 0], np.zeros(3)
    rotation = np.asarray(params["layer_1"]["W_hh"], np.float64) / 0.1
    enters = np.asarray(params["layer_1"]["W_xh"], np.float64)
    logs = np.empty((2, num_steps))
    for lag in range(num_steps):
        below = below + enters @ above * 0.1**lag
        logs[:, lag] = np.log([np.linalg.norm(below), np.linalg.norm(above)])
        logs[1, lag] += lag * np.log(0.1)
        above = rotation @ above
    return logs


@pytest.mark.parametrize("step", [-1, None])
def test_the_gradient_comes_from_the_steps_with_a_label(step):
    net = rr.network([rr.cells.elman(3)], 1)
    params, xs = net.init(KEY, D), jax.random.normal(KEY, (B, T, D))
    labelled = jnp.asarray(rr.data.lengths_to_mask([5, 3, 4], T))
    batch = rr.Batch(xs, jnp.ones((B, T, 1)), weights=labelled)
    flow = jax.jit(lambda batch: gradient_flow(net, LOSS, params, batch, step=step))
    found = flow(batch).log_ratio["layer_0"]
    # a unidirectional network does not see what comes after: the same as with the end masked
    masked = batch._replace(weights=None, mask=labelled)
    expected = flow(masked).log_ratio["layer_0"]
    np.testing.assert_allclose(found, expected, **tolerance())


@pytest.mark.slow
def test_a_layer_that_forgets_is_measured_above_one_that_keeps():
    linear = {"activation": jax.nn.identity}
    cells = [
        rr.cells.elman(3, **linear, recurrent_init="identity"),
        rr.cells.elman(3, **linear, recurrent_init=rr.cells.orthogonal(0.1)),
    ]
    net = rr.network(cells, 1, readout="last")
    params = net.init(KEY, 1)
    batch = rr.Batch(jnp.ones((2, 400, 1)), 9 * jnp.ones((2, 1)))  # 0.1^399 is no float64 either
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch))()
    below, above = _by_two_layers(net, params, 400)
    close = {"rtol": 1e-5, "atol": 400 * tolerance()["atol"]}
    np.testing.assert_allclose(flow.log_ratio["layer_1"], above - above[0], **close)
    np.testing.assert_allclose(flow.log_ratio["layer_0"], below - below[0], **close)
    assert (np.asarray(flow.vanished["layer_1"]) == 0).all()
    rate = decay_rate(flow.log_norms["layer_1"]).rate
    assert float(rate) == pytest.approx(np.log(0.1), abs=1e-5)


def test_what_is_put_around_apply_is_differentiated():
    net, params = _made("two layers")
    doubled = net._replace(apply=lambda params, xs, **options: net.apply(params, 2 * xs, **options))
    flow = jax.jit(lambda: gradient_flow(doubled, LOSS, params, _batch()))()
    expected = jax.jit(lambda: _by_autodiff(doubled, params, _batch(), -1))()
    for layer, norms in expected.items():
        np.testing.assert_allclose(flow.norms[layer], norms[:, ::-1], **tolerance(loosen=3))
    with pytest.raises(ValueError, match="one step at a time"):
        gradient_flow(doubled, LOSS, params, _batch(), wrt="state")


@pytest.mark.slow
def test_one_program_serves_parameters_under_vmap():
    net, params = _made("gru")
    batch = _batch(mask=MASK)
    traced = []

    def flow_of(params):
        traced.append(None)
        return gradient_flow(net, LOSS, params, batch)

    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params)
    together = jax.jit(jax.vmap(flow_of))(stacked)
    alone = jax.jit(flow_of)
    for row, scale in enumerate((1.0, 0.5)):
        one = alone(jax.tree.map(lambda leaf, s=scale: s * leaf, params))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a, b[row], **tolerance(loosen=10))
    assert len(traced) == 2


@pytest.mark.parametrize(
    ("name", "options", "wrt", "message"),
    [
        ("elman", {}, "c", "wrt must be 'h' or 'state'"),
        ("two ways", {}, "state", "one step at a time.*reads the sequence backwards"),
        ("elman", {"truncate": 2}, "state", "one step at a time.*truncate=2"),
        ("own state", {}, "state", "one step at a time.*'custom' holds whole numbers"),
    ],
)
def test_impossible_gradients_are_named(name, options, wrt, message):
    net, params = _made(name, **options)
    with pytest.raises(ValueError, match=message):
        gradient_flow(net, LOSS, params, _batch(), wrt=wrt)


def test_a_cell_or_a_step_function_is_measured_as_the_network_of_it():
    cell = rr.cells.lstm(3)
    params = {"layer_0": cell.init(KEY, D)}
    batch = _batch()._replace(ys=jnp.zeros((B, T, 3)))
    step = rr.recurrence.cell_step(cell)
    start = cell.initial_state(B, batch.xs.dtype)

    @jax.jit
    def measured(params):
        own, options = params["layer_0"], {"wrt": "state"}
        return (
            gradient_flow(rr.network([cell], None), LOSS, params, batch, **options),
            gradient_flow(cell, LOSS, own, batch, **options),
            gradient_flow(step, LOSS, own, batch, state=start, **options),
        )

    expected, alone, given = measured(params)
    for found in (alone, given):
        np.testing.assert_allclose(
            found.log_ratio["layer_0"], expected.log_ratio["layer_0"], rtol=1e-5
        )
    halve = gradient_flow(
        lambda W, h, x: h @ W, LOSS, 0.5 * jnp.eye(3), batch, state=jnp.ones((B, 3))
    )
    np.testing.assert_allclose(halve.ratio["layer_0"], 0.5 ** np.arange(T), rtol=1e-5)


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        (3, {}, r"system must be a Network"),
        (lambda params, state, x: state, {}, "has no initial state of its own"),
        (lambda params, state, x: state, {"state": jnp.ones((B + 1, 3))}, "a row for each of the"),
        (rr.cells.elman(3), {"state": jnp.ones((B, 3))}, "state is for a step function"),
    ],
)
def test_systems_that_do_not_fit_are_named(system, options, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(system, LOSS, {}, _batch(), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xs": [[[1.0, 2.0]]]}, r"batch\.xs must be a NumPy or JAX array; got list"),
        ({"mask": [[1.0] * T] * B}, r"batch\.mask must be a NumPy or JAX array; got list"),
        ({"weights": [1.0] * B}, r"batch\.weights must be a NumPy or JAX array; got list"),
        ({"ys": jnp.zeros((2, T, 2))}, "as many rows as xs: 3; got 2"),
        ({"mask": jnp.ones((B, T + 1))}, r"batch\.mask must be \[N, T\]"),
    ],
)
def test_batches_that_do_not_fit_are_named(change, message):
    net, params = _made("elman")
    with pytest.raises(ValueError, match=message):
        gradient_flow(net, LOSS, params, _batch()._replace(**change))


@pytest.mark.parametrize("step", [2.5, True, jnp.array([1, 2]), "last", T])
def test_steps_that_are_no_count_are_named(step):
    net, params = _made("elman")
    with pytest.raises(
        ValueError, match=r"step must be (-1, None, or lie in 0 … 4|a whole number or None)"
    ):
        gradient_flow(net, LOSS, params, _batch(), step=step)


def test_gradients_that_are_not_finite_are_counted_and_left_out():
    net, params = _made("elman")
    batch = _batch()
    flow_of = jax.jit(lambda batch: gradient_flow(net, LOSS, params, batch))
    broken = flow_of(batch._replace(xs=batch.xs.at[1, 2].set(jnp.nan)))
    assert np.asarray(broken.not_finite["layer_0"]) == pytest.approx(1 / 3)
    assert (np.asarray(broken.vanished["layer_0"]) == 0).all()
    others = flow_of(batch._replace(weights=jnp.array([1.0, 0.0, 1.0])))
    assert (np.asarray(others.not_finite["layer_0"]) == 0).all()
    np.testing.assert_allclose(broken.ratio["layer_0"], others.ratio["layer_0"], **tolerance())


@pytest.mark.slow
def test_gradients_that_overflow_are_infinite_where_plain_autodiff_is_used():
    linear = rr.cells.elman(3, activation=jax.nn.identity, recurrent_init=rr.cells.identity(1e3))
    net = rr.network([rr.layer(linear, bidirectional=True)], 1)
    params = net.init(KEY, 1)
    batch = rr.Batch(jnp.zeros((2, 120, 1)), jnp.ones((2, 120, 1)))
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch))()
    logs = np.asarray(flow.log_norms["layer_0"]["forward"])
    first = int(np.isfinite(logs[0]).sum())
    assert 10 < first < 119
    assert np.isposinf(logs[:, first]).all()  # then 0 · ∞ = NaN
    np.testing.assert_array_equal(flow.not_finite["layer_0"]["forward"], np.arange(120) >= first)
    assert np.isfinite(flow.log_ratio["layer_0"]["forward"][:first]).all()
    assert bool(horizon(logs).censored)


def test_strict_dtypes_and_ranks_are_kept():
    net, params = _made("lstm")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)  # they decide the dtype
    xs = jnp.asarray(_batch().xs, jnp.float32)
    batch = _batch()._replace(xs=xs, ys=jnp.asarray(_batch().ys, jnp.float32))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        flow = jax.jit(lambda: gradient_flow(net, LOSS, params, batch))()
    assert flow.log_norms["layer_0"].dtype == jnp.float32


# ---- rate and horizon ---------------------------------------------------------------------------


def test_a_rate_is_the_slope_of_each_sequence_and_its_error_that_between_runs():
    rng = np.random.default_rng(1)
    lags = np.arange(12)
    logs = rng.normal(size=(4, 6, 1)) * lags + rng.normal(size=(4, 6, 12))
    logs[0, 0, 5:] = np.nan  # a short sequence
    logs[1, 2, 3] = -np.inf  # a dead step
    slopes = np.array(
        [
            [np.polyfit(lags[use], row[use], 1)[0] for row in run for use in [np.isfinite(row)]]
            for run in logs
        ]
    )
    rate_of = jax.jit(decay_rate, static_argnames=("first", "last"))
    found = rate_of(logs)
    np.testing.assert_allclose(found.rates, slopes, **tolerance(loosen=10))
    np.testing.assert_allclose(found.by_run, slopes.mean(axis=1), **tolerance(loosen=10))
    means = slopes.mean(axis=1)
    assert float(found.rate) == pytest.approx(means.mean(), rel=1e-4)
    assert float(found.se) == pytest.approx(means.std(ddof=1) / 2, rel=1e-4)
    one = rate_of(logs[0])
    assert float(one.se) == pytest.approx(slopes[0].std(ddof=1) / np.sqrt(6), rel=1e-4)
    part = rate_of(logs[2], first=2, last=8)
    expected = [np.polyfit(lags[2:9], row[2:9], 1)[0] for row in logs[2]]
    np.testing.assert_allclose(part.rates, expected, **tolerance(loosen=10))
    assert np.isnan(rate_of(logs[0, :1]).se)


def test_a_horizon_is_the_last_crossing():
    level = np.log(0.5)
    curves = np.array(
        [
            [0, 2 * level, 0.5 * level, 1.5 * level, 3 * level],  # comes back once
            [0, 0.1 * level, 0.2 * level, 0.3 * level, 0.4 * level],  # never falls
            [0, 0.5 * level, np.nan, np.nan, np.nan],  # ends before it falls
            [0, 0.5 * level, -np.inf, -np.inf, -np.inf],  # dies
            [np.nan] * 5,
            [0, 0.5 * level, np.nan, 2 * level, 2 * level],  # a step that is masked
        ]
    )
    found = jax.jit(functools.partial(horizon, threshold=0.5))(curves)
    np.testing.assert_allclose(
        found.lags, [2.5, np.nan, np.nan, 1, np.nan, 1 + 2 / 3], **tolerance(loosen=10)
    )
    assert found.censored_each.tolist() == [False, True, True, False, False, False]
    assert found.longest.tolist() == [4, 4, 1, 4, -1, 4]


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("curves", "lag", "censored", "vanished"),
    [
        ([[0, -0.1, -0.2, -INF, -INF]] * 3, 2, False, 1),  # all die, as with `truncate`
        ([[0, -INF, -INF]] * 2, 0, False, 1),
        ([[0, -0.1, -0.2, -INF, -INF], [0, -0.1, -0.2, NAN, NAN]], 2, False, 0.5),
        ([[0, -0.1, -INF, -INF], [0, -0.1, -0.2, -0.3]], NAN, True, 0.5),  # the others live on
        ([[0, -0.1, -INF, -INF], [0, -0.5, -1.0, -2.0]], 2, False, 0.5),
        ([[-INF, -1, -2, -3], [0, -0.5, -1, -2]], 2, False, 0),  # no r without a first gradient
        ([[-INF, -1, -2, -3]] * 2, NAN, False, NAN),
        ([[-INF, -INF, -INF]] * 2, NAN, False, NAN),
        ([[NAN, NAN, NAN]], NAN, False, NAN),
        ([[INF, 1, -2]], NAN, False, NAN),  # overflowed: no r either
        ([[0, 10, INF, INF]], NAN, True, 0),
        ([[0, INF, -2, -3]], 2, False, 0),
    ],
)
def test_the_horizon_of_curves_that_end_in_nothing(curves, lag, censored, vanished):
    reach = jax.jit(horizon)(jnp.asarray(curves, float))
    np.testing.assert_allclose(reach.lag, lag, **tolerance())
    assert bool(reach.censored) == censored
    np.testing.assert_allclose(reach.vanished, vanished, **tolerance())
    if len({str(curve) for curve in curves}) == 1:  # the mean curve is that of each
        np.testing.assert_allclose(reach.lags, len(curves) * [lag], **tolerance())
        assert reach.censored_each.tolist() == len(curves) * [censored]


@pytest.mark.parametrize(("options", "gain", "lag"), [({"truncate": 2}, 0.9, 0), ({}, 0.0, 0)])
def test_a_network_whose_gradients_die_is_not_called_longer(options, gain, lag):
    """Five steps in segments of two end in one of a single step; without W_hh no step reaches another."""
    cell = rr.cells.elman(3, recurrent_init=rr.cells.orthogonal(gain))
    net = rr.network([cell], 2, readout="last", **options)
    params = net.init(KEY, D)
    flow = jax.jit(lambda: gradient_flow(net, LOSS, params, _batch("last")))()
    reach = horizon(flow.log_norms["layer_0"], threshold=1e-3)
    assert float(reach.lag) == lag
    assert not bool(reach.censored)
    assert float(reach.vanished) == 1


def _record():
    return flow_of(jnp.zeros((1, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decay_rate(jnp.zeros(3)), r"must be \[..., B, T\]"),
        (lambda: horizon(jnp.zeros(3)), r"must be \[..., B, T\]"),
        (lambda: decay_rate(jnp.zeros((1, 3)), first=2), "needs two lags between 0 and 2"),
        (lambda: decay_rate(jnp.zeros((1, 3)), last=3), "needs two lags between 0 and 2"),
        (lambda: decay_rate(jnp.zeros((1, 3)), first=0.5), "first must be a whole number; got 0.5"),
        (
            lambda: decay_rate(jnp.zeros((1, 3)), last=True),
            "last must be a whole number or None; got True",
        ),
        (lambda: decay_rate({"layer_0": jnp.zeros((1, 3))}), "those of one layer; got all of"),
        (lambda: decay_rate(_record()), r"got all of \['layer_0'\]"),
        (lambda: horizon(_record()), r"got all of \['layer_0'\]"),
        (lambda: horizon(jnp.zeros((1, 0))), r"must be \[..., B, T\]"),
        (
            lambda: horizon(jnp.zeros((1, 3)), threshold=1.0),
            r"threshold must lie in \(0, 1\); got 1.0",
        ),
        (
            lambda: horizon(jnp.zeros((1, 3)), threshold="0.5"),
            "threshold must be a number; got '0.5'",
        ),
    ],
)
def test_impossible_summaries_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
