"""The network of the sunspot experiments, and its score in ARV units."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments._harness import Options

LOSS = rr.losses.squared_error("mean")


@dataclasses.dataclass(frozen=True)
class NetworkOptions(Options):
    """Options of every experiment that trains this network along λ."""

    hidden_size: int = 16
    """Hidden units."""
    num_updates: int = 500
    """Full-batch updates, the same in every fold."""
    num_lambdas: int = 16
    """λ = 0 and a log grid."""
    lambda_low: float = 1e-4
    """Smallest positive λ."""
    lambda_high: float = 1e-1
    """Largest λ."""
    seeds: int = 8
    """Seeds of each combination; their mean forecast is scored."""
    folds: int = 5
    """Blocks of consecutive target years."""

    @property
    def lams(self) -> list[float]:
        """The λ of the sweep."""
        return log_grid(self.lambda_low, self.lambda_high, self.num_lambdas)


def sunspots(window: int, transform: str, *, first_target: int | None = None) -> rr.Split:
    """The sunspot split, its training targets cut to years from `first_target` on where that is given."""
    data = rr.datasets.sunspots(window=window, transform=transform)
    if first_target is None:
        return data
    rows = np.flatnonzero(data.target_times[:, 0] >= first_target)
    return data.replace(train=rr.data.take_rows(data.train, rows), target_times=data.target_times[rows])


def own_units(split: rr.Split, transform: str) -> Callable[[Any], Any]:
    """From the split's arrays back to sunspot numbers; works on traced arrays."""

    def own(values):
        values = rr.data.unscale_outputs(values, split.units)
        return jnp.square(jnp.maximum(values / 2 + 1, 0)) - 1 if transform == "sqrt" else values

    return own


def arv_metric(split: rr.Split, transform: str) -> rr.metrics.Score:
    """Average relative variance, the mean squared error in sunspot numbers over 1535."""
    to_own = own_units(split, transform)

    def arv(outputs, ys, mask=None, weights=None):
        error = LOSS(to_own(outputs), to_own(ys), mask, weights)
        return error / rr.datasets.SUNSPOT_VARIANCE

    return rr.metrics.Score(arv, maximise=False)


def make_train(split: rr.Split, settings: Mapping[str, Any]) -> rr.Train:
    """The run of the main job: a tanh network that reads its last state, full batch, Adam, λ‖W‖²."""
    cell = rr.cells.elman(hidden_size=settings["hidden_size"])
    return rr.make_train(
        rr.network([cell], output_size=1, readout="last"),
        loss=LOSS,
        penalties={"l2": rr.penalties.l2()},
        optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
        num_epochs=settings["num_updates"],
        record_every=max(1, settings["num_updates"] // 10),
        metrics={"arv": arv_metric(split, settings["transform"])},
    )


def log_grid(low: float, high: float, num: int) -> list[float]:
    """λ = 0 and `num − 1` values evenly spaced in log λ."""
    return [0.0, *np.geomspace(low, high, num - 1).tolist()]
