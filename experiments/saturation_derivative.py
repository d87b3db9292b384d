"""Batch-normalised recurrence at scale γ: the mean slope of tanh, and the gradient back through time.

Cooijmans et al. 2017, Fig. 1. (b) E tanh′(s z) at pre-activations N(0, s²), by quadrature. (a) A tanh network
h' = tanh(γ N(h W_hh) + γ N(x W_xh)), N normalising each unit over the rows of the batch: the gradient of a loss
at the last step, against steps back, in float64; a row's gradient includes the paths through the statistics. The
paper's figure (sequential MNIST, which is not at hand) has it vanish faster for larger γ. Whether it does
depends on more than E tanh′, because N divides by the size of h, which falls with γ too. So four set-ups are
measured, and the paper's order is claimed of each; it holds in the first alone:

- identity, silent: W_hh = I, as the paper starts from, inputs in the first steps only. Units settle at z = ±γ, and
  a step multiplies by 2γ/sinh(2γ), where a unit divides the batch into equal halves. It does not quite: the larger
  part has the smaller |z| and the larger slope, and the units of the most uneven parts come to carry the gradient,
  so the measured decay is slower, and the claim at the largest γ fails by that;
- orthogonal, silent: a step multiplies the square by γ² E tanh′²(γz) / E tanh²(γz), at least 1 (mean field);
- orthogonal, driven: with inputs at each step, by γ² E tanh′²(√2 γz) / E tanh²(√2 γz);
- identity, driven: the paper's start with inputs at each step; units do not mix, and we have no prediction.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, mean_and_error, plus_minus, run, standard_error, text_table
from rnnreg.cells import HiddenState
from rnnreg.plotting import COLORS

COOIJMANS = "Cooijmans et al. 2017, Fig. 1"
SCALES = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
MEAN_SLOPE = (0.9902, 0.9629, 0.9231, 0.8265, 0.6057, 0.3647, 0.1570)
MEAN_SQUARED_SLOPE = (0.9807, 0.9295, 0.8610, 0.7174, 0.4644, 0.2560, 0.1057)


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the saturation experiment."""

    gammas: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Standard deviations that the pre-activations are normalised to."""
    hidden_size: int = 80
    """Hidden units, and inputs: mean field takes the units for independent, so the inputs must span them."""
    num_settling: int = 150
    """Steps before the first one that a gradient is shown for; the first ten have inputs in every set-up."""
    num_lags: int = 80
    """Steps back."""
    batch_size: int = 128
    """Rows, over which the statistics are taken."""
    seeds: int = 4
    """Draws of weights and data."""


PRESETS = {
    "quick": {"gammas": (0.1, 0.4, 1.0), "hidden_size": 40, "num_settling": 60, "num_lags": 40, "seeds": 2},
    "full": {},
}

SETUPS = ("identity, silent", "orthogonal, silent", "orthogonal, driven", "identity, driven")


def mean_slopes(scales: Any) -> tuple[np.ndarray, np.ndarray]:
    """E tanh′(s z) and E tanh′(s z)², z ~ N(0, 1), by the trapezoidal rule on 40001 points."""
    z = np.linspace(-12, 12, 40001)
    weight = np.exp(-np.square(z) / 2)
    weight /= weight.sum()
    slope = 1 / np.square(np.cosh(np.multiply.outer(np.asarray(scales), z)))
    return slope @ weight, np.square(slope) @ weight


def mean_field(setup: str, gammas: Any) -> np.ndarray:
    """The predicted ln r per step; NaN where there is no prediction."""
    gammas = np.asarray(gammas)
    if setup == "identity, driven":
        return np.full(gammas.shape, np.nan)
    if setup == "identity, silent":
        return np.log(2 * gammas / np.sinh(2 * gammas))
    slope, squared = mean_slopes(gammas * (np.sqrt(2) if setup.endswith("driven") else 1))
    return 0.5 * np.log(gammas**2 * squared / (1 - slope))  # E tanh² = 1 − E tanh′


def normalised_cell(hidden_size: int, gamma: Any, recurrent: Any):
    """h' = tanh(γ N(h W_hh) + γ N(x W_xh))."""

    def init(key, input_size, dtype):
        key_x, key_h = jax.random.split(key)
        return {
            "W_xh": rr.cells.orthogonal()(key_x, (input_size, hidden_size), dtype),
            "W_hh": recurrent(key_h, (hidden_size, hidden_size), dtype),
        }

    def normalise(z):
        centred = z - jnp.mean(z, axis=0, keepdims=True)
        return centred / jnp.sqrt(jnp.mean(jnp.square(centred), axis=0, keepdims=True) + 1e-10)

    def step(params, state, x):
        z = normalise(state.h @ params["W_hh"]) + normalise(x @ params["W_xh"])
        return HiddenState(h=jnp.tanh(gamma * z))

    return rr.cells.from_step(step, init=init, hidden_size=hidden_size, name="normalised_tanh")


def log_ratios(config: Config, setup: str, gamma: Any, key: jax.Array) -> jax.Array:
    """ln ‖∂L/∂h_{T−ℓ}‖ − ln ‖∂L/∂h_T‖, the mean over rows, `[num_lags + 1]`.

    L is the sum over the rows of ½‖h_T − target‖² with targets N(0, γ²), of the size of the states. The batch
    statistics mix rows, so one row's gradient is that of the summed loss with respect to its state.
    """
    key_params, key_xs, key_ys = jax.random.split(key, 3)
    recurrent = rr.cells.identity() if setup.startswith("identity") else rr.cells.orthogonal()
    net = rr.network([normalised_cell(config.hidden_size, gamma, recurrent)], None)
    params = net.init(key_params, config.hidden_size)
    num_steps = config.num_settling + config.num_lags + 1
    xs = jax.random.normal(key_xs, (config.batch_size, num_steps, config.hidden_size))
    if setup.endswith("silent"):
        xs = xs * (jnp.arange(num_steps) < 10)[None, :, None]
    target = gamma * jax.random.normal(key_ys, (config.batch_size, config.hidden_size))

    def loss(added):
        states = net.apply(params, xs, perturbations={"layer_0": added}).outputs
        return 0.5 * jnp.sum(jnp.square(states[:, -1] - target))

    zeros = jnp.zeros((config.batch_size, num_steps, config.hidden_size))
    gradient = jax.grad(loss)(zeros)[:, config.num_settling :]
    logs = jnp.mean(jnp.log(jnp.linalg.norm(gradient, axis=2)), axis=0)[::-1]
    return logs - logs[0]


def main(config: Config) -> Report:
    """Integrates, differentiates, compares."""
    slopes, squared = mean_slopes(SCALES)
    logs = {setup: _profiles(config, setup) for setup in SETUPS}
    # the rate after the first steps, which are the loss's own
    rates = {setup: (found[..., -1] - found[..., 10]) / (config.num_lags - 10) for setup, found in logs.items()}
    rows = [
        (f"{gamma:g}", *[_shown(setup, gamma, rates[setup][place]) for setup in SETUPS])
        for place, gamma in enumerate(config.gammas)
    ]
    moments = [[f"{s:g}", f"{one:.4f}", f"{two:.4f}"] for s, one, two in zip(SCALES, slopes, squared, strict=True)]
    tables = [
        text_table(("s", "E tanh′", "E tanh′²"), moments),
        text_table(("γ", *[f"{setup}: ln r a step (predicted)" for setup in SETUPS]), rows),
    ]
    summary = {
        "scales": SCALES,
        "mean_slope": slopes,
        "mean_squared_slope": squared,
        "log_rate_per_step": rates,
        "predicted_rate": {setup: mean_field(setup, config.gammas) for setup in SETUPS},
        "log_ratio": {setup: values.mean(axis=1) for setup, values in logs.items()},
    }
    claims = _claims(config, slopes, squared, logs, rates)
    figures = {"saturation_derivative": _draw(config, logs, rates)}
    return Report(summary, claims, "\n".join(tables), figures)


def _profiles(config: Config, setup: str) -> np.ndarray:
    """`log_ratios` of one set-up, [γ, seed, ℓ]."""
    keys = jax.vmap(jax.random.key)(jnp.arange(config.seeds))

    @jax.jit
    def profiles(gammas):
        return jax.lax.map(lambda gamma: jax.lax.map(lambda key: log_ratios(config, setup, gamma, key), keys), gammas)

    return np.asarray(profiles(jnp.asarray(config.gammas)))


def _shown(setup: str, gamma: float, rates: np.ndarray) -> str:
    """Mean over seeds ± its standard error, and the prediction."""
    predicted = float(mean_field(setup, gamma))
    shown = f"{predicted:.4f}" if np.isfinite(predicted) else "–"
    return f"{plus_minus(*mean_and_error(rates))} ({shown})"


def _claims(config, slopes, squared, logs, rates) -> list[Claim]:
    order = np.argsort(config.gammas)
    largest = config.gammas[order[-1]]
    not_falling = {setup: np.diff(values[order, :, -1], axis=0) >= 0 for setup, values in logs.items()}
    claims = [
        Claim(f"E tanh′(s z) at s = {scale:g}", f"{COOIJMANS}b (integral)").close(expected, measured, tolerance=5e-5)
        for scale, expected, measured in zip(SCALES, MEAN_SLOPE, slopes, strict=True)
    ]
    claims += [
        Claim("E tanh′(s z)²: largest distance to the table", "integral").at_most(
            5e-5, np.abs(squared - MEAN_SQUARED_SLOPE).max()
        ),
        *(
            Claim(
                f"{setup}: neighbouring γ (each seed, {found.size} in all) whose r({config.num_lags}) does not fall",
                f"{COOIJMANS}a",
            ).at_most(0, found.sum())
            for setup, found in not_falling.items()
        ),
        Claim(f"identity, silent, γ = {largest:g}: ln r a step", "algebra: ln(2γ/sinh 2γ)").close(
            float(mean_field("identity, silent", largest)), rates["identity, silent"][order[-1]].mean(), tolerance=0.02
        ),
    ]
    return claims + [
        Claim(f"{setup}: largest |ln r a step − prediction| over γ", "mean field").at_most(
            0.03, np.abs(rates[setup].mean(axis=1) - mean_field(setup, config.gammas)).max()
        )
        for setup in ("orthogonal, silent", "orthogonal, driven")
    ]


def _draw(config, logs, rates) -> Figure:
    figure, axes = plt.subplots(2, 3, figsize=(10.8, 6.4))
    profiles, (of_rates, of_slope) = axes.ravel()[:4], axes.ravel()[4:]
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(config.gammas)))
    for ax, setup, letter in zip(profiles, SETUPS, "abcd", strict=True):
        for gamma, values, color in zip(config.gammas, logs[setup], shades, strict=True):
            ax.plot(np.exp(values.mean(axis=0)), color=color, label=f"γ = {gamma:g}")
        ax.set_yscale("log")
        ax.set(xlabel="steps back ℓ", ylabel="r(ℓ) = ‖∂L/∂h$_{T−ℓ}$‖ / ‖∂L/∂h$_T$‖")
        ax.set_title(f"({letter}) W$_{{hh}}$ {setup}: mean of {config.seeds} seeds", loc="left")
    profiles[0].legend(fontsize=7, ncols=2, handlelength=1.0, columnspacing=0.8)

    fine = np.linspace(0.02, max(config.gammas), 100)
    for setup, color in zip(SETUPS, COLORS, strict=False):
        mean, error = rates[setup].mean(axis=1), standard_error(rates[setup])
        of_rates.errorbar(config.gammas, mean, yerr=error, fmt="o", color=color, label=setup)
        of_rates.plot(fine, mean_field(setup, fine), color=color)
    of_rates.set(xlabel="γ", ylabel="ln r a step (nats)")
    of_rates.set_title("(e) dots: measured ± 1 SE; lines: predicted", loc="left")
    of_rates.legend(loc="lower left", fontsize=7)

    scales = np.linspace(0, 3, 121)
    slope, square = mean_slopes(scales)
    of_slope.plot(scales, slope, label="E tanh′")
    of_slope.plot(scales, np.sqrt(square), "--", label="√E tanh′²")
    of_slope.plot(SCALES[:-1], MEAN_SLOPE[:-1], "o", color="black", label="E tanh′, table")
    of_slope.set(xlabel="standard deviation s of the pre-activation", ylabel="slope of tanh")
    of_slope.set_ylim(0, 1.05)
    of_slope.set_title("(f) mean slope of tanh at N(0, s²)", loc="left")
    of_slope.legend()
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS, x64=True)
