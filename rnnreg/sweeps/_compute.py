"""What is computed of the jobs of a sweep: compiled, run call by call, and each call block by block.

Lanes train from their first epoch to their last, or from one stage to the next (`Frozen`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from rnnreg._checks import warn_caller
from rnnreg.lanes import Pace, Program, narrower, repacked, run_blocks
from rnnreg.sweeps._bar import Bar
from rnnreg.sweeps._frozen import Frozen
from rnnreg.sweeps._job import Job
from rnnreg.sweeps._keep import Keeper
from rnnreg.sweeps._lane import one_block
from rnnreg.sweeps._signals import Signals
from rnnreg.training import Run


class Done(NamedTuple):
    """What was computed of a job.

    Attributes:
      store: every lane's run, NaN if it did not finish.
      finished: `[L]`, whether it did.
      own: `[L]`, whether this call trains it.
      loaded: how many lanes came from a folder.
      resumed: how many lanes went on from a block that was in a folder.
      seconds_compile: time to lower and compile.
      seconds_compute: time of the calls.
      fingerprint: of the program; None if there was none.
      lane_program: that of one lane alone, if lanes are kept in a folder.
      compiled: how many programs were compiled, and not kept from an earlier sweep.
      stopped: what came first, Ctrl-C or an error; None if every lane ran.
    """

    store: Run
    finished: np.ndarray
    own: np.ndarray
    loaded: int = 0
    seconds_compile: float = 0.0
    seconds_compute: float = 0.0
    fingerprint: str | None = None
    lane_program: str | None = None
    compiled: int = 0
    stopped: BaseException | None = None
    resumed: int = 0

    @property
    def todo(self) -> np.ndarray:
        """`[L]`, whether this call has still to train a lane."""
        return self.own & ~self.finished


def run_jobs(
    jobs: list[Job],
    done: list[Done],
    keepers: Sequence[Keeper | Frozen | None],
    signals: Signals,
    bar: Bar,
    *,
    stage: tuple[int, int] | None = None,
) -> list[Done]:
    """The jobs one after another; after Ctrl-C or an error the rest stays unfinished.

    Args:
      jobs: one for each static combination; a plan that needs less memory takes the place of one that had too little.
      done: of each, what there is already, and which lanes to train.
      keepers: of each, what keeps lanes.
      signals: Ctrl-C and SIGTERM.
      bar: the progress bar.
      stage: the epochs that these lanes have done, and up to which they train now, if lanes wait in `Frozen` between
        two stages; None trains them from first to last.
    """
    done = list(done)
    for number, (job, keeper) in enumerate(zip(jobs, keepers, strict=True)):
        which = f" {number + 1} of {len(jobs)}" if len(jobs) > 1 else ""
        one = done[number]
        if keeper is not None:
            one = one._replace(
                loaded=keeper.loaded,
                fingerprint=keeper.program,
                lane_program=keeper.lane_program,
            )
        if one.todo.any() and all(each.stopped is None for each in done):
            one = _run_job(job, one, keeper, bar, signals, f"compiling{which} …", stage)
            while _out_of_memory(one.stopped) and (plan := narrower(job.plan)) is not None:
                warn_caller(
                    f"a device was out of memory with {job.plan.streams * job.plan.chunk} lanes at the same time; "
                    f"the sweep goes on with {plan.streams * plan.chunk}. Give max_memory= to begin with fewer."
                )
                jobs[number] = job = dataclasses.replace(job, plan=plan)
                one = one._replace(stopped=None)
                one = _run_job(job, one, keeper, bar, signals, "compiling …", stage)
        if keeper is not None and one.finished.all():
            keeper.mend()
        done[number] = one
    return done


def _out_of_memory(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def _run_job(
    job: Job,
    done: Done,
    keeper: Keeper | Frozen | None,
    bar: Bar,
    signals: Signals,
    compiling: str,
    stage: tuple[int, int] | None,
) -> Done:
    """The unfinished lanes of one job, compiled and run call by call, and each call block by block."""
    left = job.order[done.todo[job.order]]
    if stage is None:  # the lanes that a file goes on with have the company that they had
        plan = dataclasses.replace(job.plan, num_lanes=len(left))
    else:
        plan = repacked(job.plan, len(left))
    (lanes, start), shared = job.inputs(left)
    num_epochs = job.train.settings.num_epochs
    begin, end = stage or (0, num_epochs)
    seconds = 0.0
    try:
        with bar.compiling(compiling), signals.listening():
            program = Program(one_block, plan, (lanes, start), shared, owner=job.train)
        sha256 = program.fingerprint
        done = done._replace(
            seconds_compile=done.seconds_compile + program.compile_seconds,
            fingerprint=sha256,
            compiled=done.compiled + program.compiled_now,
        )

        def resume(rows):
            return keeper and keeper.resume(left[rows], sha256)

        began = time.perf_counter()
        stop_at_nan = jax.config.jax_debug_nans
        pace = Pace(end, job.call_seconds * end / num_epochs)
        # a lane marks with NaN what it has not, such as scores without rows
        with jax.debug_nans(False), keeper or contextlib.nullcontext():
            blocks = run_blocks(program, lanes, job.shared, start, pace, resume)
            while True:
                with signals.listening():
                    block = next(blocks, None)
                if block is None:
                    break
                numbers = left[block.lanes]
                seconds = time.perf_counter() - began
                share = block.true.sum() * (block.done - begin) / num_epochs
                if block.done < num_epochs:
                    (bar.add if block.done == end else bar.show)(share)
                    if keeper is not None:
                        keeper.hold(numbers, block.done, block.carry, sha256)
                    continue
                numbers, run = numbers[block.true], block.carry.run
                outputs = jax.tree.map(lambda leaf, b=block: np.asarray(leaf)[b.true], run)
                if keeper is not None:
                    keeper.add(numbers, outputs, sha256)
                _put(done.store, numbers, outputs)
                done.finished[numbers] = True
                bar.add(share)
                if stop_at_nan and (outputs.diverged_at >= 0).any():
                    raise FloatingPointError(
                        f"lanes {numbers[outputs.diverged_at >= 0].tolist()} diverged, and jax_debug_nans is on; run "
                        "one alone, train(hyper, data, key=key), to see where."
                    )
    except (KeyboardInterrupt, SystemExit, Exception) as error:
        done = done._replace(stopped=error)
    return done._replace(
        seconds_compute=done.seconds_compute + seconds,
        resumed=keeper.resumed if keeper else 0,
    )


def _put(store: Run, numbers: np.ndarray, outputs: Run) -> None:
    """Writes the outputs of some lanes into the store."""
    jax.tree.map(lambda kept, new: kept.__setitem__(numbers, new), store, outputs)
