"""How far gradients reach, against λ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._signatures import Numbers, typed
from rnnreg.diagnostics import Horizon
from rnnreg.plotting._axes import legend_above, limit_y
from rnnreg.plotting._inputs import one
from rnnreg.plotting._lambda_axis import lambda_axis, with_gap
from rnnreg.plotting._style import COLORS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
def horizons(
    lams: Numbers,
    reach: Horizon,
    *,
    label: str = "horizon",
    color: Any = COLORS.blue,
    ax: Axes | None = None,
) -> Axes:
    """The horizon of each run against λ, and its median; a censored one is an open triangle at the last lag.

    A median stands only where it is a number: where at least half of the runs fell below the threshold it counts a
    censored run as longer than all others, and elsewhere there is none. Runs without a horizon, as their gradient at
    lag 0 is 0 or not finite, are left out, and the label says how many.

    Args:
      lams: `[n]` λ ≥ 0, in any order.
      reach: from `rr.diagnostics.horizon` of log norms `[n, S, B, T]` or `[n, B, T]`.
      label: of the median.
      color: of the points.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or a number of λ that is not that of the horizons.

    >>> import matplotlib
    >>> from rnnreg.diagnostics import horizon
    >>> rates = -np.array([0.05, 0.5, 1.0])[:, None, None, None] * np.ones((3, 2, 1, 1))
    >>> ax = horizons([0, 0.1, 1], horizon(rates * np.arange(9)))
    >>> ax.get_ylabel()
    'horizon (steps back)'
    >>> matplotlib.pyplot.close(ax.figure)
    """
    lams = np.asarray(lams, dtype=np.float64)
    reach = one(reach, Horizon)
    lags, censored = np.asarray(reach.lag, np.float64), np.asarray(reach.censored)
    if lags.shape[:1] != lams.shape:
        raise ValueError(
            f"one horizon per λ in front: got {lams.shape} λ and horizons of shape {lags.shape}."
        )
    lags, censored = lags.reshape(len(lams), -1), censored.reshape(len(lams), -1)
    last = max(np.asarray(reach.longest, np.float64).max(), 1)
    counted = np.where(censored, np.inf, lags)
    none = np.isnan(counted)
    middle = [
        np.median(row[~gone]) for row, gone in zip(counted, none, strict=True) if not gone.all()
    ]
    medians = np.full(len(lams), np.nan)
    medians[~none.all(axis=1)] = middle
    medians = np.where(np.isfinite(medians), medians, np.nan)
    if none.any():
        label = f"{label} ({none.sum()} of {none.size} runs without one left out)"
    with canvas(ax) as ax:
        x = lambda_axis(ax, lams)
        places = np.broadcast_to(x[:, None], lags.shape)
        ax.plot(
            places.ravel(), lags.ravel(), ".", color=color, alpha=0.5, markersize=5, label="one run"
        )
        gapped, median = with_gap(lams, x, medians)
        ax.plot(gapped, median, color=color, marker="o", label=label)
        if censored.any():
            ends = np.full(int(censored.sum()), last)
            (open_,) = ax.plot(places[censored], ends, "^", color=color)
            open_.set(markerfacecolor="none", label="longer than the sequence")
        limit_y(ax, 0, 1.08 * last)
        ax.set_ylabel("horizon (steps back)")
        legend_above(ax)
    return ax
