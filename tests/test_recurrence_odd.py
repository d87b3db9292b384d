"""Sizes of 0, and numbers that are none: every back end does what the plain scan does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent_cases import (
    COMPILED,
    OPTIONAL,
    draw,
    forget_programs,  # noqa: F401 - it works by being here
    kernel,  # noqa: F401 - as this does
)
from recurrent_cases import EVERY as CASES

from rnnreg.recurrence import unroll

pytestmark = pytest.mark.numerics
ABLE = {name: case for name, case in CASES.items() if case.cell.facts.native is not None}


@pytest.mark.parametrize(
    ("steps", "batch", "input_size"), [(0, 2, 2), (4, 0, 2), (20, 2, 0), (0, 0, 0)]
)
@pytest.mark.parametrize(
    "cell",
    [case.cell for case in COMPILED.values()],
    ids=lambda cell: cell.name,
)
def test_no_steps_rows_or_inputs_have_zero_gradients(cell, steps, batch, input_size):
    """Of the same shapes with every back end; without a step the last state is the one that it starts from."""
    dtype = jnp.result_type(float)
    start = jax.tree.map(lambda leaf: leaf + 0.5, cell.initial_state(batch, dtype))
    params = cell.init(jax.random.key(0), 1, dtype)
    params["W_xh"] = jnp.zeros((input_size, params["W_hh"].shape[1]))
    xs = jnp.zeros((steps, batch, input_size))

    def value(arguments, backend):
        params, xs, state = arguments
        final, states = unroll(cell, params, xs, state, backend=backend, reverse=True, remat=3)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves((final, states))), final

    found = {
        backend: jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)(
            (params, xs, start), backend
        )
        for backend in ("scan", "auto", *(["fused"] if cell.gate else []))
    }
    for one in found.values():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, found["scan"]
        )
        assert jax.tree.map(jnp.shape, one[1][0]) == jax.tree.map(jnp.shape, params)
        if steps == 0:
            jax.tree.map(np.testing.assert_array_equal, one[0][1], start)
        if steps == 0 or batch == 0:
            assert not any(leaf.any() for leaf in jax.tree.leaves(one[1][0]))


@pytest.mark.parametrize("backend", ["native", "fused"])
def test_nan_and_infinity_pass_back_as_in_the_plain_scan(backend):
    """Of rectified units as well: one that is off passes nothing back.

    The fused recurrence multiplies with a slope of 0 instead, which makes NaN of NaN and infinity: it has NaN wherever
    the scan has, and in units that are off beside a NaN too.
    """
    for name in ABLE:
        case = CASES[name]
        if backend == "fused" and case.cell.gate is None:
            continue
        given = draw(case, radius=0.9, input_size=3, batch=7, but=OPTIONAL)
        given["xs"] = given["xs"].at[2, 1, 0].set(jnp.nan).at[1, 3, 1].set(jnp.inf)
        given["xs"] = given["xs"].at[0, 4, 1].set(1e30)
        got, expected = (
            square_gradient(case.cell, given, backend=one) for one in (backend, "scan")
        )
        pairs = zip(*map(jax.tree.leaves, (got, expected)), strict=True)
        for one, two in pairs:
            if backend == "native" or "relu" not in case.cell.facts.native:
                np.testing.assert_array_equal(np.isnan(one), np.isnan(two), err_msg=name)
            assert not (np.isnan(two) & ~np.isnan(one)).any()


@functools.partial(jax.jit, static_argnums=0, static_argnames="backend")
def square_gradient(cell, given, backend):
    """States, and a gradient whose cotangents are NaN where a state is."""

    def value(given):
        final, states = unroll(cell, **given, backend=backend)
        total = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(final))
        return total + jnp.sum(states.h), states

    return jax.grad(value, has_aux=True)(given)
