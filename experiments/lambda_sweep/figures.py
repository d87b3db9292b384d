"""Figures of the λ sweep: the curve of cross-validation, the weights, the gradients, the forecasts."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rnnreg as rr
from experiments.lambda_sweep.comparison import TESTS, Comparison


def figures(result: rr.SweepResult, choice: rr.selection.Choice, compared: Comparison) -> dict[str, Figure]:
    """Cross-validation, weights and gradients along the path, and the forecasts against the series."""
    path = compared.path
    norms = {
        "‖W‖, all matrices": path.norm,
        r"$\|W_{hh}\|_F$": path.frobenius,
        r"$\sigma_\mathrm{max}(W_{hh})$": path.sigma,
        r"$\rho(W_{hh})$": path.rho,
    }
    overview, (left, middle, right) = plt.subplots(1, 3, figsize=(12.6, 3.8))
    rr.plotting.cv_curve(result, choice, ylabel="ARV of the mean forecast, validation blocks", ax=left)
    rr.plotting.weight_norms(path.lam, norms, ylabel="norms, mean of seeds ± 1 SE", ax=middle)
    rr.plotting.gradient_flow(path.flows, lams=path.lam, chosen=choice.lam, band=False, ax=right)
    right.set_xlabel("steps back ℓ (years)")
    seeds, ax = plt.subplots(figsize=(6.4, 3.8))
    rr.plotting.cv_seeds(result, choice, ylabel="ARV of one network, validation blocks", ax=ax)
    return {"overview": overview, "seeds": seeds, "forecast": _forecast(choice, compared)}


def _forecast(choice: rr.selection.Choice, compared: Comparison) -> Figure:
    years = np.concatenate([compared.years[span] for span in TESTS])
    series_years, values = compared.series
    shown = series_years >= 1900
    free = compared.path.free_run(compared.chosen, compared.data, 35)
    middle, spread = free.mean(axis=0), free.std(axis=0)
    curves = {
        f"one step, λ = {lam:.2g}": (years, np.concatenate([compared.forecasts[name][span] for span in TESTS]))
        for name, lam in (("unregularised", 0.0), ("chosen", choice.lam))
    }
    free_name = f"free-running from 1920, λ = {choice.lam:.2g}"
    figure, ax = plt.subplots(figsize=(7.2, 3.4))
    rr.plotting.predicted_series(
        series_years[shown],
        values[shown],
        {**curves, free_name: (np.arange(1921, 1921 + len(middle)), middle)},
        bands={free_name: (middle - spread, middle + spread)},
        spans={span: rr.datasets.TEST_YEARS[span] for span in TESTS.values()},
        xlabel="year",
        ylabel="yearly sunspot number",
        ax=ax,
    )
    return figure
