"""Spectra of matrices and of step Jacobians, and what the weights alone say about products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance
from small_dynamics import KEY, autodiff_jacobians, linear_step, orthogonal, systems, tanh_step

import rnnreg as rr
from rnnreg.diagnostics import (
    jacobian_bounds,
    jacobian_products,
    matrix_spectrum,
    spectra,
    step_jacobians,
    step_spectra,
)

pytestmark = [pytest.mark.numerics, pytest.mark.usefixtures("compile_quickly")]


# ---- matrices -------------------------------------------------------------------------------------


def test_departure_from_normality_of_known_matrices():
    shear = np.array([[1.0, 3.0], [0.0, 1.0]])  # Schur form: the strict upper part is the departure
    found = matrix_spectrum(
        np.stack([shear, np.eye(2), np.zeros((2, 2)), np.array([[0, 1], [-1, 0]])])
    )
    np.testing.assert_allclose(found.henrici, [3, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.rho, [1, 1, 0, 1], atol=1e-7)
    golden = (3 + np.sqrt(13)) / 2  # σ of [[1, 3], [0, 1]]
    np.testing.assert_allclose(found.condition[0], golden**2)
    assert found.condition[1:].tolist() == [1, np.inf, 1]
    normal = np.asarray(orthogonal(20), np.float64)
    assert matrix_spectrum(normal).henrici < 1e-2 * np.sqrt(np.finfo(np.float32).eps) * 30


def test_a_matrix_that_is_not_finite_is_nan_and_its_neighbours_are_not():
    found = matrix_spectrum(np.stack([np.eye(2), np.full((2, 2), np.nan)]))
    for values in found:
        assert np.isfinite(values[0]).all()
        assert np.isnan(values[1]).all()


def test_matrices_without_eigenvalues_are_refused():
    with pytest.raises(ValueError, match=r"eigenvalues need square matrices .* got shape \(2, 3\)"):
        matrix_spectrum(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"layer_0/W_hh must be \[..., H, G·H\]"):
        spectra({"layer_0": {"W_hh": np.ones((2, 3))}})


# ---- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", systems())
def test_step_jacobians_are_those_of_jax(name):
    system, params, xs, *_ = systems()[name](KEY)
    found = jax.jit(lambda: step_jacobians(system, params, xs))()
    np.testing.assert_allclose(found, autodiff_jacobians(name), **tolerance(loosen=3))
    spectrum = step_spectra(system, params, xs)
    expected = np.linalg.eigvals(np.asarray(found, np.float64))
    np.testing.assert_allclose(spectrum.rho, np.abs(expected).max(axis=-1), **tolerance(loosen=3))


def test_a_field_of_the_state():
    system, params, xs, *_ = systems()["network"](KEY)
    whole, part = jax.jit(
        lambda: [step_jacobians(system, params, xs, field=field) for field in (None, "layer_1/h")]
    )()
    np.testing.assert_allclose(part, whole[:, :, 3:, 3:], **tolerance())
    with pytest.raises(ValueError, match="field 'c' is not in the state"):
        step_jacobians(system, params, xs, field="c")


# ---- bounds ---------------------------------------------------------------------------------------

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "linear": jax.nn.identity,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_bound_is_never_broken(name):
    init = rr.cells.gaussian(1.3)
    cell = rr.cells.elman(6, activation=ACTIVATIONS[name], recurrent_init=init)
    params = cell.init(KEY, 2)
    xs = jax.random.normal(KEY, (3, 20, 2), params["W_xh"].dtype)
    bounds = jacobian_bounds(cell, params)
    assert bounds.slope == (0.25 if name == "sigmoid" else 1.0)
    np.testing.assert_allclose(bounds.sigma_max, np.linalg.norm(params["W_hh"], 2), rtol=1e-5)
    products = jax.jit(lambda: jacobian_products(cell, params, xs))()
    log_bound = bounds.log_bound * np.arange(21)
    assert (products.log_singular[..., 0] <= log_bound[None] + 20 * tolerance()["atol"]).all()
    net = rr.network([cell], 1)
    assert jacobian_bounds(net, {"layer_0": params}) == bounds


def test_an_orthogonal_linear_network_reaches_its_bound():
    cell = rr.cells.elman(5, activation=jax.nn.identity, recurrent_init=rr.cells.orthogonal(0.7))
    params = cell.init(KEY, 1)
    bounds = jacobian_bounds(cell, params)
    np.testing.assert_allclose([bounds.log_bound, bounds.log_rho], np.log(0.7), rtol=1e-5)


def test_where_no_bound_is_known():
    odd = rr.cells.elman(3, activation=jnp.sin)
    params = odd.init(KEY, 1)
    found = jacobian_bounds(odd, params)
    assert found.slope is None
    assert found.log_bound is None
    assert found.rho > 0
    lstm = rr.cells.lstm(3)
    assert set(jacobian_bounds(lstm, lstm.init(KEY, 1))) == {None}
    two = rr.network([odd, odd], 1)
    assert set(jacobian_bounds(two, two.init(KEY, 1))) == {None}
    assert set(jacobian_bounds(linear_step, orthogonal(2))) == {None}
    assert set(jacobian_bounds(tanh_step, orthogonal(2))) == {None}
