"""What the back ends compile to: products, carries, copies, memory, and other platforms."""

import functools

import jax
import jax.numpy as jnp
import pytest
from recurrent_cases import (
    HIDDEN,
    INSIDE,
    LONG,
    OPTIONAL,
    OUTSIDE,
    draw,
    either,
    every_case,
    every_kind,
    forget_programs,  # noqa: F401 - it works by being here
    split,
    wave,
)

import rnnreg as rr

LANES, STEPS, BATCH = 5, 23, 3

either_size = pytest.mark.parametrize("input_size", [INSIDE, OUTSIDE])


# ---- the program ----------------------------------------------------------------------------------


def equations(jaxpr, loops=()):
    """Every equation of a jaxpr and of those inside it, with the scans around it."""
    for equation in jaxpr.eqns:
        yield equation, loops
        around = (*loops, equation) if equation.primitive.name == "scan" else loops
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner, around)


def gradient_jaxpr(case, backend, *, lanes=False, but=(), steps=STEPS, input_size=INSIDE):
    """Of the gradient with respect to the parameters; with `lanes`, under vmap with all else shared."""
    given, mask = split(
        draw(case, input_size=input_size, steps=steps, batch=BATCH, dtype=jnp.float32, but=but)
    )

    def gradient(params):
        return jax.grad(
            lambda params: wave(given | {"params": params}, case.cell, mask=mask, backend=backend)
        )(params)

    if not lanes:
        return jax.make_jaxpr(gradient)(given["params"]).jaxpr
    table = jax.tree.map(lambda leaf: jnp.stack([leaf] * LANES), given["params"])
    return jax.make_jaxpr(jax.vmap(gradient))(table).jaxpr


def backward_loop(jaxpr):
    """The one scan that runs backwards, its products, and the shapes that it carries."""
    (found,) = [
        equation
        for equation, _ in equations(jaxpr)
        if equation.primitive.name == "scan" and equation.params["reverse"]
    ]
    inside = [
        equation
        for equation, loops in equations(jaxpr)
        if equation.primitive.name == "dot_general" and found in loops
    ]
    first = found.params["num_consts"]
    carried = found.invars[first : first + found.params["num_carry"]]
    return inside, [variable.aval.shape for variable in carried]


def is_recurrent_weight(shape, case, *, joined_with=None):
    """Whether an array has the sides H (or H + D + 1) and G·H, after axes of lanes."""
    sides = {HIDDEN} if joined_with is None else {HIDDEN, HIDDEN + joined_with + 1}
    wide = case.gates * HIDDEN
    return any(sorted(shape[-2:]) == sorted((side, wide)) for side in sides)


@pytest.mark.parametrize("lanes", [False, True], ids=["alone", "lanes"])
@pytest.mark.parametrize("but", [(), OPTIONAL], ids=["all", "plain"])
@either_size
@every_case
def test_the_fused_backward_loop_has_one_product_and_carries_no_matrix(
    case, input_size, but, lanes
):
    jaxpr = gradient_jaxpr(case, "fused", lanes=lanes, but=but, input_size=input_size)
    loops = [e for e, _ in equations(jaxpr) if e.primitive.name == "scan"]
    assert len(loops) == 2  # no third one, which would store derivatives beside the activations
    inside, carried = backward_loop(jaxpr)
    assert len(inside) == 1
    own = {(HIDDEN,)} if case.own else set()  # a gain and a shift, summed up step by step
    if lanes:
        own = {(LANES, *shape) for shape in own}
    assert {shape if shape in own else shape[-2:] for shape in carried} == {(BATCH, HIDDEN), *own}
    outside = [
        equation.outvars[0].aval.shape
        for equation, loops in equations(jaxpr)
        if equation.primitive.name == "dot_general" and not loops
    ]
    weights = [s for s in outside if is_recurrent_weight(s, case, joined_with=input_size)]
    assert len(weights) == 1


@every_case
def test_the_plain_backward_loop_carries_the_matrix(case):
    """So that the test above can fail."""
    inside, carried = backward_loop(gradient_jaxpr(case, "scan"))
    assert len(inside) == 2
    assert any(is_recurrent_weight(shape, case) for shape in carried)


@either
@every_case
def test_the_program_does_not_grow_with_the_sequence(case, backend):
    """Once it is too long to be written out."""
    lines = []
    for steps in (LONG, 1000):
        given, mask = split(draw(case, steps=steps))
        gradient = jax.jit(
            lambda given: jax.grad(wave)(given, case.cell, mask=mask, backend=backend)
        )
        lines.append(gradient.lower(given).as_text().count("\n"))
    assert lines[0] == lines[1]


@either
@either_size
@every_case
def test_shared_inputs_are_not_copied_to_lanes(case, input_size, backend, request):
    if backend == "fused" and input_size == INSIDE and rr.cells.as_gate(case.cell.gate).additive:
        request.applymarker(
            pytest.mark.xfail(reason="joined to the states of each lane, for one product of all")
        )
    jaxpr = gradient_jaxpr(case, backend, lanes=True, input_size=input_size)
    shapes = {
        tuple(sorted(variable.aval.shape))
        for equation, _ in equations(jaxpr)
        for variable in equation.outvars
    }
    copies = [
        (LANES, STEPS, BATCH, input_size),
        (LANES, STEPS * BATCH, input_size),
        (LANES, BATCH, input_size),
    ]
    assert not shapes & {tuple(sorted(shape)) for shape in copies}
    assert tuple(sorted((LANES, STEPS, BATCH, HIDDEN))) in shapes  # the states are there


@pytest.mark.slow
@either
@every_kind
def test_segments_need_less_memory(case, backend):
    """With k = √T the steps inside segments leave nothing: states and their cotangents are what is left."""
    steps, batch, hidden_size = 400, 8, 32
    make = {"elman": rr.cells.elman, "gru": rr.cells.gru, "lstm": rr.cells.lstm}[case.cell.name]
    cell = make(hidden_size)
    params, xs = cell.init(jax.random.key(0), INSIDE), jnp.ones((steps, batch, INSIDE))
    given = {"params": params, "xs": xs, "state": cell.initial_state(batch, xs.dtype)}

    @functools.partial(jax.jit, static_argnames="remat")
    def gradient(given, remat):
        return jax.grad(wave)(given, cell, backend=backend, remat=remat)["params"]

    def size(memory):
        """In units of all states."""
        compiled = gradient.lower(given, memory).compile()
        unit = steps * sum(leaf.nbytes for leaf in jax.tree.leaves(given["state"]))
        return compiled.memory_analysis().temp_size_in_bytes / unit

    full, root = size("full"), size("sqrt")
    assert root < 2.5
    # an Elman network stores little else than states
    assert full > (1.8 if case.cell.name == "elman" else 2.5) * root


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@every_case
def test_lowers_for_accelerators(case, platform):
    given, mask = split(draw(case, dtype=jnp.float32))
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * LANES), given["params"])

    @functools.partial(jax.jit, static_argnames=("remat", "precision"))
    def gradients(params, **options):
        def loss(params):
            given_here = given | {"params": params}
            return wave(given_here, case.cell, mask=mask, backend="fused", **options)

        return jax.vmap(jax.value_and_grad(loss))(params)

    for options in ({}, {"remat": "sqrt", "precision": "bfloat16"}):
        traced = gradients.trace(params, **options)
        assert traced.lower(lowering_platforms=(platform,)).as_text()
