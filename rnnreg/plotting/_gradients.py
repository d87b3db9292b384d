"""Gradients on their way back through time: parts by lag, and maps over training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg.diagnostics import GradientSignal, PathLengths
from rnnreg.plotting._lambda_axis import draw_by_lambda, lambda_colors
from rnnreg.plotting._style import COLORS, canvas, legend_above, number, style, whole_steps
from rnnreg.sweeps import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    colors: Sequence[Any] = [COLORS[place % len(COLORS)] for place in range(len(several))]
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
        ax.plot(signal.lags, signal.cosine, color=COLORS.blue, label="cosine of two batches")
        ax.plot(
            signal.lags,
            signal.snr,
            color=COLORS.vermillion,
            linestyle="--",
            label="signal / noise of one",
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
