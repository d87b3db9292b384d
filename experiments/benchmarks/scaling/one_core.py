"""A process that may use one core only, and calls its lanes when it is asked to."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import jax

from experiments.benchmarks._cost import Task, lanes_call, one_call


class OneCore:
    """`OneCore(task, lanes, updates)()` runs the lanes once, in a process that the system keeps on one core.

    `place` counts the cores that this process may use. A context: the process ends with it. Raises `OSError` if the
    system cannot pin a process.
    """

    def __init__(self, task: Task, lanes: int, updates: int, *, place: int = 0):
        if not hasattr(os, "sched_setaffinity"):
            raise OSError("this system cannot keep a process on one core; leave the part `cores` out.")
        core = sorted(os.sched_getaffinity(0))[place]
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, task, lanes, updates, core))
        self.process.start()
        theirs.close()

    def __enter__(self) -> OneCore:
        return self

    def __call__(self) -> None:
        self.ask()
        self.wait()

    def ask(self) -> None:
        """Lets the process begin."""
        self.pipe.send("go")

    def wait(self) -> None:
        """Returns once it is done; raises `EOFError` if it has ended early."""
        self.pipe.recv()

    def __exit__(self, *error: Any) -> None:
        self.pipe.close()  # an end of input ends it
        self.process.join()


def _serve(pipe: Any, task: Task, lanes: int, updates: int, core: int) -> None:
    """Runs the lanes once each time it is asked."""
    os.sched_setaffinity(0, {core})  # before JAX counts cores for its threads
    plan = one_call(lanes, task.hidden, plan="one_by_one", devices=jax.devices()[:1])
    call = lanes_call(plan, task, updates)
    try:
        while True:
            pipe.recv()
            call()
            pipe.send("done")
    except EOFError:
        pass
