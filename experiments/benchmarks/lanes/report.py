"""The rows of `lanes` as ratios, as tables and as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from experiments._harness import text_table
from experiments.benchmarks._measure import MATMUL_SIZE
from rnnreg.plotting import COLORS, log_y, style

# Who appears, in this order: name, what a legend calls it.
OURS = {"rnnreg": "rnnreg", "rnnreg_scan": "rnnreg, plain scan", "rnnreg_vmap": "rnnreg, vmap"}
FRAMEWORKS = {"torch_loop": "PyTorch, nn modules", "keras": "Keras", "flax": "Flax, vmap", "equinox": "Equinox, vmap"}
BY_HAND = {"torch_bmm": "PyTorch, bmm by hand"}
LABELS = {**OURS, **FRAMEWORKS, **BY_HAND}

# Keras gives no gradients away: its whole step stands in the gradient's place, and the plan says so.
WHOLE_STEP = ", a whole step"


class Ratio(NamedTuple):
    """How rnnreg stands in one cell and size.

    Attributes:
      cell: which cell.
      hidden: H.
      lanes: M.
      share: of the machine's rate in a large product.
      best_peer: the fastest of the others; None without any.
      over_peer: our rate over its.
      best_framework: the fastest of the frameworks' own layers, without what is written by hand.
      over_framework: our rate over its.
    """

    cell: str
    hidden: int
    lanes: int
    share: float
    best_peer: str | None
    over_peer: float
    best_framework: str | None
    over_framework: float


def ratios(rows: Sequence[Mapping[str, Any]], what: str = "gradient") -> list[Ratio]:
    """Our rate over that of the fastest peer and of the fastest framework, for each cell and size."""
    found = []
    for (cell, hidden, lanes), rates in _by_task(rows, what).items():
        if "rnnreg" not in rates:
            continue
        mine = rates["rnnreg"]

        def best(names, rates=rates, mine=mine):
            present = [name for name in names if name in rates]
            if not present:
                return None, math.nan
            name = max(present, key=lambda name: rates[name]["gflops"])
            return name, mine["gflops"] / rates[name]["gflops"]

        peer, framework = best([*FRAMEWORKS, *BY_HAND]), best(FRAMEWORKS)
        found.append(Ratio(cell, hidden, lanes, mine["share_of_matmul"], *peer, *framework))
    return found


def table(rows: Sequence[Mapping[str, Any]], what: str = "gradient") -> str:
    """GFLOP/s of each tool, our share of the machine's product, and how often we fit into the best peers."""
    tasks = _by_task(rows, what)
    present = {who for rates in tasks.values() for who in rates}
    whos = [who for who in LABELS if who in present]
    standing = {(r.cell, r.hidden, r.lanes): r for r in ratios(rows, what)}

    def over(ratio, name):
        return "–" if name is None else f"{ratio:.2f} × {name}"

    lines = []
    for task, rates in tasks.items():
        cells = [f"{rates[who]['gflops']:.2f}" if who in rates else "–" for who in whos]
        ratio = standing.get(task)
        last = ["–"] * 3
        if ratio is not None:
            last = [
                f"{100 * ratio.share:.1f} %",
                over(ratio.over_peer, ratio.best_peer),
                over(ratio.over_framework, ratio.best_framework),
            ]
        lines.append([*map(str, task), *cells, *last])
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


# ---- drawing --------------------------------------------------------------------------------------

# colour, marker and dashes: told apart without colour too
_LOOKS = {
    "rnnreg": (COLORS.blue, "o", "-"),
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
            ax.set(title={"elman": "Elman", "gru": "GRU", "lstm": "LSTM"}.get(cell, cell))
            ax.set_xlabel("hidden size $H$")
            ax.grid(axis="y", color="0.9", linewidth=0.6)
            ax.set_axisbelow(True)
            log_y(ax)
            if result["matmul_gflops"]:
                ax.axhline(result["matmul_gflops"], color="0.35", linestyle=(0, (5, 2)), linewidth=1)
        axes[0][0].set_ylabel("GFLOP/s")
        if result["matmul_gflops"] and cells:
            axes[0][0].annotate(
                f"one {MATMUL_SIZE}³ product",
                (0.02, result["matmul_gflops"]),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize=8,
                color="0.25",
            )
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
    ax.errorbar(
        [row["hidden"] for row in rows],
        rates,
        bars,
        color=colour,
        marker=marker,
        linestyle=dashes,
        linewidth=2.2 if who == "rnnreg" else 1.3,
        markersize=5,
        elinewidth=0.8,
        zorder=4 if who == "rnnreg" else 3,
        label=label,
    )
