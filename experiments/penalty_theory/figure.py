"""The figure of the theory of λ‖W‖²: lines are closed forms, dots are gradient descent."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.penalty_theory import chain
from rnnreg.plotting import COLORS


def figure(start: float, measured: Any) -> Figure:
    """Shrinkage, AR(1), the paths of the chain up and down in λ, its thresholds."""
    made, axes = plt.subplots(2, 2, figsize=(7.4, 5.6))
    _draw_decay(axes[0, 0], measured.decay)
    _draw_ar(axes[0, 1], measured)
    _draw_paths(axes[1, 0], measured)
    _draw_thresholds(axes[1, 1], start, measured)
    for ax, letter in zip(axes.ravel(), "abcd", strict=True):
        ax.set_title(letter, loc="left", fontweight="bold")
    return made


def _draw_decay(ax, decay) -> None:
    times = np.arange(decay.rho.shape[1])
    shown = np.unique(np.linspace(0, times[-1], 21).astype(int))
    for color, lam, rho, line in zip(COLORS, decay.lams, decay.rho, decay.theory, strict=False):
        ax.plot(times, line, color=color, label=f"λ = {lam:g}")
        ax.plot(times[shown], rho[shown], "o", color=color)
    ax.set(xlabel="update t", ylabel="ρ(W(t))", yscale="log", ylim=(1e-10, 4))
    ax.set_title("no data: dots descent, lines ρ₀(1 − 2ηλ)ᵗ", fontsize=8)
    ax.legend(fontsize=7, loc="lower left")


def _draw_ar(ax, measured) -> None:
    lams = measured.ar_lams
    few = np.unique(np.linspace(0, len(lams) - 1, 25).astype(int))
    ax.plot(lams, measured.ar_theory, color=COLORS[0], label="âσ²/(σ² + λ)")
    ax.plot(lams[few], measured.ar[few], "o", color=COLORS[0], label="trained W$_{hh}$")
    ax.axhline(1, color="0.5", lw=0.8)
    ax.axvline(measured.ar_critical, color=COLORS[1], ls="--", label="λ = σ²(â − 1)")
    ax.set(xlabel="λ", ylabel="ŵ", xscale="log", ylim=(0, None))
    ax.set_title(f"AR(1), â = {measured.estimate:.3f}: contracting beyond the dashed λ", fontsize=8)
    ax.legend(fontsize=7, loc="lower left")


def _draw_paths(ax, measured) -> None:
    for color, T, lams, up, down in zip(COLORS, measured.num_steps, *measured.paths, strict=False):
        end = chain.spinodal(T)
        fine = np.linspace(0, end, 400)[1:]
        every = slice(1, None, max(1, len(lams) // 25))
        ax.plot(fine, chain.branch(T, fine), color=color, label=f"T = {T}")
        ax.plot(lams[every], up[every], "o", color=color)
        ax.plot(lams[1::12], down[1::12], "v", color=color, mfc="white", ms=4)
        ax.plot([end, end], [chain.bottom(T), 0], ":", color=color, lw=1)
    ax.plot([], [], "o", color="0.3", label="up")
    ax.plot([], [], "v", color="0.3", mfc="white", label="down")
    ax.set(xlabel="λ", ylabel="wᵀ, what is left after T steps", xscale="log")
    ax.set_title("chain (1 − wᵀ)² + λw²: a jump, and no return", fontsize=8)
    ax.legend(fontsize=7, loc="center left")


def _draw_thresholds(ax, start: float, measured) -> None:
    found, T, fine = measured.thresholds, measured.num_steps, np.geomspace(4, 130, 200)
    for color, line, dots, name in (
        (COLORS[1], chain.spinodal(fine), found.spinodal, "λ$_s$: no longer a local optimum"),
        (COLORS[2], chain.switch(fine), found.switch, "λ$_c$: no longer the global one"),
        (COLORS[0], chain.colds(fine, start), found.cold, f"λ$_{{cold}}$: not found from w₀ = {start:g}"),
    ):
        ax.plot(fine, line, color=color)
        ax.plot(T, dots, "o", color=color, label=name)
    ax.set(xlabel="steps T", ylabel="λ", xscale="log", yscale="log", ylim=(1e-3, 300))
    ax.set_xticks(T, [str(t) for t in T])
    ax.minorticks_off()
    ax.set_title("thresholds: lines theory, dots gradient descent", fontsize=8)
    ax.legend(fontsize=7, loc="upper left")
