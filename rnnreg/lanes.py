"""Many runs at once: which way they run is a choice apart from what they mean.

On a CPU a batch axis over lanes turns each step into many small products on one core; lanes one after
another, each on a core of its own, keep their weights in cache for all steps. On an accelerator one
program over all lanes (vmap) fills the chip. `make_plan` chooses, says why, and can be overridden.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rnnreg.runtime import available_cores

__all__ = ["Plan", "Program", "lower", "make_plan", "tree_bytes"]

# A call should be long enough to hide its overhead, and short enough for a live progress bar and Ctrl-C.
_SECONDS_A_CALL = 1.0
_MAX_LANES_A_CALL = 256


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the lanes of a sweep run.

    Attributes:
      how: "one_by_one" (each device runs its lanes one after another) or "vmap" (each device runs its
        lanes together).
      width: lanes a call, over all devices; the last call is filled up with copies that are dropped.
      devices: the devices.
      num_lanes: how many lanes there are.
      reason: why, in words.
    """

    how: str
    width: int
    devices: tuple[Any, ...]
    num_lanes: int
    reason: str

    @property
    def num_calls(self) -> int:
        """How often the compiled program is called."""
        return -(-self.num_lanes // self.width)

    def __str__(self) -> str:
        kind = self.devices[0].platform if self.devices else "?"
        return (
            f"{self.num_lanes} lanes, {self.how.replace('_', ' ')} on {len(self.devices)} {kind} device(s), "
            f"{self.width} a call, {self.num_calls} call(s): {self.reason}"
        )


def make_plan(
    num_lanes: int,
    *,
    lane_seconds: float = 0.1,
    lane_bytes: int = 0,
    how: str = "auto",
    width: int | None = None,
    devices: Any = None,
) -> Plan:
    """The plan for so many lanes.

    Args:
      num_lanes: L.
      lane_seconds: estimated time of one lane on one device; sets how many run in a call.
      lane_bytes: estimated memory of one lane; caps the lanes of a vmap.
      how: "auto", "one_by_one" or "vmap".
      width: lanes a call; None chooses.
      devices: defaults to all of JAX's; see `rr.use_all_cores()`.

    Raises:
      ValueError: an unknown `how`, or a width that is not a positive multiple of the devices.

    >>> make_plan(10, how="one_by_one", width=2, devices=jax.devices()[:1]).num_calls
    5
    """
    devices = tuple(jax.devices() if devices is None else devices)
    if how not in ("auto", "one_by_one", "vmap"):
        raise ValueError(f"plan must be 'auto', 'one_by_one' or 'vmap'; got {how!r}.")
    cpu = devices[0].platform == "cpu"
    reason = "as asked"
    if how == "auto":
        how = "one_by_one" if cpu else "vmap"
        reason = (
            "on a CPU a lane alone keeps its weights in cache"
            if cpu
            else "an accelerator fills up with many lanes together"
        )
    if cpu and len(devices) == 1 and available_cores() > 1:
        reason += (
            f"; {available_cores()} cores are available: call rr.use_all_cores() first to use them"
        )
    devices = devices[: max(1, min(len(devices), num_lanes))]
    share = -(-num_lanes // len(devices))
    if width is None:
        if how == "one_by_one":
            each = max(
                1, min(share, round(_SECONDS_A_CALL / max(lane_seconds, 1e-9)), _MAX_LANES_A_CALL)
            )
        else:
            each = share
            limit = _device_bytes(devices[0])
            if lane_bytes and limit:
                each = max(1, min(each, int(0.5 * limit / lane_bytes)))
        calls = -(-share // each)
        width = -(-share // calls) * len(devices)  # spread evenly: little is filled up
    if not isinstance(width, int) or width < 1 or width % len(devices):
        raise ValueError(
            f"width must be a positive multiple of the {len(devices)} devices; got {width!r}."
        )
    return Plan(how, width, devices, num_lanes, reason)


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
        if plan.how == "vmap":
            return jax.vmap(function, in_axes=(0, None))(chunk, shared)
        return jax.lax.map(lambda lane: function(lane, shared), chunk)

    if len(plan.devices) == 1:
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
        yield numbers.reshape(-1, len(plan.devices)).T.reshape(-1)


def _device_bytes(device: Any) -> int | None:
    stats = device.memory_stats() if hasattr(device, "memory_stats") else None
    return None if not stats else stats.get("bytes_limit")


def tree_bytes(tree: Any) -> int:
    """Bytes of a tree of arrays or shapes."""
    return sum(
        math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
    )
