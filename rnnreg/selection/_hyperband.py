"""Hyperband: brackets of successive halving, from many trials that are cut early to a few that train to the end."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from rnnreg._checks import check_choice
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split
from rnnreg.lanes import Plan
from rnnreg.selection._rungs import Halving, at_records, check_schedule, num_cuts, rungs_down
from rnnreg.selection._search import Bracket, search
from rnnreg.selection._spaces import METHODS, check_space, sample
from rnnreg.sweeps import Stages
from rnnreg.training import Train


@typed
def hyperband(
    train: Train | Callable[[Mapping[str, Any]], Train],
    space: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    metric: str = "val_loss",
    maximise: bool | None = None,
    factor: int = 3,
    min_epochs: int | None = None,
    method: str = "random",
    params: Any = None,
    plan: str | Plan = "auto",
    width: int | None = None,
    chunk: int | None = None,
    max_memory: int | None = None,
    progress: bool = True,
) -> Halving:
    """Successive halving in brackets, over trials drawn from a space.

    Whether early scores tell how a trial will end is not known beforehand. So there are brackets s = S, …, 0, of about
    equal cost, which cut s times:

        n_s = ⌈(S + 1) / (s + 1) · η^s⌉ trials        first rung at num_epochs / η^s epochs

    with S the largest number for which that rung is at least `min_epochs`. The first bracket has many trials and drops
    most of them early, the last trains S + 1 trials to the end. They run one after another, as one sweep over the axis
    "trial"; how trials are compared, and what goes on, is said in `halving`.

    Args:
      train: as in `rr.sweep`.
      space: by hyperparameter, a distribution as in `sample`, or a number, which all trials have.
      data: as in `rr.sweep`; it needs folds or a validation set.
      key: as in `rr.sweep`; the trials are drawn by a key of their own that is made of it.
      seeds: as in `rr.sweep`.
      folds: as in `rr.sweep`.
      metric: as in `halving`.
      maximise: as in `halving`.
      factor: η; of so many trials one goes on.
      min_epochs: the least epochs of a trial; None takes num_epochs / η³, which makes four brackets.
      method: how trials are drawn, as in `sample`.
      params: as in `rr.sweep`.
      plan: as in `rr.sweep`.
      width: as in `rr.sweep`.
      chunk: as in `rr.sweep`.
      max_memory: as in `rr.sweep`.
      progress: show a bar on anything longer than a few seconds.

    Returns:
      A `Halving`, with the brackets numbered from 0; the choice is the best of all trials that ended.

    Raises:
      ValueError: bad arguments, as in `halving` and `sample`; after training, if no trial has a finite score.
      KeyboardInterrupt: Ctrl-C.
      SystemExit: SIGTERM.
      Exception: what a run raises, with a `partial_result` as in `halving`.

    Warns:
      RuntimeWarning: lanes diverged, and others as in `rr.sweep`.

    Source: Li, Jamieson, DeSalvo, Rostamizadeh & Talwalkar 2018.

    >>> import optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> split = rr.Split(batch, target_times=times)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=9)
    >>> found = hyperband(train, {"l2": rr.selection.LogUniform(1e-5, 1)}, split,
    ...     folds=rr.selection.blocked_folds(2), min_epochs=3, key=jax.random.key(0), progress=False)
    >>> [(rung.bracket, rung.num_epochs, rung.num_trials) for rung in found.rungs]
    [(0, 3, 3), (0, 9, 1), (1, 9, 2)]
    """
    check_choice(method, "method", METHODS)
    numbers = {name: each for name, each in space.items() if np.isscalar(each)}
    drawn = {name: each for name, each in space.items() if name not in numbers}
    check_space(drawn)
    if "trial" in space:
        raise ValueError("'trial' is the axis of the trials; give the hyperparameter another name.")
    if not isinstance(train, Train):
        raise ValueError("hyperband has no static axes: give it what rr.make_train returns.")
    settings = train.settings
    check_schedule(settings, min_epochs, factor)
    least = max(1, settings.num_epochs // factor**3) if min_epochs is None else min_epochs
    most_cuts = num_cuts(settings.num_epochs // least, factor)
    if not most_cuts:
        raise ValueError(
            f"hyperband needs num_epochs / min_epochs of at least factor={factor}, for a bracket that drops trials; "
            f"got {settings.num_epochs} / {least}."
        )
    sizes = [-(-(most_cuts + 1) * factor**cuts // (cuts + 1)) for cuts in range(most_cuts, -1, -1)]
    # a key of its own, which no seed has that anybody would take
    trials = sample(
        drawn, sum(sizes), key=jax.random.fold_in(key, zlib.crc32(b"trials")), method=method
    )
    stages = Stages(
        train,
        {"trial": trials, **numbers},
        data,
        key=key,
        seeds=seeds,
        folds=folds,
        static=None,
        params=params,
        plan=plan,
        width=width,
        chunk=chunk,
        max_memory=max_memory,
    )
    of_trial = np.repeat(np.arange(len(sizes)), sizes)
    brackets = [
        Bracket(
            of_trial == number,
            at_records(
                rungs_down(settings.num_epochs, most_cuts - number, factor), settings.record_every
            ),
        )
        for number in range(len(sizes))
    ]
    return search(
        stages, brackets, metric, maximise, factor=factor, method="hyperband", progress=progress
    )
