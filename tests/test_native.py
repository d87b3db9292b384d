"""The compiled recurrence: values and derivatives against a loop and the plain scan, lanes, where it steps aside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from recurrent_cases import (
    COMPILED,
    HIDDEN,
    INSIDE,
    LONG,
    OPTIONAL,
    OUTSIDE,
    SHORT,
    STEPS,
    assert_close,
    draw,
    forget_programs,  # noqa: F401 - it works by being here
    kernel,  # noqa: F401 - as this does
    loop,
    run,
    split,
    wave,
)
from recurrent_cases import EVERY as CASES

import rnnreg as rr
from rnnreg.recurrence import choose_backend, unroll
from rnnreg.recurrence.native import kernel_library

pytestmark = pytest.mark.numerics
ABLE = {name: case for name, case in CASES.items() if case.cell.facts.native is not None}
every_able = pytest.mark.parametrize("name", ABLE)
every_kernel = pytest.mark.parametrize("name", COMPILED)
either_way = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])


def given_of(name, **options):
    """Arguments on which an error does not grow from step to step."""
    return draw(CASES[name], radius=0.9, **options)


# ---- values and gradients -------------------------------------------------------------------------

# input size, steps, rows, what is not there
SCENES = {
    "all": (INSIDE, LONG, 3, ()),
    "plain": (INSIDE, LONG, 3, OPTIONAL),
    "masked": (INSIDE, SHORT, 1, ("recurrent_mask", "perturbations")),
    "dropped": (OUTSIDE, 1, 3, ("mask", "perturbations")),
    "many_rows": (1, 2, 101, ("recurrent_mask",)),
}


def test_the_cells_of_the_library_have_a_kernel():
    """So that the cases below are not fewer than it looks."""
    kernels = {case.cell.facts.native for case in ABLE.values()}
    assert kernels == {*COMPILED, "elman_relu", "elman_identity"}


@either_way
@pytest.mark.parametrize("scene", SCENES)
@every_able
def test_states_equal_a_loop(name, scene, reverse):
    input_size, steps, batch, but = SCENES[scene]
    given = given_of(name, input_size=input_size, steps=steps, batch=batch, but=but)
    got = run(CASES[name].cell, **given, backend="native", reverse=reverse)
    assert_close(got, loop(CASES[name], **given, reverse=reverse))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("backend", "reverse"))
def gradient(cell, given, mask, **options):
    return jax.grad(wave)(given, cell, mask=mask, **options)


@either_way
@pytest.mark.parametrize("scene", SCENES)
@every_able
def test_gradients_equal_those_of_the_plain_scan(name, scene, reverse):
    """With respect to parameters, inputs, the initial state, the recurrent mask and perturbations."""
    input_size, steps, batch, but = SCENES[scene]
    given, mask = split(given_of(name, input_size=input_size, steps=steps, batch=batch, but=but))
    got, expected = (
        gradient(CASES[name].cell, given, mask, backend=one, reverse=reverse)
        for one in ("native", "scan")
    )
    assert_close(got, expected, loosen=3)


WANTED = ("params", "xs", "state", "perturbations", "recurrent_mask")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(name, one) for name in COMPILED for one in WANTED[: 4 if name in STEPS else 5]],
)
def test_each_gradient_alone_is_the_one_among_the_others(name, wanted):
    given, mask = split(given_of(name))

    def value(part):
        return wave(given | {wanted: part}, CASES[name].cell, mask=mask, backend="native")

    together = gradient(CASES[name].cell, given, mask, backend="native")
    assert_close(jax.jit(jax.grad(value))(given[wanted]), together[wanted])


@every_kernel
def test_a_unit_whose_step_is_masked_holds_its_state(name):
    given, _ = split(given_of(name))
    keep = jax.random.bernoulli(jax.random.key(0), 0.6, (LONG, 3, HIDDEN))
    cell = CASES[name].cell
    got, expected = (run(cell, **given, mask=keep, backend=one) for one in ("native", "scan"))
    assert_close(got, expected)
    assert_close(*(gradient(cell, given, keep, backend=one) for one in ("native", "scan")))


# ---- numbers that are not plain -------------------------------------------------------------------

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -3.0, 30.0, -120.0]


@every_able
def test_nan_and_infinity_pass_as_in_the_plain_scan(name):
    case, count = CASES[name], len(SPECIAL)
    given = given_of(name, input_size=1, steps=1, batch=count, but=OPTIONAL)
    given["xs"] = jnp.asarray(SPECIAL, given["xs"].dtype).reshape(1, count, 1)
    got, expected = (
        jax.tree.leaves(run(case.cell, **given, backend=one)) for one in ("native", "scan")
    )
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_tanh_and_the_logistic_function_are_right_to_two_roundings():
    dtype = jnp.result_type(float)
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=500) * 3, rng.normal(size=99) / 1e3, [0.0, 8.9, 50.0]])
    z = z.astype(dtype)
    eps = float(jnp.finfo(dtype).eps)
    exact = z.astype(np.longdouble)
    xs, ones = jnp.asarray(z).reshape(1, -1, 1), jnp.ones((1, 1), dtype)
    none = jnp.zeros((1, 1), dtype)
    start = rr.cells.HiddenState(jnp.zeros((len(z), 1), dtype))
    elman = {"W_xh": ones, "W_hh": none, "b_h": none[0]}
    _, states = unroll(rr.cells.elman(1), elman, xs, start, backend="native")
    np.testing.assert_allclose(states.h.ravel(), np.tanh(exact), rtol=3 * eps)
    assert np.abs(states.h).max() <= 1
    # a GRU from h = 1 with a candidate of 0: its next h is its update gate
    gru = {"W_xh": jnp.hstack([none, ones, none]), "W_hh": jnp.tile(none, 3), "b_h": none[0]}
    gru["b_h"] = jnp.tile(none[0], 3)
    cell = rr.cells.gru(1, recurrent_bias=False)
    _, states = unroll(cell, gru, xs, rr.cells.HiddenState(start.h + 1), backend="native")
    np.testing.assert_allclose(states.h.ravel(), 1 / (1 + np.exp(-exact)), rtol=3 * eps)


def test_subnormal_numbers_are_those_of_the_process_again_afterwards():
    given = given_of("elman_identity", but=OPTIONAL)
    given["xs"] = given["xs"] * 1e-40
    run(CASES["elman_identity"].cell, **given, backend="native")
    tiny = np.finfo(np.float32).tiny
    assert np.float32(tiny) / np.float32(4) > 0


# ---- other derivatives ----------------------------------------------------------------------------


@every_kernel
def test_forward_mode_and_second_order_agree(name):
    case = CASES[name]
    given, mask = split(given_of(name, steps=SHORT, batch=2))
    direction, _ = split(given_of(name, steps=SHORT, batch=2, seed=1))

    @functools.partial(jax.jit, static_argnames="backend")
    def derivatives(given, direction, backend):
        def states(given):
            return unroll(case.cell, **given, mask=mask, backend=backend)

        def value(given):
            return wave(given, case.cell, mask=mask, backend=backend)

        def along(given):
            found = jax.tree.leaves(jax.grad(value)(given))
            return sum(map(jnp.vdot, found, jax.tree.leaves(direction)))

        return {
            "jvp": jax.jvp(states, (given,), (direction,)),
            "linearize": jax.linearize(value, given)[1](direction),
            "grad of jvp": jax.grad(lambda at: jax.jvp(value, (at,), (direction,))[1])(given),
            "jvp of grad": jax.jvp(jax.grad(value), (given,), (direction,))[1],
            "grad of grad": jax.grad(along)(given),
            "checkpoint": jax.grad(jax.checkpoint(value))(given),
        }

    native, scan = (derivatives(given, direction, backend) for backend in ("native", "scan"))
    for one in native:
        assert_close(native[one], scan[one], loosen=10)


@pytest.mark.float64_only
@every_able
def test_derivatives_equal_finite_differences(name):
    given, mask = split(given_of(name, steps=4, batch=2))
    value = jax.jit(lambda given: wave(given, CASES[name].cell, mask=mask, backend="native"))
    check_grads(value, (given,), order=2, modes=["rev"], eps=1e-5, atol=1e-6, rtol=1e-6)


@every_kernel
def test_segments_and_eager_calls_change_nothing(name):
    case = CASES[name]
    given, mask = split(given_of(name))
    expected = gradient(case.cell, given, mask, backend="native")
    assert_close(jax.grad(wave)(given, case.cell, mask=mask, backend="native"), expected)
    for remat in (4, "sqrt"):
        again = jax.grad(wave)(given, case.cell, mask=mask, backend="native", remat=remat)
        assert_close(again, expected)


# ---- lanes ----------------------------------------------------------------------------------------


def lanes_of(cases):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)


def lane_of(lanes, *place):
    return jax.tree.map(lambda leaf: leaf[place], lanes)


def assert_equal(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@every_kernel
def test_a_lane_beside_others_is_the_lane_alone_bit_for_bit(name):
    """Over parameters, over inputs and their masks, over initial states; each level of vmap shares the rest."""
    case = CASES[name]
    cases = [given_of(name, seed=seed, but=("perturbations",)) for seed in range(2)]
    tables = {"recurrent_mask": None} | lanes_of(cases)
    order = ("params", "xs", "mask", "recurrent_mask", "state")

    def each(params, xs, mask, recurrent_mask, state):
        given = {"params": params, "xs": xs, "state": state, "recurrent_mask": recurrent_mask}
        return jax.grad(wave)(given, case.cell, mask=mask, backend="native")

    nested = jax.vmap(each, in_axes=(None, None, None, None, 0))
    nested = jax.vmap(nested, in_axes=(None, 0, 0, 0, None))
    nested = jax.jit(jax.vmap(nested, in_axes=(0, None, None, None, None)))
    together, alone = nested(*(tables[one] for one in order)), jax.jit(each)
    for i, j, k in np.ndindex(2, 2, 2):
        numbers = dict(zip(order, (i, j, j, j, k), strict=True))
        expected = alone(*(cases[numbers[one]].get(one) for one in order))
        assert_equal(lane_of(together, i, j, k), expected)


@every_kernel
def test_the_gradient_of_a_sum_over_lanes_reaches_what_they_share(name):
    case = CASES[name]
    shared, mask = split(given_of(name))
    params = lanes_of([given_of(name, seed=seed)["params"] for seed in range(3)])

    @functools.partial(jax.jit, static_argnames="backend")
    def both(params, shared, backend):
        def total(params, shared):
            one = jax.vmap(
                lambda own: wave(shared | {"params": own}, case.cell, mask=mask, backend=backend)
            )
            return jnp.sum(one(params))

        point, direction = (params, shared), jax.tree.map(jnp.ones_like, (params, shared))
        gradients = jax.grad(total, argnums=(0, 1))(*point)
        return gradients, jax.jvp(total, point, direction)

    without = {one: value for one, value in shared.items() if one != "params"}
    got, expected = (both(params, without, backend) for backend in ("native", "scan"))
    assert_close(got, expected, loosen=10)


@pytest.mark.parametrize("name", ["gru", "gru_reset_before"])
def test_inputs_that_lanes_share_are_not_copied(name):
    given = given_of(name, but=OPTIONAL)
    params = lanes_of([given["params"]] * 5)

    def value(params):
        return wave(given | {"params": params}, CASES[name].cell, backend="native")

    text = jax.jit(jax.vmap(jax.grad(value))).lower(params).as_text()
    assert f"tensor<5x{LONG}x3x{INSIDE}x" not in text


# ---- which cells ----------------------------------------------------------------------------------


def chosen(cell, **options):
    options = {"input_size": INSIDE, "dtype": jnp.result_type(float)} | options
    return choose_backend(cell, **options)


def test_auto_takes_the_kernel_and_says_who_compiled_it():
    found = kernel_library(jnp.result_type(float))
    choice = chosen(rr.cells.gru(8))
    assert (choice.backend, choice.inside) == ("native", True)
    assert str(choice) == f"native, inputs projected inside the loop: {found.reason}"
    assert "compiled for this processor by" in found.reason


def own_gate(params, state, x_proj, h_proj):
    return rr.cells.HiddenState(h=jnp.sin(x_proj + h_proj))


TANH = rr.cells.ACTIVATIONS["tanh"]
BEFORE = rr.cells.gru(4, reset="before").step
OTHERS = {
    "another gate": rr.cells.elman(4)._replace(gate=own_gate),
    "another forward map": rr.cells.elman(4)._replace(
        gate=rr.cells.elman(4).gate._replace(forward=rr.cells.elman(4).gate.forward)
    ),
    "another tangent": rr.cells.lstm(4)._replace(
        gate=rr.cells.lstm(4).gate._replace(tangent=lambda *at: None)
    ),
    "another function of that name": rr.cells.elman(
        4, activation=rr.cells.Activation("tanh", jnp.sin)
    ),
    "another slope": rr.cells.elman(4, activation=TANH._replace(slope=jnp.ones_like)),
    "another candidate": rr.cells.gru(4, activation="relu"),
    "other gates": rr.cells.lstm(4, gate_activation="hard_sigmoid"),
    "a function without a kernel": rr.cells.elman(4, activation="sigmoid"),
    "another step": rr.cells.gru(4, reset="before")._replace(step=lambda params, state, x: state),
    "another forward map of a step": rr.cells.gru(4, reset="before")._replace(
        step=BEFORE._replace(forward=BEFORE.forward)
    ),
    "another candidate of a step": rr.cells.gru(4, reset="before", activation="relu"),
    "other gates of a step": rr.cells.gru(4, reset="before", gate_activation="hard_sigmoid"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_was_replaced_does_not_run_natively(what):
    assert chosen(OTHERS[what]).backend != "native"
    with pytest.raises(
        ValueError, match=r"backend='native' cannot run this cell: .* has no compiled"
    ):
        chosen(OTHERS[what], backend="native")
    with pytest.raises(ValueError, match="backend='native' cannot run this cell"):
        rr.network([OTHERS[what]], 1, backend="native")


def test_other_weights_run_natively():
    """The kernel takes weights as they come: a parametrisation of one's own changes nothing for it."""
    assert chosen(CASES["symmetric"].cell).backend == "native"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"precision": "bfloat16"}, "no products of bfloat16"),
        ({"dtype": jnp.bfloat16}, "arrays of float32 or of float64"),
        ({"dtype": None}, "arrays of float32 or of float64"),
        ({"projection": "before"}, "projects inputs inside its loop"),
    ],
)
def test_what_the_kernel_cannot_do_runs_fused_and_is_said(options, why):
    choice = chosen(rr.cells.elman(4), **options)
    assert choice.backend == "fused"
    assert why in choice.reason
    with pytest.raises(ValueError, match=why):
        chosen(rr.cells.elman(4), backend="native", **options)


def test_arrays_of_two_dtypes_run_as_before():
    given = given_of("elman_tanh", but=OPTIONAL)
    given["xs"] = given["xs"].astype(jnp.bfloat16)
    got, expected = (
        unroll(CASES["elman_tanh"].cell, **given, backend=one) for one in ("auto", "fused")
    )
    assert_equal(got, expected)


def test_a_run_of_training_is_the_same_with_and_without_the_kernel(key):
    batch = rr.Batch(jnp.ones((5, 4, 2)), jnp.ones((5, 1)))

    def losses(backend):
        train = rr.make_train(
            rr.network([rr.cells.lstm(3)], 1, readout="last", backend=backend),
            loss=rr.losses.squared_error(),
            optimizer=optax.adam(1e-2),
            num_epochs=5,
        )
        return train({}, batch, key=key).params

    assert_close(losses("native"), losses("scan"))


def test_the_switch_turns_it_off(monkeypatch):
    monkeypatch.setenv("RNNREG_NATIVE", "0")
    choice = chosen(rr.cells.elman(4))
    assert choice.backend == "fused"
    assert choice.reason.endswith("RNNREG_NATIVE=0 switches the compiled kernel off")
    with pytest.raises(ValueError, match="RNNREG_NATIVE=0"):
        unroll(CASES["gru"].cell, **given_of("gru"), backend="native")


@pytest.mark.parametrize("name", ["recurrent_mask", "perturbations"])
def test_arrays_that_are_broadcast_run_as_before(name):
    """The kernel reads memory by the sizes that it expects, so no other may reach it."""
    given = given_of("elman_tanh")
    given[name] = given[name][..., :1, :]
    got, expected = (
        run(CASES["elman_tanh"].cell, **given, backend=one) for one in ("native", "fused")
    )
    assert_equal(got, expected)


def test_a_step_is_given_the_parameters_that_it_reads():
    """Weights of one's own are for a gate: a step reads its leaves, and no perturbation that is broadcast."""
    case = STEPS["gru_reset_before"]
    cell = case.cell._replace(weights=lambda params: jax.tree.map(jnp.zeros_like, params))
    given = given_of("gru_reset_before")
    assert_close(run(cell, **given, backend="native"), run(case.cell, **given, backend="native"))
    given["perturbations"] = given["perturbations"][..., :1, :]
    assert_equal(*(run(case.cell, **given, backend=one) for one in ("native", "scan")))


def test_a_step_takes_no_recurrent_mask():
    given = given_of("gru_reset_before")
    given["recurrent_mask"] = jnp.ones((3, HIDDEN), given["xs"].dtype)
    with pytest.raises(ValueError, match="recurrent dropout needs a cell with a gate"):
        unroll(CASES["gru_reset_before"].cell, **given, backend="native")
