"""What trials of Optuna hold of lanes, and the checks of studies and distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import described
from rnnreg.selection._combinations import Combinations
from rnnreg.sweeps import SweepResult

if TYPE_CHECKING:
    import optuna


def import_optuna() -> Any:
    """Optuna, or an error that says how to get it."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "Optuna is not installed, which this function needs: pip install 'rnnreg[optuna]'."
        ) from error
    return optuna


def attributes_of(found: Combinations, row: int, result: SweepResult) -> dict[str, Any]:
    """What is known of a trial besides its value, ready for JSON."""
    se = float(found.se[row])
    return {
        "folds": [float(score) if np.isfinite(score) else None for score in found.folds[row]],
        "se": se if math.isfinite(se) else None,
        "seeds": list(result.config["seeds"]),
        "diverged": int(found.diverged[row]),
        "unfinished": int(found.unfinished[row]),
    }


def outcome_of(found: Combinations, row: int, name: str) -> dict[str, Any]:
    """State and value of a trial; one without a finite score has failed."""
    import optuna

    mean = float(found.mean[row])
    if not math.isfinite(mean):
        return {"state": optuna.trial.TrialState.FAIL}
    return {"state": optuna.trial.TrialState.COMPLETE, name: mean}


def check_distributions(space: Mapping[str, Any], *, or_number: str = "") -> None:
    from optuna.distributions import BaseDistribution

    for name, one in space.items():
        if not isinstance(one, BaseDistribution):
            raise ValueError(
                f"space[{name!r}] must be a distribution of optuna.distributions{or_number}; got {described(one)}."
            )


def check_study(study: optuna.Study, metric: str, maximise: bool) -> None:
    if len(study.directions) != 1:
        raise ValueError(
            f"study must have one objective, the metric {metric!r}; got {len(study.directions)} directions."
        )
    wanted = "maximize" if maximise else "minimize"
    if study.direction.name.lower() != wanted:
        raise ValueError(
            f"study must have the direction {wanted!r}, since {'more' if maximise else 'less'} of {metric!r} is "
            f"better; got {study.direction.name.lower()!r}. Make it with optuna.create_study(direction={wanted!r})."
        )
