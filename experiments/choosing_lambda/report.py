"""Statistics, claims, tables and what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from experiments._harness import Claim, Comparison, mean_and_error, paired, plus_minus, text_table
from experiments.choosing_lambda.peers import COUNTERPART, OPTUNA, SKLEARN
from experiments.choosing_lambda.runs import BEST, ZERO, Result
from experiments.choosing_lambda.tasks import TASKS

SMALL = 0.1  # of what λ can gain
# a way to choose, whether it should be better than random or random than it, and who says so
AGAINST_RANDOM = [
    ("grid", False, "Bergstra & Bengio 2012"),
    ("halving", True, "Jamieson & Talwalkar 2016; Li et al. 2018"),
    ("TPE", True, "Bergstra et al. 2011; Akiba et al. 2019"),
    ("hypergradient", True, "Maclaurin et al. 2015; Lorraine et al. 2020"),
    ("online", True, "Luketina et al. 2016"),
]
OURS = "this project"


def gain_of(result: Result) -> tuple[float, float]:
    """What λ can gain, the loss at λ = 0 less the best known, and its standard error over repeats."""
    return mean_and_error(result.outcomes[ZERO].loss - result.outcomes[BEST].loss)


def regret_of(result: Result, name: str, *, over: str = BEST) -> tuple[float, float]:
    """The loss of what was chosen less that of the best known (or of another choice), and its standard error."""
    return mean_and_error(result.outcomes[name].loss - result.outcomes[over].loss)


def relative(result: Result, found: tuple[float, float]) -> tuple[float, float] | None:
    """A regret in shares of what λ can gain; None where that is not two standard errors above 0."""
    gain, error = gain_of(result)
    return (found[0] / gain, found[1] / gain) if gain > 2 * error else None


def compared(result: Result) -> dict[str, Comparison]:
    """The loss of random less that of each other way, repeat by repeat: above 0 where that is better than random."""
    others = [name for name in result.outcomes if name not in ("random", ZERO, BEST)]
    if "random" not in result.outcomes:
        return {}
    pairs = [(result.outcomes["random"].loss, result.outcomes[name].loss) for name in others]
    return dict(zip(others, paired(pairs), strict=True))


def warm(seconds: Iterable[float]) -> float:
    """The median of all but the first, which compiles or brings processes up; of the first, if it is alone."""
    seconds = list(seconds)
    return float(np.median(seconds[1:] or seconds))


def share_of_budget(result: Result, name: str) -> float:
    """Updates over those of the budget, the largest of all repeats."""
    return float(result.outcomes[name].updates.max() / result.budgets[-1])


def faster(result: Result, peer: str, *, first: bool) -> float | None:
    """Seconds of a peer over those of its counterpart; None if one of them was not run."""
    ours = result.outcomes.get(COUNTERPART[peer])
    if ours is None or peer not in result.peer_seconds:
        return None
    theirs = result.peer_seconds[peer]
    return theirs[0] / ours.seconds[0] if first else warm(theirs) / warm(ours.seconds)


def claims_of(results: Mapping[str, Result], whole: float | None) -> list[Claim]:
    """What was expected beforehand; nothing is measured of what was not run."""
    claims = []
    for task in TASKS:
        result = results.get(task)
        against = {} if result is None else compared(result)
        for name, better, source in AGAINST_RANDOM:
            said = f"{name} is better than random" if better else f"random is better than {name}"
            claim, found = Claim(f"{task}: {said}, same budget", source), against.get(name)
            if found is not None and not better:
                found = found._replace(mean=-found.mean)
            claims.append(claim if found is None else claim.shown(found))
    for over, said in ((BEST, "the best known"), ("grid", "the whole grid's choice")):
        for task in TASKS:
            claim = Claim(f"{task}: halved grid, loss above that of {said}, in shares of what λ can gain", OURS)
            claims.append(claim.at_most(SMALL, halved(results.get(task), over)))
    both = {task: one for task, one in results.items() if {"grid", "halved grid"} <= set(one.outcomes)}
    steps = [share_of_budget(one, "halved grid") / share_of_budget(one, "grid") for one in both.values()]
    for task in TASKS:
        claim, one = Claim(f"{task}: seconds of the halved grid over those of the grid", OURS), both.get(task)
        clock = None if one is None else [warm(one.outcomes[name].seconds) for name in ("halved grid", "grid")]
        claims.append(claim.at_most(0.5, None if clock is None else clock[0] / clock[1]))
    used = [share_of_budget(one, name) for one in results.values() for name in one.outcomes]
    claims += [
        Claim("updates of any way to choose over the budget, largest", OURS).at_most(1.0, largest(used)),
        Claim("updates of the halved grid over those of the grid, largest", OURS).at_most(1 / 3, largest(steps)),
    ]
    for peer in (OPTUNA, SKLEARN):
        for first in (False, True):
            ratios = [faster(one, peer, first=first) for one in results.values()]
            found = [ratio for ratio in ratios if ratio is not None]
            when = "first search, with all that compiles" if first else "later searches"
            claim = Claim(f"seconds of {peer} over ours, {when}, least", OURS)
            claims.append(claim.at_least(10, min(found) if found else None))
    about = "sunspots, 16 λ × 5 folds × 4 seeds: seconds to the refitted choice, compiling included"
    return [*claims, Claim(about, OURS).at_most(30, whole)]


def halved(result: Result | None, over: str) -> float | None:
    """The relative regret of the halved grid, if it was measured."""
    if result is None or not {"halved grid", over} <= set(result.outcomes):
        return None
    found = relative(result, regret_of(result, "halved grid", over=over))
    return None if found is None else found[0]


def largest(values: list[float]) -> float | None:
    """The largest, if there is one."""
    return max(values) if values else None


def table(result: Result) -> str:
    """A way to choose a line."""
    against, rows = compared(result), []
    for name, one in result.outcomes.items():
        numbers = [[values[key] for values in one.values] for key in ("l2", "learning_rate")]
        chosen = [" ".join(f"{x:.2g}" for x in np.quantile(each, (0.25, 0.5, 0.75))) for each in numbers]
        regret = regret_of(result, name)
        share, test = relative(result, regret), against.get(name)
        percent = "" if share is None else f"{100 * share[0]:.0f} ± {100 * share[1]:.0f}"
        p = "" if test is None else f"{test.p:.2g}"
        wrong = f"{one.wrong.mean():.3f}" if result.task.wrong else ""
        clock = ("", "") if name in (ZERO, BEST) else (f"{warm(one.seconds):.2f}", f"{one.seconds[0]:.1f}")
        used = "" if name in (ZERO, BEST) else f"{share_of_budget(result, name):.2f}"
        loss = plus_minus(*mean_and_error(one.loss))
        rows.append((name, *chosen, loss, wrong, plus_minus(*regret), percent, p, used, *clock))
    for peer, seconds in result.peer_seconds.items():
        rows.append((peer, *[""] * 7, "", f"{warm(seconds):.2f}", f"{seconds[0]:.1f}"))
    header = ("", "λ (quartiles)", "rate (quartiles)", f"test loss ± SE ({result.task.unit})", "wrong", "regret ± SE")
    header += ("% of gain ± SE", "p against random", "budget used", "seconds", "first")
    peers = ", ".join(f"{peer} {loss:.4g}" for peer, loss in result.peer_losses.items())
    note = f"\nleast validation loss of the peers: {peers}" if peers else ""
    return f"{result.task.name}\n{text_table(header, rows)}{note}"


def found_of(results: Mapping[str, Result]) -> list[str]:
    """What λ can gain, who comes near to it, and how long that took."""
    lines = []
    for task, result in results.items():
        gain, error = gain_of(result)
        head = f"{task} ({result.task.unit}): λ can gain {plus_minus(gain, error)}"
        shares = {
            name: relative(result, regret_of(result, name)) for name in result.outcomes if name not in (ZERO, BEST)
        }
        told = ", ".join(
            f"{name} {100 * share[0]:.0f} ± {100 * share[1]:.0f} %" for name, share in shares.items() if share
        )
        lines.append(f"{head}; regret in shares of it: {told}." if told else f"{head}: no share of it is told.")
        tests = compared(result)
        for verdict, sign in (("better", 1), ("worse", -1)):
            names = ", ".join(name for name, test in tests.items() if test.p <= 0.05 and sign * test.mean > 0)
            lines.append(f"{task}: {verdict} than random at 5 % after Holm's correction: {names or 'none of them'}.")
    for peer in (OPTUNA, SKLEARN):
        ratios = {
            task: (faster(one, peer, first=False), faster(one, peer, first=True)) for task, one in results.items()
        }
        told = ", ".join(f"{task} {a:.0f} (first {b:.1f})" for task, (a, b) in ratios.items() if a and b)
        if told:
            lines.append(f"seconds of {peer} over those of {COUNTERPART[peer]} here: {told}.")
    return lines
