"""The folds of a sweep: stacked rows, labels and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rnnreg._checks import check_called
from rnnreg.data import Fold, Split, row_weights, stack_folds


class Folds(NamedTuple):
    """The folds that every combination of a sweep runs on.

    Attributes:
      rows: the folds with a leading axis F.
      labels: F names, "0" … and, with a refit, "all".
      sizes: `[F]`, the sum of the weights of each fold's validation rows.
      train_sizes: `[F]`, the same of its training rows.
    """

    rows: Fold
    labels: list[str]
    sizes: np.ndarray
    train_sizes: np.ndarray


def make_folds(given: Any, data: Split, *, refit: bool) -> Folds | None:
    """The folds of what was given to `sweep(folds=…)`; None without any.

    Raises:
      ValueError: something else than folds, or a fold in which no row counts.
    """
    if given is None:
        return None
    rows, labels = stack_folds(pairs_of(given, data), data, include_all=refit)
    weights = np.asarray(row_weights(jax.tree.map(np.asarray, data.train)), np.float64)
    sizes = (rows.validation_weights * weights[rows.validation_rows]).sum(axis=1)
    train_sizes = (rows.train_weights * weights[rows.train_rows]).sum(axis=1)
    for verb, values in (("validate", sizes), ("train", train_sizes)):
        for label, size in zip(labels, values, strict=True):
            if size == 0 and not (label == "all" and verb == "validate"):
                raise ValueError(
                    f"fold {label} leaves nothing to {verb} on: all its rows are masked or have weight 0."
                )
    return Folds(rows, labels, sizes, train_sizes)


def rows_of(folds: Folds, number: int) -> dict[str, np.ndarray]:
    """The row numbers of one fold's sides, without what fills them up."""
    rows = folds.rows
    return {
        "train": rows.train_rows[number][rows.train_weights[number] > 0],
        "validation": rows.validation_rows[number][rows.validation_weights[number] > 0],
    }


def check_batch_size(batch_size: int | None, folds: Folds | None) -> None:
    """Raises if a minibatch needs more rows than the smallest fold trains on."""
    if folds is None or batch_size is None:
        return
    smallest = int(folds.rows.train_weights.sum(axis=1).min())
    if batch_size > smallest:
        raise ValueError(
            f"batch_size={batch_size} is larger than the {smallest} training rows of the smallest "
            "fold; use a smaller one, or batch_size=None."
        )


def pairs_of(given: Any, data: Split) -> Any:
    """(training rows, validation rows) of a splitter, of a function of the split, or as they are."""
    splitter = getattr(given, "split", None)
    if splitter is not None:
        ys = np.asarray(data.train.ys)
        try:
            return list(splitter(np.zeros((len(ys), 1)), ys if ys.ndim == 1 else None))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{type(given).__name__} cannot split these rows ({error}). A stratified splitter needs class "
                "targets ys [N]; one that looks at groups needs them: "
                f"folds=rr.selection.grouped({type(given).__name__}(…), groups), groups [N] by training row."
            ) from error
    if callable(given):
        check_called(given, "folds", 1)
        return given(data)
    if isinstance(given, Iterable) and not isinstance(given, Mapping):
        return given
    raise ValueError(
        f"folds must be a splitter, a function of the split, or pairs of rows; got {given!r}. For blocks of "
        f"time: rr.selection.blocked_folds({given!r})."
    )
