"""Curves of arrays: a series with its predictions, and losses over epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._arrays import as_array
from rnnreg._signatures import Numbers, typed
from rnnreg.plotting._axes import (
    dated,
    ink,
    legend_above,
    limit_y,
    log_y,
    size_inches,
    text_inches,
    whole_steps,
)
from rnnreg.plotting._inputs import curves_by_name
from rnnreg.plotting._style import canvas, nth_color, nth_line, nth_marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
def predicted_series(
    times: Any,
    truth: Numbers,
    predictions: Mapping[str, Any],
    *,
    ax: Axes | None = None,
    bands: Mapping[str, tuple[Any, Any]] | None = None,
    spans: Mapping[str, tuple[Any, Any]] | None = None,
    xlabel: str = "time",
    ylabel: str | None = None,
) -> Axes:
    """A series, and over it what was predicted: one step ahead, free-running, or both.

    Args:
      times: `[T]`, numbers or dates.
      truth: `[T]` or `[T, 1]`, drawn in black (white on a dark face).
      predictions: by name, an array at `times`, or a pair `(times, array)` with times of its own.
      ax: where to draw.
      bands: by the name of a prediction, `(low, high)` at its times.
      spans: by name, `(first, last)` time of a span to shade, such as a test set.
      xlabel: of the time axis.
      ylabel: what the series is, with its unit.

    Returns:
      The axes.

    Raises:
      ValueError: arrays and times of different lengths, or a band without a prediction.

    >>> import matplotlib
    >>> ax = predicted_series([1, 2, 3], [0.0, 1.0, 0.0], {"free-running": ([3, 4], [0.1, 0.9])},
    ...     spans={"test": (2.5, 4.5)}, xlabel="year", ylabel="sunspot number")
    >>> [line.get_label() for line in ax.lines]
    ['data', 'free-running']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    bands, predictions = bands or {}, curves_by_name(predictions, "predictions")
    unknown = set(bands) - set(predictions)
    if unknown:
        raise ValueError(
            f"bands has {sorted(unknown)[0]!r}, which is not among the predictions {list(predictions)}."
        )
    series = _as_curve(truth, times)
    curves = {name: _as_curve(values, times) for name, values in predictions.items()}
    with canvas(ax) as ax:
        ax.plot(*series, color=ink(ax), linewidth=1.0, marker=".", markersize=2.5, label="data")
        for place, (name, (at, values)) in enumerate(curves.items()):
            color = nth_color(place)
            ax.plot(at, values, color=color, linestyle=nth_line(place), label=name)
            if name in bands:
                low, high = (_as_curve(edge, at)[1] for edge in bands[name])
                ax.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
        ax.margins(x=0.02)
        ax.set_xlabel(xlabel)
        if ylabel:
            ax.set_ylabel(ylabel)
        dated(ax)
        legend_above(ax)
        if spans:
            _shade(ax, spans)
    return ax


def _shade(ax: Axes, spans: Mapping[str, tuple[Any, Any]]) -> None:
    """Grey spans with their names at the top, upright where they are too narrow for a name."""
    places = {name: [float(ax.convert_xunits(end)) for end in span] for name, span in spans.items()}
    ends = np.array([*places.values(), ax.get_xlim()])
    left, right = float(ends.min()), float(ends.max())
    ax.set_xlim(left, right)
    points = 7.0
    width, height = size_inches(ax)
    wide = {name: 0.95 * (last - first) / (right - left) for name, (first, last) in places.items()}
    upright = any(text_inches(name, points) > share * width for name, share in wide.items())
    low, high = ax.dataLim.intervaly + np.ptp(ax.dataLim.intervaly) * np.array([-0.05, 0.05])
    longest = max(text_inches(name, points) for name in spans)
    need = (longest if upright else points * 1.3 / 72) + 0.06
    limit_y(ax, low, low + (high - low) / (1 - min(0.45, need / height)))
    for place, (name, (first, last)) in enumerate(places.items()):
        ax.axvspan(first, last, color="0.5", alpha=(0.14, 0.26)[place % 2], linewidth=0, zorder=0)
        look: dict[str, Any] = {"ha": "center", "va": "top", "rotation": 90 if upright else 0}
        at = ax.get_xaxis_transform()
        ax.text((first + last) / 2, 0.99, name, transform=at, fontsize=points, **look)


@typed
def loss_curves(
    curves: Mapping[str, Any],
    *,
    ax: Axes | None = None,
    xlabel: str = "epoch",
    ylabel: str = "loss",
    log: bool = True,
) -> Axes:
    """Named curves against epochs, on a logarithmic axis.

    Args:
      curves: by name, an array `[R]` at epochs 1 … R, or a pair `(epochs, array)`.
      ax: where to draw.
      xlabel: of the horizontal axis.
      ylabel: what the numbers are, with their unit.
      log: a logarithmic vertical axis.

    Returns:
      The axes.

    Raises:
      ValueError: epochs and values of different lengths.

    >>> import matplotlib
    >>> ax = loss_curves({"training": [1.0, 0.3, 0.1], "validation": ([1, 3], [1.1, 0.4])})
    >>> ax.lines[0].get_xdata().tolist()
    [1, 2, 3]
    >>> matplotlib.pyplot.close(ax.figure)
    """
    named = curves_by_name(curves, "curves")
    read = {name: _as_curve(values) for name, values in named.items()}
    with canvas(ax) as ax:
        for place, (name, curve) in enumerate(read.items()):
            look = nth_line(place) + nth_marker(place)
            ax.plot(*curve, look, color=nth_color(place), markersize=3.5, label=name)
        if log:
            log_y(ax)
        if not dated(ax):
            whole_steps(ax)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        legend_above(ax)
    return ax


def _as_curve(values: Any, times: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """`(times, values)` of one curve given as an array `[T]` or `[T, 1]`, or as a pair with its own times."""
    if isinstance(values, tuple):
        times, values = values
    values = np.asarray(as_array(values, "a curve"), dtype=np.float64)
    values = values[..., 0] if values.ndim > 1 and values.shape[-1] == 1 else values
    times = np.arange(1, len(values) + 1) if times is None else np.asarray(times)
    if values.ndim != 1 or times.shape != values.shape:
        raise ValueError(
            f"a curve needs one value per time; got times of shape {times.shape} and values of shape "
            f"{values.shape}. Give (times, values) if a curve has times of its own."
        )
    return times, values
