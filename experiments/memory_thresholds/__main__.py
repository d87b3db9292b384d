"""The three thresholds of memory, as a command."""

from __future__ import annotations

import dataclasses
from typing import Any

import rnnreg as rr
from experiments._harness import Options, Report, plain, run, write_json
from experiments.memory_thresholds import claims, controls, diagram, figures, law, report, slopes


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the three thresholds."""

    num_steps: tuple[int, ...] = (5, 10, 20, 40)
    """T that the law is fitted on."""
    predicted_steps: tuple[int, ...] = (80,)
    """T that is predicted, then run."""
    gains: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0)
    """Gains g of the orthogonal start of W_hh."""
    fitted_gains: tuple[float, ...] = (0.7, 0.8, 0.9)
    """Gains that the law is fitted on; at g = 1 it says nothing from T = 10 on, since c T exceeds λ_s there."""
    predicted_gain: float = 0.85
    """A gain that is predicted, then run."""
    num_lambdas: int = 28
    """λ > 0 of a cold sweep, beside λ = 0."""
    seeds: int = 10
    """Seeds of a cold start."""
    num_updates: int = 2000
    """Updates of a cold start."""
    path_lambdas: int = 48
    """λ of a warm path, from 0.02 to 1.3 times the linear network's λ_s."""
    path_seeds: int = 8
    """Paths at each T."""
    path_updates: int = 400
    """Updates at each λ of a path."""
    path_rate: float = 1e-3
    """Adam's α on a path, smaller beyond T = 40: steps as wide as the memory's valley (about 1/T) end it too soon."""
    path_starts: tuple[str, ...] = ("orthogonal", "identity")
    """Starts of W_hh of the warm paths, which lead to a complex pair or to one real eigenvalue."""
    activations: tuple[str, ...] = ("tanh", "linear")
    """Networks of the main diagram; the law is about the first."""
    shown_steps: int = 20
    """T of the two axes against λ."""
    shown_gain: float = 0.9
    """Gain of the two axes against λ."""
    hidden_size: int = 16
    """H."""
    num_bits: int = 1
    """K."""
    learning_rate: float = 3e-3
    """Adam's α."""
    control_steps: tuple[int, int] = (10, 40)
    """T of the controls, a short and a long one."""
    control_lambdas: int = 18
    """λ of a control, from 1e-3 to 10."""
    control_seeds: int = 6
    """Seeds of a control."""
    control_names: tuple[str, ...] = tuple(controls.VARIANTS)
    """Which ways to train are compared."""
    long_updates: int = 8000
    """Updates of the long training, whose thresholds are read on the way."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {
        "num_steps": (10,),
        "predicted_steps": (),
        "gains": (0.8, 0.9),
        "fitted_gains": (0.8, 0.9),
        "num_lambdas": 8,
        "seeds": 3,
        "num_updates": 400,
        "path_lambdas": 10,
        "path_seeds": 2,
        "path_updates": 100,
        "path_starts": ("orthogonal",),
        "path_rate": 1e-2,
        "activations": ("tanh",),
        "shown_steps": 10,
        "control_steps": (5, 10),
        "control_lambdas": 4,
        "control_seeds": 2,
        "control_names": (),
        "long_updates": 0,
        "learning_rate": 1e-2,
    },
}


def main(config: Config) -> Report:
    """Runs what the law is fitted on, writes its predictions, runs what was predicted, then the controls."""
    rr.use_all_cores()
    study = diagram.Study(config)
    study.run_fitted()
    fitted = law.law_of(config, study.main)
    predictions = law.predict(config, study.main, fitted)
    write_json(config.out / "predictions.json", plain(predictions))
    print(report.law_lines(fitted, predictions), flush=True)
    study.run_predicted()
    networks = {name: slopes.living_networks(one) for name, one in study.diagrams.items()}
    compared = controls.run_all(config)
    summary = {
        "law": fitted,
        "predictions": predictions,
        "thresholds": {name: report.as_entries(one) for name, one in study.every.items()},
        "slopes": {name: slopes.scores(rows) for name, rows in networks.items()},
        "latches": {name: report.latches(one) for name, one in study.diagrams.items()},
        "controls": compared,
    }
    return Report(
        summary,
        [
            *claims.of_thresholds(study, fitted, predictions),
            *claims.of_axes(study),
            *claims.of_slopes(networks),
            *claims.of_controls(config, compared),
        ],
        report.text(study, networks, compared),
        figures.draw(study, fitted, predictions, networks, compared),
    )


if __name__ == "__main__":
    run(main, Config, PRESETS)
