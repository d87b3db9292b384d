"""Slow and obvious answers, in float64: a loop in NumPy with its gradients derived by hand, and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED
from jax.flatten_util import ravel_pytree

import rnnreg as rr

BATCH, TIME, INPUT, HIDDEN, OUTPUT = 4, 6, 2, 3, 2
EXACT = {"rtol": 1e-10, "atol": 1e-12}
# ragged on the right, a hole, true throughout, and a row without any true step
MASK = np.array([[1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 1], [1] * TIME, [0] * TIME], float)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(readout="all"):
    """Parameters of an Elman network with non-zero biases, inputs and targets, from NumPy."""
    rng = np.random.default_rng(SEED)
    params = {
        "layer_0": {
            "W_xh": rng.normal(size=(INPUT, HIDDEN)),
            "W_hh": 0.6 * rng.normal(size=(HIDDEN, HIDDEN)),
            "b_h": rng.normal(size=HIDDEN),
        },
        "readout": {"W_hy": rng.normal(size=(HIDDEN, OUTPUT)), "b_y": rng.normal(size=OUTPUT)},
    }
    xs = rng.normal(size=(BATCH, TIME, INPUT))
    ys = rng.normal(size=(BATCH, TIME, OUTPUT) if readout == "all" else (BATCH, OUTPUT))
    return params, xs, ys


def elman_by_hand(params, xs, ys, mask, reduction, readout):
    """L of a tanh Elman network, and ∂L/∂w of every weight and of the inputs, step by step.

    With the error e_t = c (y_t − ŷ_t), c = 2 / (rows · true steps · outputs) for a mean and 2 /
    rows for a sum, and δ_t = ∂L/∂h_t:

        δ_t = e_t W_hyᵀ + a_{t+1} W_hhᵀ        a_t = δ_t ⊙ (1 − h_t²)
        ∂L/∂W_hy = Σ h_tᵀ e_t    ∂L/∂W_hh = Σ h_{t−1}ᵀ a_t    ∂L/∂W_xh = Σ x_tᵀ a_t    ∂L/∂x_t = a_t
        W_xhᵀ

    A masked step has no error of its own and hands δ on as it is.
    """
    W_xh, W_hh, b_h = (params["layer_0"][name] for name in ("W_xh", "W_hh", "b_h"))
    W_hy, b_y = params["readout"]["W_hy"], params["readout"]["b_y"]
    grads = jax.tree.map(np.zeros_like, params)
    layer, out = grads["layer_0"], grads["readout"]
    input_grads = np.zeros_like(xs)
    rows = [row for row in range(len(xs)) if mask[row].any()]
    loss = 0.0
    for row in rows:
        h = [np.zeros(HIDDEN)]
        for t in range(TIME):
            new = np.tanh(h[t] @ W_hh + xs[row, t] @ W_xh + b_h)
            h.append(new if mask[row, t] else h[t])
        read = [t for t in range(TIME) if mask[row, t]] if readout == "all" else [TIME - 1]
        count = len(read) * OUTPUT if reduction == "mean" else 1
        errors = np.zeros((TIME, OUTPUT))
        for t in read:
            target = ys[row, t] if readout == "all" else ys[row]
            difference = h[t + 1] @ W_hy + b_y - target
            loss += np.sum(difference**2) / (count * len(rows))
            errors[t] = 2 * difference / (count * len(rows))
        delta = np.zeros(HIDDEN)
        for t in reversed(range(TIME)):
            delta = delta + errors[t] @ W_hy.T
            out["W_hy"] += np.outer(h[t + 1], errors[t])
            out["b_y"] += errors[t]
            if mask[row, t]:
                a = delta * (1 - h[t + 1] ** 2)
                layer["W_hh"] += np.outer(h[t], a)
                layer["W_xh"] += np.outer(xs[row, t], a)
                layer["b_h"] += a
                input_grads[row, t] = a @ W_xh.T
                delta = a @ W_hh.T
    return loss, grads, input_grads


def assert_trees_close(got, expected, **options):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for path, value in rr.leaf_paths(expected).items():
        ours = rr.leaf_paths(got)[path]
        np.testing.assert_allclose(ours, value, err_msg=path, **options)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("readout", ["all", "last"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_elman_equals_the_loop_with_bptt_by_hand(reduction, readout, masked):
    params, xs, ys = draw(readout)
    mask = MASK if masked else np.ones((BATCH, TIME))
    net = rr.network([rr.cells.elman(HIDDEN)], OUTPUT, readout=readout)
    data_loss = rr.losses.squared_error(reduction)

    def loss(params, xs):
        given = jnp.asarray(mask) if masked else None
        return data_loss(net.apply(params, xs, mask=given).outputs, jnp.asarray(ys), given)

    differentiate = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    value, (grads, input_grads) = differentiate(params, jnp.asarray(xs))
    expected, expected_grads, expected_input_grads = elman_by_hand(
        params, xs, ys, mask, reduction, readout
    )
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, expected, **EXACT)
    assert_trees_close(grads, expected_grads, **EXACT)
    np.testing.assert_allclose(input_grads, expected_input_grads, **EXACT)


@pytest.mark.parametrize("include_biases", [False, True], ids=["weights", "weights_and_biases"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_one_sgd_step_by_hand(reduction, include_biases):
    """w − α (∂L/∂w + 2λw), the last term for the covered leaves alone."""
    alpha, lam = 0.05, 0.01
    params, xs, ys = draw()
    net = rr.network([rr.cells.elman(HIDDEN)], OUTPUT)
    train = rr.make_train(
        net,
        loss=rr.losses.squared_error(reduction),
        penalties={"l2": rr.penalties.l2(include_biases=include_biases)},
        optimizer=lambda hyper: optax.sgd(hyper["learning_rate"]),
        num_epochs=1,
    )
    hyper = {"l2": lam, "learning_rate": alpha}
    batch = rr.Batch(jnp.asarray(xs), jnp.asarray(ys), jnp.asarray(MASK))
    state = train.init(hyper, batch, key=jax.random.key(0))._replace(
        params=jax.tree.map(jnp.asarray, params)
    )
    new, info = jax.jit(train.update)(state, hyper, batch)

    loss, grads, _ = elman_by_hand(params, xs, ys, MASK, reduction, "all")
    covered = [
        (layer, name)
        for layer, leaves in params.items()
        for name in leaves
        if include_biases or not name.startswith("b_")
    ]
    squares = sum(np.sum(params[layer][name] ** 2) for layer, name in covered)
    expected = {
        layer: {
            name: w - alpha * (grads[layer][name] + 2 * lam * w * ((layer, name) in covered))
            for name, w in leaves.items()
        }
        for layer, leaves in params.items()
    }
    np.testing.assert_allclose(info.data_loss, loss, **EXACT)
    np.testing.assert_allclose(info.penalties["l2"], squares, **EXACT)
    np.testing.assert_allclose(info.total, loss + lam * squares, **EXACT)
    assert_trees_close(new.params, expected, **EXACT)


CELLS = {
    "elman": rr.cells.elman(HIDDEN),
    "irnn": rr.cells.irnn(HIDDEN),
    "gru": rr.cells.gru(HIDDEN),
    "gru_one_bias": rr.cells.gru(HIDDEN, recurrent_bias=False),
    "gru_reset_before": rr.cells.gru(HIDDEN, reset="before"),
    "lstm": rr.cells.lstm(HIDDEN),
}
LOSSES = {
    "squared_error_sum": rr.losses.squared_error("sum"),
    "squared_error_mean": rr.losses.squared_error("mean"),
    "softmax_cross_entropy": rr.losses.softmax_cross_entropy("mean"),
    "sigmoid_cross_entropy": rr.losses.sigmoid_cross_entropy("sum"),
}
PENALTIES = {
    "l2": rr.penalties.l2(include_biases=True),
    "l1": rr.penalties.l1(reduction="mean"),
    "elastic_net": rr.penalties.elastic_net(0.3, paths=["W_hh", "readout/*"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_equal_central_differences(cell, loss):
    """Every element of ∂(L + λR)/∂w, with each penalty alone, and with none."""
    rng = np.random.default_rng(SEED)
    net = rr.network([CELLS[cell]], OUTPUT)
    flat, unravel = ravel_pytree(net.init(jax.random.key(0), INPUT))
    flat = jnp.asarray(0.6 * rng.normal(size=flat.shape))
    ys = rng.uniform(size=(BATCH, TIME, OUTPUT))
    if loss == "softmax_cross_entropy":
        ys = rng.integers(OUTPUT, size=(BATCH, TIME))
    batch = rr.Batch(
        jnp.asarray(rng.normal(size=(BATCH, TIME, INPUT))), jnp.asarray(ys), jnp.asarray(MASK)
    )
    objective = rr.make_objective(net, LOSSES[loss], PENALTIES)
    states = {name: penalty.init(unravel(flat)) for name, penalty in PENALTIES.items()}
    step = 1e-5  # error about step² · f‴ and 1e-16 · f / step: both under 1e-9

    def total(flat, lams):
        hyper = dict(zip(PENALTIES, lams, strict=True))
        return objective(unravel(flat), hyper, batch, states, key=None, train=False)[0]

    @jax.jit
    def both(flat, lams):
        moves = step * jnp.eye(flat.size)
        around = jax.vmap(total, in_axes=(0, None))(
            jnp.concatenate([flat + moves, flat - moves]), lams
        )
        above, below = jnp.split(around, 2)
        return jax.grad(total)(flat, lams), (above - below) / (2 * step)

    for lams in [*np.eye(len(PENALTIES)), np.zeros(len(PENALTIES))]:
        gradient, differences = both(flat, jnp.asarray(lams))
        np.testing.assert_allclose(gradient, differences, rtol=1e-7, atol=1e-8)
