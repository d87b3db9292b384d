"""The lanes of a sweep in stages: what is asked for trains on from where it is, for searches that drop trials."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from rnnreg.sweeps._axes import read_seeds, read_static
from rnnreg.sweeps._bar import Bar
from rnnreg.sweeps._compute import Done, run_jobs
from rnnreg.sweeps._ended import attach
from rnnreg.sweeps._frozen import Frozen
from rnnreg.sweeps._label import empty
from rnnreg.sweeps._parts import Part
from rnnreg.sweeps._request import Request
from rnnreg.sweeps._result import SweepResult
from rnnreg.sweeps._run import labelled, make_jobs
from rnnreg.sweeps._signals import Signals


class Stages:
    """The lanes of a sweep, which train when they are asked to, and wait in memory in between.

    A trial is a combination of values of all axes, static ones included; its lanes are its seeds and folds, and they
    train together. A lane that is trained in stages does what it does in a sweep, to the bit if lanes run one by one on
    a CPU.

    Attributes:
      shape: static axes × axes of the grid: its product is the number of trials.
      lanes_per_trial: seeds × folds.
      updates: of a whole run of each trial, `shape`.
      settings: of the runs; in the number of epochs and the record stride those of all static combinations are equal.
    """

    def __init__(
        self,
        train: Any,
        grid: Any,
        data: Any,
        *,
        key: Any,
        seeds: Any,
        folds: Any,
        static: Any,
        params: Any,
        plan: Any,
        width: Any,
        chunk: Any,
        max_memory: Any,
    ):
        """Checks all that `rr.sweep` checks, with the same arguments; nothing compiles.

        Raises:
          ValueError: bad arguments, or static combinations that train for different numbers of epochs.
        """
        self._static = read_static(static)
        self._request = Request(
            grid, key, read_seeds(seeds), folds, False, plan, width, chunk, max_memory
        )
        self._jobs = make_jobs(train, data, self._request, static=self._static, params=params)
        nothing = [np.zeros(job.plan.num_lanes, dtype=bool) for job in self._jobs]
        self._done = [
            Done(empty(job), none.copy(), none)
            for job, none in zip(self._jobs, nothing, strict=True)
        ]
        self._frozen = [
            Frozen(job, one.store) for job, one in zip(self._jobs, self._done, strict=True)
        ]
        first, settings = self._jobs[0], [job.train.settings for job in self._jobs]
        for name in ("num_epochs", "record_every", "keep_best", "monitor"):
            values = [getattr(each, name) for each in settings]
            if len(set(values)) > 1:
                raise ValueError(
                    f"trials are compared after equal numbers of epochs, and {name} is {values} for the static values "
                    f"{[job.static for job in self._jobs]}. Give all of them one."
                )
        self.settings = settings[0]
        self.shape = (*map(len, self._static.values()), *first.shape[2:])
        self.lanes_per_trial = first.shape[0] * first.shape[1]
        of_job = np.array([job.cost.updates for job in self._jobs])[:, None]
        self.updates = np.broadcast_to(of_job, (len(of_job), np.prod(first.shape[2:], dtype=int)))
        self.updates = self.updates.reshape(self.shape)
        self._epochs = np.zeros(self.shape, dtype=int)
        self._signals: Signals | None = None

    @contextlib.contextmanager
    def running(self, trial_epochs: int, *, name: str, progress: bool) -> Iterator[None]:
        """The time in which lanes train; an error that leaves it has `partial_result`, the `SweepResult` so far.

        Args:
          trial_epochs: of all trials in all stages, for the progress bar.
          name: of what runs, for the bar.
          progress: whether to show it.
        """
        total = trial_epochs * self.lanes_per_trial / self.settings.num_epochs
        with Signals() as self._signals:
            try:
                with Bar(total, shown=progress, name=name) as self._bar:
                    yield
                self._signals.answer()  # one that came meanwhile
            except (KeyboardInterrupt, SystemExit, Exception) as error:
                attach(error, self._done, self.result)
                raise

    def advance(self, trials: np.ndarray, num_epochs: int) -> None:
        """Trains some trials until they have done so many epochs; the others of the last stage are forgotten.

        Args:
          trials: bool, `shape`; they have all done the same number of epochs, none or those of the last stage.
          num_epochs: up to which they train.

        Raises:
          KeyboardInterrupt, SystemExit, Exception: what ends it.
        """
        (begin,) = set(self._epochs[trials].tolist())
        of_jobs = np.reshape(trials, (len(self._jobs), -1))
        for number, (frozen, own) in enumerate(zip(self._frozen, of_jobs, strict=True)):
            frozen.begin(begin, num_epochs)
            lanes = np.tile(own, self.lanes_per_trial)  # seeds × folds × axes
            self._done[number] = self._done[number]._replace(own=lanes)
        assert self._signals is not None  # inside `running`
        stage = (begin, num_epochs)
        self._done = run_jobs(
            self._jobs, self._done, self._frozen, self._signals, self._bar, stage=stage
        )
        for one in self._done:
            if one.stopped is not None:
                raise one.stopped
        self._epochs[trials] = num_epochs

    def result(self, *, ensembles: bool = True) -> SweepResult:
        """What was computed so far.

        Lanes that are on their way, or were dropped, are not finished: their histories end with what they have
        recorded, `diverged_at` and `num_updates` say how far they came, and all else of them is NaN.

        Args:
          ensembles: whether predictions and the scores of their means are there, which take time.
        """
        return labelled(
            self._jobs, self._done, self._request, self._static, Part(), ensembles=ensembles
        )
