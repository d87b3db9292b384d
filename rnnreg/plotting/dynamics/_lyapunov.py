"""Lyapunov exponents: their convergence and their spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import check_count
from rnnreg._signatures import typed
from rnnreg.diagnostics import Lyapunov
from rnnreg.plotting._axes import legend_above, limit_y, whole_steps
from rnnreg.plotting._inputs import by_label, one
from rnnreg.plotting._style import canvas, nth_color, nth_marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
def lyapunov_trace(
    spectrum: Lyapunov, *, row: int = 0, num_exponents: int = 6, ax: Axes | None = None
) -> Axes:
    """Running means of the exponents against counted steps: the convergence, with the final value ± 1 SE at the right.

    An exponent that is flagged as unconverged is dashed; one without a standard error has no bar.

    Args:
      spectrum: from `rr.diagnostics.lyapunov`.
      row: which trajectory.
      num_exponents: how many are drawn, from the largest.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or a row that it does not have.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> step = lambda W, state, x: state @ W
    >>> spectrum = rr.diagnostics.lyapunov(step, 0.5 * jnp.eye(2), jnp.zeros((1, 40, 0)), state=jnp.ones((1, 2)))
    >>> ax = lyapunov_trace(spectrum)
    >>> ax.get_xlabel(), [line.get_linestyle() for line in ax.lines[1:3]]
    ('counted steps', ['-', '-'])
    >>> matplotlib.pyplot.close(ax.figure)
    """
    check_count(num_exponents, "num_exponents")
    spectrum = one(spectrum, Lyapunov)
    check_count(row, "row", least=0, most=len(spectrum.trace) - 1)
    trace, steps = np.asarray(spectrum.trace[row], np.float64), np.asarray(spectrum.steps)
    with canvas(ax) as ax:
        ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
        for i in range(min(num_exponents, trace.shape[1])):
            color, flagged = nth_color(i), bool(spectrum.unconverged[row, i])
            line, more = ("--", " (unconverged)") if flagged else ("-", "")
            curve = np.where(np.isfinite(trace[:, i]), trace[:, i], np.nan)
            look: dict[str, Any] = {"linewidth": 1.1, "marker": nth_marker(i), "markevery": [-1]}
            ax.plot(steps, curve, line, color=color, label=f"λ$_{{{i + 1}}}${more}", **look)
            error = float(spectrum.standard_error[row, i])
            if np.isfinite(error):
                ax.errorbar(steps[-1:], curve[-1:], [error], color=color, capsize=2, elinewidth=0.9)
        ax.set_xscale("log")
        limit_y(ax, *_settled_limits(trace[:, :num_exponents]))
        ax.set_xlabel("counted steps")
        ax.set_ylabel("running mean (nats per step)")
        legend_above(ax)
    return ax


def _settled_limits(trace: np.ndarray) -> tuple[float, float]:
    """Limits of what a trace does after its first tenth, so that the first wild steps do not set the scale."""
    settled = trace[len(trace) // 10 :]
    settled = settled[np.isfinite(settled)]
    low, high = (settled.min(), settled.max()) if settled.size else (-1.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.08 * (high - low) or 0.1
    return low - margin, high + margin


@typed
def lyapunov_spectrum(
    spectra: Lyapunov | Mapping[str, Lyapunov], *, row: int = 0, ax: Axes | None = None
) -> Axes:
    """The exponents from large to small, ± 1 SE, hollow where unconverged.

    The label gives the Kaplan–Yorke dimension, D_KY. An exponent without a standard error has no bar. Those at −∞ are
    counted in the label: apart from them those that are not known, because their direction was lost to rounding.

    Args:
      spectra: one, or several by label, from `rr.diagnostics.lyapunov`.
      row: which trajectory.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or a row that it does not have.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> step = lambda W, state, x: state @ W
    >>> W, xs = jnp.diag(jnp.array([2.0, 0.25])), jnp.zeros((1, 100, 0))
    >>> ax = lyapunov_spectrum(rr.diagnostics.lyapunov(step, W, xs, state=jnp.zeros((1, 2))))
    >>> ax.get_legend().get_texts()[0].get_text()
    'Kaplan–Yorke dimension 1.5'
    >>> matplotlib.pyplot.close(ax.figure)
    """
    several, first = by_label(spectra, Lyapunov), []
    check_count(row, "row", least=0, most=min(len(one.trace) for one in several.values()) - 1)
    with canvas(ax) as ax:
        ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
        kaplan_yorke = "Kaplan–Yorke dimension" if len(several) < 4 else "D$_{KY}$ ="
        for place, (label, spectrum) in enumerate(several.items()):
            values = np.asarray(spectrum.exponents[row], np.float64)
            open_ = np.asarray(spectrum.unconverged[row])
            dead = int(((values == -np.inf) & ~open_).sum())
            lost = int(((values == -np.inf) & open_).sum())
            values = np.where(np.isfinite(values), values, np.nan)
            dimension, parts = float(spectrum.kaplan_yorke[row]), [label] if label else []
            parts += [] if np.isnan(dimension) else [f"{kaplan_yorke} {dimension:.3g}"]
            parts += [f"{dead} of {len(values)} at −∞"] if dead else []
            parts += [f"{lost} of {len(values)} lost to rounding"] if lost else []
            errors = np.asarray(spectrum.standard_error[row], np.float64)
            at, name = np.arange(1, len(values) + 1), ", ".join(parts) or None
            look: dict[str, Any] = {
                "color": nth_color(place),
                "marker": nth_marker(place),
                "markersize": 3,
            }
            bars = ax.errorbar(at, values, errors, linewidth=0.8, label=name, **look)
            first += [bars] if name else []
            open_ = open_ & np.isfinite(values)
            if open_.any():
                name = ", ".join([*parts[: bool(label)], "unconverged"])
                look |= {"linestyle": "none", "markerfacecolor": ax.get_facecolor(), "zorder": 5}
                ax.plot(at[open_], values[open_], label=name, **look)
        ax.set_xlabel("index i")
        ax.set_ylabel("exponent λ$_i$ ± 1 SE (nats per step)")
        whole_steps(ax)
        legend_above(ax, first=first)
    return ax
