"""Contenders timed in turn, round by round, so that what slows the machine slows all of them."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from rnnreg import runtime

MATMUL_SIZE = 2048
# Long enough that reading the clock and waking the threads do not count.
TURN_SECONDS = 0.05
# After its work a thread pool may spin a while before it sleeps; the next contender waits for that.
REST_SECONDS = 0.02


class Timing(NamedTuple):
    """Seconds of one call over the rounds.

    Attributes:
      median: of the rounds.
      low: lower quartile.
      high: upper quartile.
    """

    median: float
    low: float
    high: float


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    turn_seconds: float | None = None,
    rest_seconds: float | None = None,
) -> dict[str, Timing]:
    """Time each call once a round, in turn; every second round goes backwards.

    Before the rounds each is called twice: the first call may compile, the second says how often
    the call is repeated, so that a turn lasts `turn_seconds`. Garbage is collected between turns only.

    Args:
      calls: by name; a call returns once its work is done.
      rounds: turns of each.
      turn_seconds: a turn repeats its call until about so long has passed; None for `TURN_SECONDS`.
      rest_seconds: pause before each turn; None for `REST_SECONDS`.

    >>> sorted(interleave({"a": lambda: None, "b": lambda: None}, 3, turn_seconds=0, rest_seconds=0))
    ['a', 'b']
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1; got {rounds}.")
    turn_seconds = TURN_SECONDS if turn_seconds is None else turn_seconds
    rest_seconds = REST_SECONDS if rest_seconds is None else rest_seconds
    repeats = {}
    for name, call in calls.items():
        call()
        once = _seconds(call, 1)
        repeats[name] = max(1, math.ceil(turn_seconds / max(once, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with _no_collector():
        for turn in range(rounds):
            for name in list(calls)[:: -1 if turn % 2 else 1]:
                gc.collect()
                time.sleep(rest_seconds)
                seconds[name].append(_seconds(calls[name], repeats[name]))
    return {name: quartiles(values) for name, values in seconds.items()}


def quartiles(values: Sequence[float] | np.ndarray) -> Timing:
    """Median and quartiles.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    Timing(median=3.0, low=2.0, high=4.0)
    """
    return Timing(*(float(q) for q in np.quantile(values, (0.5, 0.25, 0.75))))


def faster(calls: Mapping[str, Callable[[], Any]], *, trials: int = 3) -> str:
    """The name of the call whose best of a few trials is the shortest, after one that does not count."""
    if len(calls) == 1:
        return next(iter(calls))
    for call in calls.values():
        call()
    best = dict.fromkeys(calls, math.inf)
    with _no_collector():
        for _ in range(trials):
            for name, call in calls.items():
                time.sleep(REST_SECONDS)
                best[name] = min(best[name], _seconds(call, 1))
    return min(best, key=lambda name: best[name])


def matmul() -> Callable[[], Any]:
    """A call that multiplies two float32 matrices of 2048 × 2048 in JAX."""
    shape = (MATMUL_SIZE, MATMUL_SIZE)
    a, b = (jax.random.normal(jax.random.key(seed), shape, jnp.float32) for seed in (0, 1))
    product = jax.jit(jnp.matmul)
    return lambda: product(a, b).block_until_ready()


def matmul_flops() -> float:
    """Floating-point operations of that product."""
    return 2.0 * MATMUL_SIZE**3


def machine(packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """`rr.environment()` with the name of the processor and the versions of further packages."""
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {**rr.environment(), "cpu": runtime.cpu_model(), **versions}


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Without the garbage collector; what exists already is set aside, so that a collection by hand is quick."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    """Mean over so many calls in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
