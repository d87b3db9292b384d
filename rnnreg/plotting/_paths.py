"""Numbers along the λ path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg.plotting._lambda_axis import lambda_axis, with_gap
from rnnreg.plotting._style import COLORS, METRICS, canvas, legend_above, number
from rnnreg.selection import Choice
from rnnreg.sweeps import SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def cv_curve(
    result: SweepResult | None,
    choice: Choice,
    *,
    ax: Axes | None = None,
    scale: float = 1.0,
    ylabel: str | None = None,
    show_folds: bool = True,
) -> Axes:
    """The cross-validation mean ± 1 SE against λ, with λ_min, λ_1se and the paired λ_1se as vertical lines.

    In the manner of glmnet's `plot.cv.glmnet`. The grey curves are the single folds: where they move up
    and down together, the bars overstate the doubt about λ, and the paired rule is the one to look at. Rules
    that agree share a line.

    Args:
      result: the sweep, for the number of its seeds; None where it is not at hand.
      choice: from `rr.selection.choose`.
      ax: where to draw.
      scale: multiplies all scores, such as variance of the series / 1535 for ARV.
      ylabel: of the axis; by default the name of the metric.
      show_folds: draw the single folds too. The axis always holds the mean and its bars in full; a fold
        that is further away than half their range leaves the picture.

    Returns:
      The axes.

    Source: Friedman, Hastie & Tibshirani 2010 (glmnet).

    >>> import matplotlib, jax, optax, rnnreg as rr
    >>> matplotlib.use("Agg")
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
    curve = choice.curve
    num_folds = curve.folds.shape[1]
    name, sample = _labels(result, num_folds)
    show_folds = show_folds and num_folds > 1
    with canvas(ax) as ax:
        positions = lambda_axis(ax, curve.lam, label=f"λ ({choice.axis})")
        x, mean, se, folds = with_gap(
            curve.lam, positions, scale * curve.mean, scale * curve.se, scale * curve.folds
        )
        if show_folds:
            for fold in range(num_folds):
                ax.plot(
                    x,
                    folds[:, fold],
                    color="0.72",
                    linewidth=0.7,
                    marker=".",
                    markersize=2,
                    label="_fold" if fold else sample,
                    zorder=1,
                )
        bars = ax.errorbar(
            x,
            mean,
            yerr=se if num_folds > 1 else None,
            color=COLORS.blue,
            marker="o",
            markersize=3.5,
            linewidth=1.4,
            elinewidth=0.9,
            capsize=1.8,
            label=name if show_folds or not sample else f"{name} ({sample})",
            zorder=3,
        )
        place = dict(zip(curve.lam.tolist(), positions.tolist(), strict=True))
        for lam, (names, look) in _rules(choice).items():
            ax.axvline(place[lam], **look, label=f"{' = '.join(names)} = {number(lam)}")
        ax.set_ylabel(ylabel or METRICS.get(choice.metric, choice.metric))
        _limit(ax, mean, np.nan_to_num(se), folds if show_folds else None)
        legend_above(ax, first=[bars])
    return ax


def _labels(result: SweepResult | None, num_folds: int) -> tuple[str, str]:
    """What the mean is, and over what."""
    counts = {"fold": num_folds if num_folds > 1 else 0}
    counts["seed"] = 0 if result is None else len(result.config["seeds"])
    sample = ", ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in counts.items() if n)
    return "CV mean ± 1 SE" if num_folds > 1 else "validation set", sample


def _rules(choice: Choice) -> dict[float, tuple[list[str], dict[str, Any]]]:
    """By λ, the rules that chose it and the look of the first."""
    found: dict[float, tuple[list[str], dict[str, Any]]] = {}
    for lam, name, look in (
        (
            choice.lam_min,
            r"$\lambda_\mathrm{min}$",
            {"color": COLORS.vermillion, "linestyle": "--"},
        ),
        (choice.lam_1se, r"$\lambda_\mathrm{1se}$", {"color": COLORS.green, "linestyle": "--"}),
        (
            choice.lam_paired_1se,
            r"$\lambda_\mathrm{1se,paired}$",
            {"color": COLORS.purple, "linestyle": (0, (4, 2)), "linewidth": 0.9},
        ),
    ):
        found.setdefault(lam, ([], {"linewidth": 1.3, "zorder": 2, **look}))[0].append(name)
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
    ax.set_ylim(low - margin, high + margin)


def weight_norms(
    lam: Any,
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
    >>> matplotlib.use("Agg")
    >>> ax = weight_norms([0, 1e-3, 1e-1], {"ρ(W_hh)": [[1.2, 1.3], [0.9, 0.8], [0.1, 0.2]]})
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['ρ(W_hh)']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    lam = np.asarray(lam, dtype=np.float64)
    arrays = {name: np.asarray(array, dtype=np.float64) for name, array in values.items()}
    for name, array in arrays.items():
        if array.ndim not in (1, 2) or len(array) != len(lam):
            raise ValueError(
                f"values[{name!r}] must have shape [{len(lam)}] or [{len(lam)}, S], one row a λ; got {array.shape}."
            )
    with canvas(ax) as ax:
        positions = lambda_axis(ax, lam, label=label)
        for number_, (name, array) in enumerate(arrays.items()):
            mean, se, left_out = _over_seeds(array.reshape(len(lam), -1))
            x, mean, se = with_gap(lam, positions, mean, se)
            color = COLORS[number_ % len(COLORS)]
            if left_out:
                name = f"{name} ({left_out} of {array.size} diverged, left out)"
            marker = "osD^v<"[number_ % 6]
            ax.plot(x, mean, color=color, marker=marker, markersize=3.5, label=name, zorder=3)
            ax.fill_between(x, mean - se, mean + se, color=color, alpha=0.22, linewidth=0)
            alone = np.isnan(np.append(x, np.nan)[1:]) & ~np.isnan(
                x
            )  # a band has no width at λ = 0
            ax.errorbar(
                x[alone], mean[alone], yerr=se[alone], fmt="none", ecolor=color, elinewidth=0.9
            )
        if line_at is not None:
            ax.axhline(line_at, color="0.35", linewidth=0.9, linestyle=":", zorder=1)
        ax.set_ylabel(ylabel)
        ax.set_ylim(bottom=0)
        legend_above(ax)
    return ax


def _over_seeds(array: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and standard error `[n]` over the finite entries of `[n, S]`, and how many were not."""
    finite = np.isfinite(array)
    count = finite.sum(axis=1)
    safe = np.maximum(count, 1)
    mean = np.where(finite, array, 0).sum(axis=1) / safe
    squares = np.where(finite, np.square(array - mean[:, None]), 0).sum(axis=1)
    se = np.sqrt(squares / np.maximum(count - 1, 1) / safe)
    return np.where(count > 0, mean, np.nan), np.where(count > 0, se, np.nan), int((~finite).sum())
