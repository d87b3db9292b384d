"""The finished lanes of a sweep in a folder: what is there is loaded, and what finishes is added."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rnnreg._checks import warn_caller
from rnnreg.lanes import Plan
from rnnreg.sweeps._facts import (
    description_of,
    differences,
    facts_of,
    facts_of_plan,
    lane_digests,
)
from rnnreg.sweeps._job import Job
from rnnreg.sweeps._request import Request
from rnnreg.sweeps._shards import (
    MANIFEST,
    Shard,
    read_manifest,
    read_shard,
    shard_of,
    shard_path,
    shard_paths,
    write_manifest,
    write_shard,
)
from rnnreg.sweeps._unfinished import Unfinished
from rnnreg.training import Run

# A shard a second loses little to a kill; and writing takes at most a fiftieth of the time, however slow the disk is.
_SECONDS_A_SHARD = 1.0
_TIMES_A_WRITE = 50


class Keeper:
    """The lanes of one job in a folder of their own; `with` writes what is left, whatever comes.

    Attributes:
      place: the folder.
      loaded: how many lanes were there already.
      program: the SHA-256 of the program that computed the last lanes; None if there are none.
      lane_program: that of one lane alone, whatever folds and lanes are with it.
      unfinished: the calls under way.
    """

    def __init__(self, folder: Path, job: Job):
        self.place, self.loaded = place_of(folder, job.static), 0
        self.program: str | None = None
        self._facts = json.loads(json.dumps(facts_of(job)))
        self.lane_program: str = self._facts["program"]
        self._digests = lane_digests(job)
        self._kinds = jax.tree.leaves(job.output)
        self._writer, self._number = secrets.token_hex(6), 0
        self._waiting: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self._since, self._pause = time.monotonic(), _SECONDS_A_SHARD
        self._failed = False
        self._read: set[Path] = set()
        self._unread: list[Path] = []
        self._foreign = 0  # files of a sweep that began at the same time
        self.unfinished = Unfinished(self.place, self._facts, job.progress)

    def compare(self, job: Job) -> None:
        """Raises a ValueError, which says in what they differ, if the folder keeps lanes of another sweep."""
        kept = _manifest(self.place)
        if kept is not None:
            both = (kept["described"], description_of(job))
            if lines := differences(kept["facts"], self._facts, described=both):
                raise ValueError(_refusal(self.place, lines))

    def declare(self, job: Job, request: Request) -> None:
        """Says in a manifest what the folder is about, if there is none.

        Raises:
          OSError: it cannot be written.
        """
        if read_manifest(self.place) is not None:
            return
        damaged = _manifest(self.place) is not None or (self.place / MANIFEST).exists()
        if read_manifest(self.place) is not None:  # another job wrote it in between
            return
        if damaged:
            warn_caller(f"{self.place / MANIFEST} was damaged or missing, and is written anew.")
        content = {"facts": self._facts, "described": description_of(job)}
        content |= {"asked": _asked(request), "reason": job.plan.reason}
        write_manifest(self.place, content)

    def load(self, store: Run, finished: np.ndarray) -> None:
        """Puts the lanes that are in the folder into the store, and marks them; of a file that was read, no more."""
        here, self._unread = shard_paths(self.place)
        wanted: dict[bytes, list[int]] = {}
        for number, digest in enumerate(self._digests):
            if not finished[number]:
                wanted.setdefault(digest, []).append(number)
        for path in here:
            if path in self._read:
                continue
            shard = read_shard(path)
            if shard is None:
                self._unread.append(path)
                continue
            self._read.add(path)
            if shard.facts != self._facts:
                self._foreign += 1
                continue
            found = [(row, n) for row, d in enumerate(shard.lanes) for n in wanted.pop(d, ())]
            self._fill(store, finished, shard, found)

    def _fill(self, store: Run, finished: np.ndarray, shard: Shard, found: list[Any]) -> None:
        if not found:
            return
        rows, numbers = (list(each) for each in zip(*found, strict=True))
        for room, new in zip(jax.tree.leaves(store), shard.take(rows, self._kinds), strict=True):
            room[numbers] = new
        finished[numbers] = True
        self.loaded += len(numbers)
        self.program = shard.program

    @property
    def unwritten(self) -> int:
        """How many finished lanes the folder did not take."""
        return sum(len(numbers) for numbers, _ in self._waiting)

    @property
    def resumed(self) -> int:
        """How many lanes went on from a block that was in the folder."""
        return self.unfinished.resumed

    def resume(self, numbers: np.ndarray, program: str) -> tuple[int, Any] | None:
        """The epochs that are done of the lanes of a call, and what they carry; None if nothing is kept of it."""
        return self.unfinished.find([self._digests[number] for number in numbers], program)

    def hold(self, numbers: np.ndarray, done: int, carry: Any, program: str) -> None:
        """Takes what the lanes of a call carry after so many epochs, which is on the disk some seconds later."""
        lanes = [self._digests[number] for number in numbers]
        self.unfinished.hold(lanes, done, carry, program)

    def add(self, numbers: np.ndarray, outputs: Run, program: str) -> None:
        """Takes the outputs of a call of a program, which are on the disk a second later."""
        self.program = program
        self.unfinished.over()
        self._waiting.append((numbers, jax.tree.leaves(outputs)))
        if time.monotonic() - self._since >= self._pause:
            self.flush()

    def flush(self) -> None:
        """Writes what waits. On a disk that takes nothing the sweep goes on, and writes again later."""
        start, waiting = time.monotonic(), list(self._waiting)
        if not waiting:
            return
        numbers = np.concatenate([each for each, _ in waiting])
        leaves = [
            np.concatenate(parts) for parts in zip(*(each for _, each in waiting), strict=True)
        ]
        lanes = [self._digests[number] for number in numbers]
        shard = shard_of(self._facts, self.program or "", lanes, leaves)
        try:
            write_shard(shard_path(self.place, self._writer, self._number), shard)
        except OSError as error:
            if not self._failed:
                warn_caller(
                    f"{len(lanes)} finished lanes could not be written to {self.place} ({error}); the sweep goes on, "
                    "and tries again later."
                )
            self._failed = True
        else:
            self._number += 1
            del self._waiting[: len(waiting)]
            self.unfinished.forget()
        self._since = time.monotonic()
        self._pause = max(_SECONDS_A_SHARD, _TIMES_A_WRITE * (self._since - start))

    def mend(self) -> None:
        """Once all lanes are there, puts a shard without lanes in the place of each that is damaged or missing, and
        removes what is left of calls under way.
        """
        if not self._waiting:
            self.unfinished.mend(set(self._digests))
        with contextlib.suppress(OSError):
            for path in self._unread:
                if not self._waiting and read_shard(path) is None:
                    write_shard(path, Shard(self._facts, "", [], []))

    def __enter__(self) -> Keeper:
        self._since = time.monotonic()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._put_away()
        except (KeyboardInterrupt, SystemExit):  # a third signal, or the handler of somebody else
            self._put_away()
            raise
        if self.unwritten:
            warn_caller(f"{self.unwritten} finished lanes could not be written to {self.place}.")

    def _put_away(self) -> None:
        self.flush()
        try:
            self.unfinished.flush()
        except (
            Exception
        ) as error:  # such as of a device that is gone: the first error is the one to tell
            warn_caller(f"what unfinished lanes have learned could not be kept: {error!r}.")


def open_keepers(
    folder: Path, jobs: Sequence[Job], request: Request, rooms: Sequence[tuple[Run, np.ndarray]]
) -> list[Keeper]:
    """The keeper of each job, after all that is kept was compared, loaded into the rooms and marked.

    Args:
      folder: that of the sweep.
      jobs: its jobs.
      request: what was asked.
      rooms: the store of each job, and which of its lanes are finished.

    Raises:
      ValueError: the folder keeps lanes of another sweep.
      OSError: it cannot be read or written.

    Warns:
      RuntimeWarning: shards are damaged, missing, or of another sweep; or the program calls Python, whose code is not
        compared.
    """
    keepers = [Keeper(folder, job) for job in jobs]
    for keeper, job in zip(keepers, jobs, strict=True):
        keeper.compare(job)
    for keeper, job in zip(keepers, jobs, strict=True):
        keeper.declare(job, request)
    for keeper, (store, finished) in zip(keepers, rooms, strict=True):
        keeper.load(store, finished)
    unread = [f"{keeper.place.name}/{path.name}" for keeper in keepers for path in keeper._unread]
    if unread:
        warn_caller(
            f"{len(unread)} files of {folder} are damaged or missing, and lanes that were in them run again when they "
            f"are asked for: {', '.join(unread)}."
        )
    if foreign := sum(keeper._foreign for keeper in keepers):
        warn_caller(
            f"{foreign} files of {folder} hold lanes of another sweep, which began at the same time, and are passed "
            "over: give each sweep a folder of its own."
        )
    if any(keeper.loaded and keeper._facts["calls_python"] for keeper in keepers):
        warn_caller(
            f"the program calls functions of Python, whose code is not compared with that of the lanes in {folder}: "
            "after a change of them give another folder."
        )
    return keepers


def with_kept_plan(folder: Path, static: dict[str, Any], request: Request) -> Request:
    """The request with the plan by which the lanes of a folder ran, if there are any.

    Raises:
      ValueError: another plan is asked for, or there are too few devices for it.
    """
    place = place_of(folder, static)
    kept = _manifest(place)
    if kept is None:
        return request
    plan, before = kept["facts"]["plan"], kept.get("asked", {})
    lines = [
        f"plan.{name}: kept {plan[name]!r}, asked {value!r}"
        for name, value in _asked(request).items()
        if name in plan and value not in (plan[name], before.get(name))
    ]
    ready, devices = isinstance(request.plan, Plan), jax.local_devices()
    fixed = "devices" in plan  # else each lane runs alone, on as many cores as there are
    if fixed and not ready and len(devices) < plan["devices"]:
        lines.append(
            f"plan.devices: kept {plan['devices']}, and JAX shows {len(devices)} (see rr.use_all_cores)"
        )
    if lines:
        raise ValueError(_refusal(place, lines))
    if ready:
        return request
    if not fixed:
        return request._replace(plan=plan["name"])

    def again(num_lanes):
        reason = kept.get("reason", "as an earlier sweep ran")
        own = tuple(devices[: plan["devices"]])
        return Plan(plan["name"], plan["width"], plan["chunk"], own, num_lanes, reason)

    return request._replace(kept=again)


def check_memory_of_kept(folder: Path, job: Job, request: Request) -> None:
    """Raises if lanes run together as they did in a folder, and that is more than `max_memory` allows now.

    Raises:
      ValueError: another number together would be other numbers.
    """
    together = job.plan.streams * job.plan.chunk
    needed = together * job.cost.lane_bytes
    if request.kept is not None and request.max_memory and needed > request.max_memory:
        raise ValueError(
            f"{place_of(folder, job.static)} keeps lanes of which {together} ran at the same time, in about {needed} "
            f"bytes, and max_memory={request.max_memory} allows fewer. With fewer together the numbers would be equal "
            "up to rounding only: give another folder as keep=, or more memory."
        )


def place_of(folder: Path, static: dict[str, Any]) -> Path:
    """The folder of a static combination.

    >>> place_of(Path("night"), {"hidden_size": 16}).as_posix()
    'night/hidden_size=16-2eda76aa'
    """
    text = json.dumps(static, sort_keys=True)
    name = "_".join(f"{name}={value}" for name, value in sorted(static.items())) or "lanes"
    safe = re.sub(r"[^\w.=+-]", "-", name)[:60]
    return folder / f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _manifest(place: Path) -> dict[str, Any] | None:
    """What a folder is about: its manifest, or what its first whole shard says; None if there is neither."""
    return next(_said(place), None)


def _said(place: Path) -> Iterator[dict[str, Any]]:
    content = read_manifest(place)
    if content is not None:
        yield content
    for path in shard_paths(place)[0]:
        shard = read_shard(path)
        if shard is not None:
            yield {"facts": shard.facts, "described": None}


def _asked(request: Request) -> dict[str, Any]:
    """What of a plan was asked for by name."""
    if isinstance(request.plan, Plan):
        return facts_of_plan(request.plan)
    named = {"name": request.plan, "width": request.width, "chunk": request.chunk}
    given = {name: value for name, value in named.items() if value not in (None, "auto")}
    return {n: int(each) if isinstance(each, np.integer) else each for n, each in given.items()}


def _refusal(place: Path, lines: Sequence[str]) -> str:
    return (
        f"{place} keeps lanes of another sweep, and they do not go with what is asked: {'; '.join(lines)}. "
        "Give another folder as keep=, or delete this one."
    )
