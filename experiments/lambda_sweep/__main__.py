"""The λ sweep on the yearly sunspots, as a command."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import numpy as np

import rnnreg as rr
from experiments._harness import Report, run
from experiments._sunspots.autoregression import PUBLISHED
from experiments._sunspots.network import NetworkOptions, make_train, sunspots
from experiments.lambda_sweep import report
from experiments.lambda_sweep.comparison import Comparison
from experiments.lambda_sweep.figures import figures
from experiments.lambda_sweep.path import LambdaPath


@dataclasses.dataclass(frozen=True)
class Config(NetworkOptions):
    """Options of the λ sweep."""

    transform: Literal["identity", "sqrt"] = "identity"
    """Scale on which the series is learned; "sqrt" is 2(√(1 + x) − 1)."""
    window: int = 9
    """Years that the network sees before each forecast."""
    learning_rate: float = 1e-2
    """Learning rate of Adam."""
    rule: Literal["min", "1se", "paired_1se"] = "min"
    """Which λ is the chosen one: λ_min, since a forecast is wanted and not the simplest network."""


PRESETS = {"quick": {"num_lambdas": 7, "seeds": 3, "num_updates": 150}, "full": {}}
FURTHER = (
    "python -m experiments.lambda_sweep --transform sqrt: the same on the square-root scale",
    "python -m experiments.gradient_profiles: where the gradients of Elman, GRU and LSTM networks go",
    "notebooks/tour.ipynb: the same path step by step, with your own data",
)
RECORDED = ("lanes", "compilations", "seconds_compile", "seconds_compute", "program_sha256")


def main(config: Config) -> Report:
    """Sweeps, chooses, refits, tests."""
    rr.use_all_cores()
    data = sunspots(config.window, config.transform)
    train = make_train(data, dataclasses.asdict(config))
    key = jax.random.key(0)
    grid = {"l2": config.lams, "learning_rate": config.learning_rate}
    folds = rr.selection.blocked_folds(config.folds)
    result = rr.sweep(train, grid, data, seeds=config.seeds, folds=folds, refit=True, key=key)
    result.save(config.out / "sweep.nc")
    choice = rr.selection.choose(result, metric="val_arv", axis="l2", combine="ensemble", rule=config.rule)
    path = LambdaPath(config.transform, data, train, result)
    compared = Comparison(config, data, path, choice.lam)
    final = rr.selection.refit(train, result, choice, data, key=key)
    np.testing.assert_array_equal(
        final.params_at(seed=0)["layer_0"]["W_hh"], path.params["layer_0"]["W_hh"][compared.chosen, 0]
    )
    scores, paired, hindsight = compared.scores(), compared.paired(), compared.hindsight()
    lines = [result.plan, report.lambda_table(choice, path), *(f"note: {warning}" for warning in choice.warnings)]
    details = (
        f"{report.score_table(scores)}\nAfter the fact (it chose nothing): test ARV along the path, of the mean "
        f"forecast and of one network\n{report.hindsight_table(path, hindsight)}"
    )
    summary = _summary(config, result, choice, scores)
    return Report(
        summary | {"after_the_fact": hindsight, "paired": paired},
        report.claims(config, result, compared, scores, paired),
        "\n".join(lines),
        figures(result, choice, compared),
        report.found(config, choice, compared, scores, paired, hindsight),
        FURTHER,
        details,
    )


def _summary(config: Config, result: rr.SweepResult, choice, scores) -> dict[str, Any]:
    """The entries of summary.json that are numbers of the sweep, of the choice and of the scores."""

    def entries(name, *fields):
        return {
            method: {span: [getattr(found[name], field) for field in fields] for span, found in by_span.items()}
            for method, by_span in scores.items()
        }

    values = entries("arv", "value")
    return {
        **{name: result.config[name] for name in RECORDED},
        "plan": result.plan,
        "chosen_rule": config.rule,
        "lambda_chosen": choice.lam,
        **{f"lambda_{rule}": getattr(choice, f"lam_{rule}") for rule in ("min", "1se", "paired_1se")},
        "warnings": choice.warnings,
        "cv": [{"lam": lam, "mean": mean, "se": se} for lam, mean, se in zip(*choice.curve[:3], strict=True)],
        "arv": {method: {s: v for s, (v,) in by.items()} for method, by in values.items()},
        "arv_intervals": entries("arv", "low", "high"),
        "r2": entries("r2", "value", "low", "high"),
        "published": PUBLISHED,
    }


if __name__ == "__main__":
    run(main, Config, PRESETS)
