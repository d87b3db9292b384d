"""‖∂h_T/∂h_t‖ of Gaussian, orthogonal and scaled networks, linear and tanh, beside what the weights alone say.

For Gaussian W of independent N(0, g²/N) entries ‖W^k‖₂ → g^k √((k+1)^{k+1} / k^k) as N → ∞, although ρ(W) → g: the
transient growth of a matrix that is far from normal. A linear orthogonal network keeps every singular value at 1.
No product ever exceeds (γ σ_max)^ℓ; ρ^ℓ bounds nothing. Everything is in float64.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, plus_minus, run, standard_error, text_table
from rnnreg.plotting import whole_steps


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the gradient norms."""

    power_size: int = 400
    """N of the powers of one Gaussian matrix."""
    power_nets: int = 8
    """Gaussian matrices."""
    num_powers: int = 20
    """k = 1 … of W^k."""
    hidden_size: int = 48
    """Units of the networks."""
    num_steps: int = 200
    """T."""
    rows: int = 4
    """Trajectories a network."""
    input_scale: float = 0.1
    """Standard deviation of the inputs."""
    seed: int = 0
    """Of weights and inputs."""


PRESETS = {"quick": {"power_nets": 2, "num_powers": 5, "hidden_size": 16, "rows": 2}, "full": {}}

CASES = {
    "linear, Gaussian": (jax.nn.identity, rr.cells.gaussian(1.0)),
    "linear, orthogonal": (jax.nn.identity, rr.cells.orthogonal(1.0)),
    "linear, .95 orthogonal": (jax.nn.identity, rr.cells.orthogonal(0.95)),
    "tanh, Gaussian": (jnp.tanh, rr.cells.gaussian(1.0)),
    "tanh, 1.5 Gaussian": (jnp.tanh, rr.cells.gaussian(1.5)),
    "tanh, orthogonal": (jnp.tanh, rr.cells.orthogonal(1.0)),
    "tanh, .95 orthogonal": (jnp.tanh, rr.cells.orthogonal(0.95)),
    "logistic, 2 Gaussian": (jax.nn.sigmoid, rr.cells.gaussian(2.0)),
}


def main(config: Config) -> Report:
    """Measures powers and products, and compares them with the theory."""
    key = jax.random.key(config.seed)
    powers = _powers(config, jax.random.fold_in(key, 0))
    products, bounds = _products(config, jax.random.fold_in(key, 1))
    sensitivity = _sensitivity(config, jax.random.fold_in(key, 2))
    limit = _limit(np.arange(1, config.num_powers + 1))
    mean, se = powers.mean(axis=0), standard_error(powers, axis=0)
    rows = [
        (str(k), f"{limit[k - 1]:.4f}", plus_minus(mean[k - 1], se[k - 1]), f"{ratio:.4f}")
        for k, ratio in enumerate(mean / limit, 1)
        if k in (1, 2, 3, 5, 10, 20)
    ]
    steps = config.num_steps
    logs = [
        (name, found.log_norm[-1], bounds[name].log_bound * steps, bounds[name].log_rho * steps)
        for name, found in products.items()
    ]
    lines = [
        f"‖W^k‖₂ of {len(powers)} Gaussian matrices, N = {config.power_size}",
        text_table(("k", "N → ∞", "mean ± SE", "ratio"), rows),
        f"ln ‖∂h_T/∂h_t‖₂ after T = {steps} steps back, and what the weights alone say",
        text_table(
            ("network", "measured", "bound", "ln ρ^T"),
            [(name, *(f"{float(value):.2f}" for value in values)) for name, *values in logs],
        ),
    ]
    summary = {
        "powers": {"mean": mean, "standard_error": se, "limit": limit},
        "log_norm_at_T": {name: found.log_norm[-1] for name, found in products.items()},
        "bounds": bounds,
    }
    claims = _claims(config, mean, se, limit, products, bounds)
    figure = _figures(config, mean, se, limit, products, bounds, sensitivity)
    return Report(summary, claims, "\n".join(lines), {"gradient_norms": figure})


def _limit(k):
    """√((k+1)^{k+1} / k^k)."""
    k = np.asarray(k, float)
    return np.exp(((k + 1) * np.log(k + 1) - k * np.log(k)) / 2)


def _powers(config: Config, key) -> np.ndarray:
    """[nets, num_powers] ‖W^k‖₂, as the products of a linear map."""
    size = config.power_size
    xs, state = jnp.zeros((1, config.num_powers, 0)), jnp.zeros((1, size))

    @jax.jit
    def norms(key):
        W = rr.cells.gaussian(1.0)(key, (size, size), jnp.float64)
        found = rr.diagnostics.jacobian_products(
            lambda W, state, x: state @ W, W, xs, state=state, num_singular=1, small_ones=False
        )
        return jnp.exp(found.log_singular[0, 1:, 0])

    return np.stack([norms(key) for key in jax.random.split(key, config.power_nets)])


def _products(config: Config, key):
    """The products of every case along the same inputs, and the bounds from its weights."""
    key_xs, key = jax.random.split(key)
    shape = (config.rows, config.num_steps, config.hidden_size)
    xs = config.input_scale * jax.random.normal(key_xs, shape)
    products, bounds, measure = {}, {}, {}
    for name, (activation, init) in CASES.items():
        cell = rr.cells.elman(config.hidden_size, activation=activation, recurrent_init=init, input_init="identity")
        params = cell.init(key, config.hidden_size, jnp.float64)  # the same draw for each case
        if activation not in measure:  # one program for every start
            measure[activation] = jax.jit(lambda params, cell=cell: rr.diagnostics.jacobian_products(cell, params, xs))
        products[name] = jax.tree.map(np.asarray, measure[activation](params))
        bounds[name] = rr.diagnostics.jacobian_bounds(cell, params)
    return products, bounds


def _sensitivity(config: Config, key):
    """‖∂h_T/∂W‖ beside ‖∂h_T/∂h_t‖ of small tanh networks with scaled orthogonal weights."""
    xs = config.input_scale * jax.random.normal(key, (config.rows, config.num_steps, 8))
    cells = {
        f"gain {gain:g}": rr.cells.elman(8, recurrent_init=rr.cells.orthogonal(gain), input_init="identity")
        for gain in (0.8, 0.95, 1.0)
    }
    measure = jax.jit(lambda params: rr.diagnostics.parameter_sensitivity(cells["gain 1"], params, xs))
    return {name: measure(cell.init(key, 8, jnp.float64)) for name, cell in cells.items()}


def _excess(products, bounds, name: str) -> float:
    """The most by which ln ‖∂h_T/∂h_t‖₂ passes its bound."""
    found = products[name]
    return float((found.log_singular[..., 0] - bounds[name].log_bound * found.lags).max())


def _claims(config: Config, mean, se, limit, products, bounds) -> list[Claim]:
    claims = [
        Claim(
            f"‖W^{k}‖₂ / limit, mean of {config.power_nets} Gaussian matrices, N = {config.power_size}",
            "g^k √((k+1)^(k+1)/k^k), N → ∞",
        ).close(1.0, mean[k - 1] / limit[k - 1], tolerance=0.02)
        for k in (1, 2, 3)
    ]
    kept = np.exp(products["linear, orthogonal"].log_singular)
    excess = max(_excess(products, bounds, name) for name in products)
    unresolved = np.mean([found.unresolved[..., 0].mean() for found in products.values()])
    return [
        *claims,
        Claim(
            f"‖W^k‖₂, k = 4…{config.num_powers}: largest distance to the limit, in standard errors",
            "g^k √((k+1)^(k+1)/k^k), N → ∞",
        ).at_most(3.0, (np.abs(mean - limit) / se)[3:].max()),
        Claim(
            f"largest |σ − 1| of a linear orthogonal network, all lags up to {config.num_steps}", "closed form"
        ).at_most(1e-10, np.abs(kept - 1).max()),
        Claim(
            "most that ln ‖∂h_T/∂h_t‖ exceeds ln (γ σ_max)^ℓ, all networks and lags", "Pascanu, Mikolov & Bengio 2013"
        ).at_most(1e-10, excess),
        Claim("share of largest singular values that are unresolved", "this library").at_most(0.0, unresolved),
    ]


def _figures(config: Config, mean, se, limit, products, bounds, sensitivity) -> Figure:
    plot = rr.plotting
    figure, axes = plt.subplots(2, 3, figsize=(13.5, 8.2))
    (of_powers, of_linear, of_tanh), (of_one, isometry, of_weights) = axes
    _draw_powers(of_powers, config, mean, se, limit)
    for ax, group in zip((of_linear, of_tanh), ("linear", "tanh"), strict=True):
        chosen = {name: found for name, found in products.items() if name.startswith(group)}
        plot.jacobian_products(chosen, bounds={name: bounds[name] for name in chosen}, ax=ax)
    name = "tanh, 1.5 Gaussian"
    plot.jacobian_products(products[name], bounds=bounds[name], ax=of_one)
    plot.singular_value_histogram(products["tanh, orthogonal"], ax=isometry)
    plot.parameter_sensitivity(sensitivity, ax=of_weights)
    bands = f"mean of {config.rows} trajectories; bands: their range"
    of_linear.set_title(f"(b) linear, N = {config.hidden_size}: {bands}", loc="left")
    of_tanh.set_title(f"(c) tanh: {bands}", loc="left")
    of_one.set_title(f"(d) {name}: every singular value", loc="left")
    isometry.set_title("(e) tanh, orthogonal: isometry would be all at the dots", loc="left")
    of_weights.set_title("(f) tanh, gain × orthogonal, N = 8", loc="left")
    return figure


def _draw_powers(ax, config: Config, mean, se, limit) -> None:
    k = np.arange(1, config.num_powers + 1)
    ax.plot(k, limit, color="black", label=r"$\sqrt{(k+1)^{k+1}/k^k}$, N → ∞")
    name = f"N = {config.power_size}, mean ± 1 SE"
    ax.errorbar(k, mean, yerr=se, color="#0072B2", fmt="o", capsize=2, label=name)
    ax.axhline(1, color="0.35", linewidth=0.9, linestyle=":", label=r"$\rho^k$, N → ∞")
    ax.set(xlabel="power k", ylabel="‖W$^k$‖$_2$")
    ax.set_title(f"(a) powers of {config.power_nets} Gaussian W, g = 1", loc="left")
    whole_steps(ax)
    ax.legend(loc="upper left")


if __name__ == "__main__":
    run(main, Config, PRESETS, x64=True)
