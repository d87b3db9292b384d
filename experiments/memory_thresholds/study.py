"""The whole study, in order: what the law is fitted on, its predictions, what was predicted, slopes, controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import rnnreg as rr
from experiments._report import claims_table, plain, write_json, write_summary
from experiments.memory_thresholds import controls, figures, report, slopes
from experiments.memory_thresholds.claims import claims_of
from experiments.memory_thresholds.config import Config
from experiments.memory_thresholds.diagram import Diagram
from experiments.memory_thresholds.law import Law, law_of, predict

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class Study(NamedTuple):
    """Everything that was measured.

    Attributes:
      config: the options.
      diagrams: by activation; the first is the main one.
      paths: diagrams of warm paths alone, from other starts.
      law: of λ_cold, in the main diagram.
      predictions: what was predicted from it.
      slopes: by activation, a row for each network that holds its bits.
      controls: other ways to train.
    """

    config: Config
    diagrams: dict[str, Diagram]
    paths: dict[str, Diagram]
    law: Law
    predictions: dict[str, list[dict[str, Any]]]
    slopes: dict[str, pd.DataFrame]
    controls: controls.Controls

    @property
    def main(self) -> Diagram:
        """The diagram that the law is about."""
        return self.diagrams[self.config.activations[0]]

    @property
    def every(self) -> dict[str, Diagram]:
        """All diagrams."""
        return self.diagrams | self.paths

    @property
    def shown(self) -> tuple[xr.Dataset, xr.Dataset]:
        """The cold networks (λ > 0) and the warm paths at the T and the gain that are shown."""
        T = self.config.shown_steps
        cold = self.main.cold[T].sel(gain=self.config.shown_gain)
        return cold.isel(l2=slice(1, None)), self.main.warm[T]


def main(config: Config) -> None:
    """Runs, prints and writes everything."""
    rr.use_all_cores()
    rr.compilation_cache()
    study = run(config)
    print(report.threshold_table(study.every))
    for name, networks in study.slopes.items():
        print(slopes.table(name, networks))
        print(report.latch_lines(study.diagrams[name]))
    print(report.control_table(study.controls))
    claims = claims_of(study)
    print(claims_table(claims))
    if config.preset != "full":
        print("The claims are about --preset full; this run is too short to test them.")
    for name, figure in figures.draw(study).items():
        rr.plotting.save(figure, config.out / name, close=True)
    write_summary(config.out, summary(study), claims)
    print(f"wrote {config.out}/")


def run(config: Config) -> Study:
    """Runs what the law is fitted on, writes the predictions, runs what was predicted, then the controls."""
    diagrams = {name: Diagram(config, name) for name in config.activations}
    paths = {
        f"{name}, {start}": Diagram(config, name, start=start)
        for name in config.activations
        for start in config.path_starts[1:]
    }
    for name, diagram in (diagrams | paths).items():
        for T in config.num_steps:
            if name in diagrams:
                diagram.run_cold(T, config.gains, least_gain=min(config.gains))
            diagram.run_warm(T)
            print(f"{name}, T = {T}: {report.line(diagram, T)}", flush=True)
    first = diagrams[config.activations[0]]
    law = law_of(config, first)
    predictions = predict(config, first, law)
    write_json(config.out / "predictions.json", plain(predictions))
    print(report.law_lines(law))
    print(report.prediction_lines(predictions), flush=True)
    run_predicted(config, first)
    found = {name: slopes.living_networks(diagram) for name, diagram in diagrams.items()}
    return Study(config, diagrams, paths, law, predictions, found, controls.run_all(config))


def run_predicted(config: Config, diagram: Diagram) -> None:
    """Runs the T and the gain that were predicted."""
    if not config.predicted_steps:
        return
    for T in config.num_steps:
        diagram.run_cold(T, (config.predicted_gain,), least_gain=min(config.gains))
    for T in config.predicted_steps:
        gains = tuple(sorted({*config.fitted_gains[1:], config.predicted_gain, 1.0}))
        diagram.run_cold(T, gains, least_gain=min(gains))
        diagram.run_warm(T)
        print(f"predicted, T = {T}: {report.line(diagram, T)}", flush=True)


def summary(study: Study) -> dict[str, Any]:
    """What summary.json holds beside the claims."""
    return {
        "config": study.config,
        "law": study.law,
        "predictions": study.predictions,
        "thresholds": {name: report.as_entries(each) for name, each in study.every.items()},
        "slopes": {name: slopes.scores(networks) for name, networks in study.slopes.items()},
        "latches": {name: report.latches(diagram) for name, diagram in study.diagrams.items()},
        "controls": study.controls,
    }
