"""Penalties on activations: values, masks and weights, h = 0, layers by name."""

import activity_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance

import rnnreg as rr
from rnnreg.penalties import (
    activation,
    activity_l1,
    firing_rate,
    norm_stabilizer,
    temporal_activation,
)

pytestmark = pytest.mark.numerics


def _moves(rows, of):
    return [np.diff(of(h), axis=0) ** 2 for h in rows]


# By name: the penalty, and what it is of the true steps of each row, `[T, H]`, and of the weights of rows.
PENALTIES = {
    "activation": (
        activation(),
        lambda rows, w: np.average([np.mean(h**2) for h in rows], weights=w),
    ),
    "activity_l1": (
        activity_l1(),
        lambda rows, w: np.average([np.mean(np.abs(h)) for h in rows], weights=w),
    ),
    "firing_rate": (
        firing_rate(),
        lambda rows, w: np.average([np.mean(h**2) for h in rows], weights=w),
    ),
    "firing_rate_target": (
        firing_rate(target=0.3),
        lambda rows, w: np.mean(
            (np.average([h.mean(0) for h in rows], axis=0, weights=w) - 0.3) ** 2
        ),
    ),
    "temporal_activation": (
        temporal_activation(),
        lambda rows, w: np.average([m.mean() for m in _moves(rows, lambda h: h)], weights=w),
    ),
    "norm_stabilizer": (
        norm_stabilizer(),
        lambda rows, w: np.average(
            [m.mean() for m in _moves(rows, lambda h: np.linalg.norm(h, axis=1))], weights=w
        ),
    ),
}
every_penalty = pytest.mark.parametrize("name", PENALTIES)


def _rows(params, batch):
    return [np.array(walk.h) for walk in cases.walks("elman_tanh", params, batch)]


@every_penalty
def test_value_and_gradient_are_those_of_the_formula_over_true_steps_and_weighted_rows(name):
    penalty, formula = PENALTIES[name]
    net, params, batch = cases.problem("elman_tanh")
    value, gradient = cases.gradient_of(net, penalty)(params, batch)

    def by_hand(params):
        return formula(_rows(params, batch), cases.weights())

    np.testing.assert_allclose(value, by_hand(params), **tolerance())
    direction = cases.along(params)
    # central differences are exact to about 1e-9, times the curvature
    close = tolerance() if value.dtype == jnp.float32 else {"rtol": 1e-7, "atol": 1e-9}
    found = cases.inner(gradient, direction)
    np.testing.assert_allclose(found, cases.slope(by_hand, params, direction), **close)
    assert not np.asarray(gradient["readout"]["W_hy"]).any()


@every_penalty
def test_what_does_not_count_changes_nothing(name):
    """Other numbers, NaN too, at masked steps and in rows of weight 0; and one more such row."""
    penalty, _ = PENALTIES[name]
    net, params, batch = cases.problem("elman_tanh")
    run = cases.objective_of(net, penalty)
    counts = np.asarray(batch.mask) & (np.array(cases.WEIGHTS) > 0)[:, None]
    other = batch._replace(xs=jnp.where(counts[..., None], batch.xs, jnp.nan))
    np.testing.assert_array_equal(run(params, other)[0], run(params, batch)[0])


@every_penalty
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_value_and_gradient_are_finite_where_all_states_are_zero(name, activation):
    penalty, _ = PENALTIES[name]
    net = rr.network([rr.cells.elman(4, activation=activation)], 1)
    _, params, batch = cases.problem("elman_tanh")
    params = jax.tree.map(jnp.zeros_like, params)
    value, gradient = cases.gradient_of(net, penalty)(params, batch)
    np.testing.assert_allclose(value, 0.09 if name == "firing_rate_target" else 0.0, rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_one_step_has_no_pairs():
    net, params, batch = cases.problem("elman_tanh")
    first = rr.Batch(batch.xs[:, :1], batch.ys[:, :1])
    for penalty in (temporal_activation(), norm_stabilizer()):
        assert float(cases.objective_of(net, penalty)(params, first)[0]) == 0.0


@every_penalty
def test_half_precision_is_summed_in_float32_under_strict_types(name):
    penalty, _ = PENALTIES[name]
    net, params, batch = cases.problem("elman_tanh", dtype=jnp.bfloat16)
    objective = rr.make_objective(net, cases.LOSS, {"penalty": penalty})

    def value(params):
        total = objective(params, {"penalty": 1.0}, batch, {"penalty": ()}, key=None, train=False)
        return total[1][0].penalties["penalty"]

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        value, gradient = jax.eval_shape(jax.value_and_grad(value), params)
    assert value.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}


LAYERS = {
    "last": ["layer_1/1"],
    "*": ["layer_0/backward", "layer_0/forward", "layer_1/0", "layer_1/1"],
    "layer_0": ["layer_0/backward", "layer_0/forward"],
    "layer_0/forward": ["layer_0/forward"],
    ("layer_0/*", "last"): ["layer_0/backward", "layer_0/forward", "layer_1/1"],
}


@pytest.mark.parametrize("layers", LAYERS, ids=str)
def test_layers_are_chosen_by_name_and_are_averaged(layers):
    cell = rr.cells.elman(4)
    net = rr.network([rr.layer(cell, bidirectional=True, merge="sum"), rr.layer(cell, repeat=2)], 1)
    params, xs = net.init(jax.random.key(0), 2), jnp.ones((2, 3, 2))
    states = net.apply(params, xs).states
    flat = {
        "layer_0/backward": states["layer_0"]["backward"],
        "layer_0/forward": states["layer_0"]["forward"],
    }
    flat |= {"layer_1/0": states["layer_1"][0], "layer_1/1": states["layer_1"][1]}
    expected = np.mean([np.mean(np.square(flat[name].h)) for name in LAYERS[layers]])
    found = cases.objective_of(net, activation(layers))(params, rr.Batch(xs, jnp.ones((2, 3, 1))))[
        0
    ]
    np.testing.assert_allclose(found, expected, **tolerance())


def test_layers_that_are_not_there_are_named():
    net, params, batch = cases.problem("elman_tanh")
    with pytest.raises(
        ValueError, match=r"layers='layer_3' matches none of the network's, \['layer_0'\]"
    ):
        cases.objective_of(net, activation("layer_3"))(params, batch)
    with pytest.raises(ValueError, match=r"layers must be a text or a list of texts; got -1"):
        activation(-1)
    with pytest.raises(ValueError, match=r"target must be a (finite )?number"):
        firing_rate(target="low")


def test_a_network_that_is_a_function_is_penalised_by_the_states_it_returns():
    net, params, batch = cases.problem("elman_tanh")
    function = net._replace(apply=lambda *args, **options: net.apply(*args, **options))
    values = [
        cases.objective_of(one, norm_stabilizer())(params, batch)[0] for one in (net, function)
    ]
    np.testing.assert_allclose(*values, **tolerance())
