"""What a sweep found along λ: cross-validation, norms of weights, learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import check_number
from rnnreg._signatures import Numbers, typed
from rnnreg.plotting._axes import (
    in_words,
    legend_above,
    limit_y,
    log_y,
    numbers,
    size_inches,
    whole_steps,
)
from rnnreg.plotting._inputs import curves_by_name, history_by_lambda, names_after, one
from rnnreg.plotting._lambda_axis import draw_by_lambda, lambda_axis, with_gap
from rnnreg.plotting._style import COLORS, canvas, nth_color, nth_marker
from rnnreg.selection import Choice
from rnnreg.sweeps import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
def cv_curve(
    result: SweepResult,
    choice: Choice,
    *,
    ax: Axes | None = None,
    scale: float = 1.0,
    ylabel: str | None = None,
    show_folds: bool = True,
) -> Axes:
    """The cross-validation mean ± 1 SE against λ, with λ_min, λ_1se and the paired λ_1se as vertical lines.

    In the manner of glmnet's `plot.cv.glmnet`. Trials that differ in more than λ are points without a line, by their
    λ, or by their number if the choice is of the zipped dimension itself.
    The grey curves are the single folds: where they move up
    and down together, the bars overstate the doubt about λ, and the paired rule is the one to look at. Rules
    that agree share a line. If λ is that of a proximal penalty, the numbers along the top are the weights that are not
    0, the mean over seeds and folds.

    Args:
      result: the sweep, for the number of its seeds and of the weights that are not 0.
      choice: from `rr.selection.choose`.
      ax: where to draw.
      scale: multiplies all scores, such as variance of the series / 1535 for ARV.
      ylabel: of the axis; by default the name of the metric.
      show_folds: draw the single folds too. The axis always holds the mean and its bars in full; a fold
        that is further away than half their range leaves the picture.

    Returns:
      The axes.

    Raises:
      ValueError: not a sweep and the choice from it.

    Source: Friedman, Hastie & Tibshirani 2010 (glmnet).

    >>> import matplotlib, jax, optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = rr.sweep(train, {"l2": [0, 1e-3, 1e-1]}, rr.Split(batch, target_times=times),
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> ax = cv_curve(result, rr.selection.choose(result))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('λ (l2)', 'validation loss')
    >>> matplotlib.pyplot.close(ax.figure)
    """
    check_number(scale, "scale", least=0, above=True)
    curve = one(choice, Choice).curve
    num_folds = curve.folds.shape[1]
    name, sample = _labels(one(result, SweepResult), num_folds)
    show_folds = show_folds and num_folds > 1
    with canvas(ax) as ax:
        positions, after = choice_axis(ax, choice, curve.lam)
        x, mean, se, folds = with_gap(
            after, positions, scale * curve.mean, scale * curve.se, scale * curve.folds
        )
        line = "none" if choice.moving else "-"  # trials that differ in more than λ are no curve
        if show_folds:
            for fold in range(num_folds):
                look = {
                    "linestyle": line,
                    "color": "0.72",
                    "linewidth": 0.7,
                    "marker": ".",
                    "markersize": 2,
                    "zorder": 1,
                }
                ax.plot(x, folds[:, fold], label="_fold" if fold else sample, **look)  # pyright: ignore
        name = name if show_folds or not sample else f"{name} ({sample})"
        se_bars = se if num_folds > 1 else None
        look = {"color": COLORS.blue, "marker": "o", "elinewidth": 0.9, "capsize": 2.4, "zorder": 3}
        look |= {
            "markersize": 3.2,
            "linestyle": line,
        }  # smaller than most bars, whatever the user's style
        bars = ax.errorbar(x, mean, yerr=se_bars, label=name, **look)  # pyright: ignore
        mark_rules(ax, choice, curve.lam, positions)
        ax.set_ylabel(ylabel or in_words(choice.metric))
        _limit(ax, mean, np.nan_to_num(se), folds if show_folds else None)
        if f"zeros_{choice.axis}" in result.metrics:
            _count_above(ax, positions, *_counts(result, choice))
        legend_above(ax, first=[bars])
    return ax


def _labels(result: SweepResult, num_folds: int) -> tuple[str, str]:
    """What the mean is, and over what."""
    counts = {"fold": num_folds if num_folds > 1 else 0, "seed": len(result.config["seeds"])}
    sample = ", ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in counts.items() if n)
    return "CV mean ± 1 SE" if num_folds > 1 else "validation set", sample


def mark_rules(ax: Axes, choice: Choice, lam: np.ndarray, positions: np.ndarray) -> None:
    """The λ of each rule as a vertical line; rules that agree share one."""
    place = dict(zip(lam.tolist(), positions.tolist(), strict=True))
    rules = _rules(choice)
    for said, (chosen, (names, look)) in zip(numbers(rules), rules.items(), strict=True):
        ax.axvline(place[chosen], **look, label=" =\u00a0".join([*names, said]))


def _of_lambda(choice: Choice) -> bool:
    """Whether the axis of a choice is a hyperparameter, and not the number of a trial."""
    return choice.axis in choice.values


def choice_axis(ax: Axes, choice: Choice, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of a choice's axis lie on x, and what they are for `with_gap`: trial 0 is no λ of 0."""
    if _of_lambda(choice):
        return lambda_axis(ax, lam, label=f"λ ({choice.axis})"), lam
    ax.set_xlabel(choice.axis)
    whole_steps(ax)
    ax.set_xlim(lam.min() - 1.2, lam.max() + 1.2)
    return lam, lam + 1


def _rules(choice: Choice) -> dict[float, tuple[list[str], dict[str, Any]]]:
    """By λ, the rules that chose it and the look of the first."""
    if not _of_lambda(choice):
        look = {"linestyle": "--", "linewidth": 1.3, "zorder": 2, "color": COLORS.vermillion}
        return {choice.lam: ([f"best {choice.axis}"], look)}
    found: dict[float, tuple[list[str], dict[str, Any]]] = {}
    dashed = {"linestyle": "--", "linewidth": 1.3, "zorder": 2}
    thin = {"linestyle": (0, (4, 2)), "linewidth": 0.9, "zorder": 2}
    for lam, name, look in (
        (choice.lam_min, "min", {**dashed, "color": COLORS.vermillion}),
        (choice.lam_1se, "1se", {**dashed, "color": COLORS.green}),
        (choice.lam_paired_1se, "1se,paired", {**thin, "color": COLORS.purple}),
    ):
        found.setdefault(lam, ([], look))[0].append(rf"$\lambda_\mathrm{{{name}}}$")
    return found


def _limit(ax: Axes, mean: np.ndarray, se: np.ndarray, folds: np.ndarray | None) -> None:
    """The y limits: the mean and its bars in full, and the folds' up to half that height again."""
    if not np.isfinite(mean).any():
        return
    low, high = np.nanmin(mean - se), np.nanmax(mean + se)
    if folds is not None:
        room = 0.5 * (high - low)
        low = max(min(low, np.nanmin(folds)), low - room)
        high = min(max(high, np.nanmax(folds)), high + room)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    limit_y(ax, low - margin, high + margin)


def _counts(result: SweepResult, choice: Choice) -> tuple[np.ndarray, str]:
    """`[n]` what a proximal penalty brings to 0 and what it is, at the choice's values of all other axes.

    That is weights; where none of them ever is 0 and ranks fall, as with the nuclear norm, the ranks, added up.
    """
    metrics = result.metrics
    (along,) = metrics[choice.axis].dims
    at = {dim: label for dim, label in choice.labels.items() if dim != along}
    number = next(n for n, one in enumerate(result.groups) if one.static.items() <= at.items())
    penalty = result.config["penalties"][number][choice.axis]

    def mean(values):
        values = values.sel(at)
        return values.mean([dim for dim in values.dims if dim != along]).values

    zeros = mean(metrics[f"zeros_{choice.axis}"])
    names = ["rank." + path.replace("/", ".") for path in penalty["covers"]]
    ranks = [mean(metrics[name]) for name in names if name in metrics]
    if ranks and np.ptp(zeros) == 0 < np.ptp(sum(ranks)):
        return np.asarray(sum(ranks)), "rank" if len(ranks) == 1 else "sum of ranks"
    return penalty["num_weights"] - zeros, "weights that are not 0"


def _count_above(ax: Axes, positions: np.ndarray, counts: np.ndarray, label: str) -> None:
    """Numbers along the upper edge of the axes, inside, as many as fit; the curves make room for them."""
    order = np.argsort(positions)
    most = max(2, int(size_inches(ax)[0] / 0.42))
    order = order[
        np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int))
    ]
    labels = ["" if np.isnan(counts[place]) else f"{counts[place]:.0f}" for place in order]
    top = ax.secondary_xaxis("top")
    top.set_xticks(positions[order], labels)
    top.minorticks_off()
    top.tick_params(direction="in", pad=-13, labelsize=7)
    top.set_xlabel(label, fontsize=7, labelpad=-24, loc="left")
    low, high = ax.get_ylim()
    limit_y(ax, low, high + 0.16 * (high - low))


@typed
def weight_norms(
    lam: Numbers,
    values: Mapping[str, Any],
    *,
    ax: Axes | None = None,
    label: str = "λ",
    ylabel: str = "weight norms",
    line_at: float | None = 1.0,
) -> Axes:
    """Norms of the weights against λ: the mean over seeds and a band of ± 1 SE.

    Take them from `rr.diagnostics.spectra`, for example of `result.groups[0].params`, which has the axes
    of the sweep in front. The dotted line at 1 is where a linear recurrence (ρ) neither grows nor decays.

    Args:
      lam: `[n]` values of λ.
      values: by name (the label of the curve), `[n, S]` over seeds, or `[n]`. NaN (a diverged lane) is left
        out, and the label says how many were.
      ax: where to draw.
      label: of the λ axis.
      ylabel: of the other.
      line_at: where to draw the dotted line; None draws none.

    Returns:
      The axes.

    Raises:
      ValueError: a curve whose first axis is not that of λ.

    >>> import matplotlib
    >>> ax = weight_norms([0, 1e-3, 1e-1], {"ρ(W_hh)": [[1.2, 1.3], [0.9, 0.8], [0.1, 0.2]]})
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['ρ(W_hh)']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    lam = np.asarray(lam, dtype=np.float64)
    named = curves_by_name(values, "values")
    arrays = {name: np.asarray(array, dtype=np.float64) for name, array in named.items()}
    for name, array in arrays.items():
        if array.ndim not in (1, 2) or len(array) != len(lam):
            raise ValueError(
                f"values[{name!r}] must have shape [{len(lam)}] or [{len(lam)}, S], one row per λ; got {array.shape}."
            )
    with canvas(ax) as ax:
        positions = lambda_axis(ax, lam, label=label)
        for place, (name, array) in enumerate(arrays.items()):
            mean, se, name = over_seeds(array, name)
            x, mean, se = with_gap(lam, positions, mean, se)
            color = nth_color(place)
            look: dict[str, Any] = {"marker": nth_marker(place), "markersize": 3.5, "zorder": 3}
            ax.plot(x, mean, color=color, label=name, **look)
            ax.fill_between(x, mean - se, mean + se, color=color, alpha=0.22, linewidth=0)
            at = np.isnan(np.append(x, np.nan)[1:]) & ~np.isnan(x)  # a band has no width at λ = 0
            ax.errorbar(x[at], mean[at], se[at], fmt="none", ecolor=color, elinewidth=0.9)
        if line_at is not None:
            ax.axhline(line_at, color="0.5", linewidth=0.9, linestyle=":", zorder=1)
        ax.set_ylabel(with_error(ylabel, *arrays.values()))
        ax.set_ylim(bottom=0)
        legend_above(ax)
    return ax


def with_error(label: str, *arrays: np.ndarray) -> str:
    """The label of an axis; if curves are means over several seeds, it says what the bands are."""
    return f"{label} (mean ± 1 SE)" if any(array[0].size > 1 for array in arrays) else label


def over_seeds(array: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Mean and standard error `[n]` over the finite entries of `[n, …]`; the name says how many were not."""
    array = array.reshape(len(array), -1)
    finite = np.isfinite(array)
    count = finite.sum(axis=1)
    safe = np.maximum(count, 1)
    mean = np.where(finite, array, 0).sum(axis=1) / safe
    squares = np.where(finite, np.square(array - mean[:, None]), 0).sum(axis=1)
    se = np.sqrt(squares / np.maximum(count - 1, 1) / safe)
    if not finite.all():
        name = f"{name} ({(~finite).sum()} of {array.size} diverged, left out)"
    return np.where(count > 0, mean, np.nan), np.where(count > 0, se, np.nan), name


@typed
def history(
    result: SweepResult,
    *,
    name: str = "train_loss",
    axis: str | None = None,
    at: Mapping[str, Any] | None = None,
    chosen: float | None = None,
    ylabel: str | None = None,
    legend: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Learning curves, one per λ: a recorded number against epochs, averaged over seeds and folds.

    A curve ends where the first of its lanes diverged; nothing is averaged over the rest.

    Args:
      result: the sweep.
      name: what was recorded: "train_loss", "val_loss", "gradient_norm", ….
      axis: the dimension of λ; None takes the only one that is the λ of a penalty, or else the only one of numbers.
      at: labels of other dimensions, such as `{"fold": "all"}` or `{"learning_rate": 1e-2}`; needed for each
        axis of the sweep with more than one value. Without a fold the mean is over all but "all".
      chosen: the λ to draw thick and to name.
      ylabel: of the axis; by default the name.
      legend: whether the legend names every λ (True) or a colour bar shows them (False; it needs two λ > 0). None
        names up to six.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: no sweep, nothing was recorded under that name, or a dimension is left open.

    >>> import matplotlib, jax, optax, rnnreg as rr
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
    if variable not in one(result, SweepResult).metrics:
        recorded = names_after("history_", result)
        raise ValueError(f"nothing was recorded as {name!r}; the result has {recorded}.")
    recorded = history_by_lambda(result, variable, axis=axis, at=at, along=("epoch",))
    values, epochs = recorded.values, recorded["epoch"].values
    if chosen is not None and not np.isclose(recorded[recorded.dims[0]], chosen, rtol=1e-6).any():
        known = recorded[recorded.dims[0]].values.tolist()
        raise ValueError(f"chosen must be one of the λ {known}; got {chosen!r}.")
    with canvas(ax) as ax:
        if (values[np.isfinite(values)] > 0).all():
            log_y(ax)
        curves = [(epochs, curve) for curve in values]
        draw_by_lambda(ax, recorded[recorded.dims[0]].values, curves, chosen=chosen, legend=legend)
        whole_steps(ax)
        ax.set_xlabel("epoch")
        ax.set_ylabel(ylabel or in_words(name))
        legend_above(ax)
    return ax
