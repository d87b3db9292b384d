"""Layer normalisation inside the cells: its back ends are in the tables of recurrent cases; here is what else holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance
from recurrent_cases import forget_programs  # noqa: F401 - it works by being here

import rnnreg as rr

pytestmark = pytest.mark.numerics

B, T, D, H = 3, 6, 2, 8
CELLS = {
    "elman": rr.cells.elman(H),
    "gru": rr.cells.gru(H),
    "gru_before": rr.cells.gru(H, reset="before"),
    "lstm": rr.cells.lstm(H),
}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())


def _network(cell):
    net = rr.network([rr.cells.layer_norm(cell)], 1)
    return net, net.init(jax.random.key(0), D)


def _xs():
    return jnp.asarray(np.random.default_rng(0).normal(size=(B, T, D)), jnp.result_type(float))


@every_cell
def test_rescaling_the_weights_changes_nothing(cell):
    """The invariance that makes L2 on these weights a matter of the learning rate; ε is small beside the variance."""
    net, params = _network(cell)
    own = params["layer_0"]
    scaled = {**own, "W_xh": 3 * own["W_xh"], "W_hh": 3 * own["W_hh"]}
    if "b_hh" in own:
        scaled["b_hh"] = 3 * own["b_hh"]
    apply = jax.jit(lambda params: net.apply(params, _xs()).outputs)
    np.testing.assert_allclose(apply(params | {"layer_0": scaled}), apply(params), atol=2e-3)


def test_the_reset_before_equals_a_loop():
    """A cell that does its own product, which the tables of gates leave out."""
    cell = rr.cells.layer_norm(CELLS["gru_before"], epsilon=0.1)
    shapes = jax.eval_shape(lambda key: cell.init(key, D), jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    xs, h = np.asarray(_xs(), float), np.zeros((B, H))

    def norm(place, z):
        block = slice(place * H, (place + 1) * H)
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 0.1)
        return params["gain"][block] * z + params["b_h"][block]

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    U = np.split(params["W_hh"], 3, axis=1)
    for t in range(T):
        x = np.split(xs[:, t] @ params["W_xh"] + params["b_hh"], 3, axis=1)
        r, z = sigmoid(norm(0, x[0] + h @ U[0])), sigmoid(norm(1, x[1] + h @ U[1]))
        h = (1 - z) * np.tanh(norm(2, x[2] + (r * h) @ U[2])) + z * h
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf, _xs().dtype), params)
    run = jax.jit(
        lambda p, xs: rr.recurrence.unroll(cell, p, xs, cell.initial_state(B, xs.dtype))[0]
    )
    np.testing.assert_allclose(run(given, jnp.swapaxes(_xs(), 0, 1)).h, h, **tolerance(loosen=10))


@every_cell
def test_what_is_known_and_what_is_penalised(cell):
    net, params = _network(cell)
    made = net.layers[0].cell
    assert made.facts.blocks == cell.facts.blocks
    assert made.facts.bounds == cell.facts.bounds
    assert made.facts.native is None
    assert made.facts.max_slope is None
    covered = rr.penalties.covered(rr.penalties.l2(), params, net=net)
    assert covered == ["layer_0/W_hh", "layer_0/W_xh", "readout/W_hy"]
    backend = rr.explain(net, input_size=D)["layer_0"].backend
    assert backend == ("scan" if cell.gate is None else "fused")
    again = rr.networks.rebuild(rr.networks.describe(net))
    np.testing.assert_array_equal(
        again.apply(params, _xs()).outputs, net.apply(params, _xs()).outputs
    )


@every_cell
def test_zeros_have_a_finite_gradient_and_the_dtype_is_kept(cell):
    made = rr.cells.layer_norm(cell)
    for dtype in (jnp.bfloat16, jnp.float32):

        def value(params, dtype=dtype):
            xs = jnp.zeros((T, B, D), dtype)
            states = rr.recurrence.unroll(made, params, xs, made.initial_state(B, dtype))[1]
            return jnp.sum(states.h)

        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            shapes = jax.eval_shape(lambda key, d=dtype: made.init(key, D, d), jax.random.key(0))
            gradient = jax.eval_shape(jax.grad(value), shapes)
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(dtype)}
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    gradient = jax.jit(jax.grad(value))(zeros)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_parametrisation_and_gate_biases_go_with_it():
    cell = rr.parametrizations.orthogonal(
        rr.cells.chrono(rr.cells.layer_norm(rr.cells.lstm(H)), 50), method="cayley"
    )
    params = cell.init(jax.random.key(0), D, jnp.result_type(float))
    i, f = params["b_h"][:H], params["b_h"][H : 2 * H]
    np.testing.assert_array_equal(i, -f)  # the shifts, after the normalisation
    blocks = np.split(np.asarray(cell.effective(params)["W_hh"]), 4, axis=1)
    np.testing.assert_allclose(blocks[2].T @ blocks[2], np.eye(H), **tolerance())


def test_other_cells_are_refused():
    own = rr.cells.from_step(
        lambda params, state, x: state, init=CELLS["elman"].init, hidden_size=H
    )
    with pytest.raises(
        ValueError, match="layer_norm is for a cell as elman, irnn, gru or lstm makes it"
    ):
        rr.cells.layer_norm(own)
    with pytest.raises(ValueError, match="layer_norm is for a cell"):
        rr.cells.layer_norm(rr.cells.layer_norm(CELLS["gru"]))
    with pytest.raises(ValueError, match=r"changed since.*Normalise first"):
        rr.cells.layer_norm(CELLS["gru"]._replace(gate=CELLS["lstm"].gate))
    with pytest.raises(ValueError, match="epsilon must be a number of at least 0"):
        rr.cells.layer_norm(CELLS["gru"], epsilon=-1.0)
    with pytest.raises(ValueError, match="has no module that computes"):
        rr.convert.to_torch({}, rr.cells.layer_norm(CELLS["gru"]))
