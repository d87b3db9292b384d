"""`experiments/README.md` and `experiments/benchmarks/README.md`, made from what was measured.

The numbers of the experiments are kept in `experiments/results.json`: of each the preset, where it ran, its claims.
What they mean is told in `experiments/findings/<name>.md`, of the benchmarks in `experiments/findings/benchmarks.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments._harness.claims import VERDICTS, verdict

FACTS = ("device_kind", "cores", "jax", "commit")
RATES = {
    "cell": "{cell}",
    "H": "{hidden}",
    "networks": "{lanes}",
    "of a large product": "{share:.0%}",
    "over the fastest peer": "{over_peer:.2f} × {best_peer}",
    "over the fastest framework": "{over_framework:.2f} × {best_framework}",
}
HEADER = "<!-- Made by `python -m experiments readme`: change what it is made from. -->\n"


def collect(results: Path, kept: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept, with the summaries below a folder of results; a quick run replaces no full one.

    Args:
        results: with `<name>/summary.json`.
        kept: by name, what was kept before.

    Returns:
        By name: `preset`, `environment` (a few facts), `claims`.
    """
    found = dict(kept)
    for path in sorted(results.glob("*/summary.json")):
        summary = json.loads(path.read_text("utf-8"))
        preset, name = summary["config"]["preset"], path.parent.name
        if preset == "full" or found.get(name, {}).get("preset") != "full":
            facts = {fact: summary["environment"].get(fact) for fact in FACTS}
            found[name] = {"preset": preset, "environment": facts, "claims": summary["claims"]}
    return dict(sorted(found.items()))


def experiments_page(experiments: Mapping[str, str], results: Mapping[str, Any], findings: Path) -> str:
    """The page of all experiments: what each asks, what it found, its claims and their numbers."""
    counts = [
        [f"[`{name}`](#{name})", _first(about), *_counts(results.get(name))] for name, about in experiments.items()
    ]
    parts = [
        HEADER,
        "# Experiments\n\n`python -m experiments.NAME` runs one, with `--preset quick` in seconds; `--help` lists "
        "its options. Each prints every claim and what it measured, whether they hold or not, and writes figures "
        "and `summary.json` below `results/`. [Benchmarks](benchmarks/README.md) have a page of their own.\n",
        _markdown(("experiment", "what it asks", "claims that hold", "fail", "not shown", "not measured"), counts),
    ]
    for name, about in experiments.items():
        parts.append(f"\n## {name}\n\n{about}\n")
        told = findings / f"{name}.md"
        if told.exists():
            parts.append(told.read_text("utf-8"))
        if name in results:
            parts.append(_claims(results[name]))
    return "\n".join(parts)


def benchmarks_page(benchmarks: Mapping[str, str], kept: Mapping[str, Any], findings: Path) -> str:
    """The page of the benchmarks: what each measures, what is known of it, the numbers of each device.

    A device has the tables of what was measured on it.
    """
    from experiments.benchmarks import diagnostics, regularisers
    from experiments.benchmarks.lanes.report import ratios

    parts = [HEADER, "# Benchmarks\n", findings.read_text("utf-8"), "## What each measures\n"]
    parts += [f"- `python -m experiments.benchmarks.{name}`: {_first(about)}" for name, about in benchmarks.items()]
    for device, data in kept.items():
        parts += [
            f"\n## {device}\n\n{_facts(data['environment'])}\n",
            "Value and gradient of many networks at once: our rate over that of a large product, and over others.\n",
            _records(RATES, ratios(data["rows"])),
        ]
        if "regularisers" in data:
            parts.append("\nWhat a regulariser adds to a training step (H = 64):\n")
            parts.append(_records(regularisers.COLUMNS, data["regularisers"]))
        if "diagnostics" in data:
            parts.append("\nWhat a diagnostic of one batch costs, in training steps:\n")
            parts.append(_records(diagnostics.COSTS, data["diagnostics"]["rows"]))
    return "\n".join(parts)


def _claims(entry: Mapping[str, Any]) -> str:
    note = "" if entry["preset"] == "full" else "; the claims are about `--preset full`"
    rows = [
        (claim["claim"], claim["source"], _number(claim["expected"], claim["tolerance"]))
        + (_number(claim["measured"]), _verdict(claim).replace("fails", "**fails**"))
        for claim in entry["claims"]
    ]
    about = f"`--preset {entry['preset']}`{note}. {_facts(entry['environment'])}"
    table = _markdown(("claim", "source", "expected", "measured", ""), rows)
    return f"<details><summary>{len(rows)} claims</summary>\n\n{about}\n\n{table}\n\n</details>\n"


def _counts(entry: Mapping[str, Any] | None) -> list[str]:
    if entry is None:
        return ["–"] * len(VERDICTS)
    found = [_verdict(claim) for claim in entry["claims"]]
    note = "" if entry["preset"] == "full" else f" ({entry['preset']})"
    return [f"{found.count(name)}{note}" for name in VERDICTS]


def _verdict(claim: Mapping[str, Any]) -> str:
    return verdict(claim["holds"], claim["measured"])


def _facts(environment: Mapping[str, Any]) -> str:
    facts = [environment.get("cpu") or environment.get("device_kind"), f"{environment.get('cores')} cores"]
    facts += [f"{name} {environment[name]}" for name in ("jax", "torch", "commit") if environment.get(name)]
    return ", ".join(map(str, facts)) + "."


def _first(about: str) -> str:
    """The first line of a docstring."""
    return about.partition("\n")[0]


def _number(value: Any, tolerance: Any = None) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else f"{value:.4g}"
    return f"{text} ± {tolerance:.3g}" if tolerance else text


def _records(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table of records, as `format_table` makes it for a terminal."""
    return _markdown(columns, [[form.format(**row) for form in columns.values()] for row in rows])


def _markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
