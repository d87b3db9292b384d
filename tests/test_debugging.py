"""JAX's own tools for debugging, on healthy runs: they stop at a user's mistake and not at a mark of the library."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rnnreg as rr
from rnnreg.recurrence import unroll

LOSS = rr.losses.squared_error()
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(9, 5, 1)).astype(np.float32)
YS = RNG.normal(size=(9, 5, 1)).astype(np.float32)
MASK = jnp.asarray(rr.data.lengths_to_mask([5, 4, 3] + [5] * 6, 5))
NET = rr.network([rr.cells.elman(3)], 1)


def run(**options):
    settings = {
        "loss": LOSS,
        "penalties": {"l2": rr.penalties.l2()},
        "optimizer": optax.adam(0.3),
        "num_epochs": 3,
    }
    return rr.make_train(NET, **(settings | options))


def refitted():
    series, times = rr.data.windows(np.sin(np.arange(20.0)), window=4)
    net = rr.network([rr.cells.elman(3)], 1, readout="last")
    penalties = {"l2": rr.penalties.l2()}
    train = rr.make_train(
        net, loss=LOSS, penalties=penalties, optimizer=optax.sgd(0.1), num_epochs=2
    )
    folds = rr.selection.blocked_folds(2)
    data = rr.Split(series, target_times=times)
    key = jax.random.key(0)
    found = rr.sweep(train, {"l2": [0.0]}, data, folds=folds, refit=True, key=key)
    return found.metrics["val_loss"].sel(fold="all")


def stopped():
    data = rr.Split(rr.Batch(XS, YS), validation=rr.Batch(XS[::-1].copy(), YS))
    found = run(patience=1, num_epochs=30)({"l2": 0.0}, data, key=jax.random.key(0))
    return found.history["gradient_norm"]


def flow():
    params = NET.init(jax.random.key(0), 1)
    batch = rr.Batch(XS, YS, MASK)
    return rr.diagnostics.gradient_flow(NET, LOSS, params, batch).norms["layer_0"]


def shares():
    """Of a batch without a gradient: there is nothing to share."""
    zeros = jax.tree.map(jnp.zeros_like, NET.init(jax.random.key(0), 1))
    return rr.diagnostics.path_lengths(NET, LOSS, zeros, rr.Batch(XS, 0 * YS)).shares


def marked_norms():
    """ln norms with NaN where a sequence has no such step, and with a sequence that vanishes."""
    logs = -0.5 * np.arange(6.0) * np.ones((3, 1))
    logs[0, 4:], logs[1, 1:], logs[2, 0] = np.nan, -np.inf, np.nan
    return logs


def reach():
    return rr.diagnostics.horizon(marked_norms()).lags


def rates():
    return rr.diagnostics.decay_rate(marked_norms(), first=2).rates


def signal():
    batch = rr.Batch(XS[:1].repeat(4, 0), YS[:1].repeat(4, 0))
    params = NET.init(jax.random.key(0), 1)
    return rr.diagnostics.gradient_signal(NET, LOSS, params, batch, num_batches=2).cosine


def participation():
    zeros = jax.tree.map(jnp.zeros_like, NET.init(jax.random.key(0), 1))
    return rr.diagnostics.saturation(NET, zeros, XS)["layer_0"].participation


def segments():
    return run(segment_steps=2)({"l2": 0.0}, rr.Batch(XS, YS, MASK), key=jax.random.key(0)).metrics[
        "train_loss"
    ]


MARKED = [refitted, stopped, flow, shares, reach, rates, signal, participation]


@pytest.mark.slow
@pytest.mark.parametrize("healthy", [*MARKED, segments])
def test_healthy_calls_pass_under_debug_nans_and_the_leak_checker(healthy):
    expected = np.asarray(healthy())
    with jax.debug_nans(True):
        np.testing.assert_array_equal(np.isnan(healthy()), np.isnan(expected))
    with jax.checking_leaks():
        np.testing.assert_array_equal(np.isnan(healthy()), np.isnan(expected))
    if healthy in MARKED:
        assert np.isnan(expected).any()  # the mark is there


def test_a_users_nan_is_still_found():
    bad = XS.copy()
    bad[0, 0] = np.nan
    params = NET.init(jax.random.key(0), 1)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        rr.diagnostics.gradient_flow(NET, LOSS, params, rr.Batch(bad, YS))
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match=r"lanes \[1\] diverged"):
        rr.sweep(run(), {"l2": [0.0, 1e38]}, rr.Batch(XS, YS), key=jax.random.key(0))


def gradient(cell, backend, xs):
    params, start = cell.init(jax.random.key(0), 1), cell.initial_state(2)

    def value(params):
        final, states = unroll(cell, params, xs, start, backend=backend)
        return jnp.sum(states.h**2) + jnp.sum(final.h)

    return jax.value_and_grad(value)(params)


CELLS = [rr.cells.elman(3), rr.cells.gru(3), rr.cells.gru(3, reset="before"), rr.cells.lstm(3)]
TOOLS = [lambda: jax.disable_jit(), lambda: jax.debug_nans(True), lambda: jax.debug_infs(True)]


@pytest.mark.parametrize("tool", TOOLS, ids=["disable_jit", "debug_nans", "debug_infs"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_tools_change_no_number(cell, tool):
    """Where no operation may be compiled the native recurrence does in JAX what it does else in C++."""
    xs = jnp.asarray(XS[:2, :4].transpose(1, 0, 2))
    expected = gradient(cell, "scan", xs)
    with tool():
        got = gradient(cell, "auto", xs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, expected)


@pytest.mark.parametrize("backend", ["auto", "fused", "scan"])
@pytest.mark.parametrize("wrap", [jax.jit, lambda function: function], ids=["jit", "eager"])
@pytest.mark.parametrize("cell", [CELLS[0], CELLS[-1]], ids=lambda cell: cell.name)
def test_a_nan_is_found_at_an_operation(cell, wrap, backend):
    xs = jnp.ones((4, 2, 1)).at[2, 1].set(jnp.nan)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match=r"encountered in [a-z_]+"):
        wrap(lambda xs: gradient(cell, backend, xs))(xs)


@pytest.mark.slow
def test_a_network_applies_and_trains_without_jit():
    params = NET.init(jax.random.key(0), 1)
    data, expected = rr.Batch(XS, YS), NET.apply(params, XS).outputs
    trained = run()({"l2": 0.0}, data, key=jax.random.key(0)).metrics["train_loss"]
    with jax.disable_jit():
        np.testing.assert_allclose(NET.apply(params, XS).outputs, expected, rtol=1e-5, atol=1e-6)
        again = run()({"l2": 0.0}, data, key=jax.random.key(0)).metrics["train_loss"]
    np.testing.assert_allclose(again, trained, rtol=1e-4)
