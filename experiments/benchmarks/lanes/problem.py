"""What every contender does: loss and gradient of many networks on one batch, from the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import rnnreg as rr

GATES = {"elman": 1, "gru": 3, "lstm": 4}
LEARNING_RATE = 1e-3


class Task(NamedTuple):
    """Loss and gradients of M networks on one batch.

    Attributes:
      cell: "elman", "gru" or "lstm".
      hidden: H.
      lanes: M, networks with weights of their own.
      batch: B, rows that all lanes share.
      time: T.
      inputs: D.
      outputs: O.
    """

    cell: str
    hidden: int
    lanes: int
    batch: int = 32
    time: int = 100
    inputs: int = 2
    outputs: int = 1

    @property
    def flops(self) -> float:
        """2 · 3 · M · T · B · H · (G·H + G·D + O): every product once forwards and twice backwards.

        >>> Task("gru", hidden=10, lanes=2, batch=3, time=5).flops
        66600.0
        """
        gates = GATES[self.cell]
        width = gates * self.hidden + gates * self.inputs + self.outputs
        return 6.0 * self.lanes * self.time * self.batch * self.hidden * width


class Problem(NamedTuple):
    """A task with its numbers.

    Attributes:
      task: the sizes.
      params: our parameters as NumPy arrays, each with a leading axis of M lanes.
      xs: `[B, T, D]`.
      ys: `[B, T, O]`.
      device: "cpu" or "gpu".
    """

    task: Task
    params: dict[str, Any]
    xs: np.ndarray
    ys: np.ndarray
    device: str

    def lane(self, number: int) -> dict[str, Any]:
        """The parameters of one lane."""
        return jax.tree.map(lambda leaf: leaf[number], self.params)


class Contender(NamedTuple):
    """Something to time.

    Attributes:
      who: "rnnreg", "torch_loop", …
      what: "gradient" (losses and gradients) or "step" (those and an update by SGD).
      plan: how it does it, in a few words.
      call: does it once; returns when the work is done.
    """

    who: str
    what: str
    plan: str
    call: Callable[[], Any]


class Entry(NamedTuple):
    """What a tool brings to a task.

    Attributes:
      contenders: to time.
      losses: `[M]` at the given parameters.
      recurrent: `[M, …]`, gradients of the weights that multiply h, in the tool's own layout; None where it
        does not give gradients away.
    """

    contenders: list[Contender]
    losses: np.ndarray
    recurrent: np.ndarray | None


def network(task: Task, **options: Any) -> rr.Network:
    """The network of a task, as rnnreg has it."""
    cell = getattr(rr.cells, task.cell)(task.hidden)
    return rr.network([cell], task.outputs, **options)


def make_problem(task: Task, *, device: str = "cpu", seed: int = 0) -> Problem:
    """Normal inputs and targets, and each lane's weights: normal of variance 1 / rows, zero biases."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def draw(leaf):
        shape = (task.lanes, *leaf.shape)
        if leaf.ndim == 1:
            return np.zeros(shape, np.float32)
        return normal(*shape) / np.float32(np.sqrt(leaf.shape[0]))

    shapes = jax.eval_shape(lambda: network(task).init(jax.random.key(0), task.inputs))
    xs = normal(task.batch, task.time, task.inputs)
    ys = normal(task.batch, task.time, task.outputs)
    return Problem(task, jax.tree.map(draw, shapes), xs, ys, device)
