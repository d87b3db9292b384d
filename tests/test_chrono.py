"""Chrono initialisation: the biases it sets, their distribution, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnreg as rr

pytestmark = pytest.mark.numerics

H = 400
CELLS = {
    "lstm": (rr.cells.lstm(H), 4, 1, 0),
    "gru": (rr.cells.gru(H), 3, 1, None),
    "gru_reset_before": (rr.cells.gru(H, reset="before"), 3, 1, None),
}


@pytest.mark.parametrize("name", CELLS)
def test_gates_open_for_every_time_scale(name):
    cell, num_gates, keep, enter = CELLS[name]
    params = rr.cells.chrono(cell, 50).init(jax.random.key(0), 2)
    gates = np.asarray(params["b_h"]).reshape(num_gates, H)
    scale = np.exp(gates[keep])  # uniform on [1, 49]
    assert 1 <= scale.min() <= scale.max() <= 49
    error = 48 / np.sqrt(12 * H)
    assert abs(scale.mean() - 25) < 4 * error
    for gate in range(num_gates):
        if gate == enter:
            np.testing.assert_array_equal(gates[gate], -gates[keep])
        elif gate != keep:
            assert not gates[gate].any()


def test_the_rest_of_the_cell_is_its_own():
    cell = rr.cells.gru(3)
    made = rr.cells.chrono(cell, 10)
    assert made._replace(init=cell.init, made=cell.made) == cell
    assert rr.cells.describe_cell(made)["arguments"]["longest"] == 10
    params, plain = (c.init(jax.random.key(0), 2) for c in (made, cell))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, plain)
    assert not params["b_hh"].any()


def test_facts_decide_and_not_names():
    renamed = rr.cells.lstm(3)._replace(name="mine")
    bias = rr.cells.chrono(renamed, 50).init(jax.random.key(0), 2)["b_h"]
    assert (bias[:3] == -bias[3:6]).all()
    replaced = rr.cells.lstm(3)._replace(gate=lambda params, state, x_proj, h_proj: state)
    with pytest.raises(ValueError, match=r"the cell 'lstm' states none.*Facts"):
        rr.cells.chrono(replaced, 50)


def test_longest_may_be_traced():
    def bias(longest):
        return rr.cells.chrono(rr.cells.lstm(4), longest).init(jax.random.key(1), 1)["b_h"]

    np.testing.assert_allclose(jax.jit(bias)(30.0), bias(30.0), rtol=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="the cell 'elman' states none"):
        rr.cells.chrono(rr.cells.elman(3), 10)
    with pytest.raises(ValueError, match="more than 2 steps; got 2"):
        rr.cells.chrono(rr.cells.lstm(3), 2)
