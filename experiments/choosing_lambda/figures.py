"""The figures: what each way to choose finds, how it gets there, and how long it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments._harness import standard_error
from experiments.choosing_lambda.methods import METHODS
from experiments.choosing_lambda.peers import OPTUNA, SKLEARN
from experiments.choosing_lambda.report import regret_of, warm
from experiments.choosing_lambda.runs import BEST, ZERO, Result
from rnnreg.plotting import COLORS

LOOKS: dict[str, tuple[str, str]] = {
    "grid": ("black", "s"),
    "halved grid": ("0.55", "D"),
    "random": (COLORS.blue, "o"),
    "halving": (COLORS.sky, "v"),
    "TPE": (COLORS.green, "^"),
    "hypergradient": (COLORS.vermillion, "P"),
    "online": (COLORS.purple, "X"),
}


def draw(results: Mapping[str, Result]) -> Figure:
    """Above, the test loss of what was chosen, repeat by repeat; below, regret against the updates that were made."""
    count = max(1, len(results))
    figure, axes = plt.subplots(2, count, figsize=(0.9 + 2.35 * count, 5.0), squeeze=False, height_ratios=(1.1, 1))
    names = [name for name in METHODS if any(name in one.outcomes for one in results.values())]
    places = dict(zip(names, range(len(names) - 1, -1, -1), strict=True))
    for (above, below), result in zip(axes.T, results.values(), strict=True):
        _losses(above, result, places)
        _curves(below, result)
        above.set(title=result.task.name, xlabel=f"test loss ({result.task.unit})")
    for ax in axes[0, 1:]:
        ax.tick_params(labelleft=False)
    axes[0, 0].set_yticks(list(places.values()), list(places))
    axes[1, 0].set_ylabel("regret: test loss\nless the best known")
    handles = [
        plt.Line2D([], [], color=LOOKS[name][0], marker=LOOKS[name][1], ms=5, label=name, lw=1.4) for name in names
    ]
    handles.append(plt.Line2D([], [], color="0.4", lw=1, label="best known"))
    handles.append(plt.Line2D([], [], color="0.4", lw=1, ls="--", label="λ = 0"))
    columns = min(len(handles), 2 * count + 1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.5)
    return figure


def _losses(ax: Any, result: Result, places: Mapping[str, int]) -> None:
    """A dot for each repeat, the mean, and ±1 standard error of the paired difference to the best known."""
    best, zero = (result.outcomes[name].loss.mean() for name in (BEST, ZERO))
    ax.axvline(best, color="0.4", lw=1, zorder=0)
    ax.axvline(zero, color="0.4", lw=1, ls="--", zorder=0)
    shown = []
    for name, place in places.items():
        if name not in result.outcomes:
            continue
        color, marker = LOOKS[name]
        loss = result.outcomes[name].loss
        ax.plot(loss, np.full(len(loss), place), "o", ms=2.5, color=color, alpha=0.35, mew=0)
        ax.errorbar(loss.mean(), place, xerr=regret_of(result, name)[1], fmt=marker, ms=5.5, color=color, capsize=2.5)
        shown += list(loss)
    ends = min(best, zero, *shown), max(best, zero, float(np.quantile(shown, 0.97)))
    margin = 0.06 * (ends[1] - ends[0])
    ax.set(ylim=(-0.6, len(places) - 0.4), xlim=(ends[0] - margin, ends[1] + margin))
    ax.set_yticks(list(places.values()))
    ax.locator_params(axis="x", nbins=4)
    ax.grid(axis="y", color="0.92", lw=0.6)
    ax.set_axisbelow(True)


def _curves(ax: Any, result: Result) -> None:
    """The mean regret of what would have been chosen so far, once every repeat has a choice; at the end ±1 SE."""
    best = result.outcomes[BEST].loss[:, None]
    runs = result.budgets / result.task.num_updates
    highest = float((result.outcomes[ZERO].loss - result.outcomes[BEST].loss).mean())
    ax.axhline(0, color="0.4", lw=1, zorder=0)
    ax.axhline(highest, color="0.4", lw=1, ls="--", zorder=0)
    ends = [highest, 0.0]
    for place, (name, (color, marker)) in enumerate(LOOKS.items()):
        if name not in result.outcomes:
            continue
        one = result.outcomes[name]
        end = one.updates.max()
        known = ~np.isnan(one.curve).any(axis=0) & (result.budgets < end)
        along = np.append(runs[known], end / result.task.num_updates)
        regret = np.column_stack([one.curve[:, known], one.loss]) - best
        middle, half = regret.mean(axis=0), standard_error(regret, axis=0)
        ax.plot(along, middle, color=color, lw=1.2, drawstyle="steps-post")
        beside = along[-1:] * 1.07**place  # side by side, where most end with the budget
        ax.errorbar(beside, middle[-1:], half[-1:], fmt=marker, color=color, ms=5, capsize=2)
        ends.append(float(middle[-1] + half[-1]))
    ax.set(xscale="log", xlabel="updates made (full runs)", xlim=(runs[0], runs[-1] * 1.7))
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64) if runs[0] <= tick <= runs[-1]]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    top = max(*ends, 1e-9)
    ax.set_ylim(min(ends) - 0.12 * top, 1.25 * top)


def draw_seconds(results: Mapping[str, Result]) -> Figure:
    """Seconds of one search: bars for later ones, open circles for the first, which compiles."""
    count = max(1, len(results))
    names = [*METHODS, OPTUNA, SKLEARN]
    names = [
        name for name in names if any(name in one.outcomes or name in one.peer_seconds for one in results.values())
    ]
    figure, axes = plt.subplots(
        1, count, figsize=(1.8 + 2.0 * count, 0.9 + 0.24 * len(names)), squeeze=False, sharey=True
    )
    places = dict(zip(names, range(len(names) - 1, -1, -1), strict=True))
    for ax, result in zip(axes[0], results.values(), strict=True):
        seconds = {name: one.seconds for name, one in result.outcomes.items() if name in METHODS} | result.peer_seconds
        low = 0.5 * min(min(each) for each in seconds.values())
        for name, each in seconds.items():
            color = LOOKS[name][0] if name in LOOKS else COLORS.orange
            ax.barh(places[name], warm(each) - low, left=low, height=0.62, color=color)
            ax.plot(each[0], places[name], "o", mfc="white", mec="black", ms=4.5, mew=1)
        ax.set(xscale="log", xlim=(low, None), title=result.task.name, xlabel="seconds of a choice")
        ticks = [tick for tick in (0.1, 1, 10, 100) if low <= tick <= ax.get_xlim()[1]]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.grid(axis="x", color="0.92", lw=0.6)
        ax.set_axisbelow(True)
    axes[0, 0].set_yticks(list(places.values()), list(places))
    first = {"marker": "o", "ls": "", "mfc": "white", "mec": "black", "ms": 4.5}
    handles = [
        plt.Rectangle((0, 0), 1, 1, color="0.5", label="median of later searches"),
        plt.Line2D([], [], label="first search: compiles, starts processes", **first),
    ]

    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
