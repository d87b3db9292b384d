"""The loss around a point: lines, planes, cliffs, the paths of descents, and curvatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import check_number
from rnnreg._signatures import typed
from rnnreg.diagnostics import HessianDirections, LossSurface
from rnnreg.plotting._axes import (
    bar_beside,
    legend_above,
    limit_y,
    log_y,
    plain_numbers,
    size_inches,
    whole_steps,
)
from rnnreg.plotting._inputs import one
from rnnreg.plotting._style import COLORS, canvas, nth_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRADIENT = "‖∂L/∂params‖"


@typed
def loss_surface(
    surface: LossSurface,
    *,
    show: str = "loss",
    paths: Mapping[str, Any] | None = None,
    xlabel: str = "α",
    ylabel: str = "β",
    floor: float = 1e-6,
    contours: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """A plane in logarithmic colours with contours, or a line with the gradient's norm beside the loss.

    Args:
      surface: from `rr.diagnostics.loss_surface`.
      show: "loss" or "gradient_norm", what the colours of a plane say; a line shows both.
      paths: by name, `[K, 2]` places (α, β) that a descent went through, for a plane.
      xlabel: what α is.
      ylabel: what β is, of a plane.
      floor: colours and the axis of a line end at this part of the largest value.
      contours: whether to draw them on a plane; across a cliff they only follow the grid.
      ax: where to draw.

    Returns:
      The axes; the colour bar of a plane is a child of them.

    Raises:
      ValueError: another record, an unknown `show`, paths on a line, or a plane of a single row or without a positive
        value.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> grid, square = jnp.linspace(0, 1, 3), lambda w: jnp.sum(w**2) + 1
    >>> ax = loss_surface(rr.diagnostics.loss_surface(square, jnp.zeros(2), jnp.eye(2)[0], alphas=grid), xlabel="w")
    >>> [curve.get_label() for curve in ax.lines], ax.get_xlabel()
    (['loss', '‖∂L/∂params‖'], 'w')
    >>> matplotlib.pyplot.close(ax.figure)
    """
    if show not in ("loss", "gradient_norm"):
        raise ValueError(f"show must be 'loss' or 'gradient_norm'; got {show!r}.")
    check_number(floor, "floor", least=0)
    if one(surface, LossSurface).betas is None:
        if paths:
            raise ValueError("paths are drawn on a plane; this surface is a line (betas is None).")
        return _line(surface, xlabel, floor, ax)
    values = np.asarray(getattr(surface, show), dtype=np.float64)
    if min(values.shape) < 2:
        raise ValueError(
            f"a plane needs at least two alphas and two betas; got {values.shape}. Give betas=None for a line."
        )
    if not (np.isfinite(values) & (values > 0)).any():
        raise ValueError(
            f"nothing to draw: the colours are logarithmic, and no {show} is positive and finite."
        )
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=1.8, foreground="0.15")]  # without it white is lost on yellow
    with canvas(ax) as ax:
        _plane(ax, surface, values, show, floor, contours)
        for place, (name, path) in enumerate((paths or {}).items()):
            path = np.asarray(path, dtype=np.float64)
            color = ("#FF5CA8", "white", "#FFB000")[place % 3]  # seen on all of the map's colours
            look = {"marker": ".", "linewidth": 1.2, "markersize": 3.5, "path_effects": edge}
            ax.plot(*path.T, nth_line(place), color=color, label=name, **look)
            ax.plot(*path[-1], color=color, marker="o", markersize=5, markeredgecolor="black")
        ax.set_xlim(*_ends(surface.alphas))
        ax.set_ylim(*_ends(surface.betas))
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        legend_above(ax)
    return ax


def _plane(
    ax: Axes, surface: LossSurface, values: np.ndarray, show: str, floor: float, contours: bool
) -> None:
    """The colours, from the floor to the highest value, and the contours."""
    from matplotlib.colors import LogNorm

    positive = values[np.isfinite(values) & (values > 0)]
    highest = positive.max()
    lowest = max(positive.min(), highest * floor)
    if not lowest < highest:
        lowest = highest / 10
    alphas, betas = np.asarray(surface.alphas), np.asarray(surface.betas)
    drawn = np.where(np.isfinite(values), np.maximum(values, lowest), np.nan).T
    look: dict[str, Any] = {"cmap": "viridis", "shading": "gouraud", "rasterized": True}
    mesh = ax.pcolormesh(alphas, betas, drawn, norm=LogNorm(lowest, highest), **look)
    if contours:
        levels = np.geomspace(lowest, highest, 9)[1:-1]
        ax.contour(alphas, betas, drawn, levels=levels, colors="white", linewidths=0.4, alpha=0.6)
    label = "loss" if show == "loss" else _GRADIENT
    bar = bar_beside(ax, mesh, label=label).ax
    plain_numbers(bar.yaxis)
    if highest > 50 * lowest:
        bar.minorticks_off()


def _line(surface: LossSurface, xlabel: str, floor: float, ax: Axes | None) -> Axes:
    """Loss and norm of the gradient on one logarithmic axis."""
    alphas = np.asarray(surface.alphas)
    with canvas(ax) as ax:
        ax.plot(alphas, surface.loss, color=COLORS.blue, label="loss")
        ax.plot(alphas, surface.gradient_norm, "--", color=COLORS.vermillion, label=_GRADIENT)
        log_y(ax)
        both = np.concatenate([np.asarray(surface.loss), np.asarray(surface.gradient_norm)])
        both = both[np.isfinite(both) & (both > 0)]
        if both.size:
            limit_y(ax, max(both.min(), both.max() * floor) / 1.5, both.max() * 1.5)
        ax.set_xlabel(xlabel)
        ax.set_ylabel("loss, and norm of its gradient")
        legend_above(ax)
    return ax


def _ends(grid: Any) -> tuple[float, float]:
    grid = np.asarray(grid)
    return float(grid.min()), float(grid.max())


@typed
def hessian_spectrum(found: HessianDirections, *, ax: Axes | None = None) -> Axes:
    """The eigenvalue estimates of a Hessian from large to small; those asked for with their residual as error bar.

    Args:
      found: from `rr.diagnostics.hessian_directions`.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or eigenvalues that are not finite.

    >>> import jax, matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> loss_of = lambda w: w[0] ** 2 + 0.25 * w[1] ** 2 - 0.5 * w[2] ** 2
    >>> found = rr.diagnostics.hessian_directions(loss_of, jnp.zeros(3), key=jax.random.key(0), num_iterations=3)
    >>> ax = hessian_spectrum(found)
    >>> ax.lines[0].get_ydata().round(3).tolist()
    [2.0, 0.5, -1.0]
    >>> matplotlib.pyplot.close(ax.figure)
    """
    found = one(found, HessianDirections)
    ritz = np.sort(np.asarray(found.ritz_values, dtype=np.float64))[::-1]
    eigenvalues = np.asarray(found.eigenvalues, dtype=np.float64)
    if not np.isfinite(ritz).all():
        raise ValueError(
            "nothing to draw: the eigenvalues are not finite, and so neither is the Hessian there."
        )
    places = 1 + np.argmin(np.abs(ritz[None] - eigenvalues[:, None]), axis=1)
    with canvas(ax) as ax:
        ranks = np.arange(1, len(ritz) + 1)
        ax.plot(ranks, ritz, ".", color="0.5", label="Lanczos estimates")
        look: dict[str, Any] = {"fmt": "o", "color": COLORS.vermillion, "capsize": 2}
        errors, name = np.asarray(found.residuals), "asked for, ± ‖Hd − θd‖"
        ax.errorbar(places, eigenvalues, errors, label=name, **look)
        # curvatures spread over orders of magnitude, on both sides of zero; ticks begin at a power of ten
        largest = np.log10(max(np.abs(ritz).max(), 1e-27))
        ax.set_yscale("symlog", linthresh=10.0 ** np.floor(largest - 3))
        ax.axhline(0, color="0.5", linewidth=0.8, zorder=0)
        ax.set_xlabel("rank")
        ax.set_ylabel("eigenvalue of the Hessian")
        whole_steps(ax)
        legend_above(ax)
        locator: Any = ax.yaxis.get_major_locator()
        locator.set_params(numticks=max(3, int(size_inches(ax)[1] / 0.25)))
    return ax
