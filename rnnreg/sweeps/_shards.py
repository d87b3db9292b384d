"""Finished lanes in files, and the manifest beside them: each whole and as it was written, or not read."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnreg.sweeps._disk import last_line, told, write_whole

MANIFEST = "manifest.json"
_NAME = re.compile(r"([0-9a-f]{12})-(\d{6})\.npz")
_DIGEST = 32


class Shard(NamedTuple):
    """Lanes that one writer finished, one call or a few; or those of one call under way.

    Attributes:
      facts: what decided their numbers, see `facts_of`.
      program: the SHA-256 of the program that computed them.
      lanes: the digest of each lane.
      leaves: `[n, bytes]` of each leaf of their outputs, as they lie in memory.
      done: of lanes under way the epochs that are done, and the leaves are what they carry; None of finished ones.
    """

    facts: dict[str, Any]
    program: str
    lanes: list[bytes]
    leaves: list[np.ndarray]
    done: int | None = None

    def take(self, row: Sequence[int], kinds: Iterable[Any]) -> list[np.ndarray]:
        """The leaves of some lanes, with the shapes and types of one lane's leaves."""
        return [
            np.ascontiguousarray(leaf[row]).view(kind.dtype).reshape(len(row), *kind.shape)
            for leaf, kind in zip(self.leaves, kinds, strict=True)
        ]


def shard_of(
    facts: dict[str, Any],
    program: str,
    lanes: list[bytes],
    leaves: list[np.ndarray],
    *,
    done: int | None = None,
) -> Shard:
    """A shard of outputs, or of what lanes carry, leaves `[n, …]`."""
    rows = [np.ascontiguousarray(leaf).reshape(len(lanes), -1).view(np.uint8) for leaf in leaves]
    return Shard(facts, program, lanes, rows, done)


def write_shard(path: Path, shard: Shard) -> None:
    """Writes a shard: arrays of bytes in an npz, without pickle, and the SHA-256 of all before in the last line.

    Raises:
      OSError: as the system has it.
    """
    header = {"facts": shard.facts, "program": shard.program, "done": shard.done}
    arrays = {f"leaf_{number}": leaf for number, leaf in enumerate(shard.leaves)}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        header=np.frombuffer(json.dumps(header).encode(), np.uint8),
        lanes=np.frombuffer(b"".join(shard.lanes), np.uint8),
        **arrays,  # type: ignore[arg-type]
    )
    image = buffer.getvalue()
    write_whole(path, image + last_line(image))


def read_shard(path: Path) -> Shard | None:
    """The shard of a file; None if it is not there, or not as it was written.

    Raises:
      OSError: it cannot be read; the message says why.
    """
    with told(path, "read", "Check its access rights."):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
    image = content[: -len(last_line(b""))]
    if content != image + last_line(image):
        return None
    with np.load(io.BytesIO(image), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        joined = arrays["lanes"].tobytes()
        leaves = [arrays[f"leaf_{number}"] for number in range(len(arrays.files) - 2)]
    lanes = [joined[start : start + _DIGEST] for start in range(0, len(joined), _DIGEST)]
    return Shard(header["facts"], header["program"], lanes, leaves, header["done"])


def shard_paths(folder: Path) -> tuple[list[Path], list[Path]]:
    """The shards of a folder, and those that were there once: a writer numbers its own without a gap."""
    found: dict[str, set[int]] = {}
    for path in folder.glob("*.npz"):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(match[1], set()).add(int(match[2]))
    here = [shard_path(folder, of, n) for of in sorted(found) for n in sorted(found[of])]
    gone = [
        shard_path(folder, of, number)
        for of, numbers in sorted(found.items())
        for number in sorted(set(range(max(numbers))) - numbers)
    ]
    return here, gone


def shard_path(folder: Path, writer: str, number: int) -> Path:
    """The file of a writer's shard."""
    return folder / f"{writer}-{number:06d}.npz"


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Writes what a folder of shards is about, for people and for `read_manifest`.

    Raises:
      OSError: it cannot be written; the message says why.
    """
    whole = content | {"sha256": _check_sum(content)}
    path = folder / MANIFEST
    with told(path, "written", "Give another folder as keep=."):
        write_whole(path, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None if it is not there, or not as it was written.

    Raises:
      OSError: it cannot be read; the message says why.
    """
    path = folder / MANIFEST
    with told(path, "read", "Check its access rights."):
        try:
            content = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
    if not isinstance(content, dict):
        return None
    said = content.pop("sha256", None)
    return content if said == _check_sum(content) else None


def _check_sum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
