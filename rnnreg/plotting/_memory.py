"""What a state still holds of its past inputs, against steps back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import check_number
from rnnreg._signatures import typed
from rnnreg.diagnostics import FisherMemory, MemoryCurve, SufficientWindow
from rnnreg.plotting._axes import legend_above, limit_y, log_y, steps_back
from rnnreg.plotting._inputs import by_label, one
from rnnreg.plotting._style import COLORS, canvas, nth_color, nth_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
def fisher_memory(
    memories: FisherMemory | Mapping[str, FisherMemory],
    *,
    floor: float = 1e-4,
    ax: Axes | None = None,
) -> Axes:
    r"""J(k) on a logarithmic axis against steps back k, with J_tot in the legend.

    Args:
      memories: from `rr.diagnostics.fisher_memory`, one or several by name; those that did not converge are left
        out, and named as such.
      floor: where the axis ends.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or none.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> memory = rr.diagnostics.fisher_memory(jnp.eye(3, k=1), jnp.eye(3)[0], num_lags=3)
    >>> ax = fisher_memory({"line": memory})
    >>> ax.lines[0].get_label(), ax.get_yscale()
    ('line, J$_{\\mathrm{tot}}$ = 1.83', 'log')
    >>> matplotlib.pyplot.close(ax.figure)
    """
    several = by_label(memories, FisherMemory)
    check_number(floor, "floor", least=0, above=True)
    with canvas(ax) as ax:
        highest = 1.0
        for place, (name, memory) in enumerate(several.items()):
            lead = f"{name}, " if name else ""
            color = nth_color(place)
            if not bool(memory.converged):
                ax.plot([], [], color=color, label=f"{lead}not converged")
                continue
            label = f"{lead}J$_{{\\mathrm{{tot}}}}$ = {float(memory.total):.2f}"
            curve = np.asarray(memory.curve, dtype=np.float64)
            highest = max(highest, curve.max())
            ax.plot(memory.lags, curve, color=color, linestyle=nth_line(place), label=label)
        log_y(ax)
        limit_y(ax, floor, highest * 1.5)
        steps_back(ax, symbol="k")
        ax.set_ylabel("Fisher information J(k)")
        legend_above(ax)
    return ax


@typed
def memory_curve(
    curves: MemoryCurve | Mapping[str, MemoryCurve], *, ax: Axes | None = None
) -> Axes:
    """Recall of the input k steps back, with the capacity in the legend; grey is what surrogates get (± 2 sd).

    The legend says how many directions of the states were left out of a fit, where some were.

    Args:
      curves: from `rr.diagnostics.memory_curve`, one or several by name.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or none.

    >>> import jax, matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> delay_line = lambda params, state, x: jnp.concatenate([x, state[:, :-1]], axis=1)
    >>> xs, first = jax.random.normal(jax.random.key(0), (4, 100, 1)), jnp.zeros((4, 3))
    >>> memory = rr.diagnostics.memory_curve(delay_line, None, xs, key=jax.random.key(1), num_lags=5, state=first)
    >>> memory_curve(memory).get_xlabel()
    'steps back k'
    >>> matplotlib.pyplot.close("all")
    """
    several = by_label(curves, MemoryCurve)
    with canvas(ax) as ax:
        spread, lowest = 0.0, 0.0
        for place, (name, curve) in enumerate(several.items()):
            label = f"{name + ', ' if name else ''}capacity {float(curve.capacity):.2f}"
            dropped = int(curve.num_dropped)
            label += f" ({dropped} direction{'s'[: dropped > 1]} dropped)" if dropped else ""
            recall = np.asarray(curve.recall, dtype=np.float64)
            lowest = min(lowest, recall[np.isfinite(recall)].min(initial=0.0))
            ax.plot(curve.lags, recall, nth_line(place), color=nth_color(place), label=label)
            surrogates = np.asarray(curve.surrogates, dtype=np.float64)
            unseen = (surrogates - surrogates.mean(axis=0)) / np.maximum(
                1 - surrogates.mean(axis=0), 1e-12
            )
            spread = max(spread, 2 * float(unseen.std()))
        look: dict[str, Any] = {"color": "0.5", "alpha": 0.3, "zorder": 0, "linewidth": 0}
        ax.axhspan(-spread, spread, label="surrogates ± 2 sd", **look)
        limit_y(ax, min(-0.05, -1.2 * spread, 1.1 * lowest), 1.05)
        steps_back(ax, symbol="k")
        ax.set_ylabel("recall of u$_{t−k}$ (R², corrected)")
        legend_above(ax)
    return ax


@typed
def sufficient_window(
    found: SufficientWindow, *, tolerance: float | None = None, ax: Axes | None = None
) -> Axes:
    """How far the output is from that of the whole history, against the length of the window: median and extremes.

    Sequences whose output is not finite are left out, and counted in the legend.

    Args:
      found: from `rr.diagnostics.sufficient_window`.
      tolerance: drawn as a line, with the smallest window that serves every sequence.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> leaky, first = lambda params, state, x: 0.5 * state + x, jnp.zeros((1, 1))
    >>> found = rr.diagnostics.sufficient_window(leaky, None, jnp.ones((1, 16, 1)), tolerance=0.01, state=first)
    >>> ax = sufficient_window(found, tolerance=0.01)
    >>> ax.lines[0].get_xdata().tolist()
    [1, 2, 4, 8]
    >>> matplotlib.pyplot.close(ax.figure)
    """
    found = one(found, SufficientWindow)
    deviation = np.asarray(found.deviation, dtype=np.float64)
    windows = np.asarray(found.windows)
    finite = np.isfinite(deviation).all(axis=0)
    label = "median" if finite.all() else f"median ({(~finite).sum()} of {finite.size} not finite)"
    deviation = deviation[:, finite]
    with canvas(ax) as ax:
        median = np.median(deviation, axis=1) if finite.any() else np.full(len(windows), np.nan)
        ax.plot(windows, median, color=COLORS.blue, marker="o", label=label)
        if deviation.shape[1] > 1:
            low, high = deviation.min(axis=1), deviation.max(axis=1)
            smallest = deviation[deviation > 0].min(initial=1.0)
            ax.fill_between(
                windows,
                np.maximum(low, smallest),
                high,
                where=high > 0,  # the whole history is 0 away, and has no place on this axis
                color=COLORS.blue,
                alpha=0.2,
                label="lowest to highest sequence",
            )
        if tolerance is not None:
            whole = int(found.whole)
            said = f"{whole} steps serve all" if whole > 0 else "no window tried serves all"
            ax.axhline(tolerance, color="0.5", linestyle=":", label=f"tolerance: {said}")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlim(windows.min() / 1.2, windows.max() * 1.2)
        if not finite.any() and tolerance is not None:
            limit_y(ax, tolerance / 10, tolerance * 10)
        log_y(ax)
        ax.set_xlabel("window (last steps kept)")
        ax.set_ylabel("‖y$^{(k)}$ − y‖ at the last step")
        legend_above(ax)
    return ax
