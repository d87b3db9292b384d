"""The split of a weight gradient by lag: against weights of their own at each step, and against autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance
from test_gradient_flow import counting, leaky

import rnnreg as rr
from rnnreg._tree import leaf_paths
from rnnreg.diagnostics import gradient_signal, path_lengths

pytestmark = pytest.mark.numerics

KEY = jax.random.key(SEED)
B, T, D = 3, 5, 2
LOSS = rr.losses.squared_error("sum")
MASK = rr.data.lengths_to_mask([5, 3, 4], T)
CASES = {
    "elman": ([rr.cells.elman(3)], "layer_0/W_hh"),
    "gru": ([rr.cells.gru(3)], "layer_0/W_hh"),
    "gru before": ([rr.cells.gru(3, reset="before")], "layer_0/W_hh"),
    "lstm": ([rr.cells.lstm(3)], "layer_0/W_xh"),
    "own step": ([leaky()], "layer_0/W_hh"),
    "below": ([rr.cells.elman(3), rr.cells.elman(2)], "layer_0/W_hh"),
    "above": ([rr.cells.elman(3), rr.cells.elman(2)], "layer_1/W_hh"),
}


def _case(name, readout, mask=None):
    cells, path = CASES[name]
    net = rr.network(cells, 2, readout=readout)
    rng = np.random.default_rng(3)
    ys = rng.normal(size=(B, T, 2) if readout == "all" else (B, 2))
    batch = rr.Batch(jnp.asarray(rng.normal(size=(B, T, D))), jnp.asarray(ys), mask)
    return net, net.init(KEY, D), batch, path


def _by_hand(net, params, batch, path):
    """[T, …]: the gradients of each step's loss with respect to weights that each step has for itself, by lag."""
    mask = jnp.ones((B, T)) if batch.mask is None else jnp.asarray(batch.mask)
    layer, leaf = path.split("/")
    last = [int(np.flatnonzero(row)[-1]) for row in mask]
    by_lag = [0.0] * T

    def loss_at(weights, tau, row):
        state = None
        for t in range(tau + 1):
            own = params | {layer: params[layer] | {leaf: weights[t]}}
            keep = mask[row, t][None, None]
            out = net.apply(own, batch.xs[row, t][None, None], mask=keep, state=state)
            state = out.final_state
        outputs = out.outputs if net.readout == "last" else out.outputs[:, 0]
        target = batch.ys[row] if net.readout == "last" else batch.ys[row, tau]
        return jnp.sum(jnp.square(outputs[0] - target)) / B

    gradients_at = jax.jit(jax.grad(loss_at), static_argnums=1)
    weights = jnp.stack([params[layer][leaf]] * T)
    for row in range(B):
        for tau in range(T) if net.readout == "all" else [last[row]]:
            if mask[row, tau]:
                gradients = gradients_at(weights, tau, row)
                for lag in range(tau + 1):
                    by_lag[lag] = by_lag[lag] + gradients[tau - lag]
    return np.stack(by_lag)


def _gradient(net, params, batch, path):
    def whole(params):
        outputs = net.apply(params, batch.xs, mask=batch.mask).outputs
        return LOSS(outputs, batch.ys, batch.mask, batch.weights)

    return leaf_paths(jax.grad(whole)(params))[path]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("readout", ["all", "last"])
def test_the_parts_sum_to_autodiff(name, readout):
    net, params, batch, path = _case(name, readout)

    @jax.jit
    def both(batch):  # one program for both masks
        return path_lengths(net, LOSS, params, batch, path=path), _gradient(
            net, params, batch, path
        )

    for mask in (np.ones((B, T), np.float32), MASK):
        parts, gradient = both(batch._replace(mask=mask, weights=jnp.array([1.0, 0.5, 2.0])))
        assert parts.lags.tolist() == [0, 1, 2, 3, 4]
        # in float64 to 1e-10, as promised
        np.testing.assert_allclose(parts.gradients.sum(axis=0), gradient, **tolerance())
        np.testing.assert_allclose(parts.shares.sum(), 1, **tolerance())
        assert float(parts.rest_norm) == 0
        assert float(parts.rest_share) == 0


@pytest.mark.float64_only  # finite pieces against autodiff: once, where they are exact
@pytest.mark.parametrize(
    ("name", "readout"),
    [("elman", "all"), ("lstm", "last"), ("own step", "all"), ("below", "last")],
)
def test_each_part_is_that_of_its_lag(name, readout):
    net, params, batch, path = _case(name, readout, MASK)
    expected = _by_hand(net, params, batch, path)
    parts = jax.jit(lambda: path_lengths(net, LOSS, params, batch, path=path))()
    np.testing.assert_allclose(parts.gradients, expected, **tolerance())
    total = expected.sum(axis=0)
    shares = (expected * total).sum(axis=(1, 2)) / np.sum(total**2)
    np.testing.assert_allclose(parts.shares, shares, **tolerance(loosen=10))
    norms = np.sqrt((expected**2).sum(axis=(1, 2)))
    np.testing.assert_allclose(parts.norms, norms, **tolerance())
    for max_lag in (0, 2):
        few = jax.jit(
            lambda k=max_lag: path_lengths(net, LOSS, params, batch, path=path, max_lag=k)
        )()
        np.testing.assert_allclose(few.gradients, expected[: max_lag + 1], **tolerance())
        np.testing.assert_allclose(few.rest, expected[max_lag + 1 :].sum(axis=0), **tolerance())
        np.testing.assert_allclose(few.shares.sum() + few.rest_share, 1, **tolerance())


def test_long_lags_go_on_together_where_each_step_has_a_loss():
    linear = {"activation": jax.nn.identity, "recurrent_init": rr.cells.orthogonal()}
    net = rr.network([rr.cells.elman(2, **linear)], 1)  # nothing vanishes
    batch = rr.Batch(jnp.ones((1, 60, 1)), jnp.zeros((1, 60, 1)))
    params = net.init(KEY, 1)
    parts, gradient = jax.jit(
        lambda: (
            path_lengths(net, LOSS, params, batch),
            _gradient(net, params, batch, "layer_0/W_hh"),
        )
    )()
    assert parts.lags.shape == (50,)
    total = parts.gradients.sum(axis=0) + parts.rest
    np.testing.assert_allclose(total, gradient, **tolerance(loosen=10))
    assert float(parts.rest_norm) > 1e-3 * np.linalg.norm(gradient)


@pytest.mark.slow
def test_parameters_may_be_vmapped():
    net, params, batch, _ = _case("gru", "all")
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params)
    together = jax.jit(jax.vmap(lambda params: path_lengths(net, LOSS, params, batch)))(stacked)
    half = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    alone = jax.jit(lambda params: path_lengths(net, LOSS, params, batch))(half)
    np.testing.assert_allclose(together.gradients[1], alone.gradients, **tolerance())


def test_signal_and_noise_across_batches():
    net = rr.network([rr.cells.elman(2)], 1, readout="last")
    params = net.init(KEY, 1)
    rng = np.random.default_rng(0)
    batch = rr.Batch(
        jnp.asarray(rng.normal(size=(12, 4, 1))), jnp.asarray(rng.normal(size=(12, 1)))
    )
    found = jax.jit(lambda: gradient_signal(net, LOSS, params, batch, num_batches=3, max_lag=2))()
    of_batch = jax.jit(lambda batch: path_lengths(net, LOSS, params, batch, max_lag=2))
    parts = [of_batch(rr.data.take_rows(batch, np.arange(i, i + 4))) for i in (0, 4, 8)]
    vectors = np.stack([np.asarray(part.gradients).reshape(3, -1) for part in parts])
    np.testing.assert_allclose(found.norms, np.linalg.norm(vectors, axis=-1), **tolerance())
    for lag in range(3):
        g = vectors[:, lag]
        inner = [g[i] @ g[j] for i in range(3) for j in range(3) if i != j]
        noise = np.sum((g - g.mean(axis=0)) ** 2) / 2
        snr = np.sqrt(max(np.mean(inner), 0) / noise)
        np.testing.assert_allclose(found.snr[lag], snr, **tolerance(loosen=100))  # a difference
        unit = g / np.linalg.norm(g, axis=1, keepdims=True)
        cosine = np.mean([unit[i] @ unit[j] for i in range(3) for j in range(3) if i != j])
        np.testing.assert_allclose(found.cosine[lag], cosine, **tolerance(loosen=10))


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"truncate": 2}, {}, "one way back through time.*truncate=2"),
        ({}, {"path": "layer_3/W_hh"}, "'layer_3/W_hh' is not in the parameters"),
        ({}, {"max_lag": 5}, "max_lag must lie in 0 … 4, a whole number; got 5"),
        ({}, {"max_lag": 2.0}, "max_lag must be a whole number or None; got 2.0"),
        ({}, {"max_lag": True}, "max_lag must be a whole number or None; got True"),
        ({"initial_state": "learned"}, {"path": "layer_0/initial/h"}, "learned start, .* no parts"),
    ],
)
def test_what_cannot_be_split_is_named(options, arguments, message):
    net = rr.network([rr.cells.elman(3)], 2, **options)
    _, _, batch, _ = _case("elman", "all")
    with pytest.raises(ValueError, match=message):
        path_lengths(net, LOSS, net.init(KEY, D), batch, **arguments)


def test_a_state_of_whole_numbers_has_no_one_way_back():
    net = rr.network([counting()], 2)
    _, _, batch, _ = _case("elman", "all")
    with pytest.raises(ValueError, match="'custom' holds whole numbers"):
        path_lengths(net, LOSS, net.init(KEY, D), batch)


def test_cells_and_batches_that_do_not_fit_are_named():
    net, params, batch, _ = _case("elman", "all")
    for measure in (path_lengths, functools.partial(gradient_signal, num_batches=3)):
        with pytest.raises(ValueError, match=r"net must be a Network .*; got a Cell"):
            measure(rr.cells.elman(3), LOSS, params, batch)
        with pytest.raises(ValueError, match=r"batch\.mask must be a NumPy or JAX array; got list"):
            measure(net, LOSS, params, batch._replace(mask=[[1.0] * T] * B))


@pytest.mark.parametrize("count", [1, 2, 3.0, True])
def test_batches_must_divide_the_rows(count):
    net, params, batch, _ = _case("elman", "all")
    with pytest.raises(
        ValueError, match=f"(divide the 3 rows|must be a whole number); got {count}"
    ):
        gradient_signal(net, LOSS, params, batch, num_batches=count)
