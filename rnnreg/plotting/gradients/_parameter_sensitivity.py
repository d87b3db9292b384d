"""How far the last state moves with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._signatures import typed
from rnnreg.diagnostics import ParameterSensitivity
from rnnreg.plotting._axes import ink, legend_above, log_or_decades, steps_back
from rnnreg.plotting._inputs import by_label
from rnnreg.plotting._style import canvas, nth_color, nth_marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
def parameter_sensitivity(
    found: ParameterSensitivity | Mapping[str, ParameterSensitivity], *, ax: Axes | None = None
) -> Axes:
    """‖∂h_T/∂W‖_F, W moved in the last ℓ steps, beside ‖∂h_T/∂h_{T−ℓ}‖_F (dashed): geometric means of trajectories.

    Args:
      found: one, or several by label, from `rr.diagnostics.parameter_sensitivity`.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or none.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> step = lambda W, state, x: state @ W
    >>> found = rr.diagnostics.parameter_sensitivity(step, jnp.eye(2), jnp.zeros((1, 4, 0)), state=jnp.ones((1, 2)),
    ...     paths=None)
    >>> ax = parameter_sensitivity(found)
    >>> [line.get_label() for line in ax.lines]
    ['‖∂h$_T$/∂W‖$_F$, W moved in the last ℓ steps', '‖∂h$_T$/∂h$_{T−ℓ}$‖$_F$']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    several = by_label(found, ParameterSensitivity)
    with canvas(ax) as ax:
        curves = {
            label: [
                np.where(np.isfinite(logs), logs, np.nan).mean(axis=0)
                for logs in (np.asarray(record.log_parameters), np.asarray(record.log_state))
            ]
            for label, record in several.items()
        }
        names = ("‖∂h$_T$/∂W‖$_F$, W moved in the last ℓ steps", "‖∂h$_T$/∂h$_{T−ℓ}$‖$_F$")
        draw = log_or_decades(
            ax, np.concatenate([curve for pair in curves.values() for curve in pair])
        )
        for place, (label, (parameters, state)) in enumerate(curves.items()):
            color, lags = nth_color(place), np.asarray(several[label].lags)
            look: dict[str, Any] = {
                "marker": nth_marker(place) if label else None,
                "markevery": 0.15,
            }
            ax.plot(lags, draw(parameters), color=color, label=label or names[0], **look)
            ax.plot(lags, draw(state), "--", color=color, label=None if label else names[1], **look)
        if "" not in several:
            for name, line in zip(names, ("-", "--"), strict=True):
                ax.plot([], [], line, color=ink(ax), label=name)
        steps_back(ax)
        ax.set_ylabel("Frobenius norm")
        legend_above(ax)
    return ax
