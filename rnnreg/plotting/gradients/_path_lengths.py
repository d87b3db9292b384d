"""A weight gradient split by lag, and how far batches agree on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._signatures import Numbers, typed
from rnnreg.diagnostics import GradientSignal, PathLengths
from rnnreg.plotting._axes import legend_above, log_y, steps_back
from rnnreg.plotting._inputs import by_lambda, in_order, one
from rnnreg.plotting._lambda_axis import draw_curves
from rnnreg.plotting._style import COLORS, canvas, panels

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


@typed
def path_lengths(
    parts: PathLengths | Sequence[PathLengths] | xr.Dataset,
    *,
    lams: Numbers | None = None,
    labels: Sequence[str] | None = None,
    legend: bool | None = None,
    axes: Any = None,
) -> Any:
    """‖G_ℓ‖ on a logarithmic axis, and beside it the shares ⟨G_ℓ, G⟩/‖G‖², against steps back ℓ.

    What comes from all longer lags together, where there are any, is a square behind the last lag.

    Args:
      parts: one, or several, from `rr.diagnostics.path_lengths`; or what `result.map` made of it, with its λ.
      lams: `[n]`, the λ of each, for the colour.
      labels: `[n]` names, in place of `lams`.
      legend: whether the legend names every λ (True) or a colour bar shows them (False; it needs two λ > 0). None
        names up to six.
      axes: two axes to draw in.

    Returns:
      The two axes.

    Raises:
      ValueError: no or other records, or a number of λ or labels that differs from theirs.

    >>> import jax, matplotlib, rnnreg as rr
    >>> net, loss = rr.network([rr.cells.elman(2)], 1, readout="last"), rr.losses.squared_error()
    >>> params, batch = net.init(jax.random.key(0), 1), rr.Batch(np.ones((4, 6, 1)), np.ones((4, 1)))
    >>> axes = path_lengths(rr.diagnostics.path_lengths(net, loss, params, batch, max_lag=3))
    >>> [ax.get_yscale() for ax in axes]
    ['log', 'linear']
    >>> matplotlib.pyplot.close(axes[0].figure)
    """
    parts, lams = by_lambda(parts, PathLengths, lams)
    several = in_order(parts, PathLengths, lams=lams, labels=labels)
    with panels(2, axes, width=3.4, share=False) as axes:
        log_y(axes[0])
        axes[1].axhline(0, color="0.5", linewidth=0.8)
        axes[0].set_ylabel("‖G$_ℓ$‖")
        axes[1].set_ylabel("share ⟨G$_ℓ$, G⟩ / ‖G‖²")
        for ax, kind in zip(axes, ("norm", "share"), strict=True):
            curves = [
                (np.asarray(part.lags), np.asarray(getattr(part, kind + "s"))) for part in several
            ]
            colors = draw_curves(ax, curves, lams=lams, labels=labels, legend=legend)
            _mark_rests(ax, several, kind, colors)
            steps_back(ax)
            legend_above(ax)
    return axes


def _mark_rests(ax: Axes, several: Sequence[PathLengths], kind: str, colors: Sequence[Any]) -> None:
    """What comes from all longer lags, behind the last one."""
    label = "all longer lags"
    for part, color in zip(several, colors, strict=True):
        if float(part.rest_norm) > 0:
            at, rest = 1.05 * len(part.lags), float(getattr(part, f"rest_{kind}"))
            ax.plot([at], [rest], "s", color=color, markersize=3.5, linestyle="none", label=label)
            label = None


@typed
def gradient_signal(signal: GradientSignal, *, ax: Axes | None = None) -> Axes:
    """How far batches agree on the gradient of each lag: its mean cosine, and its signal-to-noise ratio.

    Args:
      signal: from `rr.diagnostics.gradient_signal`.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record.

    >>> import jax, matplotlib, rnnreg as rr
    >>> net, loss = rr.network([rr.cells.elman(2)], 1, readout="last"), rr.losses.squared_error()
    >>> params, batch = net.init(jax.random.key(0), 1), rr.Batch(np.ones((4, 3, 1)), np.ones((4, 1)))
    >>> ax = gradient_signal(rr.diagnostics.gradient_signal(net, loss, params, batch, num_batches=2))
    >>> [line.get_label() for line in ax.lines[1:]]
    ['cosine of two batches', 'signal / noise of one']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    lags, snr, cosine, _ = one(signal, GradientSignal)
    with canvas(ax) as ax:
        ax.axhline(0, color="0.5", linewidth=0.8)
        ax.plot(lags, cosine, color=COLORS.blue, label="cosine of two batches")
        ax.plot(lags, snr, color=COLORS.vermillion, linestyle="--", label="signal / noise of one")
        steps_back(ax)
        ax.set_ylabel("agreement on G$_ℓ$")
        legend_above(ax)
    return ax
