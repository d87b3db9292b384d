"""The cliff of Pascanu, Mikolov & Bengio 2013: one unit, fifty steps, and an error surface that falls off.

Two figures of one unit, in float64. Fig. 6: E = (σ(x₅₀) − 0.7)² for x_t = w σ(x_{t−1}) + b from x₀ = ½; descent with
and without clipped gradients, drawn on the surface. On the line b = ½ − σ(½) w every x_t is ½, so the derivatives are
known exactly there; for w > 4.26 that fixed point is unstable, and the line is the edge of the cliff. Fig. 3: where
the unit's fixed points appear and vanish as b moves at w = 5. Does a network of many units meet cliffs too? The loss of
32 tanh units after fifty steps, along a random direction of the weights: gain .9 forgets, gain 3 is chaotic.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, run
from rnnreg.diagnostics import HessianDirections, LossSurface

PASCANU = "Pascanu, Mikolov & Bengio 2013"
NUM_STEPS, START, TARGET = 50, 0.5, 0.7
AT_HALF = 1 / (1 + np.exp(-START))  # σ(½)


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the cliff experiment."""

    resolution: int = 241
    """Points along each axis of the error surface."""
    num_updates: int = 80
    """Updates of each descent."""
    learning_rate: float = 0.01
    """Of both descents."""
    clip: float = 1.0
    """Largest norm of a clipped gradient."""
    descent_from: tuple[float, float] = (5.0, -2.58)
    """(w, b) where both descents start, on the high side of the cliff."""
    num_biases: int = 121
    """Values of b in the bifurcation diagram."""


PRESETS = {"quick": {"resolution": 81, "num_biases": 41}, "full": {}}


def unit_step(w: Any, state: jax.Array, b: jax.Array) -> jax.Array:
    """x' = w σ(x) + b, the input being b: what the bifurcation diagram iterates."""
    return w * jax.nn.sigmoid(state) + b


def last_state(params: dict[str, jax.Array]) -> jax.Array:
    """x₅₀ of one unit."""

    def step(state, _):
        return unit_step(params["W_hh"], state, params["b_h"]), None

    state, _ = jax.lax.scan(step, jnp.asarray(START), length=NUM_STEPS)
    return state


def error(params: dict[str, jax.Array]) -> jax.Array:
    """E = (σ(x₅₀) − 0.7)²."""
    return jnp.square(jax.nn.sigmoid(last_state(params)) - TARGET)


def unit(w: float, b: float) -> dict[str, jax.Array]:
    return {"W_hh": jnp.asarray(w, float), "b_h": jnp.asarray(b, float)}


def exact_line(w: float) -> dict[str, float]:
    """Derivatives at b = ½ − σ(½) w, where x_t = ½ for every t and each step multiplies by a = w σ′(½)."""
    slope = w * AT_HALF * (1 - AT_HALF)
    by_b = (slope**NUM_STEPS - 1) / (slope - 1)
    return {
        "a": slope,
        "∂x₅₀/∂b": by_b,
        "∂x₅₀/∂w": AT_HALF * by_b,
        "∂E/∂b": 2 * (AT_HALF - TARGET) * AT_HALF * (1 - AT_HALF) * by_b,
    }


def measured_line(w: float) -> dict[str, float]:
    """The same by automatic differentiation."""
    params = unit(w, START - AT_HALF * w)
    state, error_there = jax.jit(jax.grad(last_state))(params), jax.jit(jax.grad(error))(params)
    return {"∂x₅₀/∂b": float(state["b_h"]), "∂x₅₀/∂w": float(state["W_hh"]), "∂E/∂b": float(error_there["b_h"])}


def descend(config: Config, clip: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Places (w, b) `[K + 1, 2]` of gradient descent, and the error at each."""
    rate = optax.sgd(config.learning_rate)
    optimizer = rate if clip is None else optax.chain(optax.clip_by_global_norm(clip), rate)

    @jax.jit
    def run(params):
        def update(carry, _):
            params, memory = carry
            changes, memory = optimizer.update(jax.grad(error)(params), memory)
            params = optax.apply_updates(params, changes)
            return (params, memory), params

        _, path = jax.lax.scan(update, (params, optimizer.init(params)), length=config.num_updates)
        path = jax.tree.map(lambda first, rest: jnp.append(first, rest), params, path)
        return jnp.stack([path["W_hh"], path["b_h"]], axis=1), jax.vmap(error)(path)

    places, errors = run(unit(*config.descent_from))
    return np.asarray(places), np.asarray(errors)


def surface_of(config: Config, ws: tuple[float, float], bs: tuple[float, float]) -> LossSurface:
    """The error over a rectangle of w and b."""
    centre = unit(0.0, 0.0)  # so that multiples of the directions are w and b themselves
    pair = [rr.diagnostics.coordinate_direction(centre, name) for name in ("W_hh", "b_h")]
    size = config.resolution

    @jax.jit
    def compute(alphas, betas):
        return rr.diagnostics.loss_surface(error, centre, pair, alphas=alphas, betas=betas, chunk=size)

    return compute(jnp.linspace(*ws, size), jnp.linspace(*bs, size))


def line_of(w: float, bs: tuple[float, float], num: int) -> LossSurface:
    """The error along b at one w."""
    centre = unit(w, 0.0)
    along = rr.diagnostics.coordinate_direction(centre, "b_h")
    return rr.diagnostics.loss_surface(error, centre, along, alphas=jnp.linspace(*bs, num))


@jax.jit
def curvatures(params: dict[str, jax.Array]) -> jax.Array:
    """Both eigenvalues of the Hessian of the error, the largest first."""
    return rr.diagnostics.hessian_directions(error, params, key=jax.random.key(0)).eigenvalues


@functools.partial(jax.jit, static_argnums=1)
def network_line(gain: Any, num: int) -> tuple[LossSurface, HessianDirections]:
    """The loss of a network at its start along a random direction, and how it curves there."""
    keys = jax.random.split(jax.random.key(0), 5)
    net = rr.network([rr.cells.elman(32, recurrent_init=rr.cells.gaussian(gain))], 1, readout="last")
    xs, ys = jax.random.normal(keys[0], (8, NUM_STEPS, 1)), jax.random.normal(keys[1], (8, 1))
    batch = rr.Batch(xs.at[:, 1:].set(0), ys)  # one input, then silence
    loss_of = rr.diagnostics.data_loss_of(net, rr.losses.squared_error("mean"), batch)
    params = net.init(keys[2], 1, dtype=float)
    along, alphas = rr.diagnostics.random_direction(params, key=keys[3]), jnp.linspace(-0.1, 0.1, num)
    line = rr.diagnostics.loss_surface(loss_of, params, along, alphas=alphas)
    return line, rr.diagnostics.hessian_directions(loss_of, params, key=keys[4], which="magnitude")


@jax.jit
def search(w: jax.Array, biases: jax.Array) -> rr.diagnostics.FixedPoints:
    """Where 25 starts end, at each b."""
    starts = jnp.linspace(-4.0, 4.0, 25)[:, None]

    def at(b):
        return rr.diagnostics.fixed_points(unit_step, w, b[None], starts=starts, num_descent=50, num_newton=40)

    return jax.vmap(at)(biases)


def points_by_bias(w: float, biases: np.ndarray) -> list[rr.diagnostics.DistinctPoints]:
    """The fixed points at each b."""
    found = jax.device_get(search(jnp.asarray(w), jnp.asarray(biases)))
    return [
        rr.diagnostics.distinct_points(
            jax.tree.map(lambda leaf, row=row: leaf[row], found), radius=1e-6, slow_below=0.0
        )
        for row in range(len(biases))
    ]


def saddle_node(w: float, low: float, high: float) -> float:
    """The b between `low` and `high` at which the number of fixed points changes, to about 1e-6."""
    for _ in range(6):
        biases = np.linspace(low, high, 13)
        counts = [len(table.points) for table in points_by_bias(w, biases)]
        change = next(place for place in range(12) if counts[place] != counts[place + 1])
        low, high = biases[change], biases[change + 1]
    return 0.5 * (low + high)


def main(config: Config) -> Report:
    """Measures derivatives and bifurcations, descends."""
    w = 5.0
    exact, measured = exact_line(w), measured_line(w)
    surfaces = [surface_of(config, (4.6, 5.4), (-2.9, -2.3)), surface_of(config, (4.91, 5.03), (-2.65, -2.55))]
    line = line_of(w, (-2.9, -2.3), 40 * config.resolution)
    paths = {"not clipped": descend(config, None), "clipped": descend(config, config.clip)}
    steps = {name: np.linalg.norm(np.diff(places, axis=0), axis=1) for name, (places, _) in paths.items()}
    lines = [
        f"{name}: from (w, b) = ({places[0, 0]:.3f}, {places[0, 1]:.3f}), E = {errors[0]:.4g}, to "
        f"({places[-1, 0]:.3f}, {places[-1, 1]:.3f}), E = {errors[-1]:.4g}; largest step {steps[name].max():.4g}"
        for name, (places, errors) in paths.items()
    ]
    places = {"where descent starts": config.descent_from, "on the edge": (w, START - AT_HALF * w)}
    curved = {name: curvatures(unit(*place)) for name, place in places.items()}
    networks = {gain: network_line(gain, 2 * config.resolution) for gain in (0.9, 3.0)}
    rough = {
        gain: float(line.gradient_norm.max() / jnp.median(line.gradient_norm)) for gain, (line, _) in networks.items()
    }
    lines += [
        f"{name}: largest curvature {values[0]:.3g}, along which a step is stable at rates below {2 / values[0]:.2g}"
        for name, values in curved.items()
    ]
    lines += [
        f"network of gain {gain:g}: curvatures from {found.ritz_values[0]:.2g} to {found.ritz_values[-1]:.2g}"
        for gain, (_, found) in networks.items()
    ]
    biases = np.linspace(-2.9, -2.1, config.num_biases)
    tables = points_by_bias(w, biases)
    nodes = {"lower": saddle_node(w, -2.9, -2.5), "upper": saddle_node(w, -2.5, -2.1)}
    figures = {
        "cliff": _draw_cliff(config, exact, surfaces, line, paths),
        "bifurcation": _draw_bifurcation(biases, tables),
        "network": _draw_networks(networks),
    }
    summary = {
        "exact": exact,
        "measured": measured,
        "saddle_nodes": nodes,
        "curvatures": curved,
        "network_curvatures": {gain: found.eigenvalues for gain, (_, found) in networks.items()},
        "steepest_at_w_5": np.max(line.gradient_norm),
        "descent": {name: {"places": places, "errors": errors} for name, (places, errors) in paths.items()},
    }
    claims = _claims(exact, measured, nodes, steps, paths, rough, config)
    return Report(summary, claims, "\n".join(lines), figures)


def _claims(exact, measured, nodes, steps, paths, rough, config) -> list[Claim]:
    printed = {"∂x₅₀/∂b": (18155.8, 0.05), "∂x₅₀/∂w": (11301.3, 0.05), "∂E/∂b": (-661.68, 0.005)}
    section = f"{PASCANU}, section 3.2"
    along, before = "network of gain {}: largest gradient along a random line, in medians", "written down before"
    return [
        *(
            Claim(f"{name} at w = 5 on the line", f"{PASCANU}, Fig. 6 (closed form)").close(
                value, measured[name], tolerance=tolerance
            )
            for name, (value, tolerance) in printed.items()
        ),
        Claim("the same derivatives: largest relative distance to the closed form", "algebra").at_most(
            1e-6, max(abs(measured[name] / exact[name] - 1) for name in printed)
        ),
        *(
            Claim(f"{side} saddle-node at w = 5: b", f"{PASCANU}, Fig. 3 (closed form)").close(
                value, nodes[side], tolerance=1e-4
            )
            for side, value in (("upper", -2.3444), ("lower", -2.6556))
        ),
        Claim("clipped descent: largest step", "learning rate × clip").at_most(
            config.learning_rate * config.clip * (1 + 1e-9), steps["clipped"].max()
        ),
        Claim("clipped descent bounces: largest distance from the edge", section).at_most(
            0.1, _from_edge(paths["clipped"][0]).max()
        ),
        Claim("descent without clipping jumps: largest step, in largest steps of the clipped one", section).at_least(
            10.0, steps["not clipped"].max() / steps["clipped"].max()
        ),
        Claim("after as many updates: E of the clipped descent, relative to that of the other", section).at_most(
            1.0, paths["clipped"][1][-1] / paths["not clipped"][1][-1]
        ),
        Claim(along.format(0.9), before).at_most(3.0, rough[0.9]),
        Claim(along.format(3), before).at_least(10.0, rough[3.0]),
    ]


def _from_edge(places: np.ndarray) -> np.ndarray:
    """Distance of each (w, b) from the line b = ½ − σ(½) w."""
    return np.abs(places[:, 1] - START + AT_HALF * places[:, 0]) / np.hypot(1, AT_HALF)


def _draw_cliff(config, exact, surfaces, line, paths) -> Figure:
    places = {name: path for name, (path, _) in paths.items()}
    labels = {"xlabel": "w", "ylabel": "b"}
    titles = ("(a) E = (σ(x$_{50}$) − .7)² and two descents", "(b) the same, close to the edge")
    figure, axes = plt.subplots(1, 3, figsize=(12.4, 3.7))
    for ax, surface, title in zip(axes, surfaces, titles, strict=False):
        rr.plotting.loss_surface(surface, paths=places, floor=1e-4, contours=False, **labels, ax=ax)
        ends = np.array(ax.get_xlim())
        ax.plot(ends, START - AT_HALF * ends, ":", color="black", linewidth=1)
        ax.plot(*config.descent_from, "s", color="white", markeredgecolor="black", markersize=5)
        ax.set_title(title + "\nsquare: start; circles: ends; dots: b = ½ − σ(½) w", loc="left")
    ax = rr.plotting.loss_surface(line, xlabel="b", floor=1e-7, ax=axes[2])
    norm = abs(exact["∂E/∂b"]) * np.hypot(1, AT_HALF)
    ax.plot(START - 5 * AT_HALF, norm, "*", color="black", markersize=7)
    told, at = f"exact at b = ½ − 5σ(½):\n‖∂E/∂(w, b)‖ = {norm:.1f}", (START - 5 * AT_HALF, norm)
    ax.annotate(told, at, xytext=(10, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_title("(c) along b at w = 5", loc="left")
    return figure


def _draw_networks(networks) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(12.4, 3.7))
    for ax, letter, (gain, (line, _)) in zip(axes, "ab", networks.items(), strict=False):
        rr.plotting.loss_surface(line, xlabel="α, along a random direction", floor=1e-9, ax=ax)
        ax.locator_params(axis="x", nbins=5)
        ax.set_title(f"({letter}) 32 tanh units, gain {gain:g}", loc="left")
    rr.plotting.hessian_spectrum(networks[3.0][1], ax=axes[2])
    axes[2].set_title("(c) gain 3, at α = 0", loc="left")
    return figure


def _draw_bifurcation(biases, tables) -> Figure:
    figure, ax = plt.subplots()
    nodes = np.log((0.7236 / 0.2764, 0.2764 / 0.7236))  # where w σ′(x) = 1
    ax.plot((-2.6556, -2.3444), nodes, "k*", markersize=8, label="saddle-nodes, closed form")
    for b in (-2.6556, -2.3444):
        ax.axvline(b, color="0.6", linestyle=":", linewidth=1.0, zorder=0)
    rr.plotting.bifurcation(biases, tables, xlabel="b", ylabel="fixed point x*", ax=ax)
    ax.set_title("fixed points of x ← 5 σ(x) + b", loc="left")
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS, x64=True)
