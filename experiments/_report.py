"""What every experiment shares: its command line, its claims, its summary on disk.

An experiment is a module with a one-line docstring, a frozen dataclass `Config` and a `main`:

    @dataclass(frozen=True)
    class Config:
        preset: Literal["quick", "full"] = "full"
        \"\"\"Base values that the other options override.\"\"\"
        num_epochs: int = 300
        \"\"\"Passes over the training data.\"\"\"
        out: Path = Path("results/lambda_sweep")
        \"\"\"Where figures and summary.json go.\"\"\"

    PRESETS = {"quick": {"num_epochs": 20}, "full": {}}

    def main(config: Config) -> None:
        ...
        claims = [Claim.at_most("ARV 1921-1955", source="…", expected=0.11, measured=arv)]
        print(claims_table(claims))
        write_summary(config.out, {"config": config, "arv": arv}, claims)

    if __name__ == "__main__":
        main(command_line(Config, PRESETS))
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rnnreg import runtime

ConfigType = TypeVar("ConfigType")


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement, who made it, and what this run measured.

    An experiment reports its claims whether they hold or not, and exits 0 either way.

    Attributes:
        claim: the statement, in a few words.
        source: paper, issue or tool that it comes from.
        expected: the number, or a few words where it is not one number ("at most 0.11").
        tolerance: how far `measured` may lie from `expected`; None where that has no meaning.
        measured: what this run found; None where it could not be measured (a peer is missing).
        holds: whether it holds; None where `measured` is.

    >>> Claim.close("loss", source="Keras", expected=1.0, tolerance=0.1, measured=1.05).holds
    True
    >>> Claim.at_most("ARV", source="Tong 1980", expected=0.11, measured=None).holds is None
    True
    """

    claim: str
    source: str
    expected: float | str | None
    tolerance: float | None
    measured: float | str | None
    holds: bool | None

    def __post_init__(self) -> None:
        if self.measured is None and self.holds is not None:
            raise ValueError(
                f"claim {self.claim!r} says holds={self.holds} but nothing was measured: "
                "give holds=None."
            )
        if self.holds is not None:
            object.__setattr__(self, "holds", bool(self.holds))  # not numpy's, for JSON

    @classmethod
    def close(
        cls, claim: str, *, source: str, expected: float, tolerance: float, measured: float | None
    ) -> Claim:
        """`measured` is within `tolerance` of `expected`."""
        holds = None if measured is None else abs(measured - expected) <= tolerance
        return cls(claim, source, expected, tolerance, measured, holds)

    @classmethod
    def at_most(cls, claim: str, *, source: str, expected: float, measured: float | None) -> Claim:
        """`measured` is `expected` or less."""
        holds = None if measured is None else measured <= expected
        return cls(claim, source, f"at most {expected:g}", None, measured, holds)

    @classmethod
    def at_least(cls, claim: str, *, source: str, expected: float, measured: float | None) -> Claim:
        """`measured` is `expected` or more."""
        holds = None if measured is None else measured >= expected
        return cls(claim, source, f"at least {expected:g}", None, measured, holds)


def claims_table(claims: Sequence[Claim]) -> str:
    """The claims as lines of text: claim, source, expected, measured, and whether it holds."""
    verdict = {True: "holds", False: "FAILS", None: "not measured"}
    rows = [
        (
            claim.claim,
            claim.source,
            _cell(claim.expected) + (f" ± {claim.tolerance:.3g}" if claim.tolerance else ""),
            _cell(claim.measured),
            verdict[claim.holds],
        )
        for claim in claims
    ]
    return text_table(("claim", "source", "expected", "measured", ""), rows)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under a header, for a terminal.

    >>> print(text_table(("lam", "mean"), [("0.001", "0.2"), ("0.1", "0.33")]))
    lam    mean
    -----  ----
    0.001  0.2
    0.1    0.33
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write_summary(
    directory: str | Path, summary: Mapping[str, Any], claims: Sequence[Claim]
) -> Path:
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
    content = {
        **summary,
        "claims": list(claims),
        "environment": {**runtime.environment(), "commit": commit()},
    }
    return write_json(Path(directory) / "summary.json", plain(content))


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write plain content as JSON; an interruption leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    draft.write_text(text + "\n", encoding="utf-8")
    os.replace(draft, path)
    return path


def command_line(
    Config: type[ConfigType],
    presets: Mapping[str, Mapping[str, Any]],
    *,
    args: Sequence[str] | None = None,
) -> ConfigType:
    """The experiment's `Config`, as the command line asks for it.

    `--preset NAME` chooses the base values; every other option overrides them, wherever it stands.
    `--help` lists each field with its docstring and the default under the preset that was named.

    Args:
        Config: a frozen dataclass whose every field has a default, among them
            `preset: Literal["quick", "full"] = "full"`.
        presets: for each preset, the fields that differ from the class's defaults.
        args: instead of the program's own arguments; for tests.

    Returns:
        An instance of `Config`.

    Raises:
        ValueError: `Config` has no `preset` field, or its default is not among `presets`.
    """
    import tyro

    default: Any = getattr(Config, "preset", None)
    if default not in presets:
        raise ValueError(
            f"{Config.__name__} needs a field `preset` whose default is one of {sorted(presets)}."
        )
    args = sys.argv[1:] if args is None else list(args)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", nargs="?")
    preset = first.parse_known_args(args)[0].preset
    if preset not in presets:  # not given; or not known, which tyro says with the list of choices
        preset = default
    base = Config(**{"preset": preset, **presets[preset]})
    module = sys.modules[Config.__module__]
    prog = f"python -m {module.__spec__.name}" if module.__spec__ else None
    return tyro.cli(Config, default=base, args=args, prog=prog, description=module.__doc__)


def _cell(value: float | str | None) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"


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
