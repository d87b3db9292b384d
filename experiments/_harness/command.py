"""The command line of an experiment, and what it does: measure, print, draw, write."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax

import rnnreg as rr
from experiments._harness.claims import Claim, claims_table
from experiments._harness.summary import write_summary

ConfigType = TypeVar("ConfigType")
Presets = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of every experiment."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    out: Path = Path("results")
    """Where figures and summary.json go."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What the `main` of an experiment returns.

    Attributes:
        summary: its own entries of summary.json.
        claims: in the order to show them.
        text: what is printed above the claims.
        figures: by the name of their files.
        found: what was found, a sentence each. They end the output, and the claims are then only in report.txt.
        further: commands to try next, each with a few words.
        details: tables that are only in report.txt.
    """

    summary: Mapping[str, Any]
    claims: Sequence[Claim]
    text: str = ""
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    found: Sequence[str] = ()
    further: Sequence[str] = ()
    details: str = ""


def run(main: Callable[[Any], Report], Config: type[Any], presets: Presets, *, x64: bool = False):
    """What `python -m experiments.<name>` does: `main` with the options of the command line.

    Args:
        main: the experiment; it is called in the look of the library's figures.
        Config: its options, derived from `Options`.
        presets: as in `command_line`.
        x64: everything in float64.
    """
    import matplotlib

    matplotlib.use("Agg")
    config = command_line(Config, presets, name=_name(main))
    carry_out(main, config, x64=x64)


def carry_out(main: Callable[[Any], Report], config: Any, *, x64: bool = False) -> Report:
    """Measure with these options, print, and write figures, summary.json and report.txt into `config.out`."""
    with rr.plotting.style(), jax.enable_x64() if x64 else contextlib.nullcontext():
        report = main(config)
        full = config.preset != "quick"
        claims = claims_table(report.claims, full=full)
        note = "" if full else "The claims are about --preset full; this run is too short for them."
        printed = (report.text, note, "" if report.found else claims)
        print("\n\n".join(filter(None, printed)))
        for name, figure in report.figures.items():
            rr.plotting.save(figure, config.out / name, close=True)
        write_summary(config.out, {"config": config, **report.summary}, report.claims)
        kept = (report.text, report.details, note, claims, *report.found)
        (config.out / "report.txt").write_text("\n\n".join(filter(None, kept)) + "\n", encoding="utf-8")
    print(_ending(report, config.out))
    return report


def _ending(report: Report, out: Path) -> str:
    """What was found, where the rest is, and what to try next."""
    figures = ", ".join(f"{name}.pdf" for name in report.figures)
    lines = [f"wrote {out}/" + (f": {figures}, report.txt (every claim), summary.json" if report.found else "")]
    if report.found:
        lines = ["\nFound", *(f"- {line}" for line in report.found), "", *lines]
    if report.further:
        lines += ["Try next", *(f"- {line}" for line in report.further)]
    return "\n".join(lines)


def command_line(
    Config: type[ConfigType], presets: Presets, *, args: Sequence[str] | None = None, name: str | None = None
) -> ConfigType:
    """The experiment's `Config`, as the command line asks for it.

    `--preset NAME` chooses the base values; every other option overrides them, wherever it stands.
    `--help` lists each field with its docstring and the default under the preset that was named. On a real command line
    (`args=None`) programs are kept on disk, so that the next run starts without compiling them.

    Args:
        Config: a frozen dataclass whose every field has a default, among them
            `preset: Literal["quick", "full"] = "full"`.
        presets: for each preset, the fields that differ from the class's defaults.
        args: instead of the program's own arguments; for tests.
        name: of the module that is run; by default that of `Config`. Options of an experiment go by default to
            `results/` and the last part of the name.

    Returns:
        An instance of `Config`.

    Raises:
        ValueError: `Config` has no `preset` field, or its default is not among `presets`.
    """
    import tyro

    default: Any = getattr(Config, "preset", None)
    if default not in presets:
        raise ValueError(f"{Config.__name__} needs a field `preset` whose default is one of {sorted(presets)}.")
    if args is None:
        rr.compilation_cache()
    args = sys.argv[1:] if args is None else list(args)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", nargs="?")
    preset = first.parse_known_args(args)[0].preset
    if preset not in presets:  # not given; or not known, which tyro says with the list of choices
        preset = default
    name = _name(Config) if name is None else name
    fields: dict[str, Any] = {"preset": preset, **presets[preset]}
    if issubclass(Config, Options):
        fields["out"] = Options.out / name.rpartition(".")[2]
    about = sys.modules[name if name in sys.modules else Config.__module__].__doc__
    base = Config(**fields)
    return tyro.cli(Config, default=base, args=args, prog=f"python -m {name}", description=about)


def _name(thing: Any) -> str:
    """The module of a function or class as `python -m` knows it."""
    module = sys.modules[thing.__module__]
    name = module.__spec__.name if module.__spec__ else thing.__module__
    return name.removesuffix(".__main__")
