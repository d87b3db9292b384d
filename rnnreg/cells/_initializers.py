"""Initialisers of weight matrices, by name and gain.

Each factory returns `init(key, shape, dtype) -> W` for one gate block `[rows, H]`. The gain may be
traced, so that it can be an axis of a sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._linalg import wide
from rnnreg._memory import check_made
from rnnreg._signatures import Number, typed
from rnnreg.cells._contracts import DrawFunction
from rnnreg.runtime import is_traced


class Initializer(NamedTuple):
    """How one gate block of a weight matrix is drawn; calling the record draws it.

    Any function `(key, shape, dtype) -> W` serves in its place.

    Attributes:
      name: of the factory that made it.
      arguments: its arguments, pairs of name and value.
      draw: `draw(key, shape, dtype) -> W [rows, H]`.
    """

    name: str
    arguments: tuple[tuple[str, Any], ...]
    draw: DrawFunction

    def __call__(self, key: Array, shape: tuple[int, int], dtype: Any) -> Array:
        _check_drawn(key, shape, dtype)
        return self.draw(key, shape, dtype)


@typed
def orthogonal(gain: Number = 1.0) -> Initializer:
    """`gain · Q` with Q uniform over orthogonal matrices (Saxe, McClelland & Ganguli 2014).

    Args:
      gain: factor; may be traced, so that it can be an axis of a sweep.

    Returns:
      The initialiser.

    >>> W = orthogonal(0.9)(jax.random.key(0), (4, 4), jnp.float32)
    >>> bool(jnp.allclose(W @ W.T, 0.81 * jnp.eye(4), atol=1e-5))
    True
    """
    base = jax.nn.initializers.orthogonal()

    def draw(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
        drawn = base(key, shape, wide(dtype))  # no QR in bfloat16
        return _scaled(drawn, gain).astype(dtype)

    return Initializer("orthogonal", (("gain", gain),), draw)


@typed
def glorot_uniform(gain: Number = 1.0) -> Initializer:
    """Uniform on ±gain·√(6 / (fan_in + fan_out)) (Glorot & Bengio 2010).

    Args:
      gain: factor; may be traced, so that it can be an axis of a sweep.

    Returns:
      The initialiser.

    >>> W = glorot_uniform()(jax.random.key(0), (3, 3), jnp.float32)
    >>> bool(jnp.abs(W).max() <= 1)
    True
    """
    return _scaled_draw("glorot_uniform", jax.nn.initializers.glorot_uniform(), gain=gain)


@typed
def glorot_normal(gain: Number = 1.0) -> Initializer:
    """Truncated normal of variance gain²·2 / (fan_in + fan_out) (Glorot & Bengio 2010).

    Args:
      gain: factor; may be traced, so that it can be an axis of a sweep.

    Returns:
      The initialiser.

    >>> W = glorot_normal()(jax.random.key(0), (100, 100), jnp.float32)
    >>> bool(abs(W.std() - 0.1) < 0.01)
    True
    """
    return _scaled_draw("glorot_normal", jax.nn.initializers.glorot_normal(), gain=gain)


@typed
def gaussian(gain: Number = 1.0) -> Initializer:
    """Independent N(0, gain²/H) entries, H columns; its spectral radius tends to the gain (circular law).

    Args:
      gain: factor; may be traced, so that it can be an axis of a sweep.

    Returns:
      The initialiser.

    >>> W = gaussian(0.5)(jax.random.key(0), (100, 100), jnp.float32)
    >>> bool(abs(W.std() - 0.05) < 0.005)
    True
    """
    return Initializer(
        "gaussian",
        (("gain", gain),),
        lambda key, shape, dtype: _scaled(
            jax.random.normal(key, shape, dtype), gain / jnp.sqrt(shape[-1]).astype(dtype)
        ),
    )


@typed
def identity(gain: Number = 1.0) -> Initializer:
    """`gain · I`, cut or padded with zeros when it is not square (Le, Jaitly & Hinton 2015).

    Args:
      gain: factor; may be traced, so that it can be an axis of a sweep.

    Returns:
      The initialiser.

    >>> identity(0.5)(jax.random.key(0), (2, 2), jnp.float32).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    return _scaled_draw("identity", lambda _, shape, dtype: jnp.eye(*shape, dtype=dtype), gain=gain)


@typed
def normal(stddev: Number = 1.0) -> Initializer:
    """Independent N(0, stddev²) entries.

    Args:
      stddev: standard deviation; may be traced.

    Returns:
      The initialiser.

    >>> normal(0.0)(jax.random.key(0), (1, 2), jnp.float32).tolist()
    [[0.0, 0.0]]
    """
    return _scaled_draw("normal", jax.random.normal, stddev=stddev)


BY_NAME: dict[str, Callable[..., Initializer]] = {
    "orthogonal": orthogonal,
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "gaussian": gaussian,
    "identity": identity,
}


def resolve(init: str | DrawFunction, name: str = "init") -> DrawFunction:
    """An initialiser from its name (gain 1) or from itself."""
    if callable(init):
        return init
    if init not in BY_NAME:
        raise ValueError(
            f"{name} is an unknown initialiser, {init!r}; expected one of {sorted(BY_NAME)} or a function "
            "(key, shape, dtype) -> array, for example rr.cells.orthogonal(gain=0.9)."
        )
    return BY_NAME[init]()


def gate_blocks(
    init: str | DrawFunction, key: Array, rows: int, columns: int, num_gates: int, dtype: Any
) -> Array:
    """One independent block `[rows, columns]` a gate, joined on the last axis."""
    make = resolve(init)
    _check_drawn(key, (rows, num_gates * columns), dtype)
    if num_gates == 1:
        return make(key, (rows, columns), dtype)
    keys = jax.random.split(key, num_gates)
    return jnp.concatenate([make(k, (rows, columns), dtype) for k in keys], axis=-1)


def _check_drawn(key: Array, shape: tuple[int, ...], dtype: Any) -> None:
    if not is_traced(key):
        hint = "Take a smaller hidden_size or input_size."
        check_made(jax.ShapeDtypeStruct(shape, dtype), f"a matrix of shape {shape}", hint)


def _scaled_draw(name: str, draw: DrawFunction, **factor: Any) -> Initializer:
    """Draws times one factor, which is the only argument."""
    (scale,) = factor.values()
    return Initializer(
        name,
        tuple(factor.items()),
        lambda key, shape, dtype: _scaled(draw(key, shape, dtype), scale),
    )


def _scaled(values: Array, gain: Any) -> Array:
    return values * jnp.asarray(gain, values.dtype)
