"""How much of a random search can be saved: successive halving and Hyperband next to the sweep of all trials.

Trials are pairs of λ and learning rate for a small network on the sunspot years up to 1920, each with several seeds and
blocked folds. The sweep trains all of them to the end; halving runs over the same trials, Hyperband over its own.

Expected before anything was measured: what halving trains to the end has the bits of the sweep; its updates are those
of the formula, Σ_i n_i (r_i − r_{i−1}); its choice lies within one standard error of the best trial, which is all
that cross-validation tells apart; it is nearer to it than a random search of as many updates; and it takes at most half
of the sweep's seconds. No test year is read.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, finished, run, text_table

OURS = "this project"
ORDERS = 64


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the search."""

    num_trials: int = 81
    """Trials of the sweep and of halving."""
    num_epochs: int = 810
    """Full-batch updates of a whole run."""
    first_rung: int = 10
    """Updates before trials are compared for the first time, and between two records."""
    factor: int = 3
    """Of so many trials one goes on."""
    hidden_size: int = 8
    """Hidden units."""
    window: int = 12
    """Years that a forecast reads."""
    seeds: int = 3
    """Seeds of each trial."""
    folds: int = 5
    """Blocks of consecutive target years."""


PRESETS = {
    "quick": {"num_trials": 9, "num_epochs": 45, "first_rung": 5, "hidden_size": 4, "seeds": 1, "folds": 2},
    "full": {},
}


def main(config: Config) -> Report:
    """Sweeps, halves, runs Hyperband, and compares what they found for what."""
    rr.use_all_cores()
    data = rr.datasets.sunspots(window=config.window, transform="sqrt")
    train = rr.make_train(
        rr.network([rr.cells.elman(config.hidden_size)], 1, readout="last"),
        loss=rr.losses.squared_error("mean"),
        penalties={"l2": rr.penalties.l2()},
        optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
        num_epochs=config.num_epochs,
        record_every=config.first_rung,
    )
    space = {"l2": rr.selection.LogUniform(1e-5, 1, zero=0.1), "learning_rate": rr.selection.LogUniform(1e-4, 1e-1)}
    trials = rr.selection.sample(space, config.num_trials, key=jax.random.key(1))
    grid = {"trial": trials}
    lanes: dict[str, Any] = {
        "key": jax.random.key(0),
        "seeds": config.seeds,
        "folds": rr.selection.blocked_folds(config.folds),
        "plan": "one_by_one",
    }
    rungs: dict[str, Any] = {"factor": config.factor, "min_epochs": config.first_rung}
    start = time.perf_counter()
    swept = finished(rr.sweep(train, grid, data, **lanes))
    seconds = time.perf_counter() - start - swept.config["seconds_compile"]
    start = time.perf_counter()
    halved = rr.selection.halving(train, grid, data, **lanes, **rungs)
    seconds_halved = time.perf_counter() - start  # by the program of the sweep
    banded = rr.selection.hyperband(train, space, data, **lanes, **rungs)

    choice = rr.selection.choose(swept, axis="trial")
    scores, best = choice.curve.mean, choice.curve.mean[int(choice.lam)]
    chosen = scores[int(halved.choice.lam)]
    one, other = halved.result.metrics, swept.metrics
    names = ("val_loss", "train_loss", "history_val_loss")
    differ = max(float(abs(one[name] - other[name]).where(one.finished).max()) for name in names)
    formula = sum(
        max(1, config.num_trials // config.factor**cuts) * (after - before)
        for cuts, (before, after) in enumerate(zip((0, *_ends(halved)), _ends(halved), strict=False))
    ) / (config.num_trials * config.num_epochs)
    affordable = max(1, halved.num_updates * config.num_trials // halved.full_updates)
    orders = np.stack([np.random.default_rng(seed).permutation(scores) for seed in range(ORDERS)], axis=1)
    random = np.minimum.accumulate(orders, axis=0)[affordable - 1].mean()
    claims = [
        Claim("difference of what halving trained to the end to the sweep", OURS).close(0.0, differ, tolerance=0.0),
        Claim("share of the sweep's updates that halving makes", "Jamieson & Talwalkar 2016").close(
            formula, 1 - halved.saved, tolerance=1e-9
        ),
        Claim("seconds of halving over those of the sweep, without compiling", OURS).at_most(
            0.5, seconds_halved / seconds
        ),
        Claim("regret of halving's choice, in standard errors of the best trial", OURS).at_most(
            1.0, (chosen - best) / choice.curve.se[int(choice.lam)]
        ),
        Claim("regret of halving's choice over that of a random search of as many updates", OURS).at_most(
            1.0, (chosen - best) / max(random - best, 1e-12)
        ),
    ]
    first = halved.scores.score.isel(epoch=0).values
    correlation = float(np.corrcoef(_ranks(first), _ranks(scores))[0, 1])
    found = [
        ("sweep", config.num_trials, halved.full_updates, best, choice),
        ("halving", config.num_trials, halved.num_updates, chosen, halved.choice),
        ("Hyperband", banded.scores.trial.size, banded.num_updates, _final(banded), banded.choice),
    ]
    rows = [(name, str(num), f"{updates:,}", f"{loss:.4f}", _said(of)) for name, num, updates, loss, of in found]
    header = ("search", "trials", "updates", "CV loss", "chosen")
    summary = {
        "searches": [dict(zip(header, row, strict=True)) for row in rows],
        "rank_correlation_of_first_rung_and_end": correlation,
        "random_search_of_as_many_updates": random,
        "seconds": {"sweep": seconds, "halving": seconds_halved},
    }
    said = f"rank correlation of the scores at the first rung with those at the end: {correlation:.2f}"
    text = "\n\n".join([text_table(header, rows), str(halved), str(banded), said])
    figures = {"brackets": _brackets(halved, banded), "regret": _regret(config, orders, halved, banded)}
    return Report(summary, claims, text, figures)


def _ends(found: rr.selection.Halving) -> list[int]:
    return [rung.num_epochs for rung in found.rungs]


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(np.where(np.isfinite(values), values, np.inf)))


def _said(choice: rr.selection.Choice) -> str:
    return ", ".join(f"{name}={value:.2g}" for name, value in choice.values.items())


def _final(found: rr.selection.Halving) -> float:
    return float(found.scores.score.isel(epoch=-1).min())


def _brackets(halved: rr.selection.Halving, banded: rr.selection.Halving) -> Figure:
    with rr.plotting.style():
        figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    for ax, found in zip(axes, (halved, banded), strict=True):
        rr.plotting.halving_brackets(found, ax=ax)
    return figure


def _regret(config: Config, orders: np.ndarray, halved: rr.selection.Halving, banded: rr.selection.Halving) -> Figure:
    """Regret against the best of all trials that trained to the end, over updates."""
    a_trial = halved.full_updates / config.num_trials
    ended = banded.scores.score.isel(epoch=-1)
    spent, scores, total = [], [], 0
    for bracket in sorted({rung.bracket for rung in banded.rungs}):
        own = [rung for rung in banded.rungs if rung.bracket == bracket]
        ends = [rung.num_epochs for rung in own]
        epochs = sum(rung.num_trials * (end - start) for rung, start, end in zip(own, (0, *ends), ends, strict=False))
        total += epochs * a_trial / config.num_epochs
        spent.append(total)
        scores.append(float(ended.where(banded.scores.bracket == bracket).min()))
    best = min(orders.min(), *scores)
    with rr.plotting.style():
        figure, ax = plt.subplots()
    rr.plotting.regret(
        {"random search": orders, "halving": [_final(halved)], "Hyperband": scores},
        best,
        steps={
            "random search": a_trial * np.arange(1, len(orders) + 1),
            "halving": [halved.num_updates],
            "Hyperband": spent,
        },
        ax=ax,
    )
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS)
