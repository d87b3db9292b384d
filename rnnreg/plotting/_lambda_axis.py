"""λ as a horizontal axis and as a colour; λ = 0 has a place in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._signatures import Numbers, typed
from rnnreg.plotting._axes import bar_beside, ink, number, numbers, size_inches
from rnnreg.plotting._style import check_axes, nth_color, nth_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BREAK = "rnnreg-axis-break"
MOST_NAMED = 6  # so many λ the legend names; more have a colour bar
_MIN_DECADES = 0.9  # with fewer, powers of ten are too few ticks


@typed
def lambda_axis(ax: Axes, lams: Numbers, *, label: str = "λ") -> np.ndarray:
    """Makes x a logarithmic λ axis and returns where each λ lies on it: at λ itself, except for λ = 0.

    The logarithm of 0 is nowhere, yet the unregularised run belongs in the picture: it is placed left
    of the smallest λ, behind a gap with an axis break, and its tick says "0". Call it once with all λ
    that will be drawn; a second call replaces the first.

    Args:
      ax: the axes; their x axis is changed.
      lams: `[n]` λ ≥ 0, in any order.
      label: of the axis.

    Returns:
      `[n]` x positions, in the order of `lams`.

    Raises:
      ValueError: a λ that is negative or not finite, or none at all.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> x = lambda_axis(ax, [0, 1e-4, 1e-2])
    >>> bool(0 < x[0] < 1e-4), x[1:].tolist()
    (True, [0.0001, 0.01])
    >>> plt.close(figure)
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullLocator

    from rnnreg.plotting._ticks import ZeroFormatter, ZeroLocator

    check_axes(ax)
    lams = np.asarray(lams, dtype=np.float64).ravel()
    if lams.size == 0 or not np.isfinite(lams).all() or (lams < 0).any():
        raise ValueError(
            f"lams must be at least one finite number ≥ 0; got {lams.tolist()}. Give λ, not log λ."
        )
    for artist in [artist for artist in ax.get_children() if artist.get_gid() == _BREAK]:
        artist.remove()
    ax.set_xscale("log")
    ax.set_xlabel(label)
    positive = np.unique(lams[lams > 0])
    has_zero = bool((lams == 0).any())
    if positive.size == 0:
        ax.xaxis.set_major_locator(FixedLocator([1.0]))
        ax.xaxis.set_major_formatter(FixedFormatter(["0"]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(0.1, 10)
        return np.ones_like(lams)

    low, high = float(positive[0]), float(positive[-1])
    logs = np.log10(positive)
    decades = max(logs[-1] - logs[0], 0.3)
    spacing = float(np.diff(logs).min()) if positive.size > 1 else decades
    share = min(0.34 / size_inches(ax)[0], 0.4)  # room for the labels "0" and "10⁻⁵" side by side
    gap = max(0.13 * decades, 1.2 * spacing, share / (1 - share) * decades)
    zero = low / 10**gap if has_zero else None
    pad = 10 ** (0.04 * (decades + gap))
    ax.set_xlim((low if zero is None else zero) / pad, high * pad)

    if logs[-1] - logs[0] >= _MIN_DECADES:
        minor = LogLocator(subs=tuple(range(2, 10)), numticks=99)
        ax.xaxis.set_major_locator(ZeroLocator(LogLocator(), zero, low, high, show=True))
        ax.xaxis.set_minor_locator(ZeroLocator(minor, zero, low, high, show=False))
        ax.xaxis.set_major_formatter(ZeroFormatter(zero))
    else:
        shown = positive[np.unique(np.linspace(0, positive.size - 1, 4).round().astype(int))]
        ticks = [*([] if zero is None else [zero]), *shown]
        labels = [*([] if zero is None else ["0"]), *map(number, shown)]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter(FixedFormatter(labels))
        ax.xaxis.set_minor_locator(NullLocator())
    if zero is None:
        return lams.copy()
    _draw_break(ax, zero, low, decades + gap)
    return np.where(lams == 0, zero, lams)


def _draw_break(ax: Axes, zero: float, low: float, decades: float) -> None:
    """Two slashes on the bottom spine, and a gap between them."""
    from matplotlib.lines import Line2D

    middle, half = np.sqrt(zero * low), 10 ** (0.009 * decades)
    ends = [middle / half, middle * half]
    spine = ax.spines["bottom"]
    shared = {"transform": ax.get_xaxis_transform(), "clip_on": False, "gid": _BREAK}
    gap = Line2D(
        ends, [0, 0], color=ax.get_facecolor(), lw=spine.get_linewidth() + 1.5, zorder=5, **shared
    )
    slash: dict[str, Any] = {"marker": [(-0.5, -1), (0.5, 1)], "markersize": 7, "linestyle": "none"}
    look = {"color": spine.get_edgecolor(), "mew": spine.get_linewidth(), "zorder": 6}
    slashes = Line2D(ends, [0, 0], **slash, **look, **shared)
    for artist in (gap, slashes):
        ax.add_artist(artist)


def with_gap(lams: np.ndarray, x: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sorted by λ, with a NaN after λ = 0, so that a line does not cross the axis break."""
    order = np.argsort(lams, kind="stable")
    zeros = int((lams == 0).sum())
    at = [zeros] if zeros else []
    return tuple(
        np.insert(np.asarray(array, dtype=np.float64)[order], at, np.nan, axis=0)
        for array in (x, *values)
    )


def _lambda_colors(lams: np.ndarray, *, zero: str, legend: bool | None) -> tuple[list[Any], Any]:
    """A colour for every λ, one of its own for 0, and what a colour bar needs, or None if the legend names every λ."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm

    if not np.isfinite(lams).all() or (lams < 0).any():
        raise ValueError(f"lams must be finite and ≥ 0; got {lams.tolist()}.")
    positive = np.unique(lams[lams > 0])
    # black or white is for λ = 0; bright yellow is too pale on white, and violet too dark on black
    ends = (0.14, 0.9) if zero == "black" else (0.35, 1.0)
    map_ = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(*ends, 256)))
    low, high = (positive[0], positive[-1]) if positive.size else (1.0, 1.0)
    norm = LogNorm(low, high if high > low else 10 * low)
    colors = [zero if lam == 0 else map_(norm(lam)) for lam in lams]
    legend = len(np.unique(lams)) <= MOST_NAMED if legend is None else legend
    return colors, None if legend or positive.size < 2 else ScalarMappable(norm, map_)


def draw_by_lambda(
    ax: Axes,
    lams: Sequence[float] | np.ndarray,
    curves: Sequence[tuple],
    *,
    chosen: float | None = None,
    legend: bool | None = None,
) -> list[Any]:
    """One curve `(x, y)` per λ in its colour, which is returned; small λ are named first and lie on top.

    With a colour bar, only λ = 0 and the chosen λ stand in the legend.
    """
    lams = np.asarray(lams, dtype=np.float64)
    colors, bar = _lambda_colors(lams, zero=ink(ax), legend=legend)
    is_drawn = [bar is None or lam == 0 or _is_chosen(lam, chosen) for lam in lams]
    named = lams[is_drawn].tolist()
    said = dict(zip(named, numbers(named), strict=True))
    told: set[float] = set()  # several trials of a search may have one λ
    for rank, place in enumerate(np.argsort(lams, kind="stable")):
        lam = float(lams[place])
        is_chosen = _is_chosen(lam, chosen)
        name = f"λ = {said.get(lam, number(lam))}" + (" (chosen)" if is_chosen else "")
        name = name if is_drawn[place] and lam not in told else f"_{name}"
        told.add(lam)
        look: Any = (
            {"linewidth": 2.6, "zorder": 3.1}
            if is_chosen
            else {"linewidth": 1.3, "zorder": 3 - 1e-3 * rank}
        )
        line = ("--" if lam == 0 else "-") + ("o" if len(curves[place][0]) == 1 else "")
        ax.plot(*curves[place], line, color=colors[place], label=name, **look)
    if bar is not None:
        bar_beside(ax, bar).ax.set_xlabel("λ", labelpad=11)
    return colors


def _is_chosen(lam: float, chosen: float | None) -> bool:
    return chosen is not None and bool(np.isclose(lam, chosen, rtol=1e-6, atol=0))


def draw_curves(
    ax: Axes,
    curves: Sequence[tuple],
    *,
    lams: Any = None,
    labels: Sequence[str] | None = None,
    chosen: float | None = None,
    legend: bool | None = None,
) -> list[Any]:
    """Curves `(x, y)` by λ, or else in the order of the palette with their labels; returns their colours."""
    if lams is not None:
        return draw_by_lambda(ax, lams, curves, chosen=chosen, legend=legend)
    colors = [nth_color(place) for place in range(len(curves))]
    for place, (curve, label) in enumerate(
        zip(curves, labels or [None] * len(curves), strict=True)
    ):
        ax.plot(*curve, nth_line(place), color=colors[place], label=label)
    return colors
