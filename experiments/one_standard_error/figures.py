"""The figure: one curve and its truth, what intervals hold, what is off, and which rule wins."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments._harness import standard_error
from experiments.one_standard_error import measures
from experiments.one_standard_error.overlap import SCHEMES
from experiments.one_standard_error.ridge import RULES, Simulated
from rnnreg.plotting import COLORS, lambda_axis

RULE_COLORS = dict(zip(RULES, (COLORS[0], COLORS[1], COLORS[2]), strict=True))
RULE_LINES = dict(zip(RULES, ("-", "--", "-."), strict=True))
RULE_NAMES = {"min": "min", "1se": "1-SE", "paired_1se": "paired 1-SE"}


def draw(found: Any) -> Figure:
    """Six panels, a to f."""
    figure, axes = plt.subplots(2, 3, figsize=(11.5, 7.0))
    middle = found.ridge[len(found.ridge) // 3]  # n = 40, T = 30, SNR 1 of the full preset
    _one_curve(axes[0, 0], middle)
    _held(axes[0, 1], found.ridge)
    _off(axes[0, 2], found)
    _regret(axes[1, 0], found.ridge)
    _trained(axes[1, 1], found.trained)
    _overlap(axes[1, 2], found.overlap)
    for ax, letter in zip(axes.ravel(), "abcdef", strict=True):
        ax.set_title(letter, loc="left", fontweight="bold")
    return figure


def _one_curve(ax: Axes, one: Simulated) -> None:
    """The first data set of a task."""
    x, cv, truth = lambda_axis(ax, one.lams), one.cv, measures.truth_of(one)
    ax.fill_between(x, cv.mean[0] - cv.se[0], cv.mean[0] + cv.se[0], color="0.85", lw=0, label="± 1 SE")
    ax.plot(x, cv.mean[0], "o-", color="0.25", ms=3, label="mean over folds")
    ax.plot(x, truth.own[0], color=COLORS[3], label="true error, these models")
    ax.plot(x, truth.average[0], ":", color=COLORS[3], label="true error, average")
    _lines(ax, {rule: float(x[places[0]]) for rule, places in cv.chosen.items()})
    ax.set(ylabel="mean squared error", yscale="log")
    ax.set_title(f"one data set: n = {one.task.num_rows}, T = {one.task.length}, SNR {one.task.snr:g}", fontsize=8)
    ax.legend(fontsize=6.5, loc="upper right", facecolor="white", frameon=True, edgecolor="none", framealpha=1)


def _lines(ax: Axes, places: dict[str, float]) -> None:
    for rule, place in places.items():
        ax.axvline(place, color=RULE_COLORS[rule], ls=RULE_LINES[rule], lw=1.2, label=RULE_NAMES[rule])


def _held(ax: Axes, ridge: list[Simulated]) -> None:
    """How often ± 1 SE and ± t SE hold the error, along λ, the mean over the tasks with as many rows."""
    x, num_folds = lambda_axis(ax, ridge[0].lams), len(ridge[0].cv.sizes)
    for name in ("1 SE", "t · SE"):
        z = 1.0 if name == "1 SE" else measures.width(name, num_folds)
        for kind, named, color in (("average", "average", COLORS[0]), ("own", "these models", COLORS[1])):
            for rows, line in zip(sorted({one.task.num_rows for one in ridge}), ("-", "--"), strict=False):
                here = [one for one in ridge if one.task.num_rows == rows]
                pairs = [(one.cv, getattr(measures.truth_of(one), kind)) for one in here]
                shares = np.mean([measures.covered(cv.mean, cv.se, truth, z) for cv, truth in pairs], axis=0)
                label = f"{named}, n = {rows}" if name == "1 SE" else None
                ax.plot(x, shares, line, color=color, label=label)
        level = measures.student_share(z, num_folds)
        ax.axhline(level, color="0.4", lw=0.8, ls=":")
        words = f"± {name}: {level:.0%}"
        ax.text(x[0], level + 0.008, words, fontsize=6.5, ha="left", va="bottom")
    ax.set(ylabel="share of data sets whose error is held", ylim=(0.2, 1.0))
    ax.set_title("mean over T, SNR; dotted: independent folds", fontsize=8)
    ax.legend(fontsize=6.5, loc="lower center", title="true error", title_fontsize=6.5, ncols=2)


def _off(ax: Axes, found: Any) -> None:
    """Bias of the least mean and of nested cross-validation, task by task."""
    every = [*found.ridge, found.trained]
    looks = (("least mean", COLORS[1], "s"), ("nested", COLORS[0], "o"))
    for row, one in enumerate(every):
        for (kind, color, marker), shift in zip(looks, (0.15, -0.15), strict=True):
            off = measures.biases(one)[kind]
            label = kind if row == 0 else None
            ax.errorbar(
                100 * off.mean, row + shift, xerr=200 * off.error, fmt=marker, color=color, ms=3.5, lw=1, label=label
            )
    names = [f"{one.task.num_rows} × {one.task.length}, {one.task.snr:g}" for one in every]
    names[-1] += "\nnetworks"
    ax.set_yticks(range(len(every)), names, fontsize=6.5)
    ax.axvline(0, color="0.6", lw=0.8, zorder=0)
    ax.set(xlabel="bias, % of the true error (± 2 SE)", ylabel="n × T, SNR")
    ax.set_title("the error of choosing λ and training", fontsize=8)
    ax.legend(fontsize=6.5, loc="lower left")


def _regret(ax: Axes, ridge: list[Simulated]) -> None:
    """Mean regret of each rule over the signal-to-noise ratio."""
    sizes = sorted({one.task.num_rows for one in ridge})
    snrs = np.array(sorted({one.task.snr for one in ridge}))
    for rule, nudge in zip(RULES, (0.9, 1.0, 1.1), strict=True):
        for rows, marker, fill in zip(sizes, "os", (RULE_COLORS[rule], "white"), strict=False):
            means, errors = [], []
            for snr in snrs:
                here = [one for one in ridge if (one.task.num_rows, one.task.snr) == (rows, snr)]
                values = np.mean([measures.regrets(one.refit, one.cv)[rule] for one in here], axis=0)
                means.append(100 * values.mean())
                errors.append(200 * float(standard_error(values)))
            label = f"{RULE_NAMES[rule]}, n = {rows}"
            look: dict[str, Any] = {"color": RULE_COLORS[rule], "mfc": fill, "ms": 4.5, "lw": 1.1, "label": label}
            ax.errorbar(snrs * nudge, means, yerr=errors, fmt=f"{marker}{RULE_LINES[rule]}", **look)
    ax.set(xscale="log", yscale="log", xlabel="signal-to-noise ratio", ylabel="regret, % of the least true error")
    ax.set_xticks(snrs, [f"{snr:g}" for snr in snrs])
    ax.minorticks_off()
    ax.set_ylim(ax.get_ylim()[0] / 3, ax.get_ylim()[1])
    ax.set_title("mean over T ± 2 SE", fontsize=8)
    ax.legend(fontsize=6.5, loc="lower center", ncols=3, columnspacing=0.8, handlelength=2.2)


def _trained(ax: Axes, one: Any) -> None:
    """Of all data sets with trained networks the mean curves, and which λ each rule takes."""
    x, cv, truth = lambda_axis(ax, one.lams), one.cv, measures.truth_of(one)
    mean, half = cv.mean.mean(axis=0), cv.se.mean(axis=0)
    ax.fill_between(x, mean - half, mean + half, color="0.85", lw=0, label="± 1 SE of one data set")
    ax.plot(x, mean, "o-", color="0.25", ms=3, label="cross-validation, average")
    ax.plot(x, truth.average[0], ":", color=COLORS[3], label="true error, average")
    _lines(ax, {rule: float(np.exp(np.log(one.lams)[places].mean())) for rule, places in cv.chosen.items()})
    ax.set(ylabel="mean squared error")
    ax.set_title(f"trained networks, {len(cv.mean)} data sets; mean of log λ", fontsize=8)
    ax.legend(fontsize=6.5, loc="upper left")


def _overlap(ax: Axes, overlap: Any) -> None:
    """Bias along λ of each scheme of folds."""
    longest, shortest = max(overlap), min(overlap)
    shown = [(longest, scheme) for scheme in SCHEMES] + [(shortest, SCHEMES[0])]
    colors, lines = (COLORS[1], COLORS[0], COLORS[2], COLORS[1]), ("-", "--", "-.", ":")
    for (horizon, scheme), color, line in zip(shown, colors, lines, strict=True):
        one = overlap[horizon][scheme]
        x, scale = lambda_axis(ax, one.lams), one.inner.mean(axis=(0, 2))
        mean, error = one.bias.mean(axis=0) / scale, standard_error(one.bias, axis=0) / scale
        ax.fill_between(x, 100 * (mean - error), 100 * (mean + error), color=color, alpha=0.2, lw=0)
        ax.plot(x, 100 * mean, line, color=color, label=f"{scheme}, h = {horizon}")
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    ax.set(ylabel="bias of the CV mean, % of the true error")
    ax.set_title("overlapping rows, targets of h steps (± 1 SE)", fontsize=8)
    ax.legend(fontsize=6.5, loc="best")
