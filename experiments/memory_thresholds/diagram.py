"""All cold and warm runs of each network, and their thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import rnnreg as rr
from experiments._thresholds import Threshold, fit_threshold, interval
from experiments.memory_thresholds.measures import gradient_slopes, memory
from experiments.memory_thresholds.runs import cold_starts, warm_paths
from experiments.memory_thresholds.task import ACTIVATIONS, ALIVE, network_of, recall_batch, variant_of
from experiments.memory_thresholds.theory import network_spinodal

if TYPE_CHECKING:
    import xarray as xr


class Diagram:
    """All cold and warm runs of one activation and start.

    Attributes:
      cold: by T, what was measured of every network over `l2`, `gain` and `seed`: `alive`, `Memory`, the slopes.
      warm: by T, what `warm_paths` gives, `alive`, and `cost`, ‖W_hh‖² / ρ²: 1 for one real eigenvalue, 2 for a pair.
      lam_cold: by T and gain.
      lam_c: by T.
      lam_s: by T.
    """

    def __init__(self, config: Any, **changes: Any):
        self.config, self.variant = config, variant_of(config, **changes)
        self.cold: dict[int, xr.Dataset] = {}
        self.warm: dict[int, xr.Dataset] = {}
        self.lam_cold: dict[tuple[int, float], Threshold] = {}
        self.lam_c: dict[int, Threshold] = {}
        self.lam_s: dict[int, Threshold] = {}

    def run_cold(self, T: int, gains: tuple[float, ...], *, least_gain: float) -> None:
        """Trains from scratch at one T; the λ grid begins below what the least gain should need."""
        import xarray as xr

        config = self.config
        least = max(0.02 * T * least_gain ** (T - 2), 1e-9)
        lams = [0.0, *np.geomspace(least, 4.0, config.num_lambdas)]
        result = cold_starts(config.out, self.variant, T, gains=gains, lams=lams, seeds=config.seeds)
        found = self._measured(result, T)
        before = [self.cold[T]] if T in self.cold else []
        self.cold[T] = xr.concat([*before, found], "gain", join="exact")
        for gain in gains:
            self.lam_cold[T, gain] = threshold_of(found.alive.sel(gain=gain))

    def run_warm(self, T: int) -> None:
        """Carries trained networks up and down the λ axis at one T."""
        config = self.config
        variant = self.variant._replace(
            learning_rate=config.path_rate * min(1.0, 40 / T), num_updates=2 * config.num_updates
        )
        lams = np.geomspace(0.02, 1.3 * network_spinodal(T), config.path_lambdas)
        counts = {"seeds": config.path_seeds, "updates": config.path_updates}
        found = warm_paths(config.out, variant, T, gain=1.0, lams=lams, **counts)
        cost = (found.frobenius / found.rho) ** 2
        self.warm[T] = found.assign(alive=found.train_loss < ALIVE, cost=cost)
        up = self.warm[T].sel(way="up")
        self.lam_s[T], self.lam_c[T] = threshold_of(up.alive), threshold_of(worth(up))

    def told(self, T: int) -> str:
        """The thresholds of one T in one line."""
        named = {f"λ_cold(g = {gain:g})": found for (t, gain), found in sorted(self.lam_cold.items()) if t == T}
        named |= {"λ_c": self.lam_c[T], "λ_s": self.lam_s[T]}
        return ", ".join(f"{name} {interval(found)}" for name, found in named.items())

    def _measured(self, result: rr.SweepResult, T: int) -> xr.Dataset:
        net, batch = network_of(self.variant), recall_batch(T, num_bits=self.variant.num_bits)
        activation = ACTIVATIONS[self.variant.activation]

        def look(params):
            slopes = gradient_slopes(net, params, batch, activation=activation)
            return memory(net, params, batch)._asdict() | slopes

        return result.map(look).assign(alive=result.metrics.train_loss < ALIVE)


class Study:
    """Every diagram.

    Attributes:
      diagrams: by activation; the first is the main one, which the law is about.
      paths: diagrams of warm paths alone, from other starts.
    """

    def __init__(self, config: Any):
        self.config = config
        self.diagrams = {name: Diagram(config, activation=name) for name in config.activations}
        self.paths = {
            f"{name}, {start}": Diagram(config, activation=name, start=start)
            for name in config.activations
            for start in config.path_starts[1:]
        }

    @property
    def main(self) -> Diagram:
        """The diagram that the law is about."""
        return self.diagrams[self.config.activations[0]]

    @property
    def every(self) -> dict[str, Diagram]:
        """All diagrams."""
        return self.diagrams | self.paths

    @property
    def shown(self) -> tuple[xr.Dataset, xr.Dataset]:
        """The cold networks (λ > 0) and the warm paths at the T and the gain that are shown."""
        T = self.config.shown_steps
        cold = self.main.cold[T].sel(gain=self.config.shown_gain)
        return cold.isel(l2=slice(1, None)), self.main.warm[T]

    def run_fitted(self) -> None:
        """Runs what the law is fitted on."""
        gains = self.config.gains
        for name, diagram in self.every.items():
            for T in self.config.num_steps:
                if name in self.diagrams:
                    diagram.run_cold(T, gains, least_gain=min(gains))
                diagram.run_warm(T)
                print(f"{name}, T = {T}: {diagram.told(T)}", flush=True)

    def run_predicted(self) -> None:
        """Runs the T and the gain that were predicted."""
        config, main = self.config, self.main
        for T in config.num_steps if config.predicted_steps else ():
            main.run_cold(T, (config.predicted_gain,), least_gain=min(config.gains))
        for T in config.predicted_steps:
            gains = tuple(sorted({*config.fitted_gains[1:], config.predicted_gain, 1.0}))
            main.run_cold(T, gains, least_gain=min(gains))
            main.run_warm(T)
            print(f"predicted, T = {T}: {main.told(T)}", flush=True)


def threshold_of(alive: xr.DataArray) -> Threshold:
    """The threshold of what is alive, over `l2` and `seed`."""
    return fit_threshold(alive.l2.values, alive.transpose("l2", "seed").values)


def worth(up: xr.Dataset) -> xr.DataArray:
    """Where a memory is held and worth its cost: its objective is below that of W = 0."""
    return up.alive & (up.objective < 1)


def at_last(values: xr.DataArray, held: xr.DataArray) -> xr.DataArray:
    """What it is at the last λ that each path of one T holds, by the number of λ held; NaN where there is none."""
    count = held.sum("l2")
    return values.isel(l2=(count - 1).clip(min=0)).where(count > 0)
