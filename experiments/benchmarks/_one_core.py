"""A process that may use one core only, and calls its lanes when it is asked to."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from experiments.benchmarks._cost import Task


class OneCore:
    """`OneCore(task, lanes, updates)()` runs the lanes once, in a process that the system keeps on one core.

    A context: the process ends with it. Raises `OSError` where the system cannot pin a process.
    """

    def __init__(self, task: Task, lanes: int, updates: int):
        if not hasattr(os, "sched_setaffinity"):
            raise OSError(
                "this system cannot keep a process on one core; leave the part `cores` out."
            )
        arguments = [*map(str, task), str(lanes), str(updates)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "experiments.benchmarks._one_core", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        )

    def __enter__(self) -> OneCore:
        return self

    def __call__(self) -> None:
        asked, answers = self.process.stdin, self.process.stdout
        assert asked is not None
        assert answers is not None
        asked.write("go\n")
        asked.flush()
        if answers.readline().strip() != "done":
            raise RuntimeError("the process on one core ended early; its error stands above.")

    def __exit__(self, *error: Any) -> None:
        self.process.communicate()  # an end of input ends it


def serve(task: Task, lanes: int, updates: int) -> None:
    """Runs the lanes once for every line that comes in."""
    import jax

    from experiments.benchmarks._scaling import lanes_call, one_call

    call = lanes_call(one_call(lanes, task, jax.devices()[:1], how="one_by_one"), task, updates)
    for _ in sys.stdin:
        call()
        print("done", flush=True)


if __name__ == "__main__":
    cell, *numbers = sys.argv[1:]
    hidden, time, batch, inputs, lanes, updates = map(int, numbers)
    serve(Task(cell, hidden, time, batch, inputs), lanes, updates)
