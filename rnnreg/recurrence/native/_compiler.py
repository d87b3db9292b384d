"""The C++ compiler: which there is, how it is asked, and what it makes of the kernel's source."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

# NaN and infinity stay what they are, and sums keep their order. A product and a sum may become one operation with one
# rounding where the processor has it, so other processors give other last bits.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fno-tree-slp-vectorize",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
)
FLAGS += ("-fPIC", "-shared", "-pthread", "-w")
# The first that the compiler knows. The second one sets no instructions of an x86; other compilers lack the first.
_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
PROCESSOR = ("-march=native", "") if _X86 else ("-march=native", "-mcpu=native", "")
REALS = {"float32": "float", "float64": "double"}
MOST_SECONDS = 300
_MOST_SECONDS_OF_VERSION = 60
_FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]


class CompilerError(Exception):
    """A compiler that fails, hangs or cannot be started: it would do so in any folder."""


class Said(NamedTuple):
    """How a command ended, and what it printed."""

    status: int
    out: str
    errors: str


def find_compiler() -> tuple[str, ...] | None:
    """The command of a C++ compiler: $CXX, else the system's, else that of the package `ziglang`; None without one."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        words = name.split()
        if words and shutil.which(words[0]):
            return tuple(words)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "c++")
    return None


def unfound() -> str:
    """That there is no such compiler as $CXX names; "" if there is."""
    words = os.environ.get("CXX", "").split()
    return f"; there is no CXX={words[0]}" if words and not shutil.which(words[0]) else ""


def version_of(compiler: Sequence[str]) -> str:
    """The first line of what a compiler says of itself."""
    said = _ask([*compiler, "--version"], compiler, _MOST_SECONDS_OF_VERSION)
    return said.out.strip().partition("\n")[0].strip() or " ".join(compiler)


def compile_kernel(compiler: Sequence[str], source: Path, made: Path, dtype: str) -> str:
    """Compiles the kernel for this processor, or without its own instructions where that fails.

    Returns:
      Why it is not for this processor; "" if it is.

    Raises:
      CompilerError: it fails with and without them, or does not end.
      OSError: there is no room in the folder.
    """
    whys = []
    for processor in PROCESSOR:
        command = [*compiler, *FLAGS, *processor.split(), f"-DREAL={REALS[dtype]}"]
        command += [f"-I{jax.ffi.include_dir()}", str(source), "-o", str(made)]
        said = _ask(command, compiler, MOST_SECONDS)
        if said.status == 0 and made.exists():
            return "" if processor else whys[0]
        whys.append(_why(said))
        if any(full in said.errors for full in _FULL):
            raise OSError(whys[-1])
    raise CompilerError(f"{' '.join(compiler)} failed: {whys[-1]}")


def _why(said: Said) -> str:
    lines = said.errors.strip().splitlines()
    told = [line for line in lines if "error" in line] or lines
    if told:
        return " ".join(told[0].split())[:300]
    return f"exit status {said.status}" if said.status else "it wrote no library"


def _ask(command: Sequence[str], compiler: Sequence[str], seconds: float) -> Said:
    """Runs a command of the compiler, which ends with all that it started after so many seconds."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},  # an error is then called one
            start_new_session=True,
        )
    except OSError as error:
        raise CompilerError(f"{' '.join(compiler)} cannot be started: {error}") from error
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        told = f"{' '.join(compiler)} did not end in {seconds:g} s"
        raise CompilerError(told) from None
    except BaseException:  # an interrupt does not reach what is in a session of its own
        _end(process)
        raise
    return Said(process.returncode, out, errors)


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # its session is a group of its own
        else:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=5)
