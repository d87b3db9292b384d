"""What looking at gradients costs, in training steps: each diagnostic beside one `Train.update` of the same batch.

Two questions. How many training steps does a diagnostic of one network on one batch cost? And how much longer does
training take when it records `track_gradient_flow` on its way? Each runs next to a training step, or a run, of its own
in every round; what is reported is the median of their ratios.

The claims: a gradient flow costs less than two training steps, and tracking it adds less than a tenth to a run whose
records are at least ten updates apart. The other diagnostics are reported without a claim; they do other work (a
split by lag keeps a gradient for every lag, a spectrum carries a frame of tangents).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

import rnnreg as rr
from experiments._harness import Claim, claims_table, command_line, format_table
from experiments.benchmarks._cost import Task, beside, compile_call, compile_updates, entries, spread, write
from experiments.benchmarks._measure import quartiles
from rnnreg.diagnostics import gradient_flow, lyapunov, path_lengths, saturation

LOSS = rr.losses.squared_error("mean")
LIMIT_STEPS = 2.0
LIMIT_PERCENT = 10.0
FEW_UPDATES = 10  # between two records; below, a record is a large part of what is done

Diagnostic = Callable[[rr.Network, Any, rr.Batch], Any]


@dataclass(frozen=True)
class Config:
    """What to time, and where the numbers go."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    cells: tuple[Literal["elman", "gru", "lstm"], ...] = ("elman", "gru", "lstm")
    """Cells."""
    hidden: tuple[int, ...] = (16, 64)
    """Hidden sizes H."""
    time: int = 100
    """Steps T."""
    batch: int = 32
    """Rows B."""
    inputs: int = 2
    """Input features D."""
    repeats: int = 5
    """Training steps, or diagnostics, a call."""
    strides: tuple[int, ...] = (2, 10, 40)
    """Updates between two records of a run that is tracked."""
    records: int = 2
    """Records of such a run."""
    rounds: int = 15
    """Pairs of calls."""
    json: Path = Path("results/benchmarks/diagnostics.json")
    """Where the numbers go, after each network."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {"cells": ("elman",), "hidden": (16,), "time": 20, "batch": 8, "repeats": 2, "rounds": 3},
}

DIAGNOSTICS: dict[str, Diagnostic] = {
    "gradient_flow": lambda net, params, batch: gradient_flow(net, LOSS, params, batch).log_ratio,
    "gradient_flow, whole state": lambda net, params, batch: (
        gradient_flow(net, LOSS, params, batch, wrt="state").log_ratio
    ),
    "saturation": lambda net, params, batch: saturation(net, params, batch.xs),
    "path_lengths, 10 lags": lambda net, params, batch: path_lengths(net, LOSS, params, batch, max_lag=9).shares,
    "lyapunov, 4 exponents": lambda net, params, batch: (
        lyapunov(net, params, batch.xs, num_exponents=4, num_batches=2).exponents
    ),
}


def in_a_row(diagnostic: Diagnostic, net: rr.Network, count: int) -> Callable[..., Any]:
    """`run(params, batch) -> number`, the diagnostic so many times in one loop, as the updates beside it are."""

    def run(params: Any, batch: rr.Batch) -> jax.Array:
        def body(_: Any, total: jax.Array) -> jax.Array:
            # as if the network were another one each time: nothing may move out of the loop
            total, seen, fresh = jax.lax.optimization_barrier((total, params, batch))
            found = jax.tree.leaves(diagnostic(net, seen, fresh))
            return total + sum(jnp.sum(jnp.asarray(leaf, jnp.float32)) for leaf in found)

        return jax.lax.fori_loop(0, count, body, jnp.float32(0))

    return run


def measure_costs(task: Task, config: Config) -> list[dict[str, Any]]:
    """A row for each diagnostic of one network: milliseconds, and how many training steps that is."""
    train = task.train(penalties={"l2": rr.penalties.l2()})
    net, batch = train.network({}), task.data()
    params = net.init(jax.random.key(0), task.inputs)
    device = jax.devices()[0]
    params, batch = jax.device_put((params, batch), device)
    calls = {
        name: compile_call(in_a_row(diagnostic, net, config.repeats), params, batch)[1]
        for name, diagnostic in DIAGNOSTICS.items()
    }
    update = compile_updates(train, task, config.repeats, device=device)[1]
    seconds, steps = beside(calls, update, config.rounds)
    scale = 1e3 / config.repeats
    return [
        {
            **task._asdict(),
            "diagnostic": name,
            **entries("milliseconds", seconds[name], scale=scale),
            "milliseconds_step": scale * quartiles(steps[name]).median,
            **entries("steps", seconds[name] / steps[name]),
            "device": device.device_kind,
        }
        for name in calls
    ]


def measure_track(task: Task, config: Config) -> Iterator[dict[str, Any]]:
    """A row for each stride: what recording the gradient flow adds to a run on the full batch, in per cent."""
    device = jax.devices()[0]
    batch = jax.device_put(task.data(), device)
    hyper = {"l2": jax.device_put(jnp.float32(1e-4), device)}
    for stride in config.strides:
        calls = {}
        for name, track in (("with", {"flow": rr.diagnostics.track_gradient_flow(LOSS)}), ("without", None)):
            train = task.train(
                penalties={"l2": rr.penalties.l2()}, epochs=stride * config.records, record_every=stride, track=track
            )
            state = jax.device_put(jax.jit(train.init)(hyper, batch, key=jax.random.key(0)), device)

            def advance(state, hyper, batch, train=train, stride=stride):
                return train.advance(state, hyper, batch, stride * config.records)

            calls[name] = compile_call(advance, state, hyper, batch)[1]
        seconds, without = beside({"with": calls["with"]}, calls["without"], config.rounds)
        added = entries("percent", seconds["with"] / without["with"] - 1, scale=100)
        yield {**task._asdict(), "updates_between_records": stride, **added, "device": device.device_kind}


def claims_of(costs: Sequence[Mapping[str, Any]], tracked: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Of every network: a gradient flow in training steps, and what tracking it adds."""
    aim = "the library's own aim"
    flows = [
        Claim(f"{row['cell']}, H = {row['hidden']}: {row['diagnostic']}, in training steps", aim).at_most(
            LIMIT_STEPS, row["steps"]
        )
        for row in costs
        if row["diagnostic"].startswith("gradient_flow")
    ]
    return flows + [
        Claim(
            f"{row['cell']}, H = {row['hidden']}: a record each {row['updates_between_records']} updates adds, in %",
            aim,
        ).at_most(LIMIT_PERCENT, row["percent"])
        for row in tracked
        if row["updates_between_records"] >= FEW_UPDATES
    ]


SIZE = {"cell": "{cell}", "H": "{hidden}"}
COSTS = {
    **SIZE,
    "diagnostic": "{diagnostic}",
    "ms": "{milliseconds:.3f}",
    "ms of a step": "{milliseconds_step:.3f}",
    **spread("steps", "steps", ".2f"),
}
TRACK = {**SIZE, "updates a record": "{updates_between_records}", **spread("percent", "track adds", "+.1f", " %")}


def main(config: Config) -> None:
    """Measure every network; print the tables and the claims."""
    rr.use_all_cores()  # as in a sweep: a device is a core
    costs: list[dict[str, Any]] = []
    tracked: list[dict[str, Any]] = []
    for cell in config.cells:
        for hidden in config.hidden:
            task = Task(cell, hidden, config.time, config.batch, config.inputs)
            costs += measure_costs(task, config)
            tracked += measure_track(task, config)
            result = {"config": config, "rows": costs, "track": tracked}
            write(config.json, result, claims_of(costs, tracked))
            print(f"{cell}, H = {hidden} done", flush=True)
    print(f"\nwritten to {config.json}\n\n{format_table(COSTS, costs)}\n\n{format_table(TRACK, tracked)}\n")
    print(claims_table(claims_of(costs, tracked)))


if __name__ == "__main__":
    main(command_line(Config, PRESETS))
