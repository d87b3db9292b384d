"""Searches: what was dropped when, and how far the best found so far is from the best that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._signatures import typed
from rnnreg.plotting._axes import (
    in_words,
    ink,
    legend_above,
    limit_y,
    log_y,
    number,
    plain_numbers,
    whole_steps,
)
from rnnreg.plotting._inputs import curves_by_name, one
from rnnreg.plotting._style import canvas, nth_color, nth_line, nth_marker
from rnnreg.plotting._sweeps import over_seeds
from rnnreg.selection import Halving

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
def halving_brackets(found: Halving, *, ylabel: str | None = None, ax: Axes | None = None) -> Axes:
    """Scores of all trials against epochs in a search that drops trials: a line ends where its trial was dropped.

    A line is the mean over seeds and folds, as trials are compared; grey lines are trials that were dropped, the
    vertical dotted lines are the rungs. Those that ended are coloured by their bracket, and the chosen one is thick.

    Args:
      found: from `rr.selection.halving` or `hyperband`.
      ylabel: of the scores; by default the name of the metric.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record.

    Source: Li, Jamieson, DeSalvo, Rostamizadeh & Talwalkar 2018, for the brackets.

    >>> import matplotlib, jax, optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=9)
    >>> found = rr.selection.halving(train, {"l2": [0, 1e-3, 1e-1, 1]}, rr.Split(batch, target_times=times),
    ...     folds=rr.selection.blocked_folds(2), key=jax.random.key(0), progress=False)
    >>> ax = halving_brackets(found)
    >>> ax.get_xlabel(), len(ax.lines) >= 4
    ('epoch', True)
    >>> matplotlib.pyplot.close(ax.figure)
    """
    curves, epochs = _curves(one(found, Halving))
    scores = found.scores
    bracket = scores["bracket"].values.reshape(-1)
    ended = scores["survived"].isel(epoch=-1).values.reshape(-1)
    chosen = _place(found)
    several = len(set(bracket.tolist())) > 1
    with canvas(ax) as ax:
        if (curves[np.isfinite(curves)] > 0).all():
            log_y(ax)
        ax.set_xscale("log")
        plain_numbers(ax.xaxis)
        for rung in scores["epoch"].values[:-1]:
            ax.axvline(rung, color="0.75", linestyle=":", linewidth=0.9, zorder=0)
        named: set[Any] = set()

        def name(key, text):
            first = key not in named
            named.add(key)
            return text if first else f"_{text}"

        for place, curve in enumerate(curves):
            there = np.flatnonzero(np.isfinite(curve))
            if place == chosen or not len(there):
                continue
            x, y = epochs[there], curve[there]
            if ended[place]:
                color, label = nth_color(bracket[place]), "trained to the end"
                label = f"bracket {bracket[place]}" if several else label
                look: dict[str, Any] = {"linestyle": nth_line(bracket[place]), "zorder": 2.5}
                look |= {"marker": nth_marker(bracket[place]), "markevery": [-1], "markersize": 3.5}
                ax.plot(x, y, color=color, label=name(bracket[place], label), linewidth=1.2, **look)
            else:
                look = {"marker": "o", "markevery": [-1], "markersize": 2.2, "zorder": 1.5}
                ax.plot(x, y, color="0.6", linewidth=0.7, label=name("dropped", "dropped"), **look)
        where = f" (bracket {bracket[chosen]})" if several else ""
        look = {"color": ink(ax), "linewidth": 2.4, "zorder": 3}
        ax.plot(epochs, curves[chosen], label=f"chosen{where}: {_values(found)}", **look)
        ax.set_xlabel("epoch")
        ax.set_ylabel(ylabel or in_words(found.choice.metric))
        legend_above(ax)
    return ax


def _curves(found: Halving) -> tuple[np.ndarray, np.ndarray]:
    """`[trials, R]` mean histories over seeds and folds, NaN once a trial was dropped or if it diverged; the epochs."""
    metrics = found.result.metrics
    history = metrics[f"history_{found.choice.metric}"]
    stopped = (metrics["diverged_at"] >= 0).any([d for d in ("seed", "fold") if d in history.dims])
    history = history.mean("seed", skipna=False)
    if "fold" in history.dims:
        history = history.weighted(metrics["fold_size"]).mean("fold", skipna=False)
    score = found.scores["score"]
    history = history.where(~stopped).transpose(*score.dims).values
    return history.reshape(-1, history.shape[-1]), metrics["epoch"].values


def _place(found: Halving) -> int:
    """The number of the chosen trial."""
    scores = found.scores["score"]
    dims = [dim for dim in scores.dims if dim != "epoch"]
    at = [
        int(np.flatnonzero(scores[dim].values == found.choice.labels[str(dim)])[0]) for dim in dims
    ]
    return int(np.ravel_multi_index(at, [scores.sizes[dim] for dim in dims]))


def _values(found: Halving) -> str:
    """The hyperparameters of the chosen trial that others do not share."""
    scores = found.scores
    moving = [name for name in found.values if name in scores.coords and scores[name].size > 1]
    said = [
        f"{name} = {number(value) if isinstance(value, int | float) else value}"
        for name, value in found.values.items()
        if name in moving
    ]
    return ", ".join(said)


@typed
def regret(
    scores: Mapping[str, Any],
    best: float,
    *,
    maximise: bool = False,
    steps: Mapping[str, Any] | None = None,
    xlabel: str | None = None,
    ylabel: str = "simple regret",
    ax: Axes | None = None,
) -> Axes:
    """How far the best score found so far is from the best that is known, against trials or what they cost.

        r_k = min_{i ≤ k} s_i − s*        (s* − max, if more is better)

    The axis is logarithmic, as regrets span decades, and a regret of 0 lies on its lower edge. If a score is better
    than `best`, the axis is linear.

    Args:
      scores: by name of the search, `[n]` final scores of its trials in their order, or `[n, S]` of S repeats: the line
        is then their mean, the band ± 1 SE. A trial without a score (NaN: it diverged) finds nothing.
      best: s*, the best known score, such as that of a full grid.
      maximise: whether more is better.
      steps: by the same names, `[n]`, what has been spent when the score was known, such as updates.
        None counts trials.
      xlabel: of the other axis; by default "trials", or "updates" with `steps`.
      ylabel: of the regret.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: no dict of scores, or steps that do not fit them.

    >>> import matplotlib
    >>> ax = regret({"random": [3.0, 1.5, 2.0, 1.1], "grid": [4.0, 2.0, 1.2, 1.0]}, best=1.0)
    >>> ax.lines[0].get_ydata().round(2).tolist(), ax.get_yscale()
    ([2.0, 0.5, 0.5, 0.1], 'log')
    >>> matplotlib.pyplot.close(ax.figure)
    """
    named = curves_by_name(scores, "scores")
    found = {name: _regret(name, values, best, maximise) for name, values in named.items()}
    places = {name: _steps(name, steps, len(values)) for name, values in found.items()}
    means = [over_seeds(values, name)[0] for name, values in found.items()]
    least = min((mean[mean > 0].min(initial=np.inf) for mean in means), default=np.inf)
    least = least if np.isfinite(least) else 1.0
    logarithmic = all((values[np.isfinite(values)] >= 0).all() for values in found.values())
    with canvas(ax) as ax:
        for place, (name, values) in enumerate(found.items()):
            mean, error, _ = over_seeds(values, name)
            low, high = mean - error, mean + error
            if logarithmic:  # 0 lies on the edge
                mean, low, high = (np.maximum(curve, 0.5 * least) for curve in (mean, low, high))
            look: dict[str, Any] = {"drawstyle": "steps-post", "color": nth_color(place)}
            look |= {"linestyle": nth_line(place), "marker": nth_marker(place)}
            look |= {"clip_on": False, "markersize": 3.5}
            ax.plot(places[name], mean, label=name, markevery=-(-len(mean) // 6), **look)
            if values.shape[1] > 1:
                look = {"step": "post", "color": nth_color(place), "alpha": 0.22, "linewidth": 0}
                ax.fill_between(places[name], low, high, **look)
        if logarithmic:
            log_y(ax)
            limit_y(ax, 0.5 * least, ax.get_ylim()[1])
        if steps is None:
            whole_steps(ax)
        ax.set_xlabel(xlabel or ("trials" if steps is None else "updates"))
        several = any(values.shape[1] > 1 for values in found.values())
        ax.set_ylabel(f"{ylabel} (mean ± 1 SE)" if several else ylabel)
        legend_above(ax)
    return ax


def _regret(name: str, given: Any, best: float, maximise: bool) -> np.ndarray:
    """`[n, S]`, NaN before the first score."""
    values = np.asarray(given, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(f"scores[{name!r}] must have shape [n] or [n, S]; got {values.shape}.")
    sign = -1 if maximise else 1
    values = np.where(np.isfinite(values), sign * values, np.inf).reshape(len(values), -1)
    so_far = np.minimum.accumulate(values, axis=0) - sign * best
    return np.where(np.isfinite(so_far), so_far, np.nan)


def _steps(name: str, steps: Mapping[str, Any] | None, size: int) -> np.ndarray:
    """Where the scores of a search lie on the other axis."""
    if steps is None:
        return np.arange(1, size + 1)
    places = np.asarray(steps.get(name, ()), dtype=np.float64)
    if places.shape != (size,):
        raise ValueError(
            f"steps[{name!r}] must have shape [{size}], a number for each score; got {places.shape}."
        )
    return places
