"""The back ends of the recurrence: values and derivatives of every order, against a loop and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance
from jax.test_util import check_grads
from recurrent_cases import (
    CASES,
    HIDDEN,
    INSIDE,
    LONG,
    OPTIONAL,
    OUTSIDE,
    SHORT,
    assert_close,
    draw,
    either,
    every_case,
    every_kind,
    forget_programs,  # noqa: F401 - it works by being here
    loop,
    run,
    split,
    wave,
    with_a_tangent,
)

import rnnreg as rr
from rnnreg.recurrence import choose_backend, unroll

pytestmark = pytest.mark.numerics


LANES = 3


def lanes_of(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def lane_of(tree, *index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


# ---- values ---------------------------------------------------------------------------------------


@pytest.mark.slow
@either
@every_case
def test_states_equal_a_loop(case, backend):
    for steps, batch in ((1, 1), (2, 3), (SHORT, 1), (SHORT, 3)):
        given = draw(case, steps=steps, batch=batch, but=OPTIONAL)
        assert_close(run(case.cell, **given, backend=backend), loop(case, **given))


@either
@every_case
def test_states_equal_a_loop_with_masks_and_perturbations(case, backend):
    for input_size, steps, reverse in ((INSIDE, SHORT, False), (OUTSIDE, LONG, True)):
        given = draw(case, input_size=input_size, steps=steps)
        got = run(case.cell, **given, backend=backend, reverse=reverse)
        assert_close(got, loop(case, **given, reverse=reverse))


@either
@every_case
def test_long_contractive_sequences_equal_a_loop(case, backend):
    """Spectral radius 0.9, 200 steps: errors of old steps have died out."""
    given = draw(case, steps=200, radius=0.9, but=OPTIONAL)
    assert_close(run(case.cell, **given, backend=backend), loop(case, **given))


@pytest.mark.slow
@either
@every_case
def test_chaotic_weights_step_by_step(case, backend):
    """Each step from the loop's own state, and ten steps in one go; beyond, rounding decides the orbit."""
    gain, steps = 1.5, 10
    given = draw(case, steps=steps, radius=gain, but=OPTIONAL)
    final, states = loop(case, **given)
    # an error grows by the gain a step
    assert_close(run(case.cell, **given, backend=backend), (final, states), loosen=gain**steps)

    def joined(before, after):
        """The states that steps start from, all as rows of one batch."""
        return jnp.concatenate([before, *after[:-1].astype(before.dtype)])

    given["state"] = jax.tree.map(
        joined, given["state"], jax.tree.unflatten(jax.tree.structure(given["state"]), states)
    )
    given["xs"] = given["xs"].reshape(1, -1, INSIDE)
    once, _ = run(case.cell, **given, backend=backend)
    assert_close(once, [field.reshape(-1, HIDDEN) for field in states])


def test_the_two_input_sizes_are_projected_in_different_places():
    """What the tests of this file rely on."""
    inside, outside = (
        choose_backend(CASES["gru"].cell, input_size=size, backend="fused").inside
        for size in (INSIDE, OUTSIDE)
    )
    assert inside == (jax.default_backend() == "cpu")
    assert not outside


# ---- a gate's own derivative ----------------------------------------------------------------------


@with_a_tangent
def test_a_stated_tangent_is_the_gate_s(name):
    """`tangent` is the derivative of `forward`, and `additive` says whether only the sum is seen."""
    case = CASES[name]
    cell, rng = case.cell, np.random.default_rng(0)
    assert isinstance(cell.gate, rr.cells.Gate)
    start = jax.eval_shape(lambda: cell.initial_state(50))
    projections = [jax.ShapeDtypeStruct((50, case.gates * HIDDEN), jnp.result_type(float))] * 2

    def normal():
        return jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.result_type(float)),
            (start, *projections),
        )

    def gate(state, x_proj, h_proj):
        return cell.gate({}, state, x_proj, h_proj)

    point, direction = normal(), normal()
    new, expected = jax.jvp(gate, point, direction)
    recorded, values = cell.gate.forward({}, *point)
    assert_close(recorded, new)
    assert_close(cell.gate.tangent(values, point[0], new, *direction), expected)
    moved = gate(point[0], point[1] + direction[1], point[2] - direction[1])
    assert np.allclose(moved.h, new.h, **tolerance(loosen=10)) == cell.gate.additive


def _mixed(leak):
    """A gate of a user's own that reads the state beside its projection, and closes over a number."""

    def gate(params, state, x_proj, h_proj):
        mixed = (1 - leak) * state.h + leak * jnp.tanh(x_proj * jnp.cos(h_proj))
        return rr.cells.HiddenState(h=mixed)

    return gate


@pytest.mark.slow
@either
def test_a_gate_that_was_replaced_is_the_one_that_runs(backend):
    """Whatever the name of the cell: its value and its gradient are those of the new gate, and nothing is known."""
    for made in (rr.cells.elman(HIDDEN), rr.cells.irnn(HIDDEN)):
        cell = made._replace(gate=_mixed(0.3))
        given = draw(CASES["elman_tanh"], but=("mask",))
        _, states = unroll(cell, **given, backend=backend)
        W_xh, W_hh, b_h = (given["params"][name] for name in ("W_xh", "W_hh", "b_h"))
        h = np.asarray(given["state"].h, float)
        for t in range(LONG):
            x_proj = np.asarray(given["xs"][t] @ W_xh + b_h, float)
            h_proj = np.asarray((h * given["recurrent_mask"]) @ W_hh, float)
            h = 0.7 * h + 0.3 * np.tanh(x_proj * np.cos(h_proj)) + given["perturbations"][t]
            assert_close(states.h[t], np.asarray(h), loosen=10)
        assert cell.facts == rr.cells.Facts()
    gradients = [jax.grad(wave)(given, cell, backend=one) for one in (backend, "scan")]
    assert_close(*gradients, loosen=10)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["gate", "activation", "stated slope"])
def test_numbers_that_a_gate_closes_over_have_their_derivative(where):
    """As in a network that is a function of hyper: the leak or the gain of an activation is traced."""
    given = draw(CASES["elman_tanh"])

    def cell_of(number):
        if where == "gate":
            return rr.cells.elman(HIDDEN)._replace(gate=_mixed(number))
        phi = rr.cells.Activation("steep", lambda z: jnp.tanh(number * z))
        if where == "stated slope":
            phi = phi._replace(slope=lambda y: number * (1 - y * y))
        return rr.cells.elman(HIDDEN, activation=phi)

    def value(number, backend):
        return wave(given, cell_of(number), backend=backend)

    number = jnp.asarray(0.4, jnp.result_type(float))
    for derivative in (jax.grad, jax.jacfwd, lambda f: jax.jacfwd(jax.grad(f))):
        got, expected = (derivative(value)(number, backend) for backend in ("fused", "scan"))
        assert_close(got, expected, loosen=100)  # of sums over all steps, units and rows


def test_a_gate_with_a_custom_gradient_runs_fused():
    """A spike with a surrogate slope, which has no forward mode of its own."""

    @jax.custom_vjp
    def spike(z):
        return (z > 0).astype(z.dtype)

    spike.defvjp(lambda z: (spike(z), z), lambda z, g: (g / (1 + jnp.abs(z)) ** 2,))

    def gate(params, state, x_proj, h_proj):
        return rr.cells.HiddenState(h=0.5 * state.h + spike(x_proj + h_proj))

    cell = rr.cells.elman(HIDDEN)._replace(gate=gate)
    given, mask = split(draw(CASES["elman_tanh"]))
    got, expected = (
        jax.grad(lambda given, b=backend: wave(given, cell, mask=mask, backend=b))(given)
        for backend in ("fused", "scan")
    )
    assert_close(got, expected, loosen=10)


def test_relu_has_the_slope_of_jax_at_its_kink():
    given = jax.tree.map(jnp.zeros_like, draw(CASES["elman_relu"], but=OPTIONAL))
    gradient = jax.jit(jax.grad(wave), static_argnums=1, static_argnames="backend")
    got, expected = (
        gradient(given, CASES["elman_relu"].cell, backend=backend) for backend in ("fused", "scan")
    )
    assert_close(got, expected)


# ---- gradients ------------------------------------------------------------------------------------

# input size, steps, what is not there, direction
SCENARIOS = {
    "all": (INSIDE, LONG, (), False),
    "all_wide": (OUTSIDE, SHORT, (), True),
    "plain": (INSIDE, LONG, OPTIONAL, False),
    "plain_wide": (OUTSIDE, LONG, OPTIONAL, True),
    "masked": (INSIDE, SHORT, ("recurrent_mask", "perturbations"), True),
}
PAIRS = [("symmetric", "all")] + [("gru", scenario) for scenario in SCENARIOS]
PAIRS += [
    pytest.param(name, "all", marks=pytest.mark.slow)
    for name in ("elman_relu", "elman_identity", "elman_sigmoid", "gru_one_bias")
]
# these two see the sum of both projections alone
PAIRS += [("elman_tanh", scenario) for scenario in ("all", "plain", "masked")]
PAIRS += [("lstm", scenario) for scenario in ("all_wide", "plain")]


@functools.partial(jax.jit, static_argnums=0, static_argnames=("backend", "reverse"))
def gradient(cell, given, mask, **options):
    return jax.grad(wave)(given, cell, mask=mask, **options)


@pytest.mark.parametrize(("name", "scenario"), PAIRS)
def test_gradients_of_the_two_agree(name, scenario):
    """For parameters, inputs, the initial state, the recurrent mask and perturbations, where there are any."""
    case = CASES[name]
    input_size, steps, but, reverse = SCENARIOS[scenario]
    given, mask = split(draw(case, input_size=input_size, steps=steps, but=but))
    got, expected = (
        gradient(case.cell, given, mask, backend=backend, reverse=reverse)
        for backend in ("fused", "scan")
    )
    assert got.keys() == given.keys()
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected))
    assert_close(got, expected)


@pytest.mark.float64_only
@pytest.mark.parametrize("mode", ["fwd", "rev"])
@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, "fused") for name in CASES if name != "irnn"] + [("gru", "scan"), ("lstm", "scan")],
)
def test_derivatives_equal_finite_differences(name, backend, mode):
    """Of the first and the second order."""
    case = CASES[name]
    given, mask = split(draw(case, steps=4, batch=2))
    value = jax.jit(lambda given: wave(given, case.cell, mask=mask, backend=backend))
    # Differences over 1e-5 of values near 10 are right to 1e-10 at best, second ones to 1e-6.
    check_grads(value, (given,), order=2, modes=[mode], eps=1e-5, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@every_kind
def test_forward_mode_and_second_order_agree(case):
    given, mask = split(draw(case, batch=2))
    direction, _ = split(draw(case, batch=2, seed=1))

    @functools.partial(jax.jit, static_argnames="backend")
    def derivatives(given, direction, backend):
        def states(given):
            return unroll(case.cell, **given, mask=mask, backend=backend)

        def value(given):
            return wave(given, case.cell, mask=mask, backend=backend)

        def of_bias(bias):
            return states(given | {"params": given["params"] | {"b_h": bias}})[0]

        return {
            "jvp": jax.jvp(states, (given,), (direction,)),
            "jacfwd": jax.jacfwd(of_bias)(given["params"]["b_h"]),
            "grad of jvp": jax.grad(lambda at: jax.jvp(value, (at,), (direction,))[1])(given),
            "jvp of grad": jax.jvp(jax.grad(value), (given,), (direction,))[1],
        }

    fused, scan = (derivatives(given, direction, backend) for backend in ("fused", "scan"))
    for name in fused:
        assert_close(fused[name], scan[name])
    assert_close(fused["grad of jvp"], fused["jvp of grad"])  # the Hessian is symmetric


# ---- vmap -----------------------------------------------------------------------------------------


@every_kind
def test_lanes_with_shared_inputs_equal_a_loop(case):
    """vmap of the gradient = the gradient alone = the gradient of the sum over lanes."""
    shared, mask = split(draw(case))
    lanes = lanes_of([draw(case, seed=seed)["params"] for seed in range(LANES)])

    def loss(params):
        return wave(shared | {"params": params}, case.cell, mask=mask, backend="fused")

    each = jax.jit(jax.value_and_grad(loss))
    alone = lanes_of([each(lane_of(lanes, lane)) for lane in range(LANES)])
    assert_close(jax.jit(jax.vmap(jax.value_and_grad(loss)))(lanes), alone)
    assert_close(jax.jit(jax.grad(lambda lanes: jnp.sum(jax.vmap(loss)(lanes))))(lanes), alone[1])


@pytest.mark.slow
@every_kind
def test_three_levels_of_vmap_equal_a_loop(case):
    """Over parameters, over inputs and their masks, over initial states; each level shares the rest."""
    cases = [draw(case, seed=seed, but=("perturbations",)) for seed in range(2)]
    tables = lanes_of(cases)

    @jax.jit
    def each(params, xs, mask, recurrent_mask, state):
        given = {"params": params, "xs": xs, "state": state, "recurrent_mask": recurrent_mask}
        return jax.grad(wave)(given, case.cell, mask=mask, backend="fused")

    nested = jax.vmap(each, in_axes=(None, None, None, None, 0))
    nested = jax.vmap(nested, in_axes=(None, 0, 0, 0, None))
    nested = jax.jit(jax.vmap(nested, in_axes=(0, None, None, None, None)))
    order = ("params", "xs", "mask", "recurrent_mask", "state")
    together = nested(*(tables[name] for name in order))
    for i, j, k in np.ndindex(2, 2, 2):
        numbers = dict(zip(order, (i, j, j, j, k), strict=True))
        alone = each(*(cases[numbers[name]][name] for name in order))
        assert_close(lane_of(together, i, j, k), alone)


@pytest.mark.float32_only
@pytest.mark.slow
@every_kind
def test_updates_in_a_scan_agree(case):
    """Five updates of three lanes with shared inputs, in one program."""
    shared, mask = split(draw(case))
    lanes = lanes_of([draw(case, seed=seed)["params"] for seed in range(LANES)])

    @functools.partial(jax.jit, static_argnames="backend")
    def train(lanes, backend):
        def loss(params):
            return wave(shared | {"params": params}, case.cell, mask=mask, backend=backend)

        def update(lanes, _):
            values, grads = jax.vmap(jax.value_and_grad(loss))(lanes)
            return jax.tree.map(lambda w, g: w - 1e-2 * g, lanes, grads), values

        return jax.lax.scan(update, lanes, length=5)

    assert_close(train(lanes, "fused"), train(lanes, "scan"))
