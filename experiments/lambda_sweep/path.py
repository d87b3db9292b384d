"""The refitted λ path: what its networks look like, and what they forecast."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments._sunspots.errors import arv
from experiments._sunspots.network import LOSS, own_units


class LambdaPath:
    """The networks `[λ, seed]` trained on all of 1700–1920.

    Attributes:
      lam: `[λ]`.
      params: `[λ, seed, …]`.
      norm: `[λ, seed]`, ‖W‖ over all three matrices.
      rho: `[λ, seed]`, spectral radius of W_hh.
      sigma: `[λ, seed]`, σ_max(W_hh).
      frobenius: `[λ, seed]`, ‖W_hh‖_F.
      flows: of each λ, the gradient flow on the training rows, `[seed, …]`.
      ratio: `[λ, T]`, r(ℓ) of those flows, geometric mean over seeds.
      train_arv: `[λ]`, of the mean forecast.
    """

    def __init__(self, transform: str, data: rr.Split, train: rr.Train, result: rr.SweepResult):
        self.lam = result.metrics.l2.values
        self._refits = result.select(fold="all")
        self.params = self._refits.groups[0].params
        self.net = train.network({})
        self.norm = np.sqrt(self._refits.metrics["penalty_l2"].values)
        spectrum = rr.diagnostics.spectra(self.params)["layer_0/W_hh"]
        self.rho, self.sigma = spectrum.rho[..., 0], spectrum.sigma_max[..., 0]
        self.frobenius = spectrum.frobenius[..., 0]
        self._to_own = own_units(data, transform)

        def flow(params):
            return rr.diagnostics.gradient_flow(self.net, LOSS, params, data.train)

        flows = jax.jit(jax.vmap(jax.vmap(flow)))(self.params)  # [λ, seed, …]
        self.flows = [jax.tree.map(operator.itemgetter(i), flows) for i in range(len(self.lam))]
        ratios = np.asarray(flows.ratio["layer_0"], dtype=np.float64)
        self.ratio = np.exp(np.log(ratios).mean(axis=1))
        truth = self._own(data.train.ys)
        self.train_arv = np.array([arv(truth, y) for y in self.mean_forecast(data.train)])

    def _own(self, values: Any) -> np.ndarray:
        return np.asarray(self._to_own(np.asarray(values)))[..., 0]

    def _outputs(self, batch: rr.Batch) -> np.ndarray:
        found = self._refits.map(lambda params: self.net.apply(params, batch.xs).outputs)
        return found["value"].values

    def seed_forecasts(self, batch: rr.Batch) -> np.ndarray:
        """One step ahead in sunspot numbers, `[λ, seed, year]`."""
        return self._own(self._outputs(batch))

    def mean_forecast(self, batch: rr.Batch) -> np.ndarray:
        """The mean over seeds on the learned scale, in sunspot numbers, `[λ, year]`."""
        return self._own(self._outputs(batch).mean(axis=1))

    def free_run(self, index: int, data: rr.Split, num_years: int) -> np.ndarray:
        """Forecasts fed back from 1920 on, `[seed, year]`."""
        start = jnp.asarray(data.test["1921-1955"].xs[:1])

        def run(params):
            return rr.forecast(self.net, params, start, num_years, window=start.shape[1])

        params = jax.tree.map(lambda leaf: leaf[index], self.params)
        return self._own(jax.jit(jax.vmap(run))(params)[:, 0])
