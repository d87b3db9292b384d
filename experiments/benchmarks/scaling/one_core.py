"""A process that may use one core only, and calls its lanes when it is asked to."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from experiments.benchmarks._cost import Task


class OneCore:
    """`OneCore(task, lanes, updates)()` runs the lanes once, in a process that the system keeps on one core.

    `place` counts the cores that this process may use. A context: the process ends with it. Raises `OSError` where the
    system cannot pin a process.
    """

    def __init__(self, task: Task, lanes: int, updates: int, *, place: int = 0):
        if not hasattr(os, "sched_setaffinity"):
            raise OSError(
                "this system cannot keep a process on one core; leave the part `cores` out."
            )
        core = sorted(os.sched_getaffinity(0))[place]
        arguments = [*map(str, task), str(lanes), str(updates), str(core)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "experiments.benchmarks.scaling.one_core", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> OneCore:
        return self

    def __call__(self) -> None:
        self.ask()
        self.wait()

    def ask(self) -> None:
        """Lets the process begin."""
        asked = self.process.stdin
        assert asked is not None
        asked.write("go\n")
        asked.flush()

    def wait(self) -> None:
        """Returns once it is done."""
        answers = self.process.stdout
        assert answers is not None
        if answers.readline().strip() != "done":
            raise RuntimeError("the process on one core ended early; its error stands above.")

    def __exit__(self, *error: Any) -> None:
        self.process.communicate()  # an end of input ends it


def serve(task: Task, lanes: int, updates: int) -> None:
    """Runs the lanes once for every line that comes in."""
    import jax

    from experiments.benchmarks._cost import one_call
    from experiments.benchmarks.scaling.parts import lanes_call

    call = lanes_call(
        one_call(lanes, task.hidden, plan="one_by_one", devices=jax.devices()[:1]), task, updates
    )
    for _ in sys.stdin:
        call()
        print("done", flush=True)


if __name__ == "__main__":
    cell, *numbers = sys.argv[1:]
    hidden, time, batch, inputs, lanes, updates, core = map(int, numbers)
    os.sched_setaffinity(0, {core})  # before JAX counts cores for its threads
    serve(Task(cell, hidden, time, batch, inputs), lanes, updates)
