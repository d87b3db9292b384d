"""The figures: one weight, and the maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.decoupled.maps import Map, ends, methods
from experiments.decoupled.one_weight import OneWeight, expected_ends

COLORS = {"Adam + λw²": "C0", "AdamW": "C1", "cautious": "C2"}


def draw_one_weight(one: OneWeight) -> Figure:
    """Without data, and on the parabola."""
    figure, (fall, end) = plt.subplots(1, 2, figsize=(8.6, 3.4), layout="constrained")
    strengths = ", ".join(f"{value:g}" for value in one.strengths)
    for name, word in (("Adam + λw²", "λ"), ("AdamW", "rate")):
        label = f"{name}, {word} = {strengths}" + (" (one line)" if word == "λ" else "")
        for path, strength in zip(one.fall[name], one.strengths, strict=True):
            fall.plot(path, color=COLORS[name], label=label)
            label = None
            if word == "rate":
                at = (len(path) - 1, path[-1])
                fall.annotate(f"{strength:g}", at, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    fall.set(xlabel="update", ylabel="w", ylim=(-0.03, 1.35), title="(a) without data, η = .01")
    fall.legend(fontsize=7, loc="upper right")
    for name, value in expected_ends(one.grid).items():
        end.plot(one.grid, value, color=COLORS[name], linewidth=1)
        end.plot(one.grid, one.ends[name], "o", color=COLORS[name], markersize=4, label=name)
    end.set(xscale="log", xlabel="λ, or rate", ylabel="w at the end", title="(b) ½a(w − w*)²: lines are closed forms")
    end.legend(fontsize=7)
    return figure


def draw_maps(config: Any, maps: Mapping[str, Map]) -> Figure:
    """Of each method the loss over η and strength, and below ρ over the strength."""
    known, rates = methods(config), np.array(config.learning_rates)
    figure, axes = plt.subplots(2, len(known), figsize=(13, 5.2), sharex="col", sharey="row", layout="constrained")
    for (name, method), (top, bottom) in zip(known.items(), axes.T, strict=True):
        found = maps[name]
        shown = np.log10(np.clip(np.nanmean(found.loss, axis=-1), 1e-3, 1))
        top.pcolormesh(_edges(found.strengths), _edges(rates), shown, vmin=-3, vmax=0, cmap="viridis_r")
        top.plot(ends(found), rates, "o-", color="black", markersize=4)
        top.set(xscale="log", yscale="log", title=name)
        for rho, alive, rate in zip(found.rho, found.alive, rates, strict=True):
            mean, lost = np.nanmean(rho, axis=-1), alive.mean(axis=-1) < 0.5
            (line,) = bottom.plot(found.strengths, mean, label=f"η = {rate:g}")
            bottom.plot(found.strengths[lost], mean[lost], "x", color=line.get_color(), markersize=5)
        bottom.set(xscale="log", xlabel=method.strength)
        bottom.axhline(1, color="0.6", linestyle=":", linewidth=1)
        if found.strengths[-1] / found.strengths[0] < 100:
            for ax in (top, bottom):
                ax.set_xticks(found.strengths[::2], [f"{value:.2g}" for value in found.strengths[::2]])
                ax.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_yticks(rates, [f"{rate:g}" for rate in rates])
    axes[0, 0].yaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_ylabel("η")
    axes[1, 0].set(ylabel="ρ of the candidate's block", ylim=(0, None))
    axes[1, 0].legend(fontsize=7, title="cross: forgets", title_fontsize=7)
    figure.colorbar(axes[0, 0].collections[0], ax=axes[0], label="log₁₀ loss / blind guess")
    return figure


def _edges(centres: np.ndarray) -> np.ndarray:
    """The sides of cells around values on a log axis."""
    logs = np.log(centres)
    middle = (logs[1:] + logs[:-1]) / 2
    return np.exp(np.concatenate([[2 * logs[0] - middle[0]], middle, [2 * logs[-1] - middle[-1]]]))
