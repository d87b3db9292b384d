"""Slices of the loss against the loss itself, and Lanczos against a dense Hessian."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance
from jax.flatten_util import ravel_pytree

import rnnreg as rr
from rnnreg.diagnostics import (
    coordinate_direction,
    data_loss_of,
    hessian_directions,
    loss_surface,
    random_direction,
)

pytestmark = pytest.mark.numerics

KEY = jax.random.key(SEED)


@functools.cache
def _problem():
    """A small network's loss, and parameters: 30 numbers."""
    net = rr.network([rr.cells.elman(3)], 2, readout="last")
    rng = np.random.default_rng(1)
    batch = rr.Batch(
        jnp.asarray(rng.normal(size=(5, 4, 2))),
        jnp.asarray(rng.normal(size=(5, 2))),
        rr.data.lengths_to_mask([4, 3, 2, 4, 1], 4),
    )
    return data_loss_of(net, rr.losses.squared_error("sum"), batch), net.init(KEY, 2)


@functools.cache
def _hessian():
    loss_of, params = _problem()
    flat, unravel = ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda w: loss_of(unravel(w))))(flat), np.float64)


# ---- slices ---------------------------------------------------------------------------------------


def _flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_a_plane_holds_the_loss_and_its_gradient_at_every_point(chunk):
    loss_of, params = _problem()
    key_one, key_two = jax.random.split(KEY)
    pair = [random_direction(params, key=key) for key in (key_one, key_two)]
    alphas, betas = jnp.array([-0.5, 0.0, 0.7]), jnp.array([0.2, -1.0])
    surface = jax.jit(
        lambda: loss_surface(loss_of, params, pair, alphas=alphas, betas=betas, chunk=chunk)
    )()
    assert surface.loss.shape == surface.gradient_norm.shape == (3, 2)
    value_and_gradient = jax.jit(jax.value_and_grad(loss_of))
    params, pair = jax.tree.map(np.asarray, (params, pair))
    for i, alpha in enumerate(np.asarray(alphas)):
        for j, beta in enumerate(np.asarray(betas)):
            at = jax.tree.map(lambda w, d, e: w + alpha * d + beta * e, params, *pair)
            value, gradient = value_and_gradient(at)
            gradient = _flat(gradient)
            slopes = [gradient @ _flat(one) for one in pair]
            np.testing.assert_allclose(surface.loss[i, j], value, **tolerance())
            norm = np.linalg.norm(gradient)
            np.testing.assert_allclose(surface.gradient_norm[i, j], norm, **tolerance())
            np.testing.assert_allclose(surface.slopes[i, j], slopes, **tolerance(loosen=10))


def test_a_cliff_shows_in_the_norm_of_the_gradient():
    def steep(params):
        return jax.nn.sigmoid(1e3 * params["w"])

    line = loss_surface(
        steep, {"w": jnp.zeros(())}, {"w": jnp.ones(())}, alphas=jnp.linspace(-1, 1, 21)
    )
    assert line.betas is None
    assert int(jnp.argmax(line.gradient_norm)) == 10
    np.testing.assert_allclose(line.gradient_norm[10], 250, **tolerance())
    np.testing.assert_allclose(line.slopes[:, 0], line.gradient_norm, **tolerance())


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_gradient_of_a_loss_of_any_scale_has_a_norm(scale):
    scale = jnp.asarray(scale)
    line = loss_surface(
        lambda p: scale * jnp.sum(p["w"]),
        {"w": jnp.zeros(4)},
        {"w": jnp.ones(4)},
        alphas=jnp.zeros(1),
    )
    np.testing.assert_allclose(line.gradient_norm / scale, [2], **tolerance())


def test_an_infinite_gradient_is_infinite_and_leaves_the_other_slope_alone():
    def wall(params):  # e^α overflows, in float64 too
        return jnp.exp(params["w"][0]) + 3 * params["w"][1]

    params = {"w": jnp.zeros(2)}
    pair = [coordinate_direction(params, "w", index=(place,)) for place in (0, 1)]
    plane = loss_surface(wall, params, pair, alphas=jnp.array([0.0, 1e3]), betas=jnp.zeros(1))
    np.testing.assert_allclose(plane.gradient_norm[:, 0], [np.sqrt(10), np.inf], **tolerance())
    np.testing.assert_allclose(plane.slopes[:, 0], [[1, 3], [np.inf, 3]], **tolerance())


def test_a_direction_of_faint_weights_is_as_faint():
    params = {"W_hh": jnp.full((4, 3), 1e-25)}
    found = random_direction(params, key=KEY)["W_hh"] * 1e25
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=0), [2, 2, 2], **tolerance())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": 0.5}, r"alphas must be one list of numbers, at least one; got shape \(\)"),
        ({"alphas": jnp.ones((2, 2))}, r"got shape \(2, 2\)"),
        ({"alphas": []}, r"got shape \(0,\)"),
        ({"chunk": 0}, "chunk must be at least 1, a whole number; got 0"),
        ({"chunk": 2.5}, "chunk must be a whole number; got 2.5"),
        ({"params": {"w": jnp.ones(2, int)}}, "params must be a tree of real numbers"),
    ],
)
def test_grids_and_chunks_that_do_not_fit_are_named(options, message):
    given = {"params": {"w": jnp.ones(2)}, "alphas": [0.0, 1.0]} | options
    with pytest.raises(ValueError, match=message):
        loss_surface(
            lambda p: jnp.sum(p["w"] ** 2), given.pop("params"), {"w": jnp.ones(2)}, **given
        )


def test_a_batch_that_does_not_fit_is_named():
    net = rr.network([rr.cells.elman(2)], 1)
    xs, ys = jnp.zeros((2, 3, 1)), jnp.zeros((2, 3, 1))
    for batch, message in (
        (rr.Batch(xs, ys[:1]), "batch.ys must have as many rows as xs: 2; got 1"),
        (rr.Batch(xs, ys, [[1, 1, 1]] * 2), "batch.mask must be a NumPy or JAX array; got list"),
    ):
        with pytest.raises(ValueError, match=message):
            data_loss_of(net, rr.losses.squared_error("sum"), batch)


@pytest.mark.parametrize(
    ("directions", "betas", "message"),
    [
        ({"w": jnp.ones(2)}, jnp.zeros(1), "needs a pair of directions"),
        ([{"w": jnp.ones(2)}], jnp.zeros(1), "needs a pair of directions"),
        ({"w": jnp.ones(3)}, None, "a direction must be a tree like params"),
        ({"v": jnp.ones(2)}, None, "a direction must be a tree like params"),
    ],
)
def test_directions_that_do_not_fit_are_named(directions, betas, message):
    with pytest.raises(ValueError, match=message):
        loss_surface(
            lambda p: p["w"].sum(), {"w": jnp.ones(2)}, directions, alphas=jnp.zeros(1), betas=betas
        )


def test_random_directions_have_the_norms_of_the_weights():
    params = {"W_hh": jnp.asarray(np.random.default_rng(0).normal(size=(4, 3))), "b_h": jnp.ones(3)}
    params["W_hh"] = params["W_hh"].at[:, 1].set(0)
    for normalise, axis in (("filter", 0), ("layer", None)):
        found = random_direction(params, key=KEY, scale=normalise)
        expected = jnp.linalg.norm(params["W_hh"], axis=axis)
        np.testing.assert_allclose(
            jnp.linalg.norm(found["W_hh"], axis=axis), expected, **tolerance()
        )
        assert found["b_h"].tolist() == [0, 0, 0]
    biased = random_direction(params, key=KEY, include_biases=True)
    np.testing.assert_allclose(jnp.linalg.norm(biased["b_h"]), np.sqrt(3), **tolerance())
    with pytest.raises(ValueError, match="must be 'filter', 'layer' or 'none'; got 'units'"):
        random_direction(params, key=KEY, scale="units")


def test_a_coordinate_is_one_entry_of_one_leaf():
    params = {"layer_0": {"W_hh": jnp.ones((2, 2)), "b_h": jnp.ones(1)}}
    found = coordinate_direction(params, "layer_0/W_hh", index=(1, 0))
    assert found["layer_0"]["W_hh"].tolist() == [[0, 0], [1, 0]]
    assert coordinate_direction(params, "layer_0/b_h")["layer_0"]["b_h"].tolist() == [1]
    for path, index, message in (
        ("W_hh", (), "path 'W_hh' names no leaf"),
        ("layer_0/W_hh", (), "index must name one entry"),
        ("layer_0/W_hh", (2, 0), "index must name one entry"),
        ("layer_0/W_hh", (1.0, 0), "index must hold whole numbers; got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            coordinate_direction(params, path, index=index)


# ---- Lanczos --------------------------------------------------------------------------------------


@functools.cache
def _found(which="largest", num_iterations=26):
    loss_of, params = _problem()
    return jax.jit(
        lambda key: hessian_directions(
            loss_of, params, key=key, num_directions=3, num_iterations=num_iterations, which=which
        )
    )(KEY)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_directions_are_eigenvectors_of_the_dense_hessian(which):
    hessian, found = _hessian(), _found(which)
    values = np.linalg.eigvalsh(hessian)
    order = {"largest": -values, "smallest": values, "magnitude": -np.abs(values)}[which]
    scale = np.abs(values).max()
    close = {name: scale * value for name, value in tolerance(loosen=10).items()}
    np.testing.assert_allclose(found.eigenvalues, values[np.argsort(order)][:3], atol=close["atol"])
    flat = np.asarray(jax.vmap(lambda one: ravel_pytree(one)[0])(found.directions), np.float64)
    np.testing.assert_allclose(flat @ flat.T, np.eye(3), **tolerance())
    errors = np.linalg.norm(flat @ hessian - np.asarray(found.eigenvalues)[:, None] * flat, axis=1)
    np.testing.assert_allclose(errors, 0, atol=close["atol"])
    np.testing.assert_allclose(found.residuals, errors, atol=close["atol"])


def test_no_eigenvalue_shows_up_twice():
    loss_of, params = _problem()
    size = ravel_pytree(params)[0].size
    found = jax.jit(
        lambda: hessian_directions(loss_of, params, key=KEY, num_directions=1, num_iterations=size)
    )()
    values = np.linalg.eigvalsh(_hessian())
    np.testing.assert_allclose(
        found.ritz_values, values, atol=10 * tolerance()["atol"] * np.abs(values).max()
    )


def test_a_residual_says_how_far_an_eigenvalue_may_be():
    values = np.linalg.eigvalsh(_hessian())
    found = _found(num_iterations=6)
    slack = 10 * tolerance()["atol"] * np.abs(values).max()
    for value, residual in zip(found.eigenvalues, found.residuals, strict=True):
        assert np.abs(values - float(value)).min() <= float(residual) + slack
    assert float(found.residuals[2]) > float(_found().residuals[2])


@pytest.mark.parametrize("scales", [[0.0] * 4, [1.0] * 4, [2.0, 2.0, 0.0, -3.0]])
def test_an_invariant_subspace_is_left_for_a_fresh_direction(scales):
    scales = jnp.array(scales)
    found = jax.jit(
        lambda: hessian_directions(
            lambda w: 0.5 * jnp.sum(scales * w**2), jnp.ones(4), key=KEY, num_iterations=4
        )
    )()
    np.testing.assert_allclose(found.ritz_values, np.sort(scales), **tolerance())
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(2), **tolerance())


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_the_scale_of_a_loss_is_that_of_its_eigenvalues(scale):
    curvatures, factor = jnp.array([1.0, 5.0, -2.0]), jnp.asarray(0.5 * scale)
    found = jax.jit(
        lambda: hessian_directions(
            lambda w: factor * jnp.sum(curvatures * w**2), jnp.zeros(3), key=KEY, num_iterations=3
        )
    )()
    np.testing.assert_allclose(found.ritz_values / scale, [-2, 1, 5], **tolerance())
    np.testing.assert_allclose(jnp.abs(found.directions), np.eye(3)[[1, 0]], **tolerance())
    np.testing.assert_allclose(found.residuals / scale, 0, **tolerance())
    early = jax.jit(
        lambda: hessian_directions(
            lambda w: factor * jnp.sum(curvatures * w**2), jnp.zeros(3), key=KEY, num_iterations=2
        )
    )()
    assert float(early.residuals[1]) / scale > 0.1


@pytest.mark.slow
def test_a_small_network_is_iterated_as_far_as_it_goes():
    found = hessian_directions(lambda w: jnp.sum(w**2), jnp.ones(4), key=KEY)
    assert len(found.ritz_values) == 4
    loss_of, params = _problem()
    large = jax.eval_shape(
        lambda: hessian_directions(
            lambda p: loss_of(p[0]) + jnp.sum(p[1] ** 2), (params, jnp.ones(30)), key=KEY
        )
    )
    assert large.ritz_values.shape == (40,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_iterations": 3.5}, "num_iterations must be a whole number or None; got 3.5"),
        ({"num_directions": True}, "num_directions must be a whole number; got True"),
        (
            {"num_iterations": 5},
            "num_iterations must lie in 1 … 4.* got 5. There are no more parameters",
        ),
        ({"num_iterations": 1}, "num_directions must lie in 1 … 1.* got 2"),
        (
            {"num_iterations": 3, "which": "top"},
            "which must be 'largest', 'smallest' or 'magnitude'; got 'top'",
        ),
    ],
)
def test_impossible_requests_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        hessian_directions(lambda w: jnp.sum(w**2), jnp.ones(4), key=KEY, **options)
