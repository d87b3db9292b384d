"""λ and memory on known tasks, as a command."""

from __future__ import annotations

import dataclasses

import jax

import rnnreg as rr
from experiments._harness import Options, Report, run
from experiments.penalty_vanishing import figures, memory, series
from experiments.penalty_vanishing.path import table


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the experiment."""

    tasks: tuple[str, ...] = ("adding", "temporal order")
    """Memory tasks."""
    lengths: tuple[int, ...] = (20, 40)
    """Steps of a sequence."""
    cells: tuple[str, ...] = ("tanh", "GRU")
    """Cells."""
    hidden_size: int = 24
    """Hidden units on the memory tasks."""
    num_lambdas: int = 11
    """λ = 0 and a log grid, on the memory tasks."""
    lambda_low: float = 1e-5
    """Smallest positive λ there."""
    lambda_high: float = 1.0
    """Largest λ there."""
    seeds: int = 5
    """Starts at each λ."""
    train_rows: int = 4000
    """Training rows of a memory task."""
    test_rows: int = 1000
    """Fresh rows."""
    batch_size: int = 50
    """Rows of an update."""
    num_epochs: int = 30
    """Passes over the rows, from a cold start and again after λ is switched on."""
    learning_rate: float = 1e-2
    """Of Adam on the memory tasks (with the gradient's norm clipped at 1)."""
    sunspot_updates: int = 1500
    """Full-batch updates on the sunspots; long enough to overfit."""
    lorenz_rows: int = 128
    """Sequences of the Lorenz system."""
    lorenz_epochs: int = 300
    """Passes over them, in batches of 32."""
    lorenz_gain: float = 2.0
    """Of the Gaussian start there; above 1 the recurrence is chaotic."""
    series_lambdas: int = 10
    """λ = 0 and a log grid from 1e-5 to 3, on both series."""


PRESETS = {
    "quick": {
        "tasks": ("adding",),
        "lengths": (20,),
        "cells": ("tanh",),
        "num_lambdas": 5,
        "seeds": 2,
        "train_rows": 1000,
        "num_epochs": 20,
        "sunspot_updates": 150,
        "lorenz_rows": 32,
        "lorenz_epochs": 20,
        "series_lambdas": 4,
    },
    "full": {},
}


def main(config: Config) -> Report:
    """Pilot and prediction, then the sweeps."""
    rr.use_all_cores()
    key = jax.random.key(0)
    by_task = {name: memory.memory_task(config, name, key) for name in config.tasks}
    found = {title: each for task in by_task.values() for title, each in task.items()}
    paths = {"sunspots": series.sunspots(config, key), "Lorenz": series.lorenz(config, key)}
    text = [memory.lines(title, each) for title, each in found.items()]
    text += [f"{name}\n{table(path)}" for name, path in paths.items()]
    shares = {
        title: {kind: memory.proportions(each[kind], each["prediction"]) for kind in figures.KINDS}
        for title, each in found.items()
    }
    drawn = {f"memory_{name.replace(' ', '_')}": figures.memory_figure(each) for name, each in by_task.items()}
    return Report(
        {"memory": found, "series": paths, "proportions": shares},
        [*(claim for item in found.items() for claim in memory.claims(*item)), *series.claims(paths)],
        "\n\n".join(text),
        drawn | {"series": figures.series_figure(paths)},
    )


if __name__ == "__main__":
    run(main, Config, PRESETS)
