"""States: how saturated they are, how open the gates, and the points that they are drawn to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg.diagnostics import DistinctPoints, Saturation
from rnnreg.plotting._style import COLORS, canvas, legend_above, whole_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {
    "stable": ("o", COLORS.blue),
    "saddle": ("X", COLORS.vermillion),
    "unstable": ("^", COLORS.green),
}


def fixed_points(
    table: DistinctPoints, *, states: Any = None, names: bool = True, ax: Axes | None = None
) -> Axes:
    """Fixed points in the two principal directions of the states: filled if stable, crosses for saddles.

    Slow points are drawn open. With `names`, a saddle says how many of its directions are unstable.

    Args:
      table: from `rr.diagnostics.distinct_points`.
      states: `[..., T, n]` trajectories, drawn thin and grey; they set the directions, which otherwise come from
        the points.
      names: whether saddles carry the number of their unstable directions.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or no point and no states either.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> points = np.array([[-1.0, 0.0], [1.0, 0.0]])
    >>> eigenvalues, two = np.full((2, 2), 0.5), np.zeros(2)
    >>> table = DistinctPoints(points, two, eigenvalues, two.astype(int), ("stable",) * 2, two > 0, two > 0, two, 0)
    >>> ax = fixed_points(table)
    >>> ax.collections[0].get_offsets().shape
    (2, 2)
    >>> matplotlib.pyplot.close(ax.figure)
    """
    if not isinstance(table, DistinctPoints):
        raise ValueError(
            f"the figure is of distinct points; got {type(table).__name__}. Give it "
            "rr.diagnostics.distinct_points(found)."
        )
    points = np.asarray(table.points, dtype=np.float64)
    paths = None if states is None else np.asarray(states, dtype=np.float64)
    cloud = points if paths is None else paths.reshape(-1, paths.shape[-1])
    if len(cloud) == 0:
        raise ValueError("there is nothing to draw: no point in the table, and no states.")
    centre = cloud.mean(axis=0)
    _, scales, axes = np.linalg.svd(cloud - centre, full_matrices=False)
    axes = np.concatenate([axes, np.zeros((2, cloud.shape[1]))])[:2]
    shares = np.square(scales) / max(np.square(scales).sum(), 1e-300)
    with canvas(ax) as ax:
        if paths is not None:
            for path in paths.reshape(-1, *paths.shape[-2:]):
                ax.plot(*((path - centre) @ axes.T).T, color="0.75", linewidth=0.5, zorder=0)
        places = (points - centre) @ axes.T
        slow = np.asarray(table.slow, dtype=bool)
        for kind, (marker, color) in KINDS.items():
            of_kind = np.array([name == kind for name in table.kind], dtype=bool)
            for pick, face, word in (
                (of_kind & ~slow, color, ""),
                (of_kind & slow, "none", ", slow"),
            ):
                if pick.any():
                    label = f"{kind}{word} ({int(pick.sum())})"
                    ax.scatter(
                        *places[pick].T,
                        marker=marker,
                        s=28,
                        facecolors=face,
                        edgecolors=color,
                        label=label,
                    )
        if names:
            for place, kind, count in zip(places, table.kind, table.num_unstable, strict=True):
                if kind == "saddle":
                    ax.annotate(
                        str(int(count)),
                        place,
                        xytext=(4, 3),
                        textcoords="offset points",
                        fontsize=7,
                    )
        padded = np.append(shares, [0, 0])
        ax.set_xlabel(f"first principal direction ({padded[0]:.0%} of the variance)")
        ax.set_ylabel(f"second ({padded[1]:.0%})")
        legend_above(ax)
    return ax


def bifurcation(
    values: Any,
    tables: Sequence[DistinctPoints],
    *,
    component: int = 0,
    xlabel: str = "parameter",
    ylabel: str = "fixed point",
    ax: Axes | None = None,
) -> Axes:
    """Fixed points against a parameter: stable ones filled, all others open.

    Args:
      values: `[K]`, the parameter.
      tables: `[K]`, from `rr.diagnostics.distinct_points`, one a value.
      component: which number of the state to draw.
      xlabel: what the parameter is.
      ylabel: what the state is.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: a number of tables that differs from that of the values.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> one = np.zeros(1)
    >>> table = DistinctPoints(one[:, None], one, one[:, None], one, ("stable",), one > 0, one > 0, one, 0)
    >>> ax = bifurcation([0.5], [table])
    >>> ax.lines[0].get_xydata().tolist()
    [[0.5, 0.0]]
    >>> matplotlib.pyplot.close(ax.figure)
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(tables):
        raise ValueError(
            f"tables needs one entry a value; got {len(tables)} for {len(values)} values."
        )
    groups = {"stable": [], "not stable": []}
    for value, table in zip(values, tables, strict=True):
        for point, kind in zip(np.asarray(table.points), table.kind, strict=True):
            groups["stable" if kind == "stable" else "not stable"].append((value, point[component]))
    with canvas(ax) as ax:
        for name, color in (("stable", COLORS.blue), ("not stable", COLORS.vermillion)):
            if groups[name]:
                face = color if name == "stable" else "none"
                at = np.array(groups[name], dtype=np.float64)
                ax.plot(*at.T, "o", color=color, markersize=3, markerfacecolor=face, label=name)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        legend_above(ax)
    return ax


def saturation(found: Saturation, *, ax: Axes | None = None) -> Axes:
    """How the activations are spread at each step, in grey, and the shares that saturate, in colour on the right.

    Args:
      found: one layer's entry of what `rr.diagnostics.saturation` returns.
      ax: where to draw.

    Returns:
      The axes of the histogram.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> found = Saturation((-1.0, 1.0), 0.5, 0.0, 0.0, np.ones(2), np.zeros(2), np.zeros(2) > 1,
    ...     np.array([0.0, 1.0]), np.eye(2), np.array([-1.0, 0.0, 1.0]), 1.0, {})
    >>> ax = saturation(found)
    >>> ax.get_ylabel()
    'activation'
    >>> matplotlib.pyplot.close(ax.figure)
    """
    histogram = np.asarray(found.histogram, dtype=np.float64)
    edges = np.asarray(found.edges, dtype=np.float64)
    steps = np.arange(1, len(histogram) + 1)
    with canvas(ax) as ax:
        mesh = ax.pcolormesh(
            np.append(steps - 0.5, steps[-1] + 0.5),
            edges,
            histogram.T,
            cmap="Greys",
            rasterized=True,
        )
        ax.figure.colorbar(mesh, ax=ax, label="share of units")
        span = edges[-1] - edges[0]
        shares = np.asarray(found.saturated_steps, dtype=np.float64)
        ax.plot(
            steps,
            edges[0] + span * shares,
            color=COLORS.vermillion,
            label=f"share saturated, 0–1 over the height (mean {float(found.saturated):.2f})",
        )
        ax.set_ylim(edges[0], edges[-1])
        ax.set_xlabel("step t")
        ax.set_ylabel("activation")
        whole_steps(ax)
        legend_above(ax)
    return ax


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
      ValueError: a layer without gates.

    Source: Karpathy, Johnson & Li 2015, "Visualizing and understanding recurrent networks".

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from rnnreg.diagnostics import GateOpening
    >>> gate = GateOpening(0.5, 0.2, 0.1, np.ones(3), np.full(4, 0.2), np.full(4, 0.1))
    >>> found = Saturation((-1.0, 1.0), *[0] * 10, {"reset": gate})
    >>> ax = gate_openings(found)
    >>> ax.lines[0].get_label()
    'reset (mean 0.50)'
    >>> matplotlib.pyplot.close(ax.figure)
    """
    if not found.gates:
        raise ValueError("this layer has no gates to draw; take a layer of a GRU or an LSTM.")
    with canvas(ax) as ax:
        for place, (name, gate) in enumerate(found.gates.items()):
            ax.plot(
                gate.open_units,
                gate.closed_units,
                ("o", "s", "^", "D")[place % 4],
                color=COLORS[place % len(COLORS)],
                alpha=0.7,
                label=f"{name} (mean {float(gate.mean):.2f})",
            )
        ax.plot([0, 1], [1, 0], color="0.7", linestyle=":", linewidth=1.0, zorder=0)
        ax.set_xlim(-0.03, 1.03)
        ax.set_ylim(-0.03, 1.03)
        ax.set_xlabel("share of steps open")
        ax.set_ylabel("share of steps closed")
        legend_above(ax)
    return ax
