"""What is said about λ, against the truth: `python -m experiments.one_standard_error`."""

from __future__ import annotations

import dataclasses

import numpy as np
from threadpoolctl import threadpool_limits

import rnnreg as rr
from experiments._harness import Options, Report, run
from experiments.one_standard_error import exact, overlap, recurrent, ridge
from experiments.one_standard_error.figures import draw
from experiments.one_standard_error.report import Found, claims_of, summary_of, tables


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the experiment on the rules for λ."""

    num_simulations: int = 2000
    """Data sets of each task in closed form."""
    num_rows: tuple[int, ...] = (40, 160)
    """n."""
    lengths: tuple[int, ...] = (10, 30)
    """T."""
    snrs: tuple[float, ...] = (0.1, 1.0, 10.0)
    """Variance of the signal over that of the noise."""
    num_lambdas: int = 25
    """λ from 10⁻⁴ to 100, of the closed forms."""
    num_folds: int = 5
    """K, outside and inside."""
    trained_simulations: int = 200
    """Data sets on which networks are trained."""
    trained_rows: int = 40
    """Their n."""
    trained_length: int = 8
    """Their T."""
    trained_folds: int = 5
    """Their outer folds; one less inside."""
    trained_lambdas: int = 8
    """λ from 10⁻³ to 1 for the networks."""
    hidden_size: int = 2
    """Units of a network."""
    num_epochs: int = 150
    """Updates of a network, on all rows."""
    series_rows: int = 150
    """Rows that overlap."""
    horizons: tuple[int, ...] = (1, 8)
    """h, the steps of a target."""
    exact_lambdas: int = 9
    """λ from 10⁻³ to 10 for what must be equal."""


PRESETS = {
    "quick": {
        "num_simulations": 60,
        "num_lambdas": 9,
        "trained_simulations": 3,
        "trained_rows": 20,
        "trained_folds": 3,
        "trained_lambdas": 4,
        "num_epochs": 60,
        "exact_lambdas": 5,
    },
    "full": {},
}


def main(config: Config) -> Report:
    """Compares what must be equal, simulates, and judges intervals, means and rules."""
    rr.use_all_cores()
    same = exact.measure(np.logspace(-3, 1, config.exact_lambdas), num_rows=60, few_rows=20, num_epochs=60)
    print("what must be equal: done", flush=True)
    lams = np.logspace(-4, 2, config.num_lambdas)
    with threadpool_limits(1):  # many small matrices, for which threads cost more than they bring
        closed = [
            ridge.simulate(
                ridge.Task(rows, length, snr), lams, num_simulations=config.num_simulations, num_folds=config.num_folds
            )
            for rows in config.num_rows
            for length in config.lengths
            for snr in config.snrs
        ]
        rows_in_time = {
            horizon: overlap.simulate(
                overlap.Series(config.series_rows, 20, horizon),
                lams,
                num_simulations=config.num_simulations,
                num_folds=config.num_folds,
            )
            for horizon in config.horizons
        }
    print("closed forms: done", flush=True)
    trained = recurrent.simulate(
        ridge.Task(config.trained_rows, config.trained_length, 1.0),
        np.logspace(-3, 0, config.trained_lambdas),
        num_simulations=config.trained_simulations,
        outer=config.trained_folds,
        inner=config.trained_folds - 1,
        hidden_size=config.hidden_size,
        num_epochs=config.num_epochs,
    )
    found = Found(same, exact.disagreements(closed), closed, trained, rows_in_time)
    text = f"{tables(found)}\n\n{trained.lanes:,} networks trained."
    return Report(summary_of(found), claims_of(found), text, {"one_standard_error": draw(found)})


if __name__ == "__main__":
    run(main, Config, PRESETS, x64=True)
