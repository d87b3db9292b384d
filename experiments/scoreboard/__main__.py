"""Chooses, tests, compares and draws: `python -m experiments.scoreboard`."""

from __future__ import annotations

import dataclasses

import jax

import rnnreg as rr
from experiments._harness import Options, Report, run
from experiments.scoreboard import tasks
from experiments.scoreboard.cost import costs
from experiments.scoreboard.figure import draw
from experiments.scoreboard.methods import METHODS, NONE
from experiments.scoreboard.report import Result, claims_of, found_of, gains, strong_table, table
from experiments.scoreboard.runs import applicable, confirm, search, strong_trials


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the scoreboard."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Which regularisers; "none" is always among them."""
    num_trials: int = 4
    """Trials of each method: a learning rate and a strength."""
    search_seeds: int = 2
    """Networks of each trial, by which it is chosen."""
    fresh_seeds: int = 12
    """Networks of what was chosen, by which it is tested."""
    strong_seeds: int = 6
    """Networks of the memory task at the strong end of each range."""
    memory_steps: int = 30
    """T of the memory task."""
    memory_hidden: int = 32
    """Units of its tanh network."""
    memory_rows: int = 2000
    """Its training rows."""
    memory_epochs: int = 30
    """Passes over them, 50 rows an update: 1,200 updates."""
    sunspot_hidden: int = 16
    """Units of the tanh network of the sunspots."""
    sunspot_updates: int = 500
    """Updates on all of their rows."""
    mnist_hidden: int = 16
    """Units of the GRU of MNIST-1D."""
    mnist_epochs: int = 24
    """Passes over MNIST-1D, 100 rows an update: 720 updates."""
    mnist_rows: int | None = None
    """Digits of MNIST-1D that are drawn; None for 5,000."""
    cost_updates: int = 10
    """Training steps of a call that is timed."""
    cost_rounds: int = 15
    """Pairs of calls, with and without, of each method."""


PRESETS = {
    "quick": {
        "methods": ("L2", "soft orthogonality"),
        "num_trials": 2,
        "search_seeds": 1,
        "fresh_seeds": 2,
        "strong_seeds": 2,
        "memory_steps": 10,
        "memory_hidden": 8,
        "memory_rows": 400,
        "memory_epochs": 2,
        "sunspot_hidden": 6,
        "sunspot_updates": 20,
        "mnist_hidden": 6,
        "mnist_epochs": 1,
        "mnist_rows": 300,
        "cost_rounds": 3,
    },
    "full": {},
}


def main(config: Config) -> Report:
    """Chooses and tests every method on the three tasks, then looks at the memory that strong ones leave."""
    rr.use_all_cores()
    memory = tasks.memory(
        num_steps=config.memory_steps,
        hidden_size=config.memory_hidden,
        num_rows=config.memory_rows,
        num_epochs=config.memory_epochs,
    )
    sunspots = tasks.yearly_sunspots(hidden_size=config.sunspot_hidden, num_updates=config.sunspot_updates)
    digits = tasks.digits(num_rows=config.mnist_rows, num_epochs=config.mnist_epochs, hidden_size=config.mnist_hidden)
    price = costs(memory, applicable(memory, config.methods), updates=config.cost_updates, rounds=config.cost_rounds)
    results: dict[str, Result] = {}
    for task in filter(None, (memory, sunspots, digits)):
        methods = applicable(task, config.methods)
        found = search(task, list(methods.values()), num_trials=config.num_trials, num_seeds=config.search_seeds)
        tested = confirm(task, [one.trial for one in found], num_seeds=config.fresh_seeds)
        chosen, tested = dict(zip(methods, found, strict=True)), dict(zip(methods, tested, strict=True))
        results[task.name] = Result(task, chosen, tested, gains(tested))
        print(f"{task.name}: done", flush=True)
    methods = applicable(memory, config.methods)
    trials = strong_trials(methods, results[memory.name].chosen[NONE].trial.learning_rate)
    strong = dict(zip(methods, confirm(memory, trials, num_seeds=config.strong_seeds), strict=True))
    device = f"The cost is CPU time on {jax.devices()[0].device_kind} ({rr.environment()['cores']} cores)."
    parts = [*(table(result, price) for result in results.values()), strong_table(strong, memory.num_steps), device]
    if digits is None:
        parts.append("mnist1d is not installed: pip install '.[experiments]' brings it.")
    summary = {
        "chosen": {task: settings(result) for task, result in results.items()},
        "tested": {task: result.tested for task, result in results.items()},
        "gain": {task: result.gain for task, result in results.items()},
        "strong": strong,
        "cost": price,
    }
    return Report(
        summary,
        claims_of(results, strong),
        "\n\n".join(parts),
        {"scoreboard": draw(results, strong, price)},
        found_of(results, strong, price),
    )


def settings(result: Result) -> dict[str, dict[str, float]]:
    """By method the learning rate and the strength that were chosen, and their validation error."""
    return {
        name: {"learning_rate": one.trial.learning_rate, "strength": one.trial.strength, "validation": one.error}
        for name, one in result.chosen.items()
    }


if __name__ == "__main__":
    run(main, Config, PRESETS)
