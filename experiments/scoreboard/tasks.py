"""The three tasks: rows to choose on, rows to test on, the network of each, and how an answer is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments._sunspots.network import LOSS, arv_metric, sunspots
from experiments.combinations.tasks import Task, digits_in_one_dimension, held_out

Map = Callable[[rr.cells.Cell], rr.cells.Cell]


@dataclasses.dataclass(frozen=True)
class Scored:
    """Rows, a network of one layer that reads its last state, and an error.

    Attributes:
        name: in words.
        search: rows to train on, and as validation rows those to choose on.
        final: rows to train on, and as validation rows those to test on.
        cell: the cell, before a method makes another of it.
        output_size: O.
        loss: what is trained on.
        error: what is scored, less is better.
        unit: of the error, in words.
        blind: the error of a constant answer, which counts for a run that diverged.
        num_epochs: passes over the training rows.
        batch_size: rows of an update; None for all.
        rates: least and largest learning rate.
        block: which block of W_hh has the radius that is reported.
    """

    name: str
    search: rr.Split
    final: rr.Split
    cell: rr.cells.Cell
    output_size: int
    loss: rr.losses.Loss
    error: rr.metrics.Score
    unit: str
    blind: float
    num_epochs: int
    batch_size: int | None
    rates: tuple[float, float]
    block: int = 0

    @property
    def gated(self) -> bool:
        """Whether the cell has gates."""
        return self.block > 0

    @property
    def test(self) -> rr.Batch:
        """The rows that nothing is chosen by."""
        assert self.final.validation is not None
        return self.final.validation

    @property
    def num_steps(self) -> int:
        """T."""
        return self.test.xs.shape[1]

    def network(self, change: Map | None = None, **options) -> rr.Network:
        """The network with another cell, and with options of `rr.network`."""
        cell = self.cell if change is None else change(self.cell)
        return rr.network([cell], self.output_size, readout="last", **options)


def memory(*, num_steps: int, hidden_size: int, num_rows: int, num_epochs: int) -> Scored:
    """The adding problem: the sum of the two marked numbers of a row; a tanh network from an orthogonal start."""
    made = rr.tasks.adding(num_steps)
    keys = jax.random.split(jax.random.key(20), 3)
    train = made.sample(keys[0], num_rows)
    search, final = (rr.Split(train, validation=made.sample(key, num_rows // 4)) for key in keys[1:])

    def share(outputs, ys, mask, weights):
        blind = jnp.ones_like(
            ys
        )  # the mean of two numbers' sum; on these rows, which a few hundred draws leave to chance
        return made.loss(outputs, ys, mask, weights) / made.loss(blind, ys, mask, weights)

    error = rr.metrics.Score(share, maximise=False)
    cell, unit = rr.cells.elman(hidden_size), "MSE / blind guess"
    return Scored("memory", search, final, cell, 1, made.loss, error, unit, 1.0, num_epochs, 50, (1e-3, 1e-2))


def yearly_sunspots(*, hidden_size: int, num_updates: int) -> Scored:
    """A year's sunspots from the nine before, with the window of `experiments.sunspot_configuration`.

    Choices are made on 1868–1920 and tested on 1921–2008. All rows are scaled by 1700–1920.
    """
    data = sunspots(9, "identity")
    spans = data.test.values()
    test = rr.Batch(*(np.concatenate([getattr(span, name) for span in spans]) for name in ("xs", "ys")))
    search, final = held_out(data.train, test, 0.25)
    error, cell = arv_metric(data, "identity"), rr.cells.elman(hidden_size)
    return Scored("sunspots", search, final, cell, 1, LOSS, error, "ARV", 1.0, num_updates, None, (3e-3, 3e-2))


def digits(*, num_rows: int | None, num_epochs: int, hidden_size: int) -> Scored | None:
    """MNIST-1D, read once and answered from the last state of a GRU; None if the package mnist1d is missing.

    Networks are trained on 3,000 digits, chosen on 1,000 and tested on 1,000.
    """
    task: Task | None = digits_in_one_dimension(num_rows=num_rows, num_epochs=num_epochs)
    if task is None:
        return None
    accuracy = rr.metrics.accuracy()

    def wrong(outputs, ys, mask, weights):
        return 1 - accuracy(outputs, ys, mask, weights)

    error = rr.metrics.Score(wrong, maximise=False)
    cell, loss = rr.cells.gru(hidden_size), rr.losses.softmax_cross_entropy()
    final = task.search.replace(validation=task.final.validation)  # rows of equal numbers share a program
    rest = "share of wrong digits", 0.9, num_epochs, task.batch_size, (1e-2, 6e-2)
    # the last of the three blocks of a GRU is the candidate's
    return Scored("MNIST-1D", task.search, final, cell, 10, loss, error, *rest, block=2)
