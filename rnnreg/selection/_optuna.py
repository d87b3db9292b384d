"""A sweep as a study of Optuna."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rnnreg._signatures import typed_with
from rnnreg.selection._combinations import Combinations, combinations
from rnnreg.selection._scores import check_combine
from rnnreg.selection._trials import (
    attributes_of,
    check_distributions,
    check_study,
    import_optuna,
    outcome_of,
)
from rnnreg.sweeps import SweepResult

if TYPE_CHECKING:
    import optuna


@typed_with(study="optuna.create_study() makes one.")
def to_optuna(
    result: SweepResult,
    *,
    metric: str = "val_loss",
    maximise: bool | None = None,
    combine: str = "mean",
    space: Mapping[str, Any] | None = None,
    study: optuna.Study | None = None,
) -> optuna.Study:
    """A sweep as a study of Optuna, with a trial for each combination of its axes.

    The value of a trial is the mean over seeds and folds, as `choose` has it. Its parameters are what takes several
    values in the sweep; constants are in `study.user_attrs["constants"]`. A combination with a lane that diverged or
    did not finish is a failed trial without a value, whose `user_attrs` count such lanes.

    Args:
      result: the sweep.
      metric: a variable of `result.metrics`.
      maximise: whether more of it is better, as in `choose`.
      combine: how seeds are combined, "mean" or "ensemble", as in `choose`. An ensemble has no intermediate values.
      space: by name, distributions of Optuna that the parameters get, such as those that `run_study` goes on with; a
        combination outside of them is left out. What is not named gets a float distribution over its range, in
        logarithms if it is positive and spans a factor of ten; a static value, or a text, a categorical one.
      study: the trials are added to it, in its storage; None makes one in memory.

    Returns:
      The study. Trials have the attributes `folds` (their scores), `se`, `seeds`, `diverged` and `unfinished`, and the
      recorded history as intermediate values, by epoch. All figures of `optuna.visualization` for one objective draw
      it.

    Raises:
      ImportError: Optuna is missing.
      ValueError: an unknown metric, one whose direction nobody stated, or a study with another direction.

    >>> import numpy as np, rnnreg as rr, jax, optax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = rr.sweep(train, {"l2": [1e-3, 1e-1]}, rr.Split(batch, target_times=times),
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> study = to_optuna(result)
    >>> study.best_params, len(study.trials[0].user_attrs["folds"])
    ({'l2': 0.001}, 3)
    """
    optuna = import_optuna()
    check_combine(combine)
    found = combinations(result, metric=metric, maximise=maximise, combine=combine)
    given = dict(space or {})
    check_distributions(given)
    direction = "maximize" if found.maximise else "minimize"
    filled: Any = optuna.create_study(direction=direction) if study is None else study
    check_study(filled, metric, found.maximise)
    first, swept = found.values[0], found.swept
    made = {
        name: given.get(name) or _distribution(name, [row[name] for row in found.values], result)
        for name in swept
    }
    constants = {name: value for name, value in first.items() if name not in swept}
    filled.set_user_attr("constants", constants)
    for row, values in enumerate(found.values):
        params = {name: values[name] for name in swept}
        if not all(_holds(made[name], value) for name, value in params.items()):
            continue
        trial = optuna.trial.create_trial(
            params=params,
            distributions=made,
            user_attrs=attributes_of(found, row, result),
            intermediate_values=_history(found, row),
            **outcome_of(found, row, "value"),
        )
        filled.add_trial(trial)
    return filled


def _history(found: Combinations, row: int) -> dict[int, float]:
    """The finite scores by epoch."""
    if found.history is None:
        return {}
    pairs = zip(found.epochs.tolist(), found.history[row].tolist(), strict=True)
    return {int(epoch): score for epoch, score in pairs if math.isfinite(score)}


def _distribution(name: str, values: list[Any], result: SweepResult) -> Any:
    """The distribution of the values that a sweep has."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if name in result.config["static"]:
        return CategoricalDistribution(list(dict.fromkeys(values)))
    low, high = min(values), max(values)
    return FloatDistribution(low, high, log=low > 0 and high >= 10 * low)


def _holds(distribution: Any, value: Any) -> bool:
    choices = getattr(distribution, "choices", None)
    if choices is None:
        return distribution.low <= value <= distribution.high
    return value in choices
