"""The command line: `python -m rnnreg doctor` says what works on this machine."""

from __future__ import annotations

import argparse
import functools
import os
import platform
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg.cells import Cell, elman, gru, lstm
from rnnreg.lanes import calibration_path, load_calibration
from rnnreg.recurrence import BACKENDS, Asked, unroll
from rnnreg.recurrence.native import find_compiler, kernel_library
from rnnreg.runtime import available_cores, cache_folder, cpu_model, versions

CELLS = {"Elman": elman, "GRU": gru, "LSTM": lstm}
DTYPES = ("float32", "float64")
REFERENCE = ("scan", "float64")
SIZES = (16, 64)  # H of what is measured
PRODUCT = 2048
SECONDS = 0.5  # for each line of the measurement
MOST_ROUNDINGS = 100  # sums over some dozen steps gather a few


class Finding(NamedTuple):
    """What was found about one part.

    Attributes:
      part: what was looked at.
      text: what was found, in one line.
      works: False if looking at it failed, or if it gives wrong numbers.
    """

    part: str
    text: str
    works: bool = True

    def __str__(self) -> str:
        return f"{self.part:<18} {'' if self.works else 'FAILS: '}{self.text}"


class Report(NamedTuple):
    """What `doctor` found.

    Attributes:
      findings: one for each part, in the order in which they were looked at.
    """

    findings: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether all that was tried works; a back end that cannot run here was not tried."""
        return all(finding.works for finding in self.findings)


class BuildError(RuntimeError):
    """A compiled kernel that there is not, though there is a compiler."""


class WrongNumbersError(ArithmeticError):
    """A back end whose numbers differ from the reference by more than rounding."""


def doctor(*, quick: bool = False, show: Callable[[Finding], None] | None = None) -> Report:
    """What works on this machine: versions, devices, folders, compiler, and every back end, run and compared.

    Each back end computes states and gradients of small networks, which are compared with `lax.scan` in float64.

    Args:
      quick: leave the measurement of speed out.
      show: called with each finding as soon as it is there.

    Returns:
      The report. A part that fails is a finding, not an error.
    """
    reference = functools.cache(lambda name: _states_and_gradients(name, *REFERENCE))
    parts: dict[str, Callable[[], str]] = {
        "versions": lambda: ", ".join(f"{name} {number}" for name, number in versions().items()),
        "processor": lambda: f"{cpu_model()}, {platform.platform()}",
        "devices": _devices,
        "cache folder": lambda: f"native and calibration in {_place(cache_folder())}",
        "compilation cache": _compilation_cache,
        "calibration": _calibration,
        "compiler": _compiler,
    }
    for dtype in DTYPES:
        parts[f"kernel {dtype}"] = functools.partial(_kernel, dtype)
    for dtype in DTYPES:
        for backend in reversed(BACKENDS):
            if (backend, dtype) != REFERENCE:
                parts[f"{backend} {dtype}"] = functools.partial(_check, backend, dtype, reference)
    if not quick:
        for hidden_size in SIZES:
            parts[f"Elman H = {hidden_size}"] = functools.partial(_measure, hidden_size)
        parts[f"product {PRODUCT}³"] = _measure_product
    findings = []
    for part, look in parts.items():
        findings.append(_look_at(part, look))
        if show is not None:
            show(findings[-1])
    return Report(tuple(findings))


def _look_at(part: str, look: Callable[[], str]) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say, the finding says
            return Finding(part, look())
    except Exception as error:
        return Finding(part, _in_a_line(error), works=False)


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    ours = isinstance(error, (BuildError, WrongNumbersError))
    return text if ours else f"{type(error).__name__}: {text}"


# ---- the machine ----------------------------------------------------------------------------------


def _devices() -> str:
    cores, devices = available_cores(), jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    text = f"{cores} CPU cores; devices of JAX: {len(devices)} ({', '.join(kinds)})"
    if devices[0].platform == "cpu" and len(devices) < cores:
        text += "; rr.use_all_cores() makes each core a device"
    return text


def _place(folder: Path | None) -> str:
    """A folder, and whether it can be written or made."""
    if folder is None:
        return "no folder: there is no home folder; set XDG_CACHE_HOME"
    there = next(one for one in (folder, *folder.parents) if os.path.exists(one))
    able = os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)
    return f"{folder}, {'can' if able else 'cannot'} be written"


def _compilation_cache() -> str:
    folder = jax.config.jax_compilation_cache_dir
    if not folder:
        return "off; rr.compilation_cache() keeps compiled programs in the cache folder"
    return folder if "://" in folder else _place(Path(folder))


def _calibration() -> str:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        source = load_calibration().source
    if told:
        return str(told[-1].message)
    return f"{source} ({calibration_path(jax.devices()[0])})"


def _compiler() -> str:
    found = find_compiler()
    return "none" if found is None else " ".join([shutil.which(found[0]) or found[0], *found[1:]])


def _kernel(dtype: str) -> str:
    """The compiled kernel, built or loaded now unless this process has it already."""
    start, clock = time.time(), time.perf_counter()
    found = kernel_library(dtype)
    seconds = time.perf_counter() - clock
    if found.failed:
        raise BuildError(found.reason)
    if found.path is None:
        return f"none: {found.reason}"
    done = "built" if found.path.stat().st_mtime >= start else "loaded"
    return f"{found.path}, {found.reason}, {done} in {seconds:.2g} s"


# ---- the back ends --------------------------------------------------------------------------------


def _task(
    cell: Cell, backend: str, *, batch: int, steps: int, dtype: str = "float32", **options: Any
) -> tuple[Callable[[Any], Any], Any]:
    """Value and gradient of a loss that reads every state; and its arguments, the same for each dtype."""
    inputs = 2
    xs = np.random.default_rng(0).normal(size=(steps, batch, inputs)).astype(np.float32)
    params = cell.init(jax.random.key(0), inputs, jnp.float32)
    arguments = (params, xs, cell.initial_state(batch, jnp.float32))

    def loss(arguments: Any) -> tuple[jax.Array, Any]:
        params, xs, state = arguments
        final, states = unroll(cell, params, xs, state, backend=backend, **options)
        return jnp.mean(states.h**2), (final, states)

    arguments = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), arguments)
    return jax.jit(jax.value_and_grad(loss, has_aux=True)), arguments


def _states_and_gradients(name: str, backend: str, dtype: str) -> list[np.ndarray]:
    """All that a cell computes in sizes that fill no vector, with a mask."""
    hidden_size, batch, steps = 17, 3, 20
    mask = np.random.default_rng(1).random((steps, batch)) < 0.7
    with jax.enable_x64(dtype == "float64"):
        run, arguments = _task(
            CELLS[name](hidden_size),
            backend,
            batch=batch,
            steps=steps,
            dtype=dtype,
            mask=jnp.asarray(mask),
            precision="highest",
        )
        return [np.asarray(leaf) for leaf in jax.tree.leaves(run(arguments))]


def _roundings(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest difference, in roundings of each array's largest number; NaN where there is one."""
    each = [
        np.max(np.abs(one - two)) / (np.max(np.abs(two)) or 1) / np.finfo(one.dtype).eps
        for one, two in zip(got, expected, strict=True)
    ]
    return float(np.max(each))


def _check(backend: str, dtype: str, reference: Callable[[str], list[np.ndarray]]) -> str:
    differences, wrong = [], []
    for name, make in CELLS.items():
        obstacle = BACKENDS[backend].obstacle(make(1), Asked(dtype=jnp.dtype(dtype)))
        if obstacle is not None:
            return f"does not run: {obstacle}"
        try:
            got = _states_and_gradients(name, backend, dtype)
            differences.append(_roundings(got, reference(name)))
            if not differences[-1] <= MOST_ROUNDINGS:
                wrong.append(f"{name} is {differences[-1]:.2g} roundings off {' '.join(REFERENCE)}")
        except Exception as error:
            wrong.append(f"{name} raises {_in_a_line(error)}")
    if wrong:
        raise WrongNumbersError("; ".join(wrong))
    worst = max(differences)
    return f"{', '.join(CELLS)}: states and gradients are right, to {worst:.2g} roundings"


# ---- the measurement ------------------------------------------------------------------------------


def _seconds(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median time of each run, in turn with the others; the first round compiles and does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        jax.block_until_ready(run())
    end = time.perf_counter() + SECONDS
    while True:
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
        if time.perf_counter() >= end:
            return {name: statistics.median(each) for name, each in times.items()}


def _measure(hidden_size: int) -> str:
    cell, batch, steps = elman(hidden_size), 32, 100
    runs = {}
    for backend in reversed(BACKENDS):
        if BACKENDS[backend].obstacle(cell, Asked()) is None:
            run, arguments = _task(cell, backend, batch=batch, steps=steps)
            runs[backend] = functools.partial(run, arguments)
    seconds = _seconds(runs)
    each = ", ".join(f"{name} {1e6 * time:.0f} µs" for name, time in seconds.items())
    scan = seconds.pop("scan")
    ratios = ", ".join(f"{name} {scan / time:.1f}" for name, time in seconds.items())
    return f"value and gradient (B = {batch}, T = {steps}): {each}; times as fast as scan: {ratios}"


def _measure_product() -> str:
    factor = np.random.default_rng(0).normal(size=(PRODUCT, PRODUCT))
    product = functools.partial(jax.jit(lambda a: a @ a), jnp.asarray(factor, jnp.float32))
    (seconds,) = _seconds({"product": product}).values()
    return f"{2e-9 * PRODUCT**3 / seconds:.0f} · 10⁹ operations a second in float32"


# ---- the command ----------------------------------------------------------------------------------


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command of a line of words, by default those of the process; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m rnnreg", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="command")
    asked = commands.add_parser(
        "doctor",
        help="print devices, cores, compiler, which back ends are right, and how fast they are",
        description="Says what works on this machine. The exit status is 1 if a part fails or a back end gives "
        "wrong numbers. It builds the compiled kernel if it is not there: some ten seconds for float32, and as many "
        "for float64.",
    )
    asked.add_argument("--quick", action="store_true", help="leave the measurement out")
    given = parser.parse_args(words)
    if given.command is None:
        parser.print_help()
        return 0
    report = doctor(quick=given.quick, show=lambda finding: print(finding, flush=True))
    failing = [finding.part for finding in report.findings if not finding.works]
    print(f"\nfails: {', '.join(failing)}" if failing else "\nall that was tried works")
    return int(bool(failing))


if __name__ == "__main__":
    sys.exit(main())
