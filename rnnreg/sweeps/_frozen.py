"""Lanes that wait in memory between two stages of their training."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from rnnreg.sweeps._job import Job
from rnnreg.training import Run, recorded_so_far


class Frozen:
    """What the lanes of a job carry when a stage ends, until the next one goes on with them.

    It stands where a `Keeper` does. What lanes have recorded goes into the job's store, also if a stage is interrupted.

    Attributes:
      loaded: 0; there is no folder.
      resumed: 0, for the same reason.
      lane_program: None.
      program: the SHA-256 of the program that computed the last lanes; None before.
    """

    loaded, resumed, lane_program = 0, 0, None

    def __init__(self, job: Job, store: Run):
        self._settings, self._store = job.train.settings, store
        self._structure = jax.tree.structure(job.progress)
        self._before: dict[
            int, list[np.ndarray]
        ] = {}  # leaves of each lane, at the end of the last stage
        self._after: dict[int, list[np.ndarray]] = {}  # and of this one
        self._begin, self._end = 0, 0
        self._held: tuple[np.ndarray, int, Any] | None = None
        self.program: str | None = None

    def begin(self, begin: int, end: int) -> None:
        """A stage begins, of lanes that have done so many epochs, and ends after so many; others are forgotten."""
        self._begin, self._end = begin, end
        self._before, self._after = self._after, {}

    def resume(self, numbers: np.ndarray, program: str) -> tuple[int, Any] | None:
        """The epochs that are done of the lanes of a call, and what they carry; None if they have not begun."""
        if self._begin == 0:
            return None
        lanes = [self._before[number] for number in numbers.tolist()]
        leaves = [np.stack(leaf) for leaf in zip(*lanes, strict=True)]
        return self._begin, jax.tree.unflatten(self._structure, leaves)

    def hold(self, numbers: np.ndarray, done: int, carry: Any, program: str) -> None:
        """Takes what the lanes of a call carry after so many epochs."""
        self.program, self._held = program, (numbers, done, carry)
        if done == self._end:
            self._record()
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(carry)]
            self._after |= {
                n: [leaf[row] for leaf in leaves] for row, n in enumerate(numbers.tolist())
            }

    def add(self, numbers: np.ndarray, outputs: Run, program: str) -> None:
        """The lanes of a call are finished, and in the store."""
        self.program, self._held = program, None

    def mend(self) -> None:
        """Nothing can be damaged."""

    def __enter__(self) -> Frozen:
        return self

    def __exit__(self, *error: Any) -> None:
        self._record()

    def _record(self) -> None:
        """Puts what the lanes that are held have recorded into the store."""
        if self._held is None:
            return
        numbers, done, carry = self._held
        history, diverged_at, num_updates = recorded_so_far(self._settings, carry, done)
        for name, values in history.items():
            self._store.history[name][numbers] = values
        self._store.diverged_at[numbers], self._store.num_updates[numbers] = (
            diverged_at,
            num_updates,
        )
        self._held = None
