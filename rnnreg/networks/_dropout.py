"""Dropout masks, all drawn outside the loop over time."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._linalg import wide


class Drops:
    """Inverted dropout with a fresh key for every mask; the identity without a key."""

    def __init__(self, key: Array | None, variational: bool):
        self.key, self.variational, self.count = key, variational, 0

    def mask(self, shape: tuple[int, ...], rate: Any, dtype: Any) -> Array | None:
        place = self.count
        self.count += 1  # counted even when off: no mask moves another
        if self.key is None or is_zero(rate):
            return None
        return inverted_mask(jax.random.fold_in(self.key, place), shape, rate, dtype)

    def __call__(self, values: Array, rate: Any, *, over_time: bool = True) -> Array:
        one_mask = self.variational and over_time
        shape = (1, *values.shape[1:]) if one_mask else values.shape
        mask = self.mask(shape, rate, values.dtype)
        return values if mask is None else values * mask


def inverted_mask(key: Array, shape: tuple[int, ...], rate: Any, dtype: Any) -> Array:
    """0 with probability `rate`, else 1 / (1 − rate), so that the mean is 1."""
    keep = kept_share(rate, dtype)
    kept = uniform_24_bits(key, shape).astype(keep.dtype) < keep * 2**24
    return jnp.where(kept, 1 / keep, 0 * keep).astype(dtype)


def kept_share(rate: Any, dtype: Any) -> Array:
    """1 − rate; NaN for a rate outside [0, 1), so that the run diverges."""
    keep = 1 - jnp.asarray(rate, wide(dtype))  # bfloat16 would round the rate
    return jnp.where((keep > 0) & (keep <= 1), keep, jnp.nan)


def uniform_24_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Whole numbers, uniform on 0 … 2²⁴ − 1: the index of each element mixed with two words drawn from the key.

    `jax.random.bits` hashes every element by 20 rounds of threefry, which cost half of a small network's training step.
    Here threefry draws two words, and each index passes twice through a bijection of 32 bits with little bias, keyed
    by one word each time. Good enough to drop units; not for anything that must resist an adversary.

    Source: the bijection is "lowbias32" of Wellons 2018, hash-prospector.
    """
    words = jax.random.bits(key, (2,), jnp.uint32)
    numbers = jax.lax.iota(jnp.uint32, math.prod(shape))
    for word in words:
        numbers = _mixed(numbers ^ word)
    return (numbers >> 8).astype(jnp.int32).reshape(shape)


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def is_zero(rate: Any) -> bool:
    """Whether a rate is known to be 0; a traced one is not."""
    return isinstance(rate, Real) and rate == 0
