"""Which lanes run in which call, on which device, and in which rows of the program that it calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

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


def calls(plan: Plan) -> Iterator[list[tuple[int, list[np.ndarray]]]]:
    """For each call what runs at the same time: the number of the home, and the rows of each execution there.

    Rows are lane numbers, `[devices, rows]`, −1 in a row that no lane has. Lanes are dealt to the devices in turn, so
    that early stops even out.
    """
    each = plan.width // plan.streams
    rows = each if plan.name == "vmap" else _TURNS * plan.chunk
    for call in range(plan.num_calls):
        numbers = np.full((plan.streams, -(-each // rows) * rows), -1)
        dealt = call * plan.width + np.arange(plan.width).reshape(each, plan.streams).T
        numbers[:, :each] = np.where(dealt < plan.num_lanes, dealt, -1)
        streams = [numbers] if homes(plan) == (None,) else list(numbers[:, None])
        pieces = [np.split(stream, stream.shape[1] // rows, axis=1) for stream in streams]
        yield [
            (stream // _STREAMS_A_DEVICE, [piece for piece in own if (piece >= 0).any()])
            for stream, own in enumerate(pieces)
        ]


def call_of(plan: Plan, numbers: np.ndarray, lanes: Any) -> tuple[Any, np.ndarray]:
    """The lanes of a call, `[devices · rows, …]`, filled up with copies; and how many turns each device takes."""
    rows = np.where(numbers < 0, numbers.max(), numbers).reshape(-1)
    turns = -(-(numbers >= 0).sum(axis=1) // plan.chunk)
    return jax.tree.map(lambda leaf: leaf[rows], lanes), turns.astype(np.int32)


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
    ((_, (rows, *_)), *_) = next(calls(plan))
    return call_of(plan, rows, lanes)
