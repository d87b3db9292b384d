"""All cold and warm runs of one network, and their thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import rnnreg as rr
from experiments import _memory_theory as theory
from experiments._thresholds import Threshold, fit_threshold
from experiments.memory_thresholds.measures import gradient_slopes, memory
from experiments.memory_thresholds.runs import cold_starts, warm_paths
from experiments.memory_thresholds.task import (
    ACTIVATIONS,
    ALIVE,
    Variant,
    network_of,
    recall_batch,
)

if TYPE_CHECKING:
    import xarray as xr


def threshold_of(alive: xr.DataArray) -> Threshold:
    """The threshold of what is alive, over `l2` and `seed`."""
    return fit_threshold(alive.l2.values, alive.transpose("l2", "seed").values)


class Diagram:
    """All cold and warm runs of one activation and start.

    Attributes:
      cold: by T, what was measured of every network over `l2`, `gain` and `seed`: `alive`, `Memory`, the slopes.
      warm: by T, what `warm_paths` gives, `alive`, and `cost`, ‖W_hh‖² / ρ²: 1 for one real eigenvalue, 2 for a pair.
      lam_cold: by T and gain.
      lam_c: by T.
      lam_s: by T.
    """

    def __init__(self, config: Any, activation: str, *, start: str = "orthogonal"):
        self.config = config
        self.variant = Variant(
            activation=activation,
            start=start,
            hidden_size=config.hidden_size,
            num_bits=config.num_bits,
            num_updates=config.num_updates,
            learning_rate=config.learning_rate,
        )
        self.cold: dict[int, xr.Dataset] = {}
        self.warm: dict[int, xr.Dataset] = {}
        self.lam_cold: dict[tuple[int, float], Threshold] = {}
        self.lam_c: dict[int, Threshold] = {}
        self.lam_s: dict[int, Threshold] = {}

    def run_cold(self, num_steps: int, gains: tuple[float, ...], *, least_gain: float) -> None:
        """Trains from scratch at one T; the λ grid begins below what the least gain should need."""
        import xarray as xr

        least = max(0.02 * num_steps * least_gain ** (num_steps - 2), 1e-9)
        lams = [0.0, *np.geomspace(least, 4.0, self.config.num_lambdas)]
        result = cold_starts(
            self.config.out,
            self.variant,
            num_steps,
            gains=gains,
            lams=lams,
            seeds=self.config.seeds,
        )
        found = self._measured(result, num_steps)
        before = [self.cold[num_steps]] if num_steps in self.cold else []
        self.cold[num_steps] = xr.concat([*before, found], "gain", join="exact")
        for gain in gains:
            self.lam_cold[num_steps, gain] = threshold_of(found.alive.sel(gain=gain))

    def run_warm(self, num_steps: int) -> None:
        """Carries trained networks up and down the λ axis at one T."""
        config = self.config
        top = 1.3 * theory.network_spinodal(num_steps)
        variant = self.variant._replace(
            learning_rate=config.path_rate * min(1.0, 40 / num_steps),
            num_updates=2 * config.num_updates,
        )
        warm = warm_paths(
            config.out,
            variant,
            num_steps,
            gain=1.0,
            lams=np.geomspace(0.02, top, config.path_lambdas),
            seeds=config.path_seeds,
            updates=config.path_updates,
        )
        self.warm[num_steps] = warm.assign(
            alive=warm.train_loss < ALIVE, cost=(warm.frobenius / warm.rho) ** 2
        )
        up = self.warm[num_steps].sel(way="up")
        self.lam_s[num_steps] = threshold_of(up.alive)
        self.lam_c[num_steps] = threshold_of(up.alive & (up.objective < 1))

    def _measured(self, result: rr.SweepResult, num_steps: int) -> xr.Dataset:
        net = network_of(self.variant)
        batch = jax.tree.map(
            jax.numpy.asarray, recall_batch(num_steps, num_bits=self.variant.num_bits)
        )
        activation = ACTIVATIONS[self.variant.activation]

        def look(params):
            slopes = gradient_slopes(net, params, batch, activation=activation)
            return memory(net, params, batch)._asdict() | slopes

        return result.map(look).assign(alive=result.metrics.train_loss < ALIVE)


def at_last(values: xr.DataArray, held: xr.DataArray) -> xr.DataArray:
    """What it is at the last λ that each path of one T holds, by the number of λ held; NaN where there is none."""
    count = held.sum("l2")
    return values.isel(l2=(count - 1).clip(min=0)).where(count > 0)


def branch_ratios(diagram: Any) -> dict[str, np.ndarray]:
    """Each linear path's λ_c and λ_s over the theory of the solution that it is in, ln ratios `[path]`.

    A path is in the solution with one real eigenvalue where ‖W_hh‖² is nearer to ρ² than to 2ρ² at its last λ alive.
    """
    found: dict[str, list[np.ndarray]] = {"λ_c": [], "λ_s": []}
    for T, warm in diagram.warm.items():
        up = warm.sel(way="up")
        worth = up.alive & (up.objective < 1)
        for name, held, formula in (
            ("λ_c", worth, theory.network_switch),
            ("λ_s", up.alive, theory.network_spinodal),
        ):
            middle = np.sqrt(up.l2 * up.l2.shift(l2=-1))  # none beyond the last
            expected = np.where(at_last(up.cost, held) > 1.5, formula(T, pair=True), formula(T))
            ratios = np.log(at_last(middle, held) / expected).values
            found[name].append(ratios[np.isfinite(ratios)])
    return {name: np.concatenate([np.zeros(0), *values]) for name, values in found.items()}
