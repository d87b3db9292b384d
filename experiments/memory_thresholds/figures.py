"""The figures of the study: phase diagram, both axes of memory, slopes, controls."""

from __future__ import annotations

from typing import Any

import numpy as np

import rnnreg as rr
from experiments._thresholds import Ratio, Threshold
from experiments.memory_thresholds import theory
from experiments.memory_thresholds.controls import EDGES, GAIN, Controls, law_fall
from experiments.memory_thresholds.diagram import Study
from experiments.memory_thresholds.law import Law
from experiments.memory_thresholds.slopes import scores
from rnnreg.plotting import COLORS, log_y

DESTROYED = "0.1"  # λ_s
FLOOR = 1e-9  # where a gradient of 0 is drawn
GAIN_COLOURS = {0.7: COLORS.sky, 0.8: COLORS.blue, 0.85: COLORS.purple, 0.9: COLORS.orange, 1.0: COLORS.vermillion}
FORMS = ((theory.network_spinodal, DESTROYED), (theory.network_switch, COLORS.green))


def gain_colour(gain: float) -> Any:
    """A gain has one colour in every figure, whichever others are there; unlisted gains have one of a scale."""
    import matplotlib

    gain = round(float(gain), 6)
    return GAIN_COLOURS.get(gain) or matplotlib.colormaps["cividis"](min(gain / 2, 1.0))


def draw(
    study: Study, law: Law, predictions: dict[str, Any], networks: dict[str, Any], controls: Controls
) -> dict[str, Any]:
    """Every figure, by the name of its file."""
    found = {"memory_thresholds": headline(study, law, predictions)}
    if "linear" in study.diagrams:
        identity = study.paths.get("linear, identity")
        found["linear"] = linear_diagram(study.diagrams["linear"], identity)
    found["slopes"] = slope_figure(networks)
    if controls.cold:
        found["controls"] = control_figure(controls)
    return found


def headline(study: Study, law: Law, predictions: dict[str, Any]) -> Any:
    """The phase diagram in (T, λ), with the memory axis and the gradient axis against λ at one T."""
    import matplotlib.pyplot as plt

    main, T, gain = study.main, study.config.shown_steps, study.config.shown_gain
    colour, cold = gain_colour(gain), study.shown[0]
    with rr.plotting.style():
        figure = plt.figure(figsize=(7.6, 4.6))
        grid = figure.add_gridspec(2, 2, width_ratios=(1.25, 1))
        ax = figure.add_subplot(grid[:, 0])
        phase_diagram(ax, main, law, predictions)
        top = figure.add_subplot(grid[0, 1])
        bottom = figure.add_subplot(grid[1, 1], sharex=top)
        _draw_axis(top, study.shown, "bits", colour, least=-1)
        _draw_axis(bottom, study.shown, "gradient", colour, least=FLOOR)
        top.set(ylabel="memory: bits in h$_T$", ylim=(-0.08, study.config.num_bits * 1.12))
        top.set_title(f"T = {T}, cold start g = {gain:g}")
        top.tick_params(labelbottom=False)
        bottom.set_yscale("log")
        bottom.axhline(1, color="0.6", lw=0.7, zorder=0)
        bottom.set(ylabel="gradient: ‖∂h$_T$/∂h$_0$‖", xlabel="λ", ylim=(FLOOR / 4, 300))
        bottom.text(float(cold.l2[0]), FLOOR * 3, "0 (below 10⁻⁹)", fontsize=7, color="0.3")
        for found, own in ((main.lam_cold[T, gain], colour), (main.lam_c[T], COLORS.green), (main.lam_s[T], DESTROYED)):
            for panel in (top, bottom) if 0 < found.value < np.inf else ():
                panel.axvline(found.value, color=own, lw=0.9, ls=":", zorder=0)
        top.legend(fontsize=7, loc="center left")
        for panel, letter in ((ax, "a"), (top, "b"), (bottom, "c")):
            panel.set_title(letter, loc="left", fontweight="bold")
    return figure


def phase_diagram(ax: Any, main: Any, law: Law, predictions: dict[str, Any]) -> None:
    """λ_cold by gain with the law, λ_c and λ_s with the linear theory; predicted points are open diamonds."""
    steps = sorted(main.warm)
    fine = np.geomspace(steps[0] * 0.9, steps[-1] * 1.1, 200)
    for formula, colour in FORMS:
        ends = ([formula(t, pair=pair) for t in fine] for pair in (False, True))
        ax.fill_between(fine, *ends, color=colour, alpha=0.15, lw=0)
    _points(ax, main.lam_s, DESTROYED, "s", "λ$_s$: destroyed above")
    _points(ax, main.lam_c, COLORS.green, "D", "λ$_c$: not worth its cost above")
    options = {"mfc": "none", "ms": 8, "mew": 1}
    for gain, colour in _gains(main.lam_cold):
        _cold_points(ax, main.lam_cold, gain)
        if gain < 1:
            ax.plot(fine, law(fine, gain), color=colour, lw=1)
        for p in predictions["cold"]:
            if p["gain"] == gain and (p["T"], gain) in main.lam_cold:
                ax.plot(p["T"], p["predicted"], "D", mec=colour, **options)
    if predictions["cold"]:
        ax.plot([], [], "D", mec="0.3", label="predicted before it was run", **options)
    _log_axes(ax, sorted({T for T, _ in main.lam_cold}))
    least = min([1e-3, *(f.low for f in main.lam_cold.values() if f.low > 0)]) / 3
    ax.set(ylim=(least, 60), xlim=(fine[0], fine[-1]))
    title = f"lines: λ$_{{cold}}$ = {law.constant:.2g} T g$^{{T−2}}$; bands: linear theory"
    ax.set_title(title, fontsize=8)
    ax.legend(fontsize=7, loc="lower left")


def _gains(lam_cold: dict[tuple[int, float], Threshold]) -> list[tuple[float, Any]]:
    """The gains, ascending, and their colours."""
    return [(gain, gain_colour(gain)) for gain in sorted({gain for _, gain in lam_cold})]


def _cold_points(ax: Any, lam_cold: dict[tuple[int, float], Threshold], gain: float) -> None:
    """λ_cold of one gain against T."""
    found = {T: one for (T, g), one in lam_cold.items() if g == gain}
    _points(ax, found, gain_colour(gain), "o", f"λ$_{{cold}}$, g = {gain:g}")


def _log_axes(ax: Any, steps: list[int]) -> None:
    """T across and λ up, both logarithmic."""
    ax.set_xscale("log")
    log_y(ax)
    ax.set_xticks(steps, [str(t) for t in steps])
    ax.minorticks_off()
    ax.set(xlabel="steps T", ylabel="λ")


def _points(ax: Any, found: dict[int, Threshold], colour: Any, marker: str, label: str) -> None:
    """Thresholds with their intervals against T."""
    ax.plot([], [], marker, color=colour, ms=4, label=label)
    for T in sorted(found):
        _with_interval(ax, T, found[T], colour, marker)


def _with_interval(
    ax: Any,
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

    def plot(values, fmt, **options):
        pair = (values, [place] * len(values))
        ax.plot(*(pair if across else pair[::-1]), fmt, color=colour, clip_on=not across, **options)

    if np.isnan(one.value):
        return
    if one.value == 0:
        plot([max(one.high, limits[0])], towards_zero, ms=5)
        return
    if np.isinf(one.value):
        plot([min(one.low, limits[1])], towards_infinity, ms=5)
        return
    low = max(one.low, limits[0]) or one.value / 3
    high = min(one.high, limits[1])
    high = high if np.isfinite(high) else 3 * one.value
    plot([low, high], "-", lw=1)
    plot([low], cap if low == one.low else towards_zero, ms=4, mew=1)
    plot([high], cap if high == one.high else towards_infinity, ms=4, mew=1)
    plot([one.value], marker, ms=4)


def _draw_axis(ax: Any, shown: Any, name: str, cold_colour: str, *, least: float) -> None:
    """One axis of memory: each seed a dot, medians a line; cold, up and down."""
    cold, warm = shown
    for runs, colour, marker, label in (
        (cold, cold_colour, "o", "cold"),
        (warm.sel(way="up"), DESTROYED, "^", "carried up"),
        (warm.sel(way="down"), "0.55", "v", "carried down"),
    ):
        values = np.maximum(runs[name].transpose("l2", "seed").values, least)
        lams = runs.l2.values
        x = np.repeat(lams, values.shape[1])
        ax.plot(x, values.ravel(), marker, color=colour, ms=2, alpha=0.35, mew=0)
        ax.plot(lams, np.median(values, axis=1), color=colour, lw=1.3, label=label)
    ax.set_xscale("log")


def linear_diagram(diagram: Any, real: Any | None) -> Any:
    """λ_c and λ_s of every path of the linear network on the closed forms."""
    import matplotlib.pyplot as plt

    with rr.plotting.style():
        figure, ax = plt.subplots(figsize=(6.6, 3.4))
        steps = sorted(diagram.warm)
        fine = np.geomspace(steps[0], steps[-1], 100)
        for formula, colour in FORMS:
            ax.plot(fine, [formula(t) for t in fine], color=colour)
            ax.plot(fine, [formula(t, pair=True) for t in fine], color=colour, ls="--")
        _points(ax, diagram.lam_s, DESTROYED, "s", "λ$_s$")
        _points(ax, diagram.lam_c, COLORS.green, "D", "λ$_c$")
        if real is not None:
            _points(ax, real.lam_s, DESTROYED, "x", "λ$_s$, identity start")
            _points(ax, real.lam_c, COLORS.green, "+", "λ$_c$, identity start")
        for gain, _ in _gains(diagram.lam_cold):
            _cold_points(ax, diagram.lam_cold, gain)
        ax.plot([], [], color="0.3", label="theory, one real eigenvalue")
        ax.plot([], [], color="0.3", ls="--", label="theory, a complex pair")
        _log_axes(ax, steps)
        ax.set_title("linear network", fontsize=8)
        figure.legend(fontsize=7, loc="outside right upper")
    return figure


def slope_figure(slopes: dict[str, Any]) -> Any:
    """Measured slope against each predictor, one row a network; what lies outside is drawn at the edge and counted."""
    import matplotlib.pyplot as plt

    steps = sorted({T for networks in slopes.values() for T in networks["T"]})
    colours = dict(zip(steps, COLORS, strict=False))
    with rr.plotting.style():
        size = (7.6, 2.2 * len(slopes) + 0.4)
        figure, axes = plt.subplots(len(slopes), 4, figsize=size, squeeze=False, sharey="row")
        for row, (name, networks) in zip(axes, slopes.items(), strict=True):
            for ax, (predictor, of) in zip(row, scores(networks).items(), strict=True):
                beyond = _draw_slopes(ax, networks, predictor, colours)
                title = f"R² {of.r2:.2f}, bias {of.bias:+.3f}"
                title += f"\n{beyond} of {len(networks)} beyond (◇)" if beyond else ""
                ax.set_title(title, fontsize=7)
                ax.set_xlabel(predictor, fontsize=8)
            row[0].set_ylabel(f"{name}: slope of ln‖∂h$_T$/∂h$_t$‖", fontsize=7)
        handles = [plt.Line2D([], [], color=colours.get(T, "0.5"), marker=".", ls="none") for T in steps]
        labels = [f"T = {T:g}" for T in steps]
        figure.legend(handles, labels, loc="outside upper center", ncols=len(steps))
    return figure


def _draw_slopes(ax: Any, networks: Any, predictor: str, colours: dict[int, Any]) -> int:
    """One predictor; how many networks lie outside the axes, and were drawn at the edge."""
    y_ends = limits_of(networks.slope, 0.005)
    own = limits_of(networks[predictor], 0.05)
    x_ends = (min(own[0], y_ends[0]), max(own[1], y_ends[1]))
    place = networks[[predictor, "slope"]].to_numpy().T
    shown = np.clip(place, *np.transpose([x_ends, y_ends])[:, :, None])
    beyond = (shown != place).any(axis=0)
    for T in np.unique(networks["T"]):
        options = {"color": colours.get(T, "0.5"), "alpha": 0.6, "rasterized": True}
        at = (networks["T"] == T).to_numpy()
        ax.plot(*shown[:, at & ~beyond], ".", ms=2, **options)
        if (at & beyond).any():
            outside = {"ms": 4, "mfc": "none", "mew": 0.7, "clip_on": False}
            ax.plot(*shown[:, at & beyond], "D", **outside, **options)
    ax.plot(y_ends, y_ends, color="0.4", lw=0.8)
    ax.set(xlim=x_ends, ylim=y_ends)
    return int(beyond.sum())


def limits_of(values: Any, tail: float) -> tuple[float, float]:
    """An axis of all values but the two tails, with a margin."""
    if not len(values):
        return -1.0, 1.0
    low, high = np.quantile(values, [tail, 1 - tail])
    pad = 0.1 * (high - low) + 0.01
    return float(low - pad), float(high + pad)


def control_figure(controls: Controls) -> Any:
    """λ_cold of every way to train at the short and the long T, and how far it falls from one to the other."""
    import matplotlib.pyplot as plt

    names = list(controls.cold)
    steps = list(controls.cold[names[0]])
    limits = (EDGES[0] / 2, EDGES[1] * 2)
    with rr.plotting.style():
        size, ratios = (7.6, 0.28 * len(names) + 1.5), {"width_ratios": (1.3, 1)}
        figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, gridspec_kw=ratios)
        shifts = np.linspace(-0.15, 0.15, len(steps)) if len(steps) > 1 else [0.0]
        for shift, T, colour, marker in zip(shifts, steps, (COLORS.blue, COLORS.vermillion), "os", strict=False):
            left.plot([], [], marker, color=colour, label=f"T = {T}")
            for y, name in enumerate(names):
                one = controls.cold[name][T]
                _with_interval(left, y + shift, one, colour, marker, across=True, limits=limits)
        for y, name in enumerate(names):
            if name in controls.fall:
                _with_interval(right, y, controls.fall[name], "0.1", "D", across=True)
        left.set(xscale="log", xlim=limits, xlabel="λ$_{cold}$ (data loss without memory = 1)")
        left.set_yticks(range(len(names)), names)
        left.set_ylim(len(names) - 0.5, -0.5)
        right.set(xscale="log", xlabel=f"λ$_{{cold}}$ at T = {steps[-1]} over T = {steps[0]}")
        right.tick_params(labelleft=False)
        law, label = law_fall(steps[0], steps[-1]), f"T g$^{{T−2}}$, g = {GAIN}"
        right.axvline(law, color=gain_colour(GAIN), lw=1, zorder=0, label=label)
        right.axvline(1, color="0.4", lw=1, ls=":", zorder=0, label="no fall")
        for ax in (left, right):
            ax.grid(axis="x", lw=0.4, alpha=0.5)
        handles, labels = left.get_legend_handles_labels()
        more, words = right.get_legend_handles_labels()
        figure.legend(handles + more, labels + words, loc="outside upper center", ncols=4)
    return figure
