"""What a choice of λ is made from, beside its curve: the spread over seeds, and the map over two axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import check_number
from rnnreg._signatures import typed
from rnnreg.plotting._axes import bar_beside, in_words, legend_above, numbers
from rnnreg.plotting._inputs import one
from rnnreg.plotting._lambda_axis import lambda_axis, with_gap
from rnnreg.plotting._style import COLORS, canvas
from rnnreg.plotting._sweeps import mark_rules
from rnnreg.selection import Choice
from rnnreg.sweeps import SweepResult

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


@typed
def cv_seeds(
    result: SweepResult,
    choice: Choice,
    *,
    ax: Axes | None = None,
    scale: float = 1.0,
    ylabel: str | None = None,
) -> Axes:
    """How much the score of each λ depends on the seed: the median over seeds, and the middle half of them as a band.

    Each thin line is a seed, whose score is the mean over folds. Where they cross, the seed decides which λ looks
    best; that is no standard error, and no rule of `choose` uses it. The vertical lines are those of `cv_curve`.

    Args:
      result: the sweep, with several seeds.
      choice: from `rr.selection.choose`.
      ax: where to draw.
      scale: multiplies all scores.
      ylabel: of the axis; by default the name of the metric.

    Returns:
      The axes.

    Raises:
      ValueError: not a sweep and the choice from it, or a single seed.

    >>> import matplotlib, jax, optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = rr.sweep(train, {"l2": [0, 1e-3, 1e-1]}, rr.Split(batch, target_times=times), seeds=3,
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> ax = cv_seeds(result, rr.selection.choose(result))
    >>> [text.get_text() for text in ax.get_legend().get_texts()][:2]
    ['median of 3 seeds', 'middle half']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    check_number(scale, "scale", least=0, above=True)
    choice = one(choice, Choice)
    scores: Any = _means(one(result, SweepResult), choice)
    if scores.sizes.get("seed", 1) < 2:
        raise ValueError(
            "the spread over seeds needs several; sweep with seeds=10, or draw cv_curve."
        )
    along = _axis_of(scores, choice)
    at = {dim: choice.labels[dim] for dim in scores.dims if dim not in (along, "seed")}
    found = scores.sel(at).transpose(along, "seed")
    lam, values = found[choice.axis].values, scale * found.values
    lost = int((~np.isfinite(values)).sum())
    values = np.where(np.isfinite(values), values, np.nan)
    known = np.isfinite(values).any(axis=1)
    bounds = np.full((3, len(lam)), np.nan)
    bounds[:, known] = np.nanquantile(values[known], (0.25, 0.5, 0.75), axis=1)
    with canvas(ax) as ax:
        positions = lambda_axis(ax, lam, label=f"λ ({choice.axis})")
        x, each, low, middle, high = with_gap(lam, positions, values, *bounds)
        ax.plot(x, each, color="0.72", linewidth=0.7, marker=".", markersize=2, zorder=1)
        name = f"median of {values.shape[1]} seeds"
        name += f" ({lost} of {values.size} diverged, left out)" if lost else ""
        look: dict[str, Any] = {"color": COLORS.blue, "zorder": 3}
        ax.plot(x, middle, marker="o", markersize=3.2, label=name, **look)
        band = {"color": COLORS.blue, "alpha": 0.22, "linewidth": 0}
        ax.fill_between(x, low, high, label="middle half", **band)
        at_zero = np.isnan(np.append(x, np.nan)[1:]) & ~np.isnan(x)  # a band has no width there
        ax.vlines(x[at_zero], low[at_zero], high[at_zero], color=COLORS.blue, linewidth=0.9)
        mark_rules(ax, choice, lam, positions)
        ax.set_ylabel(ylabel or in_words(choice.metric))
        legend_above(ax)
    return ax


@typed
def cv_map(
    result: SweepResult,
    choice: Choice,
    *,
    other: str | None = None,
    ax: Axes | None = None,
    scale: float = 1.0,
    label: str | None = None,
) -> Axes:
    """The cross-validation mean over λ and another axis of the sweep, such as the learning rate, as a map.

    A valley along a diagonal says that the two do one thing together; a best cell on an edge, that the sweep should go
    on there. Cells in which a lane diverged are grey. The circle is the choice.

    Args:
      result: the sweep.
      choice: from `rr.selection.choose`.
      other: the second axis; None takes the only one beside λ with several values. Further axes are at the choice.
      ax: where to draw.
      scale: multiplies all scores.
      label: of the colour bar; by default the name of the metric.

    Returns:
      The axes; the colour bar is a child of them.

    Raises:
      ValueError: not a sweep and the choice from it, no second axis, or several and none was named.

    >>> import matplotlib, jax, optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=lambda hyper: optax.adam(hyper["learning_rate"]), num_epochs=20)
    >>> grid = {"l2": [0, 1e-3, 1e-1], "learning_rate": [1e-3, 1e-2]}
    >>> result = rr.sweep(train, grid, rr.Split(batch, target_times=times),
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> ax = cv_map(result, rr.selection.choose(result))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('λ (l2)', 'learning rate')
    >>> matplotlib.pyplot.close(ax.figure)
    """
    check_number(scale, "scale", least=0, above=True)
    choice = one(choice, Choice)
    scores: Any = _means(one(result, SweepResult), choice)
    scores = scores.mean("seed", skipna=False) if "seed" in scores.dims else scores
    along = _axis_of(scores, choice)
    known = [dim for dim in scores.dims if dim != along and scores.sizes[dim] > 1]
    if other is None and len(known) == 1:
        other = str(known[0])
    if other is None or other not in known:
        raise ValueError(
            f"other must be an axis of the sweep beside {choice.axis!r} with several values, one of {known}; got "
            f"{other!r}."
        )
    at = {dim: choice.labels[dim] for dim in scores.dims if dim not in (along, other)}
    found = scores.sel(at).sortby(along).sortby(other).transpose(other, along)
    lam, others, values = found[choice.axis].values, found[other].values, scale * found.values
    with canvas(ax) as ax:
        x = np.sort(lambda_axis(ax, lam, label=f"λ ({choice.axis})"))
        edges, rows = _edges(np.log(x)), np.arange(len(others) + 1) - 0.5
        ax.set_facecolor("0.8")  # where nothing is known
        mesh = ax.pcolormesh(
            np.exp(edges),
            rows,
            values,
            cmap="viridis" if choice.maximise else "viridis_r",
            rasterized=True,
        )
        ax.set_xlim(np.exp(edges[0]), np.exp(edges[-1]))
        place = (x[lam == choice.lam], np.flatnonzero(others == choice.labels[other]))
        ring: dict[str, Any] = {"marker": "o", "markersize": 7, "markerfacecolor": "none"}
        ax.plot(*place, linestyle="none", color="black", markeredgewidth=2.6, **ring)
        ax.plot(*place, linestyle="none", color="white", markeredgewidth=1.1, **ring)
        shown = np.unique(np.linspace(0, len(others) - 1, min(len(others), 6)).round().astype(int))
        plain = others.dtype.kind not in "iuf"
        ax.set_yticks(shown, map(str, others[shown]) if plain else numbers(others[shown]))
        ax.set_ylabel(other.replace("_", " "))
        bar_beside(ax, mesh).set_label(label or in_words(choice.metric))
        legend_above(ax)
    return ax


def _means(result: SweepResult, choice: Choice) -> xr.DataArray:
    """The mean over folds, weighted by their sizes, of every lane's score; NaN if one of them is."""
    metrics = result.metrics
    if choice.metric not in metrics:
        raise ValueError(f"the result has no {choice.metric!r}; is the choice from this sweep?")
    scores = metrics[choice.metric].where(metrics["diverged_at"] < 0)
    if "fold" not in scores.dims:
        return scores
    folds = [label for label in scores.fold.values if label != "all"]
    scores, sizes = scores.sel(fold=folds), metrics["fold_size"].sel(fold=folds)
    return (scores * (sizes / sizes.sum("fold"))).sum("fold", skipna=False)


def _axis_of(scores: xr.DataArray, choice: Choice) -> str:
    """The dimension along which λ lies."""
    if choice.axis in scores.dims and choice.axis in choice.values:
        return choice.axis
    raise ValueError(
        f"{choice.axis!r} is no axis of its own in this sweep; trials of zipped values are drawn by cv_curve."
    )


def _edges(centres: np.ndarray) -> np.ndarray:
    """The edges of cells about rising centres."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middles = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - middles[0], 2 * centres[-1] - middles[-1]
    return np.concatenate([[first], middles, [last]])
