"""The figures of `experiments.memory_thresholds`: phase diagram, both axes of memory, slopes, controls."""

from __future__ import annotations

from typing import Any

import numpy as np

import rnnreg as rr
from experiments import _memory_theory as theory
from experiments._memory_controls import EDGES, GAIN, law_fall
from experiments._memory_predictors import NAMES
from experiments._thresholds import Ratio, Threshold
from rnnreg.plotting import COLORS, log_y

DESTROYED = "0.1"  # λ_s
FLOOR = 1e-9  # where a gradient of 0 is drawn
GAIN_COLOURS = {
    0.7: COLORS.sky,
    0.8: COLORS.blue,
    0.85: COLORS.purple,
    0.9: COLORS.orange,
    1.0: COLORS.vermillion,
}


def gain_colour(gain: float) -> Any:
    """A gain has one colour in every figure, whichever others are there; unlisted gains have one of a scale."""
    import matplotlib

    gain = round(float(gain), 6)
    return GAIN_COLOURS.get(gain) or matplotlib.colormaps["cividis"](min(gain / 2, 1.0))


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
        cold_colour = gain_colour(config.shown_gain)
        _draw_axis(top, axes, "bits", cold_colour)
        _draw_axis(bottom, axes, "gradient", cold_colour)
        top.set(ylabel="memory: bits in h$_T$", ylim=(-0.08, config.num_bits * 1.12))
        top.set_title(f"T = {config.shown_steps}, cold start g = {config.shown_gain:g}")
        top.tick_params(labelbottom=False)
        bottom.set(ylabel="gradient: ‖∂h$_T$/∂h$_0$‖", xlabel="λ", ylim=(FLOOR / 4, 300))
        bottom.text(axes.cold_lams[0], FLOOR * 3, "0 (below 10⁻⁹)", fontsize=7, color="0.3")
        for panel in (top, bottom):
            for found, colour in (
                (main.lam_cold[config.shown_steps, config.shown_gain], cold_colour),
                (main.lam_c[config.shown_steps], COLORS.green),
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
    ax.fill_between(fine, *lines, color=COLORS.green, alpha=0.15, lw=0)
    steps = sorted(main.warm)
    _points(ax, steps, [main.lam_s[t] for t in steps], DESTROYED, "s", "λ$_s$: destroyed above")
    _points(
        ax,
        steps,
        [main.lam_c[t] for t in steps],
        COLORS.green,
        "D",
        "λ$_c$: not worth its cost above",
    )
    asked = {(p["T"], p["gain"]): p["predicted"] for p in predictions["cold"]}
    for gain in gains:
        steps = sorted(T for T, g in main.lam_cold if g == gain)
        _points(
            ax,
            steps,
            [main.lam_cold[t, gain] for t in steps],
            gain_colour(gain),
            "o",
            f"λ$_{{cold}}$, g = {gain:g}",
        )
        if gain < 1:
            ax.plot(fine, law(fine, gain), color=gain_colour(gain), lw=1)
        ahead = [t for t in steps if (t, gain) in asked]
        ax.plot(
            ahead,
            [asked[t, gain] for t in ahead],
            "D",
            mfc="none",
            mec=gain_colour(gain),
            ms=8,
            mew=1,
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
        f"lines: λ$_{{cold}}$ = {law.constant:.2g} T g$^{{T−2}}$; bands: linear theory", fontsize=8
    )
    ax.legend(fontsize=7, loc="lower left")


def _points(ax, steps, found: list[Threshold], colour: Any, marker: str, label: str) -> None:
    """Thresholds with their intervals against T."""
    ax.plot([], [], marker, color=colour, ms=4, label=label)
    for t, one in zip(steps, found, strict=True):
        _with_interval(ax, t, one, colour, marker)


def _with_interval(
    ax,
    place: float,
    one: Threshold | Ratio,
    colour: Any,
    marker: str,
    *,
    across: bool = False,
    limits: tuple[float, float] = (0.0, np.inf),
) -> None:
    """A value and its 95 % interval, up and down (or across); an arrow where it goes on beyond the grid or the axis.

    Off the grid there is no value, only the bound: an arrow alone.
    """
    towards_zero, towards_infinity, cap = ("<", ">", "|") if across else ("v", "^", "_")

    def draw(values, fmt, **options):
        pair = (values, [place] * len(values))
        ax.plot(*(pair if across else pair[::-1]), fmt, color=colour, clip_on=not across, **options)

    if np.isnan(one.value):
        return
    if one.value == 0:
        draw([max(one.high, limits[0])], towards_zero, ms=5)
        return
    if np.isinf(one.value):
        draw([min(one.low, limits[1])], towards_infinity, ms=5)
        return
    low = max(one.low, limits[0]) or one.value / 3
    high = min(one.high, limits[1])
    high = high if np.isfinite(high) else 3 * one.value
    draw([low, high], "-", lw=1)
    draw([low], cap if low == one.low else towards_zero, ms=4, mew=1)
    draw([high], cap if high == one.high else towards_infinity, ms=4, mew=1)
    draw([one.value], marker, ms=4)


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
        figure, ax = plt.subplots(figsize=(6.6, 3.4))
        steps = sorted(diagram.warm)
        fine = np.geomspace(steps[0], steps[-1], 100)
        for formula, colour in (
            (theory.network_spinodal, DESTROYED),
            (theory.network_switch, COLORS.green),
        ):
            ax.plot(fine, [formula(t) for t in fine], color=colour)
            ax.plot(fine, [formula(t, pair=True) for t in fine], color=colour, ls="--")
        _points(ax, steps, [diagram.lam_s[t] for t in steps], DESTROYED, "s", "λ$_s$")
        _points(ax, steps, [diagram.lam_c[t] for t in steps], COLORS.green, "D", "λ$_c$")
        if real is not None:
            _points(
                ax, steps, [real.lam_s[t] for t in steps], DESTROYED, "x", "λ$_s$, identity start"
            )
            _points(
                ax,
                steps,
                [real.lam_c[t] for t in steps],
                COLORS.green,
                "+",
                "λ$_c$, identity start",
            )
        gains = sorted({gain for _, gain in diagram.lam_cold})
        for gain in gains:
            own = sorted(T for T, g in diagram.lam_cold if g == gain)
            found = [diagram.lam_cold[t, gain] for t in own]
            _points(ax, own, found, gain_colour(gain), "o", f"λ$_{{cold}}$, g = {gain:g}")
        ax.plot([], [], color="0.3", label="theory, one real eigenvalue")
        ax.plot([], [], color="0.3", ls="--", label="theory, a complex pair")
        ax.set_xscale("log")
        log_y(ax)
        ax.set_xticks(steps, [str(t) for t in steps])
        ax.minorticks_off()
        ax.set(xlabel="steps T", ylabel="λ")
        ax.set_title("linear network", fontsize=8)
        figure.legend(fontsize=7, loc="outside right upper")
    return figure


def slope_figure(slopes: dict[str, Any]):
    """Measured slope against each predictor, one row a network; what lies outside is drawn at the edge and counted."""
    import matplotlib.pyplot as plt

    steps = np.unique(np.concatenate([table.num_steps for table in slopes.values()]))
    colours = dict(zip(steps, COLORS, strict=False))
    with rr.plotting.style():
        figure, axes = plt.subplots(
            len(slopes), 4, figsize=(7.6, 2.2 * len(slopes) + 0.4), squeeze=False, sharey="row"
        )
        for row, (name, table) in zip(axes, slopes.items(), strict=True):
            y_ends = limits_of(table.measured, 0.005)
            for ax, predictor in zip(row, NAMES, strict=True):
                own = limits_of(table.predicted[predictor], 0.05)
                x_ends = (min(own[0], y_ends[0]), max(own[1], y_ends[1]))
                place = np.stack([table.predicted[predictor], table.measured])
                low, high = np.transpose([x_ends, y_ends])[:, :, None]
                beyond = ((place < low) | (place > high)).any(axis=0)
                shown = np.clip(place, low, high)
                for T in np.unique(table.num_steps):
                    options = {"color": colours.get(T, "0.5"), "alpha": 0.6, "rasterized": True}
                    at = table.num_steps == T
                    ax.plot(*shown[:, at & ~beyond], ".", ms=2, **options)
                    if (at & beyond).any():
                        outside = shown[:, at & beyond]
                        ax.plot(*outside, "D", ms=4, mfc="none", mew=0.7, clip_on=False, **options)
                ax.plot(y_ends, y_ends, color="0.4", lw=0.8)
                ax.set(xlim=x_ends, ylim=y_ends)
                found = table.scores[predictor]
                title = f"R² {found.r2:.2f}, bias {found.bias:+.3f}"
                title += (
                    f"\n{beyond.sum()} of {len(table.measured)} beyond (◇)" if beyond.any() else ""
                )
                ax.set_title(title, fontsize=7)
                ax.set_xlabel(predictor, fontsize=8)
            row[0].set_ylabel(f"{name}: slope of ln‖∂h$_T$/∂h$_t$‖", fontsize=7)
        handles = [
            plt.Line2D([], [], color=colours.get(T, "0.5"), marker=".", ls="none") for T in steps
        ]
        figure.legend(
            handles, [f"T = {T}" for T in steps], loc="outside upper center", ncols=len(steps)
        )
    return figure


def limits_of(values: np.ndarray, tail: float) -> tuple[float, float]:
    """An axis of all values but the two tails, with a margin."""
    if not len(values):
        return -1.0, 1.0
    low, high = np.quantile(values, [tail, 1 - tail])
    pad = 0.1 * (high - low) + 0.01
    return float(low - pad), float(high + pad)


def control_figure(controls: Any):
    """λ_cold of every way to train at the short and the long T, and how far it falls from one to the other."""
    import matplotlib.pyplot as plt

    names = list(controls.cold)
    steps = list(controls.cold[names[0]])
    limits = (EDGES[0] / 2, EDGES[1] * 2)
    with rr.plotting.style():
        figure, (left, right) = plt.subplots(
            1,
            2,
            figsize=(7.6, 0.28 * len(names) + 1.5),
            sharey=True,
            gridspec_kw={"width_ratios": (1.3, 1)},
        )
        shifts = np.linspace(-0.15, 0.15, len(steps)) if len(steps) > 1 else [0.0]
        for shift, T, colour, marker in zip(
            shifts, steps, (COLORS.blue, COLORS.vermillion), "os", strict=False
        ):
            left.plot([], [], marker, color=colour, label=f"T = {T}")
            for y, name in enumerate(names):
                one = controls.cold[name][T]
                _with_interval(left, y + shift, one, colour, marker, across=True, limits=limits)
        left.set(xscale="log", xlim=limits)
        left.set_xlabel("λ$_{cold}$ (data loss without memory = 1)")
        left.set_yticks(range(len(names)), names)
        left.set_ylim(len(names) - 0.5, -0.5)
        for y, name in enumerate(names):
            if name in controls.fall:
                _with_interval(right, y, controls.fall[name], "0.1", "D", across=True)
        right.set_xscale("log")
        right.set_xlabel(f"λ$_{{cold}}$ at T = {steps[-1]} over T = {steps[0]}")
        right.tick_params(labelleft=False)
        law = law_fall(steps[0], steps[-1])
        right.axvline(
            law, color=gain_colour(GAIN), lw=1, zorder=0, label=f"T g$^{{T−2}}$, g = {GAIN}"
        )
        right.axvline(1, color="0.4", lw=1, ls=":", zorder=0, label="no fall")
        for ax in (left, right):
            ax.grid(axis="x", lw=0.4, alpha=0.5)
        handles, labels = left.get_legend_handles_labels()
        more, words = right.get_legend_handles_labels()
        figure.legend(handles + more, labels + words, loc="outside upper center", ncols=4)
    return figure
