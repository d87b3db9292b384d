"""The three tasks: a network of each, and for each repeat rows to train on, to choose on and to test on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments._sunspots.network import LOSS, arv_metric, sunspots


class Draw(NamedTuple):
    """The rows of one repeat, or with a leading axis those of all.

    Attributes:
        split: rows to train on, and validation rows, which choose λ.
        test: rows by which nothing is chosen.
    """

    split: rr.Split
    test: rr.Batch


@dataclasses.dataclass(frozen=True)
class Task:
    """A network of one tanh layer that reads its last state, and rows for R repeats.

    Attributes:
        name: in words.
        draws: of all repeats, every leaf `[R, …]`.
        output_size: O.
        loss: what is trained on, what chooses and what judges.
        blind: the loss of a constant answer, by which errors are divided.
        hidden_size: H.
        num_epochs: passes over the training rows.
        batch_size: rows of an update; None for all.
        learning_rate: of Adam, at the start.
        seed: root of all draws.
    """

    name: str
    draws: Draw
    output_size: int
    loss: rr.losses.Loss
    blind: float
    hidden_size: int
    num_epochs: int
    batch_size: int | None
    learning_rate: float
    seed: int

    @property
    def num_updates(self) -> int:
        """Of a run."""
        rows = self.draws.split.train.ys.shape[1]
        return self.num_epochs * -(-rows // (self.batch_size or rows))

    @property
    def num_repeats(self) -> int:
        """R."""
        return len(self.draws.test.ys)

    def network(self) -> rr.Network:
        """The network, W_hh orthogonal at the start."""
        return rr.network([rr.cells.elman(self.hidden_size)], self.output_size, readout="last")


def yearly_sunspots(num_repeats: int, num_epochs: int, *, seed: int) -> Task:
    """A year's sunspots from the nine before.

    Each repeat takes 70 target years in a row, at a random place in 1709–1920, to choose on, and trains on the others;
    all test on 1921–2008. Errors divided by the blind guess's are average relative variances.
    """
    data = sunspots(9, "identity")
    spans = data.test.values()
    test = rr.Batch(*(np.concatenate([getattr(span, name) for span in spans]) for name in ("xs", "ys")))
    total, rng = len(data.train.ys), np.random.default_rng(seed)

    def draw() -> Draw:
        held = np.arange(70) + rng.integers(total - 69)
        kept = np.setdiff1d(np.arange(total), held)
        train, validation = (rr.data.take_rows(data.train, rows) for rows in (kept, held))
        return Draw(rr.Split(train, validation=validation), test)

    nothing = jnp.zeros_like(test.ys)
    blind = float(LOSS(nothing, test.ys) / arv_metric(data, "identity")(nothing, test.ys))
    return Task("sunspots", _stacked(draw, num_repeats), 1, LOSS, blind, 12, num_epochs, None, 1e-2, seed)


def digits_by_rows(num_repeats: int, num_epochs: int, num_rows: int, *, seed: int) -> Task:
    """Digits of 8 × 8 pixels of scikit-learn (UCI), a row of pixels a step.

    Each repeat draws as many digits to choose on as to train on, and 1,000 others to test on.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    xs, ys = (found.images / 16).astype(float), found.target.astype(np.int32)
    rng = np.random.default_rng(seed)

    def draw() -> Draw:
        order = rng.permutation(len(ys))
        ends = ((0, num_rows), (num_rows, 2 * num_rows), (2 * num_rows, 2 * num_rows + 1000))
        train, validation, test = (rr.Batch(xs[order[slice(*one)]], ys[order[slice(*one)]]) for one in ends)
        return Draw(rr.Split(train, validation=validation), test)

    loss = rr.losses.softmax_cross_entropy()
    blind = float(np.log(10))
    return Task("digits", _stacked(draw, num_repeats), 10, loss, blind, 16, num_epochs, 50, 1e-2, seed)


def adding(num_repeats: int, num_epochs: int, num_rows: int, num_steps: int, *, seed: int) -> Task:
    """The sum of the two marked of T numbers; rows of each repeat are fresh, as many to choose on as to train on."""
    made = rr.tasks.adding(num_steps)
    keys = iter(jax.random.split(jax.random.key(seed), 3 * num_repeats))

    def draw() -> Draw:
        train, validation, test = (made.sample(next(keys), num) for num in (num_rows, num_rows, 1000))
        return Draw(rr.Split(train, validation=validation), test)

    blind = made.baseline["loss"]
    return Task("adding", _stacked(draw, num_repeats), 1, made.loss, blind, 12, num_epochs, 50, 1e-2, seed)


def _stacked(draw: Callable[[], Draw], num: int) -> Draw:
    draws: Sequence[Any] = [draw() for _ in range(num)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *draws)
