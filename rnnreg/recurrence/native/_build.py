"""The compiled kernel: built once for this processor, kept in the cache folder, loaded and handed to XLA."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnreg._checks import warn_caller
from rnnreg.runtime import cache_folder, cpu_model

SWITCH = "RNNREG_NATIVE"
SOURCES = sorted(Path(__file__).parent.glob("*.h")) + [Path(__file__).parent / "kernel.cc"]
SYMBOL = "rnnreg_recurrence"
# No flag changes a value: NaN and infinity stay what they are, and sums keep their order.
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fno-tree-slp-vectorize",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
)
_FLAGS += ("-fPIC", "-shared", "-pthread", "-w")
_PROCESSOR = ("-march=native", "-mcpu=native", "")  # the first that the compiler knows
_REALS = {"float32": "float", "float64": "double"}
_INSTALL = "install a C++ compiler such as g++, or pip install 'rnnreg[native]'"
_MOST_SECONDS = 300


class Library(NamedTuple):
    """Whether the compiled kernel can be called, and why.

    Attributes:
      path: the shared library; None where there is none.
      reason: who compiled it, or why there is none and what to do, in words.
    """

    path: Path | None
    reason: str


def kernel_library(dtype: Any = jnp.float32) -> Library:
    """The compiled kernel for a dtype, known to XLA as `target(dtype)`; built at the first call on a machine.

    Args:
      dtype: float32 or float64.

    Returns:
      The library, or why there is none.

    Warns:
      RuntimeWarning: it cannot be built or loaded, though there is a compiler.
    """
    if os.environ.get(SWITCH, "") in ("0", "off", "false"):
        return Library(None, f"{SWITCH}={os.environ[SWITCH]} switches the compiled kernel off")
    return _library(jnp.dtype(dtype).name)


def target(dtype: Any) -> str:
    """The name under which XLA knows the kernel for a dtype."""
    return f"{SYMBOL}_{jnp.dtype(dtype).name}"


@functools.cache
def _library(dtype: str) -> Library:
    compiler = find_compiler()
    if compiler is None:
        return Library(None, f"the compiled kernel needs a C++ compiler: {_INSTALL}{_unfound()}")
    version = _version(compiler)
    errors = []
    for folder in _folders():
        path = folder / f"recurrence-{dtype}-{_digest(compiler, version)}.so"
        try:
            if not _is_whole(path):
                _compile(path, compiler, dtype)
            _hand_over(path, dtype)
            unkept = _unkept(errors) if folder == _own_folder() else ""
            return Library(path, f"compiled for this processor by {version}{unkept}{_unfound()}")
        except (OSError, AttributeError, subprocess.SubprocessError) as error:
            errors.append(f"{folder}: {' '.join(str(error).split())[:300]}")
    reason = f"the compiled kernel cannot be built or loaded ({'; '.join(errors)})"
    warn_caller(f"{reason}. Everything runs without it, more slowly; {SWITCH}=0 ends this warning.")
    return Library(None, reason)


def _unkept(errors: list[str]) -> str:
    """Why the library lasts no longer than the process, and what to do."""
    why = "; ".join(errors) or "there is no home folder"
    return f", in each process anew, since it cannot be kept ({why}): set XDG_CACHE_HOME to a writable folder"


def _unfound() -> str:
    """That there is no such compiler as $CXX names; "" if there is."""
    words = os.environ.get("CXX", "").split()
    return f"; there is no CXX={words[0]}" if words and not shutil.which(words[0]) else ""


def find_compiler() -> tuple[str, ...] | None:
    """The command of a C++ compiler: $CXX, else the system's, else that of the package `ziglang`; None without one."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        words = name.split()
        if words and shutil.which(words[0]):
            return tuple(words)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "c++")
    return None


def _version(compiler: tuple[str, ...]) -> str:
    """The first line of what a compiler says of itself."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60)
        if said.stdout.strip():
            return said.stdout.splitlines()[0].strip()
    return " ".join(compiler)


def _digest(compiler: tuple[str, ...], version: str) -> str:
    """Of everything that the library depends on."""
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    parts = [
        *(source.read_bytes() for source in SOURCES),
        header.read_bytes() if header.exists() else b"",
    ]
    parts += [text.encode() for text in (*compiler, *_FLAGS, version, cpu_model(), _instructions())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The sets of instructions of the processor: a virtual machine may have fewer of them than its model says."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.split(":")[0].strip().lower() in ("flags", "features"):
                return line
    return ""


def _folders() -> Iterator[Path]:
    """Where the library may lie: the cache folder, else one of this process alone."""
    folder = cache_folder()
    if folder is not None:
        yield folder / "native"
    yield _own_folder()


@functools.cache
def _own_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="rnnreg-native-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _is_whole(path: Path) -> bool:
    """Whether the library is there, to the byte as it was compiled: loading half of one could end the process."""
    try:
        return _check_sum(path).read_text() == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, UnicodeDecodeError):
        return False


def _check_sum(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _compile(path: Path, compiler: tuple[str, ...], dtype: str) -> None:
    """Compiles into the folder of `path` and moves the result there, so that others see a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as folder:
        made = Path(folder) / path.name
        for processor in _PROCESSOR:
            command = [*compiler, *_FLAGS, *processor.split(), f"-DREAL={_REALS[dtype]}"]
            command += [f"-I{jax.ffi.include_dir()}", str(SOURCES[-1]), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_SECONDS)
            if done.returncode == 0:
                break
        else:
            said = [line for line in done.stderr.splitlines() if "error" in line]
            raise OSError(f"{' '.join(compiler)} failed: {(said or [done.stderr])[0]}")
        _check_sum(made).write_text(hashlib.sha256(made.read_bytes()).hexdigest())
        os.replace(made, path)
        os.replace(_check_sum(made), _check_sum(path))


def _hand_over(path: Path, dtype: str) -> None:
    """Loads the library and registers its function with XLA."""
    function = getattr(ctypes.CDLL(str(path)), SYMBOL)
    try:
        jax.ffi.register_ffi_target(target(dtype), jax.ffi.pycapsule(function), platform="cpu")
    except Exception as error:  # a jaxlib whose interface differs says so in its own way
        raise OSError(f"jaxlib does not take it: {error}") from error
