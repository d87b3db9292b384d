"""The ways to choose: each spends one budget, and tells what it would have chosen on the way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments.choosing_lambda.tasks import RECORDS, Task

Values = dict[str, float]
NAMES = ("l2", "learning_rate")
FACTOR = 3
BLOCKS = 3 * RECORDS  # of an online run: λ moves at the end of each
WITH_SLOPES = 4  # what an update costs of which derivatives are taken, in updates (`rr.hypergradient`)


class Step(NamedTuple):
    """What a search would choose if it ended here.

    Attributes:
        updates: made so far, of all lanes.
        values: λ and the learning rate.
    """

    updates: int
    values: Values


@dataclasses.dataclass(frozen=True)
class Search:
    """A task as searches see it: what they compile is kept as long as this lives.

    Attributes:
        task: the task.
        num_trials: how many full runs the updates of the budget make.
        grid_rates: learning rates of the grid.
        batch: trials that TPE is asked for at once.
        starts: descents by the hypergradient.
        train: the run.
        slopes: of a lane's values, the loss at the end of the run and its derivatives in their logarithms.
        tuned: of a lane's values, λ after the online run.
    """

    task: Task
    num_trials: int
    grid_rates: int
    batch: int
    starts: int
    train: rr.Train
    slopes: Callable[..., Any]
    tuned: Callable[..., Any]

    @property
    def updates(self) -> int:
        """The budget."""
        return self.num_trials * self.task.num_updates


def search_of(task: Task, *, num_trials: int, grid_rates: int, batch: int, starts: int) -> Search:
    """A search that has compiled nothing yet."""
    train = task.train()
    every, optimizer = task.num_updates // BLOCKS, optax.adam(0.3)

    def slopes(lane, shared):
        options = {"names": NAMES, "mode": "reverse", "remat": "sqrt"}
        found = rr.hypergradient(train, lane, shared["data"], key=shared["key"], **options)
        return found.value, found.gradient

    def tuned(lane, shared):
        options = {"every": every, "names": "l2", "optimizer": optimizer, "bounds": task.lams}
        return rr.selection.tune_online(train, lane, shared["data"], key=shared["key"], **options).hyper["l2"]

    return Search(task, num_trials, grid_rates, batch, starts, train, slopes, tuned)


def keys_of(repeat: int) -> tuple[jax.Array, jax.Array]:
    """Of a repeat: the key of the runs, which all ways to choose share, and that of what they draw."""
    runs, draws = jax.random.split(jax.random.fold_in(jax.random.key(1), repeat))
    return runs, draws


def grid(search: Search, repeat: int) -> list[Step]:
    """All pairs; on the way they come in a random order."""
    trials = in_order(grid_trials(search), np.random.default_rng(repeat).permutation(search.num_trials))
    return steps_of(search.task.num_updates, scores(search, trials, repeat), trials)


def random(search: Search, repeat: int) -> list[Step]:
    """Log-uniform trials."""
    trials = drawn(search, search.num_trials, repeat)
    return steps_of(search.task.num_updates, scores(search, trials, repeat), trials)


def halved_grid(search: Search, repeat: int) -> list[Step]:
    """The grid by successive halving."""
    return halved(search, grid_trials(search), repeat)


def halving(search: Search, repeat: int) -> list[Step]:
    """As many random trials as the budget pays, by successive halving."""
    sizes = range(search.num_trials, 2 * RECORDS * search.num_trials)
    most = max(size for size in sizes if sum(rung_updates(search.task, size)) <= search.updates)
    return halved(search, drawn(search, most, repeat), repeat)


def tpe(search: Search, repeat: int) -> list[Step]:
    """Optuna's TPE in batches."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    box = {"l2": search.task.lams, "learning_rate": search.task.rates}
    space = {name: optuna.distributions.FloatDistribution(*ends, log=True) for name, ends in box.items()}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=repeat, constant_liar=True))
    options = {"num_trials": search.num_trials, "batch": search.batch, "key": keys_of(repeat)[0], "progress": False}
    rr.selection.run_study(study, search.train, space, search.task.search, **options)
    told = [np.nan if trial.value is None else trial.value for trial in study.trials]
    return steps_of(search.task.num_updates, told, [trial.params for trial in study.trials])


def hypergradient(search: Search, repeat: int) -> list[Step]:
    """Descents by Adam on log λ and log learning rate, each step with the derivatives of a whole run."""
    price = WITH_SLOPES * search.task.num_updates
    starts = drawn(search, search.starts, repeat)
    low, high = (jnp.log(jnp.array([search.task.lams[i], search.task.rates[i]]))[:, None] for i in (0, 1))
    logs = jnp.log(jnp.array([[start[name] for start in starts] for name in NAMES]))
    descent, shared = optax.adam(1.0), {"data": search.task.search, "key": run_key(repeat)}
    state, told, trials = descent.init(logs), [], []
    for _ in range(search.updates // (price * search.starts)):
        lanes = dict(zip(NAMES, np.exp(np.asarray(logs)), strict=True))
        values, slopes = rr.lanes.map_lanes(search.slopes, lanes, shared=shared, hidden_size=search.task.hidden_size)
        told += list(values)
        trials += [{name: float(lanes[name][i]) for name in NAMES} for i in range(search.starts)]
        slope = jnp.nan_to_num(jnp.stack([slopes[name] for name in NAMES]), posinf=0, neginf=0)
        moves, state = descent.update(slope, state)
        logs = jnp.clip(logs + jnp.asarray(moves), low, high)
    return steps_of(price, told, trials)


def online(search: Search, repeat: int) -> list[Step]:
    """λ moves while networks train from random trials; then each is trained at the λ where it ended."""
    online = search.task.num_updates + (WITH_SLOPES - 1) * BLOCKS  # each block has one update with derivatives
    per_run = online + search.task.num_updates
    trials = drawn(search, search.updates // per_run, repeat)
    lanes = {name: np.array([trial[name] for trial in trials], np.float32) for name in NAMES}
    shared = {"data": search.task.search, "key": run_key(repeat)}
    ends = rr.lanes.map_lanes(search.tuned, lanes, shared=shared, hidden_size=search.task.hidden_size)
    trials = [trial | {"l2": short(end)} for trial, end in zip(trials, ends, strict=True)]
    return steps_of(per_run, scores(search, trials, repeat), trials)


METHODS: dict[str, Callable[[Search, int], list[Step]]] = {
    "grid": grid,
    "halved grid": halved_grid,
    "random": random,
    "halving": halving,
    "TPE": tpe,
    "hypergradient": hypergradient,
    "online": online,
}


def grid_trials(search: Search) -> list[Values]:
    """λ × learning rate, evenly spaced in logarithms over the box."""
    lams = np.geomspace(*search.task.lams, search.num_trials // search.grid_rates)
    rates = np.geomspace(*search.task.rates, search.grid_rates)
    return [{"l2": float(lam), "learning_rate": float(rate)} for lam in lams for rate in rates]


def drawn(search: Search, num: int, repeat: int) -> list[Values]:
    """Random trials; more of them leave the first ones as they are."""
    made = rr.selection.sample(search.task.space, num, key=keys_of(repeat)[1]).values
    return [{name: float(made[name][i]) for name in NAMES} for i in range(num)]


def axis_of(trials: Sequence[Values]) -> dict[str, Any]:
    """The trials as an axis of a sweep."""
    return {"trial": rr.zipped(**{name: [trial[name] for trial in trials] for name in NAMES})}


def scores(search: Search, trials: Sequence[Values], repeat: int) -> np.ndarray:
    """Validation losses at the end of the runs of these trials."""
    key = keys_of(repeat)[0]
    result = rr.sweep(search.train, axis_of(trials), search.task.search, key=key, progress=False)
    return result.metrics["val_loss"].isel(seed=0).values


def run_key(repeat: int) -> jax.Array:
    """The key of the lane of a sweep: that of its only seed."""
    return jax.random.fold_in(keys_of(repeat)[0], 0)


def halved(search: Search, trials: Sequence[Values], repeat: int) -> list[Step]:
    """What is best at each rung."""
    options = {"key": keys_of(repeat)[0], "factor": FACTOR, "min_epochs": rungs_of(search.task)[0], "progress": False}
    found = rr.selection.halving(search.train, axis_of(trials), search.task.search, **options)
    made = np.cumsum(rung_updates(search.task, len(trials)))
    told = found.scores["score"].transpose("trial", "epoch").values
    assert made[-1] == found.num_updates or np.isnan(told).any(), "rungs are not those that were charged"
    return [
        Step(int(at), {name: short(value) for name, value in trials[int(np.nanargmin(told[:, i]))].items()})
        for i, at in enumerate(made)
    ]


def rungs_of(task: Task) -> list[int]:
    """After how many updates trials are compared: a ninth, a third, all."""
    return [task.num_updates // FACTOR**left for left in (2, 1, 0)]


def rung_updates(task: Task, num_trials: int) -> list[int]:
    """Updates of the lanes from rung to rung, of so many trials at the start."""
    ends = [0, *rungs_of(task)]
    return [max(1, num_trials // FACTOR**i) * (ends[i + 1] - ends[i]) for i in range(len(ends) - 1)]


def steps_of(price: int, told: Iterable[float], trials: Sequence[Mapping[str, float]]) -> list[Step]:
    """The best so far after each trial, where it changes, and at the end; each trial has the same price in updates.

    >>> [step.updates for step in steps_of(10, [3.0, 4.0, 1.0, float("nan")], [{}, {}, {}, {}])]
    [10, 30, 40]
    """
    best, found = math.inf, []
    for number, (score, trial) in enumerate(zip(told, trials, strict=True), start=1):
        if score < best:
            best = score
            found.append(Step(price * number, {name: short(trial[name]) for name in trial}))
    if not found:
        raise ValueError("no trial has a finite score: nothing can be chosen. Lower the learning rates.")
    end = price * len(trials)
    return found if found[-1].updates == end else [*found, Step(end, found[-1].values)]


def short(value: Any) -> float:
    """A number in six digits, which float32 tells apart."""
    return float(f"{value:.6g}")


def in_order(trials: Sequence[Values], order: Iterable[int]) -> list[Values]:
    """The trials in another order."""
    return [trials[place] for place in order]
