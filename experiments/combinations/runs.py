"""The runs: trials of every arm on the rows to choose on, then what was chosen on all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax

import rnnreg as rr
from experiments.combinations.methods import CELLS, Arm, trials
from experiments.combinations.tasks import Task

Row = tuple[Arm, Mapping[str, float]]


class Chosen(NamedTuple):
    """What validation chose for an arm.

    Attributes:
        arm: the arm.
        numbers: learning rate and strengths.
        accuracy: mean over the search seeds on the rows held out.
    """

    arm: Arm
    numbers: dict[str, float]
    accuracy: float


def train_of(task: Task, static: tuple[str, bool], num_rows: int) -> rr.Train:
    """A run of the task: Adam, whose learning rate falls linearly to 0, with gradients of at most length 1."""
    cell, variational = static
    num_updates = task.num_epochs * -(-num_rows // task.batch_size)
    falling = optax.linear_schedule(1.0, 0.0, num_updates)

    def network(hyper):
        return task.network(
            CELLS[cell],
            output_dropout=hyper["output_dropout"],
            recurrent_dropout=hyper["recurrent_dropout"],
            variational=variational,
            noise=rr.Noise(zoneout=hyper["zoneout"]),
        )

    def optimizer(hyper):
        return optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.scale_by_schedule(lambda step: -hyper["learning_rate"] * falling(step)),
        )

    return rr.make_train(
        network,
        loss=rr.losses.softmax_cross_entropy(),
        penalties={"l2": rr.penalties.l2()},
        metrics={"accuracy": rr.metrics.accuracy()},
        optimizer=optimizer,
        num_epochs=task.num_epochs,
        record_every=task.num_epochs,
        batch_size=task.batch_size,
    )


def accuracies(task: Task, split: rr.Split, rows: Sequence[Row], *, seeds: Iterable[int], key: jax.Array) -> np.ndarray:
    """Of the validation rows after training, `[rows, seeds]`; 0 for a run that diverged.

    A run scores the network that predicts: its batch statistics are those of all training rows of the split, computed
    after the last update, and no validation row enters them.

    Rows that share a program run as one sweep: what is off in an arm has the strength 0, which is no noise and no λ.
    """
    seeds, order = list(seeds), sorted(range(len(rows)), key=lambda place: rows[place][0].static)
    found = np.empty((len(rows), len(seeds)))
    for static, members in itertools.groupby(order, key=lambda place: rows[place][0].static):
        places = list(members)
        numbers = {name: [rows[place][1][name] for place in places] for name in rows[places[0]][1]}
        train = train_of(task, static, len(split.train.ys))
        result = rr.sweep(train, {"run": rr.zipped(**numbers)}, split, seeds=seeds, key=key, progress=False)
        found[places] = result.metrics["val_accuracy"].transpose("run", "seed").values
    return np.nan_to_num(found)


def search(task: Task, arms: Sequence[Arm], *, num_trials: int, num_seeds: int) -> list[Chosen]:
    """The best trial of every arm by its mean validation accuracy; of equal ones the first."""
    rows = [(arm, trial) for arm in arms for trial in trials(arm, num_trials, task.rates)]
    means = accuracies(task, task.search, rows, seeds=range(num_seeds), key=jax.random.key(0)).mean(axis=1)
    means = means.reshape(len(arms), num_trials)
    best = means.argmax(axis=1)
    return [
        Chosen(arm, dict(rows[place * num_trials + trial][1]), float(means[place, trial]))
        for place, (arm, trial) in enumerate(zip(arms, best, strict=True))
    ]


def confirm(task: Task, chosen: Sequence[Chosen], *, num_seeds: int) -> dict[str, np.ndarray]:
    """Test accuracies `[seeds]` by the name of the arm, on seeds that no choice has seen."""
    rows = [(one.arm, one.numbers) for one in chosen]
    found = accuracies(task, task.final, rows, seeds=range(1000, 1000 + num_seeds), key=jax.random.key(1))
    return {one.arm.name: values for one, values in zip(chosen, found, strict=True)}
