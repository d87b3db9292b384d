"""The theory of λ‖W‖², as a command."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from experiments._harness import Claim, Options, Report, run, text_table
from experiments.penalty_theory import chain, runs
from experiments.penalty_theory.figure import figure

SOURCE = "closed form"


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the theory of λ‖W‖²."""

    num_steps: tuple[int, ...] = (5, 10, 20, 50, 100)
    """T of the chains."""
    start: float = 0.9
    """w₀ of the chain's cold start."""
    num_lambdas: int = 200
    """λ under one vmap."""
    num_updates: int = 4000
    """Updates of each chain; the saddle-node is passed in about 4π/√δ of them at a relative distance δ."""
    path_updates: int = 200
    """Updates at each λ of the warm paths; must divide num_updates."""
    path_lambdas: int = 101
    """λ of a warm path, from 0 to 1.25 λ_s."""
    decay_updates: int = 200
    """Updates of descent on λ‖W‖² alone."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {
        "num_steps": (5, 10),
        "num_lambdas": 60,
        "num_updates": 1000,
        "path_updates": 100,
        "path_lambdas": 31,
        "decay_updates": 100,
    },
}


class Measured:
    """All that is measured, in float64."""

    def __init__(self, config: Config):
        lams = np.array([0.01, 0.03, 0.1, 0.3, 1.0])
        self.decay = runs.shrinkage(lams, rate=0.05, num_updates=config.decay_updates, hidden_size=16)
        rng = np.random.default_rng(0)
        xs = rng.normal(size=(50, 4)) * np.array([1.5, 1.0, 0.8, 0.6])
        ys = xs @ rng.normal(size=(4, 4)) + 0.3 * rng.normal(size=(50, 4))
        self.ridge_lams = np.geomspace(1e-3, 1e2, config.num_lambdas)
        self.ridge = runs.one_step(xs, ys, self.ridge_lams, num_updates=300)
        self.ridge_theory = runs.ridge(xs, ys, self.ridge_lams)

        series = [1.0]
        for noise in rng.normal(size=100):
            series.append(1.03 * series[-1] + noise)
        before, after = np.array(series[:-1]), np.array(series[1:])
        self.variance = float(np.mean(before**2))
        self.estimate = float(before @ after / (before @ before))
        self.ar_lams = self.variance * np.geomspace(1e-3, 1e1, config.num_lambdas)
        self.ar = runs.one_step(before[:, None], after[:, None], self.ar_lams, num_updates=3)
        self.ar = self.ar[:, 0, 0]
        self.ar_theory = self.estimate * self.variance / (self.variance + self.ar_lams)
        self.ar_critical = self.variance * (self.estimate - 1)
        self.ar_crossing = float(np.interp(-1.0, -self.ar, self.ar_lams))

        memory = runs.Chain(config.num_steps, num_updates=config.num_updates, path_updates=config.path_updates)
        self.num_steps = T = memory.num_steps
        self.theory = {"spinodal": chain.spinodal(T), "switch": chain.switch(T), "cold": chain.colds(T, config.start)}
        self.thresholds = runs.thresholds(memory, start=config.start, num_lambdas=config.num_lambdas)
        self.paths = runs.paths(memory, num_lambdas=config.path_lambdas)


def main(config: Config) -> Report:
    """Measures everything, and compares it with the closed forms."""
    measured = Measured(config)
    summary = {
        "T": config.num_steps,
        "thresholds": measured.thresholds,
        "theory": measured.theory,
        "paths": measured.paths,
        "ar1": {
            "estimate": measured.estimate,
            "variance": measured.variance,
            "critical": measured.ar_critical,
            "crossing": measured.ar_crossing,
        },
    }
    figures = {"penalty_theory": figure(config.start, measured)}
    return Report(summary, _claims(config, measured), _table(config, measured), figures)


def _pairs(measured: Measured, start: float) -> list[dict[str, tuple[float, float]]]:
    """Of each T, by threshold: (closed form, measured)."""
    names = {"λ_s": "spinodal", "λ_c": "switch", f"λ_cold(w₀ = {start:g})": "cold"}
    columns = [zip(measured.theory[name], getattr(measured.thresholds, name), strict=True) for name in names.values()]
    return [dict(zip(names, pairs, strict=True)) for pairs in zip(*columns, strict=True)]


def _table(config: Config, measured: Measured) -> str:
    rows = [
        (str(T), *(f"{v:.4f}" if np.isfinite(v) else "–" for pair in pairs.values() for v in pair))
        for T, pairs in zip(config.num_steps, _pairs(measured, config.start), strict=True)
    ]
    names = ("λ_s", "λ_c", f"λ_cold({config.start:g})")
    return text_table(("T", *(cell for name in names for cell in (name, "measured"))), rows)


def _claims(config: Config, measured: Measured) -> list[Claim]:
    decay, paths = measured.decay, measured.paths
    excesses = {
        "ρ(W(t)) / ρ₀(1 − 2ηλ)^t − 1, largest": decay.rho / decay.theory - 1,
        "one linear step − ridge, largest element": measured.ridge - measured.ridge_theory,
        "AR(1): ŵ − âσ²/(σ² + λ), largest": measured.ar - measured.ar_theory,
    }
    claims = [Claim(name, SOURCE).close(0.0, np.abs(each).max(), tolerance=1e-10) for name, each in excesses.items()]
    crossing = Claim("AR(1), â > 1: λ at which ŵ = 1, over σ²(â − 1)", SOURCE)
    claims.append(crossing.close(1.0, measured.ar_crossing / measured.ar_critical, tolerance=0.01))
    claims += [
        Claim(f"chain T = {steps}: {name}", SOURCE).close(expected, value, tolerance=0.003 * expected)
        for steps, pairs in zip(config.num_steps, _pairs(measured, config.start), strict=True)
        for name, (expected, value) in pairs.items()
        if np.isfinite(expected)
    ]
    last = (paths.up > 0.25).sum(axis=1) - 1  # the last λ with a memory: the branch ends at 3/8 or more
    claims += [
        Claim(
            "the jump is of first order: w^T at the last λ with a memory, least over T",
            "closed form: (T−2)/(2T−2) at λ_s, at least 3/8",
        ).at_least(0.375, np.take_along_axis(paths.up, last[:, None], 1).min()),
        Claim("… and w^T one step of λ further, largest over T", SOURCE).at_most(
            0.01, np.take_along_axis(paths.up, last[:, None] + 1, 1).max()
        ),
        Claim(
            "the way back never returns: w^T on the way down to λ = 0, largest",
            "closed form: w = 0 is a local minimum for T ≥ 3",
        ).at_most(1e-3, paths.down.max()),
    ]
    return claims


if __name__ == "__main__":
    run(main, Config, PRESETS, x64=True)
