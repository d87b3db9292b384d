"""The two tasks: their rows, and the network of each."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable

import numpy as np

import rnnreg as rr
from experiments import mnist1d


@dataclasses.dataclass(frozen=True)
class Task:
    """Rows to choose on, rows to test on, and a network.

    Attributes:
        name: in words.
        search: training rows, without those held out, and the rows held out as validation rows.
        final: all training rows, and the test rows as validation rows.
        network: `network(cell, **options of rr.network)`, where `cell(hidden_size, num_steps)` makes one of `CELLS`.
        num_epochs: passes over the training rows.
        batch_size: rows of an update.
        rates: least and largest learning rate.
        published: accuracy that was published for the network without regularisation; None for none.
    """

    name: str
    search: rr.Split
    final: rr.Split
    network: Callable[..., rr.Network]
    num_epochs: int
    batch_size: int
    rates: tuple[float, float]
    published: float | None = None


def held_out(rows: rr.Batch, test: rr.Batch, share: float) -> tuple[rr.Split, rr.Split]:
    """The two splits of a task; the last rows are held out in the first."""
    count = round(len(rows.ys) * (1 - share))
    first, last = (rr.data.take_rows(rows, np.arange(*ends)) for ends in ((0, count), (count, len(rows.ys))))
    return rr.Split(first, validation=last), rr.Split(rows, validation=test)


def sequential_digits(*, num_rows: int | None, num_epochs: int, hidden_size: int) -> Task:
    """Digits of 8 × 8 pixels of scikit-learn (UCI), row by row, one pixel a step; 1,300 to train on, 497 to test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))[:num_rows]
    xs = (found.data[order] / 16).astype(np.float32)[..., None]
    ys, test = found.target[order].astype(np.int32), round(len(order) * 497 / 1797)
    splits = held_out(rr.Batch(xs[test:], ys[test:]), rr.Batch(xs[:test], ys[:test]), 0.25)

    def network(cell, **options):
        return rr.network([cell(hidden_size, xs.shape[1])], 10, readout="last", **options)

    return Task("sequential digits", *splits, network, num_epochs, 50, (3e-3, 6e-2))


def digits_in_one_dimension(*, num_rows: int | None, num_epochs: int) -> Task | None:
    """MNIST-1D with the published network: a bidirectional GRU of six units, all of whose states are read."""
    if importlib.util.find_spec("mnist1d") is None:
        return None
    drawn = mnist1d.digits(mnist1d.Config(num_digits=num_rows or 5000))
    assert drawn.validation is not None
    num_steps = drawn.train.xs.shape[1]
    splits = held_out(drawn.train, drawn.validation, 0.25)

    def network(cell, **options):
        layers = [rr.layer(cell(6, num_steps), bidirectional=True)]
        return rr.network(layers, 10, readout="flatten", num_steps=num_steps, **options)

    return Task("MNIST-1D", *splits, network, num_epochs, 100, (3e-3, 3e-2), published=0.91)
