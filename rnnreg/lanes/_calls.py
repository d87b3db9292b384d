"""Which lanes run in which call, on which device, and in which rows of the program that it calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rnnreg._signatures import typed
from rnnreg.lanes._plan import Plan

# Turns that one execution of a program takes at most, each of a lane or a chunk of lanes. The number is fixed, so that
# a program is the same for any number of lanes and devices, and small, for there is room for the outputs of each.
_TURNS = 4
# A CPU device of JAX runs so many programs at the same time, and lets others wait.
_STREAMS_A_DEVICE = 32


def homes(plan: Plan) -> tuple[Any, ...]:
    """The devices that the program of a plan is compiled for, one after another; (None,) if for all of them together.

    The cores of a CPU run one program, each in a thread of its own: so there are the same instructions for any number
    of them. XLA would make others for two devices than for one.
    """
    together = plan.name == "split_rows" or plan.devices[0].platform != "cpu"
    return (None,) if together else plan.devices[::_STREAMS_A_DEVICE]


def calls(plan: Plan) -> Iterator[np.ndarray]:
    """Lane numbers of each call, dealt to the devices in turn, so that early stops even out."""
    for call in range(plan.num_calls):
        numbers = call * plan.width + np.arange(plan.width)
        yield numbers.reshape(-1, plan.streams).T.reshape(-1)


def executions(plan: Plan) -> list[tuple[int, list[np.ndarray]]]:
    """What of a call runs at the same time: the number of the home, and the rows of each execution there.

    Rows are places in the call, `[devices, rows]`, −1 in a row that is not needed.
    """
    each = plan.width // plan.streams
    rows = each if plan.name == "vmap" else _TURNS * plan.chunk
    numbers = np.full((plan.streams, -(-each // rows) * rows), -1)
    numbers[:, :each] = np.arange(plan.width).reshape(plan.streams, each)
    streams = [numbers] if homes(plan) == (None,) else list(numbers[:, None])
    return [
        (number // _STREAMS_A_DEVICE, np.split(own, own.shape[1] // rows, axis=1))
        for number, own in enumerate(streams)
    ]


def inputs(plan: Plan, rows: np.ndarray, chunk: Any) -> tuple[Any, np.ndarray]:
    """The lanes of an execution, `[devices · rows, …]`, filled up with copies; and how many turns each device takes."""
    places = np.where(rows < 0, rows.max(), rows).reshape(-1)
    turns = -(-(rows >= 0).sum(axis=1) // plan.chunk)
    return jax.tree.map(lambda leaf: leaf[places], chunk), turns.astype(np.int32)


@typed
def first_call(plan: Plan, lanes: Any) -> tuple[Any, np.ndarray]:
    """What the program of a plan is traced for, and called with, beside what all lanes share.

    Args:
      plan: how lanes run.
      lanes: a tree whose leaves have a leading axis of lanes, `[L, …]`.

    Returns:
      The lanes of one execution, filled up with copies, and for each device how many of its rows (or chunks of rows) it
      takes. Under "vmap" it takes all of a call; else it has four turns, and a call may take several executions.

    >>> from rnnreg.lanes import make_plan
    >>> plan = make_plan(1, plan="one_by_one", devices=jax.devices()[:1])
    >>> lanes, turns = first_call(plan, np.array([7.0]))
    >>> lanes.tolist(), turns.tolist()
    ([7.0, 7.0, 7.0, 7.0], [1])
    """
    first = np.minimum(next(calls(plan)), plan.num_lanes - 1)  # by number, which serves keys too
    ((_, (rows, *_)), *_) = executions(plan)
    return inputs(plan, rows, jax.tree.map(lambda leaf: leaf[first], lanes))
