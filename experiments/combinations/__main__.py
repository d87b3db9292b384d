"""Chooses, tests, compares and draws: `python -m experiments.combinations`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import (
    Claim,
    Comparison,
    Options,
    Report,
    mean_and_error,
    paired,
    plus_minus,
    run,
    standard_error,
    text_table,
)
from experiments.combinations.methods import METHODS, NONE, Arm, arms
from experiments.combinations.runs import Chosen, confirm, search
from experiments.combinations.tasks import Task, digits_in_one_dimension, sequential_digits


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the combinations."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Which of the methods, alone and in pairs."""
    num_trials: int = 4
    """Trials of each method: a learning rate, and a strength for each part."""
    search_seeds: int = 5
    """Networks of each trial, by which it is chosen."""
    fresh_seeds: int = 12
    """Networks of what was chosen, by which it is tested."""
    digits_epochs: int = 16
    """Passes over the sequential digits: 320 updates in the search, 416 in the test."""
    digits_hidden: int = 24
    """Units of their network."""
    mnist_epochs: int = 40
    """Passes over MNIST-1D: 1,200 updates in the search, 1,600 in the test."""
    num_rows: int | None = None
    """Rows of each task; None takes all."""


PRESETS = {
    "quick": {
        "methods": ("L2", "dropout", "zoneout"),
        "num_trials": 2,
        "search_seeds": 2,
        "fresh_seeds": 3,
        "digits_epochs": 1,
        "digits_hidden": 6,
        "mnist_epochs": 1,
        "num_rows": 300,
    },
    "full": {},
}
K17 = "Krueger et al. 2017, permuted MNIST"
# what was published, as (better, worse, source)
EXPECTED = [
    ("zoneout", NONE, f"{K17}: error 6.9 % instead of 10.2 %"),
    ("variational", NONE, f"{K17}: recurrent dropout, error 7.5 % instead of 10.2 %"),
    ("batch norm", NONE, f"{K17}: recurrent batch normalisation, error 4.6 % instead of 10.2 %"),
    ("L2 + dropout", "dropout", "Merity et al. 2018, PTB: perplexity 61.0 without decay, 57.3 with all"),
]


def main(config: Config) -> Report:
    """Chooses and tests every arm on both tasks."""
    rr.use_all_cores()
    every = arms({name: METHODS[name] for name in config.methods})
    claims, summary, text, found = [], {}, [], []
    digits = sequential_digits(
        num_rows=config.num_rows, num_epochs=config.digits_epochs, hidden_size=config.digits_hidden
    )
    one_dimension = digits_in_one_dimension(num_rows=config.num_rows, num_epochs=config.mnist_epochs)
    tasks = {"sequential digits": digits, "MNIST-1D": one_dimension}
    results: dict[str, Any] = {}
    for name, task in tasks.items():
        if task is None:
            claims += claims_of(name, 0.91, None, None)
            text.append(f"{name}: mnist1d is not installed: pip install '.[experiments]' brings it.")
            continue
        chosen = search(task, every, num_trials=config.num_trials, num_seeds=config.search_seeds)
        tested = confirm(task, chosen, num_seeds=config.fresh_seeds)
        compared = compare(every, tested)
        results[name] = task, tested
        claims += claims_of(name, task.published, tested, compared)
        text.append(f"{name}\n{table(chosen, tested, compared)}")
        found.append(finding(name, tested, compared))
        summary[name] = {
            "chosen": {one.arm.name: one.numbers for one in chosen},
            "validation": {one.arm.name: one.accuracy for one in chosen},
            "test": tested,
            "comparisons": {f"{a} against {b}": one._asdict() for (a, b), one in compared.items()},
        }
    return Report(summary, claims, "\n\n".join(text), {"combinations": draw(every, results)}, found)


def compare(every: Sequence[Arm], tested: Mapping[str, np.ndarray]) -> dict[tuple[str, str], Comparison]:
    """Every arm with none, and every pair with its parts: two families, each with Holm's correction."""
    with_none = [(arm.name, NONE) for arm in every if arm.parts]
    with_parts = [(arm.name, part) for arm in every if len(arm.parts) > 1 for part in arm.parts]
    found = {}
    for family in (with_none, with_parts):
        pairs = [(tested[one], tested[other]) for one, other in family]
        found |= dict(zip(family, paired(pairs), strict=True))
    return found


def claims_of(
    name: str,
    published: float | None,
    tested: Mapping[str, np.ndarray] | None,
    compared: Mapping[tuple[str, str], Comparison] | None,
) -> list[Claim]:
    """What was published; nothing is measured of arms that were not trained."""
    claims = []
    if published is not None:
        upper = None if tested is None else upper_end(tested[NONE])
        source = "Greydanus 2020, the GRU of the table of MNIST-1D"
        claims.append(
            Claim(f"{name}: upper end of the 95 % interval, no regularisation", source).at_least(published, upper)
        )
    for better, worse, source in EXPECTED:
        claim = Claim(f"{name}: {better} is better than {worse}", source)
        found = None if compared is None else compared.get((better, worse))
        claims.append(claim if found is None else claim.shown(found))
    return claims


def upper_end(values: np.ndarray) -> float:
    """Of the 95 % interval of Student's t for a mean."""
    from scipy.stats import t

    mean, error = mean_and_error(values)
    return mean + float(t.ppf(0.975, len(values) - 1)) * error


def table(
    chosen: Sequence[Chosen], tested: Mapping[str, np.ndarray], compared: Mapping[tuple[str, str], Comparison]
) -> str:
    """Numbers that were chosen, accuracies and differences, an arm a line."""
    rows = []
    for one in chosen:
        name, numbers = one.arm.name, one.numbers
        strengths = ", ".join(
            f"{method.sets[0]} {numbers[method.sets[0]]:.3g}" for method in one.arm.methods if method.sets
        )
        against = compared.get((name, NONE))
        difference = "" if against is None else f"{against.mean:+.4f} ± {against.error:.4f}"
        p = "" if against is None else f"{against.p:.3g}"
        accuracy = plus_minus(*mean_and_error(tested[name]))
        rows.append(
            (name, f"{numbers['learning_rate']:.3g}", strengths, f"{one.accuracy:.4f}", accuracy, difference, p)
        )
    header = ("method", "rate", "strengths", "validation", "test ± SE", "less none ± SE", "p (Holm)")
    return text_table(header, rows)


def finding(name: str, tested: Mapping[str, np.ndarray], compared: Mapping[tuple[str, str], Comparison]) -> str:
    """The best arm, and which arms differ from none."""
    best = max(tested, key=lambda arm: tested[arm].mean())
    told = [
        f"{one} {difference.mean:+.3f}"
        for (one, other), difference in compared.items()
        if other == NONE and difference.p <= 0.05
    ]
    told = ", ".join(told) or "none of them"
    means = ", ".join(f"{arm} {plus_minus(*mean_and_error(tested[arm]))}" for arm in dict.fromkeys((NONE, best)))
    return f"{name}: test accuracy {means}; different from no regularisation at 5 % after Holm's correction: {told}."


def draw(every: Sequence[Arm], results: Mapping[str, tuple[Task, Mapping[str, np.ndarray]]]) -> Figure:
    """Test accuracies with standard errors, an arm a line, a task a panel."""
    figure, axes = plt.subplots(
        1, max(1, len(results)), figsize=(7.2, 0.8 + 0.22 * len(every)), sharey=True, squeeze=False
    )
    places = np.arange(len(every))[::-1]
    for ax, (name, (task, tested)) in zip(axes[0], results.items(), strict=False):
        for place, arm in zip(places, every, strict=True):
            values, colour = tested[arm.name], rr.plotting.COLORS[min(len(arm.parts), 2)]
            ax.scatter(values, np.full(len(values), place), s=6, color=colour, alpha=0.3, linewidth=0)
            ax.errorbar(values.mean(), place, xerr=standard_error(values), fmt="o", ms=4, color=colour, capsize=2)
        ax.axvline(tested[NONE].mean(), color="0.5", lw=0.8, zorder=0)
        if task.published is not None:
            ax.axvline(task.published, color="0.5", lw=0.8, ls="--", zorder=0, label=f"published {task.published:.0%}")
            ax.legend(loc="best", fontsize=7)
        ax.set(title=name, xlabel="test accuracy ± SE")
        ax.locator_params(axis="x", nbins=5)
    axes[0, 0].set_yticks(places, [arm.name for arm in every])
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS)
