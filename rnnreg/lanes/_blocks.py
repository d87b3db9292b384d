"""Lanes in blocks of steps: calls that take a second or two, however long a lane is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from rnnreg.lanes._program import Program

_SECONDS_A_BLOCK = 1.5
# The first block of a sweep goes by an estimate, which may be several times too low.
_SECONDS_AT_FIRST = 0.25
_MOST_GROWTH = 8


class Pace:
    """How many steps a block takes: so many that it lasts a second or two, as the block before says.

    The number is an argument of the program, so that all blocks run one program.

    >>> pace = Pace(num_steps=1000, call_seconds=10.0)
    >>> pace.end_of(0)
    25
    >>> pace.note(25, seconds=0.5)
    >>> pace.end_of(25), pace.end_of(990)
    (100, 1000)
    """

    def __init__(self, num_steps: int, call_seconds: float):
        self.num_steps = num_steps
        self._size = max(1, int(num_steps * _SECONDS_AT_FIRST / max(call_seconds, 1e-9)))

    def end_of(self, first: int) -> int:
        """The steps that are done after a block, if `first` of them are done before."""
        return min(first + self._size, self.num_steps)

    def note(self, steps: int, seconds: float) -> None:
        """Learns how long a block of so many steps took."""
        wanted = steps * _SECONDS_A_BLOCK / max(seconds, 1e-9)
        self._size = max(1, int(min(wanted, _MOST_GROWTH * max(steps, self._size))))


class Block(NamedTuple):
    """What there is after a block.

    Attributes:
      lanes: `[width]`, the lane in each place of the call; the last call is filled up with the last lane.
      true: `[width]`, the places that are not filled up.
      done: the steps that are done.
      carry: what the lanes carry, on the devices, leaves `[width, …]`.
    """

    lanes: np.ndarray
    true: np.ndarray
    done: int
    carry: Any


def run_blocks(
    program: Program,
    lanes: Any,
    shared: Any,
    start: Any,
    pace: Pace,
    resume: Callable[[np.ndarray], tuple[int, Any] | None] = lambda lanes: None,
) -> Iterator[Block]:
    """The lanes call by call, and each call block by block.

    Args:
      program: of `function((lane, carry), (shared, first, last)) -> carry`, which takes the steps of one lane from
        `first` up to `last`; two traced numbers.
      lanes: a tree whose leaves have a leading axis of lanes, `[L, …]`.
      shared: what all lanes share.
      start: what the lanes carry at first, leaves `[L, …]`.
      pace: how many steps a block takes.
      resume: for the lanes of a call, the steps that are done and what they carry then; None starts them.

    Yields:
      What there is after each block.
    """
    for numbers, rows in program.calls():
        chunk, carry = jax.tree.map(lambda leaf, rows=rows: leaf[rows], (lanes, start))
        first, carry = resume(rows) or (0, carry)
        while first < pace.num_steps:
            last, began = pace.end_of(first), time.perf_counter()
            carry = program((chunk, carry), (shared, np.int32(first), np.int32(last)))
            pace.note(last - first, time.perf_counter() - began)
            first = last
            yield Block(rows, numbers == rows, last, carry)
