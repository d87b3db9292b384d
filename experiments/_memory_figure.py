"""The figures of `experiments.memory_thresholds`: phase diagram, both axes of memory, slopes, controls."""

from __future__ import annotations

from typing import Any

import numpy as np

import rnnreg as rr
from experiments import _memory_theory as theory
from experiments._memory_predictors import NAMES
from experiments._memory_statistics import Threshold
from rnnreg.plotting._style import BLUE, CYCLE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, log_y

DESTROYED = "0.1"  # λ_s
FLOOR = 1e-9  # where a gradient of 0 is drawn
GAIN_COLOURS = (SKY, BLUE, PURPLE, ORANGE, VERMILLION)


class Axes2:
    """Both axes of memory against λ, at the T and the gain that are shown.

    Attributes:
      cold: measured, `[λ, seed]`.
      cold_lams: `[λ]`.
      cold_alive: `[λ, seed]`.
      warm: measured, `[2, λ, seed]`.
      warm_lams: `[λ]`.
      warm_alive: `[λ, seed]` on the way up.
    """

    def __init__(self, config: Any, diagram: Any):
        T = config.shown_steps
        cold, place = diagram.cold[T, config.shown_gain]
        measured = next(found for one, found in diagram.measured_cold(T) if one is cold)
        self.cold = type(measured)(*(field[1:, place] for field in measured))
        self.cold_lams, self.cold_alive = cold.lams[1:], cold.alive[1:, place]
        warm = diagram.warm[T]
        self.warm = diagram.measure(T, warm.params)
        self.warm_lams, self.warm_alive = warm.lams, warm.alive[0]


def save_all(
    config: Any,
    diagrams: dict[str, Any],
    paths: dict[str, Any],
    law: Any,
    predictions: dict[str, Any],
    axes: Axes2,
    slopes: dict[str, Any],
    controls: Any,
) -> None:
    """Draws and writes every figure."""
    main = diagrams[config.activations[0]]
    rr.plotting.save(
        headline(config, main, law, predictions, axes), config.out / "memory_thresholds", close=True
    )
    if "linear" in diagrams:
        drawn = linear_diagram(diagrams["linear"], paths.get("linear, identity"))
        rr.plotting.save(drawn, config.out / "linear", close=True)
    rr.plotting.save(slope_figure(slopes), config.out / "slopes", close=True)
    if controls.cold:
        rr.plotting.save(control_figure(controls), config.out / "controls", close=True)


def headline(config: Any, main: Any, law: Any, predictions: dict[str, Any], axes: Axes2):
    """The phase diagram in (T, λ), with the memory axis and the gradient axis against λ at one T."""
    import matplotlib.pyplot as plt

    with rr.plotting.style():
        figure = plt.figure(figsize=(7.6, 4.6))
        grid = figure.add_gridspec(2, 2, width_ratios=(1.25, 1))
        ax = figure.add_subplot(grid[:, 0])
        phase_diagram(ax, config, main, law, predictions)
        top = figure.add_subplot(grid[0, 1])
        bottom = figure.add_subplot(grid[1, 1], sharex=top)
        gains = sorted({gain for _, gain in main.lam_cold})
        cold_colour = GAIN_COLOURS[gains.index(config.shown_gain)]
        _draw_axis(top, axes, "bits", cold_colour)
        _draw_axis(bottom, axes, "gradient", cold_colour)
        top.set(ylabel="memory: bits in h_T", ylim=(-0.08, config.num_bits * 1.12))
        top.set_title(f"T = {config.shown_steps}, cold start g = {config.shown_gain:g}")
        top.tick_params(labelbottom=False)
        bottom.set(ylabel="gradient: ‖∂h_T/∂h₀‖", xlabel="λ", ylim=(FLOOR / 4, 300))
        bottom.text(axes.cold_lams[0], FLOOR * 3, "0 (below 10⁻⁹)", fontsize=7, color="0.3")
        for panel in (top, bottom):
            for found, colour in (
                (main.lam_cold[config.shown_steps, config.shown_gain], cold_colour),
                (main.lam_c[config.shown_steps], GREEN),
                (main.lam_s[config.shown_steps], DESTROYED),
            ):
                if 0 < found.value < np.inf:
                    panel.axvline(found.value, color=colour, lw=0.9, ls=":", zorder=0)
        top.legend(fontsize=7, loc="center left")
        for panel, letter in ((ax, "a"), (top, "b"), (bottom, "c")):
            panel.set_title(letter, loc="left", fontweight="bold")
    return figure


def phase_diagram(ax, config: Any, main: Any, law: Any, predictions: dict[str, Any]) -> None:
    """λ_cold by gain with the law, λ_c and λ_s with the linear theory; predicted points are open diamonds."""
    gains = sorted({gain for _, gain in main.lam_cold})
    colours = dict(zip(gains, GAIN_COLOURS, strict=False))
    least = min([1e-3, *(f.low for f in main.lam_cold.values() if f.low > 0)]) / 3
    last = max(main.warm)
    fine = np.geomspace(min(main.warm) * 0.9, last * 1.1, 200)
    lines = (
        [theory.network_spinodal(t) for t in fine],
        [theory.network_spinodal(t, pair=True) for t in fine],
    )
    ax.fill_between(fine, *lines, color=DESTROYED, alpha=0.15, lw=0)
    lines = (
        [theory.network_switch(t) for t in fine],
        [theory.network_switch(t, pair=True) for t in fine],
    )
    ax.fill_between(fine, *lines, color=GREEN, alpha=0.15, lw=0)
    steps = sorted(main.warm)
    _points(ax, steps, [main.lam_s[t] for t in steps], DESTROYED, "s", "λ_s: destroyed above")
    _points(ax, steps, [main.lam_c[t] for t in steps], GREEN, "D", "λ_c: not worth its cost above")
    asked = {(p["T"], p["gain"]): p["predicted"] for p in predictions["cold"]}
    for gain in gains:
        steps = sorted(T for T, g in main.lam_cold if g == gain)
        _points(
            ax,
            steps,
            [main.lam_cold[t, gain] for t in steps],
            colours[gain],
            "o",
            f"λ_cold, g = {gain:g}",
        )
        if gain < 1:
            ax.plot(fine, law(fine, gain), color=colours[gain], lw=1)
        ahead = [t for t in steps if (t, gain) in asked]
        ax.plot(
            ahead, [asked[t, gain] for t in ahead], "D", mfc="none", mec=colours[gain], ms=8, mew=1
        )
    if asked:
        ax.plot(
            [], [], "D", mfc="none", mec="0.3", ms=8, mew=1, label="predicted before it was run"
        )
    ax.set_xscale("log")
    log_y(ax)
    ticks = sorted({T for T, _ in main.lam_cold})
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.set(xlabel="steps T", ylabel="λ", ylim=(least, 60), xlim=(fine[0], fine[-1]))
    ax.set_title(
        f"lines: λ_cold = {law.constant:.2g} T g$^{{T−2}}$; bands: linear theory", fontsize=8
    )
    ax.legend(fontsize=7, loc="lower left")


def _points(ax, steps, found: list[Threshold], colour: str, marker: str, label: str) -> None:
    """Thresholds with their intervals; where the grid bounds one from one side only, an arrow."""
    inside = [(t, one) for t, one in zip(steps, found, strict=True) if 0 < one.value < np.inf]
    if inside:
        x = [t for t, _ in inside]
        y = np.array([one.value for _, one in inside])
        low = np.array([one.low if one.low > 0 else one.value / 2 for _, one in inside])
        high = np.array([one.high if one.high < np.inf else 2 * one.value for _, one in inside])
        ax.errorbar(
            x,
            y,
            yerr=[y - low, high - y],
            fmt=marker,
            color=colour,
            ms=4,
            lw=1,
            capsize=2,
            label=label,
        )
    for t, one in zip(steps, found, strict=True):
        if one.value == 0:
            ax.plot([t], [one.high], "v", color=colour, ms=5)
        elif one.value == np.inf:
            ax.plot([t], [one.low], "^", color=colour, ms=5)


def _draw_axis(ax, axes: Axes2, name: str, cold_colour: str) -> None:
    """One axis of memory: each seed a dot, medians a line; cold, up and down."""
    cold = np.maximum(getattr(axes.cold, name), FLOOR if name == "gradient" else -1)
    warm = np.maximum(getattr(axes.warm, name), FLOOR if name == "gradient" else -1)
    for lams, values, colour, marker, label, shift in (
        (axes.cold_lams, cold, cold_colour, "o", "cold", 1.0),
        (axes.warm_lams, warm[0], DESTROYED, "^", "carried up", 1.0),
        (axes.warm_lams, warm[1], "0.55", "v", "carried down", 1.0),
    ):
        x = np.repeat(lams[:, None] * shift, values.shape[1], axis=1)
        ax.plot(x.ravel(), values.ravel(), marker, color=colour, ms=2, alpha=0.35, mew=0)
        ax.plot(lams, np.median(values, axis=1), color=colour, lw=1.3, label=label)
    ax.set_xscale("log")
    if name == "gradient":
        ax.set_yscale("log")
        ax.axhline(1, color="0.6", lw=0.7, zorder=0)


def linear_diagram(diagram: Any, real: Any | None):
    """λ_c and λ_s of every path of the linear network on the closed forms."""
    import matplotlib.pyplot as plt

    with rr.plotting.style():
        figure, ax = plt.subplots(figsize=(4.8, 3.4))
        steps = sorted(diagram.warm)
        fine = np.geomspace(steps[0], steps[-1], 100)
        for formula, colour in (
            (theory.network_spinodal, DESTROYED),
            (theory.network_switch, GREEN),
        ):
            ax.plot(fine, [formula(t) for t in fine], color=colour)
            ax.plot(fine, [formula(t, pair=True) for t in fine], color=colour, ls="--")
        _points(ax, steps, [diagram.lam_s[t] for t in steps], DESTROYED, "s", "λ_s")
        _points(ax, steps, [diagram.lam_c[t] for t in steps], GREEN, "D", "λ_c")
        if real is not None:
            _points(
                ax, steps, [real.lam_s[t] for t in steps], DESTROYED, "x", "λ_s, identity start"
            )
            _points(ax, steps, [real.lam_c[t] for t in steps], GREEN, "x", "λ_c, identity start")
        gains = sorted({gain for _, gain in diagram.lam_cold})
        for gain, colour in zip(gains, GAIN_COLOURS, strict=False):
            own = sorted(T for T, g in diagram.lam_cold if g == gain)
            found = [diagram.lam_cold[t, gain] for t in own]
            _points(ax, own, found, colour, "o", f"λ_cold, g = {gain:g}")
        ax.plot([], [], color="0.3", label="theory, one real eigenvalue")
        ax.plot([], [], color="0.3", ls="--", label="theory, a complex pair")
        ax.set_xscale("log")
        log_y(ax)
        ax.set_xticks(steps, [str(t) for t in steps])
        ax.minorticks_off()
        ax.set(xlabel="steps T", ylabel="λ")
        ax.set_title("linear network", fontsize=8)
        ax.legend(fontsize=7, loc="lower left")
    return figure


def slope_figure(slopes: dict[str, Any]):
    """Measured slope against each predictor, one row a network."""
    import matplotlib.pyplot as plt

    with rr.plotting.style():
        figure, axes = plt.subplots(
            len(slopes), 4, figsize=(7.6, 2.1 * len(slopes) + 0.3), squeeze=False, sharey="row"
        )
        for row, (name, table) in zip(axes, slopes.items(), strict=True):
            low, high = np.quantile(table.measured, [0.005, 0.995])
            pad = 0.1 * (high - low) + 0.01
            for ax, predictor in zip(row, NAMES, strict=True):
                steps = np.unique(table.num_steps)
                for colour, T in zip(CYCLE, steps, strict=False):
                    at = table.num_steps == T
                    ax.plot(
                        table.predicted[predictor][at],
                        table.measured[at],
                        ".",
                        color=colour,
                        ms=2,
                        alpha=0.6,
                        label=f"T = {T}",
                        rasterized=True,
                    )
                ax.plot([low - pad, high + pad], [low - pad, high + pad], color="0.4", lw=0.8)
                ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad))
                found = table.scores[predictor]
                ax.set_title(f"R² {found.r2:.2f}, bias {found.bias:+.3f}", fontsize=7)
                ax.set_xlabel(predictor, fontsize=8)
            row[0].set_ylabel(f"{name}: slope of ln‖∂h_T/∂h_t‖", fontsize=7)
        axes[0, 0].legend(fontsize=6, markerscale=3, loc="upper left")
    return figure


def control_figure(controls: Any):
    """λ_cold of every way to train, at the short and the long T."""
    import matplotlib.pyplot as plt

    with rr.plotting.style():
        names = list(controls.cold)
        figure, ax = plt.subplots(figsize=(6.4, 0.3 * len(names) + 1.2))
        steps = list(controls.cold[names[0]])
        for offset, T, colour, marker in zip(
            (-0.12, 0.12), steps, (BLUE, VERMILLION), "os", strict=True
        ):
            for y, name in enumerate(names):
                one = controls.cold[name][T]
                label = f"T = {T}" if y == 0 else None
                if one.value == 0:
                    ax.plot([one.high], [y + offset], "<", color=colour, label=label)
                elif one.value == np.inf:
                    ax.plot([one.low], [y + offset], ">", color=colour, label=label)
                else:
                    ends = [[one.value - one.low], [min(one.high, 30) - one.value]]
                    ax.errorbar(
                        [one.value],
                        [y + offset],
                        xerr=ends,
                        fmt=marker,
                        color=colour,
                        capsize=2,
                        label=label,
                    )
        ax.set_xscale("log")
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set(xlabel="λ_cold (95 %)")
        ax.legend(fontsize=8, loc="best")
        ax.grid(axis="x", lw=0.4, alpha=0.5)
    return figure
