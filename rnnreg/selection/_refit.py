"""The chosen run on all the training rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from rnnreg._checks import described
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split, as_split, row_weights
from rnnreg.networks import Network, describe
from rnnreg.selection._choice import Choice
from rnnreg.selection._finished import finished_part
from rnnreg.sweeps import SweepResult, sweep
from rnnreg.training import Settings, Train

Params = dict[str, Any]


@typed
def refit(
    train: Train | Callable[[Mapping[str, Any]], Train],
    result: SweepResult,
    choice: Choice,
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    params: Params | Callable[[Mapping[str, Any]], Params] | None = None,
    rescale: bool = False,
    keep: str | Path | None = None,
    progress: bool = True,
) -> SweepResult:
    """The chosen run on all the training rows, one lane for each seed.

    If the sweep has finished the lanes "all" (`refit=True`) and nothing has to change, those lanes are taken;
    otherwise they are trained. With the same key, and all rows at once, both are the same. A run with `keep_best` or
    `patience` has nothing to stop on here: it is trained for the number of epochs that had the best monitored score,
    mean over the folds and seeds of the chosen runs (`config["chosen"]["num_epochs"]`), the same for all.
    Without folds the runs are trained as the sweep trained them, and a validation set is still no training data.

    Args:
      train: what the sweep was given.
      result: the sweep.
      choice: from `choose`.
      data: what the sweep was given.
      key: what the sweep was given.
      params: what the sweep was given.
      rescale: multiply λ by n_fold / n_full: with a mean loss the best λ falls like 1/n, and the folds
        trained on fewer rows.
      keep: a folder for finished lanes, as in `rr.sweep`, and another one than that of the sweep.
      progress: show a bar on anything longer than a few seconds.

    Returns:
      A `SweepResult` with the dimension `seed` alone.

    Raises:
      ValueError: `params` are missing, `train` has another network than the sweep had, or the chosen runs have no
        finite validation loss.

    >>> import rnnreg as rr, jax, optax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> split = rr.Split(batch, target_times=times)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = rr.sweep(train, {"l2": [1e-3, 1e-1]}, split, refit=True,
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> refit(train, result, rr.selection.choose(result), split, key=jax.random.key(0)).dims
    ('seed',)
    """
    _check_order(train, result, choice)
    values = dict(choice.values)
    num_epochs = values.pop("num_epochs", None)
    static_names = list(result.groups[0].static)
    static = {name: values.pop(name) for name in static_names}
    data = as_split(data(static) if callable(data) else data)
    folds = result.config["folds"]
    if folds and "all" in folds and not rescale and num_epochs is None:
        final = result.select(**choice.labels, fold="all")
        if final.metrics["finished"].all():
            return _noted(final, choice.values)
    if rescale and folds:
        sizes = result.metrics["fold_train_size"]
        share = float(sizes.sel(static).sel(fold=[f for f in folds if f != "all"]).mean())
        rows = float(np.sum(row_weights(data.train)))
        for name in _lambda_names(result, choice):
            values[name] = values[name] * share / rows
    job = [group.static for group in result.groups].index(static)
    if folds:  # as many updates an epoch as the folds made
        data = data.replace(epoch_rows=result.config["epoch_rows"][job])
    made = train if isinstance(train, Train) else train(static)
    _check_same_network(made.settings.net, result.config.get("network", ())[job : job + 1])
    if params is None and any(result.config["start"]):
        raise ValueError(
            "the sweep started from given parameters, and so must the refit: give refit(..., params=...)."
        )
    if folds and (made.settings.keep_best or made.settings.patience is not None):
        num_epochs = (
            _common_epochs(result, choice, made.settings) if num_epochs is None else num_epochs
        )
        made = made.with_epochs(int(num_epochs), early_stopping=False)
    elif num_epochs is not None:
        made = made.with_epochs(int(num_epochs))
    final = sweep(
        made,
        values,
        data,
        key=key,
        seeds=result.config["seeds"],
        params=params(static) if callable(params) else params,
        keep=keep,
        progress=progress,
    )
    epochs = {} if num_epochs is None else {"num_epochs": int(num_epochs)}
    return _noted(final, choice.values | epochs)


def _check_order(train: Any, result: Any, choice: Any) -> None:
    expected = {
        "train": (train, callable(train), "what the sweep was given"),
        "result": (result, isinstance(result, SweepResult), "the SweepResult of the sweep"),
        "choice": (choice, isinstance(choice, Choice), "that of rr.selection.choose(result)"),
    }
    for name, (given, fits, what) in expected.items():
        if not fits:
            raise ValueError(
                f"{name} must be {what}; got {described(given)}. The order is refit(train, result, choice, data)."
            )


def _check_same_network(net: Any, swept: Sequence[Mapping[str, Any]]) -> None:
    """Raises if the network is not made as that of the sweep; one that depends on `hyper` is not looked at."""
    for name in ("layers", "output_size", "readout") if isinstance(net, Network) and swept else ():
        own, other = (
            json.dumps(made.get(name), sort_keys=True) for made in (describe(net), *swept)
        )
        if own != other:
            raise ValueError(
                f"train is not what the sweep was given: its network has {name} {own}, and that of the sweep {other}."
            )


def _noted(final: SweepResult, values: dict[str, Any]) -> SweepResult:
    return dataclasses.replace(final, config=final.config | {"chosen": values})


def _common_epochs(result: SweepResult, choice: Choice, settings: Settings) -> int:
    """The epoch with the best monitored score, mean over seeds and (weighted) folds, of the chosen runs."""
    at = {dim: [label] for dim, label in choice.labels.items()}
    chosen = result.metrics.sel(at).squeeze(list(at), drop=True)
    chosen = chosen.sel(finished_part(result.select(**choice.labels))[0])
    scores = chosen[f"history_val_{settings.monitor}"].mean("seed", skipna=False)
    mean = scores.weighted(chosen["fold_size"]).mean("fold", skipna=False)
    if not np.isfinite(mean.values).any():
        raise ValueError(
            f"the chosen runs have no epoch with a finite val_{settings.monitor} in every fold."
        )
    best = np.nanargmax if settings.maximise else np.nanargmin
    return int(mean["epoch"].values[best(mean.values)])


def _lambda_names(result: SweepResult, choice: Choice) -> list[str]:
    penalties = {name for group in result.config["penalties"] for name in group}
    return sorted(penalties & set(choice.values))
