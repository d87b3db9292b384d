"""What the sunspot experiments share: the score in ARV units, the network, the mean forecast of the seeds."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments._linear import arv

LOSS = rr.losses.squared_error("mean")


def sunspots(window: int, transform: str, *, first_target: int | None = None) -> rr.Split:
    """The sunspot split, its training targets cut to years from `first_target` on where that is given."""
    data = rr.datasets.sunspots(window=window, transform=transform)
    if first_target is None:
        return data
    rows = np.flatnonzero(data.target_times[:, 0] >= first_target)
    return data.replace(
        train=rr.data.take_rows(data.train, rows), target_times=data.target_times[rows]
    )


def own_units(split: rr.Split, transform: str) -> Callable[[Any], Any]:
    """From the split's arrays back to sunspot numbers; works on traced arrays."""
    if split.units is None:
        raise ValueError(
            "the split is not standardised: its arrays are in their own units already."
        )
    shift, scale = float(split.units.y_shift[0]), float(split.units.y_scale[0])

    def identity(values):
        return values * scale + shift

    def inverse_sqrt(values):
        return jnp.square(jnp.maximum(identity(values) / 2 + 1, 0)) - 1

    return {"identity": identity, "sqrt": inverse_sqrt}[transform]


def arv_metric(split: rr.Split, transform: str) -> Callable[..., Any]:
    """Average relative variance, the mean squared error in sunspot numbers over 1535."""
    to_own = own_units(split, transform)
    loss = rr.losses.squared_error("mean")

    def arv(outputs, ys, mask=None, weights=None):
        error = loss(to_own(outputs), to_own(ys), mask, weights)
        return error / rr.datasets.SUNSPOT_VARIANCE

    return arv


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


class LambdaPath:
    """The refitted path: parameters `[λ, seed, …]` trained on all of 1700–1920, and what they look like."""

    def __init__(self, transform: str, data: rr.Split, train: rr.Train, result: rr.SweepResult):
        self.lam = result.metrics.l2.values
        refits = result.select(fold="all")
        self.params = refits.groups[0].params
        self.net = train.settings.net
        # [λ, seed]: ‖W‖ over all three matrices, then W_hh alone
        self.norm = np.sqrt(refits.metrics["penalty_l2"].values)
        spectrum = rr.diagnostics.spectra(self.params)["layer_0/W_hh"]
        self.rho, self.sigma = spectrum.rho[..., 0], spectrum.sigma_max[..., 0]
        self.frobenius = spectrum.frobenius[..., 0]
        self._to_own = own_units(data, transform)

        def apply(params, xs):
            return self.net.apply(params, xs).outputs

        self._apply = jax.jit(jax.vmap(jax.vmap(apply, (0, None)), (0, None)))
        self.train_arv = np.array(
            [arv(self._own(data.train.ys), y) for y in self.mean_forecast(data.train)]
        )

        def flow(params):
            return rr.diagnostics.gradient_flow(self.net, LOSS, params, data.train)

        flows = jax.jit(jax.vmap(jax.vmap(flow)))(self.params)  # [λ, seed, …]
        self.flows = [jax.tree.map(operator.itemgetter(i), flows) for i in range(len(self.lam))]
        ratios = np.asarray(flows.ratio["layer_0"], dtype=np.float64)
        self.ratio = np.exp(np.log(ratios).mean(axis=1))

    def _own(self, values: Any) -> np.ndarray:
        return np.asarray(self._to_own(np.asarray(values)))[..., 0]

    def seed_forecasts(self, batch: rr.Batch) -> np.ndarray:
        """One step ahead in sunspot numbers, `[λ, seed, year]`."""
        return self._own(self._apply(self.params, batch.xs))

    def mean_forecast(self, batch: rr.Batch) -> np.ndarray:
        """The mean over seeds on the learned scale, in sunspot numbers, `[λ, year]`."""
        return self._own(np.asarray(self._apply(self.params, batch.xs)).mean(axis=1))

    def free_run(self, index: int, data: rr.Split, num_years: int) -> np.ndarray:
        """Forecasts fed back from 1920 on, `[seed, year]`."""
        start = jnp.asarray(data.test["1921-1955"].xs[:1])

        def run(params):
            return rr.forecast(self.net, params, start, num_years, window=start.shape[1])

        params = jax.tree.map(lambda leaf: leaf[index], self.params)
        return self._own(jax.jit(jax.vmap(run))(params)[:, 0])
