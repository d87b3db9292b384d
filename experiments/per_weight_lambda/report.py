"""What is claimed, and the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments._harness import Claim, mean_and_error, paired, text_table
from experiments.per_weight_lambda.search import NAMES, STEP, Tried

HERE = "expected here, beforehand"
NONE, SHARED, SHARED_GRAD = "no penalty", "shared, grid", "shared, gradient"
EACH, RANDOM, ONLINE = "each, gradient", "each, random points", "each, online"
ALONE = {name: f"W_{name} alone, grid" for name in NAMES}
MEMORY = "adding"


class Checked(NamedTuple):
    """The derivative d log val / d log λ at the start, in each repeat.

    Attributes:
        differences: `[R]`, the largest difference of the three from central differences of runs, over the largest.
        chain: `[R]`, their sum (reverse mode) over that in a shared λ (forward mode).
        largest: `[R]`, the largest of the three.
    """

    differences: np.ndarray
    chain: np.ndarray
    largest: np.ndarray


def checked(around: Tried, each: Tried, shared: Tried) -> Checked:
    """From runs at `search.around_start`, and the first step of both ways to go."""
    assert each.slopes is not None
    assert shared.slopes is not None
    up, down = np.split(np.log(around.val), 2, axis=1)
    runs, slopes = (up - down) / (2 * STEP), each.slopes[:, 0]
    largest = np.abs(runs).max(axis=1)
    off = np.abs(slopes - runs).max(axis=1) / largest
    return Checked(off, slopes.sum(axis=1) / shared.slopes[:, 0, 0], largest)


class Found(NamedTuple):
    """What was found on one task.

    Attributes:
        chosen: by way to choose, what has the least error on validation rows in each repeat.
        paths: by way to choose, all that was visited, of the two that go by gradient.
        runs: by way to choose, the training runs of a repeat.
        checked: `[R]` each; see `Checked`.
    """

    chosen: dict[str, Tried]
    paths: dict[str, Tried]
    runs: dict[str, float]
    checked: Checked


def change(found: Found, one: str, other: str, what: str = "test") -> np.ndarray:
    """`[R]`, the logarithm of the error by one way over that by another."""
    return np.log(getattr(found.chosen[one], what)) - np.log(getattr(found.chosen[other], what))


def optimism(found: Found, name: str) -> np.ndarray:
    """`[R]`, the logarithm of the error on test rows over that on the validation rows that chose."""
    return np.log(found.chosen[name].test / found.chosen[name].val)


def claims_of(tasks: Mapping[str, Found]) -> list[Claim]:
    """Of each task, and of memory."""
    claims = []
    for name, found in tasks.items():
        claims += [
            Claim(f"{name}: three derivatives less differences of runs, relative, median over repeats", HERE).close(
                0.0, np.median(found.checked.differences), tolerance=1e-3
            ),
            Claim(f"{name}: their sum over the derivative in a shared λ, median over repeats", "chain rule").close(
                1.0, np.median(found.checked.chain), tolerance=1e-4
            ),
        ]
    for name, found in tasks.items():
        claims += [
            Claim(f"{name}: log error on validation rows, each by gradient − shared by grid", HERE).at_most(
                0.0, change(found, EACH, SHARED, "val").mean()
            ),
            Claim(f"{name}: … each by gradient − each by random points", HERE).at_most(
                0.0, change(found, EACH, RANDOM, "val").mean()
            ),
            Claim(f"{name}: … each by gradient − each online", "short-horizon bias, Wu et al. 2018").at_most(
                0.0, change(found, EACH, ONLINE, "val").mean()
            ),
            Claim(f"{name}: … shared by gradient − shared by grid", HERE).close(
                0.0, change(found, SHARED_GRAD, SHARED, "val").mean(), tolerance=0.05
            ),
        ]
    judged, helps = (
        paired([(change(found, *pair), 0.0) for found in tasks.values()]) for pair in ((SHARED, EACH), (NONE, SHARED))
    )
    fitted = paired([(optimism(found, EACH), optimism(found, SHARED)) for found in tasks.values()])
    for name, help_, test, over in zip(tasks, helps, judged, fitted, strict=True):
        claims += [
            Claim(f"{name}: a shared λ errs less on test rows than none (p, Holm)", HERE).shown(help_),
            Claim(f"{name}: each by gradient errs less on test rows than shared by grid (p, Holm)", HERE).shown(test),
            Claim(f"{name}: test over validation error is larger with each than shared (p, Holm)", HERE).shown(over),
        ]
    if MEMORY in tasks:
        claims += _of_memory(tasks[MEMORY])
    return claims


def _of_memory(found: Found) -> list[Claim]:
    chosen = found.chosen
    logs = np.log(chosen[EACH].lams)
    alone = [chosen[ALONE[name]].test for name in NAMES]
    tests = paired(
        [(logs[:, 0], logs[:, 1]), (chosen[EACH].rho, chosen[SHARED].rho), (np.log(alone[1]), np.log(alone[0]))]
    )
    said = ("λ of W_hh is below that of W_xh", "ρ(W_hh) is larger with each than with shared")
    said += ("a λ of W_hh alone errs more on test rows than one of W_xh alone",)
    return [Claim(f"{MEMORY}: {one} (p, Holm)", HERE).shown(test) for one, test in zip(said, tests, strict=True)]


def comparisons(tasks: Mapping[str, Found]) -> dict[str, dict[str, Any]]:
    """By task and pair of ways, the mean log ratio of test errors, with its error and Holm's p over all of them."""
    pairs = [(EACH, SHARED), (EACH, SHARED_GRAD), (RANDOM, SHARED), (ONLINE, SHARED), (SHARED, NONE)]
    pairs += [(each, SHARED) for each in ALONE.values()]
    places = [(name, pair) for name in tasks for pair in pairs]
    found = paired([(change(tasks[name], *pair), 0.0) for name, pair in places])
    told: dict[str, dict[str, Any]] = {name: {} for name in tasks}
    for (name, (one, other)), test in zip(places, found, strict=True):
        told[name][f"{one} − {other}"] = test
    return told


def tables(tasks: Mapping[str, Found]) -> str:
    """λ, errors and comparisons."""
    rows, compared = [], []
    for name, found in tasks.items():
        for way, one in found.chosen.items():
            logs = np.log10(np.where(one.lams > 0, one.lams, np.nan))
            lams = [
                "–" if np.isnan(column).any() else f"{10 ** column.mean():.1e} ×/÷ {10 ** column.std(ddof=1):.1f}"
                for column in logs.T
            ]
            errors = [f"{mean:.3f} ± {error:.3f}" for mean, error in map(mean_and_error, (one.val, one.test))]
            ratio = "{:+.3f} ± {:.3f}".format(*mean_and_error(change(found, way, NONE)))
            gap = "{:+.3f} ± {:.3f}".format(*mean_and_error(optimism(found, way) - optimism(found, NONE)))
            rows.append((name, way, f"{found.runs[way]:.0f}", *lams, *errors, ratio, gap, f"{one.rho.mean():.2f}"))
    for name, tests in comparisons(tasks).items():
        compared += [(name, pair, f"{t.mean:+.3f} ± {t.error:.3f}", f"{t.p:.2g}") for pair, t in tests.items()]
    header = ("task", "λ chosen", "runs", *(f"λ of W_{name}" for name in NAMES), "validation", "test")
    header += ("log test/none", "log test/val − none's", "ρ(W_hh)")
    return "\n\n".join(
        (text_table(header, rows), text_table(("task", "log test error", "mean ± SE", "p, Holm"), compared))
    )


def summary_of(tasks: Mapping[str, Found]) -> dict[str, Any]:
    """What goes into summary.json."""
    compared = comparisons(tasks)
    return {
        name: {
            "chosen": found.chosen,
            "paths": found.paths,
            "runs": found.runs,
            "checked": found.checked,
            "compared": compared[name],
        }
        for name, found in tasks.items()
    }
