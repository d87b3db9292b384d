"""A function of one lane, compiled once for all lanes of a plan."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rnnreg.lanes._plan import Plan


class Program:
    """A function of one lane, compiled once for all lanes of a plan.

    `function(lane, shared) -> outputs`: `lane` is a tree of one lane's values, `shared` is the same for
    all. Compiled for the first tree of shapes that it sees; values never recompile it.

    Attributes:
      plan: the plan.
      fingerprint: SHA-256 of the lowered program.
      compile_seconds: how long it took to lower and compile.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        plan: Plan,
        lanes: Any,
        shared: Any,
    ):
        self.plan = plan
        start = time.perf_counter()
        lowered = lower(function, plan, lanes, shared)
        self.fingerprint = hashlib.sha256(lowered.as_text().encode()).hexdigest()
        self._compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - start

    def run(self, lanes: Any, shared: Any) -> Iterator[tuple[np.ndarray, Any]]:
        """Yields lane numbers and their outputs (NumPy, leading lane axis), call by call."""
        for numbers in _calls(self.plan):
            true = numbers < self.plan.num_lanes
            rows = np.minimum(numbers, self.plan.num_lanes - 1)  # the last call is filled up
            chunk = jax.tree.map(lambda leaf, rows=rows: leaf[rows], lanes)
            outputs = jax.tree.map(np.asarray, self._compiled(chunk, shared))
            yield numbers[true], jax.tree.map(lambda leaf, true=true: leaf[true], outputs)

    def collect(self, lanes: Any, shared: Any) -> Any:
        """The outputs of all lanes, stacked in the order of the lanes."""
        numbers, outputs = zip(*self.run(lanes, shared), strict=True)
        order = np.argsort(np.concatenate(numbers))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *outputs)


def lower(
    function: Callable[[Any, Any], Any],
    plan: Plan,
    lanes: Any,
    shared: Any,
    *,
    platforms: tuple[str, ...] | None = None,
) -> Any:
    """The program of a plan lowered, for this machine or for any platform ("cuda", "tpu")."""
    together = _together(function, plan)
    chunk = jax.tree.map(lambda leaf: leaf[:1].repeat(plan.width, axis=0), lanes)
    traced = jax.jit(together).trace(chunk, shared)
    return traced.lower() if platforms is None else traced.lower(lowering_platforms=platforms)


def _together(function, plan: Plan):
    def on_one_device(chunk, shared):
        if plan.name == "vmap":
            return jax.vmap(function, in_axes=(0, None))(chunk, shared)
        size = plan.chunk if plan.chunk > 1 else None
        return jax.lax.map(lambda lane: function(lane, shared), chunk, batch_size=size)

    if len(plan.devices) == 1 or plan.name == "split_rows":  # the function itself uses the devices
        return on_one_device
    mesh = Mesh(np.array(plan.devices), ("lanes",))
    # check_vma=False: the check refuses scans that start from constants such as jnp.zeros
    return jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(PartitionSpec("lanes"), PartitionSpec()),
        out_specs=PartitionSpec("lanes"),
        check_vma=False,
    )


def _calls(plan: Plan) -> Iterator[np.ndarray]:
    """Lane numbers of each call, dealt to the devices in turn, so that early stops even out."""
    for call in range(plan.num_calls):
        numbers = call * plan.width + np.arange(plan.width)
        yield numbers.reshape(-1, plan.streams).T.reshape(-1)
