"""Figures of the experiment on λ and memory."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rnnreg as rr
from experiments.penalty_vanishing.memory import Found, Prediction, proportions
from experiments.penalty_vanishing.path import Path, median_horizon
from rnnreg.plotting import COLORS, log_y

KINDS = {"cold": "cold start", "warm": "λ switched on after training"}
HORIZON, RHO = "horizon (steps, median)", "ρ(W$_{hh}$)"


def memory_figure(memory: dict[str, Found]) -> Figure:
    """One column a cell and length; rows: losses, share that remembers, horizon, ρ."""
    size = (1.2 + 1.75 * len(memory), 7.4)
    fig, axes = plt.subplots(4, len(memory), figsize=size, squeeze=False, sharey="row")
    for column, (title, found) in zip(axes.T, memory.items(), strict=True):
        _memory_column(column, title, found)
    rows = ("test error / blind guess", "share that remembers", HORIZON, RHO)
    for ax, label in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(label)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def _memory_column(axes: Any, title: str, found: Found) -> None:
    prediction = found["prediction"]
    num_steps = int(title.split("T = ")[1].split(",")[0])
    for kind, color in zip(KINDS, COLORS, strict=False):
        path, end = found[kind], found["thresholds"][kind]
        band(axes[0], path.lam, path.test / prediction.blind, color, KINDS[kind])
        share(axes[1], path, prediction, color, kind)
        reach(axes[2], path, color, num_steps)
        band(axes[3], path.lam, path.rho, color)
        if end.low > 0 or end.high < np.inf:
            span = np.clip([end.low, end.high], path.lam[path.lam > 0].min(), path.lam.max())
            axes[1].axvspan(*span, color=color, alpha=0.12, linewidth=0)
    for ax in axes:
        ax.axvline(prediction.lambda_c, color="black", linestyle=":", label="predicted λ$_c$")
    axes[0].set_title(title)
    tidy(axes)
    axes[1].set_ylim(-0.05, 1.05)
    axes[3].axhline(1, color="0.6", linewidth=0.8)


def series_figure(series: dict[str, Path]) -> Figure:
    """One column a series; rows: losses, horizon, ρ."""
    fig, axes = plt.subplots(3, len(series), figsize=(7.4, 7.2), squeeze=False)
    for column, (name, path) in zip(axes.T, series.items(), strict=True):
        band(column[0], path.lam, path.train, COLORS.blue, "data loss, training rows")
        band(column[0], path.lam, path.test, COLORS.vermillion, "test error")
        tidy(column)
        column[0].set_title(name)
        column[0].legend(fontsize=7)
        reach(column[1], path, COLORS.blue, {"sunspots": 9, "Lorenz": 50}[name])
        band(column[2], path.lam, path.rho, COLORS.blue)
        column[2].axhline(1, color="0.6", linewidth=0.8)
    for ax, label in zip(axes[:, 0], ("mean squared error (standardised)", HORIZON, RHO), strict=True):
        ax.set_ylabel(label)
    return fig


def band(ax: Any, lam: np.ndarray, values: np.ndarray, color: str, label: str | None = None) -> None:
    """Mean over seeds, and ± 1 standard error."""
    x = rr.plotting.lambda_axis(ax, lam)
    count = np.maximum(np.isfinite(values).sum(axis=1), 1)
    mean = np.nanmean(values, axis=1)
    error = np.nanstd(values, axis=1, ddof=1) / np.sqrt(count)
    for part in _parts(lam):
        ax.plot(x[part], mean[part], color=color, marker="o", label=label)
        if len(part) == 1:
            ax.errorbar(x[part], mean[part], yerr=error[part], color=color)
        ends = (mean - error)[part], (mean + error)[part]
        ax.fill_between(x[part], *ends, color=color, alpha=0.2, linewidth=0)
        label = None


def share(ax: Any, path: Path, prediction: Prediction, color: str, kind: str) -> None:
    """Share of seeds that remember, with exact intervals."""
    x = rr.plotting.lambda_axis(ax, path.lam) * {"cold": 0.97, "warm": 1.03}[kind]
    entries = proportions(path, prediction)
    shares, low, high = (np.array([e[end] for e in entries]) for end in ("share", "low", "high"))
    bars = np.abs(np.stack([low, high]) - shares)
    ax.errorbar(x, shares, yerr=bars, fmt="o", color=color, elinewidth=0.8)


def reach(ax: Any, path: Path, color: str, num_steps: int) -> None:
    """Median horizon; an open triangle where it is longer than the sequence."""
    x = rr.plotting.lambda_axis(ax, path.lam)
    median = median_horizon(path)
    for part in _parts(path.lam):
        known = np.where(np.isfinite(median), median, np.nan)
        ax.plot(x[part], known[part], color=color, marker="o")
    longer = np.isinf(median)
    ax.plot(x[longer], np.full(longer.sum(), num_steps), "^", color=color, fillstyle="none")
    ax.axhline(num_steps, color="0.8", linewidth=0.8, zorder=0)
    ax.set_ylim(-0.05 * num_steps, 1.08 * num_steps)


def tidy(axes: Any) -> None:
    """Losses on a logarithmic axis; λ named once, at the bottom."""
    log_y(axes[0])
    for ax in axes[:-1]:
        ax.set_xlabel("")


def _parts(lam: np.ndarray) -> list[np.ndarray]:
    """λ = 0 and the others, which no line joins."""
    return [part for part in (np.flatnonzero(lam == 0), np.flatnonzero(lam > 0)) if len(part)]
