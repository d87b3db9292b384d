"""Spectra of matrices and of step Jacobians, and what the weights alone say about products."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance
from small import make, sine
from small_dynamics import KEY, autodiff_jacobians, linear_step, orthogonal, systems, tanh_step

import rnnreg as rr
from rnnreg.diagnostics import (
    Spectrum,
    jacobian_bounds,
    jacobian_products,
    matrix_spectrum,
    spectra,
    step_jacobians,
    step_spectra,
)

spectra_module = importlib.import_module("rnnreg.diagnostics.dynamics._spectra")
pytestmark = pytest.mark.numerics


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


@pytest.mark.slow
@pytest.mark.parametrize("where", ["jit", "vmap", "both", "callback"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e18])
def test_traced_matrices_have_the_spectrum_of_stored_ones(where, scale, monkeypatch):
    if where == "callback":  # how it is done where LAPACK is not
        monkeypatch.setattr(spectra_module, "_eigenvalues", spectra_module._eigenvalues_on_host)
    rng = np.random.default_rng(6)
    A = jnp.asarray(scale * rng.normal(size=(4, 3, 5, 5)))
    A = A.at[0, 0].set(0).at[0, 1].set(jnp.nan).at[1, 1, 0].set(0)
    A = A.at[0, 2].set(scale * orthogonal(5))
    of = {
        "jit": jax.jit(lambda A: matrix_spectrum(A)),
        "vmap": jax.vmap(lambda A: matrix_spectrum(A)),
    }
    of["both"] = of["callback"] = jax.jit(jax.vmap(of["vmap"]))
    found, stored = of[where](A), matrix_spectrum(A)
    # eigenvalues are compared by modulus, which has no order among equals
    found, stored = (
        each._replace(eigenvalues=np.sort(np.abs(each.eigenvalues), axis=-1))
        for each in (found, stored)
    )
    for name in set(Spectrum._fields) - {"condition", "henrici"}:
        measured, expected = getattr(found, name), getattr(stored, name)
        assert measured.dtype == A.dtype
        np.testing.assert_allclose(measured / scale, expected / scale, **tolerance(loosen=10))
    # of a normal matrix the departure is rounding: in float32 its square root is large
    np.testing.assert_allclose(
        found.henrici / scale, stored.henrici / scale, **tolerance(loosen=100)
    )
    assert found.henrici[0, 2] == 0
    regular = stored.condition < 1e6
    assert (found.condition > 1e4)[stored.condition > 1e6].all()
    np.testing.assert_allclose(
        found.condition[regular], stored.condition[regular], **tolerance(loosen=1000)
    )


def test_traced_spectra_of_every_gate():
    cell = rr.cells.gru(3)
    params = {"layer_0": jax.vmap(lambda key: cell.init(key, 2))(jax.random.split(KEY, 4))}
    rho = jax.jit(jax.vmap(lambda params: spectra(params)["layer_0/W_hh"].rho))(params)
    assert rho.shape == (4, 3)
    stored = spectra(params)["layer_0/W_hh"].rho
    np.testing.assert_allclose(rho, stored, **tolerance("float32"))  # parameters are float32
    with pytest.raises(ValueError, match=r"leaves called W_hh; params has \['layer_0/A'\]"):
        spectra({"layer_0": {"A": np.eye(2)}})
    with pytest.raises(ValueError, match="square matrices"):
        jax.jit(matrix_spectrum)(jnp.ones((2, 3)))


@pytest.mark.float32_only
@pytest.mark.slow
@pytest.mark.parametrize("plan", ["one_by_one", "vmap"])
def test_the_spectral_radius_is_tracked_in_training_and_mapped_over_a_sweep(plan):
    net = rr.network([rr.cells.elman(4)], 1, readout="last")
    cell = net.layers[0].cell

    def measured(net, params, batch):
        own = params["layer_0"]
        return {
            "rho": spectra(params)["layer_0/W_hh"].rho[0],
            "bound": jacobian_bounds(net, params).log_bound,
            "steps": step_spectra(cell, own, batch.xs[:2]).rho,
        }

    train = make(net, num_epochs=3, track={"spectrum": measured})
    grid = {"l2": [0.0, 1e-1], "learning_rate": 1e-2}
    result = rr.sweep(train, grid, sine(), seeds=2, key=KEY, progress=False, plan=plan)
    mapped = result.map(lambda params: measured(net, params, sine().train), plan=plan)
    tracked = {
        name: result.metrics[f"history_spectrum.{name}"]
        for name in mapped.data_vars
        if name in ("rho", "bound")
    }
    assert len(tracked) == 2
    for name, values in tracked.items():
        assert values.dims == ("l2", "seed", "epoch")
        np.testing.assert_allclose(values[..., -1], mapped[name], **tolerance(loosen=10))
    for lam in grid["l2"]:
        for seed in (0, 1):
            stored = spectra(result.params_at(l2=lam, seed=seed))["layer_0/W_hh"].rho[0]
            found = mapped.rho.sel(l2=lam, seed=seed)
            np.testing.assert_allclose(found, stored, **tolerance(loosen=10))
    assert np.isfinite(result.metrics["history_spectrum.steps"]).all()


# ---- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", systems())
def test_step_jacobians_are_those_of_jax(name):
    system, params, xs, *_ = systems()[name](KEY)
    found = jax.jit(lambda: step_jacobians(system, params, xs))()
    np.testing.assert_allclose(found, autodiff_jacobians(name), **tolerance(loosen=3))
    rho = jax.jit(lambda: step_spectra(system, params, xs).rho)()
    expected = np.linalg.eigvals(np.asarray(found, np.float64))
    np.testing.assert_allclose(rho, np.abs(expected).max(axis=-1), **tolerance(loosen=3))


def test_step_spectra_inside_jit():
    system, params, xs, *_ = systems()["gru"](KEY)
    found = jax.jit(lambda params: step_spectra(system, params, xs).rho)(params)
    np.testing.assert_allclose(found, step_spectra(system, params, xs).rho, **tolerance())


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


@pytest.mark.slow
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


@pytest.mark.parametrize("size", [1, 3, 8, 20])
@pytest.mark.parametrize(
    "activation",
    [
        lambda z: 2 * jax.nn.relu(z),
        lambda z: jnp.where(z > 0, 5 * z, z),
        lambda z: jnp.where(z < 0, 5 * z, z),
        lambda z: jnp.where(z > 100, 3 * z - 200, z),
    ],
)
def test_an_activation_that_is_a_known_one_on_one_side_only_has_no_bound(activation, size):
    cell = rr.cells.elman(size, activation=activation)
    bounds = jacobian_bounds(cell, cell.init(KEY, 1))
    assert bounds.slope is None
    assert bounds.log_bound is None
    stated = rr.cells.Activation("steep", activation, max_slope=5.0)
    twin = rr.cells.elman(size, activation=stated)
    assert jacobian_bounds(twin, twin.init(KEY, 1)).slope == 5


def test_a_replaced_gate_has_no_bound_whatever_the_cell_is_called():
    """h = tanh(2 x_proj + 2 h_proj) in a cell that is called elman: (1 · σ_max)^ℓ would be broken."""

    def gate(params, state, x_proj, h_proj):
        return rr.cells.HiddenState(h=jnp.tanh(2 * (x_proj + h_proj)))

    cell = rr.cells.elman(3, recurrent_init="identity")._replace(gate=gate)
    params = cell.init(KEY, 1)
    assert jacobian_bounds(cell, params).log_bound is None
    products = jax.jit(lambda: jacobian_products(cell, params, jnp.zeros((1, 4, 1))))()
    assert products.log_norm[-1] > 1  # 4 ln 2, where a slope of 1 would promise 0
    stated = cell._replace(
        gate=rr.cells.Gate(lambda *at: (gate(*at), {}), facts=rr.cells.Facts(max_slope=2))
    )
    np.testing.assert_allclose(jacobian_bounds(stated, params).log_bound, np.log(2), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", [False, True])
def test_bounds_of_stacked_and_of_traced_parameters(wrapped):
    cell = rr.cells.elman(4, recurrent_init=rr.cells.gaussian(1.3))
    if wrapped:  # a parametrisation, which knows no leading axes
        cell = cell._replace(
            weights=lambda params: (
                params["W_xh"],
                params["W_hh"] - params["W_hh"].T,
                params["b_h"],
            )
        )
    init = jax.vmap(jax.vmap(lambda key: cell.init(key, 2)))
    params = init(jax.random.split(KEY, (3, 2)))
    net = rr.network([cell], 1)
    together = jacobian_bounds(net, {"layer_0": params})
    traced = jax.jit(lambda params: jacobian_bounds(cell, params)[1:])(params)
    lanes = jax.jit(jax.vmap(jax.vmap(lambda params: jacobian_bounds(cell, params)[1:])))(params)
    assert together.slope == 1
    for i, j in np.ndindex(3, 2):
        alone = jacobian_bounds(cell, jax.tree.map(lambda leaf: leaf[i, j], params))
        assert all(isinstance(value, float) for value in alone)
        for found in (together[1:], traced, lanes):
            measured = [float(value[i, j]) for value in found]
            np.testing.assert_allclose(measured, alone[1:], **tolerance("float32"))
    products = jacobian_products(
        linear_step, orthogonal(2), jnp.zeros((1, 2, 0)), state=jnp.ones((1, 2))
    )
    with pytest.raises(ValueError, match="bounds of stacked parameters cannot be drawn"):
        rr.plotting.jacobian_products(products, bounds=together)


def test_bounds_of_parameters_that_are_not_the_cells():
    cell = rr.cells.elman(3)
    params = cell.init(KEY, 1)
    with pytest.raises(ValueError, match=r"'W_hh'.* are missing from \['layer_0/W_hh'"):
        jacobian_bounds(cell, {"layer_0": {"W_hh": params["W_hh"]}})
    with pytest.raises(ValueError, match="the same leading axes"):
        jacobian_bounds(cell, params | {"W_hh": params["W_hh"][None]})


def test_where_no_bound_is_known():
    odd = rr.cells.elman(3, activation=lambda z: jnp.sin(z))
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
