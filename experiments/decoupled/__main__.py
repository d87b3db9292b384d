"""Decay beside the loss and λ‖W‖², as a command."""

from __future__ import annotations

import dataclasses

import jax

import rnnreg as rr
from experiments._harness import Options, Report, run
from experiments.decoupled import figures, maps, one_weight


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the experiment."""

    num_steps: int = 50
    """T of the adding task."""
    hidden_size: int = 16
    """Units of the GRU."""
    rows: int = 2000
    """Training rows; as many fresh ones score."""
    batch_size: int = 50
    """Rows of an update."""
    num_epochs: int = 40
    """Passes over the rows."""
    learning_rates: tuple[float, ...] = (1e-3, 2.4e-3, 5.5e-3, 1.3e-2, 3e-2)
    """η of Adam (with the gradient's norm clipped at 1)."""
    num_strengths: int = 7
    """Of each method, on a log grid."""
    seeds: int = 2
    """Networks of each pair."""
    num_updates: int = 30_000
    """Of one weight on a parabola; AdamW comes to rest as slowly as its mean square forgets."""


PRESETS = {
    "quick": {
        "num_steps": 10,
        "hidden_size": 4,
        "rows": 200,
        "num_epochs": 4,
        "learning_rates": (3e-3, 1e-2),
        "num_strengths": 3,
        "seeds": 1,
    },
    "full": {},
}


def main(config: Config) -> Report:
    """One weight, then the map."""
    rr.use_all_cores()
    with jax.enable_x64():
        one = one_weight.one_weight(config.num_updates)
    found = maps.measure_all(config, jax.random.key(0))
    ends = {name: maps.ends(found[name]) for name in maps.methods(config)}
    return Report(
        {"one_weight": one, "maps": found, "ends": ends},
        [*one_weight.claims(one), *maps.claims(config, found)],
        maps.table(found),
        {"one_weight": figures.draw_one_weight(one), "map": figures.draw_maps(config, found)},
    )


if __name__ == "__main__":
    run(main, Config, PRESETS)
