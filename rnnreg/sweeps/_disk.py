"""Bytes on disk, whole or not at all, and what is said when a file cannot be written or read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the file would be larger than is allowed",
    errno.EACCES: "access is not allowed",
    errno.EPERM: "access is not allowed",
    errno.EROFS: "the disk is read-only",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "its links lead in a circle",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of its path is a file and no folder",
    errno.EEXIST: "a part of its path is a file and no folder",
    errno.ENOENT: "there is none",
}


def read_path(path: Any, *, folder: bool = False) -> Path:
    """A path as users give it, of a file or a folder: "~" is the home folder.

    Raises:
      TypeError: no path.
      ValueError: a file without a name, or a home folder that is not known.
      NotADirectoryError: a file where a folder is meant.

    >>> read_path("runs/sine.nc").name, read_path(".", folder=True).as_posix()
    ('sine.nc', '.')
    """
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise TypeError(
            f"a path is text or a pathlib.Path, such as 'runs/sine.nc'; got {type(path).__name__}."
        )
    text = os.fspath(path)
    if not text or "\0" in text or not (Path(path).name or folder):
        what = "folder, such as 'night'" if folder else "file, such as 'runs/sine.nc'"
        raise ValueError(f"a path needs the name of a {what}; got {path!r}.")
    try:
        found = Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"the home folder of {os.fspath(path)!r} is not known; write the whole path."
        ) from error
    if folder and found.exists() and not found.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file, and a folder is needed", text)
    return found


@contextlib.contextmanager
def told(path: Path, done: str, advice: str) -> Iterator[None]:
    """Says of an error of the system which file it is about, why, and what to do; its type and number stay.

    >>> with told(Path("sine.nc"), "written", "Save it elsewhere."):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
    OSError: [Errno 28] sine.nc could not be written: the disk is full. Save it elsewhere.
    """
    try:
        yield
    except OSError as error:
        why = _REASONS.get(error.errno or 0, str(error.strerror or error))
        raise OSError(error.errno, f"{path} could not be {done}: {why}. {advice}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, also at an interrupt, on a full disk, or beside another writer.

    The bytes go to a file with a name of its own in the same folder, are flushed to the disk, and are moved to their
    place. A link stays one: what it points to is replaced. An old file keeps its mode, and a new one has what the
    process gives to new files. A device or a pipe is written to.

    Args:
      path: the file; its folder is made if absent.
      content: all of it.

    Raises:
      OSError: as the system has it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(Path(folder, "runs", "a.bin"), b"abc")
    ...     Path(folder, "runs", "a.bin").read_bytes(), os.listdir(Path(folder, "runs"))
    (b'abc', ['a.bin'])
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file():
        target.write_bytes(content)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            partial.chmod(target.stat().st_mode & 0o777)
        os.replace(partial, target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    _flush_folder(target.parent)


def last_line(image: bytes) -> bytes:
    """The check sum of a file, which stands behind all of it."""
    return b"\nrnnreg-sha256:" + hashlib.sha256(image).hexdigest().encode() + b"\n"


def _flush_folder(folder: Path) -> None:
    """Makes the new name survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
