"""Gradients on their way back through time: curves by layer or by λ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnnreg._checks import check_number
from rnnreg._signatures import Numbers, typed
from rnnreg._tree import leaf_paths
from rnnreg.diagnostics import GradientFlow, decay_rate
from rnnreg.plotting._axes import legend_above, limit_y, log_y, steps_back
from rnnreg.plotting._inputs import by_lambda, in_order
from rnnreg.plotting._lambda_axis import draw_curves
from rnnreg.plotting._style import canvas

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

_ONE_STEP = "‖∂L$_τ$/∂h$_{τ−ℓ}$‖ / ‖∂L$_τ$/∂h$_τ$‖"
_WHOLE = "‖∂L/∂h$_{T−ℓ}$‖ / ‖∂L/∂h$_T$‖, whole loss"


@typed
def gradient_flow(
    flows: GradientFlow | Sequence[GradientFlow] | xr.Dataset,
    *,
    lams: Numbers | None = None,
    labels: Sequence[str] | None = None,
    layer: str | None = None,
    chosen: float | None = None,
    floor: float = 1e-8,
    band: bool = True,
    fit: bool | tuple[int, int] = False,
    legend: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    """r(ℓ) = ‖∂L_τ/∂h_{τ−ℓ}‖ / ‖∂L_τ/∂h_τ‖ on a logarithmic axis against steps back ℓ.

    A straight line is an exponential rate. With `lams` the colour says λ, and λ = 0 is dashed, in black (white on a
    dark face). The label of the axis says whether the loss is that of one step or of the whole sequence. The band is
    one standard error of ln r to either side: over examples, or over runs if a flow has them in front (as `jax.vmap`
    over seeds gives).

    A curve is that of the examples whose gradient is neither exactly 0 nor infinite. Where the first of the others
    leaves it stands a × (exactly 0) or a + (not finite), and the legend says what share they come to.

    Args:
      flows: one, or several, from `rr.diagnostics.gradient_flow`; or what `result.map` made of it, with its λ.
      lams: `[n]`, the λ of each.
      labels: `[n]` names, in place of `lams`.
      layer: such as "layer_0" or "layer_0/forward"; needed only if several flows, or flows by λ, have several
        layers (of a single flow all are drawn).
      chosen: the λ to draw thick and to name.
      floor: where the axis ends; a smaller r is not shown.
      band: draw the standard error.
      fit: draw the rate of `rr.diagnostics.decay_rate` as a dotted line: between two lags `(first, last)`, or over all.
      legend: whether the legend names every λ (True) or a colour bar shows them (False; it needs two λ > 0). None
        names up to six.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: no flow or another record, a number of λ or labels that differs from that of the flows, an unknown
        layer, flows of one step's loss beside flows of the whole loss, or a fit between no two lags.

    >>> import jax, matplotlib, rnnreg as rr
    >>> cell = rr.cells.elman(4, activation=lambda z: z, recurrent_init=rr.cells.orthogonal(0.5))
    >>> net, batch = rr.network([cell], 1), rr.Batch(np.ones((2, 4, 1)), np.ones((2, 4, 1)))
    >>> params = net.init(jax.random.key(0), 1)
    >>> ax = gradient_flow(rr.diagnostics.gradient_flow(net, rr.losses.squared_error(), params, batch))
    >>> ax.get_yscale(), ax.lines[0].get_ydata().round(4).tolist()
    ('log', [1.0, 0.5, 0.25, 0.125])
    >>> matplotlib.pyplot.close(ax.figure)
    """
    flows, lams = by_lambda(flows, GradientFlow, lams, runs=True)
    several = in_order(flows, GradientFlow, lams=lams, labels=labels)
    whole_loss = _whole_loss(several)
    curves, labels = _choose(several, layer, lams, labels)
    fits = [] if fit is False else [_fit(curve, fit) for curve in curves]
    check_number(floor, "floor", least=0)
    with canvas(ax) as ax:
        log_y(ax)
        lines = [(curve.lags, curve.ratio) for curve in curves]
        colors = draw_curves(ax, lines, lams=lams, labels=labels, chosen=chosen, legend=legend)
        name = "band: ± 1 SE of ln r"
        for color, curve in zip(colors, curves, strict=True):
            if band and np.isfinite(curve.low).any():
                edges = curve.lags, curve.low, curve.high
                ax.fill_between(*edges, color=color, alpha=0.2, linewidth=0, label=name)
                name = None
        for place, (color, (lags, line, name)) in enumerate(zip(colors, fits, strict=False)):
            name = f"{labels[place]}: {name}" if labels and len(fits) > 1 else name
            named = name if len(fits) <= 4 else f"_{name}"
            ax.plot(lags, line, ":", color=color, linewidth=1.8, label=named, zorder=3.5)
        _mark_left_out(ax, curves, colors)
        _limit(ax, curves, floor)
        steps_back(ax)
        ax.set_ylabel(_WHOLE if whole_loss else _ONE_STEP)
        legend_above(ax)
    return ax


class _Curve(NamedTuple):
    """r(ℓ) of one layer, the edges of its band, the shares that it leaves out, and what a fit needs."""

    lags: np.ndarray
    ratio: np.ndarray
    low: np.ndarray
    high: np.ndarray
    vanished: np.ndarray
    not_finite: np.ndarray
    log_norms: np.ndarray


def _whole_loss(flows: Sequence[GradientFlow]) -> bool:
    """Whether the flows are those of the whole loss; an error if they differ."""
    kinds = {bool(np.all(flow.whole_loss)) for flow in flows}
    if len(kinds) > 1:
        raise ValueError(
            "flows of the loss at one step cannot be drawn beside flows of the whole loss (step=None): they measure "
            "different things. Use two axes."
        )
    return kinds.pop()


def _choose(
    flows: Sequence[GradientFlow], layer: str | None, lams: Any, labels: Sequence[str] | None
) -> tuple[list[_Curve], Sequence[str] | None]:
    """One curve per flow, or all layers of a single flow, with their labels."""
    by_layer = [_curves(flow) for flow in flows]
    layers = list(by_layer[0])
    if layer is not None and layer not in layers:
        raise ValueError(f"layer {layer!r} is not in the flow, which has {layers}.")
    if layer is None and len(layers) > 1:
        if len(flows) == 1 and lams is None:
            return list(by_layer[0].values()), layers
        raise ValueError(
            f"flows by λ, or several, with several layers: give layer, one of {layers}."
        )
    return [found[layer or layers[0]] for found in by_layer], labels


def _curves(flow: GradientFlow) -> dict[str, _Curve]:
    """The curve of each layer by its path; tied and bidirectional layers have several."""
    fields = (flow.log_ratio, flow.log_ratio_se, flow.vanished, flow.not_finite, flow.log_norms)
    by_field = [leaf_paths(field) for field in fields]
    lags = np.asarray(flow.lags)
    lags = lags.reshape(-1, lags.shape[-1])[0]
    return {path: _curve(lags, *(field[path] for field in by_field)) for path in by_field[0]}


def _curve(lags: np.ndarray, *fields: Any) -> _Curve:
    """Of one run, or of the mean of ln r over the runs in front, with their standard error."""
    logs, error, *shares, log_norms = (np.asarray(field, np.float64) for field in fields)
    if logs.ndim > 1:
        logs = logs.reshape(-1, len(lags))
        spread = logs.std(axis=0, ddof=1) if len(logs) > 1 else np.full(len(lags), np.nan)
        logs, error = logs.mean(axis=0), spread / np.sqrt(len(logs))
    vanished, not_finite = (np.nan_to_num(s).reshape(-1, len(lags)).mean(axis=0) for s in shares)
    with np.errstate(over="ignore"):
        edges = np.exp(logs - error), np.exp(logs + error)
        return _Curve(lags, np.exp(logs), *edges, vanished, not_finite, log_norms)


def _fit(curve: _Curve, fit: bool | tuple[int, int]) -> tuple[np.ndarray, np.ndarray, str]:
    """Lags, the line of a rate through the middle of the curve between them, and the rate in words."""
    if fit is not True and not (isinstance(fit, tuple) and len(fit) == 2):
        raise ValueError(f"fit must be True, False or two lags (first, last); got {fit!r}.")
    first, last = (0, len(curve.lags) - 1) if fit is True else fit
    found = decay_rate(curve.log_norms, first=first, last=last)
    rate, se = float(found.rate), float(found.se)
    lags, logs = curve.lags[first : last + 1], np.log(curve.ratio[first : last + 1])
    there = np.isfinite(logs)
    line = rate * lags + (np.mean(logs[there] - rate * lags[there]) if there.any() else np.nan)
    error = f" ± {se:.2g}" if np.isfinite(se) else ""
    with np.errstate(over="ignore"):
        return lags, np.exp(line), f"rate {rate:.3g}{error} per step"


def _mark_left_out(ax: Axes, curves: Sequence[_Curve], colors: Sequence[Any]) -> None:
    """Where gradients begin to be left out of a curve, and in the legend how many are at most."""
    for kind, marker, what in (("vanished", "x", "exactly 0"), ("not_finite", "+", "not finite")):
        shares = [getattr(curve, kind) for curve in curves]
        most = max((share.max() for share in shares), default=0)
        label = f"from here on up to {100 * most:.3g} % of gradients {what}"
        for curve, share, color in zip(curves, shares, colors, strict=True):
            places = np.flatnonzero(share > 0)
            if not places.size:
                continue
            shown = np.flatnonzero(np.isfinite(curve.ratio[: places[0] + 1]))
            if shown.size:
                at = shown[-1:]
                (mark,) = ax.plot(curve.lags[at], curve.ratio[at], marker, color=color, label=label)
                mark.set(markersize=6, markeredgewidth=1.5, zorder=4)
                label = f"_{label}"


def _limit(ax: Axes, curves: Sequence[_Curve], floor: float) -> None:
    """The y limits: what is drawn, down to the floor; an axes without a curve says why."""
    values = np.concatenate([curve.ratio for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    if values.size:
        limit_y(ax, max(values.min(), floor) / 1.5, max(values.max(), floor) * 1.5)
    else:
        ax.set_xlim(-0.5, max(curve.lags[-1] for curve in curves) + 0.5)
        ax.text(0.5, 0.5, _why_empty(curves), transform=ax.transAxes, ha="center", va="center")


def _why_empty(curves: Sequence[_Curve]) -> str:
    """What an axes without a curve says."""
    if all((curve.vanished == 1).any() for curve in curves):
        return "every gradient is exactly 0"
    if all((curve.not_finite == 1).any() for curve in curves):
        return "no gradient is finite"
    return "no gradient to show"
