"""The runs: trials of every method on the rows to choose on, then what was chosen, and what is strong, on the test."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import rnnreg as rr
from experiments.combinations.methods import hypercube
from experiments.scoreboard.methods import METHODS, NONE, Method
from experiments.scoreboard.tasks import Scored

THRESHOLD = 0.1  # of the gradient at the last step; beyond the horizon there is less
SHOWN = 64  # test rows whose gradients are followed


class Trial(NamedTuple):
    """One setting of a method.

    Attributes:
        method: the method.
        learning_rate: of Adam.
        strength: of the method.
    """

    method: Method
    learning_rate: float
    strength: float


class Chosen(NamedTuple):
    """What validation chose for a method.

    Attributes:
        trial: the setting.
        error: mean over the search seeds on the rows held out.
    """

    trial: Trial
    error: float


class Outcome(NamedTuple):
    """What the networks of one setting do on test rows, `[seeds]` each.

    Attributes:
        error: of the task.
        horizon: steps back until less than `THRESHOLD` of the gradient is left; T − 1 where it never is.
        beyond: whether it never is.
        radius: ρ of the recurrent matrix, or of the block that the task names.
    """

    error: np.ndarray
    horizon: np.ndarray
    beyond: np.ndarray
    radius: np.ndarray


def train_of(task: Scored, methods: Sequence[Method], num_rows: int) -> rr.Train:
    """A run with these methods, each of a strength in `hyper`: Adam, whose rate falls linearly to 0, clipped at 1.

    Args:
        task: the task.
        methods: of one program; none of them for a run without a regulariser.
        num_rows: training rows.
    """
    falling = optax.linear_schedule(1.0, 0.0, task.num_epochs * -(-num_rows // (task.batch_size or num_rows)))
    change = next((method.cell for method in methods if method.cell), None)
    shown = rr.data.take_rows(task.test, np.arange(min(SHOWN, len(task.test.ys))))

    def network(hyper):
        options = {method.option: hyper[method.key] for method in methods if method.option}
        noise = {method.noise: hyper[method.key] for method in methods if method.noise}
        return task.network(change, noise=rr.Noise(**noise), **options)

    def optimizer(hyper):
        def steps(last):
            return [method.step(hyper[method.key]) for method in methods if method.step and method.last == last]

        rate = optax.scale_by_schedule(lambda step: -hyper["learning_rate"] * falling(step))
        return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), *steps(False), rate, *steps(True))

    def memory(net, params, batch):
        del batch
        flow = rr.diagnostics.gradient_flow(net, task.loss, params, shown)
        reach = rr.diagnostics.horizon(flow.log_norms["layer_0"], threshold=THRESHOLD)
        matrix = rr.networks.effective(net, params)["layer_0"]["W_hh"]
        return {"horizon": reach.lag, "beyond": reach.censored, "matrix": matrix}

    return rr.make_train(
        network,
        loss=task.loss,
        penalties={method.key: method.penalty() for method in methods if method.penalty},
        proximal=any(method.proximal for method in methods),
        metrics={"error": task.error},
        track={"memory": memory},
        optimizer=optimizer,
        num_epochs=task.num_epochs,
        record_every=task.num_epochs,
        batch_size=task.batch_size,
    )


def sweeps(
    task: Scored, split: rr.Split, trials: Sequence[Trial], *, seeds: Iterable[int], key: jax.Array
) -> Iterable[tuple[list[int], Any]]:
    """For each program the places of its trials, and the metrics of its sweep, `run` and `seed` first.

    Methods of one program run as one sweep, in which those that are off have a strength that does nothing.
    """
    order = sorted(range(len(trials)), key=lambda place: trials[place].method.program)
    for _, group in itertools.groupby(order, key=lambda place: trials[place].method.program):
        places = list(group)
        here = {trials[place].method.name: trials[place].method for place in places}
        methods = [method for name, method in here.items() if name != NONE]
        numbers: dict[str, list[float]] = {"learning_rate": [trials[place].learning_rate for place in places]}
        for method in (one for one in methods if one.tunable):
            own = [trials[place].method is method for place in places]
            numbers[method.key] = [
                trials[place].strength if on else method.off for place, on in zip(places, own, strict=True)
            ]
        train = train_of(task, methods, len(split.train.ys))
        grid = {"run": rr.zipped(**numbers)}
        result = rr.sweep(train, grid, split, seeds=list(seeds), key=key, progress=False)
        yield places, result.metrics.transpose("run", "seed", ...)


def search(task: Scored, methods: Sequence[Method], *, num_trials: int, num_seeds: int) -> list[Chosen]:
    """The trial of every method with the least mean validation error; of equal ones the first."""
    points = hypercube(num_trials, task.rates)
    trials = [Trial(method, rate, method.strength(shares[0])) for method in methods for rate, shares in points]
    means = np.empty(len(trials))
    seeds, key = range(num_seeds), jax.random.key(0)
    for places, found in sweeps(task, task.search, trials, seeds=seeds, key=key):
        means[places] = known(found["val_error"].values, task.blind).mean(axis=1)
    means = means.reshape(len(methods), num_trials)
    best = np.arange(len(methods)) * num_trials + means.argmin(axis=1)
    return [Chosen(trials[place], float(error)) for place, error in zip(best, means.min(axis=1), strict=True)]


def confirm(task: Scored, trials: Sequence[Trial], *, num_seeds: int) -> list[Outcome]:
    """What the networks of each trial do on test rows, from seeds that no choice has seen."""
    tested: dict[int, Outcome] = {}
    seeds, key = range(1000, 1000 + num_seeds), jax.random.key(1)
    for places, found in sweeps(task, task.final, trials, seeds=seeds, key=key):
        errors = known(found["val_error"].values, task.blind)
        last = {name: found[f"history_memory.{name}"].isel(epoch=-1).values for name in ("horizon", "beyond", "matrix")}
        beyond = last["beyond"].astype(bool)
        horizons = np.where(beyond, task.num_steps - 1, known(last["horizon"], 0.0))
        radii = spectral_radii(last["matrix"], task.block)
        for row, place in enumerate(places):
            tested[place] = Outcome(errors[row], horizons[row], beyond[row], radii[row])
    return [tested[place] for place in range(len(trials))]


def strong_trials(methods: Mapping[str, Method], learning_rate: float) -> list[Trial]:
    """Every method at the strong end of its range, with one learning rate."""
    return [Trial(method, learning_rate, method.strength(1.0)) for method in methods.values()]


def known(values: np.ndarray, instead: float) -> np.ndarray:
    """Values where there are some; a run that diverged has none."""
    return np.where(np.isfinite(values), values, instead)


def spectral_radii(matrices: np.ndarray, block: int) -> np.ndarray:
    """ρ of one square block of matrices `[…, H, G·H]`; NaN where one is not finite."""
    H = matrices.shape[-2]
    blocks = matrices[..., block * H : (block + 1) * H]
    fine = np.isfinite(blocks).all(axis=(-2, -1))
    found = np.full(fine.shape, np.nan)
    found[fine] = np.abs(np.linalg.eigvals(blocks[fine])).max(axis=-1)
    return found


def applicable(task: Scored, methods: Iterable[str]) -> dict[str, Method]:
    """The methods that the task's cell can have, none first."""
    chosen = dict.fromkeys((NONE, *methods))
    return {name: METHODS[name] for name in chosen if METHODS[name].gated or not task.gated}
