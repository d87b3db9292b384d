"""The machine under the arrays: cores as devices, compilation cache, facts kept with a result."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import platform
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rnnreg._checks import described
from rnnreg._signatures import typed

__all__ = ["available_cores", "cache_folder", "compilation_cache", "environment", "use_all_cores"]

PACKAGES = ("rnnreg", "jax", "jaxlib", "optax", "flax", "numpy")


def checked_devices(devices: Any) -> tuple[Any, ...]:
    """Devices of JAX as a tuple; None is all that belong to this process.

    >>> checked_devices("cpu")
    Traceback (most recent call last):
    ValueError: devices must be devices of JAX, such as jax.devices(); got 'cpu'.
    """
    given = jax.local_devices() if devices is None else devices
    found = tuple(given) if isinstance(given, (list, tuple, np.ndarray)) else ()
    if not found or not all(hasattr(one, "device_kind") for one in found):
        raise ValueError(
            f"devices must be devices of JAX, such as jax.devices(); got {described(devices)}."
        )
    return found


def available_cores() -> int:
    """CPU cores that this process may use: the smaller of its affinity and its cgroup's limit.

    In a container or a batch job `os.cpu_count()` reports the whole machine; a device for each of
    those cores would have many lanes share one core. A fraction of a core counts as a core.

    Returns:
        The number of cores, at least 1.

    >>> 1 <= available_cores() <= os.cpu_count()
    True
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cgroup_quota()
    if quota is not None:
        cores = min(cores, math.ceil(quota))
    return max(cores, 1)


@typed
def use_all_cores(num: int | None = None) -> int:
    """Make each CPU core a JAX device, so that a sweep trains one lane on each core at a time.

    JAX shows a CPU as one device however many cores it has, and a small recurrent step runs on one
    core. The count is fixed by the first array, so call this at the top of a program. A later call
    changes nothing and warns; results are the same for any number of devices, only time differs.

    It also gives XLA's pool more threads than devices (2 num + 8, by the environment variable NPROC,
    unless that is set): a batched decomposition, such as `jnp.linalg.svd` of a stack, waits on one
    thread of the pool for the others, and one on each device would wait for ever.

    Args:
        num: how many devices; by default `available_cores()`.

    Returns:
        The number of CPU devices that JAX will show.

    Raises:
        ValueError: `num` is below 1.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # an array may exist already where this example runs
    ...     num_devices = use_all_cores(1)
    >>> num_devices >= 1
    True
    """
    wanted = available_cores() if num is None else num
    if wanted < 1:
        raise ValueError(f"use_all_cores needs at least one core, got num={num}.")
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:  # JAX's word for: the backends have started
        count = _count_cpu_devices()
        if count != wanted:
            warnings.warn(
                f"use_all_cores came too late: JAX has already started with {count} CPU "
                f"device{'s' * (count != 1)}, and {wanted} were wanted. A sweep will use {count}. "
                "Call it before the first array is made, right after the imports.",
                RuntimeWarning,
                stacklevel=2,
            )
        return count
    os.environ.setdefault("NPROC", str(2 * wanted + 8))
    return wanted


class Kept:
    """What was made for an owner, kept for as long as the owner lives; of each owner, the newest `most`.

    The owner is held weakly, so nothing that is made for it may hold it. An owner that cannot be held so (no weak
    reference, no hash) keeps nothing.

    >>> kept, made = Kept(), []
    >>> [kept.get(available_cores, "key", lambda: made.append(1) or len(made)) for _ in range(3)]
    [1, 1, 1]
    """

    def __init__(self, most: int = 16):
        self._of: weakref.WeakKeyDictionary[Any, OrderedDict[Hashable, Any]]
        self._of, self._most = weakref.WeakKeyDictionary(), most

    def get(self, owner: Any, key: Hashable, make: Callable[[], Any]) -> Any:
        """What was made for this owner under this key, now or before."""
        try:
            own = self._of.setdefault(owner, OrderedDict())
        except TypeError:
            return make()
        if key not in own:
            own[key] = make()
        own.move_to_end(key)
        while len(own) > self._most:
            own.popitem(last=False)
        return own[key]


def weakly(value: Any) -> Callable[[], Any]:
    """A function that returns a value, without holding it if that can be."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


def may_compile(arguments: Any) -> bool:
    """Whether a call may run a compiled program: no argument is traced, and no tool for debugging looks at each step.

    >>> may_compile({"x": 1.0}), bool(jax.jit(lambda x: x + may_compile([x]))(0))
    (True, False)
    """
    config = jax.config
    stepped = config.jax_disable_jit or config.jax_debug_nans or config.jax_debug_infs
    return not stepped and not is_traced(arguments)


def is_traced(tree: Any) -> bool:
    """Whether a tree holds a tracer of JAX, whose value is not there to be looked at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def counter_based(key: jax.Array) -> jax.Array:
    """The threefry key that a key stands for: lanes that run together must draw what each would draw alone.

    Under `jax.vmap` JAX's other generators ("rbg") give numbers that depend on the neighbours. Their keys are made of
    threefry keys, and the first of them is taken, so `fold_in` and `split` before and after agree.

    >>> key = jax.random.key(7, impl="rbg")
    >>> bool(counter_based(key) == jax.random.key(7, impl="threefry2x32"))
    True
    """
    if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if str(jax.random.key_impl(key)) == "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key)[..., :2], impl="threefry2x32")


@typed
def compilation_cache(path: str | Path | None = None) -> Path | None:
    """Keep compiled programs on disk, so that the next process starts without compiling them again.

    JAX's persistent cache, with every program kept that took a fifth of a second or more to compile
    (JAX's own threshold of one second misses most small networks). The key of an entry holds the
    program, the versions and the device, so a stale entry is never used. A damaged one is compiled anew, with a warning
    of JAX that names it.

    Args:
        path: the folder, made if absent. By default the one that JAX was told already
            (`JAX_COMPILATION_CACHE_DIR`), else `rnnreg` under `$XDG_CACHE_HOME` or `~/.cache`.

    Returns:
        The folder in use; None where none can be made (no home folder, a disk that cannot be written), and
        everything is compiled as without a cache.

    Warns:
        RuntimeWarning: there is no such folder, and why.

    >>> import tempfile
    >>> before = jax.config.jax_compilation_cache_dir
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     compilation_cache(folder) == Path(folder)
    True
    >>> jax.config.update("jax_compilation_cache_dir", before)
    """
    if path is not None and not str(path):
        raise ValueError("path must name a folder; got ''. None takes the usual one.")
    if path is None:
        path = jax.config.jax_compilation_cache_dir or cache_folder()
    try:
        if path is None:
            raise RuntimeError("there is no home folder; set XDG_CACHE_HOME, or give a folder")
        folder = Path(path).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        message = f"compiled programs are not kept on disk: {error}."
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return folder


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor by its own name, where the system tells it."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """What a number depends on beside its configuration: versions, device, precision.

    Stored with each result, so that a difference between two machines can be traced. It starts
    JAX's backends: call `use_all_cores` first.

    Returns:
        A dict ready for JSON: `python`; the versions of rnnreg (None where it is not installed),
        jax, jaxlib, optax, flax and numpy; `system` (operating system and processor type); `cores`
        (those this process may use); `code`, a SHA-256 of rnnreg's own sources; `backend`,
        `device_kind` and `num_devices` of JAX's default backend; `processor`, by its own name;
        `num_processes` (hosts); `matmul_precision` (None: JAX's default, which is lower than float32
        on accelerators); `x64` (whether 64-bit types are on); `optimised` (whether XLA optimises) and
        `xla_flags`.

    >>> sorted(environment())[:5]
    ['backend', 'code', 'cores', 'device_kind', 'flax']
    """
    devices = jax.devices()
    on_cpu = devices[0].platform == "cpu"
    return {
        **versions(),
        "code": _digest_of_sources(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": available_cores(),
        "backend": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "processor": cpu_model() if on_cpu else devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
        "matmul_precision": jax.config.jax_default_matmul_precision,
        "x64": bool(jax.config.jax_enable_x64),
        "optimised": not jax.config.read("jax_disable_most_optimizations"),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


@functools.cache
def _digest_of_sources() -> str:
    """SHA-256 of the files that rnnreg is made of: a version may stand for many states of a checkout."""
    found, place = hashlib.sha256(), Path(__file__).parent
    for path in sorted(path for path in place.rglob("*") if path.suffix in (".py", ".cc", ".h")):
        found.update(f"{path.relative_to(place).as_posix()}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def _cgroup_quota(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """The tightest CPU limit, in cores, of this process's cgroup and those above it, or None.

    Version 2 writes "quota period" (microseconds) or "max period" in `cpu.max`; version 1 writes
    the two in files of their own, quota −1 where there is no limit.
    """
    return min(of_cgroups("cpu", _read_quota, membership, mount), default=None)


def of_cgroups(
    controller: str,
    read: Callable[[Path], Any],
    membership: Path = Path("/proc/self/cgroup"),
    mount: Path = Path("/sys/fs/cgroup"),
) -> list[Any]:
    """What `read` finds in the folders of this process's cgroup and of those above it; None is left out.

    Inside a container the path in /proc/self/cgroup may lie outside the mount; the mount's root is then the
    container's group.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no cgroups: not Linux
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for root in [mount / controllers, mount / controller] if controllers else [mount]:
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                if not folder.is_relative_to(root):
                    break
                found.append(read(folder))
    return [each for each in found if each is not None]


def _read_quota(folder: Path) -> float | None:
    """Cores allowed by one cgroup folder, or None: no limit, or no such folder."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _count_cpu_devices() -> int:
    try:
        return len(jax.devices("cpu"))
    except RuntimeError:  # JAX_PLATFORMS names accelerators only
        return 0


def cache_folder() -> Path | None:
    """Where what was measured or compiled is kept: `rnnreg` under `$XDG_CACHE_HOME` or `~/.cache`.

    Returns:
        The folder, which need not exist; None for a user without a home folder.

    >>> cache_folder().name
    'rnnreg'
    """
    try:
        return (Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rnnreg").expanduser()
    except RuntimeError:  # a container or a service with a user of its own
        return None


def versions() -> dict[str, str | None]:
    """The versions of Python and of what a number depends on; None for what is not installed."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
