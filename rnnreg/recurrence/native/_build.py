"""The compiled kernel: built once for this processor, kept in the cache folder, loaded and handed to XLA."""

from __future__ import annotations

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
from typing import NamedTuple

import jax

from rnnreg._checks import warn_caller
from rnnreg.runtime import cache_folder, cpu_model

SOURCE = Path(__file__).parent / "kernel.cc"
TARGET = "rnnreg_recurrence"
SWITCH = "RNNREG_NATIVE"
# Neither flag changes a value: NaN and infinity stay what they are.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math")
FLAGS += ("-ffp-contract=fast", "-fPIC", "-shared", "-pthread", "-w")
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


@functools.cache
def library() -> Library:
    """The compiled kernel, registered with XLA; built at the first call on this machine.

    Warns:
      RuntimeWarning: it cannot be built or loaded, though there is a compiler.
    """
    if os.environ.get(SWITCH, "") in ("0", "off", "false"):
        return Library(None, f"{SWITCH}={os.environ[SWITCH]} switches the compiled kernel off")
    compiler = find_compiler()
    if compiler is None:
        return Library(None, f"the compiled kernel needs a C++ compiler ({_INSTALL})")
    version = _version(compiler)
    errors = []
    for folder in _folders():
        path = folder / f"recurrence-{_digest(version)}{'.dll' if os.name == 'nt' else '.so'}"
        try:
            _load(_built(path, compiler))
            return Library(path, f"compiled for this processor by {version}")
        except (OSError, AttributeError, subprocess.SubprocessError) as error:
            errors.append(f"{folder}: {_short(error)}")
    warn_caller(
        f"the compiled kernel cannot be built or loaded ({'; '.join(errors)}). Everything runs without it, more "
        f"slowly; {SWITCH}=0 ends this warning."
    )
    return Library(None, f"the compiled kernel cannot be built or loaded ({'; '.join(errors)})")


def find_compiler() -> tuple[str, ...] | None:
    """The command of a C++ compiler: $CXX, the system's, or that of the package `ziglang`."""
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


def _digest(version: str) -> str:
    """Of everything that the library depends on."""
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    parts = [SOURCE.read_bytes(), header.read_bytes() if header.exists() else b""]
    parts += [text.encode() for text in (*FLAGS, version, cpu_model(), _instructions())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The sets of instructions of the processor: one model may have fewer of them on another host."""
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
    yield Path(_own_folder())


@functools.cache
def _own_folder() -> str:
    import atexit

    folder = tempfile.mkdtemp(prefix="rnnreg-native-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _built(path: Path, compiler: tuple[str, ...]) -> Path:
    """The library at that path, compiled if it is not there or is broken.

    It is written beside its place and then moved there, so another process sees a whole file or none.
    """
    if path.exists() and _loads(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=path.suffix)
    os.close(handle)
    try:
        command = [*compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", str(SOURCE), "-o", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_SECONDS)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            said = next((line for line in lines if "error" in line), (lines or ["no message"])[0])
            raise OSError(f"{' '.join(compiler)} failed: {said}")
        os.replace(name, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)
    return path


def _loads(path: Path) -> bool:
    try:
        return hasattr(ctypes.CDLL(str(path)), TARGET)
    except OSError:
        return False


def _load(path: Path) -> None:
    function = getattr(ctypes.CDLL(str(path)), TARGET)
    try:
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(function), platform="cpu")
    except Exception as error:  # a jaxlib of another interface says so in its own way
        raise OSError(f"jaxlib does not take it: {error}") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
