"""How to measure how fast lanes run on one's own device."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rnnreg._checks import warn_caller
from rnnreg._signatures import typed
from rnnreg.cells import elman
from rnnreg.lanes._plan import make_plan
from rnnreg.lanes._program import Program
from rnnreg.lanes._rates import Calibration, calibration_path, store_rates
from rnnreg.networks import network


@typed
def calibrate(
    *,
    sizes: Sequence[int] = (8, 16, 32, 64, 128),
    chunks: Sequence[int] = (1, 2, 4, 8),
    rounds: int = 5,
    store: bool = True,
) -> Calibration:
    """Measures how fast lanes run on this device, alone and together, and stores it for later plans.

    Value and gradient of an Elman network, B = 32, T = 100, D = 2, each number of lanes
    together in turn and the whole repeated `rounds` times, on all of JAX's devices at once; about a minute. Call
    `rr.use_all_cores()` first, and let nothing else run meanwhile.

    Args:
      sizes: hidden sizes.
      chunks: numbers of lanes together.
      rounds: how often each is timed; the median counts.
      store: keep it in the cache folder, if there is one, where `make_plan` finds it.

    Returns:
      The rates.

    Warns:
      RuntimeWarning: they cannot be stored, and why.

    >>> calibrate(sizes=[4], chunks=[1, 2], rounds=1, store=False).rates[4].keys()
    dict_keys([1, 2])
    """
    rates = {size: _measure(size, chunks, rounds) for size in sizes}
    measured = Calibration(rates, "measured on this device")
    path = calibration_path(jax.local_devices()[0]) if store else None
    if path is not None:
        try:
            store_rates(path, rates)
        except OSError as error:
            warn_caller(
                f"the rates cannot be stored ({error}), and later plans take the shipped ones. Set XDG_CACHE_HOME to a "
                "folder that you can write, or give what calibrate() returns to rr.lanes.make_plan(calibration=…)."
            )
    return measured


def _measure(hidden_size: int, chunks: Sequence[int], rounds: int) -> dict[int, float]:
    """Rates by number of lanes together, interleaved."""
    devices = tuple(jax.local_devices())
    batch, steps, inputs, lanes = 32, 100, 2, 2 * math.lcm(*chunks) * len(devices)
    net = network([elman(hidden_size)], output_size=1)
    xs = jnp.ones((batch, steps, inputs))
    keys = jax.random.split(jax.random.key(0), lanes)
    params = jax.vmap(lambda key: net.init(key, inputs))(keys)

    def value_and_gradient(params, shared):
        del shared
        return jax.value_and_grad(lambda params: jnp.mean(net.apply(params, xs).outputs ** 2))(
            params
        )

    def program(chunk):  # every device at work, as in a sweep: chunks would use an idle core too
        plan = make_plan(lanes, plan="chunks", chunk=chunk, width=lanes, devices=devices)
        made = Program(value_and_gradient, plan, params, jnp.zeros(()))
        return lambda: made.collect(params, jnp.zeros(()))

    programs = {chunk: program(chunk) for chunk in chunks}
    for run in programs.values():
        run()
    seconds: dict[int, list[float]] = {chunk: [] for chunk in chunks}
    for _ in range(rounds):
        for chunk, run in programs.items():
            start = time.perf_counter()
            run()
            seconds[chunk].append(time.perf_counter() - start)
    per_row = hidden_size * (hidden_size + inputs + 1)
    operations = 6.0 * lanes * batch * steps * per_row / len(devices)
    return {chunk: operations / statistics.median(s) / 1e9 for chunk, s in seconds.items()}
