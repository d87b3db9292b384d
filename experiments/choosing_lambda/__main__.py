"""Chooses, tests, compares and draws: `python -m experiments.choosing_lambda`."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util

import rnnreg as rr
from experiments._harness import Options, Report, run
from experiments.choosing_lambda.figures import draw, draw_seconds
from experiments.choosing_lambda.methods import METHODS, search_of
from experiments.choosing_lambda.report import claims_of, compared, found_of, gain_of, table
from experiments.choosing_lambda.runs import measure, whole_choice
from experiments.choosing_lambda.tasks import TASKS, Size


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the ways to choose λ."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Which tasks."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Which ways to choose; what the others are compared with is random."""
    num_trials: int = 32
    """The budget: the updates of so many full runs."""
    grid_rates: int = 4
    """Learning rates of the grid; the rest of the budget is its λ."""
    batch: int = 8
    """Trials that TPE is asked for at once."""
    starts: int = 2
    """Descents by the hypergradient."""
    repeats: int = 12
    """Searches of each, with seeds of their own; the first compiles."""
    peer_rounds: int = 3
    """Searches of each peer; the first brings processes up."""
    fresh_seeds: int = 4
    """Networks by which a choice is tested, in each repeat."""
    dense_lams: int = 17
    """λ > 0 of the dense grid, which has λ = 0 too."""
    dense_rates: int = 5
    """Its learning rates."""
    dense_seeds: int = 6
    """Its networks of each point."""
    hidden_size: int = 16
    """Units, of every task."""
    num_updates: int = 270
    """Updates of a full run, a multiple of 27."""
    digits_rows: int = 150
    """Digits to train on."""
    mnist_rows: int = 200
    """Digits of MNIST-1D to train on."""
    adding_rows: int = 40
    """Rows of the adding problem to train on."""
    held_rows: int = 300
    """Rows to choose on and rows to test on; the sunspots have 88 of each."""
    cold: bool = True
    """Whether programs that earlier processes have compiled are left aside, so that first searches compile."""
    whole_lambdas: int = 16
    """λ of the choice on the sunspots that is timed as a whole; 0 for none."""
    whole_updates: int = 500
    """Updates of its runs."""


PRESETS = {
    "quick": {
        "tasks": ("digits",),
        "num_trials": 8,
        "grid_rates": 2,
        "batch": 4,
        "starts": 1,
        "repeats": 2,
        "peer_rounds": 1,
        "fresh_seeds": 2,
        "dense_lams": 3,
        "dense_rates": 2,
        "dense_seeds": 2,
        "hidden_size": 4,
        "num_updates": 27,
        "digits_rows": 40,
        "held_rows": 40,
        "cold": False,
        "whole_lambdas": 2,
        "whole_updates": 20,
    },
    "full": {},
}


def main(config: Config) -> Report:
    """Searches on every task, and tests what was chosen."""
    if config.num_updates % 27 or config.num_trials % config.grid_rates:
        raise ValueError(
            "num_updates must be a multiple of 27, for the rungs and blocks, and num_trials one of grid_rates; got "
            f"{config.num_updates}, {config.num_trials} and {config.grid_rates}."
        )
    rr.use_all_cores()
    missing = () if importlib.util.find_spec("optuna") else ("TPE",)
    methods = [name for name in config.methods if name not in missing]
    numbers = {name: getattr(config, name) for name in ("num_trials", "grid_rates", "batch", "starts")}
    rows = {"digits": config.digits_rows, "MNIST-1D": config.mnist_rows, "adding": config.adding_rows}
    results = {}
    for name in config.tasks:
        task = TASKS[name](Size(config.hidden_size, config.num_updates, rows.get(name, 0), config.held_rows))
        if task is None:
            continue
        results[name] = measure(
            task,
            functools.partial(search_of, task, **numbers),
            methods,
            repeats=config.repeats,
            peer_rounds=config.peer_rounds,
            fresh_seeds=config.fresh_seeds,
            dense=(config.dense_lams, config.dense_rates, config.dense_seeds),
            cold=config.cold,
        )
        print(f"{name}: done", flush=True)
    whole = None
    if config.whole_lambdas:
        shape = {"folds": 5, "seeds": 4, "hidden_size": config.hidden_size, "num_updates": config.whole_updates}
        whole = whole_choice(num_lambdas=config.whole_lambdas, cold=config.cold, **shape)
    text = [table(result) for result in results.values()]
    text += [f"{name} is not installed: pip install '.[{name}]' brings it." for name in ("optuna",) if missing]
    summary = {
        name: {
            "gain": gain_of(result),
            "outcomes": result.outcomes,
            "against_random": compared(result),
            "budgets": result.budgets,
            "peer_seconds": result.peer_seconds,
            "peer_losses": result.peer_losses,
        }
        for name, result in results.items()
    }
    figures = {"choosing_lambda": draw(results), "choosing_lambda_seconds": draw_seconds(results)}
    return Report(
        {"tasks": summary, "whole_choice": whole},
        claims_of(results, whole),
        "\n\n".join(text),
        figures,
        found_of(results),
    )


if __name__ == "__main__":
    run(main, Config, PRESETS)
