"""How fast lanes run on a device, alone and together: shipped figures, and how to measure one's own."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg.runtime import available_cores, cache_folder

# 1e9 operations a second of one core by hidden size and by lanes together: value and gradient of the fused Elman
# network, B = 32, T = 100, D = 2, two x86-64 cores with AVX2, jax 0.10.2.
_SHIPPED: dict[int, dict[int, float]] = {
    16: {1: 12.0, 4: 9.0},
    32: {1: 29.0, 4: 16.0},
    64: {1: 50.0, 4: 20.0},
    128: {1: 69.0, 4: 28.0},
}


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Measured rates of a device.

    Attributes:
      rates: by hidden size, by lanes together, 1e9 operations a second of one device (a multiplication and an
        addition are two).
      source: where they come from, in words.
    """

    rates: dict[int, dict[int, float]]
    source: str

    def best_chunk(self, hidden_size: int, *, least: int = 1) -> int:
        """The number of lanes together that ran fastest at the nearest hidden size (on a log axis)."""
        nearest = min(self.rates, key=lambda size: abs(np.log(size / hidden_size)))
        rates = self.rates[nearest]
        able = {chunk: rate for chunk, rate in rates.items() if chunk >= least}
        return max(able, key=lambda chunk: able[chunk]) if able else least

    def rate(self, hidden_size: int) -> float:
        """1e9 operations a second at a hidden size, with the best number of lanes together."""
        sizes = sorted(self.rates)
        best = [max(self.rates[size].values()) for size in sizes]
        low = min(1.0, hidden_size / sizes[0])  # smaller steps are bound by overhead
        return low * float(np.interp(hidden_size, sizes, best))


def load_calibration(device: Any = None) -> Calibration:
    """The rates that were stored for a device by `calibrate`, else those that ship.

    Args:
      device: defaults to JAX's first.

    >>> load_calibration().rate(32) > 0
    True
    """
    path = _path(jax.devices()[0] if device is None else device)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rates = {
            int(h): {int(c): float(r) for c, r in by.items()} for h, by in stored["rates"].items()
        }
        if rates and all(rates.values()):
            return Calibration(rates, "measured on this device")
        raise ValueError("no rates in it")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(
            f"the calibration {path} cannot be read ({error}); the shipped one is used. rr.lanes.calibrate() "
            "writes it anew.",
            RuntimeWarning,
            stacklevel=2,
        )
    return Calibration(_SHIPPED, "shipped figures; rr.lanes.calibrate() measures this device")


def calibrate(
    *,
    sizes: Sequence[int] = (8, 16, 32, 64, 128),
    chunks: Sequence[int] = (1, 2, 4, 8),
    rounds: int = 5,
    store: bool = True,
) -> Calibration:
    """Measures how fast lanes run on this device, alone and together, and stores it for later plans.

    Value and gradient of an Elman network, B = 32, T = 100, D = 2, on one device, each number of lanes
    together in turn and the whole repeated `rounds` times; about a minute. Let nothing else run meanwhile.

    Args:
      sizes: hidden sizes.
      chunks: numbers of lanes together.
      rounds: how often each is timed; the median counts.
      store: keep it in the cache folder, where `make_plan` finds it.

    Returns:
      The rates.

    >>> calibrate(sizes=[4], chunks=[1, 2], rounds=1, store=False).rates[4].keys()
    dict_keys([1, 2])
    """
    rates = {size: _measure(size, chunks, rounds) for size in sizes}
    measured = Calibration(rates, "measured on this device")
    if store:
        path = _path(jax.devices()[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"rates": rates}, indent=1) + "\n", encoding="utf-8")
    return measured


def _measure(hidden_size: int, chunks: Sequence[int], rounds: int) -> dict[int, float]:
    """Rates by number of lanes together, interleaved."""
    from rnnreg.cells import elman
    from rnnreg.network import network

    batch, steps, inputs, lanes = 32, 100, 2, 2 * max(chunks)
    net = network([elman(hidden_size)], output_size=1)
    xs = jnp.ones((batch, steps, inputs))
    keys = jax.random.split(jax.random.key(0), lanes)
    params = jax.vmap(lambda key: net.init(key, inputs))(keys)

    def value_and_gradient(params):
        return jax.value_and_grad(lambda params: jnp.mean(net.apply(params, xs).outputs ** 2))(
            params
        )

    def program(chunk):
        size = chunk if chunk > 1 else None
        return jax.jit(lambda params: jax.lax.map(value_and_gradient, params, batch_size=size))

    programs = {chunk: program(chunk) for chunk in chunks}
    for run in programs.values():
        jax.block_until_ready(run(params))
    seconds: dict[int, list[float]] = {chunk: [] for chunk in chunks}
    for _ in range(rounds):
        for chunk, run in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(params))
            seconds[chunk].append(time.perf_counter() - start)
    per_row = hidden_size * (hidden_size + inputs + 1)
    operations = 6.0 * lanes * batch * steps * per_row
    return {chunk: operations / statistics.median(s) / 1e9 for chunk, s in seconds.items()}


def _path(device: Any) -> Path:
    kind = "".join(c if c.isalnum() else "-" for c in device.device_kind.lower())
    return (
        cache_folder() / "calibration" / f"{device.platform}-{kind}-{available_cores()}-cores.json"
    )
