"""MNIST-1D: a bidirectional GRU of six units reads forty points of a digit, by all of its states or by the last ones.

The published network is a bidirectional GRU with H = 6, whose states of all steps go into one linear layer
(`readout="flatten"`); 6,000 updates of Adam at 1e-2 with batches of 100 give 91 % of the test digits. The same network
with a readout of the last states alone is trained beside it. The package `mnist1d` draws the digits; nothing is
downloaded, and nothing is chosen by the test digits.
"""

from __future__ import annotations

import dataclasses
import importlib.util

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import xarray as xr

import rnnreg as rr
from experiments._harness import Claim, Options, Report, mean_and_error, plus_minus, run, text_table

READOUTS = ("flatten", "last")


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of MNIST-1D."""

    hidden_size: int = 6
    """Units of each direction."""
    num_epochs: int = 150
    """Passes over the 4,000 training digits: 6,000 updates."""
    num_digits: int = 5000
    """Digits drawn, of which a fifth are the test."""
    learning_rate: float = 1e-2
    """Of Adam."""
    lams: tuple[float, ...] = (0.0, 1e-4)
    """λ of the l2 penalty."""
    seeds: int = 3
    """Networks of each."""


PRESETS = {"quick": {"num_epochs": 2, "num_digits": 500, "seeds": 2}, "full": {}}


def main(config: Config) -> Report:
    """Trains both readouts, and scores them on the test digits."""
    if importlib.util.find_spec("mnist1d") is None:
        return Report({}, claims_of(None), "mnist1d is not installed: pip install '.[experiments]' brings it.")
    rr.use_all_cores()
    split = digits(config)
    num_steps = split.train.xs.shape[1]

    def train(static):
        layers = [rr.layer(rr.cells.gru(config.hidden_size), bidirectional=True, merge="concat")]
        readout = static["readout"]
        net = rr.network(layers, 10, readout=readout, num_steps=num_steps if readout == "flatten" else None)
        return rr.make_train(
            net,
            loss=rr.losses.softmax_cross_entropy(),
            metrics={"accuracy": rr.metrics.accuracy()},
            penalties={"l2": rr.penalties.l2()},
            optimizer=optax.adam(config.learning_rate),
            num_epochs=config.num_epochs,
            batch_size=100,
        )

    result = rr.sweep(
        train, {"l2": list(config.lams)}, split, seeds=config.seeds, static={"readout": READOUTS}, key=jax.random.key(0)
    )
    accuracy = result.metrics["val_accuracy"]
    rows = [
        (readout, f"{lam:g}", plus_minus(*mean_and_error(accuracy.sel(readout=readout, l2=lam))))
        for readout in READOUTS
        for lam in config.lams
    ]
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3), sharey=True)
    for ax, readout in zip(axes, READOUTS, strict=True):
        rr.plotting.history(result.select(readout=readout), name="val_accuracy", ax=ax, ylabel="test accuracy")
        ax.set_title(f"readout={readout!r}")
    table = text_table(("readout", "λ", "test accuracy ± SE"), rows)
    return Report({"accuracy": rows}, claims_of(accuracy), f"{result.plan}\n{table}", {"mnist1d": figure})


def claims_of(accuracy: xr.DataArray | None) -> list[Claim]:
    """What was published, and whether reading all steps is worth it; nothing is measured without accuracies."""
    means = {} if accuracy is None else accuracy.sel(l2=0.0).mean("seed").to_series().to_dict()
    gain = "test accuracy at λ = 0: all states read, less the last ones alone"
    return [
        Claim("test accuracy at λ = 0, all states read", "Greydanus 2020, the GRU of the table of MNIST-1D").close(
            0.91, means.get("flatten"), tolerance=0.02
        ),
        Claim(gain, "this project").at_least(0.0, means["flatten"] - means["last"] if means else None),
    ]


def digits(config: Config) -> rr.Split:
    """The digits as sequences of forty points, standardised by the package; its test digits as the validation rows."""
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = config.num_digits
    drawn = make_dataset(arguments)

    def batch(x, y):
        return rr.Batch(np.asarray(drawn[x], np.float32)[..., None], np.asarray(drawn[y], np.int32))

    return rr.Split(batch("x", "y"), validation=batch("x_test", "y_test"))


if __name__ == "__main__":
    run(main, Config, PRESETS)
