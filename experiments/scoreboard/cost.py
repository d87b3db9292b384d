"""What a training step costs with each method: CPU time of the compiled update over that without a regulariser."""

from __future__ import annotations

import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments.benchmarks._cost import Call, beside, compile_call, updates_in_a_row
from experiments.scoreboard.methods import NONE, Method
from experiments.scoreboard.runs import train_of
from experiments.scoreboard.tasks import Scored


def costs(task: Scored, methods: Mapping[str, Method], *, updates: int, rounds: int) -> dict[str, float]:
    """Median over rounds of CPU time over that of the step without a regulariser, in the same round, by name.

    Args:
        task: its cell, and a minibatch of its rows.
        methods: each measured alone, in the middle of its range.
        updates: steps of a call.
        rounds: calls of each, and of the baseline beside it.
    """
    rows = task.search.train
    batch = rr.data.take_rows(rows, np.arange(task.batch_size or len(rows.ys)))
    device = jax.devices()[0]

    def call_of(method: Method) -> Call:
        train = train_of(task, [] if method.name == NONE else [method], len(rows.ys))
        hyper = {"learning_rate": jnp.float32(1e-3)}
        if method.tunable:
            hyper[method.key] = jnp.float32(method.strength(0.5))
        state = jax.jit(train.init)(hyper, batch, key=jax.random.key(0))
        arguments = jax.device_put((state, batch, hyper), device)
        return compile_call(updates_in_a_row(train, updates), *arguments)[1]

    calls = {name: call_of(method) for name, method in methods.items() if name != NONE}
    seconds, without = beside(calls, call_of(methods[NONE]), rounds, clock=time.process_time)
    return {NONE: 1.0} | {name: float(np.median(seconds[name] / without[name])) for name in calls}
