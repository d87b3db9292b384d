"""Nested cross-validation: what the whole procedure, choosing λ included, errs by on rows that it never saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from rnnreg._checks import check_choice, printable
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split, as_pairs, as_split, check_batch, take_rows
from rnnreg.selection._choice import RULES, Choice, choose
from rnnreg.selection._curve import one_standard_error
from rnnreg.selection._folds import Grouped
from rnnreg.selection._scores import check_asked, check_combine
from rnnreg.sweeps import SweepResult, pairs_of, sweep
from rnnreg.training import Train


@dataclasses.dataclass(frozen=True, repr=False)
class Nested:
    """The error of a procedure that chooses λ by cross-validation, from nested cross-validation.

    Attributes:
      axis: the axis of λ.
      metric: the score.
      rule: by which λ was chosen inside.
      lam: `[K]`, what the inner folds of each outer fold chose.
      scores: `[K]`, of those λ on the outer validation rows, which had no part in the choice.
      fold_sizes: `[K]`, what each outer fold weighs.
      mean: of the scores, weighted.
      se: its standard error over the outer folds, as glmnet's cvsd.
      optimistic: the best mean over the outer folds of any point of the grid, chosen on the very rows that it is scored
        on: what plain cross-validation would report.
      choices: the choice inside each outer fold, with its curve.
      result: the sweep of all folds: "0" … "K−1" are the outer ones, and the inner ones follow.
      inner: by outer fold, the labels of its inner folds.
      folds: (training rows, validation rows) of each of these, as `rr.verify(found.result, …, folds=…)` takes them.
    """

    axis: str
    metric: str
    rule: str
    lam: np.ndarray
    scores: np.ndarray
    fold_sizes: np.ndarray
    mean: float
    se: float
    optimistic: float
    choices: tuple[Choice, ...]
    result: SweepResult
    inner: tuple[tuple[str, ...], ...]
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]

    def __repr__(self) -> str:
        rows = [
            f"  outer fold {number}: {self.axis} = {lam:.4g}, {self.metric} = {score:.4g}"
            for number, (lam, score) in enumerate(zip(self.lam, self.scores, strict=True))
        ]
        head = (
            f"Nested: {self.metric} = {self.mean:.4g} ± {self.se:.2g} (SE over {len(self.lam)} outer folds), "
            f"{self.axis} by {self.rule!r} of inner folds; {self.optimistic:.4g} if chosen on the same rows"
        )
        failed = max(choice.failed for choice in self.choices)
        said = [f"  {failed} lanes have no finite score"] if failed else []
        return printable("\n".join([head, *rows, *said]).replace("±", "+-"))


@typed
def nested(
    train: Train,
    grid: Mapping[str, Any],
    data: Split | Batch,
    *,
    outer: Any,
    inner: Any,
    key: Array,
    seeds: int | Iterable[int] = 1,
    metric: str = "val_loss",
    maximise: bool | None = None,
    axis: str | None = None,
    combine: str = "mean",
    rule: str = "min",
    keep: str | Path | None = None,
    progress: bool = True,
) -> Nested:
    """An honest error of the whole procedure "choose λ by cross-validation, then train": nested cross-validation.

    For each outer fold, λ (and every other axis) is chosen by inner folds of its training rows alone; the run with
    those values on all its training rows is then scored on its validation rows, which nothing was chosen by. The mean
    of these scores is unbiased for the mean error of the procedure at that number of training rows. The least mean of
    a plain cross-validation is not: it is the best of many on the rows that chose it (`optimistic`).

    Inner and outer folds are folds of one sweep, so everything is one program: seeds × grid × (K + Σ inner folds)
    lanes. In minibatches every fold makes as many updates an epoch as the longest outer one, so the numbers of updates
    inside and outside are the same. A standardised split is scaled on the training rows of each fold, inner ones too.

    Args:
      train: from `make_train`.
      grid: as in `rr.sweep`.
      data: the rows, without a validation set.
      outer: K outer folds, as `folds` of `rr.sweep`: a splitter, a function of the split, or pairs of rows.
      inner: folds of the training rows of one outer fold: a splitter, `blocked_folds(…)`, `grouped(…)`, or a function
        of the split of those rows.
      key: root of all randomness.
      seeds: how many, or which.
      metric: a variable of `result.metrics`, by which λ is chosen and the procedure scored.
      maximise: whether more of it is better; needed if the metric does not state it.
      axis: the dimension of λ; None as in `choose`.
      combine: how seeds are combined, "mean" or "ensemble".
      rule: by which λ is chosen, "min", "1se" or "paired_1se".
      keep: a folder for finished lanes, as in `rr.sweep`.
      progress: show a bar on anything longer than a few seconds.

    Returns:
      λ and score by outer fold, their mean and standard error, and the optimistic minimum.

    Raises:
      ValueError: bad arguments, before anything compiles; pairs of rows as inner folds, which could not fit every outer
        fold; no finite score in the inner folds of an outer one.

    Source: Varma & Simon 2006; Cawley & Talbot 2010.

    >>> import rnnreg as rr, jax, optax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> found = nested(train, {"l2": [1e-3, 1e-1]}, rr.Split(batch, target_times=times), key=jax.random.key(0),
    ...     outer=rr.selection.blocked_folds(3), inner=rr.selection.blocked_folds(2), progress=False)
    >>> found.lam.tolist(), found.mean >= found.optimistic, found.result.config["lanes"]
    ([0.001, 0.001, 0.001], True, 18)
    """
    check_choice(rule, "rule", RULES)
    check_combine(combine)
    check_asked(train, metric, grid, axis=axis)
    split = as_split(data)
    check_batch(split.train, name="data.train")
    pairs, numbers = _all_pairs(split, outer, inner)
    result = sweep(
        train, grid, split, key=key, seeds=seeds, folds=pairs, keep=keep, progress=progress
    )
    outside = [str(number) for number in range(len(numbers))]
    inside = tuple(tuple(map(str, each)) for each in numbers)
    options: dict[str, Any] = {"metric": metric, "maximise": maximise, "axis": axis}
    options |= {"combine": combine, "rule": rule}
    choices = tuple(choose(_of_folds(result, labels), **options) for labels in inside)
    name = f"ensemble_{metric}" if combine == "ensemble" else metric
    scores = result.metrics[name]
    scores = scores.mean("seed", skipna=False) if "seed" in scores.dims else scores
    found = [
        float(scores.sel(choice.labels).sel(fold=fold))
        for choice, fold in zip(choices, outside, strict=True)
    ]
    sizes = result.metrics["fold_size"].sel(fold=outside).values
    curve, *_ = one_standard_error(np.array([found]), sizes, [0.0])
    options["rule"] = "min"
    plain = choose(_of_folds(result, outside), **options).curve.mean
    first = choices[0]
    return Nested(
        axis=first.axis,
        metric=metric,
        rule=rule,
        lam=np.array([choice.lam for choice in choices]),
        scores=np.array(found),
        fold_sizes=sizes,
        mean=float(curve.mean[0]),
        se=float(curve.se[0]),
        optimistic=float(np.nanmax(plain) if first.maximise else np.nanmin(plain)),
        choices=choices,
        result=result,
        inner=inside,
        folds=tuple(pairs),
    )


def _all_pairs(
    split: Split, outer: Any, inner: Any
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[range]]:
    """The outer folds, then the inner ones of each, by numbers of all rows; and which are the inner ones of each."""
    if not (callable(inner) or callable(getattr(inner, "split", None))):
        raise ValueError(
            "inner must be a splitter or a function of the split, since each outer fold has training rows of its own; "
            "got pairs of rows or something else. For blocks of time: rr.selection.blocked_folds(5)."
        )
    num_rows = len(split.train.ys)
    outside = as_pairs(pairs_of(outer, split), num_rows)
    pairs, numbers = list(outside), []
    for number, (rows, _) in enumerate(outside):
        own: Any = inner.take(rows) if isinstance(inner, Grouped) else inner
        times = split.target_times
        part = split.replace(
            train=take_rows(split.train, rows),
            target_times=None if times is None else np.asarray(times)[rows],
        )
        try:
            inside = as_pairs(pairs_of(own, part), len(rows))
        except ValueError as error:
            raise ValueError(f"inner folds of outer fold {number}: {error}") from error
        numbers.append(range(len(pairs), len(pairs) + len(inside)))
        pairs += [(rows[train], rows[validation]) for train, validation in inside]
    return pairs, numbers


def _of_folds(result: SweepResult, labels: Iterable[str]) -> SweepResult:
    """The scores of some of the folds, to choose from."""
    labels = list(labels)
    metrics = result.metrics.sel(fold=labels)
    return dataclasses.replace(result, metrics=metrics, config=result.config | {"folds": labels})
