"""What the records of activations state, held against the functions themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance

import rnnreg as rr
from rnnreg.cells import ACTIVATIONS, Activation, as_activation

pytestmark = pytest.mark.numerics

FAR = np.geomspace(6.0, 1e6, 200)
POINTS = jnp.asarray(np.concatenate([-FAR[::-1], np.linspace(-6.0, 6.0, 4801), FAR]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bounds_and_slopes_are_those_of_the_function(name):
    phi = ACTIVATIONS[name]
    values = np.asarray(phi(POINTS), float)
    slopes = np.asarray(jax.vmap(jax.grad(phi.function))(POINTS), float)
    for found, stated in zip((values.min(), values.max()), phi.bounds, strict=True):
        if np.isinf(stated):
            assert abs(found) >= 1e4  # a leaky one goes down slowly
            assert np.sign(found) == np.sign(stated)
        else:
            np.testing.assert_allclose(found, stated, atol=1e-3)
    assert phi.bounds[0] <= values.min()
    assert values.max() <= phi.bounds[1]
    largest = np.abs(slopes).max()
    assert largest <= phi.max_slope * (1 + 1e-6)
    assert largest >= 0.999 * phi.max_slope
    if phi.slope is not None:
        np.testing.assert_allclose(phi.slope(phi(POINTS)), slopes, **tolerance(loosen=10))


@pytest.mark.parametrize(
    "given", [jnp.tanh, jax.lax.tanh, jax.nn.tanh, "tanh", ACTIVATIONS["tanh"]]
)
def test_one_record_for_every_way_to_say_it(given):
    assert as_activation(given) is ACTIVATIONS["tanh"]


def test_nothing_is_guessed_of_another_function():
    phi = as_activation(lambda z: jnp.tanh(z))
    assert (phi.slope, phi.max_slope, phi.bounds) == (None, None, None)
    cell = rr.cells.elman(3, activation=phi)
    assert cell.facts.bounds is None
    assert rr.recurrence.choose_backend(cell, input_size=1).backend == "fused"
    with pytest.raises(ValueError, match="unknown activation 'tanhh'; expected one of"):
        rr.cells.gru(3, activation="tanhh")
    with pytest.raises(ValueError, match=r"gate_activation must be an Activation, .*got 3"):
        rr.cells.lstm(3, gate_activation=3)


def test_facts_go_with_the_gate():
    for cell in (rr.cells.elman(3), rr.cells.gru(3), rr.cells.lstm(3)):
        assert cell._replace(name="other").facts == cell.facts
        assert (
            cell._replace(gate=lambda params, state, x_proj, h_proj: state).facts
            == rr.cells.Facts()
        )
    before = rr.cells.gru(3, reset="before")
    assert before.facts.opens == ("reset", "update")
    assert before._replace(step=lambda params, state, x: state).facts == rr.cells.Facts()
    squeezed = rr.cells.lstm(3, gate_activation=Activation("unknown", jnp.tanh))
    assert squeezed.facts.opens == ()


def test_cells_say_how_they_were_made():
    cell = rr.cells.gru(3, reset="before", recurrent_init=rr.cells.orthogonal(0.5))
    described = rr.cells.describe_cell(cell)
    assert described["factory"] == "gru"
    assert described["arguments"]["reset"] == "before"
    assert described["arguments"]["recurrent_init"] == {"name": "orthogonal", "gain": 0.5}
    assert not described["changed"]
    assert rr.cells.describe_cell(cell._replace(step=lambda params, state, x: state))["changed"]
    own = rr.cells.from_step(lambda params, state, x: state, init=cell.init, hidden_size=3)
    assert rr.cells.describe_cell(own)["factory"] is None


def test_what_was_known_of_a_function_goes_with_it():
    """A record whose function is replaced forgets the rest, unless that is given too."""
    gate = rr.cells.elman(3).gate
    other = gate._replace(forward=lambda params, state, x_proj, h_proj: (state, {}))
    assert (other.tangent, other.additive, other.facts) == (None, False, rr.cells.Facts())
    assert gate._replace(tangent=None).facts == gate.facts
    assert (
        rr.cells.gru(3, reset="before").step._replace(forward=lambda *at: at).facts
        == rr.cells.Facts()
    )
    steep = ACTIVATIONS["tanh"]._replace(function=lambda z: jnp.tanh(2 * z), bounds=(-1.0, 1.0))
    assert (steep.slope, steep.max_slope, steep.bounds) == (None, None, (-1.0, 1.0))


def test_what_a_network_says_of_its_apply_is_not_replaced_alone():
    net = rr.network([rr.cells.elman(3)], 1)
    with pytest.raises(ValueError, match=r"readout says what apply does.*rr\.network"):
        net._replace(readout="last")
    assert net._replace(apply=lambda *at: None, readout="last").readout == "last"
    assert rr.networks.describe(net)["initial_state"] == "zero"


def test_a_callable_without_a_hash_is_an_activation():
    class Steep:
        __hash__ = None

        def __call__(self, z):
            return jnp.tanh(2 * z)

    assert as_activation(Steep()).bounds is None
