"""Cells with a gate, a loop over time in NumPy for each, and random arguments for both."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance

import rnnreg as rr
from rnnreg.recurrence import unroll
from rnnreg.recurrence.native import kernel_library

HIDDEN = 4
EPSILON = 0.1  # of layer normalisation; a small one makes a large derivative of four units
INSIDE, OUTSIDE = (
    2,
    17,
)  # input sizes on either side of what the fused recurrence projects inside its loop
SHORT, LONG = 7, 19  # steps on either side of what is written out for a cell of one gate
STATIC = ("backend", "reverse", "remat", "truncate", "precision")

# Compiled once for each set of shapes, whichever test asks first.
run = jax.jit(unroll, static_argnums=0, static_argnames=STATIC)


class Case(NamedTuple):
    """A cell, and its gate in NumPy: `gate(state, x_proj, h_proj) -> state`, both tuples that begin with h.

    With `own`, the gate has parameters of its own, which come first. A cell without a gate has `step` instead:
    `step(params, state, x_proj) -> state`.
    """

    cell: Any
    gate: Callable | None
    gates: int = 1
    recurrent: Callable = lambda params: params["W_hh"]
    own: bool = False
    step: Callable | None = None


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _elman(activation):
    return lambda state, x_proj, h_proj: (activation(x_proj + h_proj),)


def _gru(state, x_proj, h_proj):
    (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(x_proj, 3, 1), np.split(h_proj, 3, 1)
    z = sigmoid(x_z + h_z)
    return ((1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * state[0],)


def _gru_reset_before(params, state, x_proj):
    """The bias of the recurrent product is outside it, and so the reset gate is not in it."""
    h, W_hh, hidden_size = state[0], params["W_hh"], state[0].shape[1]
    x_proj = x_proj + params.get("b_hh", 0)
    gates = sigmoid(x_proj + h @ W_hh)
    r, z = gates[:, :hidden_size], gates[:, hidden_size : 2 * hidden_size]
    n = np.tanh((x_proj + (r * h) @ W_hh)[:, 2 * hidden_size :])
    return ((1 - z) * n + z * h,)


def _lstm(state, x_proj, h_proj):
    i, f, g, o = np.split(x_proj + h_proj, 4, 1)
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def _normalised(params, state, x_proj, h_proj):
    z = x_proj + h_proj
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 0.1)
    return (np.tanh(params["gain"] * z + params["shift"]),)


def _layer_normalised():
    """A user's cell: layer normalisation inside the gate, with a gain and a shift of its own."""
    plain = rr.cells.elman(HIDDEN)

    def init(key, input_size, dtype=jnp.float32):
        own = {"gain": jnp.ones(HIDDEN, dtype), "shift": jnp.zeros(HIDDEN, dtype)}
        return plain.init(key, input_size, dtype) | own

    def gate(params, state, x_proj, h_proj):
        z = x_proj + h_proj
        z = z - jnp.mean(z, axis=-1, keepdims=True)
        z = z / jnp.sqrt(jnp.mean(jnp.square(z), axis=-1, keepdims=True) + 0.1)
        gain, shift = (jnp.broadcast_to(params[name], z.shape) for name in ("gain", "shift"))
        return rr.cells.HiddenState(h=jnp.tanh(gain * z + shift))

    return plain._replace(name="layer_norm", init=init, gate=gate)


def _standardised(z):
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + EPSILON)


def _layer_norm(params, place, z):
    """What `rr.cells.layer_norm` does to the sum of a gate: b_h comes after it, and `loop` has added it before."""
    block = slice(place * HIDDEN, (place + 1) * HIDDEN)
    return params["gain"][block] * _standardised(z - params["b_h"][block]) + params["b_h"][block]


def _normalised_elman(params, state, x_proj, h_proj):
    return (np.tanh(_layer_norm(params, 0, x_proj + h_proj)),)


def _normalised_gru(params, state, x_proj, h_proj):
    (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(x_proj, 3, 1), np.split(h_proj, 3, 1)
    r = sigmoid(_layer_norm(params, 0, x_r + h_r))
    z = sigmoid(_layer_norm(params, 1, x_z + h_z))
    return ((1 - z) * np.tanh(_layer_norm(params, 2, x_n + r * h_n)) + z * state[0],)


def _normalised_lstm(params, state, x_proj, h_proj):
    sums = np.split(x_proj + h_proj, 4, 1)
    i, f, g, o = (_layer_norm(params, place, one) for place, one in enumerate(sums))
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(params["gain_c"] * _standardised(c) + params["b_c"]), c


def _softmax(z):
    z = np.exp(z - z.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)


def _softmax_cell():
    def forward(params, state, x_proj, h_proj):
        return rr.cells.HiddenState(h=jax.nn.softmax(x_proj + h_proj, axis=-1)), {}

    def tangent(values, state, new, d_state, d_x_proj, d_h_proj):
        d_z, y = d_x_proj + d_h_proj, new.h
        return rr.cells.HiddenState(h=y * (d_z - jnp.sum(y * d_z, axis=-1, keepdims=True)))

    gate = rr.cells.Gate(forward, tangent, additive=True)
    return rr.cells.elman(HIDDEN)._replace(name="softmax", gate=gate)


def _gru_without_tangent():
    made = rr.cells.gru(HIDDEN)
    return made._replace(name="plain_gru", gate=made.gate._replace(tangent=None))


def _symmetric(params):
    return (params["W_hh"] + params["W_hh"].T) / 2


def _elman_of(activation):
    return rr.cells.elman(HIDDEN, activation=activation)


def _layer_norm_of(make):
    return rr.cells.layer_norm(make(HIDDEN), epsilon=EPSILON)


CASES = {
    "elman_tanh": Case(_elman_of(jnp.tanh), _elman(np.tanh)),
    "elman_relu": Case(_elman_of(jax.nn.relu), _elman(lambda z: np.maximum(z, 0))),
    "elman_identity": Case(_elman_of(jax.nn.identity), _elman(lambda z: z)),
    "elman_sigmoid": Case(_elman_of(jax.nn.sigmoid), _elman(sigmoid)),
    # no slope is stated, so the tangent is derived
    "elman_softplus": Case(_elman_of(jax.nn.softplus), _elman(lambda z: np.logaddexp(z, 0))),
    "gru_derived": Case(_gru_without_tangent(), _gru, 3),
    "layer_norm": Case(_layer_normalised(), _normalised, own=True),
    "layer_norm_elman": Case(_layer_norm_of(rr.cells.elman), _normalised_elman, own=True),
    "layer_norm_gru": Case(_layer_norm_of(rr.cells.gru), _normalised_gru, 3, own=True),
    "layer_norm_lstm": Case(_layer_norm_of(rr.cells.lstm), _normalised_lstm, 4, own=True),
    # units that see each other, with a tangent by hand
    "softmax": Case(_softmax_cell(), lambda state, x_proj, h_proj: (_softmax(x_proj + h_proj),)),
    "irnn": Case(rr.cells.irnn(HIDDEN), _elman(lambda z: np.maximum(z, 0))),
    "gru": Case(rr.cells.gru(HIDDEN), _gru, 3),
    "gru_one_bias": Case(rr.cells.gru(HIDDEN, recurrent_bias=False), _gru, 3),
    "lstm": Case(rr.cells.lstm(HIDDEN), _lstm, 4),
    # a parametrisation of one's own, which hands over three weights
    "symmetric": Case(
        rr.cells.elman(HIDDEN)._replace(
            name="symmetric", weights=lambda p: (p["W_xh"], _symmetric(p), p["b_h"])
        ),
        _elman(np.tanh),
        recurrent=_symmetric,
    ),
}
# cells that do their own products, and so have no recurrent mask
STEPS = {
    "gru_reset_before": Case(rr.cells.gru(HIDDEN, reset="before"), None, 3, step=_gru_reset_before),
    "gru_reset_before_one_bias": Case(
        rr.cells.gru(HIDDEN, reset="before", recurrent_bias=False), None, 3, step=_gru_reset_before
    ),
}
EVERY = CASES | STEPS
# the three kinds of gate, where a property does not depend on more
KINDS = {name: CASES[name] for name in ("elman_tanh", "gru", "lstm")}
# one of each way to run natively
COMPILED = KINDS | {"gru_reset_before": STEPS["gru_reset_before"]}
# Arithmetic is tried on every case in float64, where an error shows; in float32 on one of each kind of derivative.
TRIED = CASES if jax.config.jax_enable_x64 else KINDS | {"layer_norm": CASES["layer_norm"]}


def loop(
    case,
    params,
    xs,
    state,
    *,
    mask=None,
    recurrent_mask=None,
    perturbations=None,
    holds=None,
    reverse=False,
    rounded=lambda values: values,
):
    """What `unroll` does, one step after another in float64; `rounded` is what happens to a product's operands."""
    params, xs, state = jax.tree.map(lambda leaf: np.asarray(leaf, float), (params, xs, state))
    W_xh, W_hh = rounded(params["W_xh"]), rounded(case.recurrent(params))
    state, states = tuple(state), [None] * len(xs)
    for t in reversed(range(len(xs))) if reverse else range(len(xs)):
        h = state[0] if recurrent_mask is None else state[0] * np.asarray(recurrent_mask)
        x_proj = rounded(xs[t]) @ W_xh + params["b_h"]
        h_proj = rounded(h) @ W_hh + params.get("b_hh", 0)
        if case.step is not None:
            new = case.step(params, state, x_proj)
        else:
            new = case.gate(*([params] if case.own else []), state, x_proj, h_proj)
        for field, hold in (holds or {}).items():
            place = "hc".index(field)
            kept = np.where(np.asarray(hold[t]), state[place], new[place])
            new = (*new[:place], kept, *new[place + 1 :])
        if perturbations is not None:
            new = (new[0] + np.asarray(perturbations[t]), *new[1:])
        if mask is not None:
            counts = np.asarray(mask[t], bool).reshape(len(h), -1)  # of a row, or of each unit
            new = tuple(np.where(counts, n, old) for n, old in zip(new, state, strict=True))
        state = states[t] = new
    return state, tuple(np.stack(field) for field in zip(*states, strict=True))


def draw(
    case, *, input_size=INSIDE, steps=LONG, batch=3, seed=0, radius=None, but=(), dtype=None
) -> dict[str, Any]:
    """Arguments that `unroll` takes for a cell, all but those named.

    No weight is at 0, no row has all steps, and one row has none.

    With `radius`, each gate's recurrent matrix has this spectral radius.
    """
    rng = np.random.default_rng([SEED, seed])
    dtype = jnp.result_type(float) if dtype is None else dtype

    def normal(shape):
        scale = 1 / np.sqrt(shape[0]) if len(shape) == 2 else 0.5
        return rng.normal(size=shape) * scale

    shapes = jax.eval_shape(lambda key: case.cell.init(key, input_size), jax.random.key(0))
    params = jax.tree.map(lambda leaf: normal(leaf.shape), shapes)
    if radius is not None:
        blocks = np.split(case.recurrent(params), case.gates, axis=1)
        radii = [np.abs(np.linalg.eigvals(block)).max() for block in blocks]
        params["W_hh"] *= np.repeat(radius / np.array(radii), HIDDEN)
    start = jax.eval_shape(lambda: case.cell.initial_state(batch))
    mask = (rng.random((steps, batch)) < 0.7) & (np.arange(batch) != 2)
    given = {
        "params": params,
        "xs": rng.normal(size=(steps, batch, input_size)),
        "state": jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / 2, start),
        "recurrent_mask": 2.0 * (rng.random((batch, HIDDEN)) < 0.6) + 0.1,
        "perturbations": rng.normal(size=(steps, batch, HIDDEN)) / 4,
    }
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), given) | {"mask": jnp.asarray(mask)}
    but = but if case.step is None else (*but, "recurrent_mask")
    return {name: value for name, value in given.items() if name not in but}


OPTIONAL = ("mask", "recurrent_mask", "perturbations")


def wave(given, cell, **options):
    """A smooth number that looks at every state, the last one twice."""
    leaves = jax.tree.leaves(unroll(cell, **given, **options))
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves)


def split(given):
    """What has a gradient, and the mask, which has none."""
    return {k: v for k, v in given.items() if k != "mask"}, given.get("mask")


def assert_close(got, expected, *, loosen=1.0):
    """Leaf by leaf, to the dtype's tolerance of a leaf's largest element: each element is a sum of such."""
    leaves = jax.tree.leaves(got), jax.tree.leaves(expected)
    for one, two in zip(*leaves, strict=True):
        limits = tolerance(one.dtype, loosen=loosen)
        largest = max(1.0, np.abs(two).max()) if np.size(two) else 1.0
        np.testing.assert_allclose(one, two, rtol=limits["rtol"], atol=limits["atol"] * largest)


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """A compiled program is some hundred mappings of memory, of which a Linux process may have 65 530."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def kernel():
    """The library for the dtype in force; without one skip, or fail in CI, which has a compiler."""
    found = kernel_library(jnp.result_type(float))
    if found.path is None and os.environ.get("RNNREG_REQUIRE_PEERS"):
        pytest.fail(found.reason)
    if found.path is None:
        pytest.skip(found.reason)
    return found


every_case = pytest.mark.parametrize("case", TRIED.values(), ids=TRIED.keys())
every_kind = pytest.mark.parametrize("case", KINDS.values(), ids=KINDS.keys())
either = pytest.mark.parametrize("backend", ["scan", "fused"])
with_a_tangent = pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if rr.cells.as_gate(case.cell.gate).tangent]
)
