"""Gradient flow against finite differences in NumPy, spectra against NumPy's eigenvalues and singular values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance
from small import HYPER, make, sine

import rnnreg as rr
from rnnreg._linalg import sigma_max
from rnnreg.diagnostics import gradient_flow, spectra
from rnnreg.diagnostics.dynamics._spectra import square_blocks

pytestmark = pytest.mark.numerics

KEY = jax.random.key(SEED)
B, T, D, O = 4, 4, 2, 2
SIZES = {"layer_0": 3, "layer_1": 2}
LENGTHS = [4, 2, 1, 3]
RIGHT = rr.data.lengths_to_mask(LENGTHS, T)
MASKS = {"ones": np.ones((B, T), np.float32), "right": RIGHT, "left": RIGHT[:, ::-1].copy()}


def _network(readout):
    return rr.network([rr.cells.elman(size) for size in SIZES.values()], O, readout=readout)


@functools.cache
def _params():
    return _network("all").init(KEY, D)


@functools.cache
def _flow(readout="all", step=-1):
    """Compiled once for every mask and batch."""
    net, loss, params = _network(readout), rr.losses.squared_error("mean"), _params()
    return jax.jit(lambda batch: gradient_flow(net, loss, params, batch, step=step))


def _batch(readout, mask):
    rng = np.random.default_rng(3)
    ys = rng.normal(size=(B, T, O) if readout == "all" else (B, O))
    return rr.Batch(jnp.asarray(rng.normal(size=(B, T, D))), jnp.asarray(ys), mask)


# ---- gradient flow --------------------------------------------------------------------------------


def _loss_by_hand(params, xs, ys, counts, added):
    """The mean squared error of one sequence of true steps, with something added to each h."""
    h = {name: np.zeros(size) for name, size in SIZES.items()}
    errors = []
    for t, entering in enumerate(xs):
        for name in SIZES:
            W_xh, W_hh, b_h = (params[name][leaf] for leaf in ("W_xh", "W_hh", "b_h"))
            h[name] = np.tanh(entering @ W_xh + h[name] @ W_hh + b_h) + added[name][t]
            entering = h[name]
        output = entering @ params["readout"]["W_hy"] + params["readout"]["b_y"]
        errors.append(np.mean((output - ys[t]) ** 2) if counts[t] else 0.0)
    return sum(errors) / sum(counts)


def _norms_by_hand(params, batch, readout, step, layer):
    """[B, T] norms of central differences of each example's own loss."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    xs, ys = (np.asarray(values, np.float64) for values in (batch.xs, batch.ys))
    norms = np.full((B, T), np.nan)
    for row in range(B):
        true = [t for t in range(T) if batch.mask[row, t]]
        tau = step if step not in (-1, None) else true[-1]
        if tau not in true:
            continue
        targets = ys[row, true] if readout == "all" else [ys[row]] * len(true)
        whole = step is None and readout == "all"
        counts = [int(whole or t == tau) for t in true]

        def loss(added, row=row, true=true, targets=targets, counts=counts):
            return _loss_by_hand(params, xs[row, true], targets, counts, added)

        for place, t in enumerate(true):
            gradient = []
            for unit in range(SIZES[layer]):
                added = {name: np.zeros((len(true), size)) for name, size in SIZES.items()}
                ends = []
                for eps in (1e-5, -1e-5):
                    added[layer][place, unit] = eps
                    ends.append(loss(added))
                gradient.append((ends[0] - ends[1]) / 2e-5)
            if t <= tau:
                norms[row, tau - t] = np.linalg.norm(gradient)
    return norms


CASES = [
    (readout, step, mask) for readout in ("all", "last") for step in (-1, None) for mask in MASKS
]
CASES += [("all", step, mask) for step in (0, 2) for mask in MASKS]


@pytest.mark.slow
@pytest.mark.parametrize(("readout", "step", "mask"), CASES)
def test_norms_equal_finite_differences_of_each_examples_own_loss(readout, step, mask):
    batch = _batch(readout, MASKS[mask])
    flow = _flow(readout, step)(batch)
    assert flow.lags.tolist() == [0, 1, 2, 3]
    for layer in SIZES:
        expected = _norms_by_hand(_params(), batch, readout, step, layer)
        # central differences at 1e-5 are good to about 1e-9
        close = {name: max(value, 1e-8) for name, value in tolerance().items()}
        np.testing.assert_allclose(flow.norms[layer], expected, **close)
        with np.errstate(invalid="ignore"):
            logs = np.log(expected) - np.log(expected[:, :1])
        seen = np.isfinite(logs).any(axis=0)
        mean = np.full(T, np.nan)
        mean[seen] = np.exp(np.nanmean(logs[:, seen], axis=0))
        np.testing.assert_allclose(flow.ratio[layer], mean, **tolerance(loosen=10))
        np.testing.assert_array_equal(flow.vanished[layer], np.where(seen, 0.0, np.nan))


def test_padding_and_absent_steps_are_nan():
    for side in ("right", "left"):  # lags count from the last true step, whichever side is padded
        norms = _flow()(_batch("all", MASKS[side])).norms["layer_1"]
        np.testing.assert_array_equal(np.isfinite(norms), RIGHT > 0)
    norms = _flow("all", 2)(_batch("all", RIGHT)).norms["layer_1"]
    np.testing.assert_array_equal(np.isfinite(norms).any(axis=1), [True, False, False, True])


@pytest.mark.slow
def test_an_example_is_measured_the_same_alone_and_in_any_weight():
    batch = _batch("all", RIGHT)
    together = _flow()(batch).norms
    for row in range(2):
        alone = _flow()(rr.data.take_rows(batch, np.array([row]))).norms
        for layer in SIZES:
            np.testing.assert_allclose(alone[layer][0], together[layer][row], **tolerance())
    norms = _flow()(batch._replace(weights=jnp.array([3.0, 0.5, 1.0, 0.0]))).norms["layer_0"]
    np.testing.assert_allclose(norms[:3], together["layer_0"][:3], **tolerance())
    assert np.isnan(norms[3]).all()  # a row of weight 0 is padding
    unmasked, ones = (_flow()(_batch("all", mask)) for mask in (None, MASKS["ones"]))
    np.testing.assert_allclose(unmasked.norms["layer_0"], ones.norms["layer_0"], **tolerance())


def _linear(W_hh, targets, **options):
    """A network whose outputs are its states, at rest, so that the first gradient points at −target."""
    size = len(W_hh)
    options = {"activation": lambda z: z} | options
    net = rr.network([rr.cells.elman(size, **options)], size)
    params = net.init(KEY, 1)
    params["layer_0"] |= {"W_xh": jnp.ones((1, size)), "W_hh": jnp.asarray(W_hh, float)}
    params["readout"] = {"W_hy": jnp.eye(size), "b_y": jnp.zeros(size)}
    ys = jnp.broadcast_to(jnp.asarray(targets, float)[:, None], (len(targets), T, size))
    return net, params, rr.Batch(jnp.zeros((len(targets), T, 1)), ys)


def _of_sums(net, params, batch):
    loss = rr.losses.squared_error("sum")
    return jax.jit(lambda: gradient_flow(net, loss, params, batch))()


def test_the_ratio_is_a_geometric_mean():
    net, params, batch = _linear(np.diag([0.5, 0.1]), [[1.0, 0.0], [0.0, 3.0]])
    flow = _of_sums(net, params, batch)
    lags = np.arange(T)
    np.testing.assert_allclose(flow.norms["layer_0"], [2 * 0.5**lags, 6 * 0.1**lags], **tolerance())
    np.testing.assert_allclose(flow.ratio["layer_0"], 0.05 ** (lags / 2), **tolerance())


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.5])
def test_an_orthogonal_linear_network_scales_by_its_gain(gain):
    orthogonal, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    net, params, batch = _linear(gain * orthogonal, [[1.0, 2.0, 3.0]])
    flow = _of_sums(net, params, batch)
    np.testing.assert_allclose(flow.ratio["layer_0"], gain ** np.arange(T), **tolerance())


def test_dead_examples_are_counted_and_left_out_of_the_ratio():
    net, params, batch = _linear(0.5 * np.eye(1), [[9.0]] * 3, activation=jax.nn.relu)
    # alive; dead; alive and of two steps alone
    signs = jnp.array([1.0, -1.0, 1.0])[:, None, None]
    batch = batch._replace(
        xs=jnp.ones((3, T, 1)) * signs, mask=rr.data.lengths_to_mask([4, 4, 2], T)
    )
    flow = _of_sums(net, params, batch)
    np.testing.assert_allclose(flow.vanished["layer_0"], [0, 1 / 3, 1 / 2, 1 / 2], **tolerance())
    np.testing.assert_allclose(flow.ratio["layer_0"], 0.5 ** np.arange(T), **tolerance())
    assert flow.norms["layer_0"][1, 1:].tolist() == [0, 0, 0]
    assert np.isnan(flow.norms["layer_0"][2, 2:]).all()


@pytest.mark.parametrize(
    ("readout", "step", "message"),
    [
        ("last", 2, "has no loss of one step; give step=-1 or None; got step=2"),
        ("all", T, "must be -1, None, or lie in 0 … 3; got 4"),
        ("all", -2, "must be -1, None, or lie in 0 … 3; got -2"),
    ],
)
def test_impossible_steps_are_named(readout, step, message):
    net = _network(readout)
    with pytest.raises(ValueError, match=message):
        gradient_flow(net, rr.losses.squared_error(), _params(), _batch(readout, None), step=step)


# ---- spectra --------------------------------------------------------------------------------------

GATES = {"elman": 1, "gru": 3, "lstm": 4}


def _with_a_dominant_block(cell, size=4):
    """A cell, its parameters, and W_hh whose last block but one is by far the largest."""
    made = getattr(rr.cells, cell)(size)
    params, gates = made.init(KEY, 2), GATES[cell]
    rng = np.random.default_rng(1)
    W_hh = rng.normal(size=(size, gates * size))
    at = slice(max(gates - 2, 0) * size, max(gates - 1, 1) * size)
    W_hh[:, at] += 20 * np.outer(rng.normal(size=size), rng.normal(size=size))
    return made, params | {"W_hh": jnp.asarray(W_hh)}


@pytest.mark.parametrize("cell", GATES)
def test_spectra_equal_numpys_block_by_block(cell):
    _, layer = _with_a_dominant_block(cell)
    W_hh, gates = np.asarray(layer["W_hh"], np.float64), GATES[cell]
    found = spectra({"layer_0": {"forward": layer}, "readout": {"W_hy": jnp.eye(4)}})
    assert list(found) == ["layer_0/forward/W_hh"]
    spectrum = found["layer_0/forward/W_hh"]
    assert spectrum.eigenvalues.shape == spectrum.singular_values.shape == (gates, 4)
    for gate in range(gates):
        block = W_hh[:, 4 * gate : 4 * (gate + 1)]
        np.testing.assert_array_equal(square_blocks(W_hh)[gate], block)
        eigenvalues = np.linalg.eigvals(block)
        singular = np.linalg.svd(block, compute_uv=False)
        np.testing.assert_allclose(
            np.sort_complex(spectrum.eigenvalues[gate]), np.sort_complex(eigenvalues), rtol=1e-9
        )
        np.testing.assert_allclose(spectrum.rho[gate], np.abs(eigenvalues).max(), rtol=1e-12)
        np.testing.assert_allclose(spectrum.singular_values[gate], singular, rtol=1e-12)
        np.testing.assert_allclose(spectrum.sigma_max[gate], np.linalg.norm(block, 2), rtol=1e-12)
        np.testing.assert_allclose(spectrum.frobenius[gate], np.linalg.norm(block), rtol=1e-12)
    assert spectrum.sigma_max.argmax() == max(gates - 2, 0)


def test_spectra_keep_leading_axes():
    stacked = np.random.default_rng(2).normal(size=(2, 5, 3, 9))
    spectrum = spectra({"layer_0": {"W_hh": stacked}})["layer_0/W_hh"]
    assert spectrum.rho.shape == spectrum.sigma_max.shape == spectrum.frobenius.shape == (2, 5, 3)
    one = spectra({"layer_0": {"W_hh": stacked[1, 4]}})["layer_0/W_hh"]
    for measured, expected in zip(spectrum, one, strict=True):
        np.testing.assert_allclose(measured[1, 4], expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("shape", [(5, 5), (3, 6), (6, 3)])
def test_power_iteration_finds_the_largest_singular_value(shape, scale):
    rng = np.random.default_rng(5)
    W = rng.normal(size=shape) + 4 * np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1]))
    measured = sigma_max(jnp.asarray(scale * W))
    np.testing.assert_allclose(measured / scale, np.linalg.norm(W, 2), **tolerance())
    assert float(sigma_max(jnp.zeros(shape))) == 0


def test_the_recorded_sigma_max_is_that_of_the_largest_block():
    cell, layer = _with_a_dominant_block("gru")
    batch = sine().train
    train = make(rr.network([cell], 1, readout="last"), num_epochs=1)
    hyper = HYPER | {"learning_rate": 0.0}
    state = train.init(hyper, batch, key=KEY)
    layer = state.params["layer_0"] | {"W_hh": layer["W_hh"]}
    state = state._replace(params=state.params | {"layer_0": layer})
    _, history = jax.jit(lambda state: train.advance(state, hyper, batch, 1))(state)
    blocks = np.split(np.asarray(layer["W_hh"]), 3, axis=1)
    largest = [np.linalg.norm(block, 2) for block in blocks]
    assert np.argmax(largest) == 1
    np.testing.assert_allclose(history["sigma_max/layer_0/W_hh"], [max(largest)], **tolerance())
