"""The benchmark of growth, as a command."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rnnreg as rr
from experiments._harness import Claim, claims_table, command_line
from experiments.benchmarks._cost import write
from experiments.benchmarks.scaling import parts
from experiments.benchmarks.scaling.report import grouped, table

Part = Literal["sweep", "compile", "time", "lanes", "cores", "rows", "inputs"]
Rows = Sequence[Mapping[str, Any]]

MEASURE: dict[str, Callable[[Any], Iterable[dict[str, Any]]]] = {
    "sweep": parts.large_sweep,
    "compile": parts.compile_times,
    "time": parts.cost_of_time,
    "lanes": parts.cost_of_lanes,
    "cores": parts.weak_scaling,
    "rows": parts.split_rows,
    "inputs": parts.input_projection,
}


@dataclass(frozen=True)
class Config:
    """What to time, and where the numbers go."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    parts: tuple[Part, ...] = ("sweep", "compile", "time", "lanes", "cores", "rows", "inputs")
    """Which parts, always in this order."""
    cells: tuple[Literal["elman", "gru", "lstm"], ...] = ("elman", "gru", "lstm")
    """Cells, in every part but the sweep."""
    hidden: int = 32
    """Hidden size H of `compile`, `time` and `lanes`."""
    batch: int = 32
    """Rows B."""
    rounds: int = 15
    """Turns of each contender."""
    times: tuple[int, ...] = (10, 100, 1000, 10000)
    """Steps T of `compile` and `time`."""
    steps_a_call: int = 20000
    """Steps of time in a call of `time`, so that short sequences run often enough to be timed."""
    compile_lanes: tuple[int, ...] = (1, 16, 256)
    """Lanes of `compile`."""
    compile_rounds: int = 5
    """How often each program is compiled."""
    lanes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Lanes of `lanes`."""
    lane_updates: int = 5
    """Updates of a lane in a call of `lanes` and `cores`."""
    lanes_a_core: int = 16
    """Lanes on each core in `cores`."""
    sizes: tuple[int, ...] = (32, 64, 128)
    """Hidden sizes H of `cores` and `rows`."""
    updates: int = 10
    """Updates in a call of `rows` and `inputs`."""
    sweep_lanes: int = 10000
    """Lanes of `sweep`."""
    projection_sizes: tuple[int, ...] = (32, 128)
    """Hidden sizes H of `inputs`."""
    input_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    """Input features D of `inputs`."""
    json: Path = Path("results/benchmarks/scaling.json")
    """Where the numbers go, after each part."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {
        "cells": ("elman",),
        "hidden": 8,
        "batch": 4,
        "rounds": 3,
        "times": (10, 100),
        "steps_a_call": 100,
        "compile_lanes": (1, 4),
        "compile_rounds": 1,
        "lanes": (1, 2, 4),
        "lane_updates": 1,
        "lanes_a_core": 2,
        "sizes": (8,),
        "updates": 2,
        "sweep_lanes": 200,
        "projection_sizes": (8,),
        "input_sizes": (1, 32),
    },
}


AIM = "the library's own aim"


def claims_of(result: Mapping[str, Rows]) -> list[Claim]:
    """What is said about the parts that were measured."""
    return [claim for part, rows in result.items() for claim in CLAIMS[part](rows)]


def _compile_claims(rows: Rows) -> Iterator[Claim]:
    for (cell, axis), group in grouped(rows, "cell", "axis").items():
        last, name = group[-1], {"time": "T", "lanes": "lanes"}[axis]
        words = f"{cell}, compiling: {name} = {last['size']} over {group[0]['size']}"
        yield Claim(words, AIM).at_most(1.5, last["over_first"])
        if axis == "time":
            equations = [row["equations"] for row in group]
            words = f"{cell}, equations: most over fewest, any T"
            yield Claim(words, AIM).at_most(1.0, max(equations) / min(equations))


def _time_claims(rows: Rows) -> Iterator[Claim]:
    for (cell,), group in grouped(rows, "cell").items():
        full, sqrt = ({row["time"]: row for row in group if row["memory"] == memory} for memory in ("full", "sqrt"))
        last, short = max(full), min(full, key=lambda steps: abs(math.log(steps / 100)))
        slower = full[last]["milliseconds"] / full[short]["milliseconds"]
        again = sqrt[last]["milliseconds"] / full[last]["milliseconds"]
        saved = full[last]["temporary_bytes"] / sqrt[last]["temporary_bytes"]
        yield Claim(f"{cell}, a step of time: T = {last} over {short}", AIM).at_most(1.5, slower)
        yield Claim(f"{cell}, T = {last}: time of sqrt memory over full", AIM).at_most(1.5, again)
        yield Claim(f"{cell}, T = {last}: temporary bytes of full memory over sqrt", AIM).at_least(2.0, saved)


def _lanes_claims(rows: Rows) -> Iterator[Claim]:
    for (cell,), group in grouped(rows, "cell").items():
        last = group[-1]
        busy = next(row for row in group if row["devices"] == last["devices"])
        words = f"{cell}, a lane's update: {last['lanes']} lanes over {busy['lanes']}"
        yield Claim(words, AIM).at_most(1.2, last["milliseconds"] / busy["milliseconds"])


def _cores_claims(rows: Rows) -> Iterator[Claim]:
    if not rows:
        yield Claim("throughput of all cores over one", AIM).at_least(1.9, None)
    for row in rows:
        words = f"{row['cell']}, H = {row['hidden']}: throughput of {row['cores']} cores over one"
        yield Claim(words, AIM).at_least(0.95 * row["cores"], row["ratio"])


def _sweep_claims(rows: Rows) -> Iterator[Claim]:
    grown = rows[-1]["peak_after_mib"] - rows[0]["peak_before_mib"]
    yield Claim(f"growth of peak memory, {rows[-1]['lanes']} lanes, in MiB", AIM).at_most(500, grown)


def _rows_claims(rows: Rows) -> Iterator[Claim]:
    least = rr.lanes.load_calibration().split_rows_from
    for row in rows:
        if row["step_operations"] / row["cores"] >= least:  # the library would split by itself
            words = f"{row['cell']}, H = {row['hidden']}: rows on {row['cores']} cores, how much faster"
            yield Claim(words, AIM).at_least(1.0, row["ratio"])


def _inputs_claims(rows: Rows) -> Iterator[Claim]:
    for (cell, hidden), group in grouped(rows, "cell", "hidden").items():
        worst = max(r["ratio"] if r["chosen_inside"] else 1 / r["ratio"] for r in group)
        words = f"{cell}, H = {hidden}: input product as chosen over the other place, worst D"
        yield Claim(words, AIM).at_most(1.05, worst)


CLAIMS: dict[str, Callable[[Rows], Iterator[Claim]]] = {
    "sweep": _sweep_claims,
    "compile": _compile_claims,
    "time": _time_claims,
    "lanes": _lanes_claims,
    "cores": _cores_claims,
    "rows": _rows_claims,
    "inputs": _inputs_claims,
}


def main(config: Config) -> None:
    """Measure the parts; print tables and claims."""
    rr.use_all_cores()
    result: dict[str, list[dict[str, Any]]] = {}
    for part in (part for part in MEASURE if part in config.parts):
        result[part] = list(MEASURE[part](config))
        write(config.json, {"config": config, **result}, claims_of(result))
        print(f"{table(part, result[part])}\n", flush=True)
    print(claims_table(claims_of(result)))
    print(f"\nwritten to {config.json}")


if __name__ == "__main__":
    main(command_line(Config, PRESETS))
