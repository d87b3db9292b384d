"""Sensitivity to the weights: where autodiff of the whole sequence says what it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance

import rnnreg as rr
from rnnreg.diagnostics import parameter_sensitivity

pytestmark = pytest.mark.numerics

KEY = jax.random.key(SEED)


def _learned():
    net = rr.network([rr.cells.elman(3)], 1, initial_state="learned")
    params = net.init(KEY, 2)
    params["layer_0"]["initial"] = {"h": jnp.array([0.3, -0.5, 0.9])}
    xs = jax.random.normal(KEY, (2, 4, 2), params["layer_0"]["W_hh"].dtype)
    return net, params, xs


@pytest.mark.slow
@pytest.mark.parametrize("paths", ["layer_0/W_*", ("W_xh", "layer_0/W_h?"), ["W_?h"]])
def test_patterns_choose_leaves_as_in_spectra(paths):
    net, params, xs = _learned()
    listed, found = jax.jit(
        lambda: [
            parameter_sensitivity(net, params, xs, paths=one) for one in (["W_hh", "W_xh"], paths)
        ]
    )()
    np.testing.assert_array_equal(found.log_parameters, listed.log_parameters)
    with pytest.raises(ValueError, match="matches no parameter"):
        parameter_sensitivity(net, params, xs, paths=("W_ho", "W_*_*"))


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, "layer_0/initial/h", "W_hh"])
def test_all_parameters_are_those_of_a_learned_start_too(weights):
    net, params, xs = _learned()
    found = jax.jit(lambda: parameter_sensitivity(net, params, xs, paths=weights))()

    def last(params):
        return net.apply(params, xs).final_state["layer_0"].h

    leaves = rr.leaf_paths(jax.jit(jax.jacobian(last))(params))
    counted = {
        path: leaf
        for path, leaf in leaves.items()
        if weights is None or path == weights or path.endswith(f"/{weights}")
    }
    squares = [np.square(leaf).reshape(2, -1).sum(axis=1) for leaf in counted.values()]
    np.testing.assert_allclose(
        np.exp(found.log_parameters[:, -1]), np.sqrt(sum(squares)), **tolerance(loosen=3)
    )
    if weights == "layer_0/initial/h":  # a start enters before the first step alone
        assert (np.asarray(found.log_parameters[:, :-1]) == -np.inf).all()


def test_a_state_that_is_given_is_not_learned():
    net, params, xs = _learned()
    state = {"layer_0": rr.cells.HiddenState(jnp.full((2, 3), 0.1, xs.dtype))}
    whole = jax.jit(lambda: parameter_sensitivity(net, params, xs, state=state, paths=None))()
    alone = jax.jit(
        lambda: parameter_sensitivity(net, params, xs, state=state, paths="layer_0/initial/h")
    )()
    assert (np.asarray(alone.log_parameters) == -np.inf).all()
    assert np.isfinite(whole.log_parameters[:, 1:]).all()


@pytest.mark.parametrize(
    ("every", "message"),
    [
        (0, "every must be at least 1, a whole number; got 0"),
        (2.0, "every must be a whole number; got 2.0"),
        (True, "every must be a whole number; got True"),
        (3, "every must divide .* got every=3"),
    ],
)
def test_blocks_that_do_not_fit_are_named(every, message):
    net, params, xs = _learned()
    with pytest.raises(ValueError, match=message):
        parameter_sensitivity(net, params, xs, every=every)
