"""List the experiments, or run all of them: `python -m experiments all --preset quick`."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments._harness import pages, text_table, write_json


@dataclass(frozen=True)
class Arguments:
    """List the experiments, or run all of them one after another."""

    command: tyro.conf.Positional[str] = "list"
    """`list` names each experiment, `all` runs each in a process of its own, a name runs that one, `readme` keeps the
    numbers below results/ and writes the pages anew."""
    preset: Literal["quick", "full"] = "full"
    """Handed to each experiment."""


def discover(folder: Path) -> dict[str, str]:
    """{name: docstring} of the experiments in a folder.

    An experiment is a module, or a package in its `__init__` and `__main__`, that has a `main` and a `Config`, and
    whose name does not begin with an underscore. Files are parsed and not imported: listing is quick and cannot fail
    on a peer that is missing.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        files = [path] if path.suffix == ".py" else [path / "__init__.py", path / "__main__.py"]
        trees = [ast.parse(file.read_text("utf-8")) for file in files if file.exists()]
        defined = {name for tree in trees for node in tree.body for name in _names(node)}
        if {"main", "Config"} <= defined and not path.name.startswith("_"):
            found[path.stem] = next(filter(None, map(ast.get_docstring, trees)), "")
    return found


def _names(node: ast.stmt) -> list[str]:
    """What a statement of a module defines or imports."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    return []


def run(name: str, preset: str) -> tuple[int, list[str]]:
    """Run one experiment; its exit status, and its row of the closing table."""
    start, began = time.perf_counter(), time.time()
    status = subprocess.run([sys.executable, "-m", f"experiments.{name}", "--preset", preset]).returncode
    seconds = time.perf_counter() - start
    summary = Path("results") / name / "summary.json"
    if status == 0 and summary.exists() and summary.stat().st_mtime >= began - 1:
        holds = [claim["holds"] for claim in json.loads(summary.read_text("utf-8"))["claims"]]
        holds = holds if preset == "full" else [found or None for found in holds]
        counts = [str(sum(h is verdict for h in holds)) for verdict in (True, False, None)]
    else:
        counts = ["–"] * 3
    return status, [name, "ok" if status == 0 else f"exit {status}", f"{seconds:.0f}", *counts]


def write_pages(folder: Path, results: Path) -> None:
    """Keeps what was measured in results.json, and writes both README.md."""
    store = folder / "results.json"
    kept = json.loads(store.read_text("utf-8")) if store.exists() else {}
    known = discover(folder)
    kept = {name: entry for name, entry in pages.collect(results, kept).items() if name in known}
    write_json(store, kept)
    told, benchmarks = folder / "findings", folder / "benchmarks"
    (folder / "README.md").write_text(pages.experiments_page(known, kept, told), "utf-8")
    rows = {path.stem: json.loads(path.read_text("utf-8")) for path in (benchmarks / "results").glob("*.json")}
    page = pages.benchmarks_page(discover(benchmarks), rows, told / "benchmarks.md")
    (benchmarks / "README.md").write_text(page, "utf-8")


def main(arguments: Arguments) -> int:
    """List or run; the exit status is 1 if an experiment failed to run."""
    experiments = {name: about.partition("\n")[0] for name, about in discover(Path(__file__).parent).items()}
    if arguments.command == "list":
        print(text_table(("python -m experiments.…", ""), list(experiments.items())))
        return 0
    if arguments.command == "readme":
        write_pages(Path(__file__).parent, Path("results"))
        return 0
    if arguments.command in experiments:
        experiments = {arguments.command: experiments[arguments.command]}
    elif arguments.command != "all":
        print(f"no experiment {arguments.command!r}; there are {', '.join(experiments)}, or `all`.")
        return 2
    statuses, rows = [], []
    for name, line in experiments.items():
        print(f"\n=== {name}: {line}", flush=True)
        status, row = run(name, arguments.preset)
        statuses.append(status)
        rows.append(row)
    print()
    print(text_table(("experiment", "", "seconds", "hold", "fail", "not measured"), rows))
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, prog="python -m experiments", description=__doc__)))
