"""Where libraries are kept, each with a record beside it: which of them may be loaded, and which are too old."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rnnreg.runtime import cache_folder

BUILDING = "building-"
_MOST_KEPT = 16  # libraries: two dtypes for some machines that share a home folder
_STALE_SECONDS = 3600  # after which a folder of a build that was killed is removed


class Record(NamedTuple):
    """What is written beside a library.

    Attributes:
      sha256: of the library, so that half of one is never loaded, which could end the process.
      version: what its compiler said of itself.
      why: why it does without the processor's own instructions; "" if it has them.
    """

    sha256: str
    version: str
    why: str


def kept_folder(*, make: bool = True) -> Path:
    """The folder in the cache, made for this user alone unless it is there.

    Raises:
      OSError: it is not there and cannot be made, or others may write in it, and so could have another library loaded.
    """
    cache = cache_folder()
    if cache is None:
        raise OSError("there is no home folder")
    folder = cache / "native"
    if make:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _is_ours(folder) and _mode(folder) & 0o022:
        with contextlib.suppress(
            OSError
        ):  # the rights of another time; what lies in it is checked by itself
            folder.chmod(0o700)
    _check_trusted(folder)
    return folder


@functools.cache
def own_folder() -> Path:
    """One of this process, which ends with it."""
    folder = tempfile.mkdtemp(prefix="rnnreg-native-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def leave_own_folder() -> None:
    """Removes the folder of this process unless a library lies in it."""
    if own_folder.cache_info().currsize == 0:
        return
    with contextlib.suppress(OSError):
        own_folder().rmdir()
        own_folder.cache_clear()


def read_record(path: Path) -> Record | None:
    """The record of a library that is there, to the byte as it was compiled, and that others cannot have written."""
    try:
        for one in (path, _beside(path)):
            _check_trusted(one)
        record = Record(**json.loads(_beside(path).read_text(encoding="utf-8")))
        whole = record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, TypeError):
        return None
    return record if whole else None


def note_use(path: Path) -> None:
    """Those that were used last are kept."""
    with contextlib.suppress(OSError):
        os.utime(_beside(path))


def keep(made: Path, path: Path, version: str, why: str) -> Record:
    """Moves a library to its place and a record beside it, so that others see a whole file or none."""
    record = Record(hashlib.sha256(made.read_bytes()).hexdigest(), version, why)
    _beside(made).write_text(json.dumps(record._asdict()), encoding="utf-8")
    for one in (made, _beside(made)):
        one.chmod(0o600)
    os.replace(made, path)
    os.replace(_beside(made), _beside(path))
    return record


def last_used(folder: Path, pattern: str) -> list[Path]:
    """Libraries by their last use, the latest first."""
    times = {}
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            times[path] = max(_time(path), _time(_beside(path)))
    return sorted(times, key=lambda path: times[path], reverse=True)


def tidy(folder: Path) -> None:
    """Removes what killed builds left, and all but the libraries that were used last."""
    for left in folder.glob(f"{BUILDING}*"):
        if time.time() - _time(left) > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    for path in last_used(folder, "recurrence-*.so")[_MOST_KEPT:]:
        for one in (path, _beside(path), path.with_suffix(".sha256")):
            with contextlib.suppress(OSError):
                one.unlink()


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _time(path: Path) -> float:
    """When a file was written; 0 for one that is not there."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _is_ours(path: Path) -> bool:
    return not hasattr(os, "geteuid") or path.stat().st_uid in (os.geteuid(), 0)


def _check_trusted(path: Path) -> None:
    """Raises where somebody else could have written what would be loaded."""
    if not hasattr(os, "geteuid"):  # Windows
        return
    if not _is_ours(path):
        raise OSError(f"{path} belongs to another user")
    if _mode(path) & 0o022:
        raise OSError(f"other users may write in {path}")
