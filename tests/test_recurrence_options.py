"""The options of the recurrence: segments, precision, which back end and why; and all of it inside networks."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance
from recurrent_cases import (
    CASES,
    HIDDEN,
    INSIDE,
    LONG,
    OPTIONAL,
    OUTSIDE,
    assert_close,
    draw,
    either,
    every_case,
    forget_programs,  # noqa: F401 - it works by being here
    loop,
    run,
    split,
    wave,
)

import rnnreg as rr
from rnnreg.recurrence import choose_backend, unroll

BATCH = 3

# ---- segments -------------------------------------------------------------------------------------

DIRECTIONS = {"onwards": False, "backwards": True}


@functools.partial(jax.jit, static_argnums=(0, 1))
def results(unroll, cell, given, mask):
    """States, and the gradient of a number that looks at them all."""

    def loss(given):
        _, states = unroll(cell, **given, mask=mask)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(states)), states

    gradient, states = jax.grad(loss, has_aux=True)(given)
    return gradient, states


# Nineteen steps: segments of one step, of some with some left over, and of all steps.
MEMORIES = [
    ("gru", "fused", "onwards", ("sqrt", 1, 19)),
    ("gru", "fused", "backwards", ("sqrt",)),
    ("lstm", "fused", "backwards", (17,)),
    ("elman_tanh", "fused", "onwards", ("sqrt",)),
    ("lstm", "scan", "onwards", ("sqrt",)),
    ("elman_tanh", "scan", "backwards", (6,)),
]


@pytest.mark.float32_only
@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.parametrize(("name", "backend", "direction", "memories"), MEMORIES)
def test_memory_changes_nothing(name, backend, direction, memories):
    case = CASES[name]
    given, mask = split(draw(case))
    options = {"backend": backend, "reverse": DIRECTIONS[direction]}
    full = results(functools.partial(unroll, **options), case.cell, given, mask)
    for remat in memories:
        run = functools.partial(unroll, remat=remat, **options)
        assert_close(results(run, case.cell, given, mask), full)


def cut_by_hand(length, reverse, cell, params, xs, state, *, mask, recurrent_mask, perturbations):
    """Segments one after another through the plain scan, with `stop_gradient` between them."""
    steps, parts = len(xs), []
    for start in range(0, steps, length):
        part = slice(start, start + length)
        if reverse:
            part = slice(max(steps - start - length, 0), steps - start)
        state, states = unroll(
            cell,
            params,
            xs[part],
            jax.lax.stop_gradient(state) if start else state,
            mask=mask[part],
            recurrent_mask=recurrent_mask,
            perturbations=perturbations[part],
            reverse=reverse,
            backend="scan",
        )
        parts.insert(0 if reverse else len(parts), states)
    return state, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


TRUNCATIONS = [
    ("gru", "fused", "onwards", 8, "full"),
    ("lstm", "scan", "backwards", 6, "full"),
    ("elman_tanh", "fused", "backwards", 7, "sqrt"),
]


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.parametrize(("name", "backend", "direction", "steps", "remat"), TRUNCATIONS)
def test_truncation_equals_one_by_hand(name, backend, direction, steps, remat):
    case, reverse = CASES[name], DIRECTIONS[direction]
    given, mask = split(draw(case, steps=steps))
    run = functools.partial(unroll, backend=backend, reverse=reverse, remat=remat)
    by_hand = results(functools.partial(cut_by_hand, 3, reverse), case.cell, given, mask)
    cut = results(functools.partial(run, truncate=3), case.cell, given, mask)
    assert_close(cut, by_hand)


@pytest.mark.numerics
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_truncated_gradient_stays_in_its_segment(direction):
    """∂/∂(initial state) of each h_t: zero beyond the first segment."""
    case, reverse = CASES["elman_tanh"], DIRECTIONS[direction]
    given = draw(case, steps=5, but=OPTIONAL)

    @functools.partial(jax.jit, static_argnames="truncate")
    def reach(given, truncate):
        def sums(state):
            arguments = given | {"state": state}
            _, states = unroll(case.cell, **arguments, reverse=reverse, truncate=truncate)
            return jnp.sum(states.h, axis=(1, 2))

        return jax.jacrev(sums)(given["state"]).h[:: -1 if reverse else 1]

    cut, whole = reach(given, 2), reach(given, None)
    np.testing.assert_array_equal(cut[2:], 0)
    assert_close(cut[:2], whole[:2])
    assert np.abs(whole[2:]).max() > 0


@either
def test_segments_longer_than_the_sequence_make_the_same_program(backend):
    case = CASES["lstm"]
    given, mask = split(draw(case))

    def program(**options):
        def gradient(given):
            return jax.grad(wave)(given, case.cell, mask=mask, backend=backend, **options)

        return str(jax.make_jaxpr(gradient)(given))

    assert program(truncate=19) == program(truncate=25) == program()
    assert program(remat=19) == program(remat=25) != program()
    assert program(truncate=25, remat="sqrt") == program(remat="sqrt") == program(remat=5)


# ---- precision ------------------------------------------------------------------------------------


def to_bfloat16(values):
    return np.asarray(jnp.asarray(values, jnp.float32).astype(jnp.bfloat16), float)


@pytest.mark.slow
@either
@every_case
def test_bfloat16_rounds_the_operands_of_both_products_and_nothing_else(case, backend):
    """One step, since what rounds to another neighbour in the first may differ by 1/256 in the second."""
    for input_size in (INSIDE, OUTSIDE):
        given = draw(case, steps=1, input_size=input_size, dtype=jnp.float32)
        got = run(case.cell, **given, backend=backend, precision="bfloat16")
        assert_close(got, loop(case, **given, rounded=to_bfloat16))
        assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"), [("elman_tanh", "scan"), ("gru", "fused"), ("lstm", "fused")]
)
def test_bfloat16_moves_values_and_gradients_a_little(name, backend):
    case = CASES[name]
    given, mask = split(draw(case, dtype=jnp.float32))

    @functools.partial(jax.jit, static_argnames="precision")
    def both(given, precision):
        options = {"mask": mask, "backend": backend, "precision": precision}
        return unroll(case.cell, **given, **options), jax.grad(wave)(given, case.cell, **options)

    leaves = [jax.tree.leaves(both(given, name)) for name in ("bfloat16", "highest")]
    for one, two in zip(*leaves, strict=True):
        assert one.dtype == two.dtype == jnp.float32
        distance = np.abs(one - two).max() / np.abs(two).max()
        assert 1e-5 < distance < 3e-2  # an operand is rounded by up to 2⁻⁹ = 2e-3 of itself


@pytest.mark.numerics
@either
def test_on_a_cpu_highest_is_the_default(backend):
    if jax.default_backend() != "cpu":
        pytest.skip("the default of an accelerator is lower")
    case = CASES["gru"]
    given = draw(case)
    one, two = (
        run(case.cell, **given, backend=backend, precision=precision)
        for precision in (None, "highest")
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.float64_only
@pytest.mark.numerics
@either
def test_bfloat16_is_refused_in_float64(backend):
    given = draw(CASES["gru"])
    with pytest.raises(
        ValueError, match="precision='bfloat16' is for float32 networks; got float64"
    ):
        unroll(CASES["gru"].cell, **given, backend=backend, precision="bfloat16")


def test_a_network_multiplies_at_its_precision():
    """The readout too: with states that are bfloat16 numbers, its weights are all that is rounded."""
    linear = rr.cells.elman(HIDDEN, activation=jax.nn.identity)
    for precision in (None, "default", "high", "highest", "bfloat16"):
        net = rr.network([linear], 1, precision=precision)
        assert net.recurrence.precision == precision
        params = net.init(jax.random.key(0), INSIDE)
        params["layer_0"] = jax.tree.map(jnp.zeros_like, params["layer_0"])
        params["layer_0"]["b_h"] = jnp.ones(HIDDEN, params["layer_0"]["b_h"].dtype)
        W_hy = np.asarray(params["readout"]["W_hy"])
        expected = to_bfloat16(W_hy) if precision == "bfloat16" else W_hy
        if precision == "bfloat16" and W_hy.dtype == np.float64:
            continue
        outputs = net.apply(params, jnp.zeros((1, 1, INSIDE))).outputs
        np.testing.assert_allclose(outputs[0, 0], expected.sum(axis=0), **tolerance())


# ---- which one, and messages ----------------------------------------------------------------------

SOFTPLUS = rr.cells.elman(HIDDEN, activation=jax.nn.softplus)
BEFORE = rr.cells.gru(HIDDEN, reset="before")
OWN = rr.cells.from_step(lambda p, s, x: s, init=BEFORE.init, hidden_size=HIDDEN, name="my_own")


class Counted(NamedTuple):
    h: jax.Array
    steps: jax.Array


COUNTING = rr.cells.elman(HIDDEN)._replace(
    name="counting",
    initial_state=lambda rows, dtype=jnp.float32: Counted(
        jnp.zeros((rows, HIDDEN), dtype), jnp.zeros(rows, jnp.int32)
    ),
    gate=lambda params, state, x_proj, h_proj: Counted(jnp.tanh(x_proj + h_proj), state.steps + 1),
)
REFUSED = [
    (BEFORE, "gru_reset_before does its own products"),
    (OWN, "my_own does its own products"),
    (COUNTING, "the state of counting holds numbers that are not real"),
]


@pytest.mark.parametrize(("cell", "reason"), REFUSED)
def test_fused_is_refused_with_the_reason_and_auto_falls_back(cell, reason, monkeypatch):
    monkeypatch.setenv("RNNREG_NATIVE", "0")
    message = f"backend='fused' cannot run this cell: {reason}.*Use backend='auto' or 'scan'"
    for make in (
        lambda: rr.network([rr.cells.lstm(HIDDEN), cell], 1, backend="fused"),
        lambda: rr.network([rr.layer(cell, bidirectional=True)], 1, backend="fused"),
        lambda: choose_backend(cell, input_size=INSIDE, backend="fused"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    choice = rr.explain(rr.network([cell], 1), input_size=INSIDE)["layer_0"]
    assert choice.backend == "scan"
    assert not choice.inside


BAD = [
    ({"backend": "cuda"}, "backend must be 'auto', 'scan', 'fused' or 'native'; got 'cuda'"),
    ({"remat": 0}, "remat must be 'full', 'sqrt' or a positive number of steps.*got 0"),
    ({"remat": "half"}, "remat must be 'full', 'sqrt' or a positive.*got 'half'"),
    ({"remat": True}, "remat must be .*got True"),
    ({"truncate": 0}, "truncate must be at least 1, a whole number; got 0. .* None does not cut"),
    ({"truncate": 2.5}, "truncate must be .*got 2.5"),
    ({"projection": "out"}, "projection must be 'auto', 'inside' or 'before'; got 'out'"),
    ({"precision": "low"}, "precision must be None, 'default', .* or 'bfloat16'; got 'low'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rr.network([rr.cells.gru(HIDDEN)], 1, **options)
    with pytest.raises(ValueError, match=message):
        unroll(CASES["gru"].cell, **draw(CASES["gru"]), **options)


def test_explain_says_which_and_why(monkeypatch):
    monkeypatch.setenv("RNNREG_NATIVE", "0")
    if jax.default_backend() != "cpu":
        pytest.skip("accelerators project before the loop")
    layers = [rr.cells.lstm(8), BEFORE, rr.layer(rr.cells.elman(10), bidirectional=True), SOFTPLUS]
    choices = rr.explain(rr.network(layers, 1), input_size=INSIDE)
    assert {name: str(choice) for name, choice in choices.items()} == {
        "layer_0": "fused, inputs projected inside the loop: the gate states its tangent, so weight "
        "gradients are one product a sequence; RNNREG_NATIVE=0 switches the compiled kernel off",
        "layer_1": "scan, inputs projected before the loop: gru_reset_before does its own products; "
        "RNNREG_NATIVE=0 switches the compiled kernel off",
        "layer_2": "fused, inputs projected inside the loop: the gate states its tangent, so weight "
        "gradients are one product a sequence; RNNREG_NATIVE=0 switches the compiled kernel off",
        "layer_3": "fused, inputs projected before the loop: the gate's tangent is derived, so weight "
        "gradients are one product a sequence",
    }
    asked = rr.explain(rr.network(layers[:1], 1, backend="scan"), input_size=INSIDE)["layer_0"]
    assert str(asked) == "scan, inputs projected before the loop: as asked"
    # two directions of ten units are twenty inputs of the next layer
    wide = rr.explain(rr.network([layers[2], rr.cells.gru(2)], 1, backend="fused"), input_size=1)
    assert [choice.inside for choice in wide.values()] == [True, False]
    forced = rr.network([rr.cells.gru(2)], 1, projection="before")
    assert not rr.explain(forced, input_size=1)["layer_0"].inside


def test_a_network_records_its_recurrence():
    options = {"backend": "fused", "remat": 3, "truncate": 5, "precision": "highest"}
    options["projection"] = "before"
    net = rr.network([rr.cells.gru(HIDDEN)], 1, **options)
    assert net.recurrence._asdict() == options


# ---- networks -------------------------------------------------------------------------------------

LSTM = rr.cells.lstm(HIDDEN)
NETWORKS = {
    "stacked": ([LSTM, rr.cells.gru(HIDDEN)], {"initial_state": "learned"}),
    "tied": ([LSTM, rr.layer(rr.cells.elman(HIDDEN), repeat=2)], {"recurrent_dropout": 0.4}),
    "both_directions": ([rr.layer(rr.cells.gru(HIDDEN), bidirectional=True)], {"readout": "last"}),
}


@pytest.mark.numerics
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree(name):
    layers, options = NETWORKS[name]
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(BATCH, LONG, INSIDE)), jnp.result_type(float))
    mask = jnp.asarray(rng.random((BATCH, LONG)) < 0.7)
    params = rr.network(layers, 2, **options).init(jax.random.key(0), INSIDE)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), params
    )

    def results(**how):
        net = rr.network(layers, 2, **options, **how)

        def loss(params):
            out = net.apply(params, xs, mask=mask, train=True, key=jax.random.key(1))
            return jnp.sum(jnp.sin(out.outputs)), out

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    expected = results(backend="scan")
    assert_close(results(backend="fused"), expected)
    if name == "both_directions":
        assert_close(results(backend="auto", remat="sqrt"), expected)


# ---- a mask for each unit -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.parametrize("name", ["lstm", "softmax", "gru_derived"])
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_a_unit_whose_step_is_masked_holds_its_state(backend, name):
    """Zoneout: a mask `[T, B, H]` is a choice, unit by unit, between the new state and the old one."""
    cell, case = CASES[name].cell, CASES[name]
    given = draw(case, but=("mask", "recurrent_mask", "perturbations"))
    keep = jnp.asarray(np.random.default_rng(1).random((LONG, BATCH, HIDDEN)) < 0.6)
    _, states = unroll(cell, **given, mask=keep, backend=backend)
    step, old = rr.recurrence.cell_step(cell), given["state"]
    for t in range(LONG):
        new = step(given["params"], old, given["xs"][t])
        old = jax.tree.map(lambda n, o, t=t: jnp.where(keep[t], n, o), new, old)
        assert_close(jax.tree.map(lambda leaf, t=t: leaf[t], states), old, loosen=10)

    def value(params, backend):
        return wave(given | {"params": params, "mask": keep}, cell, backend=backend)

    gradients = [jax.grad(value)(given["params"], one) for one in (backend, "scan")]
    assert_close(*gradients, loosen=10)
