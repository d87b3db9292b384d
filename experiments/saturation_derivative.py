"""Why batch-normalised recurrence starts small: E tanh′ at standard deviation s, and the gradient against γ.

Cooijmans et al. 2017, Fig. 1. (b) The mean slope of tanh at N(0, s²) pre-activations, by quadrature. (a) A tanh
network whose pre-activations are normalised over the batch to standard deviation γ, so that γ is s: the gradient
of a loss at the last step, against steps back. In float64; each row's gradient includes the paths through the
batch statistics.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments._report import Claim, claims_table, command_line, text_table, write_summary
from rnnreg.cells import HiddenState

COOIJMANS = "Cooijmans et al. 2017, Fig. 1"
SCALES = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
MEAN_SLOPE = (0.9902, 0.9629, 0.9231, 0.8265, 0.6057, 0.3647, 0.1570)
MEAN_SQUARED_SLOPE = (0.9807, 0.9295, 0.8610, 0.7174, 0.4644, 0.2560, 0.1057)


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the saturation experiment."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    gammas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Standard deviations that the pre-activations are normalised to."""
    hidden_size: int = 100
    """Hidden units."""
    num_steps: int = 100
    """Length of the sequences."""
    batch_size: int = 64
    """Rows, over which the statistics are taken."""
    seeds: int = 5
    """Draws of weights and data."""
    out: Path = Path("results/saturation_derivative")
    """Where figures and summary.json go."""


PRESETS = {
    "quick": {"gammas": (0.1, 0.3, 0.6, 1.0), "hidden_size": 50, "num_steps": 60, "seeds": 2},
    "full": {},
}


def mean_slopes(scales: Any) -> tuple[np.ndarray, np.ndarray]:
    """E tanh′(s z) and E tanh′(s z)², z ~ N(0, 1), by the trapezoidal rule on 40001 points."""
    z = np.linspace(-12, 12, 40001)
    weight = np.exp(-np.square(z) / 2)
    weight /= weight.sum()
    slope = 1 / np.square(np.cosh(np.multiply.outer(np.asarray(scales), z)))
    return slope @ weight, np.square(slope) @ weight


def normalised_cell(hidden_size: int, gamma: Any) -> rr.cells.Cell:
    """h_t = tanh(γ · normalise(h_{t−1} W_hh + x_t W_xh)), normalised unit by unit over the rows of the batch."""

    def init(key, input_size, dtype):
        key_x, key_h = jax.random.split(key)
        return {
            "W_xh": rr.cells.orthogonal()(key_x, (input_size, hidden_size), dtype),
            "W_hh": rr.cells.orthogonal()(key_h, (hidden_size, hidden_size), dtype),
        }

    def step(params, state, x):
        z = state.h @ params["W_hh"] + x @ params["W_xh"]
        centred = z - jnp.mean(z, axis=0, keepdims=True)
        scale = jnp.sqrt(jnp.mean(jnp.square(centred), axis=0, keepdims=True) + 1e-5)
        return HiddenState(h=jnp.tanh(gamma * centred / scale))

    return rr.cells.from_step(step, init=init, hidden_size=hidden_size, name="normalised_tanh")


def gradient_norms(config: Config, gamma: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Root mean square over the rows of ‖∂L/∂h_{T−ℓ}‖ against ℓ `[T]`, and the realised mean slope of tanh.

    L is the sum over the rows of ½‖h_T − target‖² with targets N(0, γ²), of the size of the states. The batch
    statistics mix rows, so one row's gradient is that of the summed loss with respect to its state.
    """
    key_params, key_xs, key_ys = jax.random.split(key, 3)
    net = rr.network([normalised_cell(config.hidden_size, gamma)], None)
    params = net.init(key_params, 10)
    xs = jax.random.normal(key_xs, (config.batch_size, config.num_steps, 10))
    target = gamma * jax.random.normal(key_ys, (config.batch_size, config.hidden_size))

    def loss(added):
        out = net.apply(params, xs, perturbations={"layer_0": added})
        return 0.5 * jnp.sum(jnp.square(out.outputs[:, -1] - target)), out.outputs

    zeros = jnp.zeros((config.batch_size, config.num_steps, config.hidden_size))
    gradient, states = jax.grad(loss, has_aux=True)(zeros)
    size = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(gradient), axis=2), axis=0))
    return size[::-1], jnp.mean(1 - jnp.square(states))


def main(config: Config) -> None:
    """Integrates, differentiates, compares, draws."""
    jax.config.update("jax_enable_x64", True)
    slopes, squared = mean_slopes(SCALES)
    print(
        text_table(
            ("s", "E tanh′", "E tanh′²"),
            [
                (f"{s:g}", f"{one:.4f}", f"{two:.4f}")
                for s, one, two in zip(SCALES, slopes, squared, strict=True)
            ],
        )
    )
    gammas = jnp.asarray(config.gammas)
    keys = jax.vmap(jax.random.key)(jnp.arange(config.seeds))

    @jax.jit
    def profiles(gamma):
        return jax.lax.map(lambda key: gradient_norms(config, gamma, key), keys)

    norms, realised = map(np.stack, zip(*[profiles(gamma) for gamma in gammas], strict=True))
    ratio = norms / norms[:, :, :1]  # [γ, seed, ℓ]
    logs = np.log(ratio)
    # the rate after the first steps, which are the loss's own
    rates = (logs[:, :, -1] - logs[:, :, 10]) / (config.num_steps - 11)
    print(
        text_table(
            (
                "γ",
                "ln r per step",
                "mean slope measured",
                "E tanh′(γ z)",
                f"r({config.num_steps - 1})",
            ),
            [
                (
                    f"{gamma:g}",
                    f"{rates[place].mean():.4f} ± {rates[place].std():.4f}",
                    f"{realised[place].mean():.4f}",
                    f"{expected:.4f}",
                    f"{np.exp(logs[place, :, -1].mean()):.3g}",
                )
                for place, (gamma, expected) in enumerate(
                    zip(config.gammas, mean_slopes(config.gammas)[0], strict=True)
                )
            ],
        )
    )
    claims = _claims(config, slopes, squared, logs, rates)
    print(claims_table(claims))
    _draw(config, np.exp(logs.mean(axis=1)))
    summary = {
        "config": config,
        "scales": SCALES,
        "mean_slope": slopes,
        "mean_squared_slope": squared,
        "log_rate_per_step": rates,
        "realised_mean_slope": realised,
        "ratio": np.exp(logs.mean(axis=1)),
    }
    write_summary(config.out, summary, claims)


def _claims(config, slopes, squared, logs, rates) -> list[Claim]:
    last = logs[:, :, -1]
    order = np.argsort(config.gammas)
    broken = int((np.diff(last[order], axis=0) >= 0).sum())
    claims = [
        Claim.close(
            f"E tanh′(s z) at s = {scale:g}",
            source=f"{COOIJMANS}b (integral)",
            expected=expected,
            tolerance=5e-5,
            measured=float(measured),
        )
        for scale, expected, measured in zip(SCALES, MEAN_SLOPE, slopes, strict=True)
    ]
    claims.append(
        Claim.at_most(
            "E tanh′(s z)²: largest distance to the table",
            source="integral",
            expected=5e-5,
            measured=float(np.abs(squared - MEAN_SQUARED_SLOPE).max()),
        )
    )
    return [
        *claims,
        Claim.at_most(
            f"neighbouring γ (each seed) whose r({config.num_steps - 1}) does not fall as γ grows",
            source=f"{COOIJMANS}a",
            expected=0,
            measured=broken,
        ),
        Claim.at_least(
            f"the largest γ = {max(config.gammas):g} vanishes: decay a step, in decays of the smallest one",
            source=f"{COOIJMANS}a",
            expected=10.0,
            measured=float(rates[order[-1]].mean() / rates[order[0]].mean()),
        ),
    ]


def _draw(config, ratio) -> None:
    import matplotlib.pyplot as plt
    from matplotlib import colormaps

    with rr.plotting.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2))
        shades = colormaps["viridis"](np.linspace(0, 0.9, len(config.gammas)))
        for gamma, curve, color in zip(config.gammas, ratio, shades, strict=True):
            left.plot(np.arange(len(curve)), curve, color=color, label=f"γ = {gamma:g}")
        left.set_yscale("log")
        left.set_xlabel("steps back ℓ")
        left.set_ylabel("‖∂L/∂h$_{T−ℓ}$‖ / ‖∂L/∂h$_T$‖")
        left.legend(fontsize=7, ncols=2)
        scales = np.linspace(0, 3, 121)
        slope, square = mean_slopes(scales)
        right.plot(scales, slope, label="E tanh′")
        right.plot(scales, np.sqrt(square), "--", label="√E tanh′²")
        right.plot(SCALES[:-1], MEAN_SLOPE[:-1], "o", color="black", label="table")
        right.set_ylim(0, 1.05)
        right.set_xlabel("standard deviation s of the pre-activation")
        right.set_ylabel("slope of tanh")
        right.legend()
    rr.plotting.save(figure, config.out / "saturation_derivative", close=True)


if __name__ == "__main__":
    main(command_line(Config, PRESETS))
