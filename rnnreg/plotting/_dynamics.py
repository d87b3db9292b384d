"""Figures of dynamics: products of Jacobians with their bounds, sensitivity, Lyapunov exponents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from rnnreg.diagnostics import JacobianBounds, JacobianProducts, Lyapunov, ParameterSensitivity
from rnnreg.plotting._style import COLORS, canvas, legend_above, whole_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def jacobian_products(
    products: JacobianProducts | Mapping[str, JacobianProducts],
    *,
    bounds: JacobianBounds | Mapping[str, JacobianBounds] | None = None,
    num_singular: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """‖∂h_T/∂h_{T−ℓ}‖₂ against steps back ℓ, on a logarithmic axis that has no end, with what the weights say.

    Of one record the singular values are drawn too: the largest thick, the others thin, each the geometric mean
    over trajectories, as far as it is resolved in all of them. The band is from the lowest to the highest trajectory.
    Dashes are the bound (γ σ_max)^ℓ, which leaves the picture where it is far above; dots are ρ^ℓ, which is no bound.

    Args:
      products: one, or several by label, from `rr.diagnostics.jacobian_products`.
      bounds: from `rr.diagnostics.jacobian_bounds`; with several products, by their labels.
      num_singular: how many singular values of a single record are drawn; None is all.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: no products, bounds under a label that no products have, or bounds of stacked parameters.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> matplotlib.use("Agg")
    >>> step = lambda W, state, x: state @ W
    >>> found = rr.diagnostics.jacobian_products(step, 0.5 * jnp.eye(2), jnp.zeros((1, 4, 0)), state=jnp.ones((1, 2)))
    >>> ax = jacobian_products(found)
    >>> ax.get_xlabel(), ax.get_yscale()
    ('steps back ℓ', 'log')
    >>> matplotlib.pyplot.close(ax.figure)
    """
    several = {"": products} if isinstance(products, JacobianProducts) else dict(products)
    limits = bounds if isinstance(bounds, Mapping) else dict.fromkeys(several, bounds)
    unknown = set(limits) - set(several)
    if not several or unknown:
        raise ValueError(
            f"bounds has {sorted(unknown)}, products has {list(several)}; give at least one JacobianProducts, and "
            "bounds under the same labels."
        )
    if any(limit is not None and np.ndim(limit.sigma_max) for limit in limits.values()):
        raise ValueError("bounds of stacked parameters cannot be drawn; give those of one network.")
    alone = len(several) == 1
    shown = num_singular if alone else 1
    with canvas(ax) as ax:
        logs = np.concatenate(
            [np.ravel(_resolved(record)[..., :shown]) for record in several.values()]
        )
        draw = _log_axis(ax, logs)
        for place, (label, record) in enumerate(several.items()):
            color = COLORS[place % len(COLORS)]
            _draw_products(ax, draw, record, label, color, shown)
            if limits.get(label) is not None:
                _draw_limits(ax, draw, record, limits[label], "0.25" if alone else color)
        _name_limits(ax, [limit for limit in limits.values() if limit is not None])
        _leave_room(ax, draw, logs, _ends(several, limits))
        ax.set_xlabel("steps back ℓ")
        several_values = alone and num_singular != 1
        ax.set_ylabel(
            "singular values of ∂h$_T$/∂h$_{T−ℓ}$" if several_values else "‖∂h$_T$/∂h$_{T−ℓ}$‖$_2$"
        )
        whole_steps(ax)
        legend_above(ax)
    return ax


def _resolved(record: JacobianProducts) -> np.ndarray:
    """ln σ `[B, R, k]`, NaN where it is not resolved."""
    return np.where(record.unresolved, np.nan, np.asarray(record.log_singular, np.float64))


def _ends(several, limits) -> np.ndarray:
    """Where the bounds and the ρ^ℓ are at the largest lag."""
    given = [
        (limits[label], record.lags[-1]) for label, record in several.items() if limits.get(label)
    ]
    rates = [(rate, lag) for limit, lag in given for rate in (limit.log_bound, limit.log_rho)]
    return np.array([float(rate * lag) for rate, lag in rates if rate is not None])


def _draw_products(ax, draw, record, label, color, num_singular) -> None:
    lags, logs = np.asarray(record.lags), _resolved(record)[..., :num_singular]
    mean = logs.mean(axis=0)  # NaN where one of them is not resolved
    for i in range(1, mean.shape[1]):
        ax.plot(lags, draw(mean[:, i]), color=color, linewidth=0.6, alpha=0.7)
    ax.plot(lags, draw(mean[:, 0]), color=color, label=label or "largest, mean of trajectories")
    if len(logs) > 1:
        low, high = logs[..., 0].min(axis=0), logs[..., 0].max(axis=0)
        ax.fill_between(lags, draw(low), draw(high), color=color, alpha=0.2, linewidth=0)


def _draw_limits(ax, draw, record, limit, color) -> None:
    lags = np.asarray(record.lags, np.float64)
    for rate, line in ((limit.log_bound, "--"), (limit.log_rho, ":")):
        if rate is not None and np.isfinite(rate):
            heights = draw(np.clip(rate * lags, -690, 690) if draw is np.exp else rate * lags)
            ax.plot(lags, heights, color=color, linestyle=line, linewidth=1.1)


def _name_limits(ax, limits: list[JacobianBounds]) -> None:
    """In the legend, once for all curves."""
    if any(limit.log_bound is not None for limit in limits):
        name = r"bound $(\gamma\,\sigma_\mathrm{max})^ℓ$"
        ax.plot([], [], color="0.25", linestyle="--", linewidth=1.1, label=name)
    if any(limit.log_rho is not None for limit in limits):
        ax.plot([], [], color="0.25", linestyle=":", linewidth=1.1, label=r"$\rho^ℓ$ (no bound)")


def _leave_room(ax: Axes, draw, logs: np.ndarray, limits: np.ndarray) -> None:
    """Ends the axis within half a range of what was measured: a bound may lie hundreds of decades above."""
    logs, limits = logs[np.isfinite(logs)], limits[np.isfinite(limits)]
    if not logs.size:
        return
    room = max(0.5 * np.ptp(logs), np.log(10))
    everything = np.concatenate([logs, np.clip(limits, logs.min() - room, logs.max() + room)])
    margin = max(0.05 * np.ptp(everything), 0.1)
    ax.set_ylim(*draw(np.array([everything.min() - margin, everything.max() + margin])))


def parameter_sensitivity(
    found: ParameterSensitivity | Mapping[str, ParameterSensitivity], *, ax: Axes | None = None
) -> Axes:
    """‖∂h_T/∂W‖_F, W moved in the last ℓ steps, beside ‖∂h_T/∂h_{T−ℓ}‖_F (dashed): geometric means of trajectories.

    Args:
      found: one, or several by label, from `rr.diagnostics.parameter_sensitivity`.
      ax: where to draw.

    Returns:
      The axes.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> ax = parameter_sensitivity(ParameterSensitivity(np.arange(3), np.zeros((1, 3)), np.zeros((1, 3))))
    >>> [line.get_label() for line in ax.lines]
    ['‖∂h$_T$/∂W‖$_F$, W moved in the last ℓ steps', '‖∂h$_T$/∂h$_{T−ℓ}$‖$_F$']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    several = {"": found} if isinstance(found, ParameterSensitivity) else dict(found)
    with canvas(ax) as ax:
        curves = {
            label: [
                np.where(np.isfinite(logs), logs, np.nan).mean(axis=0)
                for logs in (np.asarray(record.log_parameters), np.asarray(record.log_state))
            ]
            for label, record in several.items()
        }
        draw = _log_axis(ax, np.concatenate([curve for pair in curves.values() for curve in pair]))
        for place, (label, (parameters, state)) in enumerate(curves.items()):
            color, lags = COLORS[place % len(COLORS)], np.asarray(several[label].lags)
            names = ("‖∂h$_T$/∂W‖$_F$, W moved in the last ℓ steps", "‖∂h$_T$/∂h$_{T−ℓ}$‖$_F$")
            if label:
                names = (f"{label}: ∂h$_T$/∂W", f"{label}: ∂h$_T$/∂h$_{{T−ℓ}}$")
            ax.plot(lags, draw(parameters), color=color, label=names[0])
            ax.plot(lags, draw(state), color=color, linestyle="--", label=names[1])
        ax.set_xlabel("steps back ℓ")
        ax.set_ylabel("Frobenius norm")
        whole_steps(ax)
        legend_above(ax)
    return ax


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

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> matplotlib.use("Agg")
    >>> step = lambda W, state, x: state @ W
    >>> spectrum = rr.diagnostics.lyapunov(step, 0.5 * jnp.eye(2), jnp.zeros((1, 40, 0)), state=jnp.ones((1, 2)))
    >>> ax = lyapunov_trace(spectrum)
    >>> ax.get_xlabel(), [line.get_linestyle() for line in ax.lines[1:3]]
    ('counted steps', ['-', '-'])
    >>> matplotlib.pyplot.close(ax.figure)
    """
    trace, steps = np.asarray(spectrum.trace[row], np.float64), np.asarray(spectrum.steps)
    with canvas(ax) as ax:
        ax.axhline(0, color="0.35", linewidth=0.8, linestyle=":")
        for i in range(min(num_exponents, trace.shape[1])):
            color, flagged = COLORS[i % len(COLORS)], bool(spectrum.unconverged[row, i])
            name = f"λ$_{{{i + 1}}}$" + (" (unconverged)" if flagged else "")
            curve = np.where(np.isfinite(trace[:, i]), trace[:, i], np.nan)
            ax.plot(
                steps,
                curve,
                color=color,
                linestyle="--" if flagged else "-",
                linewidth=1.1,
                label=name,
            )
            error = float(spectrum.standard_error[row, i])
            if np.isfinite(error):
                ax.errorbar(
                    steps[-1:], curve[-1:], yerr=[error], color=color, capsize=2, elinewidth=0.9
                )
        ax.set_xscale("log")
        ax.set_ylim(*_settled_limits(trace[:, :num_exponents]))
        ax.set_xlabel("counted steps")
        ax.set_ylabel("running mean (nats a step)")
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


def lyapunov_spectrum(
    spectra: Lyapunov | Mapping[str, Lyapunov], *, row: int = 0, ax: Axes | None = None
) -> Axes:
    """The exponents from large to small, ± 1 SE, hollow where unconverged; the label gives the Kaplan–Yorke dimension.

    An exponent without a standard error has no bar. Those at −∞ are counted in the label: apart from them those that
    are not known, because their direction was lost to rounding.

    Args:
      spectra: one, or several by label, from `rr.diagnostics.lyapunov`.
      row: which trajectory.
      ax: where to draw.

    Returns:
      The axes.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> matplotlib.use("Agg")
    >>> step = lambda W, state, x: state @ W
    >>> W, xs = jnp.diag(jnp.array([2.0, 0.25])), jnp.zeros((1, 100, 0))
    >>> ax = lyapunov_spectrum(rr.diagnostics.lyapunov(step, W, xs, state=jnp.zeros((1, 2))))
    >>> ax.get_legend().get_texts()[0].get_text()
    'Kaplan–Yorke dimension 1.5'
    >>> matplotlib.pyplot.close(ax.figure)
    """
    several = {"": spectra} if isinstance(spectra, Lyapunov) else dict(spectra)
    with canvas(ax) as ax:
        ax.axhline(0, color="0.35", linewidth=0.8, linestyle=":")
        for place, (label, spectrum) in enumerate(several.items()):
            color = COLORS[place % len(COLORS)]
            values = np.asarray(spectrum.exponents[row], np.float64)
            open_ = np.asarray(spectrum.unconverged[row])
            dead = int(((values == -np.inf) & ~open_).sum())
            lost = int(((values == -np.inf) & open_).sum())
            values = np.where(np.isfinite(values), values, np.nan)
            dimension = float(spectrum.kaplan_yorke[row])
            parts = [label] if label else []
            parts += [] if np.isnan(dimension) else [f"Kaplan–Yorke dimension {dimension:.3g}"]
            parts += [f"{dead} of {len(values)} at −∞"] if dead else []
            parts += [f"{lost} of {len(values)} lost to rounding"] if lost else []
            errors = np.asarray(spectrum.standard_error[row], np.float64)
            at = np.arange(1, len(values) + 1)
            name = ", ".join(parts) or None
            ax.errorbar(
                at,
                values,
                yerr=errors,
                color=color,
                marker="o",
                markersize=3,
                linewidth=0.8,
                label=name,
            )
            open_ = open_ & np.isfinite(values)
            if open_.any():
                ax.plot(
                    at[open_],
                    values[open_],
                    "o",
                    markersize=3,
                    color=color,
                    markerfacecolor="white",
                    zorder=5,
                    label=", ".join([*parts[: bool(label)], "unconverged"]),
                )
        ax.set_xlabel("index i")
        ax.set_ylabel("Lyapunov exponent λ$_i$ (nats a step)")
        whole_steps(ax)
        legend_above(ax)
    return ax


def _log_axis(ax: Axes, logs: np.ndarray):
    """Makes y logarithmic, whatever the range, and returns how natural logarithms are drawn on it.

    Over a few decades it is an ordinary logarithmic axis; over more, beyond the range of floats too, powers of ten
    on a linear one.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    finite = logs[np.isfinite(logs)]
    if not finite.size or np.ptp(finite) < 12 * np.log(10):
        ax.set_yscale("log", nonpositive="mask")
        return np.exp
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{value:.0f}}}$"))
    return lambda logs: logs / np.log(10)
