"""Small systems that the tests of dynamics share: maps on rows, and cells and networks as maps of flat states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from conftest import SEED

import rnnreg as rr

KEY = jax.random.key(SEED)


def linear_step(W, state, x):
    """h ← h W, whatever x is."""
    del x
    return state @ W


def tanh_step(W, state, x):
    """h ← tanh(h W + x), with an input of its own size or none."""
    drive = x if x.shape[-1] else jnp.zeros_like(state)
    return jnp.tanh(state @ W + drive)


def orthogonal(size, seed=0):
    """A fixed orthogonal matrix in the precision in force."""
    Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    return jnp.asarray(Q, jnp.result_type(float))


def _cell(cell):
    def make(key):
        dtype = jnp.result_type(float)
        params = cell.init(key, 2, dtype)
        xs = jax.random.normal(jax.random.fold_in(key, 1), (2, 6, 2), dtype)
        fields = type(cell.initial_state(1, dtype))
        size = cell.hidden_size

        def flat_step(params, flat, x):
            parts = fields(*jnp.split(flat, flat.shape[1] // size, axis=1))
            return jnp.concatenate(rr.recurrence.cell_step(cell)(params, parts, x), axis=1)

        start = jnp.concatenate(cell.initial_state(2, dtype), axis=1)
        return cell, params, xs, start, flat_step

    return make


def _network(key):
    dtype = jnp.result_type(float)
    cells = [rr.cells.elman(3), rr.cells.gru(2)]
    net = rr.network(cells, 1)
    params = net.init(key, 2, dtype=dtype)
    xs = jax.random.normal(jax.random.fold_in(key, 1), (2, 6, 2), dtype)

    def flat_step(params, flat, x):
        first = rr.recurrence.cell_step(cells[0])(
            params["layer_0"], rr.cells.HiddenState(flat[:, :3]), x
        )
        second = rr.recurrence.cell_step(cells[1])(
            params["layer_1"], rr.cells.HiddenState(flat[:, 3:]), first.h
        )
        return jnp.concatenate([first.h, second.h], axis=1)

    return net, params, xs, jnp.zeros((2, 5), dtype), flat_step


def systems():
    """By name, `make(key) -> (system, params, xs [2, 6, 2], flat start [2, n], flat step)`."""
    return {
        "elman": _cell(rr.cells.elman(4)),
        "gru": _cell(rr.cells.gru(3)),
        "lstm": _cell(rr.cells.lstm(3)),
        "gru before": _cell(rr.cells.gru(3, reset="before")),
        "network": _network,
    }


@functools.cache
def autodiff_jacobians(name):
    """[B, T, n, n] ∂h_{t+1}/∂h_t of a system drawn with KEY, by `jax.jacobian` step by step."""
    _, params, xs, start, flat_step = systems()[name](KEY)

    def step(h, x):
        def advance(h):
            return flat_step(params, h[None], x[None])[0]

        return advance(h), jax.jacobian(advance)(h)

    def row(h, xs):
        return jax.lax.scan(step, h, xs)[1]

    return np.asarray(jax.jit(jax.vmap(row))(start, xs), np.float64)
