"""Fisher memory: delay lines remember in proportion to the harmonic numbers, normal networks not beyond 1.

Everything in float64. The delay line of gain α has h_i ← α h_{i−1} with its input at the first unit and noise of
variance 1 at every unit. Where the noise enters decides the answer: the last panel lets it in along the input
alone. Without noise, what can be read off the states is another thing: recall of white inputs, by linear and by tanh
units of the same W.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, run, text_table
from rnnreg.diagnostics import FisherMemory, MemoryCurve

GANGULI = "Ganguli, Huh & Sompolinsky 2008"
TRACE = "algebra: tr Σ W^k C⁻¹ (W^k)ᵀ = tr C⁻¹C = N"
DIAGONAL = "algebra: C = Σ (vW^k)ᵀ(vW^k) is diagonal"
JAEGER = "Jaeger 2002: N for linear units without noise"
KERG = "Kerg et al. 2019, Fig. 1, by the closed form"


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the Fisher memory experiment."""

    size: int = 20
    """Units of the delay lines."""
    normal_size: int = 50
    """Units of the normal and the random networks."""
    seeds: int = 10
    """Draws of each kind of network."""
    gains: tuple[float, ...] = (0.95, 1.0, 1.05)
    """Gains of the delay line."""
    rho: float = 0.95
    """Spectral radius that the normal and the random networks are scaled to."""


PRESETS = {"quick": {"seeds": 3}, "full": {}}


def delay_line(size: int, gain: float) -> jax.Array:
    """`gain` from each unit to the next, nothing else."""
    return gain * jnp.eye(size, k=1)


def closed_form(gain: float, lags: np.ndarray) -> np.ndarray:
    """J(k) = α^{2k} (α² − 1)/(α^{2(k+1)} − 1) of a delay line, 1/(k+1) at α = 1."""
    if gain == 1:
        return 1 / (lags + 1)
    return gain ** (2 * lags) * (gain**2 - 1) / (gain ** (2 * (lags + 1)) - 1)


def networks(size: int, rho: float, key: jax.Array) -> dict[str, jax.Array]:
    """One W of each kind, of spectral radius ρ; all but the last are normal."""
    key_symmetric, key_orthogonal, key_blocks, key_random = jax.random.split(key, 4)
    gaussian = jax.random.normal(key_symmetric, (size, size)) / jnp.sqrt(size)
    symmetric = gaussian + gaussian.T
    circulant = jax.vmap(lambda shift: jnp.roll(gaussian[0], shift))(jnp.arange(size))
    # a normal matrix with complex pairs of many radii and angles, in a random orthonormal basis
    basis = jax.random.orthogonal(key_orthogonal, size)
    radii, angles = jax.random.uniform(key_blocks, (2, size // 2))
    cosines, sines = radii * jnp.cos(6.3 * angles), radii * jnp.sin(6.3 * angles)
    blocks = jnp.zeros((size, size))
    even = 2 * jnp.arange(size // 2)
    for row, column, values in ((0, 0, cosines), (0, 1, sines), (1, 0, -sines), (1, 1, cosines)):
        blocks = blocks.at[even + row, even + column].set(values)
    found = {
        "symmetric": symmetric,
        "orthogonal": basis,
        "circulant": circulant,
        "complex pairs": basis.T @ blocks @ basis,
        "random": jax.random.normal(key_random, (size, size)),
    }
    radius = {name: np.abs(np.linalg.eigvals(np.asarray(W))).max() for name, W in found.items()}
    return {name: rho * W / radius[name] for name, W in found.items()}


@jax.jit
def memory_of(W: jax.Array, v: jax.Array, noise: jax.Array | None = None) -> FisherMemory:
    """The record, with twice as many lags as units."""
    return rr.diagnostics.fisher_memory(W, v, num_lags=2 * len(v), noise=noise)


def recall_of(W: jax.Array) -> dict[str, MemoryCurve]:
    """Recall of white inputs at the first unit, without noise, by linear and by tanh units."""
    key_inputs, key_surrogates = jax.random.split(jax.random.key(0))
    size, found = len(W), {}
    xs = jax.random.normal(key_inputs, (8, 20 * size, 1))
    for name, activation in {"linear": jax.nn.identity, "tanh": jnp.tanh}.items():

        def step(W, state, x, activation=activation):
            return activation(state @ W + x * jnp.eye(size)[0])

        found[name] = rr.diagnostics.memory_curve(
            step, W, xs, key=key_surrogates, num_lags=2 * size, state=jnp.zeros((8, size))
        )
    return found


def main(config: Config) -> Report:
    """Computes the curves and compares them with the closed forms."""
    lags = np.arange(config.size)
    first = jnp.eye(config.size)[0]
    lines = {gain: memory_of(delay_line(config.size, gain), first) for gain in config.gains}
    errors = {
        gain: float(np.abs(memory.curve[: config.size] - closed_form(gain, lags)).max())
        for gain, memory in lines.items()
    }

    kinds: dict[str, list[FisherMemory]] = {}
    for seed in range(config.seeds):
        key = jax.random.key(seed)
        v = jax.random.normal(jax.random.fold_in(key, 1), (config.normal_size,))
        for name, W in networks(config.normal_size, config.rho, key).items():
            kinds.setdefault(name, []).append(memory_of(W, v / jnp.linalg.norm(v)))
    totals = {name: np.array([memory.total for memory in kind]) for name, kind in kinds.items()}
    # J_tot of the best input direction of each network, and its mean over directions
    best = {name: np.array([_spectrum(m).max() for m in kind]) for name, kind in kinds.items()}
    mean = np.array([_spectrum(m).mean() for kind in kinds.values() for m in kind])

    orthogonal = networks(config.normal_size, config.rho, jax.random.key(0))["orthogonal"]
    recall = {"delay line": recall_of(delay_line(config.size, 1.0)), "orthogonal": recall_of(orthogonal)}
    along_input = memory_of(delay_line(config.size, 1.0), first, jnp.outer(first, first))
    rows = [
        (f"delay line, α = {gain:g}", f"{m.total:.4f}", f"{_spectrum(m).max():.4f}", "1") for gain, m in lines.items()
    ]
    rows += [
        (
            f"{name}, N = {config.normal_size}",
            f"{totals[name].mean():.4f}",
            f"{best[name].mean():.4f}",
            str(config.seeds),
        )
        for name in kinds
    ]
    rows += [("delay line, noise along the input alone", f"{along_input.total:.4f}", "–", "1")]
    summary = {
        "delay_lines": {f"{gain:g}": lines[gain].curve for gain in lines},
        "largest_error_of_the_curves": {f"{gain:g}": error for gain, error in errors.items()},
        "totals": totals,
        "totals_of_the_best_direction": best,
        "capacities": {name: {units: m.capacity for units, m in each.items()} for name, each in recall.items()},
        "all_converged": all(bool(m.converged) for kind in kinds.values() for m in kind),
    }
    claims = _claims(config, lines, errors, totals, mean, along_input) + _recall_claims(recall)
    table = text_table(("network", "J_tot", "of the best direction", "draws"), rows)
    figure = _draw(config, lines, kinds, along_input)
    return Report(summary, claims, table, {"fisher_memory": figure, "recall": _draw_recall(recall)})


def _spectrum(memory: FisherMemory) -> np.ndarray:
    """J_tot along each eigenvector of the spatial Fisher memory."""
    return np.linalg.eigvalsh(np.asarray(memory.spatial))


def _claims(config, lines, errors, totals, mean, along_input) -> list[Claim]:
    normal = np.concatenate([totals[name] for name in totals if name != "random"])
    published = {(20, 0.95): 2.8957, (20, 1.0): 3.5977, (20, 1.05): 4.5113}
    claims = []
    for gain, memory in lines.items():
        name = f"delay line, α = {gain:g}: "
        claims.append(
            Claim(name + "largest |J(k) − closed form|", GANGULI if gain == 1 else KERG).at_most(1e-12, errors[gain])
        )
        if (config.size, gain) in published:
            claims.append(
                Claim(name + f"J_tot (N = {config.size})", "H_20" if gain == 1 else KERG).close(
                    published[config.size, gain], memory.total, tolerance=5e-5
                )
            )
    return [
        *claims,
        Claim(f"normal networks: largest |J_tot − 1| of {normal.size}", GANGULI).at_most(
            1e-9, np.abs(normal - 1).max()
        ),
        Claim("every network: largest |mean of J_tot over input directions − 1|", TRACE).at_most(
            1e-9, np.abs(mean - 1).max()
        ),
        Claim("delay line, noise along the input alone: largest |J(k) − 1| for k < N", DIAGONAL).at_most(
            1e-12, np.abs(along_input.curve[: config.size] - 1).max()
        ),
    ]


def _recall_claims(recall) -> list[Claim]:
    less = "written down before: a part goes to products of inputs"
    claims = []
    for name, each in recall.items():
        size, capacity = len(each["linear"].lags) // 2, each["linear"].capacity
        claims += [
            Claim(f"{name}, {size} linear units: capacity of recall", JAEGER).close(
                size, capacity, tolerance=0.01 * size
            ),
            Claim(f"{name}, tanh units: capacity over that of linear ones", less).at_most(
                0.9, each["tanh"].capacity / capacity
            ),
        ]
    return claims


def _draw_recall(recall) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.7), sharey=True)
    for ax, (name, each) in zip(axes, recall.items(), strict=True):
        rr.plotting.memory_curve(each, ax=ax)
        ax.set_title(f"{name}, N = {len(each['tanh'].lags) // 2}", loc="left")
    axes[1].set_ylabel("")
    return figure


def _draw(config, lines, kinds, along_input) -> Figure:
    first = {name: kind[0] for name, kind in kinds.items()}
    noisy = {"noise on every unit": lines[1.0]} if 1.0 in lines else {}
    panels = [
        (f"(a) delay lines, N = {config.size}; dots: closed form", {f"α = {gain:g}": m for gain, m in lines.items()}),
        (f"(b) N = {config.normal_size}, ρ = {config.rho:g}, one draw of each", first),
        ("(c) delay line, α = 1", {**noisy, "noise along the input alone": along_input}),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(10.2, 3.7), sharey=True)
    for ax, (title, memories) in zip(axes, panels, strict=True):
        rr.plotting.fisher_memory(memories, floor=1e-3, ax=ax)
        ax.set_xlim(0, config.normal_size if memories is first else config.size)
        ax.set_title(title, loc="left")
        ax.set_ylabel(ax.get_ylabel() if ax is axes[0] else "")
    lags = np.arange(config.size)
    for gain in lines:
        axes[0].plot(lags, closed_form(gain, lags), "o", color="black", markersize=2.5)
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS, x64=True)
