"""What λ‖W‖² does, in closed form and measured: shrinkage, ridge, AR(1), and the one-weight chain that jumps to zero.

1. Without data, gradient descent gives ρ(W(t)) = ρ₀ (1 − 2ηλ)^t.
2. A linear network of one step is ridge regression; in one dimension ŵ = âσ²/(σ² + λ), so an estimate â > 1 becomes a
   contracting model iff λ > σ²(â − 1).
3. The chain (1 − w^T)² + λ w² does not forget gradually. Its memory is the global optimum up to λ_c, a local one up to
   λ_s, and then w jumps to 0; on the way back w = 0 is a local minimum for every λ > 0, so the memory never returns.

Everything is trained by `rr.make_train` with optax.sgd in float64, hundreds of λ under one vmap.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

import rnnreg as rr
from experiments import _memory_theory as theory
from experiments import _penalty_runs as runs
from experiments._harness import Claim, Options, run, text_table

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
        self.decay = runs.shrinkage(
            lams, rate=0.05, num_updates=config.decay_updates, hidden_size=16
        )
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

        self.chain = runs.Chain(
            config.num_steps, num_updates=config.num_updates, path_updates=config.path_updates
        )
        self.thresholds = runs.thresholds(
            self.chain, start=config.start, num_lambdas=config.num_lambdas
        )
        self.paths = runs.paths(self.chain, num_lambdas=config.path_lambdas)


def main(config: Config) -> None:
    """Measures everything, prints the tables of thresholds and claims, draws the figure."""
    rr.compilation_cache()
    with jax.enable_x64():
        measured = Measured(config)
    print(_table(config, measured))
    claims = _claims(config, measured)
    print(claims_table(claims))
    rr.plotting.save(_figure(config, measured), config.out / "penalty_theory", close=True)
    found = measured.thresholds
    summary = {
        "config": config,
        "T": config.num_steps,
        "thresholds": found,
        "theory": {
            "spinodal": [theory.chain_spinodal(T) for T in config.num_steps],
            "switch": [theory.chain_switch(T) for T in config.num_steps],
            "cold": runs.cold_theory(measured.chain.num_steps, config.start),
        },
        "paths": measured.paths,
        "ar1": {
            "estimate": measured.estimate,
            "variance": measured.variance,
            "critical": measured.ar_critical,
            "crossing": measured.ar_crossing,
        },
    }
    write_summary(config.out, summary, claims)
    print(f"wrote {config.out}/")


def _table(config: Config, measured: Measured) -> str:
    found = measured.thresholds
    cold = runs.cold_theory(measured.chain.num_steps, config.start)
    rows = []
    for place, T in enumerate(config.num_steps):
        pairs = (
            (theory.chain_spinodal(T), found.spinodal[place]),
            (theory.chain_switch(T), found.switch[place]),
            (cold[place], found.cold[place]),
        )
        cells = [f"{value:.4f}" if np.isfinite(value) else "–" for pair in pairs for value in pair]
        rows.append((str(T), *cells))
    names = ("λ_s", "λ_c", f"λ_cold({config.start:g})")
    header = ("T", *(cell for name in names for cell in (name, "measured")))
    return text_table(header, rows)


def _claims(config: Config, measured: Measured) -> list[Claim]:
    decay, found, paths = measured.decay, measured.thresholds, measured.paths
    T = measured.chain.num_steps
    claims = [
        Claim.close(
            "ρ(W(t)) / ρ₀(1 − 2ηλ)^t − 1, largest",
            0.0,
            np.abs(decay.rho / decay.theory - 1).max(),
            source=SOURCE,
            tolerance=1e-10,
        ),
        Claim.close(
            "one linear step − ridge, largest element",
            0.0,
            np.abs(measured.ridge - measured.ridge_theory).max(),
            source=SOURCE,
            tolerance=1e-10,
        ),
        Claim.close(
            "AR(1): ŵ − âσ²/(σ² + λ), largest",
            0.0,
            np.abs(measured.ar - measured.ar_theory).max(),
            source=SOURCE,
            tolerance=1e-10,
        ),
        Claim.close(
            "AR(1), â > 1: λ at which ŵ = 1, over σ²(â − 1)",
            1.0,
            measured.ar_crossing / measured.ar_critical,
            source=SOURCE,
            tolerance=0.01,
        ),
    ]
    cold = runs.cold_theory(T, config.start)
    for place, steps in enumerate(config.num_steps):
        for name, expected, value, tolerance in (
            ("λ_s", theory.chain_spinodal(steps), found.spinodal[place], 0.003),
            ("λ_c", theory.chain_switch(steps), found.switch[place], 0.003),
            (f"λ_cold(w₀ = {config.start:g})", cold[place], found.cold[place], 0.003),
        ):
            if np.isfinite(expected):
                claims.append(
                    Claim.close(
                        f"chain T = {steps}: {name}",
                        expected,
                        value,
                        source=SOURCE,
                        tolerance=tolerance * expected,
                    )
                )
    last = _last_alive(paths.up)
    claims += [
        Claim.at_least(
            "the jump is of first order: w^T at the last λ with a memory, least over T",
            0.375,
            np.take_along_axis(paths.up, last[:, None], 1).min(),
            source="closed form: (T−2)/(2T−2) at λ_s, at least 3/8",
        ),
        Claim.at_most(
            "… and w^T one step of λ further, largest over T",
            0.01,
            np.take_along_axis(paths.up, last[:, None] + 1, 1).max(),
            source=SOURCE,
        ),
        Claim.at_most(
            "the way back never returns: w^T on the way down to λ = 0, largest",
            1e-3,
            paths.down[np.arange(len(T)), :].max(axis=1).max(),
            source="closed form: w = 0 is a local minimum for T ≥ 3",
        ),
    ]
    return claims


def _last_alive(values: np.ndarray) -> np.ndarray:
    """Of each path, the last λ at which w^T is above a quarter (the branch ends at 3/8 or more)."""
    return (values > 0.25).sum(axis=1) - 1


def _figure(config: Config, measured: Measured):
    import matplotlib.pyplot as plt

    from rnnreg.plotting._style import CYCLE

    figure, axes = plt.subplots(2, 2, figsize=(7.4, 5.6))
    _draw_decay(axes[0, 0], measured, CYCLE)
    _draw_ar(axes[0, 1], measured, CYCLE)
    _draw_paths(axes[1, 0], config, measured, CYCLE)
    _draw_thresholds(axes[1, 1], config, measured, CYCLE)
    for ax, letter in zip(axes.ravel(), "abcd", strict=True):
        ax.set_title(letter, loc="left", fontweight="bold")
    return figure


def _draw_decay(ax, measured, colours) -> None:
    decay = measured.decay
    times = np.arange(decay.rho.shape[1])
    shown = np.unique(np.linspace(0, times[-1], 21).astype(int))
    for colour, lam, rho, line in zip(colours, decay.lams, decay.rho, decay.theory, strict=False):
        ax.plot(times, line, color=colour, label=f"λ = {lam:g}")
        ax.plot(times[shown], rho[shown], "o", color=colour)
    ax.set_yscale("log")
    ax.set_ylim(1e-10, 4)
    ax.set(xlabel="update t", ylabel="ρ(W(t))")
    ax.set_title("no data: dots descent, lines ρ₀(1 − 2ηλ)ᵗ", fontsize=8)
    ax.legend(fontsize=7, loc="lower left")


def _draw_ar(ax, measured, colours) -> None:
    lams = measured.ar_lams
    few = np.unique(np.linspace(0, len(lams) - 1, 25).astype(int))
    ax.plot(lams, measured.ar_theory, color=colours[0], label="âσ²/(σ² + λ)")
    ax.plot(lams[few], measured.ar[few], "o", color=colours[0], label="trained W$_{hh}$")
    ax.axhline(1, color="0.5", lw=0.8)
    ax.axvline(measured.ar_critical, color=colours[1], ls="--", label="λ = σ²(â − 1)")
    ax.set_xscale("log")
    ax.set(xlabel="λ", ylabel="ŵ", ylim=(0, None))
    ax.set_title(f"AR(1), â = {measured.estimate:.3f}: contracting beyond the dashed λ", fontsize=8)
    ax.legend(fontsize=7, loc="lower left")


def _draw_paths(ax, config, measured, colours) -> None:
    paths = measured.paths
    for colour, T, lams, up, down in zip(
        colours, config.num_steps, paths.lams, paths.up, paths.down, strict=False
    ):
        fine = np.linspace(0, theory.chain_spinodal(T), 400)
        ax.plot(fine[1:], theory.chain_branch(T, fine)[1:], color=colour, label=f"T = {T}")
        every = slice(1, None, max(1, len(lams) // 25))
        ax.plot(lams[every], up[every], "o", color=colour)
        ax.plot(lams[1::12], down[1::12], "v", color=colour, mfc="white", ms=4)
        end = theory.chain_spinodal(T)
        ax.plot([end, end], [(T - 2) / (2 * T - 2), 0], ":", color=colour, lw=1)
    ax.plot([], [], "o", color="0.3", label="up")
    ax.plot([], [], "v", color="0.3", mfc="white", label="down")
    ax.set_xscale("log")
    ax.set(xlabel="λ", ylabel="wᵀ, what is left after T steps")
    ax.set_title("chain (1 − wᵀ)² + λw²: a jump, and no return", fontsize=8)
    ax.legend(fontsize=7, loc="center left")


def _draw_thresholds(ax, config, measured, colours) -> None:
    found, T = measured.thresholds, np.asarray(config.num_steps)
    fine = np.geomspace(4, 130, 200)
    cold = [theory.chain_cold(t, config.start) for t in fine]
    below = config.start**fine < (fine - 2) / (2 * fine - 2)
    ax.plot(fine, [theory.chain_spinodal(t) for t in fine], color=colours[1])
    ax.plot(fine, [theory.chain_switch(t) for t in fine], color=colours[2])
    ax.plot(fine[below], np.asarray(cold)[below], color=colours[0])
    ax.plot(T, found.spinodal, "o", color=colours[1], label="λ$_s$: no longer a local optimum")
    ax.plot(T, found.switch, "o", color=colours[2], label="λ$_c$: no longer the global one")
    name = f"λ$_{{cold}}$: not found from w₀ = {config.start:g}"
    ax.plot(T, found.cold, "o", color=colours[0], label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(xlabel="steps T", ylabel="λ", ylim=(1e-3, 300))
    ax.set_xticks(T, [str(t) for t in T])
    ax.minorticks_off()
    ax.set_title("thresholds: lines theory, dots gradient descent", fontsize=8)
    ax.legend(fontsize=7, loc="upper left")


if __name__ == "__main__":
    run(main, Config, PRESETS)
