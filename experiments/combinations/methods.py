"""The methods by name, their pairs, and the trials of each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import rnnreg as rr

NONE = "none"
NUMBERS: tuple[str, ...] = ("l2", "output_dropout", "recurrent_dropout", "zoneout")


@dataclasses.dataclass(frozen=True)
class Method:
    """A regulariser with one strength, or with none.

    Attributes:
        sets: which of `NUMBERS` are its strength; () for a method without one.
        low: least strength that is tried.
        high: largest strength that is tried.
        log: whether strengths are spread evenly in their logarithm.
        variational: whether dropout has one mask over time.
        cell: which of `CELLS` it needs; None for any.
    """

    sets: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    variational: bool = False
    cell: str | None = None

    def strength(self, share: float) -> float:
        """The strength at a share of its range, from 0 to 1.

        >>> Method(("l2",), 1e-6, 1e-2, log=True).strength(0.5)
        0.0001
        """
        if self.log:
            return float(np.round(self.low * (self.high / self.low) ** share, 12))
        return float(self.low + share * (self.high - self.low))


# of units and the steps of a sequence
CELLS: dict[str, Callable[[int, int], rr.cells.Cell]] = {
    "gru": lambda hidden_size, num_steps: rr.cells.gru(hidden_size),
    "layer-normalised gru": lambda hidden_size, num_steps: rr.cells.layer_norm(rr.cells.gru(hidden_size)),
    "batch-normalised gru": lambda hidden_size, num_steps: rr.cells.batch_norm(rr.cells.gru(hidden_size), num_steps),
}
# Another method is a line here; one that normalises the cell names it in CELLS.
METHODS = {
    "L2": Method(("l2",), 1e-6, 1e-3, log=True),
    "dropout": Method(("output_dropout",), 0.05, 0.6),
    "variational": Method(("output_dropout", "recurrent_dropout"), 0.05, 0.5, variational=True),
    "zoneout": Method(("zoneout",), 0.02, 0.4),
    "layer norm": Method(cell="layer-normalised gru"),
    "batch norm": Method(cell="batch-normalised gru"),
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is compared: no method, one, or two.

    Attributes:
        parts: names of `METHODS`.
    """

    parts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Such as "L2 + zoneout"."""
        return " + ".join(self.parts) or NONE

    @property
    def methods(self) -> list[Method]:
        """Its methods."""
        return [METHODS[part] for part in self.parts]

    @property
    def static(self) -> tuple[str, bool]:
        """What sets the program: the cell, and whether dropout has one mask over time."""
        cells = [method.cell for method in self.methods if method.cell]
        return (*cells, "gru")[0], any(method.variational for method in self.methods)

    def numbers(self, shares: Sequence[float]) -> dict[str, float]:
        """All of `NUMBERS`, 0 where no part sets one; a share of the range for each part."""
        found = dict.fromkeys(NUMBERS, 0.0)
        for method, share in zip(self.methods, shares, strict=False):
            found |= dict.fromkeys(method.sets, method.strength(share))
        return found


def arms(methods: Mapping[str, Method] = METHODS) -> list[Arm]:
    """No method, each alone, and all pairs that can be together: they set different numbers and need no two cells.

    >>> [arm.name for arm in arms() if "dropout" in arm.parts]
    ['dropout', 'L2 + dropout', 'dropout + zoneout', 'dropout + layer norm', 'dropout + batch norm']
    """
    pairs = [
        pair
        for pair in itertools.combinations(methods, 2)
        if not set(methods[pair[0]].sets) & set(methods[pair[1]].sets)
        and None in (methods[pair[0]].cell, methods[pair[1]].cell)
    ]
    return [Arm(), *(Arm((name,)) for name in methods), *map(Arm, pairs)]


def hypercube(num_trials: int, rates: tuple[float, float]) -> list[tuple[float, list[float]]]:
    """A learning rate between the two, log-uniform, and two shares of a range, for each trial: the same in every call.

    >>> [rate > 1e-3 and len(shares) == 2 for rate, shares in hypercube(2, (1e-3, 1e-2))]
    [True, True]
    """
    from scipy.stats import qmc

    low, high = rates
    points = qmc.LatinHypercube(3, rng=np.random.default_rng(0)).random(num_trials)
    return [(float(low * (high / low) ** share), [float(other) for other in others]) for share, *others in points]


def trials(arm: Arm, num_trials: int, rates: tuple[float, float]) -> list[dict[str, float]]:
    """The trials of an arm: a learning rate between the two, log-uniform, and strengths.

    The learning rates, and the shares of the first part, are the same for every arm.

    >>> [sorted(trial) for trial in trials(Arm(("L2",)), 1, (1e-3, 1e-2))][0][:2]
    ['l2', 'learning_rate']
    """
    return [{"learning_rate": rate, **arm.numbers(shares)} for rate, shares in hypercube(num_trials, rates)]
