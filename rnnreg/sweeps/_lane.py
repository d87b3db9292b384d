"""One lane of a sweep, as programs run it."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from rnnreg.data import Fold, Split, take_fold
from rnnreg.sweeps._carry import stored, usable
from rnnreg.training import Progress, Run, Train, go_on


def one_block(
    train: Train, lane: tuple[Any, Progress], shared: tuple[Any, Array, Array]
) -> Progress:
    """A lane after a block of epochs: its values and what it carries; what all share, epochs done before and after."""
    (values, progress), (of_all, first, last) = lane, shared
    hyper, data, key, params = given_of(values, of_all)
    before = usable(progress)
    after = go_on(train.settings, before, hyper, data, first, last, key=key, params=params)
    return stored(after)


def one_lane(train: Train, lane: dict[str, Any], shared: dict[str, Any]) -> Run:
    """The whole run of a lane: what its blocks come to."""
    hyper, data, key, params = given_of(lane, shared)
    return train(hyper, data, key=key, params=params)


def given_of(lane: dict[str, Any], shared: dict[str, Any]) -> tuple[Any, Split, Array, Any]:
    """What a lane is given: its hyperparameters, its fold of the data, its key, the parameters to start from."""
    folds: Fold | None = shared["folds"]
    fold = None if folds is None else jax.tree.map(lambda leaf: leaf[lane["fold"]], folds)
    key = jax.random.fold_in(shared["key"], lane["seed"])
    return lane["hyper"], take_fold(shared["data"], fold), key, shared["params"]
