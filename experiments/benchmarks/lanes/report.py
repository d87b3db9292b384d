"""The rows of `lanes` as ratios, as tables and as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments._harness import text_table
from experiments.benchmarks._measure import MATMUL_SIZE
from rnnreg.plotting import COLORS, log_y, style

# Who appears, in this order: name, what a legend calls it.
OURS = {
    "rnnreg": "rnnreg",
    "rnnreg_fused": "rnnreg, fused",
    "rnnreg_scan": "rnnreg, plain scan",
    "rnnreg_vmap": "rnnreg, vmap",
}
FRAMEWORKS = {"torch_loop": "PyTorch, nn modules", "keras": "Keras", "flax": "Flax, vmap", "equinox": "Equinox, vmap"}
BY_HAND = {"torch_bmm": "PyTorch, bmm by hand"}
LABELS = {**OURS, **FRAMEWORKS, **BY_HAND}

# Keras gives no gradients away: its whole step stands in the gradient's place, and the plan says so.
WHOLE_STEP = ", a whole step"


def ratios(rows: Sequence[Mapping[str, Any]], what: str = "gradient") -> list[dict[str, Any]]:
    """How rnnreg stands in each cell and size: its share of a large product, and its rate over the fastest of others.

    `best_peer` is the fastest of all others, `best_framework` of the frameworks' own layers, without what is written
    by hand; None without any. `over_peer` and `over_framework` are our rate over theirs.
    """
    found = []
    for (cell, hidden, lanes), rates in _by_task(rows, what).items():
        if "rnnreg" not in rates:
            continue
        mine = rates["rnnreg"]
        entry = {"cell": cell, "hidden": hidden, "lanes": lanes, "share": mine["share_of_matmul"]}
        for kind, names in (("peer", [*FRAMEWORKS, *BY_HAND]), ("framework", FRAMEWORKS)):
            present = [name for name in names if name in rates]
            best = max(present, key=lambda name: rates[name]["gflops"], default=None)
            over = mine["gflops"] / rates[best]["gflops"] if best else math.nan
            entry |= {f"best_{kind}": best, f"over_{kind}": over}
        found.append(entry)
    return found


def table(rows: Sequence[Mapping[str, Any]], what: str = "gradient") -> str:
    """GFLOP/s of each tool, our share of the machine's product, and how often we fit into the best peers."""
    tasks = _by_task(rows, what)
    present = {who for rates in tasks.values() for who in rates}
    whos = [who for who in LABELS if who in present]
    standing = {(r["cell"], r["hidden"], r["lanes"]): r for r in ratios(rows, what)}

    def over(entry, kind):
        return f"{entry[f'over_{kind}']:.2f} × {entry[f'best_{kind}']}" if entry.get(f"best_{kind}") else "–"

    lines = []
    for task, rates in tasks.items():
        cells = [f"{rates[who]['gflops']:.2f}" if who in rates else "–" for who in whos]
        entry = standing.get(task, {})
        share = f"{100 * entry['share']:.1f} %" if entry else "–"
        lines.append([*map(str, task), *cells, share, over(entry, "peer"), over(entry, "framework")])
    header = ["cell", "H", "lanes", *whos, "of matmul", "best peer", "best framework"]
    return text_table(header, lines)


def report(result: Mapping[str, Any]) -> str:
    """The result for a terminal: both tables, the machine, who is missing."""
    machine = result["environment"]
    parts = []
    for what, words in (("gradient", "losses and gradients"), ("step", "a whole step of SGD")):
        if _by_task(result["rows"], what):
            parts.append(f"GFLOP/s, {words}\n\n{table(result['rows'], what)}")
    if any(row["who"] == "keras" for row in result["rows"]):
        parts[0] += "\n\nKeras gives no gradients away: its whole step stands in both tables."
    rate = result["matmul_gflops"]
    parts.append(
        f"{MATMUL_SIZE}³ product in JAX: {'–' if rate is None else f'{rate:.1f}'} GFLOP/s; "
        f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('device_kind')}, "
        f"jax {machine.get('jax')}"
    )
    if result["missing"]:
        parts.append("missing: " + ", ".join(result["missing"]))
    return "\n\n".join(parts)


def _by_task(rows: Sequence[Mapping[str, Any]], what: str) -> dict[tuple[str, int, int], dict[str, Mapping[str, Any]]]:
    """{(cell, H, lanes): {who: row}} in the order of the rows."""
    found: dict[tuple[str, int, int], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["what"] == what:
            key = (row["cell"], row["hidden"], row["lanes"])
            found.setdefault(key, {})[row["who"]] = row
    return found


# colour, marker and dashes: told apart without colour too
_LOOKS = {
    "rnnreg": (COLORS.blue, "o", "-"),
    "rnnreg_fused": (COLORS.blue, "P", "-."),
    "rnnreg_scan": (COLORS.blue, "s", "--"),
    "rnnreg_vmap": (COLORS.blue, "D", ":"),
    "torch_loop": (COLORS.vermillion, "^", "-"),
    "torch_bmm": (COLORS.orange, "v", "-"),
    "keras": (COLORS.green, "P", "-"),
    "flax": (COLORS.purple, "X", "-"),
    "equinox": (COLORS.sky, "d", "-"),
}


def plot(result: Mapping[str, Any], *, what: str = "gradient") -> Any:
    """GFLOP/s over H, a panel a cell, under the rate of a large product; quartiles as bars."""
    rows = [row for row in result["rows"] if row["what"] == what]
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    sizes = sorted({row["hidden"] for row in rows})
    present = {row["who"] for row in rows}
    with style():
        figure, axes = plt.subplots(
            1, max(1, len(cells)), figsize=(max(4.8, 2.7 * len(cells)), 3.6), sharey=True, squeeze=False
        )
        for ax, cell in zip(axes[0], cells, strict=False):
            for who in (who for who in LABELS if who in present):
                _line(ax, [r for r in rows if (r["cell"], r["who"]) == (cell, who)], who)
            ax.set_xscale("log", base=2)
            ax.set_xticks(sizes, labels=[str(size) for size in sizes])
            ax.minorticks_off()
            ax.margins(x=0.08)
            names = {"elman": "Elman", "gru": "GRU", "lstm": "LSTM"}
            ax.set(title=names.get(cell, cell), xlabel="hidden size $H$")
            ax.grid(axis="y", color="0.9", linewidth=0.6)
            ax.set_axisbelow(True)
            log_y(ax)
            if result["matmul_gflops"]:
                ax.axhline(result["matmul_gflops"], color="0.35", linestyle=(0, (5, 2)), linewidth=1)
        axes[0][0].set_ylabel("GFLOP/s")
        if result["matmul_gflops"] and cells:
            place, look = (0.02, result["matmul_gflops"]), {"fontsize": 8, "color": "0.25"}
            units = {"xycoords": ("axes fraction", "data"), "xytext": (0, 2), "textcoords": "offset points"}
            axes[0][0].annotate(f"one {MATMUL_SIZE}³ product", place, **units, **look)
            low, high = axes[0][0].get_ylim()
            axes[0][0].set_ylim(low, high * 1.2)
        handles, labels = axes[0][0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _line(ax: Any, rows: Sequence[Mapping[str, Any]], who: str) -> None:
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row["hidden"])
    rates = np.array([row["gflops"] for row in rows])
    milliseconds, low, high = (np.array([row[name] for row in rows]) for name in ("milliseconds", "low", "high"))
    bars = np.abs(np.stack([rates * milliseconds / high, rates * milliseconds / low]) - rates)
    colour, marker, dashes = _LOOKS[who]
    label = LABELS[who]
    if who == "keras" and all(row["plan"].endswith(WHOLE_STEP) for row in rows):
        label += WHOLE_STEP
    ours = who == "rnnreg"
    look = {"linewidth": 2.2 if ours else 1.3, "zorder": 4 if ours else 3, "markersize": 5, "elinewidth": 0.8}
    sizes = [row["hidden"] for row in rows]
    ax.errorbar(sizes, rates, bars, color=colour, marker=marker, linestyle=dashes, label=label, **look)
