"""The runs: every search of every repeat with its clock, and what was chosen, scored from fresh seeds on test rows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

import rnnreg as rr
from experiments.choosing_lambda import peers
from experiments.choosing_lambda.methods import METHODS, Search, Step, Values, axis_of
from experiments.choosing_lambda.tasks import Task

ZERO, BEST = "λ = 0", "best known"
POINTS = 24


class Timed(NamedTuple):
    """One search.

    Attributes:
        steps: what it would have chosen on the way; the last is its choice.
        seconds: on the clock, from the data to the choice.
    """

    steps: list[Step]
    seconds: float


class Outcome(NamedTuple):
    """What a way to choose leads to, `[repeats]` each, in the unit of the task.

    Attributes:
        loss: of networks from fresh seeds on test rows.
        wrong: share of wrong answers; NaN where the task has none.
        curve: `[repeats, budgets]`, the loss of what would have been chosen so far; NaN where nothing was.
        values: what was chosen.
        updates: that were made.
        seconds: of the search; the first compiles.
    """

    loss: np.ndarray
    wrong: np.ndarray
    curve: np.ndarray
    values: list[Values]
    updates: np.ndarray
    seconds: np.ndarray


class Result(NamedTuple):
    """A task.

    Attributes:
        task: the task.
        budgets: updates, of the curves.
        outcomes: by way to choose; `ZERO` and `BEST` are among them.
        peer_seconds: by peer, seconds of each round; the first brings its processes up.
        peer_losses: by peer, the least validation loss that it found.
    """

    task: Task
    budgets: np.ndarray
    outcomes: dict[str, Outcome]
    peer_seconds: dict[str, list[float]]
    peer_losses: dict[str, float]


def measure(
    task: Task,
    make_search: Callable[[], Search],
    methods: Sequence[str],
    *,
    repeats: int,
    peer_rounds: int,
    fresh_seeds: int,
    dense: tuple[int, int, int],
    cold: bool,
) -> Result:
    """Searches, in turn in each repeat, then the dense grid, then fresh seeds of all that was chosen.

    Args:
        task: the task.
        make_search: a search that has compiled nothing.
        methods: names of `METHODS`.
        repeats: searches of each.
        peer_rounds: searches of each peer, in the first repeats.
        fresh_seeds: networks of each choice.
        dense: λ, learning rates and seeds of the dense grid.
        cold: whether the first search of each way compiles all that it needs, whatever earlier processes and the others
            have compiled.
    """
    shared = make_search()
    searches = {name: make_search() if cold else shared for name in methods}
    timed: dict[str, list[Timed]] = {name: [] for name in methods}
    peer_seconds: dict[str, list[float]] = {}
    peer_losses: dict[str, float] = {}
    with without_stored_programs() if cold else contextlib.nullcontext():
        for repeat in range(repeats):
            for name, search in searches.items():
                timed[name].append(clocked(METHODS[name], search, repeat))
            for name, peer in peers.available().items() if repeat < peer_rounds else ():
                start = time.perf_counter()
                loss = peer(task, searches[methods[0]].num_trials, repeat)
                peer_seconds.setdefault(name, []).append(time.perf_counter() - start)
                peer_losses[name] = min(loss, peer_losses.get(name, np.inf))
    train = searches[methods[0]].train
    known = reference(task, train, *dense)
    budget = searches[methods[0]].updates
    budgets = np.unique(np.geomspace(task.num_updates / 2, budget, POINTS).round().astype(int))
    outcomes = tested(task, train, timed, known, budgets, fresh_seeds)
    return Result(task, budgets, outcomes, peer_seconds, peer_losses)


def clocked(method: Callable[[Search, int], list[Step]], search: Search, repeat: int) -> Timed:
    """A search with its time."""
    start = time.perf_counter()
    steps = method(search, repeat)
    return Timed(steps, time.perf_counter() - start)


def reference(task: Task, train: rr.Train, num_lams: int, num_rates: int, num_seeds: int) -> dict[str, Values]:
    """The best point of a dense grid on the test rows, and the best at λ = 0."""
    lams, rates = np.geomspace(*task.lams, num_lams), np.geomspace(*task.rates, num_rates)
    trials = [{"l2": float(lam), "learning_rate": float(rate)} for lam in (0.0, *lams) for rate in rates]
    loss, _ = losses(task, train, trials, seeds=range(num_seeds), key=jax.random.key(2))
    means = loss.mean(axis=1)
    return {ZERO: trials[int(means[:num_rates].argmin())], BEST: trials[int(means.argmin())]}


def losses(
    task: Task, train: rr.Train, trials: Sequence[Values], *, seeds: Iterable[int], key: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Losses on the test rows `[trials, seeds]` in the unit of the task, and shares of wrong answers, or NaN.

    A run that diverged has the loss of a blind guess.
    """
    result = rr.sweep(train, axis_of(trials), task.final, seeds=list(seeds), key=key, progress=False)
    found = result.metrics.transpose("trial", "seed", ...)
    lost = ~np.isfinite(found["val_loss"].values)
    loss = np.where(lost, task.blind, found["val_loss"].values) * task.scale
    wrong = np.where(lost, 1.0, found["val_wrong"].values) if task.wrong else np.full(loss.shape, np.nan)
    return loss, wrong


def tested(
    task: Task,
    train: rr.Train,
    timed: Mapping[str, Sequence[Timed]],
    known: Mapping[str, Values],
    budgets: np.ndarray,
    fresh_seeds: int,
) -> dict[str, Outcome]:
    """What each search chose, and would have chosen on the way, from the fresh seeds of its repeat."""
    repeats = len(next(iter(timed.values())))
    constant = {name: [Timed([Step(0, values)], 0.0)] * repeats for name, values in known.items()}
    every = {**timed, **constant}
    rows: dict[str, list[tuple]] = {name: [] for name in every}
    for repeat in range(repeats):
        steps = {name: found[repeat].steps for name, found in every.items()}
        trials = list({tuple(step.values.items()): step.values for each in steps.values() for step in each}.values())
        seeds = range(1000 * (repeat + 1), 1000 * (repeat + 1) + fresh_seeds)
        loss, wrong = (each.mean(axis=1) for each in losses(task, train, trials, seeds=seeds, key=jax.random.key(3)))
        for name, each in steps.items():
            along = np.array([loss[trials.index(step.values)] for step in each])
            place = np.searchsorted([step.updates for step in each], budgets, side="right") - 1
            curve = np.where(place < 0, np.nan, along[np.maximum(place, 0)])
            rows[name].append((along[-1], wrong[trials.index(each[-1].values)], curve))
        outcomes = {}
    for name, found in every.items():
        loss, wrong, curve = (np.array(column) for column in zip(*rows[name], strict=True))
        last = [one.steps[-1] for one in found]
        updates, seconds = np.array([step.updates for step in last]), np.array([one.seconds for one in found])
        outcomes[name] = Outcome(loss, wrong, curve, [step.values for step in last], updates, seconds)
    return outcomes


@contextlib.contextmanager
def without_stored_programs() -> Iterator[None]:
    """Programs that earlier processes left on disk are neither read nor written."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def whole_choice(*, num_lambdas: int, folds: int, seeds: int, hidden_size: int, num_updates: int, cold: bool) -> float:
    """Seconds from the sunspots to a chosen λ and its refitted networks, with all that is compiled for it."""
    from experiments._sunspots import network

    settings = {"hidden_size": hidden_size, "num_updates": num_updates, "transform": "identity"}
    with without_stored_programs() if cold else contextlib.nullcontext():
        start = time.perf_counter()
        data = network.sunspots(9, "identity")
        train = network.make_train(data, settings)
        grid = {"l2": network.log_grid(1e-4, 1e-1, num_lambdas), "learning_rate": 1e-2}
        options = {"seeds": seeds, "key": jax.random.key(0), "progress": False}
        result = rr.sweep(train, grid, data, folds=rr.selection.blocked_folds(folds), refit=True, **options)
        choice = rr.selection.choose(result, metric="val_arv", axis="l2")
        rr.selection.refit(train, result, choice, data, key=options["key"])
        return time.perf_counter() - start
