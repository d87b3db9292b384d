"""Fixed points against closed forms, their kinds, and the attractors of a trained flip-flop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED, tolerance

import rnnreg as rr
from rnnreg.diagnostics import FixedPoints, distinct_points, fixed_points

pytestmark = pytest.mark.numerics

KEY = jax.random.key(SEED)


def _sigmoid_unit(w, state, b):
    return w * jax.nn.sigmoid(state) + b


@functools.cache
def _search():
    starts = jnp.linspace(-4.0, 4.0, 17)[:, None]
    options = {"starts": starts, "num_descent": 50, "num_newton": 40}
    return jax.jit(jax.vmap(lambda b: fixed_points(_sigmoid_unit, 5.0, b[None], **options)))


def test_a_bistable_unit_has_its_three_points():
    found = jax.tree.map(lambda leaf: leaf[0], _search()(jnp.array([-2.5])))
    table = distinct_points(found)
    assert table.kind == ("stable", "stable", "unstable")
    assert table.counts.sum() + table.num_dropped == 17
    assert not table.slow.any()
    high = table.points[1, 0]
    np.testing.assert_allclose(5 / (1 + np.exp(-high)) - 2.5, high, **tolerance(loosen=10))
    np.testing.assert_allclose(table.points[:, 0], [-high, high, 0], **tolerance(loosen=10))
    slope = 5 * (lambda s: s * (1 - s))(1 / (1 + np.exp(-table.points[:, 0])))
    np.testing.assert_allclose(table.eigenvalues[:, 0], slope, **tolerance(loosen=10))


def test_beyond_a_saddle_node_its_ghost_is_a_slow_point():
    # the upper pair of points vanishes at b = −2.6556
    table = distinct_points(jax.tree.map(lambda leaf: leaf[0], _search()(jnp.array([-2.657]))))
    assert table.slow.tolist() == [False, True]
    assert table.kind[0] == "stable"
    assert 1e-8 < table.speed[1] < 1e-5
    assert bool(table.marginal[1])
    np.testing.assert_allclose(table.points[1, 0], 0.9624, atol=1e-3)
    strict = distinct_points(
        jax.tree.map(lambda leaf: leaf[0], _search()(jnp.array([-2.657]))), slow_below=1e-9
    )
    assert len(strict.points) == 1
    assert strict.num_dropped == table.counts[1] + table.num_dropped


def _independent(params, state, x):
    """Units that do not see each other, tanh(w h + x): 0 is unstable where w > 1."""
    return jnp.tanh(params * state + x)


def test_kinds_count_the_unstable_directions():
    starts = jnp.stack(jnp.meshgrid(*[jnp.array([-0.9, 0.01, 0.9])] * 2), -1).reshape(-1, 2)
    found = jax.jit(
        lambda: fixed_points(_independent, jnp.array([2.0, 3.0]), jnp.zeros(2), starts=starts)
    )()
    table = distinct_points(found)
    assert table.kind == ("stable",) * 4 + ("saddle",) * 4 + ("unstable",)
    assert table.num_unstable.tolist() == [0] * 4 + [1] * 4 + [2]
    assert table.counts.tolist() == [1] * 9
    assert found.places == {"state": (0, 2)}
    np.testing.assert_allclose(table.eigenvalues[-1], [3, 2], **tolerance())
    np.testing.assert_allclose(table.points[-1], [0, 0], **tolerance())


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_what_is_found_is_what_the_step_holds(cell):
    made = getattr(rr.cells, cell)(3)
    net = rr.network([made], 1)
    params, x = net.init(KEY, 2), jnp.array([0.5, -1.0])
    size = 6 if cell == "lstm" else 3
    starts = 0.3 * jax.random.normal(KEY, (4, size))
    found = jax.jit(lambda: fixed_points(made, params["layer_0"], x, starts=starts))()
    in_net = jax.jit(lambda: fixed_points(net, params, x, starts=starts))()
    np.testing.assert_allclose(found.points, in_net.points, **tolerance(loosen=100))
    table = distinct_points(found)
    assert table.kind == ("stable",)  # a small random cell has one
    assert table.num_dropped == 0
    held = net.apply(params, jnp.tile(x, (1, 400, 1))).final_state["layer_0"]
    flat = jnp.concatenate(jax.tree.leaves(held), axis=1)
    np.testing.assert_allclose(table.points, flat, atol=1e-4)
    begin, end = found.places["h"]
    np.testing.assert_allclose(table.points[:, begin:end], held.h, atol=1e-4)
    tree = jax.tree.map(lambda leaf: jnp.tile(leaf, (2, 1)), held)
    again = jax.jit(lambda: fixed_points(made, params["layer_0"], x, starts=tree))()
    np.testing.assert_allclose(again.points, jnp.tile(flat, (2, 1)), atol=1e-4)


def test_the_jacobian_is_that_of_the_step():
    W = 0.3 * jax.random.normal(KEY, (3, 3))

    def linear(params, state, x):
        return state @ params + x

    found = jax.jit(lambda: fixed_points(linear, W, jnp.ones(3), starts=jnp.zeros((1, 3))))()
    np.testing.assert_allclose(found.jacobians[0], W.T, **tolerance())
    expected = np.linalg.solve(np.eye(3) - np.asarray(W, np.float64).T, np.ones(3))
    np.testing.assert_allclose(found.points[0], expected, **tolerance(loosen=100))
    assert float(found.slope[0]) < 1e-5


def test_a_line_of_fixed_points_does_not_break_the_search():
    def hold(params, state, x):
        return state + x

    starts = jnp.array([[0.0, 1.0], [2.0, 3.0]])
    found = jax.jit(lambda: fixed_points(hold, None, jnp.zeros(2), starts=starts))()
    np.testing.assert_allclose(found.points, starts, **tolerance())
    table = distinct_points(found)
    assert len(table.points) == 2
    assert table.marginal.all()


def test_ends_that_are_not_finite_are_dropped():
    points = np.array([[0.0], [np.nan], [1.0]])
    speed = np.array([0.0, np.nan, 1.0])
    found = FixedPoints(points, speed, speed, speed, np.full((3, 1, 1), 0.5), {"h": (0, 1)})
    table = distinct_points(found)
    assert table.points.tolist() == [[0.0]]
    assert table.num_dropped == 2
    nothing = distinct_points(found._replace(speed=np.ones(3)))
    assert nothing.points.shape == (0, 1)
    assert nothing.kind == ()


def test_a_slow_stretch_is_no_slow_point():
    def decay(params, state, x):
        return params * state

    options = {"starts": jnp.array([[5.0], [8.0]]), "num_descent": 0}
    found = fixed_points(decay, 0.999, jnp.zeros(1), num_newton=0, **options)
    assert (found.speed < 1e-4).all()
    # the parabola of a linear map is exact: its minimum is at 0; of 1 − .999 float32 keeps four digits
    np.testing.assert_allclose(found.distance, [5, 8], rtol=1e-3)
    table = distinct_points(found)
    assert len(table.points) == 0
    assert table.num_dropped == 2
    ended = distinct_points(fixed_points(decay, 0.999, jnp.zeros(1), num_newton=30, **options))
    np.testing.assert_allclose(ended.points, [[0]], atol=1e-2)
    hill = FixedPoints(*[np.array([value]) for value in ([0.0], 1e-5, 1e-4, np.inf, [[1.0]])], {})
    assert distinct_points(hill).num_dropped == 1


@pytest.mark.slow
def test_what_was_dropped_is_told_apart():
    """q = ½ (.1 + h²)² has its minimum at 0, too fast for a slow point: more steps change nothing."""
    starts = jnp.array([[-0.3], [0.2], [0.3]])
    step = lambda params, state, x: state + 0.1 + state * state  # noqa: E731
    table = distinct_points(fixed_points(step, None, jnp.zeros(1), starts=starts))
    assert (table.num_dropped, table.num_fast, table.num_unfinished) == (3, 3, 0)
    early = fixed_points(step, None, jnp.zeros(1), starts=starts, num_descent=1, num_newton=0)
    table = distinct_points(early)
    assert (table.num_dropped, table.num_fast, table.num_unfinished) == (3, 0, 3)


@pytest.mark.parametrize("radius", [-1, float("nan"), "near", None])
def test_a_radius_that_is_none_is_refused(radius):
    found = FixedPoints(*[np.zeros((1, 1)), *[np.zeros(1)] * 3, np.zeros((1, 1, 1))], {})
    with pytest.raises(ValueError, match="radius must be a number"):
        distinct_points(found, radius=radius)
    assert len(distinct_points(found, radius=0).points) == 1


@pytest.mark.parametrize(
    ("x", "starts", "message"),
    [
        (jnp.zeros((2, 2)), jnp.zeros((4, 3)), r"x must be one input \[D\]"),
        (jnp.zeros(2), jnp.zeros(3), "starts must be S states"),
        (jnp.zeros(2), jnp.zeros((4, 5)), r"so starts must be \[S, 3\]; got \(4, 5\)"),
    ],
)
def test_starts_and_inputs_that_do_not_fit_are_named(x, starts, message):
    cell = rr.cells.elman(3)
    with pytest.raises(ValueError, match=message):
        fixed_points(cell, cell.init(KEY, 2), x, starts=starts)


def test_a_vmapped_record_is_refused():
    with pytest.raises(ValueError, match="the record of one search"):
        distinct_points(_search()(jnp.array([-2.5])))


# ---- the 3-bit flip-flop --------------------------------------------------------------------------


def flip_flop(key, num_rows, num_steps, num_bits=3):
    """Pulses of ±1, rare in time, and the sign of the latest one of each channel."""
    key_when, key_sign = jax.random.split(key)
    shape = (num_rows, num_steps, num_bits)
    when = jax.random.bernoulli(key_when, 0.15, shape).at[:, 0].set(True)
    pulses = jnp.where(jax.random.bernoulli(key_sign, 0.5, shape), 1.0, -1.0) * when

    def hold(bits, pulse):
        bits = jnp.where(pulse != 0, pulse, bits)
        return bits, bits

    _, bits = jax.lax.scan(hold, pulses[:, 0], jnp.swapaxes(pulses, 0, 1))
    return pulses, jnp.swapaxes(bits, 0, 1)


@pytest.mark.float32_only
@pytest.mark.slow
@pytest.mark.float32_only
def test_a_trained_flip_flop_has_eight_attractors_and_saddles_between_them():
    net = rr.network([rr.cells.elman(24)], 3)
    loss = rr.losses.squared_error("mean")
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))
    params = net.init(KEY, 3)

    def update(carry, key):
        params, memory = carry
        xs, ys = flip_flop(key, 32, 40)
        value, gradient = jax.value_and_grad(lambda p: loss(net.apply(p, xs).outputs, ys))(params)
        changes, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(params, changes), memory), value

    @jax.jit
    def train(params):
        keys = jax.random.split(KEY, 2000)
        return jax.lax.scan(update, (params, optimizer.init(params)), keys)

    (params, _), losses = train(params)
    assert float(losses[-50:].mean()) < 0.02, "the network did not learn its task"

    xs, _ = flip_flop(jax.random.key(1), 16, 40)
    visited = net.apply(params, xs).states["layer_0"].h.reshape(-1, 24)
    starts = visited + 0.3 * jax.random.normal(jax.random.key(2), visited.shape)
    found = jax.jit(lambda: fixed_points(net, params, jnp.zeros(3), starts=starts))()
    table = distinct_points(found, radius=0.05)
    stable = table.points[(table.num_unstable == 0) & ~table.slow]
    bits = np.sign(stable @ params["readout"]["W_hy"] + params["readout"]["b_y"])
    assert len(stable) == 8
    assert len(np.unique(bits, axis=0)) == 8  # one attractor for each setting of the bits
    # the border between the basins of two settings that differ in one bit: an edge of the cube
    assert ((table.num_unstable == 1) & ~table.slow).sum() >= 12


def test_inside_jit_the_list_of_points_is_refused():
    starts = jnp.array([[0.5]])
    options = {"starts": starts, "num_descent": 2, "num_newton": 2}

    def table(w):
        return distinct_points(fixed_points(_independent, w, jnp.zeros(1), **options)).speed

    with pytest.raises(ValueError, match=r"runs on the host, .* outside of jit and vmap"):
        jax.jit(table)(2.0)
