"""Products of Jacobians: their norms with bounds, and how their singular values are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import check_count
from rnnreg._signatures import typed
from rnnreg.diagnostics import JacobianBounds, JacobianProducts
from rnnreg.plotting._axes import ink, legend_above, limit_y, log_or_decades, steps_back
from rnnreg.plotting._inputs import by_label, one
from rnnreg.plotting._style import canvas, nth_color, nth_line, nth_marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
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
    The legend says for which no bound follows from the weights (a gated cell, several layers).

    Args:
      products: one, or several by label, from `rr.diagnostics.jacobian_products`.
      bounds: from `rr.diagnostics.jacobian_bounds`; with several products, by their labels.
      num_singular: how many singular values of a single record are drawn; None is all.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: no products or other records, bounds under a label that no products have, or bounds of stacked
        parameters.

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> step = lambda W, state, x: state @ W
    >>> found = rr.diagnostics.jacobian_products(step, 0.5 * jnp.eye(2), jnp.zeros((1, 4, 0)), state=jnp.ones((1, 2)))
    >>> ax = jacobian_products(found)
    >>> ax.get_xlabel(), ax.get_yscale()
    ('steps back ℓ', 'log')
    >>> matplotlib.pyplot.close(ax.figure)
    """
    if num_singular is not None:
        check_count(num_singular, "num_singular")
    several = by_label(products, JacobianProducts)
    limits = _limits(bounds, several)
    alone = len(several) == 1
    shown = num_singular if alone else 1
    with canvas(ax) as ax:
        each = [np.ravel(_resolved(record)[..., :shown]) for record in several.values()]
        logs = np.concatenate(each)
        draw = log_or_decades(ax, logs)
        for place, (label, record) in enumerate(several.items()):
            color = nth_color(place)
            look = {
                "color": color,
                "marker": None if alone else nth_marker(place),
                "markevery": 0.15,
            }
            _draw_products(ax, draw, record, label, shown, look)
            if label in limits:
                _draw_limits(ax, draw, record, limits[label], ink(ax) if alone else color)
        _name_limits(ax, limits)
        _leave_room(ax, draw, logs, _ends(several, limits))
        steps_back(ax)
        product = "∂h$_T$/∂h$_{T−ℓ}$"
        all_values = alone and num_singular != 1
        ax.set_ylabel(f"singular values of {product}" if all_values else f"‖{product}‖$_2$")
        legend_above(ax)
    return ax


def _limits(bounds: Any, several: Mapping[str, JacobianProducts]) -> dict[str, JacobianBounds]:
    """The bounds by the labels of the products; one without a label serves them all."""
    if bounds is None:
        return {}
    single = not isinstance(bounds, Mapping)
    limits: dict[str, Any] = dict.fromkeys(several, bounds) if single else dict(bounds)
    if set(limits) - set(several):
        raise ValueError(
            f"bounds has {sorted(set(limits) - set(several))}, products has {list(several)}; use the same labels."
        )
    if any(np.ndim(one(limit, JacobianBounds).sigma_max) for limit in limits.values()):
        raise ValueError("bounds of stacked parameters cannot be drawn; give those of one network.")
    return limits


def _resolved(record: JacobianProducts) -> np.ndarray:
    """ln σ `[B, R, k]`, NaN where it is not resolved."""
    return np.where(record.unresolved, np.nan, np.asarray(record.log_singular, np.float64))


def _ends(several, limits) -> np.ndarray:
    """Where the bounds and the ρ^ℓ are at the largest lag."""
    given = [(limit, several[label].lags[-1]) for label, limit in limits.items()]
    rates = [(rate, lag) for limit, lag in given for rate in (limit.log_bound, limit.log_rho)]
    return np.array([float(rate * lag) for rate, lag in rates if rate is not None])


def _draw_products(ax, draw, record, label, num_singular, look) -> None:
    lags, logs = np.asarray(record.lags), _resolved(record)[..., :num_singular]
    mean = logs.mean(axis=0)  # NaN where one of them is not resolved
    for i in range(1, mean.shape[1]):
        ax.plot(lags, draw(mean[:, i]), color=look["color"], linewidth=0.6, alpha=0.7)
    ax.plot(lags, draw(mean[:, 0]), label=label or "largest, mean of trajectories", **look)
    if len(logs) > 1:
        low, high = draw(logs[..., 0].min(axis=0)), draw(logs[..., 0].max(axis=0))
        ax.fill_between(lags, low, high, color=look["color"], alpha=0.2, linewidth=0)


def _draw_limits(ax, draw, record, limit, color) -> None:
    lags = np.asarray(record.lags, np.float64)
    for rate, line in ((limit.log_bound, "--"), (limit.log_rho, ":")):
        if rate is not None and np.isfinite(rate):
            heights = draw(np.clip(rate * lags, -690, 690) if draw is np.exp else rate * lags)
            ax.plot(lags, heights, color=color, linestyle=line, linewidth=1.1)


def _name_limits(ax, limits: dict[str, JacobianBounds]) -> None:
    """In the legend, once for all curves; in words where no bound is known."""
    without = [label for label, limit in limits.items() if limit.log_bound is None]
    look: dict[str, Any] = {"color": ink(ax), "linewidth": 1.1}
    if without:
        of_which = f": {', '.join(without)}" if len(limits) > 1 else ""
        ax.plot([], [], linestyle="none", label=f"no bound follows from the weights{of_which}")
    if len(without) < len(limits):
        ax.plot([], [], "--", label=r"bound $(\gamma\,\sigma_\mathrm{max})^ℓ$", **look)
    if any(limit.log_rho is not None for limit in limits.values()):
        ax.plot([], [], ":", label=r"$\rho^ℓ$ (no bound)", **look)


def _leave_room(ax: Axes, draw, logs: np.ndarray, limits: np.ndarray) -> None:
    """Ends the axis within half a range of what was measured: a bound may lie hundreds of decades above."""
    logs, limits = logs[np.isfinite(logs)], limits[np.isfinite(limits)]
    if not logs.size:
        return
    room = max(0.5 * np.ptp(logs), np.log(10))
    everything = np.concatenate([logs, np.clip(limits, logs.min() - room, logs.max() + room)])
    margin = max(0.05 * np.ptp(everything), 0.1)
    limit_y(ax, *draw(np.array([everything.min() - margin, everything.max() + margin])))


@typed
def singular_value_histogram(
    products: JacobianProducts,
    *,
    lags: Sequence[int] | None = None,
    num_bins: int = 40,
    ax: Axes | None = None,
) -> Axes:
    """How the singular values of ∂h_T/∂h_{T−ℓ} are spread, at a few lags ℓ: all at 1 is dynamical isometry.

    Args:
      products: from `rr.diagnostics.jacobian_products` with all singular values; those of all trajectories are
        counted together, unresolved ones left out (the label says how many).
      lags: steps back, among those of the record; None takes up to four, from the first step to the last.
      num_bins: over the range of all that is shown.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or a lag that the record does not have.

    Source: Saxe, McClelland & Ganguli 2014; Pennington, Schoenholz & Ganguli 2017 (dynamical isometry).

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> step = lambda W, state, x: state @ W
    >>> found = rr.diagnostics.jacobian_products(step, jnp.eye(3), jnp.zeros((1, 8, 0)), state=jnp.ones((1, 3)))
    >>> ax = singular_value_histogram(found, lags=[1, 8])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['ℓ = 1', 'ℓ = 8']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    known = np.asarray(one(products, JacobianProducts).lags)
    check_count(num_bins, "num_bins")
    if lags is None:
        places = np.unique(np.geomspace(1, len(known) - 1, 4).round().astype(int))
        chosen: list[int] = known[places].tolist()
    else:
        chosen = list(lags)
    missing = [lag for lag in chosen if lag not in known]
    if missing:
        raise ValueError(f"lags {missing} are not in the record, which has {known.tolist()}.")
    decades = np.asarray(products.log_singular, np.float64) / np.log(10)
    shown, counts = [], []
    for lag in chosen:
        at = int(np.flatnonzero(known == lag)[0])
        unresolved = np.asarray(products.unresolved[:, at])
        shown.append(np.ravel(decades[:, at][~unresolved]))
        counts.append(int(unresolved.sum()))
    everything = np.concatenate(shown)
    low, high = (everything.min(), everything.max()) if everything.size else (-1.0, 1.0)
    margin = max(0.02 * (high - low), 0.05)
    bins = np.linspace(low - margin, high + margin, num_bins + 1)
    with canvas(ax) as ax:
        for place, (lag, values, left_out) in enumerate(zip(chosen, shown, counts, strict=True)):
            name = f"ℓ = {lag}" + (f" ({left_out} unresolved)" if left_out else "")
            weights = np.full(len(values), 1 / max(len(values), 1))
            shares, line = np.histogram(values, bins, weights=weights)[0], nth_line(place)
            ax.stairs(shares, bins, color=nth_color(place), linestyle=line, linewidth=1.3)
            ax.plot([], [], line, color=nth_color(place), label=name)
        ax.axvline(0, color="0.5", linewidth=0.9, linestyle=":")
        ax.set_xlabel("log$_{10}$ singular value of ∂h$_T$/∂h$_{T−ℓ}$")
        ax.set_ylabel("share")
        legend_above(ax)
    return ax
