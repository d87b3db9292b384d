"""How much memory there is, and whether what is asked for can fit, before any of it is made."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax

from rnnreg._checks import in_units
from rnnreg._tree import tree_bytes
from rnnreg.runtime import of_cgroups

# The files of a control group, version 2 and version 1: the most that it may take, and what it takes.
_CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def free_memory(device: Any) -> int | None:
    """Bytes that are free on a device: on a CPU in the machine and in this process's cgroup and those above it.

    >>> free_memory(jax.devices()[0]) != 0
    True
    """
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else max(1, limit - stats.get("bytes_in_use", 0))
    machine = _of_machine("MemAvailable")
    return machine and max(1, min([machine, *of_cgroups("memory", _read_free)]))


def total_memory(device: Any = None) -> int | None:
    """Bytes that a device has, free or not; None, the default, is the machine: its memory with swap, or its cgroup's.

    More than this never fits, whatever else runs.

    >>> total_memory() is None or total_memory() >= free_memory(jax.devices("cpu")[0])
    True
    """
    if device is not None and device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    return _total_of_host()


@functools.cache
def _total_of_host() -> int | None:
    machine = _of_machine("MemTotal", "SwapTotal")
    return machine and min([machine, *of_cgroups("memory", _read_limit)])


def check_fits(needed: int, what: str, hint: str, device: Any = None) -> None:
    """Raises if something needs more bytes than a device (None: the machine) has in all.

    >>> check_fits(2**70, "a table of 10**20 rows", "Take fewer rows.")
    Traceback (most recent call last):
    ValueError: a table of 10**20 rows would take 1024.0 EiB of memory, and there are ... in all. Take fewer rows.
    """
    there = total_memory(device)
    if there is not None and needed > there:
        raise ValueError(
            f"{what} would take {in_units(needed)} of memory, and there are {in_units(there)} in all. {hint}"
        )


def check_made(shapes: Any, what: str, hint: str) -> None:
    """Raises if arrays of some shapes cannot fit on JAX's default device.

    >>> check_made(jax.ShapeDtypeStruct((10**9, 10**9), "float32"), "the table", "Take fewer rows.")
    Traceback (most recent call last):
    ValueError: the table would take 3.5 EiB of memory, and there are ... in all. Take fewer rows.
    """
    check_fits(tree_bytes(shapes), what, hint, jax.local_devices()[0])


def _of_machine(*names: str) -> int | None:
    """The sum of some entries of /proc/meminfo in bytes; None where the system has no such file."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        entries = dict(line.split(":", 1) for line in lines)
        return sum(1024 * int(entries[name].split()[0]) for name in names) or None
    except (OSError, ValueError, KeyError):  # not Linux
        return None


def _read_free(folder: Path) -> int | None:
    """Bytes that one cgroup folder may still take, or None: no limit, or no such folder."""
    return _read(folder, lambda limit, used: limit - used)


def _read_limit(folder: Path) -> int | None:
    """Bytes that one cgroup folder may take in all, or None: no limit, or no such folder."""
    return _read(folder, lambda limit, _: limit)


def _read(folder: Path, of: Any) -> int | None:
    for limit, used in _CGROUP_FILES:
        try:
            return of(int((folder / limit).read_text()), int((folder / used).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None
