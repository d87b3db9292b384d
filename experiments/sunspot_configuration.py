"""Transform, window and learning rate of the sunspot network, chosen by cross-validation inside 1700–1920.

The defaults of `experiments.lambda_sweep` were frozen from this run before that experiment computed an error on a test
year. All candidates are scored on the same target years (1724–1920), in ARV units of the sunspot number,
by the mean forecast of the seeds. Is the window long enough? The report says how many of its years the networks of the
chosen configuration need for their forecast.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

import rnnreg as rr
from experiments._harness import Claim, Report, run, text_table
from experiments._sunspots.network import NetworkOptions, make_train, sunspots


@dataclasses.dataclass(frozen=True)
class Config(NetworkOptions):
    """Options of the configuration run."""

    transforms: tuple[str, ...] = ("identity", "sqrt")
    """Candidate transforms of the series."""
    windows: tuple[int, ...] = (9, 12, 24)
    """Candidate windows, in years."""
    learning_rates: tuple[float, ...] = (3e-3, 1e-2)
    """Candidate learning rates of Adam."""
    num_lambdas: int = 9
    """λ = 0 and a log grid."""


PRESETS = {
    "quick": {"windows": (12,), "learning_rates": (3e-3, 1e-2), "num_updates": 100, "num_lambdas": 4, "seeds": 2},
    "full": {},
}


def main(config: Config) -> Report:
    """Sweeps every candidate; the table shows the best of each."""
    rr.use_all_cores()
    fixed = {"hidden_size": config.hidden_size, "num_updates": config.num_updates}

    def data(static):
        return sunspots(static["window"], static["transform"], first_target=1724)

    result = rr.sweep(
        lambda static: make_train(data(static), {**fixed, **static}),
        {"l2": config.lams, "learning_rate": list(config.learning_rates)},
        data,
        seeds=config.seeds,
        folds=rr.selection.blocked_folds(config.folds),
        static={"transform": config.transforms, "window": config.windows},
        key=jax.random.key(0),
    )
    choice = rr.selection.choose(result, metric="val_arv", combine="ensemble")
    score = result.metrics.ensemble_val_arv.weighted(result.metrics.fold_size.fillna(0)).mean("fold")
    best = score.min("l2")
    rows = []
    for case in best.stack(case=best.dims).transpose("case"):
        at = {name: case[name].item() for name in ("transform", "window", "learning_rate")}
        path = score.sel(**at)
        errors = (f"{path.sel(l2=0.0).item():.4f}", f"{case.item():.4f}")
        rows.append((*map(str, at.values()), *errors, f"{path.l2.values[path.argmin('l2').item()]:.2g}"))
    header = ("transform", "window", "learning rate", "CV ARV at λ=0", "CV ARV at best λ", "best λ")
    improves = "a penalty improves the cross-validated ARV of the chosen configuration (ratio to λ = 0)"
    curve = choice.curve
    claim = Claim(improves, "this project").at_most(1.0, curve.mean.min() / curve.mean[curve.lam == 0][0])
    window, xs = choice.values["window"], data(choice.values).train.xs
    net = make_train(data(choice.values), {**fixed, **choice.values}).network({})

    def needs(params):
        return rr.diagnostics.sufficient_window(net, params, xs, tolerance=0.1, windows=range(1, window + 1))

    chosen = result.select(**choice.values)
    needed = chosen.map(lambda params: needs(params).window)["value"].values
    ax = rr.plotting.sufficient_window(needs(chosen.params_at(seed=0, fold="0")), tolerance=0.1)
    summary = {
        "chosen": choice.values,
        "years_needed": {"median": np.median(needed), "share_that_needs_all": np.mean(needed == window)},
        "candidates": [dict(zip(header, row, strict=True)) for row in rows],
        "warnings": choice.warnings,
        "seconds_compute": result.config["seconds_compute"],
    }
    lines = [
        result.plan,
        text_table(header, rows),
        f"chosen: {choice.values}",
        f"the last {np.median(needed):g} years of {window} give the forecast within 0.1 standard deviations (median of "
        f"networks and targets); all of them are needed for {np.mean(needed == window):.0%}",
    ]
    cells = rr.plotting.cv_map(
        result, choice, other="learning_rate", label="ARV of the mean forecast, validation blocks"
    )
    return Report(summary, [claim], "\n".join(lines), {"window": ax.figure, "map": cells.figure})


if __name__ == "__main__":
    run(main, Config, PRESETS)
