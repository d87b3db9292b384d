"""The parts of the scaling benchmark: each takes the `Config` and yields rows of plain numbers."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments.benchmarks._cost import (
    Task,
    beside,
    compared,
    compile_updates,
    entries,
    lanes_call,
    lanes_of,
    one_call,
    one_lane,
    record,
)
from experiments.benchmarks._measure import quartiles
from experiments.benchmarks.lanes.problem import GATES
from experiments.benchmarks.scaling.one_core import OneCore

Row = dict[str, Any]

MEBIBYTE = 2**20


def compile_times(config: Any) -> Iterator[Row]:
    """Seconds to trace, lower and compile, and equations, against T (one update) and against lanes."""
    for cell in config.cells:
        task = Task(cell, config.hidden, batch=config.batch)
        by_time = {steps: _update_of(task._replace(time=steps)) for steps in config.times}
        by_lanes = {lanes: _sweep_of(task, lanes) for lanes in config.compile_lanes}
        for axis, programs in (("time", by_time), ("lanes", by_lanes)):
            for row in _compile(programs, config.compile_rounds):
                yield {**task._asdict(), "axis": axis, **row}


def _compile(programs: dict[int, Callable[[], Any]], rounds: int) -> Iterator[Row]:
    """Programs by size; each is a function that traces from nothing."""

    def fresh(trace: Callable[[], Any]) -> Callable[[], Any]:
        def call():
            jax.clear_caches()
            return trace().lower().compile()

        return call

    with _no_compilation_cache():
        seconds = record({str(size): fresh(trace) for size, trace in programs.items()}, rounds, rest_seconds=0)
    first = seconds[str(min(programs))]
    for size, trace in programs.items():
        yield {
            "size": size,
            "seconds": quartiles(seconds[str(size)]).median,
            "over_first": quartiles(seconds[str(size)] / first).median,
            "equations": count_equations(trace().jaxpr.jaxpr),
        }


def _update_of(task: Task) -> Callable[[], Any]:
    """Traces one training step; no array of that length is made."""

    def trace() -> Any:
        train = task.train(penalties={"l2": rr.penalties.l2()})
        hyper = {"l2": jax.ShapeDtypeStruct((), jnp.float32)}
        key = jax.eval_shape(lambda: jax.random.key(0))
        state = jax.eval_shape(lambda batch, key: train.init({"l2": 0.0}, batch, key=key), task.shapes(), key)
        return jax.jit(train.update).trace(state, hyper, task.shapes())

    return trace


def _sweep_of(task: Task, lanes: int) -> Callable[[], Any]:
    """Traces the program of so many lanes, all in one call."""

    def trace() -> Any:
        plan = one_call(lanes, task.hidden)
        function = one_lane(task.train(penalties={"l2": rr.penalties.l2()}), 1)
        return rr.lanes.trace(function, plan, lanes_of(1), task.shapes())

    return trace


def count_equations(jaxpr: Any) -> int:
    """Equations of a jaxpr and of all that are inside it."""
    count = len(jaxpr.eqns)
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                count += count_equations(inner)
    return count


@contextlib.contextmanager
def _no_compilation_cache() -> Iterator[None]:
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def cost_of_time(config: Any) -> Iterator[Row]:
    """Milliseconds a step of time and temporary bytes of a training step, with full and with sqrt memory."""
    for cell in config.cells:
        tasks, programs, calls = {}, {}, {}
        for steps, memory in product(config.times, ("full", "sqrt")):
            task, updates = Task(cell, config.hidden, steps, config.batch), max(1, config.steps_a_call // steps)
            name, device = f"{steps} {memory}", jax.devices()[0]
            tasks[name] = (task, memory, 1e3 / (updates * steps))
            programs[name], calls[name] = compile_updates(task.train(remat=memory), task, updates, device=device)
        seconds = record(calls, config.rounds)
        for name, (task, memory, scale) in tasks.items():
            yield {
                **task._asdict(),
                "memory": memory,
                **entries("milliseconds", seconds[name], scale=scale),
                "temporary_bytes": programs[name].memory_analysis().temp_size_in_bytes,
            }


def cost_of_lanes(config: Any) -> Iterator[Row]:
    """Milliseconds a lane and update against lanes, on all cores, by the plan that the library chooses."""
    for cell in config.cells:
        task = Task(cell, config.hidden, batch=config.batch)
        plans = {str(lanes): one_call(lanes, task.hidden) for lanes in config.lanes}
        calls = {lanes: lanes_call(plan, task, config.lane_updates) for lanes, plan in plans.items()}
        seconds = record(calls, config.rounds)
        for lanes, plan in plans.items():
            yield {
                **task._asdict(),
                "lanes": int(lanes),
                "plan": plan.name,
                "devices": len(plan.devices),
                **entries("milliseconds", seconds[lanes], scale=1e3 / (config.lane_updates * int(lanes))),
            }


def weak_scaling(config: Any) -> Iterator[Row]:
    """Throughput of all cores over that of one, the same number of lanes on each, one after another.

    One core is a process that may use no other: XLA's threads would help a large product in this one. `ceiling` is what
    so many of those processes, one on each core, reach at the same time: what the machine itself gives.
    """
    cores, lanes, updates = len(jax.devices()), config.lanes_a_core, config.lane_updates
    for cell, hidden in product(config.cells, config.sizes if cores > 1 else ()):
        task = Task(cell, hidden, batch=config.batch)
        plan = one_call(lanes * cores, hidden, plan="one_by_one")
        with contextlib.ExitStack() as stack:
            apart = [stack.enter_context(OneCore(task, lanes, updates, place=place)) for place in range(cores)]

            def at_once(apart: list[OneCore] = apart) -> None:
                for process in apart:
                    process.ask()
                for process in apart:
                    process.wait()

            calls = {"all": lanes_call(plan, task, updates), "apart": at_once}
            seconds, alone = beside(calls, apart[0], config.rounds)
        yield {
            **task._asdict(),
            "lanes_a_core": lanes,
            "cores": cores,
            **entries("seconds", seconds["all"]),
            "seconds_one": quartiles(alone["all"]).median,
            **entries("ratio", cores * alone["all"] / seconds["all"]),
            **entries("ceiling", cores * alone["apart"] / seconds["apart"]),
        }


def large_sweep(config: Any) -> Iterator[Row]:
    """Peak memory of the process before and after a sweep of very many tiny lanes."""
    task = Task("elman", 16, time=50, batch=8)
    train = task.train(penalties={"l2": rr.penalties.l2()}).with_epochs(4)
    seeds = min(100, config.sweep_lanes)
    for lambdas in sorted({1, max(1, config.sweep_lanes // seeds)}):
        before, start = peak_bytes(), time.perf_counter()
        grid: Mapping[str, Any] = {"l2": np.linspace(0, 1e-3, lambdas)}
        result = rr.sweep(train, grid, task.data(), seeds=seeds, key=jax.random.key(0), progress=False)
        yield {
            **task._asdict(),
            "lanes": int(result.metrics["finished"].size),
            "finished": int(result.metrics["finished"].sum()),
            "seconds": time.perf_counter() - start,
            "seconds_compile": result.config["seconds_compile"],
            "peak_before_mib": before / MEBIBYTE,
            "peak_after_mib": peak_bytes() / MEBIBYTE,
        }


def peak_bytes() -> int:
    """The largest resident set that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def split_rows(config: Any) -> Iterator[Row]:
    """A lone network with its rows split over all cores next to one core: how much faster a training step is."""
    devices = jax.devices()
    for cell, hidden in product(config.cells, config.sizes if len(devices) > 1 else ()):
        task = Task(cell, hidden, batch=config.batch)
        train = task.train()
        _, alone = compile_updates(train, task, config.updates, device=devices[0])
        _, split = compile_updates(train.split_rows(tuple(devices)), task, config.updates)
        yield {
            **task._asdict(),
            "cores": len(devices),
            "step_operations": 2.0 * task.batch * GATES[cell] * hidden**2,
            **compared(split, "one", alone, config, speedup=True),
        }


def input_projection(config: Any) -> Iterator[Row]:
    """A fused training step with the input product inside the loop over one with it before the loop, against D."""
    for cell, hidden, inputs in product(config.cells, config.projection_sizes, config.input_sizes):
        task, device = Task(cell, hidden, batch=config.batch, inputs=inputs), jax.devices()[0]
        inside, before = (
            compile_updates(task.train(backend="fused", projection=place), task, config.updates, device=device)[1]
            for place in ("inside", "before")
        )
        chosen = rr.explain(task.train(backend="fused").network({}), input_size=inputs)["layer_0"]
        yield {**task._asdict(), **compared(inside, "before", before, config), "chosen_inside": chosen.inside}
