"""The lanes of a sweep dealt to the jobs of a cluster, or to the processes of JAX, which a folder joins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rnnreg._checks import described, is_count
from rnnreg.lanes import Plan

_SECONDS_A_LOOK = 0.5


class Part(NamedTuple):
    """Which of the lanes a call trains.

    Attributes:
      number: i, from 0.
      of: n, how many parts there are.
      joined: whether the call then waits for the others, and returns all lanes.
    """

    number: int = 0
    of: int = 1
    joined: bool = False

    def share(self, combinations: int) -> Fraction:
        """The share of one combination's lanes that a part has, if the parts share all combinations evenly."""
        return min(Fraction(1), Fraction(combinations, self.of))


def read_part(shard: Any, keep: Path | None) -> Part:
    """The part that is asked for; by default all lanes, or those of this process if JAX runs as several.

    Args:
      shard: (i, n), or None.
      keep: the folder that joins the parts.

    Raises:
      ValueError: no such part, or no folder.

    >>> read_part((1, 4), Path("night"))
    Part(number=1, of=4, joined=False)
    """
    if shard is None:
        part = Part(jax.process_index(), jax.process_count(), joined=jax.process_count() > 1)
        if part.joined and keep is None:
            raise ValueError(
                f"JAX runs as {part.of} processes, which share the lanes of a sweep through a folder: give keep=, one "
                "that all of them see. With shard=(0, 1) each process trains all lanes."
            )
        return part
    pair = isinstance(shard, Sequence) and not isinstance(shard, str) and len(shard) == 2
    if not (pair and is_count(shard[0], least=0) and is_count(shard[1]) and shard[0] < shard[1]):
        raise ValueError(
            f"shard must be (i, n), the part i of 0 … n − 1, such as (0, 4); got {described(shard)}."
        )
    part = Part(int(shard[0]), int(shard[1]))
    if part.of > 1 and keep is None:
        raise ValueError(
            f"shard={tuple(part[:2])} needs keep=, the folder in which the {part.of} parts meet."
        )
    return part


def own_lanes(plans: Sequence[Plan], part: Part) -> list[np.ndarray]:
    """Of each plan, `[L]`, whether a lane is in the part, in the order in which lanes run.

    What runs together stays together: a lane if each runs alone, else a call. These are dealt in rounds, one to each
    part, in an order that differs from round to round: so each part spans the grid, whatever its lengths.

    Args:
      plans: of each static combination.
      part: the part.

    Raises:
      ValueError: more parts than lanes.

    >>> from rnnreg.lanes import make_plan
    >>> plans = [make_plan(6, plan="one_by_one", devices=jax.devices()[:1])]
    >>> one, other = (own_lanes(plans, Part(number, 2))[0] for number in range(2))
    >>> int(one.sum()), bool((one ^ other).all())
    (3, True)
    """
    lanes = sum(plan.num_lanes for plan in plans)
    if part.of > lanes and not part.joined:
        raise ValueError(
            f"shard={tuple(part[:2])} deals {lanes} lanes to {part.of} parts; give at most {lanes} parts."
        )
    alone = ("one_by_one", "split_rows")
    units = [
        np.arange(each.num_lanes) // (1 if each.name in alone else each.width) for each in plans
    ]
    ends = np.cumsum([each[-1] + 1 for each in units])
    rounds = np.tile(np.arange(part.of), (-(-int(ends[-1]) // part.of), 1))
    order = np.random.default_rng(0).permuted(rounds, axis=1).reshape(-1)
    starts = [0, *ends[:-1]]
    return [order[start + each] == part.number for start, each in zip(starts, units, strict=True)]


def join_others(done: Sequence[Any], keepers: Sequence[Any], *, progress: bool) -> list[Any]:
    """What was computed of each job, with the lanes of the other processes, once they are in the folder.

    Nothing waits if a job was stopped, or if lanes could not be written, for which the others would wait for ever. It
    need not know whether the others live: if one dies, JAX ends this process too, after the
    `heartbeat_timeout_seconds` of `jax.distributed.initialize`.

    Args:
      done: of each job.
      keepers: of each, what loads its lanes.
      progress: show a bar after a few seconds.
    """
    from tqdm import tqdm

    def left():
        return sum(int((~one.finished).sum()) for one in done)

    stopped, total = next((one.stopped for one in done if one.stopped is not None), None), left()
    if stopped is None and (lanes := sum(keeper.unwritten for keeper in keepers)):
        stopped = OSError(f"{lanes} lanes could not be written, and other processes wait for them.")
    try:
        with tqdm(total=total, unit="lane", desc="others", delay=3, disable=not progress) as bar:
            while left() and stopped is None:
                time.sleep(_SECONDS_A_LOOK)
                for one, keeper in zip(done, keepers, strict=True):
                    keeper.load(one.store, one.finished)
                bar.update(total - left() - bar.n)
    except (KeyboardInterrupt, SystemExit, OSError) as error:
        stopped = error
    return [
        one._replace(loaded=keeper.loaded, fingerprint=keeper.program, stopped=stopped)
        for one, keeper in zip(done, keepers, strict=True)
    ]
