"""Calls of a sweep that are under way, in files: what their lanes carried after a block, until they are finished."""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rnnreg._checks import warn_caller
from rnnreg.sweeps._shards import read_shard, shard_of, write_shard

# A kill loses a few seconds; and writing takes at most a fiftieth of the time, however large the state is.
_SECONDS_A_STATE = 4.0
_TIMES_A_WRITE = 50


class Unfinished:
    """The calls under way in a folder of lanes, each in a file that the next state replaces.

    Attributes:
      resumed: how many lanes went on from a file.
    """

    def __init__(self, place: Path, facts: dict[str, Any], progress: Any):
        self._place, self._facts = place, facts
        self._kinds, self._structure = jax.tree.flatten(progress)
        self._held: tuple[list[bytes], int, Any, str] | None = None
        self._written: set[Path] = set()  # of the call under way
        self._ended: set[Path] = set()  # of finished calls, which are in no shard yet
        self._since, self._pause, self._failed = time.monotonic(), _SECONDS_A_STATE, False
        self.resumed = 0

    def find(self, lanes: list[bytes], program: str) -> tuple[int, Any] | None:
        """The epochs that are done of a call, and what its lanes carry; None if nothing is kept of it.

        Args:
          lanes: the digest of the lane in each place of the call.
          program: the SHA-256 of the program.
        """
        path = self._path(lanes)
        shard = read_shard(path)
        if shard is None and path.exists():
            warn_caller(f"{path} is damaged, and its lanes run again from their first epoch.")
        if shard is None or shard.done is None:
            return None
        if (shard.facts, shard.program, shard.lanes) != (self._facts, program, lanes):
            return None
        self._written.add(path)
        self.resumed += len(set(lanes))
        leaves = shard.take(range(len(lanes)), self._kinds)
        return shard.done, jax.tree.unflatten(self._structure, leaves)

    def hold(self, lanes: list[bytes], done: int, carry: Any, program: str) -> None:
        """Takes what the lanes of a call carry after a block, which is on the disk some seconds later."""
        self._held = (lanes, done, carry, program)
        if time.monotonic() - self._since >= self._pause:
            self.flush()

    def flush(self) -> None:
        """Writes what is held. On a disk that takes nothing the sweep goes on, and writes again later."""
        if self._held is None:
            return
        start, (lanes, done, carry, program) = time.monotonic(), self._held
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(carry)]
        path = self._path(lanes)
        try:
            write_shard(path, shard_of(self._facts, program, lanes, leaves, done=done))
        except OSError as error:
            if not self._failed:
                warn_caller(
                    f"what unfinished lanes have learned could not be written to {self._place} ({error}); the sweep "
                    "goes on, and tries again later."
                )
            self._failed = True
        else:
            self._held = None
            self._written.add(path)
        self._since = time.monotonic()
        self._pause = max(_SECONDS_A_STATE, _TIMES_A_WRITE * (self._since - start))

    def over(self) -> None:
        """The call under way is finished."""
        self._held, self._ended = None, self._ended | self._written
        self._written = set()

    def forget(self) -> None:
        """Removes the files of calls that are finished, and in shards."""
        with contextlib.suppress(OSError):
            while self._ended:
                self._ended.pop().unlink(missing_ok=True)

    def mend(self, digests: set[bytes]) -> None:
        """Once all these lanes are there, removes what is left of them."""
        with contextlib.suppress(OSError):
            for path in self._place.glob("*.unfinished"):
                shard = read_shard(path)
                if shard is None or digests.issuperset(shard.lanes):
                    path.unlink(missing_ok=True)

    def _path(self, lanes: list[bytes]) -> Path:
        return self._place / f"{hashlib.sha256(b''.join(lanes)).hexdigest()[:16]}.unfinished"
