"""Networks that mix the rows of a batch, next to rows that count for nothing and devices that share them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from rnnreg.data import Split, per_row
from rnnreg.lanes import Plan
from rnnreg.networks import Stack, mixing_part, trains_apart
from rnnreg.runtime import Kept
from rnnreg.sweeps._folds import Folds
from rnnreg.training import Train

_MIXING = Kept()


def check_rows_apart(
    train: Train, hyper: dict[str, Any], shared: dict[str, Any], folds: Folds | None, plan: Plan
) -> None:
    """Raises if the network mixes the rows of a batch, where that would change what a run computes without a word.

    Args:
      train: the run.
      hyper: the numbers of one lane.
      shared: what all lanes share.
      folds: the folds; None without any.
      plan: how lanes run.

    Raises:
      ValueError: rows of weight 0 would enter updates or scores, or rows are dealt to several devices.
    """
    idle_train, idle_scored, where = _idle_rows(shared["data"], folds)
    # minibatches never draw rows of weight 0
    updated = idle_train and train.settings.batch_size is None
    split = plan.name == "split_rows"
    if not (idle_train or idle_scored or split):
        return
    in_training, in_scoring, together = _MIXING.get(
        train, "rows", lambda: _mixing(train, hyper, shared)
    )
    if split and together:
        raise ValueError(
            f"{together} mixes the rows of a batch, as statistics over the batch do, and plan='split_rows' deals "
            "them to devices, each of which would have statistics of its own. Use plan='one_by_one'."
        )
    who = (in_training if updated else None) or (in_scoring if idle_train or idle_scored else None)
    if who is None:
        return
    cure = "Leave these rows out"
    if folds is not None:
        cure = "Give folds of one size, and no refit=True (rr.selection.refit does it afterwards)"
    raise ValueError(
        f"{who} mixes the rows of a batch, as statistics over the batch do, and {where} of weight 0, which would enter "
        f"the statistics. {cure}{', or a batch_size' if in_scoring is None else ''}; or normalise over features."
    )


def _idle_rows(data: Split, folds: Folds | None) -> tuple[bool, bool, str]:
    """Whether rows of weight 0 are there to train on, or to be scored, and where they come from, in words."""
    given = [None if batch is None else batch.weights for batch in (data.train, data.validation)]
    where = "the data have rows"
    if folds is not None:
        scored = [number for number, label in enumerate(folds.labels) if label != "all"]
        filled = [folds.rows.train_weights, folds.rows.validation_weights[scored]]
        if any((each == 0).any() for each in filled):
            sizes = [
                np.sum(each, axis=1).astype(int).tolist()
                for each in (folds.rows.train_weights, folds.rows.validation_weights)
            ]
            given = [each.reshape(-1) for each in filled]
            where = (
                f"the folds have {sizes[0]} training and {sizes[1]} validation rows: short ones are filled up "
                "with rows"
            )
    train, scored = (each is not None and bool((per_row(each) == 0).any()) for each in given)
    return train, train or scored, where


def _mixing(train: Train, hyper: dict[str, Any], shared: dict[str, Any]) -> tuple[Any, Any, Any]:
    """What mixes rows in training whatever they weigh, what does in scoring, and what mixes any rows in training."""
    net, xs, key = train.network(hyper), shared["data"].train.xs, jax.random.key(0)
    params = shared["params"]
    if params is None:
        size = xs.shape[-1] if xs.ndim == 3 else None
        params = net.init(key, size)
    in_scoring = mixing_part(net, params, xs)
    if isinstance(
        net.apply, Stack
    ):  # what its cells do in training alone goes by the weights of rows
        return in_scoring, in_scoring, "batch_norm" if trains_apart(net) else in_scoring
    in_training = mixing_part(net, params, xs, train=True, key=key)
    return in_training, in_scoring, in_training
