"""The three thresholds of memory: what λ‖W‖² does to a bit that is held for T steps, as a phase diagram in (T, λ).

Delayed recall (K bits at step 0, T silent steps, the bits asked for) over T × gain of the start × λ × seeds. Networks
are trained from scratch at each λ (cold), and carried up and down the λ axis from a trained one (warm). Two axes are
kept apart: whether the bits can be decoded from h_T (memory), and ‖∂h_T/∂h_0‖ (gradient).

    λ_cold  above it a start of gain g no longer learns
    λ_c     above it the memory is worth less than it costs: its objective exceeds 1, that of W = 0
    λ_s     above it a memory that is there is destroyed

λ_cold of T ≤ 40 and three gains fixes one constant of the law c T g^(T−2); what it says of T = 80 and of a new gain is
written to predictions.json before either is run. Sweeps are kept in results/memory_thresholds/sweeps: a run that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

import rnnreg as rr
from experiments import _memory_claims
from experiments import _memory_controls as controls
from experiments import _memory_figure as figures
from experiments import _memory_predictors as predictors
from experiments import _memory_report as report
from experiments import _memory_theory as theory
from experiments._memory_runs import Cold, Warm, cold_starts, warm_paths
from experiments._memory_statistics import Law, fit_law
from experiments._memory_task import Measured, Variant, measure, network_of
from experiments._report import claims_table, plain, write_json, write_summary
from experiments._thresholds import Threshold, fit_threshold


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the three thresholds."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    num_steps: tuple[int, ...] = (5, 10, 20, 40)
    """T that the law is fitted on."""
    predicted_steps: tuple[int, ...] = (80,)
    """T that is predicted, then run."""
    gains: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0)
    """Gains g of the orthogonal start of W_hh."""
    fitted_gains: tuple[float, ...] = (0.7, 0.8, 0.9)
    """Gains that the law is fitted on; at g = 1 it says nothing, since c T exceeds λ_s."""
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
    out: Path = Path("results/memory_thresholds")
    """Where sweeps, predictions, figures and summary.json go."""


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


class Diagram:
    """All cold and warm runs of one activation, and their thresholds."""

    def __init__(self, config: Config, activation: str, *, start: str = "orthogonal"):
        self.config, self.activation = config, activation
        self.variant = Variant(
            activation=activation,
            start=start,
            hidden_size=config.hidden_size,
            num_bits=config.num_bits,
            num_updates=config.num_updates,
            learning_rate=config.learning_rate,
        )
        self.net = network_of(self.variant)
        self.cold: dict[tuple[int, float], tuple[Cold, int]] = {}
        self.warm: dict[int, Warm] = {}
        self._measured: dict[int, Measured] = {}
        self.lam_cold: dict[tuple[int, float], Threshold] = {}
        self.lam_c: dict[int, Threshold] = {}
        self.lam_s: dict[int, Threshold] = {}

    def run_cold(self, num_steps: int, gains: tuple[float, ...], *, least_gain: float) -> None:
        """Trains from scratch at one T; the λ grid begins below what the least gain should need."""
        least = max(0.02 * num_steps * least_gain ** (num_steps - 2), 1e-9)
        lams = np.concatenate([[0.0], np.geomspace(least, 4.0, self.config.num_lambdas)])
        cold = cold_starts(
            self.config.out,
            self.variant,
            num_steps,
            gains=gains,
            lams=lams,
            seeds=self.config.seeds,
        )
        for place, gain in enumerate(gains):
            self.cold[num_steps, gain] = (cold, place)
            found = fit_threshold(cold.lams[1:], cold.alive[1:, place])
            self.lam_cold[num_steps, gain] = found

    def run_warm(self, num_steps: int) -> None:
        """Carries trained networks up and down the λ axis at one T."""
        lams = np.geomspace(
            0.02, 1.3 * theory.network_spinodal(num_steps), self.config.path_lambdas
        )
        variant = self.variant._replace(
            learning_rate=self.config.path_rate * min(1.0, 40 / num_steps),
            num_updates=2 * self.config.num_updates,
        )
        warm = warm_paths(
            self.config.out,
            variant,
            num_steps,
            gain=1.0,
            lams=lams,
            seeds=self.config.path_seeds,
            updates=self.config.path_updates,
        )
        self.warm[num_steps] = warm
        self.lam_s[num_steps] = fit_threshold(lams, warm.alive[0])
        self.lam_c[num_steps] = fit_threshold(lams, warm.alive[0] & (warm.objective[0] < 1))

    def measure(self, num_steps: int, params: Any) -> Measured:
        """Both axes of memory for parameters of this diagram."""
        return measure(self.net, params, num_steps, num_bits=self.config.num_bits)

    def measured_cold(self, num_steps: int) -> list[tuple[Cold, Measured]]:
        """Every cold sweep at one T with what its networks are like; measured once."""
        colds = {id(cold): cold for (T, _), (cold, _) in self.cold.items() if num_steps == T}
        for name, cold in colds.items():
            if name not in self._measured:
                self._measured[name] = self.measure(num_steps, cold.params)
        return [(cold, self._measured[name]) for name, cold in colds.items()]

    def law(self) -> Law:
        """c T g^(T−2) from the thresholds that the grid bounds."""
        rows = [
            (T, gain, found.value)
            for (T, gain), found in self.lam_cold.items()
            if T in self.config.num_steps
            and gain in self.config.fitted_gains
            and 0 < found.value < np.inf
        ]
        return fit_law(*np.array(rows).reshape(-1, 3).T)


def main(config: Config) -> None:
    """Runs what the law is fitted on, writes the predictions, runs what was predicted, then predictors and controls."""
    rr.use_all_cores()
    rr.compilation_cache()
    diagrams = {name: Diagram(config, name) for name in config.activations}
    for name, diagram in diagrams.items():
        for T in config.num_steps:
            diagram.run_cold(T, config.gains, least_gain=min(config.gains))
            diagram.run_warm(T)
            print(f"{name}, T = {T}: {report.line(diagram, T)}", flush=True)
    paths = {
        f"{name}, {start}": Diagram(config, name, start=start)
        for name in config.activations
        for start in config.path_starts[1:]
    }
    for name, diagram in paths.items():
        for T in config.num_steps:
            diagram.run_warm(T)
            print(f"{name}, T = {T}: {report.line(diagram, T)}", flush=True)
    main_diagram = diagrams[config.activations[0]]
    law = main_diagram.law()
    predictions = _predict(config, main_diagram, law)
    write_json(config.out / "predictions.json", plain(predictions))
    print(report.law_lines(law))
    print(report.prediction_lines(predictions), flush=True)

    for T in config.num_steps:
        if predictions["cold"]:
            main_diagram.run_cold(T, (config.predicted_gain,), least_gain=min(config.gains))
    for T in config.predicted_steps:
        gains = tuple(sorted({*config.fitted_gains[1:], config.predicted_gain, 1.0}))
        main_diagram.run_cold(T, gains, least_gain=min(gains))
        main_diagram.run_warm(T)
        print(f"predicted, T = {T}: {report.line(main_diagram, T)}", flush=True)
    print(report.threshold_table(diagrams | paths))

    axes = figures.Axes2(config, main_diagram)
    slopes = {name: predictors.compare(diagram) for name, diagram in diagrams.items()}
    for name, table in slopes.items():
        print(predictors.table(name, table))
        print(report.latch_lines(diagrams[name]))
    compared = controls.run_all(config)
    print(controls.table(compared))

    claims = _memory_claims.claims(
        config, diagrams, paths, law, predictions, slopes, compared, axes
    )
    print(claims_table(claims))
    if config.preset != "full":
        print("The claims are about --preset full; this run is too short to test them.")
    figures.save_all(config, diagrams, paths, law, predictions, axes, slopes, compared)
    summary = {
        "config": config,
        "law": law,
        "predictions": predictions,
        "thresholds": {name: report.as_entries(each) for name, each in (diagrams | paths).items()},
        "slopes": {name: table.scores for name, table in slopes.items()},
        "latches": {name: report.latches(diagram) for name, diagram in diagrams.items()},
        "controls": compared,
    }
    write_summary(config.out, summary, claims)
    print(f"wrote {config.out}/")


def _predict(config: Config, diagram: Diagram, law: Law) -> dict[str, Any]:
    """What the law says of T and gains that have not been run; λ_c and λ_s by their power of T."""
    if not config.predicted_steps:
        return {"cold": [], "warm": []}
    pairs = [(T, config.predicted_gain) for T in (*config.num_steps, *config.predicted_steps)]
    pairs += [(T, gain) for T in config.predicted_steps for gain in config.fitted_gains[1:]]
    cold = [{"T": T, "gain": gain, "predicted": float(law(float(T), gain))} for T, gain in pairs]
    warm = []
    for name, found in (("lam_c", diagram.lam_c), ("lam_s", diagram.lam_s)):
        bounded = [T for T in config.num_steps if 0 < found[T].value < np.inf]
        if len(bounded) < 2:
            continue
        logs = [np.log(found[T].value) for T in bounded]
        slope, intercept = np.polyfit(np.log(bounded), logs, 1)
        for T in config.predicted_steps:
            value = float(np.exp(intercept + slope * np.log(T)))
            warm.append({"T": T, "threshold": name, "power": float(slope), "predicted": value})
    return {"cold": cold, "warm": warm}


if __name__ == "__main__":
    from experiments._report import command_line

    main(command_line(Config, PRESETS))
