"""What the benchmarks of the library's own costs share: one training step, timed in pairs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from threadpoolctl import ThreadpoolController

import rnnreg as rr
from experiments._harness import Claim, commit, plain, write_json
from experiments.benchmarks._measure import interleave, machine, quartiles

LEARNING_RATE = 1e-2

Call = Callable[[], Any]


class Task(NamedTuple):
    """One network and its batch.

    Attributes:
      cell: "elman", "gru" or "lstm".
      hidden: H.
      time: steps T.
      batch: rows B.
      inputs: input features D.
    """

    cell: str
    hidden: int
    time: int = 100
    batch: int = 32
    inputs: int = 2

    def data(self) -> rr.Batch:
        """Normal inputs and targets."""
        rng = np.random.default_rng(0)
        xs = rng.normal(size=(self.batch, self.time, self.inputs))
        ys = rng.normal(size=(self.batch, self.time, 1))
        return rr.Batch(jnp.asarray(xs, jnp.float32), jnp.asarray(ys, jnp.float32))

    def shapes(self) -> rr.Batch:
        """The shapes of that batch, without its numbers."""
        return rr.Batch(
            jax.ShapeDtypeStruct((self.batch, self.time, self.inputs), jnp.float32),
            jax.ShapeDtypeStruct((self.batch, self.time, 1), jnp.float32),
        )

    def train(
        self,
        *,
        penalties: Mapping[str, rr.penalties.Penalty] | None = None,
        optimizer: optax.GradientTransformation | None = None,
        epochs: int = 1,
        record_every: int | None = None,
        track: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> rr.Train:
        """The training run, by SGD where nothing else is given; `options` are those of `rr.network`."""
        cell = getattr(rr.cells, self.cell)(self.hidden)
        return rr.make_train(
            rr.network([cell], output_size=1, **options),
            loss=rr.losses.squared_error("mean"),
            penalties=penalties,
            optimizer=optax.sgd(LEARNING_RATE) if optimizer is None else optimizer,
            num_epochs=epochs,
            record_every=record_every,
            track=track,
        )


def updates_in_a_row(train: rr.Train, count: int) -> Callable[..., Any]:
    """`run(state, batch, hyper) -> state` after `count` updates in one loop: a call's own cost does not count."""

    def run(state: Any, batch: rr.Batch, hyper: Mapping[str, Any]) -> Any:
        def body(_: Any, state: Any) -> Any:
            # Minibatches differ: what is computed from the batch alone must not move out of the loop.
            step, fresh = jax.lax.optimization_barrier((state.step, batch))
            return train.update(state._replace(step=step), hyper, fresh)[0]

        return jax.lax.fori_loop(0, count, body, state)

    return run


def one_lane(train: rr.Train, count: int) -> Callable[[Any, Any], Any]:
    """`function(lane, shared)` of `rr.lanes`: a network from the lane's seed, `count` updates on the shared batch."""
    run = updates_in_a_row(train, count)

    def function(lane: Mapping[str, Any], batch: rr.Batch) -> Any:
        hyper = {"l2": lane["l2"]}
        state = train.init(hyper, batch, key=jax.random.fold_in(jax.random.key(0), lane["seed"]))
        return run(state, batch, hyper).params

    return function


def lanes_of(count: int) -> dict[str, jax.Array]:
    """So many lanes for `one_lane`: λ and seed of each."""
    return {"l2": jnp.linspace(0, 1e-3, count), "seed": jnp.arange(count, dtype=jnp.uint32)}


def compile_updates(train: rr.Train, task: Task, count: int, *, device: Any = None) -> tuple[Any, Call]:
    """The compiled program of `count` updates, and a call that runs it from the same start each time.

    Args:
      train: the run.
      task: its batch.
      count: updates a call.
      device: where it runs; None leaves it to the program (rows that are split use all devices).
    """
    hyper = dict.fromkeys(train.settings.penalties, 1e-4)
    batch = task.data()
    state = jax.jit(train.init)(hyper, batch, key=jax.random.key(0))
    arguments = (state, batch, {name: jnp.float32(lam) for name, lam in hyper.items()})
    if device is not None:
        arguments = jax.device_put(arguments, device)
    return compile_call(updates_in_a_row(train, count), *arguments)


def compile_call(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Call]:
    """The function compiled for its arguments, and a call on them that returns once its work is done."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, ready_call(compiled, *arguments)


def ready_call(compiled: Any, *arguments: Any) -> Call:
    """A call of a compiled program, with its arguments where it wants them."""
    placed = jax.device_put(arguments, compiled.input_shardings[0])
    return lambda: jax.block_until_ready(compiled(*placed))


def one_call(lanes: int, hidden: int, *, plan: str = "auto", devices: Any = None) -> rr.lanes.Plan:
    """The library's plan for so many lanes, all in one call."""
    made = rr.lanes.make_plan(lanes, hidden_size=hidden, lane_seconds=1e-9, plan=plan, devices=devices)
    return dataclasses.replace(made, width=made.width * made.num_calls)


def compile_lanes(
    function: Callable[..., Any], plan: rr.lanes.Plan, lanes: Any, shared: Any
) -> tuple[Any, tuple[Any, Any]]:
    """What runs the lanes of one call as `rr.lanes.Program` does, and its arguments where it wants them.

    Under `vmap` results stay on the devices, as with the peers; else they are NumPy arrays.
    """
    if plan.name != "vmap" or (len(plan.devices) > 1 and plan.devices[0].platform == "cpu"):
        return rr.lanes.Program(function, plan, lanes, shared).collect, (lanes, shared)
    compiled = rr.lanes.trace(function, plan, lanes, shared).lower().compile()
    call = rr.lanes.first_call(plan, lanes)
    (lanes, turns), shared = jax.device_put((call, shared), compiled.input_shardings[0])
    return lambda lanes, shared: compiled((lanes, turns), shared), (lanes, shared)


def lanes_call(plan: rr.lanes.Plan, task: Task, updates: int) -> Call:
    """A call that trains every lane of a plan for so many updates."""
    function = one_lane(task.train(penalties={"l2": rr.penalties.l2()}), updates)
    compiled, placed = compile_lanes(function, plan, lanes_of(plan.width), task.data())
    threads = ThreadpoolController()

    def call() -> Any:
        with threads.limit(limits=1, user_api="blas"):  # as `Program.run` does
            return jax.block_until_ready(compiled(*placed))

    return call


def record(
    calls: Mapping[str, Call],
    rounds: int,
    *,
    rest_seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Seconds of each call in each round, `[rounds]`, timed in turn (see `interleave`).

    On a machine that others use too, `clock=time.process_time` counts what this process computes alone.

    >>> record({"a": lambda: None}, 3, rest_seconds=0)["a"].shape
    (3,)
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}

    def recorded(name: str) -> Call:
        def call() -> None:
            start = clock()
            calls[name]()
            seconds[name].append(clock() - start)

        return call

    turns = {name: recorded(name) for name in calls}
    interleave(turns, rounds, turn_seconds=0, rest_seconds=rest_seconds)  # a turn is one call
    return {name: np.array(values[-rounds:]) for name, values in seconds.items()}


def beside(
    calls: Mapping[str, Call],
    baseline: Call,
    rounds: int,
    *,
    rest_seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Seconds of each call, and those of the baseline just before or after it, `[rounds]` each.

    Whatever slows the machine for longer than two calls divides out of their ratio, round by round.
    """
    turns: dict[str, Call] = {}
    for name, call in calls.items():
        turns |= {f"before {name}": baseline, name: call}
    seconds = record(turns, rounds, rest_seconds=rest_seconds, clock=clock)
    return {n: seconds[n] for n in calls}, {n: seconds[f"before {n}"] for n in calls}


def compared(call: Call, name: str, baseline: Call, config: Any, *, speedup: bool = False) -> dict[str, float]:
    """A call of `config.updates` updates next to a baseline: milliseconds of both, and the ratio of their times."""
    seconds, before = (found["call"] for found in beside({"call": call}, baseline, config.rounds))
    scale = 1e3 / config.updates
    return {
        **entries("milliseconds", seconds, scale=scale),
        f"milliseconds_{name}": scale * quartiles(before).median,
        **entries("ratio", before / seconds if speedup else seconds / before),
    }


def entries(name: str, values: np.ndarray, *, scale: float = 1.0) -> dict[str, float]:
    """Median and quartiles as entries of a row.

    >>> entries("ratio", np.array([1.0, 2.0, 3.0, 4.0, 5.0]), scale=2)
    {'ratio': 6.0, 'ratio_low': 4.0, 'ratio_high': 8.0}
    """
    found = quartiles(scale * values)
    return {name: found.median, f"{name}_low": found.low, f"{name}_high": found.high}


def spread(name: str, title: str, form: str, unit: str = "") -> dict[str, str]:
    """Columns of `format_table` for what `entries` put in a row: the median, and the quartiles.

    >>> spread("ratio", "times", ".1f")
    {'times': '{ratio:.1f}', 'quartiles': '{ratio_low:.1f} to {ratio_high:.1f}'}
    """
    ends = f"{{{name}_low:{form}}} to {{{name}_high:{form}}}"
    return {title: f"{{{name}:{form}}}{unit}", "quartiles": ends + unit}


def write(path: Path, result: Mapping[str, Any], claims: Sequence[Claim]) -> None:
    """The result as JSON, with its claims and where it was measured; an interruption leaves the file as it was."""
    environment = {**machine(), "commit": commit()}
    content = {**result, "claims": list(claims), "environment": environment}
    write_json(path, plain(content))
