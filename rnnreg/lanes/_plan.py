"""How the lanes of a sweep share a machine: the choice, and the reason for it."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from rnnreg._checks import check_count, check_number, in_units, is_count
from rnnreg._memory import free_memory
from rnnreg._signatures import typed
from rnnreg.lanes._rates import Calibration, load_calibration
from rnnreg.runtime import available_cores, checked_devices

PLANS = ("auto", "one_by_one", "chunks", "vmap", "split_rows")

# A call should be long enough to hide its overhead, and short enough for a live progress bar and Ctrl-C.
_SECONDS_A_CALL = 1.0
_MAX_LANES_A_CALL = 256


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the lanes of a sweep run.

    Attributes:
      name: "one_by_one" (each device runs its lanes one after another), "chunks" (a few together, then the
        next few), "vmap" (each device runs its lanes together) or "split_rows" (one lane at a time on all
        devices, each of which takes a share of its rows).
      width: lanes a call, over all devices; the last call is filled up with copies that are dropped.
      chunk: lanes that a device runs together.
      devices: the devices.
      num_lanes: how many lanes there are.
      reason: why, in words.
      lane_bytes: estimated memory of one lane while it runs; 0 if it is not known.
    """

    name: str
    width: int
    chunk: int
    devices: tuple[Any, ...]
    num_lanes: int
    reason: str
    lane_bytes: int = 0

    @property
    def memory(self) -> int:
        """Estimated bytes of all lanes that run at the same time; 0 if it is not known."""
        return self.lane_bytes * self.streams * self.chunk

    @property
    def num_calls(self) -> int:
        """How often the compiled program is called."""
        return -(-self.num_lanes // self.width)

    @property
    def streams(self) -> int:
        """How many lanes (or chunks of lanes) are on their way at the same time."""
        return 1 if self.name == "split_rows" else len(self.devices)

    def __str__(self) -> str:
        kind = self.devices[0].platform if self.devices else "?"
        how = f"chunks of {self.chunk}" if self.name == "chunks" else self.name.replace("_", " ")
        memory = f", about {in_units(self.memory)} at a time" if self.memory else ""
        return (
            f"{self.num_lanes} lanes, {how} on {len(self.devices)} {kind} device(s), "
            f"{self.width} a call, {self.num_calls} call(s){memory}: {self.reason}"
        )


@typed
def make_plan(
    num_lanes: int,
    *,
    lane_seconds: float = 0.1,
    lane_bytes: int = 0,
    hidden_size: int = 32,
    step_operations: float = 0.0,
    plan: str | Plan = "auto",
    width: int | None = None,
    chunk: int | None = None,
    devices: Any = None,
    calibration: Calibration | None = None,
    max_memory: int | None = None,
) -> Plan:
    """The plan for a number of lanes.

    On a CPU a batch axis over lanes turns each step into many small products on one core; lanes one after
    another, each on a core of its own, keep their weights in cache for all steps. Which number of lanes
    together is fastest at a hidden size comes from measured rates: those that ship, or those of this
    device once `rr.lanes.calibrate()` has run. On an accelerator one program over all lanes fills the chip.

    Args:
      num_lanes: L.
      lane_seconds: estimated time of one lane on one device; sets how many run in a call.
      lane_bytes: estimated memory of one lane while it runs, which caps the lanes that run at the same time: those of a
        device, and the devices; 0 if it is not known.
      hidden_size: H, of the largest recurrent layer.
      step_operations: multiplications and additions of one step's recurrent product; splitting the rows of a
        lone lane pays only if it is large. 0 never splits by itself.
      plan: "auto", "one_by_one", "chunks", "vmap" or "split_rows"; or a ready `Plan`, which is returned.
      width: lanes a call; None chooses. Far more than there are are cut.
      chunk: lanes together, for "chunks"; None chooses.
      devices: defaults to all of JAX's that belong to this process; see `rr.use_all_cores()`.
      calibration: measured rates; None takes those stored for the device, else those that ship.
      max_memory: bytes that the lanes which run at the same time may take; None takes half of what is free, on the
        devices or, on a CPU, in the machine and its control group.

    Returns:
      The plan, with its reason in words.

    Raises:
      ValueError: an unknown plan, no lane, a chunk or width that is not a positive (multiple of devices × chunk), or
        a ready plan of another number of lanes.

    >>> import jax
    >>> make_plan(10, plan="one_by_one", width=2, devices=jax.devices()[:1]).num_calls
    5
    """
    if isinstance(plan, Plan):
        return _ready(plan, num_lanes, width, chunk)
    devices = checked_devices(devices)
    _check(num_lanes, plan, chunk, max_memory)
    for name, value in (("lane_seconds", lane_seconds), ("step_operations", step_operations)):
        check_number(value, name, least=0)
    check_count(lane_bytes, "lane_bytes", least=0)
    check_count(hidden_size, "hidden_size")
    num_lanes = int(num_lanes)  # a small NumPy integer would overflow below
    chunk = None if chunk is None else int(chunk)
    reason = "as asked"
    if plan == "auto" and chunk is not None:
        plan = "chunks"
    if plan == "auto" or (plan == "chunks" and chunk is None):
        rates = calibration or load_calibration(devices[0])
        if plan == "chunks":
            chunk = rates.best_chunk(hidden_size, least=2)
            reason = f"as asked; {chunk} together ran best ({rates.source})"
        else:
            plan, chunk, reason = _choose(num_lanes, devices, rates, hidden_size, step_operations)
    reason += _idle_cores(devices)
    if plan == "split_rows":
        if width is not None and not is_count(width):
            raise ValueError(f"width must be a positive number of lanes; got {width!r}.")
        return Plan(plan, width or 1, 1, devices, num_lanes, reason, lane_bytes)
    devices = devices[: max(1, min(len(devices), num_lanes))]
    share = -(-num_lanes // len(devices))
    chunk = min(chunk or 1, share) if plan == "chunks" else 1
    if width is None:
        fit, why = _fitting(devices, lane_bytes, max_memory)  # lanes at the same time
        reason += why if fit < len(devices) * (share if plan == "vmap" else chunk) else ""
        devices = devices[:fit]
        share, each = -(-num_lanes // len(devices)), fit // len(devices)
        chunk = min(chunk, each)
        width = _even_width(
            share, min(share, each if plan == "vmap" else _most(lane_seconds)), chunk, len(devices)
        )
    elif not is_count(width) or width % (len(devices) * chunk):
        raise ValueError(_wrong_width(width, len(devices), chunk))
    else:  # many more than there are would be copies alone
        unit = len(devices) * chunk
        width = min(int(width), max(-(-num_lanes // unit), _MAX_LANES_A_CALL) * unit)
    if plan == "vmap":
        chunk = width // len(devices)
    return Plan(plan, width, chunk, devices, num_lanes, reason, lane_bytes)


def narrower(plan: Plan) -> Plan | None:
    """The plan with half of the lanes at the same time, for a device that is out of memory; None if one runs alone.

    >>> import jax
    >>> vmap = make_plan(6, plan="vmap", devices=jax.devices()[:1])
    >>> narrower(vmap).width, narrower(narrower(narrower(vmap)))
    (3, None)
    """
    streams, chunk = plan.streams, plan.chunk
    if plan.name == "split_rows" or streams * chunk == 1:
        return None
    if chunk > 1:
        chunk //= 2
    else:
        streams //= 2
    each = chunk if plan.name == "vmap" else -(-plan.width // plan.streams // chunk) * chunk
    return dataclasses.replace(
        plan,
        width=each * streams,
        chunk=chunk,
        devices=plan.devices[:streams],
        reason=f"{plan.reason}; halved, since a device was out of memory",
    )


def for_part(plan: Plan, most: int) -> Plan:
    """The plan for a process that has only so many of the lanes: no wider than they need, and no device without any.

    One by one, and in chunks that the devices can fill, no lane changes its company, and so no bit.

    Args:
      plan: of all lanes.
      most: lanes that the process has.

    >>> import jax
    >>> whole = make_plan(64, plan="vmap", devices=jax.devices()[:1])
    >>> for_part(whole, 16).width, for_part(whole, 64) == whole
    (16, True)
    """
    if plan.name == "split_rows":
        return dataclasses.replace(plan, width=min(plan.width, most))
    together = plan.chunk if plan.name == "chunks" else 1
    devices = plan.devices[: -(-most // together)]
    unit = len(devices) * together
    width = min(-(-most // unit), plan.width // (len(plan.devices) * together)) * unit
    chunk = width // len(devices) if plan.name == "vmap" else plan.chunk
    return dataclasses.replace(plan, width=width, chunk=chunk, devices=devices)


def repacked(plan: Plan, num_lanes: int) -> Plan:
    """The plan for some of its lanes alone: spread evenly over as few calls as its width allows, so that few are
    filled up.

    Args:
      plan: of all lanes.
      num_lanes: how many there are now.

    >>> import jax
    >>> whole = make_plan(10, plan="one_by_one", width=4, devices=jax.devices()[:1])
    >>> few = repacked(whole, 5)
    >>> few.num_lanes, few.width, few.num_calls
    (5, 3, 2)
    """
    few = dataclasses.replace(for_part(plan, num_lanes), num_lanes=num_lanes)
    unit = few.streams * (few.chunk if few.name == "chunks" else 1)
    return for_part(few, max(unit, -(-num_lanes // few.num_calls)))


def _ready(plan: Plan, num_lanes: int, width: int | None, chunk: int | None) -> Plan:
    """A plan that was made before; raises if it is for other lanes."""
    if plan.num_lanes != num_lanes:
        raise ValueError(
            f"the plan is for {plan.num_lanes} lanes, and there are {num_lanes}; make one for them, "
            f"rr.lanes.make_plan({num_lanes}, …)."
        )
    if width is not None or chunk is not None:
        raise ValueError(
            f"a ready Plan has its width ({plan.width}) and chunk ({plan.chunk}) already; got width={width}, "
            f"chunk={chunk}. Give them to rr.lanes.make_plan."
        )
    return plan


def _check(num_lanes: Any, plan: Any, chunk: Any, max_memory: Any) -> None:
    if plan not in PLANS:
        raise ValueError(f"plan must be a ready rr.lanes.Plan, or one of {PLANS}; got {plan!r}.")
    for name, value in (("num_lanes", num_lanes), ("chunk", chunk), ("max_memory", max_memory)):
        if not is_count(value) and (name == "num_lanes" or value is not None):
            raise ValueError(f"{name} must be a positive int; got {value!r}.")
    if chunk is not None and plan not in ("auto", "chunks"):
        raise ValueError(f"chunk={chunk} belongs to plan='chunks'; got plan={plan!r}.")


def _choose(
    num_lanes: int,
    devices: tuple[Any, ...],
    rates: Calibration,
    hidden_size: int,
    step_operations: float,
) -> tuple[str, int | None, str]:
    """The name of the plan, how many lanes together, and why."""
    if devices[0].platform != "cpu":
        return "vmap", None, "an accelerator fills up with many lanes together"
    share = step_operations / len(devices)
    if num_lanes == 1 and len(devices) > 1 and share >= rates.split_rows_from:
        return "split_rows", None, "one lane, and steps large enough to share"
    chunk = rates.best_chunk(hidden_size)
    if chunk == 1:
        why = f"on a CPU a lane alone keeps its weights in cache ({rates.source})"
        return "one_by_one", None, why
    why = f"{chunk} lanes of hidden size {hidden_size} together ran best ({rates.source})"
    return "chunks", chunk, why


def _idle_cores(devices: tuple[Any, ...]) -> str:
    """What the reason says if JAX shows one CPU device of several cores."""
    cores = available_cores()
    if devices[0].platform != "cpu" or len(devices) > 1 or cores == 1:
        return ""
    return f"; {cores} cores are available: call rr.use_all_cores() first to use them"


def _most(lane_seconds: float) -> int:
    """Lanes of a device in one call that takes about a second."""
    return max(1, min(round(_SECONDS_A_CALL / max(lane_seconds, 1e-9)), _MAX_LANES_A_CALL))


def _fitting(devices: tuple[Any, ...], lane_bytes: int, max_memory: int | None) -> tuple[int, str]:
    """How many lanes fit into memory at the same time, one at least, and why no more."""
    free = free_memory(devices[0])
    each = 1 if devices[0].platform == "cpu" else len(devices)  # cores share their memory
    limit = max_memory if max_memory is not None or free is None else int(0.5 * free * each)
    if not lane_bytes or limit is None:
        return sys.maxsize, ""
    said = "max_memory" if max_memory is not None else "half of the free memory"
    why = f"; {said}, {in_units(limit)}, holds no more lanes of about {in_units(lane_bytes)}"
    return max(1, limit // lane_bytes), why


def _even_width(share: int, most: int, chunk: int, num_devices: int) -> int:
    """Lanes a call with at most so many on each device, spread evenly, so that few are filled up."""
    each = -(-share // -(-share // most))
    return -(-each // chunk) * chunk * num_devices


def _wrong_width(width: int, num_devices: int, chunk: int) -> str:
    chunks = f" × {chunk} lanes a chunk" if chunk > 1 else ""
    return f"width must be a positive multiple of the {num_devices} devices{chunks}; got {width!r}."
