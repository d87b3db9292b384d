"""No batch goes to LAPACK: batched kernels of jaxlib wait for threads of the pool that they run on, and may hang."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest
from test_runtime import python

import rnnreg as rr
from rnnreg._linalg import each

DECOMPOSITIONS = {
    "lu",
    "svd",
    "qr",
    "geqrf",
    "householder_product",
    "eigh",
    "eig",
    "cholesky",
    "triangular_solve",
}
P, C, M = rr.penalties, rr.constraints, rr.parametrizations


def batched(jaxpr):
    """The decompositions of more than one matrix in a program and all that it calls."""
    found = []
    for equation in jaxpr.eqns:
        shape = getattr(equation.invars[0], "aval", None) if equation.invars else None
        if equation.primitive.name in DECOMPOSITIONS and math.prod(shape.shape[:-2]) > 1:
            found.append((equation.primitive.name, shape.shape))
        for part in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        ):
            part = getattr(part, "jaxpr", part)
            found += batched(part) if hasattr(part, "eqns") else []
    return found


def program(cell, *, penalty=None, optimizer=None, proximal=False):
    net = rr.network([cell], 1)
    penalties = {} if penalty is None else {"lam": penalty}
    train = rr.make_train(
        net,
        loss=rr.losses.squared_error(),
        penalties=penalties,
        optimizer=optimizer or optax.sgd(0.1),
        num_epochs=1,
        proximal=proximal,
    )
    data = rr.Batch(jnp.ones((2, 3, 1)), jnp.ones((2, 3, 1)))
    hyper = {"lam": 0.1} if penalties else {}
    return jax.make_jaxpr(lambda key: train(hyper, data, key=key))(jax.random.key(0)).jaxpr


@pytest.mark.parametrize("cell", [
    lambda: rr.cells.gru(4),
    lambda: M.orthogonal(rr.cells.gru(4)),
    lambda: M.orthogonal(rr.cells.lstm(4), method="cayley", start="henaff"),
    lambda: M.singular_margin(rr.cells.elman(4), 0.1),
    lambda: M.low_rank(rr.cells.gru(4), 2),
    lambda: M.antisymmetric(rr.cells.gru(4)),
])  # fmt: skip
def test_a_run_of_any_cell_decomposes_one_matrix_at_a_time(cell):
    assert not batched(program(cell()))


@pytest.mark.parametrize("penalty", [
    P.nuclear, P.spectral_norm, P.soft_orthogonality, lambda: P.singular_value_margin(0.1), P.non_normal,
    lambda: P.gradient_flossing(2),
])  # fmt: skip
def test_a_run_of_any_penalty_does_too(penalty):
    assert not batched(program(rr.cells.gru(4), penalty=penalty()))


def test_proximal_steps_and_constraints_do_too():
    assert not batched(program(rr.cells.gru(4), penalty=P.nuclear(), proximal=True))
    for constraint in (C.orthogonal(), C.spectral_ball(1.0)):
        optimizer = optax.chain(optax.sgd(0.1), constraint)
        assert not batched(program(rr.cells.gru(4), optimizer=optimizer))


def test_the_search_finds_a_batch():
    """What the tests above look for is there where a batch is."""
    stack = jnp.ones((2, 3, 3))
    assert batched(jax.make_jaxpr(jnp.linalg.inv)(stack).jaxpr)
    assert batched(
        jax.make_jaxpr(jax.vmap(jax.grad(lambda W: jnp.linalg.svd(W)[1].sum())))(stack).jaxpr
    )
    assert not batched(jax.make_jaxpr(lambda W: each(jnp.linalg.inv, W))(stack).jaxpr)


LANES = """
import jax, jax.numpy as jnp, optax
import rnnreg as rr
{start}
def values(net, params, batch):
    return jnp.linalg.svd(jnp.stack([params["layer_0"]["W_hh"]] * 4), compute_uv=False)

train = rr.make_train(rr.network([{cell}], 1), loss=rr.losses.squared_error(), optimizer=optax.sgd(0.01),
    num_epochs=40, record_every=1, track={track})
data = rr.Batch(jnp.ones((2, 3, 1)), jnp.ones((2, 3, 1)))
result = rr.sweep(train, {{}}, data, seeds=4, key=jax.random.key(0), progress=False)
print(result.metrics.finished.all().item(), len(jax.devices()))
"""
MARGIN = "rr.parametrizations.singular_margin(rr.cells.elman(64), 0.01)"


@pytest.mark.slow
def test_two_lanes_of_a_parametrised_cell_end():
    """This hung on two cores: the rotations of a margin were started two at a time."""
    out, _ = python(LANES.format(start="", cell=MARGIN, track="{}"), JAX_NUM_CPU_DEVICES="2")
    assert out.split() == ["True", "2"]


@pytest.mark.slow
def test_two_lanes_that_track_decompositions_of_a_stack_end():
    """This hung too: a batch on each of two devices waited for a pool of two threads."""
    code = LANES.format(
        start="rr.use_all_cores(2)", cell="rr.cells.elman(64)", track="{'singular': values}"
    )
    out, _ = python(code)
    assert out.split() == ["True", "2"]
