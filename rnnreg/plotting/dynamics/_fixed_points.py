"""The points that states are drawn to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rnnreg._checks import check_count
from rnnreg._signatures import Numbers, typed
from rnnreg.diagnostics import DistinctPoints
from rnnreg.plotting._axes import legend_above
from rnnreg.plotting._inputs import in_order, one
from rnnreg.plotting._style import COLORS, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_MARKERS = {"stable": "o", "saddle": "X", "unstable": "^"}


@typed
def fixed_points(
    table: DistinctPoints,
    *,
    states: Numbers | None = None,
    names: bool = True,
    ax: Axes | None = None,
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

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> step, starts = lambda W, state, x: jnp.tanh(state @ W), jnp.array([[-1.0, 0.1], [0.1, 0.0], [1.0, 0.1]])
    >>> found = rr.diagnostics.fixed_points(step, jnp.diag(jnp.array([2.0, 0.5])), jnp.zeros(0), starts=starts)
    >>> ax = fixed_points(rr.diagnostics.distinct_points(found))
    >>> [kind.get_label() for kind in ax.collections]
    ['stable (2)', 'saddle (1)']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    points = np.asarray(one(table, DistinctPoints).points, dtype=np.float64)
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
                ax.plot(*((path - centre) @ axes.T).T, color="0.6", linewidth=0.5, zorder=0)
        places = (points - centre) @ axes.T
        slow = np.asarray(table.slow, dtype=bool)
        for (kind, marker), color in zip(_MARKERS.items(), COLORS, strict=False):
            of_kind = np.array([name == kind for name in table.kind], dtype=bool)
            filled, hollow = (of_kind & ~slow, color, ""), (of_kind & slow, "none", ", slow")
            for pick, face, word in (filled, hollow):
                if pick.any():
                    label = f"{kind}{word} ({int(pick.sum())})"
                    look = {"s": 28, "marker": marker, "facecolors": face, "edgecolors": color}
                    ax.scatter(*places[pick].T, label=label, **look)
        shift = {"xytext": (4, 3), "textcoords": "offset points", "fontsize": 7}
        for place, kind, count in zip(places, table.kind, table.num_unstable, strict=True):
            if names and kind == "saddle":
                ax.annotate(str(int(count)), place, **shift)
        padded = np.append(shares, [0, 0])
        ax.set_xlabel(f"first principal direction ({padded[0]:.0%} of the variance)")
        ax.set_ylabel(f"second ({padded[1]:.0%})")
        legend_above(ax)
    return ax


@typed
def bifurcation(
    values: Numbers,
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
      tables: `[K]`, from `rr.diagnostics.distinct_points`, one per value.
      component: which number of the state to draw.
      xlabel: what the parameter is.
      ylabel: what the state is.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or a number of tables that differs from that of the values.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> step, starts = lambda w, state, x: jnp.tanh(w * state), jnp.array([[-1.0], [0.1], [1.0]])
    >>> found = [rr.diagnostics.fixed_points(step, w, jnp.zeros(0), starts=starts) for w in (0.5, 2.0)]
    >>> ax = bifurcation([0.5, 2.0], [rr.diagnostics.distinct_points(points) for points in found], xlabel="w")
    >>> {line.get_label(): line.get_xdata().tolist() for line in ax.lines}
    {'stable': [0.5, 2.0, 2.0], 'not stable': [2.0]}
    >>> matplotlib.pyplot.close(ax.figure)
    """
    values = np.asarray(values, dtype=np.float64)
    tables = in_order(tables, DistinctPoints, values=values)
    most = min(np.shape(table.points)[1] for table in tables) - 1
    check_count(component, "component", least=0, most=most)
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
