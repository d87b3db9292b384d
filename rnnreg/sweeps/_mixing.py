"""Networks that mix the rows of a batch, next to the rows that fill up a fold."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from rnnreg.networks import Stack, mixing_part
from rnnreg.runtime import Kept
from rnnreg.sweeps._folds import Folds
from rnnreg.training import Train

_MIXING = Kept()


def check_rows_apart(
    train: Train, hyper: dict[str, Any], shared: dict[str, Any], folds: Folds | None
) -> None:
    """Raises if the network mixes the rows of a batch, and folds are filled up with rows that it would mix in.

    Args:
      train: the run.
      hyper: the numbers of one lane.
      shared: what all lanes share.
      folds: the folds; None without any, and so without rows that fill up.

    Raises:
      ValueError: rows of weight 0 would enter updates or scores.
    """
    if folds is None:
        return
    scored = [number for number, label in enumerate(folds.labels) if label != "all"]
    filled = (folds.rows.train_weights == 0).any()
    # minibatches never draw rows of weight 0
    updated = bool(filled and train.settings.batch_size is None)
    scores = bool(filled or (folds.rows.validation_weights[scored] == 0).any())
    if not scores:
        return
    in_training, in_scoring = _MIXING.get(train, "rows", lambda: _mixing(train, hyper, shared))
    who = (in_training if updated else None) or in_scoring
    if who is None:
        return
    weights = folds.rows.train_weights, folds.rows.validation_weights
    sizes = [np.sum(each, axis=1).astype(int).tolist() for each in weights]
    raise ValueError(
        f"{who} mixes the rows of a batch, as statistics over the batch do, and the folds have {sizes[0]} training and "
        f"{sizes[1]} validation rows: shorter ones are filled up with rows of weight 0, which would enter the "
        "statistics. Give folds of one size, and no refit=True (rr.selection.refit does it afterwards)"
        + (", or a batch_size" if in_scoring is None else "")
        + "; or normalise over features."
    )


def _mixing(train: Train, hyper: dict[str, Any], shared: dict[str, Any]) -> tuple[Any, Any]:
    """What mixes rows in training, and in scoring."""
    net, xs, key = train.network(hyper), shared["data"].train.xs, jax.random.key(0)
    params = shared["params"]
    if params is None:
        size = xs.shape[-1] if xs.ndim == 3 else None
        params = net.init(key, size)
    in_scoring = mixing_part(net, params, xs)
    if isinstance(net.apply, Stack):  # its cells do the same in both
        return in_scoring, in_scoring
    return mixing_part(net, params, xs, train=True, key=key), in_scoring
