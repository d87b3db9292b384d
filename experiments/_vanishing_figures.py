"""Figures of the experiment on λ and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import rnnreg as rr
from experiments import _vanishing as vanishing
from experiments._intervals import proportion

KINDS = {"cold": "cold start", "warm": "λ switched on after training"}


def median_horizon(path: vanishing.Path) -> np.ndarray:
    """`[λ]`, over seeds; ∞ where most are longer than the sequence, NaN where no seed has a gradient."""
    values = np.where(path.censored, np.inf, path.horizon)
    return np.array(
        [np.median(row[~np.isnan(row)]) if (~np.isnan(row)).any() else np.nan for row in values]
    )


def memory_figure(memory: dict[str, dict[str, Any]], path: Path) -> None:
    """One column a cell and length; rows: losses, share that remembers, horizon, ρ."""
    plt = _pyplot()
    from rnnreg.plotting import COLORS

    columns = len(memory)
    with rr.plotting.style():
        fig, axes = plt.subplots(
            4, columns, figsize=(1.2 + 1.75 * columns, 7.4), squeeze=False, sharey="row"
        )
        for column, (title, found) in enumerate(memory.items()):
            prediction = found["prediction"]
            for kind, color in zip(KINDS, COLORS, strict=False):
                of = found[kind]
                band(axes[0, column], of.lam, of.test / prediction.blind, color, KINDS[kind])
                share(axes[1, column], of, prediction, color, kind)
                reach(axes[2, column], of, color, int(title.split("T = ")[1].split(",")[0]))
                band(axes[3, column], of.lam, of.rho, color)
                end = found["thresholds"][kind]
                if end.low > 0 or end.high < np.inf:
                    span = np.clip([end.low, end.high], of.lam[of.lam > 0].min(), of.lam.max())
                    axes[1, column].axvspan(*span, color=color, alpha=0.12, linewidth=0)
            for ax in axes[:, column]:
                ax.axvline(
                    prediction.lambda_c, color="black", linestyle=":", label="predicted λ$_c$"
                )
            axes[0, column].set_title(title)
            tidy(axes[:, column])
            axes[1, column].set_ylim(-0.05, 1.05)
            axes[3, column].axhline(1, color="0.6", linewidth=0.8)
        for row, label in enumerate(
            (
                "test error / blind guess",
                "share that remembers",
                "horizon (steps, median)",
                "ρ(W$_{hh}$)",
            )
        ):
            axes[row, 0].set_ylabel(label)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=3)
        rr.plotting.save(fig, path, close=True)


def series_figure(config: Any, series: dict[str, vanishing.Path]) -> None:
    """One column a series; rows: losses, horizon, ρ."""
    plt = _pyplot()
    from rnnreg.plotting import COLORS

    with rr.plotting.style():
        fig, axes = plt.subplots(3, len(series), figsize=(7.4, 7.2), squeeze=False)
        for column, (name, path) in enumerate(series.items()):
            band(axes[0, column], path.lam, path.train, COLORS[0], "data loss, training rows")
            band(axes[0, column], path.lam, path.test, COLORS[1], "test error")
            tidy(axes[:, column])
            axes[0, column].set_title(name)
            axes[0, column].legend(fontsize=7)
            reach(axes[1, column], path, COLORS[0], {"sunspots": 9, "Lorenz": 50}[name])
            band(axes[2, column], path.lam, path.rho, COLORS[0])
            axes[2, column].axhline(1, color="0.6", linewidth=0.8)
        for row, label in enumerate(
            ("mean squared error (standardised)", "horizon (steps, median)", "ρ(W$_{hh}$)")
        ):
            axes[row, 0].set_ylabel(label)
        rr.plotting.save(fig, config.out / "series", close=True)


def band(
    ax: Any, lam: np.ndarray, values: np.ndarray, color: str, label: str | None = None
) -> None:
    """Mean over seeds, and ± 1 standard error."""
    x = rr.plotting.lambda_axis(ax, lam)
    count = np.maximum(np.isfinite(values).sum(axis=1), 1)
    mean = np.nanmean(values, axis=1)
    error = np.nanstd(values, axis=1, ddof=1) / np.sqrt(count)
    for part in _parts(lam):
        ax.plot(x[part], mean[part], color=color, marker="o", label=label)
        if len(part) == 1:
            ax.errorbar(x[part], mean[part], yerr=error[part], color=color)
        ax.fill_between(
            x[part], (mean - error)[part], (mean + error)[part], color=color, alpha=0.2, linewidth=0
        )
        label = None


def share(
    ax: Any, path: vanishing.Path, prediction: vanishing.Prediction, color: str, kind: str
) -> None:
    """Share of seeds that remember, with exact intervals."""
    x = rr.plotting.lambda_axis(ax, path.lam)
    alive = vanishing.remembers(path, prediction.blind)
    shares = alive.mean(axis=1)
    intervals = np.stack(proportion(alive.sum(axis=1), alive.shape[1]))
    shift = {"cold": 0.97, "warm": 1.03}[kind]
    ax.errorbar(
        x * shift, shares, yerr=np.abs(intervals - shares), fmt="o", color=color, elinewidth=0.8
    )


def reach(ax: Any, path: vanishing.Path, color: str, num_steps: int) -> None:
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
    from rnnreg.plotting import log_y

    log_y(axes[0])
    for ax in axes[:-1]:
        ax.set_xlabel("")


def _parts(lam: np.ndarray) -> list[np.ndarray]:
    """λ = 0 and the others, which no line joins."""
    return [part for part in (np.flatnonzero(lam == 0), np.flatnonzero(lam > 0)) if len(part)]


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
