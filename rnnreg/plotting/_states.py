"""States along a batch: how saturated they are, and how open the gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rnnreg._signatures import typed
from rnnreg.diagnostics import Saturation
from rnnreg.plotting._axes import bar_beside, legend_above, whole_steps
from rnnreg.plotting._inputs import one
from rnnreg.plotting._style import COLORS, canvas, nth_color, nth_marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
def saturation(found: Saturation, *, ax: Axes | None = None) -> Axes:
    """How the activations are spread at each step, in grey, and the shares that saturate, in colour.

    The shares run from 0 at the bottom to 1 at the top; their mean stands in the legend.

    Args:
      found: one layer's entry of what `rr.diagnostics.saturation` returns.
      ax: where to draw.

    Returns:
      The axes of the histogram.

    Raises:
      ValueError: another record.

    >>> import jax, matplotlib, rnnreg as rr
    >>> net = rr.network([rr.cells.elman(3)], 1)
    >>> found = rr.diagnostics.saturation(net, net.init(jax.random.key(0), 1), np.ones((2, 5, 1)))
    >>> ax = saturation(found["layer_0"])
    >>> ax.get_ylabel()
    'activation'
    >>> matplotlib.pyplot.close(ax.figure)
    """
    found = one(found, Saturation)
    histogram = np.asarray(found.histogram, dtype=np.float64)
    edges = np.asarray(found.edges, dtype=np.float64)
    steps = np.arange(1, len(histogram) + 1)
    with canvas(ax) as ax:
        sides = np.append(steps - 0.5, steps[-1] + 0.5)
        mesh = ax.pcolormesh(sides, edges, histogram.T, cmap="Greys", rasterized=True)
        bar_beside(ax, mesh, label="share of units")
        heights = edges[0] + (edges[-1] - edges[0]) * np.asarray(found.saturated_steps, np.float64)
        name = f"share saturated, 0 to 1 (mean {float(found.saturated):.2f})"
        ax.plot(steps, heights, color=COLORS.vermillion, label=name)
        ax.set_ylim(edges[0], edges[-1])
        ax.set_xlabel("step t")
        ax.set_ylabel("activation")
        whole_steps(ax)
        legend_above(ax)
    return ax


@typed
def gate_openings(found: Saturation, *, ax: Axes | None = None) -> Axes:
    """Each unit of each gate by how often it is open and how often it is closed.

    A unit near the lower right corner is almost always open (a forget gate that remembers), one near the upper
    left almost always closed, one near the origin never decided.

    Args:
      found: one layer's entry of what `rr.diagnostics.saturation` returns, of a gated cell.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or a layer without gates.

    Source: Karpathy, Johnson & Li 2015, "Visualizing and understanding recurrent networks".

    >>> import jax, matplotlib, rnnreg as rr
    >>> net = rr.network([rr.cells.gru(3)], 1)
    >>> found = rr.diagnostics.saturation(net, net.init(jax.random.key(0), 1), np.zeros((2, 5, 1)))
    >>> ax = gate_openings(found["layer_0"])
    >>> [line.get_label() for line in ax.lines[:2]]
    ['reset (mean 0.50)', 'update (mean 0.50)']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    if not one(found, Saturation).gates:
        raise ValueError("this layer has no gates to draw; take a layer of a GRU or an LSTM.")
    with canvas(ax) as ax:
        for place, (name, gate) in enumerate(found.gates.items()):
            name, shares = (
                f"{name} (mean {float(gate.mean):.2f})",
                (gate.open_units, gate.closed_units),
            )
            ax.plot(*shares, nth_marker(place), color=nth_color(place), alpha=0.7, label=name)
        ax.plot([0, 1], [1, 0], color="0.7", linestyle=":", linewidth=1.0, zorder=0)
        ax.set_xlim(-0.03, 1.03)
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("share of steps open")
        ax.set_ylabel("share of steps closed")
        legend_above(ax)
    return ax
