"""The benchmark of many networks at once, as a command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import rnnreg as rr
from experiments._harness import command_line, write_json
from experiments.benchmarks._measure import Timing, interleave, machine, matmul, matmul_flops
from experiments.benchmarks.lanes.ours import ours
from experiments.benchmarks.lanes.peers import PEERS, find_missing
from experiments.benchmarks.lanes.problem import Contender, Entry, Problem, Task, make_problem
from experiments.benchmarks.lanes.report import OURS, WHOLE_STEP, plot, report
from rnnreg.plotting import save


@dataclass(frozen=True)
class Config:
    """What to time, and where the numbers go."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where everybody runs; on a GPU in true float32."""
    cells: tuple[Literal["elman", "gru", "lstm"], ...] = ("elman", "gru", "lstm")
    """Cells."""
    sizes: tuple[int, ...] = (16, 32, 64, 128)
    """Hidden sizes H."""
    lanes: int | None = None
    """Networks M; by default 64, and 32 where H is above 64."""
    batch: int = 32
    """Rows B."""
    time: int = 100
    """Steps T."""
    peers: tuple[Literal["torch", "keras", "flax", "equinox"], ...] = tuple(PEERS)  # type: ignore[assignment]
    """Beside whom; `--peers` alone for nobody."""
    all_plans: bool = False
    """Time the library's alternatives too: the fused recurrence, the plain scan, and vmap over the lanes."""
    rounds: int = 7
    """Turns of each contender."""
    json: Path = Path("results/benchmarks/lanes.json")
    """Where the numbers go, after each size."""
    figure: Path = Path("results/benchmarks/lanes")
    """Where the figure goes, as .png and .pdf."""
    from_json: Path | None = None
    """Measure nothing: print the table and draw the figure of this file."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {"sizes": (8, 16), "lanes": 4, "batch": 8, "time": 20, "rounds": 3},
}


def measure(config: Config, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Every cell and size; the numbers so far are written after each.

    Returns:
      What is written: `rows`, `matmul_gflops`, `environment`, `missing`.
    """
    missing = find_missing(config.peers, config.device)
    for name, reason in missing.items():
        say(f"{name} is missing, and not compared: {reason}")
    present = [name for name in config.peers if name not in missing]
    builders = [build for name in present for build in PEERS[name]]
    result: dict[str, Any] = {
        "rows": [],
        "matmul_gflops": None,
        "environment": machine(("torch", "keras", "equinox")),
        "missing": sorted(missing),
    }
    rates = []
    for cell in config.cells:
        for hidden in config.sizes:
            lanes = config.lanes or (64 if hidden <= 64 else 32)
            task = Task(cell, hidden, lanes, config.batch, config.time)
            rows, rate = measure_task(task, config, builders)
            rates.append(rate)
            result["rows"] += rows
            result["matmul_gflops"] = float(np.median(rates))
            write_json(config.json, result)
            say(f"{cell}, H = {hidden}: {_in_short(rows)}")
    return result


def measure_task(
    task: Task, config: Config, builders: Sequence[Callable[[Problem], Entry]]
) -> tuple[list[dict[str, Any]], float]:
    """The rows of one cell and size, and the GFLOP/s of the large product in the same rounds.

    Raises:
      RuntimeError: a contender's losses or gradients are not those of rnnreg.
    """
    problem = make_problem(task, device=config.device)
    entries = [ours(problem, who) for who in (OURS if config.all_plans else ["rnnreg"])]
    entries += [build(problem) for build in builders]
    for entry in entries:
        check(entry, entries[0])
    contenders = [contender for entry in entries for contender in entry.contenders]
    calls: dict[str, Callable[[], Any]] = {"matmul": matmul()}
    calls |= {f"{c.who} {c.what}": c.call for c in contenders}
    timings = interleave(calls, config.rounds)
    rate = matmul_flops() / timings["matmul"].median / 1e9
    rows = []
    for contender in contenders:
        row = make_row(task, contender, timings[f"{contender.who} {contender.what}"], rate, config)
        if contender.who == "keras":
            rows.append({**row, "what": "gradient", "plan": contender.plan + WHOLE_STEP})
        rows.append(row)
    return rows, rate


def check(entry: Entry, reference: Entry) -> None:
    """The same losses, and gradients of the same size, lane by lane.

    Raises:
      RuntimeError: they are not.
    """
    who = entry.contenders[0].who
    found = {"losses": (entry.losses, reference.losses)}
    if entry.recurrent is not None and reference.recurrent is not None:
        norms = [
            np.linalg.norm(leaf.reshape(len(leaf), -1), axis=-1) for leaf in (entry.recurrent, reference.recurrent)
        ]
        found["norms of the recurrent gradients"] = (norms[0], norms[1])
    for name, (theirs, expected) in found.items():
        shapes = theirs.shape == expected.shape
        if not shapes or not np.allclose(theirs, expected, rtol=1e-3, atol=1e-6):  # nor is NaN
            raise RuntimeError(
                f"{who} computes something else: its {name} are {theirs}, and those of rnnreg {expected}."
            )


def make_row(task: Task, contender: Contender, timing: Timing, matmul_gflops: float, config: Config) -> dict[str, Any]:
    """One line of the result; times in milliseconds."""
    gflops = task.flops / timing.median / 1e9
    return {
        "cell": task.cell,
        "hidden": task.hidden,
        "batch": task.batch,
        "time": task.time,
        "lanes": task.lanes,
        "who": contender.who,
        "what": contender.what,
        "plan": contender.plan,
        "milliseconds": 1e3 * timing.median,
        "low": 1e3 * timing.low,
        "high": 1e3 * timing.high,
        "gflops": gflops,
        "share_of_matmul": gflops / matmul_gflops,
        "device": config.device,
    }


def _in_short(rows: Sequence[Mapping[str, Any]]) -> str:
    rates = [f"{r['who']} {r['gflops']:.2f}" for r in rows if r["what"] == "gradient"]
    return ", ".join(rates) + " GFLOP/s"


def prepare(device: str) -> None:
    """JAX on the device, before its first array.

    Raises:
      RuntimeError: a GPU is asked for, and JAX sees none.
    """
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
        rr.use_all_cores()
        return
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs some memory too
    jax.config.update("jax_default_matmul_precision", "highest")  # float32, not TF32
    if jax.default_backend() != "gpu":
        raise RuntimeError(f"--device gpu, but JAX runs on {jax.default_backend()!r}: pip install -e '.[cuda]'.")


def main(config: Config) -> None:
    """Measure, or read what was measured; print the tables, draw the figure."""
    if config.from_json is None:
        prepare(config.device)
        result = measure(config, say=lambda line: print(line, flush=True))
        print(f"\nwritten to {config.json}\n")
    else:
        result = json.loads(config.from_json.read_text(encoding="utf-8"))
    print(report(result))
    if result["rows"]:
        save(plot(result), config.figure, close=True)


if __name__ == "__main__":
    main(command_line(Config, PRESETS))
