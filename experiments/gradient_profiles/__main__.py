"""The gradient profiles, as a command."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

import rnnreg as rr
from experiments._harness import Options, Report, mean_and_error, run, text_table
from experiments.gradient_profiles import latch, profiles


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the gradient profiles."""

    cells: tuple[str, ...] = (
        "tanh, Gaussian",
        "tanh, orthogonal",
        "linear, orthogonal",
        "IRNN",
        "GRU",
        "LSTM, b_f = 0",
        "LSTM, b_f = 1",
        "LSTM, chrono",
    )
    """Which cells, in the order of the table."""
    delay: int = 200
    """T of the copy task; a sequence has T + 20 steps."""
    hidden_size: int = 64
    """Hidden units, of every cell."""
    num_updates: int = 100
    """Updates of RMSProp between the two profiles."""
    batch_size: int = 20
    """Rows of an update, and of a profile."""
    seeds: int = 5
    """Starts of each cell."""
    latch_weights: int = 2000
    """Grid of w for the one-unit latch, finer towards 1."""


PRESETS = {
    "quick": {
        "cells": ("tanh, orthogonal", "LSTM, b_f = 1", "LSTM, chrono"),
        "delay": 100,
        "hidden_size": 24,
        "seeds": 2,
        "latch_weights": 300,
        "num_updates": 30,
    },
    "full": {},
}


def main(config: Config) -> Report:
    """Profiles, the exact path, the latch."""
    task = rr.tasks.copy_memory(config.delay)
    made = profiles.cells(config.hidden_size, task.num_steps)
    key = jax.random.key(0)
    found = {name: profiles.measure(made[name], task, config, key) for name in config.cells}
    slopes = {
        name: {moment: profiles.decay(curves) for moment, curves in profile.last.items()}
        for name, profile in found.items()
    }
    paths = {
        "LSTM, b_f = 0": profiles.cell_path(0.0),
        "LSTM, b_f = 1": profiles.cell_path(1.0),
        "LSTM, chrono, slowest unit (b_f = ln 99)": profiles.cell_path(float(np.log(99.0))),
    }
    held = latch.measure(config.latch_weights)
    lines = [
        f"copy memory, T = {config.delay}; blind guess {task.baseline['loss']:.4f} nats",
        _table(found, slopes),
        *(f"∏ f over {profiles.PATH_STEPS} steps, {name}: {p:.4g}" for name, p in paths.items()),
    ]
    return Report(
        {"slopes": slopes, "profiles": found, "cell_paths": paths, "latch": held},
        [*profiles.claims(slopes, paths), *latch.claims(held)],
        "\n".join(lines),
        {"profiles": profiles.figure(config, task, found, paths), "latch": latch.figure(held)},
    )


def _table(found, slopes) -> str:
    rows = [
        (
            name,
            *("{:+.4f} ± {:.4f}".format(*mean_and_error(slope)) for slope in by.values()),
            *(f"{np.exp(np.log(last[:, -1]).mean()):.1e}" for last in found[name].last.values()),
            f"{found[name].loss['trained'].mean():.4f}",
        )
        for name, by in slopes.items()
    ]
    reach = ("r(first step), start", "trained")
    return text_table(("cell", "d ln r/dℓ, start", "trained", *reach, "loss, trained"), rows)


if __name__ == "__main__":
    run(main, Config, PRESETS, x64=True)
