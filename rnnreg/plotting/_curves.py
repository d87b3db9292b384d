"""Curves over time: forecasts along it, learning over epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg.plotting._lambda_axis import draw_by_lambda
from rnnreg.plotting._style import (
    COLORS,
    METRICS,
    as_curve,
    canvas,
    height_inches,
    legend_above,
    log_y,
    text_inches,
    whole_steps,
    width_inches,
)
from rnnreg.sweeps import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def forecast(
    times: Any,
    truth: Any,
    predictions: Mapping[str, Any],
    *,
    ax: Axes | None = None,
    bands: Mapping[str, tuple[Any, Any]] | None = None,
    spans: Mapping[str, tuple[float, float]] | None = None,
    xlabel: str = "time",
    ylabel: str | None = None,
) -> Axes:
    """A series, and beside it what was forecast: one step ahead, free-running, or both.

    Args:
      times: `[T]`.
      truth: `[T]` or `[T, 1]`, in black.
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
    >>> matplotlib.use("Agg")
    >>> ax = forecast([1, 2, 3], [0.0, 1.0, 0.0], {"free-running": ([3, 4], [0.1, 0.9])},
    ...     spans={"test": (2.5, 4.5)}, xlabel="year", ylabel="sunspot number")
    >>> [line.get_label() for line in ax.lines]
    ['data', 'free-running']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    bands = bands or {}
    unknown = set(bands) - set(predictions)
    if unknown:
        raise ValueError(
            f"bands has {sorted(unknown)[0]!r}, which is not among the predictions {list(predictions)}."
        )
    series = as_curve(truth, times)
    curves = {name: as_curve(values, times) for name, values in predictions.items()}
    with canvas(ax) as ax:
        ax.plot(*series, color="black", linewidth=1.0, marker=".", markersize=2.5, label="data")
        for place, (name, (at, values)) in enumerate(curves.items()):
            color = COLORS[place % len(COLORS)]
            ax.plot(at, values, color=color, linestyle=("-", "--", "-.")[place % 3], label=name)
            if name in bands:
                low, high = (as_curve(edge, at)[1] for edge in bands[name])
                ax.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
        ax.margins(x=0.02)
        ax.set_xlabel(xlabel)
        if ylabel:
            ax.set_ylabel(ylabel)
        legend_above(ax)
        if spans:
            _shade(ax, spans)
    return ax


def _shade(ax: Axes, spans: Mapping[str, tuple[float, float]]) -> None:
    """Grey spans with their names at the top, upright where they are too narrow for a name."""
    import matplotlib

    left, right = ax.get_xlim()
    left = min(left, *(first for first, _ in spans.values()))
    right = max(right, *(last for _, last in spans.values()))
    ax.set_xlim(left, right)
    points = 7.0
    per_unit = width_inches(ax) / (right - left)
    upright = any(
        text_inches(name, points) > 0.95 * (last - first) * per_unit
        for name, (first, last) in spans.items()
    )
    low, high = ax.get_ylim()
    longest = max(text_inches(name, points) for name in spans)
    need = (longest if upright else points * 1.3 / 72) + 0.06
    ax.set_ylim(low, low + (high - low) / (1 - min(0.45, need / height_inches(ax))))
    for place, (name, (first, last)) in enumerate(spans.items()):
        ax.axvspan(first, last, color=("0.93", "0.87")[place % 2], linewidth=0, zorder=0)
        ax.text(
            (first + last) / 2,
            0.99,
            name,
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="top",
            rotation=90 if upright else 0,
            fontsize=points,
            color=matplotlib.rcParams["text.color"],
        )


def history(
    result: SweepResult,
    *,
    name: str = "train_loss",
    axis: str = "l2",
    at: Mapping[str, Any] | None = None,
    chosen: float | None = None,
    ylabel: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Learning curves, one a λ: a recorded number against epochs, averaged over seeds and folds.

    A curve ends where the first of its lanes diverged; nothing is averaged over the rest.

    Args:
      result: the sweep.
      name: what was recorded: "train_loss", "val_loss", "gradient_norm", ….
      axis: the dimension of λ.
      at: labels of other dimensions, such as `{"fold": "all"}` or `{"learning_rate": 1e-2}`; needed for each
        axis of the sweep with more than one value. Without a fold the mean is over all but "all".
      chosen: the λ to draw thick and to name.
      ylabel: of the axis; by default the name.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: nothing was recorded under that name, or a dimension is left open.

    >>> import matplotlib, jax, optax, rnnreg as rr
    >>> matplotlib.use("Agg")
    >>> batch = rr.Batch(np.ones((4, 3, 1)), np.ones((4, 1)))
    >>> train = rr.make_train(rr.network([rr.cells.elman(2)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.sgd(1e-2), num_epochs=4)
    >>> result = rr.sweep(train, {"l2": [0, 0.1]}, batch, seeds=2, key=jax.random.key(0), progress=False)
    >>> ax = history(result)
    >>> sorted(line.get_label() for line in ax.lines)
    ['λ = 0', 'λ = 0.1']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    variable = f"history_{name}"
    if variable not in result.metrics:
        recorded = [
            str(found).removeprefix("history_")
            for found in result.metrics
            if str(found).startswith("history_")
        ]
        raise ValueError(f"nothing was recorded as {name!r}; the result has {recorded}.")
    recorded = result.metrics[variable].sel(dict(at or {}))
    if "fold" in recorded.dims:
        recorded = recorded.sel(fold=[fold for fold in recorded.fold.values if fold != "all"])
    recorded = recorded.mean(
        [dim for dim in ("seed", "fold") if dim in recorded.dims], skipna=False
    )
    extra = [dim for dim in recorded.dims if dim not in (axis, "epoch")]
    if axis not in recorded.dims or any(recorded.sizes[dim] > 1 for dim in extra):
        raise ValueError(
            f"a learning curve needs the dimension {axis!r} and a label for every other; after `at` the "
            f"result has {dict(recorded.sizes)}. Give at={{dimension: label}}, or another axis."
        )
    values = recorded.squeeze(extra).transpose(axis, "epoch").values
    epochs = recorded["epoch"].values
    with canvas(ax) as ax:
        if (values[np.isfinite(values)] > 0).all():
            log_y(ax)
        draw_by_lambda(
            ax, recorded[axis].values, [(epochs, curve) for curve in values], chosen=chosen
        )
        ax.set_xlabel("epoch")
        ax.set_ylabel(ylabel or METRICS.get(name, name).replace("_", " "))
    return ax


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
    >>> matplotlib.use("Agg")
    >>> ax = loss_curves({"training": [1.0, 0.3, 0.1], "validation": ([1, 3], [1.1, 0.4])})
    >>> ax.lines[0].get_xdata().tolist()
    [1, 2, 3]
    >>> matplotlib.pyplot.close(ax.figure)
    """
    read = {name: as_curve(values) for name, values in curves.items()}
    with canvas(ax) as ax:
        for place, (name, curve) in enumerate(read.items()):
            ax.plot(
                *curve,
                color=COLORS[place % len(COLORS)],
                linestyle=("-", "--", "-.", ":")[place % 4],
                marker="osD^v<"[place % 6],
                markersize=3.5,
                label=name,
            )
        if log:
            log_y(ax)
        whole_steps(ax)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        legend_above(ax)
    return ax
