"""The scoreboard as a figure: a method a line, what it does to memory, to the errors, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.scoreboard.methods import FAMILIES, METHODS, NONE
from experiments.scoreboard.report import Result, relative
from experiments.scoreboard.runs import Outcome
from rnnreg.plotting import COLORS

COLOR = {**dict(zip(FAMILIES, COLORS, strict=False)), "none": "black"}
LIMIT = 100  # per cent; what is further off is an arrow at the edge


def draw(results: Mapping[str, Result], strong: Mapping[str, Outcome], costs: Mapping[str, float]) -> Figure:
    """Sorted by the horizon at the strong end of the range: those that keep memory stand at the top."""
    order = sorted(strong, key=lambda name: (np.median(strong[name].horizon), -strong[name].error.mean()))
    places = dict(zip(order, range(len(order)), strict=True))
    widths = [1.5, 1.2, *[1.2] * len(results), 0.9]
    figure, axes = plt.subplots(
        1, len(widths), figsize=(sum(widths) * 1.35 + 1.2, 1.4 + 0.21 * len(order)), sharey=True, width_ratios=widths
    )
    horizon, error, *differences, cost = axes
    for name, place in places.items():
        color, one = COLOR[METHODS[name].family], strong[name]
        chosen = results["memory"].tested[name]
        low, middle, high = np.quantile(one.horizon, (0.25, 0.5, 0.75))
        horizon.plot([low, high], [place, place], color=color, lw=1)
        horizon.plot(middle, place, "o", color=color, ms=5)
        horizon.plot(np.median(chosen.horizon), place, "o", color=color, ms=5, mfc="white", zorder=1)
        error.plot(one.error, np.full(len(one.error), place), "o", ms=2, color=color, alpha=0.3, mew=0)
        error.plot(np.median(one.error), place, "o", color=color, ms=5)
        cost.plot([1, costs[name]], [place, place], color=color, lw=1)
        cost.plot(costs[name], place, "s", color=color, ms=4)
    none = strong[NONE]
    horizon.axvline(np.median(none.horizon), color="0.6", lw=0.8, zorder=0)
    error.axvline(1, color="0.6", lw=0.8, ls=":", zorder=0)
    horizon.set(title="memory, strong end", xlabel="gradient horizon\n(steps)", xlim=(0, None))
    error.set(title="memory, strong end", xlabel="test error\n(blind guess = 1)", xscale="log")
    low, high = error.get_xlim()
    ticks = [tick for tick in (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3, 10) if low <= tick <= high]
    error.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    error.minorticks_off()
    for ax, (task, result) in zip(differences, results.items(), strict=True):
        ax.axvline(0, color="0.6", lw=0.8, zorder=0)
        for name, place in places.items():
            if name not in result.gain:
                text = "" if name == NONE else "no such cell"
                ax.text(0, place, text, fontsize=5.5, ha="center", va="center", color="0.4")
                continue
            middle, half = relative(result, name)
            color, shown = COLOR[METHODS[name].family], np.clip(middle, -LIMIT, LIMIT)
            told = result.gain[name].p <= 0.05
            marker = "o" if shown == middle else "<" if middle < 0 else ">"
            ends = np.clip([middle - half, middle + half], -LIMIT, LIMIT)
            ax.plot(ends, [place, place], color=color, lw=1)
            ax.plot(shown, place, marker, color=color, ms=4.5, mfc=color if told else "white")
        ax.set(title=f"{task}, chosen", xlabel="test error\nagainst none (%)", xlim=(-1.1 * LIMIT, 1.1 * LIMIT))
    cost.axvline(1, color="0.6", lw=0.8, zorder=0)
    cost.set(title="memory, price", xlabel="CPU time of a step\n(none = 1)", xscale="log")
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32) if tick <= cost.get_xlim()[1]]
    cost.set_xticks(ticks, [f"{tick}" for tick in ticks])
    cost.minorticks_off()
    horizon.set_yticks(range(len(order)), order, fontsize=7)
    for label, name in zip(horizon.get_yticklabels(), order, strict=True):
        label.set_color(COLOR[METHODS[name].family])
    for ax in axes:
        ax.set_ylim(-0.7, len(order) - 0.3)
        ax.tick_params(labelsize=7)
        ax.xaxis.label.set_size(7.5)
        ax.title.set_size(8)
        ax.grid(axis="y", color="0.92", lw=0.6)
        ax.set_axisbelow(True)
    looks = [(COLOR[family], COLOR[family], family) for family in FAMILIES]
    looks += [("0.3", "white", "left: as chosen; differences: p > 5 %")]
    handles = [
        plt.Line2D([], [], marker="o", ls="", ms=5, color=edge, mfc=face, label=label) for edge, face, label in looks
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=7, frameon=False)
    return figure
