"""A λ for each matrix against one for all: `python -m experiments.per_weight_lambda`."""

from __future__ import annotations

import dataclasses

import numpy as np

import rnnreg as rr
from experiments._harness import Options, Report, run
from experiments.per_weight_lambda import report, search, tasks
from experiments.per_weight_lambda.figures import draw
from experiments.per_weight_lambda.report import ALONE, EACH, NONE, ONLINE, RANDOM, SHARED, SHARED_GRAD, Found

AROUND = "around the start"


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the experiment on a λ for each matrix."""

    tasks: tuple[str, ...] = ("sunspots", "digits", "adding")
    """Which of the three."""
    seed: int = 1
    """Root of all draws."""
    num_repeats: int = 16
    """Draws of rows and of a start, for each task."""
    budget: float = 58.5
    """Training runs of each way to choose, in each repeat: 15 derivatives in three λ."""
    alone_lambdas: int = 13
    """λ of the grid for one matrix alone."""
    sunspot_updates: int = 300
    """Full-batch updates."""
    digit_rows: int = 100
    """Digits to train on, and to choose on."""
    digit_epochs: int = 100
    """Passes over them, in two updates each."""
    adding_rows: int = 200
    """Sequences to train on, and to choose on."""
    adding_steps: int = 8
    """T."""
    adding_epochs: int = 100
    """Passes over them, in four updates each."""


PRESETS = {
    "quick": {
        "tasks": ("adding",),
        "num_repeats": 2,
        "budget": 8.0,
        "alone_lambdas": 3,
        "adding_rows": 50,
        "adding_steps": 6,
        "adding_epochs": 20,
    },
    "full": {},
}


def measure(task: tasks.Task, *, budget: float, alone_lambdas: int) -> Found:
    """Chooses λ in every way, with the same budget, and keeps what the choices score."""
    num, lone = int(budget), alone_lambdas
    paths = {
        SHARED_GRAD: search.by_gradient(task, shared=True, budget=budget),
        EACH: search.by_gradient(task, shared=False, budget=budget),
    }
    values = {
        NONE: np.zeros((1, 3)),
        AROUND: search.around_start(),
        SHARED: search.shared_grid(num),
        RANDOM: search.random_points(num),
    }
    values |= {name: search.alone_grid(lone, matrix) for matrix, name in ALONE.items()}
    every = search.by_trial(task, np.concatenate(list(values.values())))
    ends = np.cumsum([len(each) for each in values.values()])[:-1]
    parts = [
        search.Tried(*leaves) for leaves in zip(*(np.split(leaf, ends, axis=1) for leaf in every[:4]), strict=True)
    ]
    tried = dict(zip(values, parts, strict=True)) | paths | {ONLINE: search.online(task)}
    order = (NONE, *ALONE.values(), SHARED, SHARED_GRAD, RANDOM, EACH, ONLINE)
    runs: dict[str, float] = {name: len(each) for name, each in values.items()}
    runs |= {
        SHARED_GRAD: paths[SHARED_GRAD].val.shape[1] * search.COSTS["shared"],
        EACH: paths[EACH].val.shape[1] * search.COSTS["each"],
        ONLINE: search.COSTS["each"] + 1,
    }
    return Found(
        {name: tried[name].best() for name in order},
        paths,
        runs,
        report.checked(tried[AROUND], paths[EACH], paths[SHARED_GRAD]),
    )


def main(config: Config) -> Report:
    """Measures on the three tasks."""
    rr.use_all_cores()
    num, seed = config.num_repeats, config.seed
    made = {
        "sunspots": lambda: tasks.yearly_sunspots(num, config.sunspot_updates, seed=seed),
        "digits": lambda: tasks.digits_by_rows(num, config.digit_epochs, config.digit_rows, seed=seed),
        "adding": lambda: tasks.adding(num, config.adding_epochs, config.adding_rows, config.adding_steps, seed=seed),
    }
    found = {}
    for name in config.tasks:
        found[name] = measure(made[name](), budget=config.budget, alone_lambdas=config.alone_lambdas)
        print(f"{name}: done", flush=True)
    figures = {"per_weight_lambda": draw(found)}
    return Report(report.summary_of(found), report.claims_of(found), report.tables(found), figures)


if __name__ == "__main__":
    run(main, Config, PRESETS, x64=True)
