"""A search that drops trials: bracket by bracket, rung by rung, and the choice from those that are left."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnreg.selection._choice import Choice, cautions, values_at
from rnnreg.selection._curve import one_standard_error
from rnnreg.selection._rungs import (
    Halving,
    Rung,
    best_first,
    num_left,
    over_runs,
    score_at,
    trial_epochs,
)
from rnnreg.selection._scores import direction_of, scores_of, strength_of
from rnnreg.sweeps import Stages, SweepResult, warn_of_lanes

_DROPPED = (
    "trials were dropped before they ended, so there is no rule of one standard error: every λ is that of the best of "
    "those that ended."
)


class Bracket(NamedTuple):
    """Trials that are compared with each other.

    Attributes:
      trials: bool, in the shape of `Stages.shape`.
      rungs: after how many epochs they are compared; the last ends the runs.
    """

    trials: np.ndarray
    rungs: list[int]


def search(
    stages: Stages,
    brackets: Sequence[Bracket],
    metric: str,
    maximise: bool | None,
    *,
    factor: int,
    method: str,
    progress: bool,
) -> Halving:
    """Runs the brackets one after another.

    Raises:
      ValueError: a metric that the runs do not record or whose direction is not known, before anything compiles; or no
        trial has ended with a finite score.
    """
    nothing = stages.result(ensembles=False)
    dims = [dim for dim in nothing.metrics["finished"].dims if dim not in ("seed", "fold")]
    scores_of(nothing, metric, "mean", "common")
    maximise = direction_of(nothing, metric, maximise)
    epochs = sorted({rung for bracket in brackets for rung in bracket.rungs})
    scores = np.full((*stages.shape, len(epochs)), np.nan)
    survived = np.zeros(scores.shape, dtype=bool)
    rungs: list[Rung] = []
    total = sum(trial_epochs(int(each.trials.sum()), each.rungs, factor) for each in brackets)
    with stages.running(total, name=method, progress=progress):
        for number, (trials, ends) in enumerate(brackets):
            alive = trials
            for cuts, rung in enumerate(ends, start=1):
                stages.advance(alive, rung)
                so_far = stages.result(ensembles=False)
                told = over_runs(score_at(so_far, metric, stages.settings, rung), so_far)
                told = told.transpose(*dims)
                found, strength = np.where(alive, told.values, np.nan), strength_of(so_far, told)
                ranked = best_first(found.reshape(-1), strength.reshape(-1), maximise=maximise)
                most = found.size if rung == ends[-1] else num_left(int(trials.sum()), cuts, factor)
                kept = np.isin(np.arange(found.size), ranked[:most]).reshape(found.shape)
                best = float(found.reshape(-1)[ranked[0]]) if ranked.size else np.nan
                compared = int(alive.sum())
                lost = compared - ranked.size
                rungs.append(Rung(number, rung, compared, lost, int(kept.sum()), best))
                at, alive = epochs.index(rung), kept
                scores[trials, at], survived[trials, at] = found[trials], kept[trials]
                if not alive.any():
                    break
        if not any(rung.num_survivors for rung in rungs if rung.num_epochs == epochs[-1]):
            raise ValueError(
                f"no trial has a finite {metric} in every fold and seed: all that were left have diverged. "
                "error.partial_result.metrics.diverged_at says where; lower the learning rate, or clip the gradient."
            )
        result = stages.result()
        warn_of_lanes(result.metrics, interrupted=False)
        made = int(np.maximum(result.metrics["num_updates"].values, 0).sum())
        full = int(stages.updates.sum()) * stages.lanes_per_trial
        about = {"method": method, "factor": factor, "metric": metric, "maximise": maximise}
        about["rungs"] = [
            [*rung[:-1], None if np.isnan(rung.best) else rung.best] for rung in rungs
        ]
        result = dataclasses.replace(result, config=result.config | {"search": about})
        choice = _choice(result, metric, maximise, scores[..., -1])
        number = sum(place * bracket.trials for place, bracket in enumerate(brackets))
        return Halving(
            result,
            choice,
            _labelled(result, dims, scores, survived, number, epochs),
            tuple(rungs),
            made,
            full,
        )


def _choice(result: SweepResult, metric: str, maximise: bool, final: np.ndarray) -> Choice:
    """The best of the trials that ended, and next to it those of the same static values."""
    metrics = result.metrics
    dims = [str(dim) for dim in metrics["finished"].dims if dim not in ("seed", "fold")]
    like = metrics["finished"].isel({dim: 0 for dim in ("seed", "fold") if dim in metrics.dims})
    strength = strength_of(result, like.transpose(*dims))
    ranked = best_first(final.reshape(-1), strength.reshape(-1), maximise=maximise)
    place = np.unravel_index(ranked[0], final.shape)
    at = dict(zip(dims, map(int, place), strict=True))
    static = {dim: number for dim, number in at.items() if dim not in result.dims}
    traced = [dim for dim in dims if dim in result.dims]
    scores = metrics[metric].where(metrics["finished"])
    sizes = np.ones(1)
    if "fold" in scores.dims:
        of_folds = metrics["fold_size"]
        sizes = of_folds.isel({d: n for d, n in static.items() if d in of_folds.dims}).values
    else:
        scores = scores.expand_dims("fold")
    lanes = scores.isel(static).transpose(*traced, "seed", "fold").values
    lanes = lanes.reshape(-1, *lanes.shape[-2:])
    ended = np.flatnonzero(~np.isnan(lanes).any(axis=(1, 2)))
    number = np.ravel_multi_index(place[len(static) :], final.shape[len(static) :]) if traced else 0
    best = int(np.flatnonzero(ended == number)[0])
    labels = metrics[traced[0]].values if len(traced) == 1 else np.arange(len(lanes))
    lam = labels[ended].astype(np.float64)
    curve, *_ = one_standard_error(lanes[ended].mean(axis=1), sizes, lam, maximise=maximise)
    if lanes.shape[1] > 1:
        per_seed = lanes[ended] @ (sizes / sizes.sum())
        curve = curve._replace(seed_sd=per_seed.std(axis=1, ddof=1))
    axis, failed = (
        traced[0] if len(traced) == 1 else "trial",
        int((metrics["diverged_at"] >= 0).sum()),
    )
    values = values_at(result, metrics["finished"].isel(at))
    return Choice(
        axis=axis,
        metric=metric,
        maximise=maximise,
        rule="min",
        **dict.fromkeys(("lam", "lam_min", "lam_1se", "lam_paired_1se"), float(lam[best])),
        values=values,
        labels={dim: metrics[dim].values[number].item() for dim, number in at.items()},
        curve=curve,
        moving=tuple(
            name
            for name in values
            if name not in (axis, *static)
            and name in metrics.coords
            and len(np.unique(metrics[name].values)) > 1
        ),
        warnings=(
            _DROPPED,
            *cautions(result, curve, best, None, maximise, edges=False),
            *(
                [f"{failed} lanes diverged; a trial with a diverged lane goes no further."]
                if failed
                else []
            ),
        ),
        failed=failed,
    )


def _labelled(
    result: SweepResult, dims: Any, scores: Any, survived: Any, bracket: Any, epochs: list[int]
) -> Any:
    """What was compared, by trial and rung."""
    import xarray as xr

    trials = result.metrics["finished"].isel(
        {dim: 0 for dim in ("seed", "fold") if dim in result.dims}, drop=True
    )
    along = (*dims, "epoch")
    variables = {
        "score": (along, scores),
        "survived": (along, survived),
        "bracket": (dims, bracket),
    }
    return xr.Dataset(variables, {**trials.coords, "epoch": epochs})
