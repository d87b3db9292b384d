"""The gradient back through time while a network trains, as a map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnreg._checks import check_number
from rnnreg._signatures import Numbers, typed
from rnnreg.plotting._axes import numbers, whole_steps
from rnnreg.plotting._inputs import history_by_lambda, names_after, one
from rnnreg.plotting._style import panels
from rnnreg.sweeps import SweepResult, position


@typed
def gradient_heat_map(
    result: SweepResult,
    *,
    name: str = "flow",
    layer: str = "layer_0",
    axis: str | None = None,
    lams: Numbers | None = None,
    at: Mapping[str, Any] | None = None,
    floor: float = 1e-8,
    axes: Any = None,
) -> Any:
    """log₁₀ r(ℓ) as a colour over steps back and epochs, one panel per λ; blue vanishes, red explodes.

    The mean of ln r over seeds and folds (all but "all").

    Args:
      result: a sweep that was trained with `track={name: rr.diagnostics.track_gradient_flow(loss)}`.
      name: the name of the track.
      layer: whose gradient.
      axis: the dimension of λ; None takes the only one that is the λ of a penalty, or else the only one of numbers.
      lams: which λ; None takes at most four at equal distances.
      at: labels of other dimensions.
      floor: the r of the darkest blue.
      axes: as many axes as λ, to draw in.

    Returns:
      The axes, one per λ.

    Raises:
      ValueError: no sweep, nothing was tracked under that name, or a dimension is left open.

    >>> import jax, matplotlib, optax, rnnreg as rr
    >>> batch, loss = rr.Batch(np.ones((4, 3, 1)), np.ones((4, 1))), rr.losses.squared_error()
    >>> train = rr.make_train(rr.network([rr.cells.elman(2)], 1, readout="last"), loss=loss,
    ...     penalties={"l2": rr.penalties.l2()}, optimizer=optax.sgd(1e-2), num_epochs=4,
    ...     track={"flow": rr.diagnostics.track_gradient_flow(loss)})
    >>> result = rr.sweep(train, {"l2": [0, 0.1]}, batch, key=jax.random.key(0), progress=False)
    >>> [ax.get_title() for ax in gradient_heat_map(result)]
    ['λ = 0', 'λ = 0.1']
    >>> matplotlib.pyplot.close("all")
    """
    check_number(floor, "floor", least=0)
    variable = f"history_{name}.{layer.replace('/', '.')}"
    if variable not in one(result, SweepResult).metrics:
        layers = names_after(f"history_{name}.", result)
        raise ValueError(
            f"nothing was tracked as {name!r} of {layer!r}; of {name!r} the result has the layers {layers}. Train with "
            f"track={{{name!r}: rr.diagnostics.track_gradient_flow(loss)}}."
        )
    tracked = history_by_lambda(result, variable, axis=axis, at=at, along=("lag", "epoch"))
    axis = str(tracked.dims[0])
    if lams is None:
        count = tracked.sizes[axis]
        places = np.linspace(0, count - 1, min(count, 4)).round().astype(int)
        tracked = tracked.isel({axis: places})
    else:
        places = [position(axis, tracked[axis].values, {axis: lam}, None) for lam in np.ravel(lams)]
        tracked = tracked.isel({axis: places})
    values = tracked.values / np.log(10)
    with panels(len(values), axes, width=2.0, share=True) as axes:
        _draw_maps(axes, tracked["epoch"].values, values, np.log10(floor))
        for ax, lam in zip(axes, numbers(tracked[axis].values), strict=True):
            ax.set_title(f"λ = {lam}")
    return axes


def _draw_maps(axes: Any, epochs: np.ndarray, values: np.ndarray, low: float) -> None:
    """One map of steps back against epochs per axes, in the same colours, whose middle is r = 1."""
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
