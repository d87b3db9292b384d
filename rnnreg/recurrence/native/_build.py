"""The compiled kernel: built once for this processor, kept in the cache folder, loaded and handed to XLA."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnreg._checks import warn_caller
from rnnreg.recurrence.native import _kept
from rnnreg.recurrence.native._compiler import (
    FLAGS,
    CompilerError,
    compile_kernel,
    find_compiler,
    unfound,
    version_of,
)
from rnnreg.runtime import cpu_model

SWITCH = "RNNREG_NATIVE"
OFF, ON = ("0", "false", "no", "off"), ("", "1", "true", "yes", "on")
SOURCES = sorted(Path(__file__).parent.glob("*.h")) + [Path(__file__).parent / "kernel.cc"]
SYMBOL = "rnnreg_recurrence"
_INSTALL = "install a C++ compiler such as g++, or pip install 'rnnreg[native]'"
_RETRY_SECONDS = (
    24 * 3600
)  # after which a library that lacks the processor's instructions is built again
_LOCK = threading.Lock()


class Library(NamedTuple):
    """Whether the compiled kernel can be called, and why.

    Attributes:
      path: the shared library; None where there is none.
      reason: who compiled it, or why there is none and what to do, in words.
      failed: whether there is none though there is a compiler.
    """

    path: Path | None
    reason: str
    failed: bool = False


def kernel_library(dtype: Any = jnp.float32) -> Library:
    """The compiled kernel for a dtype, known to XLA as `target(dtype)`; built at the first call on a machine.

    Without a compiler it is the last one that was used here of those built of the same source, for the same jaxlib and
    processor.

    Args:
      dtype: float32 or float64.

    Returns:
      The library, or why there is none.

    Warns:
      RuntimeWarning: it cannot be built or loaded, though there is a compiler; the switch has an unknown value.
    """
    given = os.environ.get(SWITCH, "")
    if given.strip().lower() in OFF:
        return Library(None, f"{SWITCH}={given} switches the compiled kernel off")
    if given.strip().lower() not in ON:
        _warn_of_switch(given)
    with _LOCK:  # of two threads that register it the second would be refused
        return _library(jnp.dtype(dtype).name)


def target(dtype: Any) -> str:
    """The name under which XLA knows the kernel for a dtype."""
    return f"{SYMBOL}_{jnp.dtype(dtype).name}"


@functools.cache
def _warn_of_switch(given: str) -> None:
    warn_caller(
        f"{SWITCH} must be one of {', '.join(OFF)} (without the compiled kernel) or of {', '.join(ON[1:])} (with it, "
        f"the default); got {given!r}, which leaves it on."
    )


@functools.cache
def _library(dtype: str) -> Library:
    compiler = find_compiler()
    if compiler is None:
        return _without_compiler(dtype)
    errors: list[str] = []
    try:
        version = version_of(compiler)
        for place in (_kept.kept_folder, _kept.own_folder):
            try:
                path, words = _built(place(), compiler, version, dtype)
                _hand_over(path, dtype)
            except (OSError, AttributeError) as error:
                errors.append(" ".join(str(error).split())[:300])
                continue
            unkept = _unkept(errors) if errors else ""
            return Library(path, f"{words}{unkept}{unfound()}")
    except CompilerError as error:
        errors.append(" ".join(str(error).split())[:300])
    _kept.leave_own_folder()
    reason = f"the compiled kernel cannot be built or loaded ({'; '.join(errors)})"
    warn_caller(f"{reason}. Everything runs without it, more slowly; {SWITCH}=0 ends this warning.")
    return Library(None, reason, failed=True)


def _without_compiler(dtype: str) -> Library:
    with contextlib.suppress(OSError):
        folder = _kept.kept_folder(make=False)
        for path in _kept.last_used(folder, f"recurrence-{dtype}-{_machine()}-*.so"):
            record = _kept.read_record(path)
            with contextlib.suppress(OSError, AttributeError):
                if record is not None:
                    _hand_over(path, dtype)
                    _kept.note_use(path)
                    told = f"{_words(record)}, which is not there any more"
                    return Library(path, f"{told}{unfound()}")
    return Library(None, f"the compiled kernel needs a C++ compiler: {_INSTALL}{unfound()}")


def _built(folder: Path, compiler: tuple[str, ...], version: str, dtype: str) -> tuple[Path, str]:
    """The library in that folder, and what there is to say of it; compiled now if it is not there.

    One that lacks the processor's instructions has a name of its own. The rest is tried again after a day.
    """
    stem = f"recurrence-{dtype}-{_machine()}-{_digest([*compiler, version])}"
    for path in (folder / f"{stem}.so", folder / f"{stem}-plain.so"):
        record = _kept.read_record(path)
        if record is not None and (not record.why or _age(path) < _RETRY_SECONDS):
            _kept.note_use(path)
            return path, _words(record)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_kept.BUILDING) as building:
        made = Path(building) / f"{stem}.so"
        why = compile_kernel(compiler, SOURCES[-1], made, dtype)
        path = folder / f"{stem}{'-plain' if why else ''}.so"
        record = _kept.keep(made, path, version, why)
    _kept.tidy(folder)
    return path, _words(record)


def _words(record: _kept.Record) -> str:
    if not record.why:
        return f"compiled for this processor by {record.version}"
    return f"compiled without the instructions of this processor by {record.version} ({record.why})"


def _unkept(errors: list[str]) -> str:
    """Why the library lasts no longer than the process, and what to do."""
    return (
        f", in each process anew, since it cannot be kept ({'; '.join(errors)}): set XDG_CACHE_HOME to a folder that "
        "only you can write"
    )


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


@functools.cache
def _ffi_headers() -> tuple[bytes, ...]:
    folder = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api"
    return tuple(header.read_bytes() for header in sorted(folder.glob("*.h")))


def _machine() -> str:
    """Of everything that the library depends on but its compiler."""
    abi = (sys.platform, platform.machine(), str(struct.calcsize("P")), *platform.libc_ver())
    parts = (*(source.read_bytes() for source in SOURCES), *_ffi_headers())
    return _digest([*parts, *FLAGS, *abi, cpu_model(), _instructions()])


def _digest(parts: Sequence[str | bytes]) -> str:
    whole = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.sha256(whole).hexdigest()[:16]


def _instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The sets of instructions of the processor: a virtual machine may have fewer of them than its model says."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.split(":")[0].strip().lower() in ("flags", "features"):
                return line
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "machdep.cpu.brand_string", "hw.optional"]
            return subprocess.run(command, capture_output=True, timeout=10).stdout.hex()
    return ""


def _hand_over(path: Path, dtype: str) -> None:
    """Loads the library and registers its function with XLA."""
    function = getattr(ctypes.CDLL(str(path)), SYMBOL)
    try:
        jax.ffi.register_ffi_target(target(dtype), jax.ffi.pycapsule(function), platform="cpu")
    except Exception as error:  # a jaxlib whose interface differs says so in its own way
        raise OSError(f"jaxlib does not take it: {error}") from error
