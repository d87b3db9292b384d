"""The figure: λ of each matrix, test errors in pairs and along the ways to choose, and paths of λ."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments._harness import mean_and_error
from experiments.per_weight_lambda.report import ALONE, EACH, NONE, ONLINE, RANDOM, SHARED, SHARED_GRAD, Found, change
from experiments.per_weight_lambda.search import BOX, NAMES
from rnnreg.plotting import COLORS

MATRICES = dict(zip(NAMES, ((COLORS.blue, "o"), (COLORS.vermillion, "s"), (COLORS.green, "^")), strict=True))
TASKS = ((COLORS.purple, "o"), (COLORS.orange, "s"), (COLORS.sky, "^"))
GREY = "0.35"


def draw(tasks: Mapping[str, Found]) -> Figure:
    """Six panels: λ found, errors in pairs, errors by way to choose; below, paths of λ on each task."""
    figure, axes = plt.subplots(2, 3, figsize=(11.5, 7.2), width_ratios=(1, 1, 1))
    _found(axes[0, 0], tasks)
    _pairs(axes[0, 1], tasks)
    _ways(axes[0, 2], tasks)
    for ax, (name, found) in zip(axes[1], tasks.items(), strict=False):  # a short run may have fewer tasks
        _path(ax, name, found)
    axes[1, 0].set_ylabel("λ")
    axes[1, 0].legend(fontsize=7, loc="lower left")
    for ax, letter in zip(axes.ravel(), "abcdef", strict=True):
        ax.set_title(letter, loc="left", fontweight="bold")
    return figure


def _label(name: str) -> str:
    return rf"$W_{{{name}}}$"


def _found(ax: Axes, tasks: Mapping[str, Found]) -> None:
    """A point for each repeat, and the geometric mean."""
    for place, found in enumerate(tasks.values()):
        lams = [*found.chosen[EACH].lams.T, found.chosen[SHARED].lams[:, 0]]
        looks = [*((*MATRICES[name], _label(name)) for name in NAMES), (GREY, "D", "one λ for all (grid)")]
        for shift, values, (color, marker, label) in zip((-0.3, -0.1, 0.1, 0.3), lams, looks, strict=True):
            x = place + shift + np.linspace(-0.06, 0.06, len(values))
            ax.plot(x, values, marker, color=color, ms=3.5, alpha=0.55, mew=0, label=None if place else label)
            mean = np.exp(np.log(values).mean())
            ax.plot([place + shift - 0.09, place + shift + 0.09], [mean, mean], color=color, lw=2.4)
    ax.set(yscale="log", ylabel="λ found", ylim=(BOX[0] / 2, BOX[1] * 30))
    ax.set_xticks(range(len(tasks)), list(tasks))
    ax.legend(fontsize=7, ncols=2, loc="upper center")
    ax.set_title("λ of each matrix, 1 point a repeat", fontsize=8)


def _pairs(ax: Axes, tasks: Mapping[str, Found]) -> None:
    """The same repeat by one way and by the other."""
    both = []
    for (name, found), (color, marker) in zip(tasks.items(), TASKS, strict=False):
        one, other = found.chosen[SHARED].test, found.chosen[EACH].test
        wins = int((other < one).sum())
        ax.plot(
            one, other, marker, color=color, ms=4.5, mec="0.2", mew=0.4, label=f"{name}: below in {wins} of {len(one)}"
        )
        both += [one, other]
    ends = np.array([np.min(both) / 1.15, np.max(both) * 1.15])
    ax.plot(ends, ends, color="0.6", lw=1, zorder=0)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    shown = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if ends[0] < tick < ends[1]]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_ticks(shown, [f"{tick:g}" for tick in shown])
    ax.set(xlabel="test error, one λ (grid)", ylabel="test error, a λ for each (gradient)")
    ax.legend(fontsize=7, loc="upper left")
    ax.set_title("test error / blind guess", fontsize=8)


def _ways(ax: Axes, tasks: Mapping[str, Found]) -> None:
    """Geometric means of test errors over those without a penalty, ± SE."""
    ways = {ALONE[name]: f"{_label(name)} alone" for name in NAMES}
    ways |= {SHARED: "one, grid", SHARED_GRAD: "one, gradient", RANDOM: "each, random", EACH: "each, gradient"}
    ways |= {ONLINE: "each, online"}
    for place, (found, (color, marker)) in enumerate(zip(tasks.values(), TASKS, strict=False)):
        found_ = [mean_and_error(change(found, way, NONE)) for way in ways]
        means, errors = np.array(found_).T
        y = np.arange(len(ways)) + 0.22 * (place - 1)
        centre, low, high = np.exp(means), np.exp(means - errors), np.exp(means + errors)
        look = {"ms": 4.5, "mec": "0.2", "mew": 0.4, "ecolor": color, "elinewidth": 1.4}
        ax.errorbar(centre, y, xerr=(centre - low, high - centre), fmt=marker, color=color, **look)
    ax.axvline(1, color="0.6", lw=1, zorder=0)
    ax.set_yticks(range(len(ways)), list(ways.values()))
    ax.invert_yaxis()
    ax.set_xlabel("test error / that with λ = 0, ± SE")
    ax.set_title("by way to choose λ", fontsize=8)


def _path(ax: Axes, name: str, found: Found) -> None:
    """Thin lines are repeats, thick ones geometric means."""
    for place, matrix in enumerate(NAMES):
        color, marker = MATRICES[matrix]
        _lines(ax, found.paths[EACH].lams[..., place], color, label=_label(matrix), marker=marker)
    _lines(ax, found.paths[SHARED_GRAD].lams[..., 0], GREY, label="one λ", ls="--", thin=False)
    ax.set(yscale="log", ylim=(BOX[0] / 2, BOX[1] * 2), xlabel="outer step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_title(name, fontsize=8)


def _lines(ax: Axes, lams: np.ndarray, color: str, *, thin: bool = True, **look) -> None:
    if thin:
        ax.plot(lams.T, color=color, lw=0.6, alpha=0.35)
    ax.plot(np.exp(np.log(lams).mean(axis=0)), color=color, lw=2, ms=4, **look)
