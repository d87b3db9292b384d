"""A study of Optuna whose trials are lanes of sweeps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from rnnreg._checks import check_choice, check_count, described
from rnnreg._signatures import typed_with
from rnnreg.data import Batch, Split, as_split
from rnnreg.lanes import Plan
from rnnreg.selection._combinations import combinations
from rnnreg.selection._scores import agreed, check_combine, score_name
from rnnreg.selection._trials import (
    attributes_of,
    check_distributions,
    check_study,
    import_optuna,
    outcome_of,
)
from rnnreg.sweeps import dry_run, sweep, zipped
from rnnreg.training import Train

if TYPE_CHECKING:
    import optuna

_AXIS = "trial"
# Attributes of trials: that run_study asked for one, and the number of the stopped one whose values it has.
_ASKED, _DRIVER = "asked_by", "rnnreg.selection.run_study"
_INSTEAD = "instead_of"


@typed_with(study="optuna.create_study() makes one.")
def run_study(
    study: optuna.Study,
    train: Train,
    space: Mapping[str, Any],
    data: Split | Batch,
    *,
    num_trials: int,
    key: Array,
    batch: int = 16,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    metric: str = "val_loss",
    maximise: bool | None = None,
    combine: str = "mean",
    params: Any = None,
    plan: str | Plan = "auto",
    keep: str | Path | None = None,
    progress: bool = True,
) -> optuna.Study:
    """A study of Optuna that asks for several trials at once, which run as the lanes of one sweep.

    All trials have the same key, seeds and folds, so differences between them are paired. Every sweep has the same
    number of lanes (the last may repeat a trial), so the program is compiled once. A trial with a lane that diverged
    fails: no NaN is told.

    A sampler does not yet know the scores of the trials that it is asked for together. Give TPE its `constant_liar`,
    `optuna.samplers.TPESampler(constant_liar=True)`; Gaussian processes (which know running trials) and CMA-ES work as
    they are.

    A study in a file goes on after a kill: give the same call the study from the same storage. Trials that an earlier
    call has told count. Those that a stop left running, in this process or another, fail, and their values are asked
    for again, first of all, by trials with the attribute `instead_of`. So one process drives a study at a time. The
    sampler itself is not stored: what it draws after the stop is not what it would have drawn. With `keep` the lanes
    that were finished before a stop are not trained again.

    Args:
      study: with one objective and the direction of the metric, `optuna.create_study(direction="minimize")`.
      train: from `make_train`.
      space: what the run reads from `hyper`, by name: a distribution of Optuna, such as
        `optuna.distributions.FloatDistribution(1e-6, 1e-1, log=True)` (a categorical one must hold numbers), or a
        number, which is constant.
      data: the rows, as in `rr.sweep`.
      num_trials: how many trials of this function, of earlier calls too, the study shall have in the end.
      key: root of all randomness of the runs; the sampler has a seed of its own.
      batch: how many trials are asked for at once.
      seeds: of every trial, as in `rr.sweep`.
      folds: as in `rr.sweep`.
      metric: what is told, mean over seeds and folds as `choose` has it.
      maximise: whether more of it is better, as in `choose`.
      combine: how seeds are combined, as in `choose`.
      params: as in `rr.sweep`.
      plan: as in `rr.sweep`.
      keep: as in `rr.sweep`.
      progress: show a bar for each sweep that takes longer than a few seconds.

    Returns:
      The study, whose trials have the attributes `folds` (their scores), `se`, `seeds`, `diverged` and `unfinished`.

    Raises:
      ImportError: Optuna is missing.
      ValueError: bad arguments, before anything compiles; a study with several objectives or another direction.

    >>> import optuna, optax, rnnreg as rr
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=lambda hyper: optax.adam(hyper["learning_rate"]), num_epochs=20)
    >>> space = {"l2": optuna.distributions.FloatDistribution(1e-6, 1e-1, log=True),
    ...     "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)}
    >>> study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    >>> study = run_study(study, train, space, rr.Split(batch, target_times=times), num_trials=6, batch=3,
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> len(study.trials), sorted(study.best_params), study.best_value < 0.5
    (6, ['l2', 'learning_rate'], True)
    """
    import_optuna()
    check_count(num_trials, "num_trials")
    check_count(batch, "batch")
    check_combine(combine)
    distributions, constants = _read_space(space)
    _check_metric(metric, train, as_split(data), folds)
    score = train.settings.metrics.get(score_name(metric))
    check_study(study, metric, agreed(metric, getattr(score, "maximise", None), maximise))
    folds = list(folds) if isinstance(folds, Iterator) else folds
    options = {"key": key, "folds": folds, "params": params}
    options["seeds"] = list(seeds) if isinstance(seeds, Iterable) else seeds
    ends = {name: list(_ends(one)) for name, one in distributions.items()}
    dry_run(train, {_AXIS: zipped(**ends), **constants}, data, **options)  # says what is wrong
    _abandon(study)
    study.set_user_attr("constants", constants)
    left = num_trials - _told(study)
    width = math.ceil(left / math.ceil(left / batch)) if left > 0 else 0  # all batches of one size
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    options |= {"plan": plan, "keep": keep, "progress": progress}
    while left > 0:
        trials: list[Any] = []
        try:
            for _ in range(min(width, left)):
                trials.append(study.ask(distributions))
                trials[-1].set_user_attr(_ASKED, _DRIVER)
            lanes = trials + trials[-1:] * (width - len(trials))
            asked = {name: [trial.params[name] for trial in lanes] for name in distributions}
            # in the dtype of the run, in which two values of a sampler may be one
            lists = {name: np.asarray(values, dtype).tolist() for name, values in asked.items()}
            result = sweep(train, {_AXIS: zipped(**lists), **constants}, data, **options)
            found = combinations(result, metric=metric, maximise=maximise, combine=combine)
        except BaseException:
            _abandon(study)
            raise
        for row, trial in enumerate(trials):
            for name, value in attributes_of(found, row, result).items():
                trial.set_user_attr(name, value)
            study.tell(trial, **outcome_of(found, row, "values"))
        left -= len(trials)
    return study


def _told(study: optuna.Study) -> int:
    """How many trials `run_study` has told."""
    trials = study.get_trials(deepcopy=False)
    abandoned = {trial.user_attrs.get(_INSTEAD) for trial in trials}
    return sum(
        trial.user_attrs.get(_ASKED) == _DRIVER
        and trial.state.is_finished()
        and trial.number not in abandoned
        for trial in trials
    )


def _abandon(study: optuna.Study) -> None:
    """Fails the trials that a stop left running, and has their values asked for again."""
    import optuna

    states = optuna.trial.TrialState
    trials = study.get_trials(deepcopy=False)
    abandoned = {trial.user_attrs.get(_INSTEAD) for trial in trials}
    for trial in trials:
        if trial.state != states.RUNNING or trial.user_attrs.get(_ASKED) != _DRIVER:
            continue
        if trial.number not in abandoned:
            study.enqueue_trial(trial.params, user_attrs={_INSTEAD: trial.number})
        study.tell(trial.number, state=states.FAIL)


def _read_space(space: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """The distributions and the constants of a space.

    Raises:
      ValueError: something else, a category that is no number, or no distribution.
    """
    constants = {
        name: float(one)
        for name, one in space.items()
        if isinstance(one, Real) and not isinstance(one, bool)
    }
    distributions = {name: one for name, one in space.items() if name not in constants}
    check_distributions(distributions, or_number=" or a number, which is constant")
    for name, one in distributions.items():
        wrong = [c for c in getattr(one, "choices", ()) if not isinstance(c, Real)]
        if wrong:
            raise ValueError(
                f"space[{name!r}] has the category {wrong[0]!r}, and lanes of one program differ in numbers alone: run "
                "a study for each, or number them where the run reads them."
            )
    if not distributions:
        raise ValueError(
            f"space has no distribution to search in; got {described(space)}. Such as {{'l2': "
            "optuna.distributions.FloatDistribution(1e-6, 1e-1, log=True)}."
        )
    return distributions, constants


def _ends(distribution: Any) -> tuple[float, float]:
    """The least and the largest number of a distribution."""
    choices = getattr(distribution, "choices", None)
    if choices is None:
        return distribution.low, distribution.high
    return min(choices), max(choices)


def _check_metric(metric: str, train: Train, data: Split, folds: Any) -> None:
    """Raises if the sweeps would have no such score."""
    known = [f"val_{name}" for name in ("loss", *train.settings.metrics)]
    known += [name.replace("val_", "train_", 1) for name in known]
    check_choice(metric, "metric", known)
    if metric.startswith("val_") and folds is None and data.validation is None:
        raise ValueError(
            f"metric={metric!r} needs validation rows: give folds=..., such as rr.selection.blocked_folds(5), or data "
            "with a validation set."
        )
