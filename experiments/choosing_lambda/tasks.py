"""The four tasks: rows to train on, to choose on and to test on, few enough that regularisation matters."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from collections.abc import Callable, Mapping

import jax
import numpy as np
import optax

import rnnreg as rr
from experiments import mnist1d
from experiments._sunspots.network import sunspots

RECORDS = 9
"""Records of a run: a rung of halving is one of them."""


@dataclasses.dataclass(frozen=True)
class Size:
    """What sets the cost of a task.

    Attributes:
        hidden_size: H.
        num_updates: updates of a run, a multiple of 9.
        num_rows: rows to train on; the sunspots have what there is.
        num_held: rows to choose on, and as many to test on: so both have one program.
    """

    hidden_size: int
    num_updates: int
    num_rows: int = 0
    num_held: int = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """Rows and a network of one layer that reads its last state, full batches, and the space to search.

    Attributes:
        name: in words.
        search: rows to train on, and as validation rows those to choose on.
        final: the same rows to train on, and as validation rows those to test on.
        cell: "elman" or "gru".
        hidden_size: H.
        output_size: O.
        loss: what is trained on and chosen by.
        scale: the loss times it is what is reported.
        unit: of what is reported.
        blind: the loss of a blind guess, which counts for a run that diverged.
        num_updates: of a run, on all rows.
        lams: least and largest λ > 0 of the space.
        rates: least and largest learning rate.
        wrong: whether the share of wrong answers is reported too.
    """

    name: str
    search: rr.Split
    final: rr.Split
    cell: str
    hidden_size: int
    output_size: int
    loss: rr.losses.Loss
    scale: float
    unit: str
    blind: float
    num_updates: int
    lams: tuple[float, float] = (1e-5, 1e-1)
    rates: tuple[float, float] = (3e-3, 1e-1)
    wrong: bool = False

    @property
    def space(self) -> dict[str, rr.selection.LogUniform]:
        """λ and the learning rate, each log-uniform."""
        return {"l2": rr.selection.LogUniform(*self.lams), "learning_rate": rr.selection.LogUniform(*self.rates)}

    @property
    def network(self) -> rr.Network:
        """One layer, read at its last state."""
        return rr.network([getattr(rr.cells, self.cell)(self.hidden_size)], self.output_size, readout="last")

    def train(self) -> rr.Train:
        """A run: Adam on all rows, gradients of at most length 1, and λ‖W‖²."""
        metrics = {"wrong": wrong_share()} if self.wrong else {}
        return rr.make_train(
            self.network,
            loss=self.loss,
            penalties={"l2": rr.penalties.l2()},
            metrics=metrics,
            optimizer=adam,
            num_epochs=self.num_updates,
            record_every=self.num_updates // RECORDS,
        )


def adam(hyper: Mapping[str, jax.Array]) -> optax.GradientTransformation:
    """Adam at `learning_rate`; the root has a derivative where a gradient is exactly 0 too."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(hyper["learning_rate"], eps_root=1e-12))


def wrong_share() -> rr.metrics.Score:
    """The share of wrong answers."""
    accuracy = rr.metrics.accuracy()
    return rr.metrics.Score(lambda *arguments: 1 - accuracy(*arguments), maximise=False)


def yearly_sunspots(size: Size) -> Task:
    """A year's sunspots from the nine before: trained on years to 1832, chosen on 1833–1920, tested on 1921–2008."""
    data = sunspots(9, "identity")
    spans = data.test.values()
    test = rr.Batch(*(np.concatenate([getattr(span, name) for span in spans]) for name in ("xs", "ys")))
    num, count = len(data.train.ys), len(data.train.ys) - len(test.ys)
    train, held = (rr.data.take_rows(data.train, np.arange(*ends)) for ends in ((0, count), (count, num)))
    assert data.units is not None
    return Task(
        "sunspots",
        *splits(train, held, test),
        cell="elman",
        hidden_size=size.hidden_size,
        output_size=1,
        loss=rr.losses.squared_error("mean"),
        scale=float(np.square(data.units.y_scale).mean()) / rr.datasets.SUNSPOT_VARIANCE,
        unit="ARV",
        blind=1.0,
        num_updates=size.num_updates,
        lams=(1e-4, 1.0),
    )


def sequential_digits(size: Size) -> Task:
    """Digits of 8 × 8 pixels of scikit-learn (UCI), read row by row."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    rows = rr.Batch((found.images[order] / 16).astype(np.float32), found.target[order].astype(np.int32))
    return classes("digits", rows, size)


def digits_in_one_dimension(size: Size) -> Task | None:
    """MNIST-1D, read in ten steps of four points; None if the package mnist1d is missing."""
    if importlib.util.find_spec("mnist1d") is None:
        return None
    drawn = mnist1d.digits(mnist1d.Config(num_digits=size.num_rows + 2 * size.num_held))
    assert drawn.validation is not None
    both = (drawn.train, drawn.validation)
    xs, ys = (np.concatenate([getattr(batch, name) for batch in both]) for name in ("xs", "ys"))
    return classes("MNIST-1D", rr.Batch(xs.reshape(len(xs), 10, 4), ys), size)


def classes(name: str, rows: rr.Batch, size: Size) -> Task:
    """A task of ten classes and a GRU."""
    ends = np.cumsum([0, size.num_rows, size.num_held, size.num_held])
    parts = [rr.data.take_rows(rows, np.arange(*each)) for each in itertools.pairwise(ends)]
    return Task(
        name,
        *splits(*parts),
        cell="gru",
        hidden_size=size.hidden_size,
        output_size=10,
        loss=rr.losses.softmax_cross_entropy(),
        scale=1.0,
        unit="cross-entropy",
        blind=float(np.log(10)),
        num_updates=size.num_updates,
        wrong=True,
    )


def adding(size: Size, num_steps: int = 10) -> Task:
    """The sum of two marked numbers among ten; a GRU."""
    made = rr.tasks.adding(num_steps)
    numbers = size.num_rows, size.num_held, size.num_held
    keys = jax.random.split(jax.random.key(7), 3)
    blind = float(made.baseline["loss"])
    return Task(
        "adding",
        *splits(*(made.sample(key, num) for key, num in zip(keys, numbers, strict=True))),
        cell="gru",
        hidden_size=size.hidden_size,
        output_size=1,
        loss=made.loss,
        scale=1 / blind,
        unit="MSE / blind guess",
        blind=blind,
        num_updates=size.num_updates,
        lams=(1e-6, 1e-2),
    )


def splits(train: rr.Batch, validation: rr.Batch, test: rr.Batch) -> tuple[rr.Split, rr.Split]:
    """The split to choose on, and the one to test on."""
    return rr.Split(train, validation=validation), rr.Split(train, validation=test)


TASKS: dict[str, Callable[[Size], Task | None]] = {
    "sunspots": yearly_sunspots,
    "digits": sequential_digits,
    "MNIST-1D": digits_in_one_dimension,
    "adding": adding,
}
