"""Every kind of fault: what is done, how often, and how often nothing was lost."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import rnnreg as rr
from experiments.faults.sweep import PLANS, Child, Work, digest

_NOBODY = 65534
_ROOM = 16 * 1024  # bytes that are left on the full disk: a manifest fits, and no result


class Outcome(NamedTuple):
    """What became of one kind of fault.

    Attributes:
        fault: what was done, in a few words.
        tried: how often.
        survived: how often nothing was lost.
    """

    fault: str
    tried: int
    survived: int


class End(NamedTuple):
    """A process that was ended while it ran a sweep.

    Attributes:
        plan: of the sweep.
        at: when, as a share of the time that the sweep needs.
        hit: whether the sweep was still running.
        kept: the share of the lanes that the next call found.
        resumed: the share of the lanes that it went on with in the middle of their training.
        survived: whether that call ended with the numbers of an undisturbed sweep.
    """

    plan: str
    at: float
    hit: bool
    kept: float
    resumed: float
    survived: bool


# ---- processes that end ---------------------------------------------------------------------------------------------


def end(work: Work, expected: str, how: signal.Signals, *, at: float, seconds: float, folder: Path) -> End:
    """Ends a sweep with a signal after a share of its seconds, and runs it again from the folder."""
    child = Child(_keep, work, folder)
    while child.process.is_alive() and not any(folder.rglob("manifest.json")):
        time.sleep(0.01)
    child.process.join(at * seconds)
    if child.process.is_alive() and child.process.pid is not None:
        os.kill(child.process.pid, how)
    hit = child.answer() is None
    again = work.run(keep=folder)
    kept, resumed = (again.config[name] / again.config["lanes"] for name in ("lanes_loaded", "lanes_resumed"))
    return End(work.plan, at, hit, kept, resumed, digest(again) == expected)


def _keep(work: Work, folder: Path) -> str:
    return digest(work.run(keep=folder))


def two_sweeps(work: Work, expected: str, folder: Path) -> list[bool]:
    """Two processes run the same sweep in one folder at once."""
    children = [Child(_keep, work, folder) for _ in range(2)]
    return [child.answer() == expected for child in children]


def two_writers(results: list[rr.SweepResult], times: int, folder: Path) -> list[bool]:
    """Two processes save different results under one path, again and again, while it is read."""
    path = folder / "shared.nc"
    results[0].save(path)
    known = {digest(result) for result in results}
    paths = [result.save(folder / f"{number}.nc") for number, result in enumerate(results)]
    children = [Child(_save, one, path, times) for one in paths]
    found = []
    while any(child.process.is_alive() for child in children) or len(found) < 2:
        with contextlib.suppress(ValueError, OSError):
            found.append(digest(rr.load_result(path)) in known)
            continue
        found.append(False)
    return found + [child.answer() is True for child in children]


def _save(source: Path, path: Path, times: int) -> bool:
    result = rr.load_result(source)
    for _ in range(times):
        result.save(path)
    return True


# ---- files that are damaged -----------------------------------------------------------------------------------------


def damage(path: Path, how: str, rng: np.random.Generator) -> None:
    """Flips one bit of a file at random, or cuts it at a random byte."""
    content = bytearray(path.read_bytes())
    place = int(rng.integers(len(content)))
    if how == "flip":
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content if how == "flip" else content[:place])


def damaged_folder(work: Work, expected: str, kept: Path, how: str, rng: np.random.Generator, scratch: Path) -> bool:
    """Whether a sweep ends as it should if one file of its folder, a shard or the manifest, is damaged."""
    folder = Path(shutil.copytree(kept, scratch / "damaged"))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    damage(files[int(rng.integers(len(files)))], how, rng)
    try:
        return digest(work.run(keep=folder)) == expected
    finally:
        shutil.rmtree(folder)


def damaged_result(path: Path, expected: str, how: str, rng: np.random.Generator) -> bool:
    """Whether a result that is damaged says so, and is not loaded."""
    copy = Path(shutil.copy(path, path.with_name("damaged.nc")))
    damage(copy, how, rng)
    try:
        return digest(rr.load_result(copy)) == expected
    except ValueError:
        return True


# ---- disks and folders that take nothing ----------------------------------------------------------------------------


def full_disk(work: Work, expected: str, small: Path, folder: Path) -> list[bool]:
    """On a disk that is full the sweep ends with all its numbers, and an old and small result stays as it was."""
    size = small.stat().st_size + _ROOM
    with _small_disk(folder, size) as mounted:
        old = Path(shutil.copy(small, folder))
        return Child(_on_a_full_disk, work, expected, old, None if mounted else size).answer() or [False]


def _on_a_full_disk(work: Work, expected: str, old: Path, limit: int | None) -> list[bool]:
    folder, before = old.parent, old.read_bytes()
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    result = work.run(keep=folder / "kept")
    found = [digest(result) == expected, _raises(OSError, lambda: result.save(old)), old.read_bytes() == before]
    return [*found, not list(folder.glob(".*.partial"))]


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A folder that is a disk of so many bytes; or, where that is not allowed, a plain one, and False."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    try:
        mounted = not subprocess.run(command, capture_output=True).returncode
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)


def read_only(work: Work, expected: str, kept: Path, scratch: Path) -> list[bool]:
    """In a folder that is read-only a sweep says so before it trains, and one that is finished is loaded."""
    scratch.chmod(0o755)
    locked = Path(shutil.copytree(kept, scratch / "locked"))
    for path in (locked, *locked.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        return Child(_in_a_locked_folder, work, expected, locked).answer() or [False]
    finally:
        for path in (locked, *(each for each in locked.rglob("*") if each.is_dir())):
            path.chmod(0o755)


def _in_a_locked_folder(work: Work, expected: str, locked: Path) -> list[bool]:
    work.run(keep=locked)  # what it imports may be closed to others
    if os.geteuid() == 0:
        os.seteuid(_NOBODY)  # to whom access rights mean something
    refused = _raises(OSError, lambda: work.run(keep=locked / "new"))
    return [refused, digest(work.run(keep=locked)) == expected]


def no_home(work: Work, expected: str, folder: Path) -> list[bool]:
    """A process without a home folder and without a folder for caches runs a sweep, and goes on from its folder."""
    return Child(_without_home, work, expected, folder).answer() or [False]


def _without_home(work: Work, expected: str, folder: Path) -> list[bool]:
    os.environ.pop("XDG_CACHE_HOME", None)
    os.environ["HOME"] = "/dev/null/home"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = _raises(OSError, lambda: work.run(keep="~/kept"))
    return [named, digest(work.run(keep=folder)) == expected, work.run(keep=folder).config["compilations"] == 0]


def _raises(kind: type[Exception], function: Callable[[], object]) -> bool:
    try:
        function()
    except kind:
        return True
    return False


# ---- all of them ----------------------------------------------------------------------------------------------------


def counted(fault: str, survived: list[bool]) -> Outcome:
    """The outcome of a fault that was tried a number of times."""
    return Outcome(fault, len(survived), sum(survived))


def ends_by_plan(kills: int) -> list[str]:
    """The plan of each kill, in turn."""
    return [list(PLANS)[number % len(PLANS)] for number in range(kills)]
