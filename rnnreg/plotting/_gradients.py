"""Gradients on their way back through time: curves, parts by lag, maps over training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnnreg.diagnostics import GradientFlow, GradientSignal, PathLengths, decay_rate
from rnnreg.penalties import leaf_paths
from rnnreg.plotting._lambda_axis import draw_by_lambda, lambda_colors
from rnnreg.plotting._style import (
    BLUE,
    CYCLE,
    VERMILLION,
    canvas,
    legend_above,
    number,
    style,
    whole_steps,
)
from rnnreg.sweep import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ONE_STEP = "‖∂L$_τ$/∂h$_{τ−ℓ}$‖ / ‖∂L$_τ$/∂h$_τ$‖"
_WHOLE = "‖∂L/∂h$_{T−ℓ}$‖ / ‖∂L/∂h$_T$‖, whole loss"


def gradient_flow(
    flows: GradientFlow | Sequence[GradientFlow],
    *,
    lams: Any = None,
    labels: Sequence[str] | None = None,
    layer: str | None = None,
    chosen: float | None = None,
    floor: float = 1e-8,
    band: bool = True,
    fit: bool | tuple[int, int] = False,
    ax: Axes | None = None,
) -> Axes:
    """r(ℓ) = ‖∂L_τ/∂h_{τ−ℓ}‖ / ‖∂L_τ/∂h_τ‖ on a logarithmic axis against steps back ℓ.

    A straight line is an exponential rate. With `lams` the colour says λ, and λ = 0 is black and dashed. The label
    of the axis says whether the loss is that of one step or of the whole sequence. The band is one standard error of
    ln r to either side: over examples, or over runs where a flow has them in front (as `jax.vmap` over seeds gives).

    A curve is that of the examples whose gradient is neither exactly 0 nor infinite. Where the first of the others
    leaves it stands a × (exactly 0) or a + (not finite), and the legend says what share they come to.

    Args:
      flows: one, or several, from `rr.diagnostics.gradient_flow`.
      lams: `[n]`, the λ of each.
      labels: `[n]` names, in place of `lams`.
      layer: such as "layer_0" or "layer_0/forward"; needed only where several flows have several layers (of
        a single flow all are drawn).
      chosen: the λ to draw thick and to name.
      floor: where the axis ends; a smaller r is not shown.
      band: draw the standard error.
      fit: draw the rate of `rr.diagnostics.decay_rate` as a dotted line: between two lags `(first, last)`, or over all.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: no flow, a number of λ or labels that differs from that of the flows, an unknown layer, flows of one
        step's loss beside flows of the whole loss, or a fit of a flow without log norms or between no two lags.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> flow = GradientFlow(np.arange(4), {"layer_0": 0.5 ** np.arange(4)}, {}, {})
    >>> ax = gradient_flow(flow)
    >>> ax.get_yscale(), ax.lines[0].get_ydata().round(6).tolist()
    ('log', [1.0, 0.5, 0.25, 0.125])
    >>> matplotlib.pyplot.close(ax.figure)
    """
    several = [flows] if isinstance(flows, GradientFlow) else list(flows)
    if not several:
        raise ValueError("flows is empty; give at least one GradientFlow.")
    for name, given in (("lams", lams), ("labels", labels)):
        if given is not None and len(given) != len(several):
            raise ValueError(
                f"{name} needs one entry a flow; got {len(given)} for {len(several)} flows."
            )
    kinds = {flow.whole_loss is not None and bool(np.all(flow.whole_loss)) for flow in several}
    if len(kinds) > 1:
        raise ValueError(
            "flows of the loss at one step cannot be drawn beside flows of the whole loss (step=None): they measure "
            "different things. Use two axes."
        )
    by_layer = [_curves(flow) for flow in several]
    layers = list(by_layer[0])
    if layer is not None and layer not in layers:
        raise ValueError(f"layer {layer!r} is not in the flow, which has {layers}.")
    if layer is None and len(layers) > 1 and len(several) > 1:
        raise ValueError(f"several flows with several layers: give layer, one of {layers}.")
    curves = [found[layer or layers[0]] for found in by_layer]
    if len(several) == 1 and layer is None and len(layers) > 1 and lams is None:
        curves, labels = list(by_layer[0].values()), layers
    fits = [] if fit is False else [_fit(curve, fit) for curve in curves]
    with canvas(ax) as ax:
        ax.set_yscale("log", nonpositive="mask")
        colors: Sequence[Any] = [CYCLE[place % len(CYCLE)] for place in range(len(curves))]
        if lams is not None:
            colors, _ = lambda_colors(lams)
            lines = [(curve.lags, curve.ratio) for curve in curves]
            draw_by_lambda(ax, lams, lines, chosen=chosen)
        else:
            for place, curve in enumerate(curves):
                name = None if labels is None else labels[place]
                ax.plot(curve.lags, curve.ratio, color=colors[place], label=name)
        for color, curve in zip(colors, curves, strict=True):
            if band and np.isfinite(curve.low).any():
                edges = curve.lags, curve.low, curve.high
                ax.fill_between(*edges, color=color, alpha=0.2, linewidth=0)
        for color, (lags, line, name) in zip(colors, fits, strict=False):
            named = name if len(fits) <= 4 else f"_{name}"
            ax.plot(lags, line, ":", color=color, linewidth=1.8, label=named, zorder=3.5)
        _mark_left_out(ax, curves, colors)
        legend_above(ax)
        values = np.concatenate([curve.ratio for curve in curves])
        values = values[np.isfinite(values) & (values > 0)]
        if values.size:
            lowest, highest = max(values.min(), floor), max(values.max(), floor)
            ax.set_ylim(lowest / 1.5, highest * 1.5)
        else:
            ax.set_xlim(-0.5, max(curve.lags[-1] for curve in curves) + 0.5)
            ax.text(0.5, 0.5, _why_empty(curves), transform=ax.transAxes, ha="center", va="center")
        ax.set_xlabel("steps back ℓ")
        ax.set_ylabel(_WHOLE if True in kinds else _ONE_STEP)
        whole_steps(ax)
    return ax


class _Curve(NamedTuple):
    """r(ℓ) of one layer, the edges of its band, the shares that it leaves out, and what a fit needs (or None)."""

    lags: np.ndarray
    ratio: np.ndarray
    low: np.ndarray
    high: np.ndarray
    vanished: np.ndarray
    not_finite: np.ndarray
    log_norms: np.ndarray | None


def _curves(flow: GradientFlow) -> dict[str, _Curve]:
    """The curve of each layer by its path; tied and bidirectional layers have several."""

    def by_path(tree):
        tree = {} if tree is None else tree
        return {path: np.asarray(leaf, np.float64) for path, leaf in leaf_paths(tree).items()}

    lags = np.asarray(flow.lags)
    lags = lags.reshape(-1, lags.shape[-1])[0]
    shares = by_path(flow.vanished), by_path(flow.not_finite)
    norms, errors = by_path(flow.log_norms), by_path(flow.log_ratio_se)
    measured = flow.log_ratio is not None
    found = {}
    for path, given in by_path(flow.log_ratio if measured else flow.ratio).items():
        with np.errstate(divide="ignore"):
            logs = given if measured else np.log(given)
        error = errors.get(path, _none(logs))
        if logs.ndim > 1:
            logs = logs.reshape(-1, logs.shape[-1])
            error = (
                logs.std(axis=0, ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else _none(logs[0])
            )
            logs = logs.mean(axis=0)
        vanished, not_finite = (_mean_share(share.get(path), len(lags)) for share in shares)
        with np.errstate(over="ignore"):
            low, high = np.exp(logs - error), np.exp(logs + error)
            ratio = np.exp(logs) if measured or given.ndim > 1 else given  # to the last digit
        found[path] = _Curve(lags, ratio, low, high, vanished, not_finite, norms.get(path))
    return found


def _mean_share(share: np.ndarray | None, num_lags: int) -> np.ndarray:
    """A share by lag, over runs where there are several; 0 where it is not known."""
    if share is None:
        return np.zeros(num_lags)
    return np.nan_to_num(share.reshape(-1, num_lags)).mean(axis=0)


def _fit(curve: _Curve, fit: bool | tuple[int, int]) -> tuple[np.ndarray, np.ndarray, str]:
    """Lags, the line of a rate through the middle of the curve between them, and the rate in words."""
    if curve.log_norms is None:
        raise ValueError(
            "a fit needs log norms: give flows as rr.diagnostics.gradient_flow returns them."
        )
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
        return lags, np.exp(line), f"rate {rate:.3g}{error} a step"


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


def _why_empty(curves: Sequence[_Curve]) -> str:
    """What an axes without a curve says."""
    if all((curve.vanished == 1).any() for curve in curves):
        return "every gradient is exactly 0"
    if all((curve.not_finite == 1).any() for curve in curves):
        return "no gradient is finite"
    return "no gradient to show"


def _none(values: np.ndarray) -> np.ndarray:
    return np.full(values.shape, np.nan)


def path_lengths(
    parts: PathLengths | Sequence[PathLengths],
    *,
    lams: Any = None,
    labels: Sequence[str] | None = None,
    axes: Any = None,
) -> Any:
    """‖G_ℓ‖ on a logarithmic axis, and beside it the shares ⟨G_ℓ, G⟩/‖G‖², against steps back ℓ.

    What comes from all longer lags together, where there are any, is a square behind the last lag.

    Args:
      parts: one, or several, from `rr.diagnostics.path_lengths`.
      lams: `[n]`, the λ of each, for the colour.
      labels: `[n]` names, in place of `lams`.
      axes: two axes to draw in.

    Returns:
      The two axes.

    Raises:
      ValueError: none given, or a number of λ or labels that differs from theirs.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> zero, none = np.zeros(()), np.zeros((0,))
    >>> parts = PathLengths(np.arange(3), 0.5 ** np.arange(3), np.array([0.7, 0.2, 0.1]), zero, zero, none, none)
    >>> axes = path_lengths(parts)
    >>> [ax.get_yscale() for ax in axes]
    ['log', 'linear']
    >>> matplotlib.pyplot.close(axes[0].figure)
    """
    several = [parts] if isinstance(parts, PathLengths) else list(parts)
    given = lams if lams is not None else labels
    if not several or (given is not None and len(given) != len(several)):
        raise ValueError(
            f"give at least one PathLengths, and one λ or label for each; got {len(several)} and "
            f"{0 if given is None else len(given)}."
        )
    colors: Sequence[Any] = [CYCLE[place % len(CYCLE)] for place in range(len(several))]
    if lams is not None:
        colors, _ = lambda_colors(lams)
    with _panels(2, axes, width=3.4, share=False) as axes:
        axes[0].set_yscale("log", nonpositive="mask")
        axes[1].axhline(0, color="0.6", linewidth=0.8)
        for ax, kind in zip(axes, ("norm", "share"), strict=True):
            curves = [
                (np.asarray(part.lags), np.asarray(getattr(part, kind + "s"))) for part in several
            ]
            if lams is not None:
                draw_by_lambda(ax, lams, curves, chosen=None)
            else:
                for place, curve in enumerate(curves):
                    name = None if labels is None else labels[place]
                    ax.plot(*curve, color=colors[place], label=name)
            _mark_rests(ax, several, kind, colors)
            legend_above(ax)
            ax.set_xlabel("steps back ℓ")
            whole_steps(ax)
        axes[0].set_ylabel("‖G$_ℓ$‖")
        axes[1].set_ylabel("share ⟨G$_ℓ$, G⟩ / ‖G‖²")
    return axes


def _mark_rests(ax: Axes, several: Sequence[PathLengths], kind: str, colors: Sequence[Any]) -> None:
    """What comes from all longer lags, behind the last one."""
    label = "all longer lags"
    for part, color in zip(several, colors, strict=True):
        if float(part.rest_norm) > 0:
            at, rest = 1.05 * len(part.lags), float(getattr(part, f"rest_{kind}"))
            ax.plot([at], [rest], "s", color=color, markersize=3.5, linestyle="none", label=label)
            label = None


def gradient_signal(signal: GradientSignal, *, ax: Axes | None = None) -> Axes:
    """How far batches agree on the gradient of each lag: its mean cosine, and its signal-to-noise ratio.

    Args:
      signal: from `rr.diagnostics.gradient_signal`.
      ax: where to draw.

    Returns:
      The axes.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> ax = gradient_signal(GradientSignal(np.arange(2), np.ones(2), np.zeros(2), np.ones((3, 2))))
    >>> [line.get_label() for line in ax.lines[1:]]
    ['cosine of two batches', 'signal / noise of one']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    with canvas(ax) as ax:
        ax.axhline(0, color="0.6", linewidth=0.8)
        ax.plot(signal.lags, signal.cosine, color=BLUE, label="cosine of two batches")
        ax.plot(
            signal.lags, signal.snr, color=VERMILLION, linestyle="--", label="signal / noise of one"
        )
        ax.set_xlabel("steps back ℓ")
        ax.set_ylabel("agreement on G$_ℓ$")
        whole_steps(ax)
        legend_above(ax)
    return ax


def gradient_heat_map(
    result: SweepResult,
    *,
    name: str = "flow",
    layer: str = "layer_0",
    axis: str = "l2",
    lams: Any = None,
    at: Mapping[str, Any] | None = None,
    floor: float = 1e-8,
    axes: Any = None,
) -> Any:
    """log₁₀ r(ℓ) as a colour over steps back and epochs, one panel a λ; blue vanishes, red explodes.

    The mean of ln r over seeds and folds (all but "all").

    Args:
      result: a sweep that was trained with `track={name: rr.diagnostics.track_gradient_flow(loss)}`.
      name: the name of the track.
      layer: whose gradient.
      axis: the dimension of λ.
      lams: which λ; None takes at most four at equal distances.
      at: labels of other dimensions.
      floor: the r of the darkest blue.
      axes: as many axes as λ, to draw in.

    Returns:
      The axes, one a λ.

    Raises:
      ValueError: nothing was tracked under that name, or a dimension is left open.

    >>> import jax, matplotlib, optax, rnnreg as rr
    >>> matplotlib.use("Agg")
    >>> batch, loss = rr.Batch(np.ones((4, 3, 1)), np.ones((4, 1))), rr.losses.squared_error()
    >>> train = rr.make_train(rr.network([rr.cells.elman(2)], 1, readout="last"), loss=loss,
    ...     penalties={"l2": rr.penalties.l2()}, optimizer=optax.sgd(1e-2), num_epochs=4,
    ...     track={"flow": rr.diagnostics.track_gradient_flow(loss)})
    >>> result = rr.sweep(train, {"l2": [0, 0.1]}, batch, key=jax.random.key(0), progress=False)
    >>> [ax.get_title() for ax in gradient_heat_map(result)]
    ['λ = 0', 'λ = 0.1']
    >>> matplotlib.pyplot.close("all")
    """
    variable = f"history_{name}.{layer.replace('/', '.')}"
    if variable not in result.metrics:
        start = f"history_{name}."
        layers = [str(v).removeprefix(start) for v in result.metrics if str(v).startswith(start)]
        raise ValueError(
            f"nothing was tracked as {name!r} of {layer!r}; of {name!r} the result has the layers {layers}. Train with "
            f"track={{{name!r}: rr.diagnostics.track_gradient_flow(loss)}}."
        )
    tracked = result.metrics[variable].sel(dict(at or {}))
    if "fold" in tracked.dims:
        tracked = tracked.sel(fold=[fold for fold in tracked.fold.values if fold != "all"])
    tracked = tracked.mean([dim for dim in ("seed", "fold") if dim in tracked.dims], skipna=False)
    extra = [dim for dim in tracked.dims if dim not in (axis, "epoch", "lag")]
    if axis not in tracked.dims or any(tracked.sizes[dim] > 1 for dim in extra):
        raise ValueError(
            f"a map needs the dimension {axis!r} and a label for every other; after `at` the result has "
            f"{dict(tracked.sizes)}. Give at={{dimension: label}}, or another axis."
        )
    tracked = tracked.squeeze(extra).transpose(axis, "lag", "epoch")
    if lams is None:
        count = tracked.sizes[axis]
        places = np.linspace(0, count - 1, min(count, 4)).round().astype(int)
        tracked = tracked.isel({axis: places})
    else:
        tracked = tracked.sel({axis: np.asarray(lams, np.float64)}, method="nearest")
    values = tracked.values / np.log(10)
    with _panels(len(values), axes, width=2.0, share=True) as axes:
        _draw_maps(axes, tracked["epoch"].values, values, np.log10(floor))
        for ax, lam in zip(axes, tracked[axis].values, strict=True):
            ax.set_title(f"λ = {number(float(lam))}")
    return axes


def _draw_maps(axes: Any, epochs: np.ndarray, values: np.ndarray, low: float) -> None:
    """One map of steps back against epochs an axes, in the same colours, whose middle is r = 1."""
    from matplotlib.colors import TwoSlopeNorm

    known = values[np.isfinite(values)]
    low = max(low, known.min(initial=0.0))
    norm = TwoSlopeNorm(0, min(low, -0.1), max(known.max(initial=0.0), 0.1))
    stride = np.diff(epochs).min() if len(epochs) > 1 else 1
    edges = np.concatenate([epochs[:1] - stride, epochs])
    lags = np.arange(values.shape[1] + 1) - 0.5
    for ax, value in zip(axes, values, strict=True):
        ax.set_facecolor("0.8")  # where nothing is known
        mesh = ax.pcolormesh(edges, lags, value, norm=norm, cmap="RdBu_r", rasterized=True)
        ax.set_xlabel("epoch")
        whole_steps(ax)
    axes[0].set_ylabel("steps back ℓ")
    bar = axes[0].figure.colorbar(mesh, ax=list(axes), aspect=25, pad=0.02)
    bar.set_label("log$_{10}$ r(ℓ)")
    bar.ax.set_yscale("linear")


@contextlib.contextmanager
def _panels(count: int, axes: Any, *, width: float, share: bool) -> Iterator[Any]:
    """So many axes: those given with their own look, or new ones side by side in `style()`."""
    if axes is not None:
        axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        if len(axes) != count:
            raise ValueError(f"axes must be {count}; got {len(axes)}.")
        yield axes
        return
    import matplotlib.pyplot as plt

    with style():
        size = (width * count + 0.8, 2.7)
        figure, made = plt.subplots(1, count, figsize=size, sharey=share, squeeze=False)
        try:
            yield made[0]
        except BaseException:
            plt.close(figure)
            raise
