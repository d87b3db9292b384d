"""Dropout masks, all drawn outside the loop over time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


class Drops:
    """Inverted dropout with a fresh key for every mask; the identity without a key."""

    def __init__(self, key: Array | None, variational: bool):
        self.key, self.variational, self.count = key, variational, 0

    def mask(self, shape: tuple[int, ...], rate: Any, dtype: Any) -> Array | None:
        place, self.count = (
            self.count,
            self.count + 1,
        )  # counted even when off: no mask moves another
        if self.key is None or is_zero(rate):
            return None
        key = jax.random.fold_in(self.key, place)
        wide = jnp.float64 if dtype == jnp.float64 else jnp.float32  # bfloat16 would round the rate
        keep = 1 - jnp.asarray(rate, wide)
        keep = jnp.where((keep > 0) & (keep <= 1), keep, jnp.nan)  # a rate outside [0, 1) diverges
        kept = jax.random.uniform(key, shape, wide) < keep
        return jnp.where(kept, 1 / keep, 0 * keep).astype(dtype)

    def __call__(self, values: Array, rate: Any, *, over_time: bool = True) -> Array:
        one_mask = self.variational and over_time
        shape = (1, *values.shape[1:]) if one_mask else values.shape
        mask = self.mask(shape, rate, values.dtype)
        return values if mask is None else values * mask


def is_zero(rate: Any) -> bool:
    return isinstance(rate, (int, float)) and rate == 0
