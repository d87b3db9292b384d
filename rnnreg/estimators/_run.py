"""The run behind an estimator, made once for equal settings, so that what it compiled serves every fit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rnnreg import cells, penalties
from rnnreg._checks import check_choice, described, is_called
from rnnreg.losses import softmax_cross_entropy, squared_error
from rnnreg.networks import Network, network
from rnnreg.training import Train, make_train


class Architecture(NamedTuple):
    """What makes a network.

    Attributes:
      cell: "elman", "gru" or "lstm", a function of the hidden size, a cell, or a tuple of cells.
      hidden_size: H, where `cell` does not have it.
      output_size: O.
      readout: "last" or "flatten".
      num_steps: T, for "flatten".
    """

    cell: Any
    hidden_size: int
    output_size: int
    readout: str
    num_steps: int | None


@functools.lru_cache(maxsize=16)
def network_of(made: Architecture) -> Network:
    """The network, the same one each time."""
    cell = made.cell
    if isinstance(cell, str):
        check_choice(cell, "cell", ("elman", "gru", "lstm"))
        cell = getattr(cells, cell)
    if not isinstance(cell, (cells.Cell, tuple)):
        cell = cell(made.hidden_size)
    layers: Sequence[Any] = cell if type(cell) is tuple else [cell]
    return network(layers, made.output_size, readout=made.readout, num_steps=made.num_steps)


@functools.lru_cache(maxsize=16)
def run_of(
    made: Architecture,
    penalty: Any,
    optimizer: Any,
    num_epochs: int,
    batch_size: int | None,
    classes: bool,
) -> Train:
    """The run, whose λ is "lam" and whose optimiser reads "learning_rate"; the same one each time."""
    rule = optimizer_of(optimizer)
    return make_train(
        network_of(made),
        loss=softmax_cross_entropy("mean") if classes else squared_error("mean"),
        penalties={"lam": penalty_of(penalty)},
        optimizer=lambda hyper: rule(hyper["learning_rate"]),
        num_epochs=num_epochs,
        batch_size=batch_size,
    )


def optimizer_of(given: Any) -> Callable[[Any], Any]:
    """A function of the learning rate that returns an optax transformation."""
    import optax

    if isinstance(given, str):
        check_choice(
            given, "optimizer", ("adam", "sgd"), hint="Or give a function such as optax.rmsprop."
        )
        return getattr(optax, given)
    if not is_called(given, 1) or not callable(given):
        raise ValueError(
            "optimizer must be 'adam', 'sgd', or a function of the learning rate, such as optax.rmsprop; got "
            f"{described(given)}."
        )
    return given


def penalty_of(given: Any) -> penalties.Penalty:
    """The penalty of a name, or the one that was given."""
    if isinstance(given, penalties.Penalty):
        return given
    factories = {row.name: getattr(penalties, row.name) for row in penalties.table()}
    names = [name for name, factory in factories.items() if is_called(factory, 0)]
    check_choice(given, "penalty", names, hint="Or give one, such as rr.penalties.l2('W_hh').")
    return factories[given]()
