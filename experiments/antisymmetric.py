"""The antisymmetric network of Chang et al. 2019, Fig. 1: four matrices in two dimensions and where they lead.

h ← h + ε tanh(A h), ε = .1. At the origin a step multiplies by |1 + ελ|, λ the eigenvalues of A. For
A = W − Wᵀ − γI with eigenvalues −γ ± iω that is at most 1 only for γ ≥ ε(γ² + ω²)/2, which is γ ≥ .2020 at ω = 2: the
γ = .15 of the figure does not make the origin stable, and the trajectories end on a ring around it.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import root_scalar

import rnnreg as rr
from experiments._harness import Claim, Options, Report, run, text_table

EPSILON, OMEGA, GAMMA = 0.1, 2.0, 0.15
STARTS = ((0.0, 0.5), (-0.5, -0.5), (0.5, -0.75))
TURN = np.array([[0.0, -OMEGA], [OMEGA, 0.0]])
MATRICES = {
    "antisymmetric": TURN,
    "antisymmetric − .15 I": TURN - GAMMA * np.eye(2),
    "positive eigenvalues": np.array([[2.0, -2.0], [0.0, 2.0]]),
    "negative eigenvalues": -np.array([[2.0, -2.0], [0.0, 2.0]]),
}
# computed beforehand, independently of the library
MULTIPLIERS = dict(zip(MATRICES, (1.0198, 1.0051, 1.2, 0.8), strict=True))
RADII = dict(
    zip(MATRICES, ((0.789, 1.019, 1.192), (0.518, 0.711, 0.841), (7.33, 6.81, 7.93), (0.0, 0.0, 0.0)), strict=True)
)


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the antisymmetric network."""

    num_steps: int = 50
    """Steps of the figure."""
    long_steps: int = 2000
    """Steps until the ring is looked at."""


PRESETS = {"quick": {}, "full": {}}


def step(A, state, x):
    """h ← h + ε tanh(A h), on rows."""
    del x
    return state + EPSILON * jnp.tanh(state @ A.T)


def trajectories(A, num_steps: int) -> np.ndarray:
    """[starts, num_steps + 1, 2]."""
    start = jnp.array(STARTS)

    def advance(state, _):
        new = step(jnp.asarray(A), state, None)
        return new, new

    _, states = jax.lax.scan(advance, start, length=num_steps)
    return np.concatenate([start[:, None], np.swapaxes(states, 0, 1)], axis=1)


def at_origin(A) -> rr.diagnostics.Spectrum:
    """The spectrum of the step's Jacobian at h = 0."""
    return rr.diagnostics.step_spectra(step, jnp.asarray(A), jnp.zeros((1, 1, 0)), state=jnp.zeros((1, 2)))


def main(config: Config) -> Report:
    """Runs the four matrices, looks for the stable γ and at the ring."""
    spectra = {name: at_origin(A) for name, A in MATRICES.items()}
    paths = {name: trajectories(A, config.num_steps) for name, A in MATRICES.items()}
    threshold = _stable_from()
    ring = trajectories(MATRICES["antisymmetric − .15 I"], config.long_steps)
    exponents = _exponents(config)
    multipliers = {name: float(found.rho[0, 0]) for name, found in spectra.items()}
    radii = {name: np.linalg.norm(path[:, -1], axis=-1) for name, path in paths.items()}
    last = np.linalg.norm(ring[:, -config.long_steps // 5 :], axis=-1)
    rows = [(name, f"{multipliers[name]:.4f}", *(f"{radius:.3f}" for radius in radii[name])) for name in MATRICES]
    lines = [
        text_table(("A", "|1 + ελ|", *(f"from {start}" for start in STARTS)), rows),
        f"the origin is stable from γ = {threshold:.4f} on",
        f"γ = .15, the last fifth of {config.long_steps} steps: radius {last.min():.4f} to {last.max():.4f}",
        *(
            f"Lyapunov exponents, {name}: {found[0]:.5f}, {found[1]:.5f} nats a step"
            for name, found in exponents.items()
        ),
    ]
    summary = {
        "multipliers": multipliers,
        "radii": radii,
        "stable_from": threshold,
        "ring": {"smallest": last.min(), "largest": last.max()},
        "lyapunov": exponents,
    }
    claims = _claims(config, multipliers, radii, threshold, last, exponents)
    figure = _figure(config, paths, ring, last, spectra, multipliers)
    return Report(summary, claims, "\n".join(lines), {"antisymmetric": figure})


def _stable_from() -> float:
    """The γ at which ρ(J) = 1 at the origin."""

    def excess(gamma):
        return rr.diagnostics.matrix_spectrum(np.eye(2) + EPSILON * (TURN - gamma * np.eye(2))).rho - 1

    return root_scalar(excess, bracket=(0.0, 1.0)).root


def _exponents(config: Config):
    """Lyapunov spectra on the ring (γ = .15), and at the origin that γ = .25 makes stable."""
    found = {}
    for gamma in (GAMMA, 0.25):
        A = jnp.asarray(TURN - gamma * np.eye(2))
        found[f"γ = {gamma:g}"] = rr.diagnostics.lyapunov(
            step, A, jnp.zeros((1, 5 * config.long_steps, 0)), state=jnp.array(STARTS[:1]), discard=config.long_steps
        ).exponents[0]
    return found


def _claims(config: Config, multipliers, radii, threshold, last, exponents) -> list[Claim]:
    figure, iterated = "Chang et al. 2019, Fig. 1", "iterated beforehand"
    claims = [
        Claim(f"|1 + ελ| at the origin, {name}", f"{figure}, closed form").close(
            expected, multipliers[name], tolerance=5e-5
        )
        for name, expected in MULTIPLIERS.items()
    ]
    claims += [
        Claim(f"radius after {config.num_steps} steps from {start}, {name}", f"{figure}, {iterated}").close(
            expected,
            measured,
            tolerance=0.005 if expected > 2 else 5e-4,  # as printed: three digits
        )
        for name in MATRICES
        for start, expected, measured in zip(STARTS, RADII[name], radii[name], strict=True)
    ]
    stable = "smallest γ with a stable origin"
    least = "smallest radius of the ring at γ = .15 (.57 in two digits)"
    most = "largest radius of the ring at γ = .15 (.60 in two digits)"
    on_the_ring = "largest Lyapunov exponent on the ring"
    return [
        *claims,
        Claim(stable, "γ ≥ ε(γ² + ω²)/2").close(0.2020, threshold, tolerance=5e-5),
        Claim(least, iterated).at_least(0.565, last.min()),
        Claim(most, iterated).at_most(0.605, last.max()),
        Claim(on_the_ring, "an invariant curve: 0").close(0.0, exponents["γ = 0.15"][0], tolerance=1e-3),
    ]


def _figure(config: Config, paths, ring, last, spectra, multipliers) -> Figure:
    figure, axes = plt.subplots(2, 3, figsize=(10.8, 7.4))
    figure.suptitle(f"h ← h + .1 tanh(A h), {config.num_steps} steps; circles: starts")
    panels = axes.ravel()
    for ax, (name, path), letter in zip(panels, paths.items(), "abcd", strict=False):
        _draw(ax, path, f"({letter}) {name}, |1 + ελ| = {multipliers[name]:.4f}")
    ends = f"radius {last.min():.2f} to {last.max():.2f}"
    title = f"(e) γ = .15, {config.long_steps} steps: {ends}"
    _draw(panels[4], ring, title, linewidth=0.3, marker="")
    rr.plotting.eigenvalue_cloud(spectra, ax=panels[5])
    panels[5].set_title("(f) eigenvalues 1 + ελ of a step at h = 0", loc="left")
    return figure


def _draw(ax, path, title: str, **look) -> None:
    for row, color in zip(path, ("#0072B2", "#D55E00", "#009E73"), strict=True):
        ax.plot(*row.T, color=color, **{"linewidth": 1.0, "marker": ".", "markersize": 2} | look)
        ax.plot(*row[0], "o", color=color, markersize=5, markerfacecolor="white")
    ax.set_title(title, loc="left")
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="h$_1$", ylabel="h$_2$")


if __name__ == "__main__":
    run(main, Config, PRESETS, x64=True)
