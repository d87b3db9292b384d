"""Tables, claims and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments._harness import Claim, Comparison, mean_and_error, paired, plus_minus, text_table
from experiments.scoreboard.methods import NONE
from experiments.scoreboard.runs import Chosen, Outcome
from experiments.scoreboard.tasks import Scored

PASCANU = "Pascanu, Mikolov & Bengio 2013, section 3.1"
SCHMIDT = "Schmidt et al. 2021, Fig. 2 (L2 on all units, T = 30: chance)"
KRUEGER = "Krueger et al. 2017, permuted MNIST"
KEPT, LOST = 0.8, 0.5  # of the horizon without a regulariser
# task, method, source: it should be better than no regularisation
BETTER = [
    ("sunspots", "L2", "Weigend, Huberman & Rumelhart 1990 (elimination of weights)"),
    ("MNIST-1D", "zoneout", f"{KRUEGER}: error 6.9 % instead of 10.2 %"),
    ("MNIST-1D", "recurrent dropout", f"{KRUEGER}: error 7.5 % instead of 10.2 %"),
    ("MNIST-1D", "dropout", "Zaremba, Sutskever & Vinyals 2014, PTB"),
    ("MNIST-1D", "AR", "Merity et al. 2018, PTB: perplexity 60.3 without AR and TAR, 57.3 with all"),
]
# of the memory task at the strong end of the range
KEEP = {
    "soft orthogonality": "Vorontsov et al. 2017",
    "to identity": "Schmidt et al. 2021",
    "Ω": "Pascanu, Mikolov & Bengio 2013, section 3.3",
}


class Result(NamedTuple):
    """What was found on a task.

    Attributes:
        task: the task.
        chosen: by method, what validation chose.
        tested: by method, its networks on test rows.
        gain: by method, the error of none less its own, seed by seed.
    """

    task: Scored
    chosen: dict[str, Chosen]
    tested: dict[str, Outcome]
    gain: dict[str, Comparison]


def gains(tested: Mapping[str, Outcome]) -> dict[str, Comparison]:
    """The error of none less that of each method, in pairs of networks of one seed: a family with Holm's correction."""
    others = [name for name in tested if name != NONE]
    pairs = [(tested[NONE].error, tested[name].error) for name in others]
    return dict(zip(others, paired(pairs), strict=True))


def relative(result: Result, name: str) -> tuple[float, float]:
    """The error of a method less that of none, and its standard error, in per cent of the mean error of none."""
    scale = 100 / float(result.tested[NONE].error.mean())
    return -scale * result.gain[name].mean, scale * result.gain[name].error


def table(result: Result, costs: Mapping[str, float]) -> str:
    """A method a line, the best first."""
    last = result.task.num_steps - 1
    rows = []
    for name in sorted(result.tested, key=lambda name: result.tested[name].error.mean()):
        tested, trial = result.tested[name], result.chosen[name].trial
        gain = result.gain.get(name)
        difference = ("", "") if gain is None else (f"{-gain.mean:+.4f} ± {gain.error:.4f}", f"{gain.p:.3g}")
        strength = f"{trial.strength:.3g}" if trial.method.tunable else ""
        error = plus_minus(*mean_and_error(tested.error))
        numbers = reach(tested, last), f"{np.nanmedian(tested.radius):.2f}", f"{costs[name]:.2f}"
        rows.append((name, f"{trial.learning_rate:.2g}", strength, error, *difference, *numbers))
    header = ("method", "rate", "strength", f"test error ± SE ({result.task.unit})", "less none ± SE", "p (Holm)")
    return f"{result.task.name}\n{text_table((*header, 'horizon', 'ρ', 'cost'), rows)}"


def strong_table(strong: Mapping[str, Outcome], num_steps: int) -> str:
    """What the strong end of each range does on the memory task, the longest horizon first."""
    rows = [
        (name, reach(one, num_steps - 1), f"{np.nanmedian(one.radius):.2f}", plus_minus(*mean_and_error(one.error)))
        for name, one in sorted(strong.items(), key=lambda item: -np.median(item[1].horizon))
    ]
    header = ("method", "horizon", "ρ", "test error ± SE")
    return f"memory, every method at the strong end of its range\n{text_table(header, rows)}"


def reach(tested: Outcome, last: int) -> str:
    """The median horizon, which may be beyond the sequence."""
    median = float(np.median(tested.horizon))
    return f"> {last}" if median >= last else f"{median:.1f}"


def claims_of(results: Mapping[str, Result], strong: Mapping[str, Outcome]) -> list[Claim]:
    """What was expected beforehand; of methods and tasks that were not run nothing is measured."""

    def ratio(name):
        none = float(np.median(strong[NONE].horizon))
        return float(np.median(strong[name].horizon)) / none if name in strong and none else None

    about = "memory: horizon at the strong end over that of none"
    blind = float(strong["L2"].error.mean()) if "L2" in strong else None
    claims = [
        Claim(f"{about}, L2", PASCANU).at_most(LOST, ratio("L2")),
        Claim("memory: error at the strong end, in blind guesses, L2", SCHMIDT).at_least(0.9, blind),
        *(Claim(f"{about}, {name}", source).at_least(KEPT, ratio(name)) for name, source in KEEP.items()),
    ]
    for task, name, source in BETTER:
        claim = Claim(f"{task}: {name} is better than none", source)
        gain = results[task].gain.get(name) if task in results else None
        claims.append(claim if gain is None else claim.shown(gain))
    return claims


def found_of(results: Mapping[str, Result], strong: Mapping[str, Outcome], costs: Mapping[str, float]) -> list[str]:
    """Who keeps memory and who destroys it, and who is better than none."""
    none, last = float(np.median(strong[NONE].horizon)), results["memory"].task.num_steps - 1
    lost = [name for name, one in strong.items() if np.median(one.horizon) < LOST * none]
    told = ", ".join(f"{name} {reach(strong[name], last)}" for name in lost) or "none of them"
    kept = [name for name, one in strong.items() if one.error.mean() < LOST and name != NONE]
    dear = ", ".join(f"{name} × {costs[name]:.2f}" for name in kept) or "none of them"
    lines = [
        f"memory: the horizon without a regulariser is {reach(strong[NONE], last)} steps; at the strong end of their "
        f"ranges it is less than half of that with: {told}.",
        f"memory: below half of the blind guess's error at the strong end, with the cost of a step: {dear}.",
    ]
    for task, result in results.items():
        for verdict, sign in (("better", 1), ("worse", -1)):
            names: Sequence[str] = [n for n, g in result.gain.items() if g.p <= 0.05 and sign * g.mean > 0]
            shown = ", ".join(f"{name} {relative(result, name)[0]:+.0f} %" for name in names) or "none of them"
            lines.append(f"{task}: {verdict} than none at 5 % after Holm's correction: {shown}.")
    return lines
