"""What an experiment leaves on disk: `summary.json`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments._harness.claims import Claim
from rnnreg import runtime


def write_summary(directory: str | Path, summary: Mapping[str, Any], claims: Sequence[Claim]) -> Path:
    """Write `summary.json`: the experiment's own entries, its claims, and where they were measured.

    Arrays become lists, records become objects, and a number that is not finite becomes null: JSON
    has no NaN. (A claim measured as NaN is therefore null with `holds: false`; one that was not
    measured is null with `holds: null`.)

    Args:
        directory: usually `results/<name>`; made if absent.
        summary: the experiment's entries; `claims` and `environment` are added.
        claims: in the order to show them.

    Returns:
        The path of the file.
    """
    for name in ("claims", "environment"):
        if name in summary:
            raise ValueError(f"summary entry {name!r} is written by write_summary: rename yours.")
    content = {**summary, "claims": list(claims), "environment": {**runtime.environment(), "commit": commit()}}
    return write_json(Path(directory) / "summary.json", plain(content))


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write plain content as JSON; an interruption leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    draft.write_text(text + "\n", encoding="utf-8")
    os.replace(draft, path)
    return path


def plain(value: Any) -> Any:
    """`value` made of dicts, lists, strings and finite numbers."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a NamedTuple
        return {name: plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays and scalars of numpy, jax and xarray
        return plain(np.asarray(value).tolist())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"summary.json cannot hold {type(value).__name__}: {value!r}")


def commit() -> str | None:
    """The commit that the code is at, with "+" when files have changed since; None outside git."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run([*git, "--exclude=*"], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None
