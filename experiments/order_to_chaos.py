"""Order to chaos: the largest Lyapunov exponent of x ← tanh(g W x), its mean-field curve and its 1/N correction.

W has independent N(0, 1/N) entries. In the limit N → ∞ the variance q of g W x solves q = g² E tanh²(√q z), z standard
normal, and λ_max = ½ ln(g² E sech⁴(√q z)), which crosses 0 at g = 1. A finite network crosses later, and how much later
is shown and not asserted. Below 1/ρ(W) the origin attracts, and λ_max = ln(g ρ(W)).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import root_scalar

import rnnreg as rr
from experiments._harness import Claim, Options, Report, mean_and_error, plus_minus, run, text_table

MEAN_FIELD = {3.0: 0.31025, 5.0: 0.53243}  # computed beforehand, 20001-point grid


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the order-to-chaos experiment."""

    num_steps: int = 1000
    """Steps of each trajectory, the first fifth of which is not counted."""
    nets: tuple[int, ...] = (400, 200, 100, 60)
    """Networks a size, for the fit."""
    sizes: tuple[int, ...] = (64, 128, 256, 512)
    """N, for the fit of λ(N) = λ∞ − c/N."""
    curve_nets: tuple[int, ...] = (20, 6)
    """Networks a point of the curve."""
    curve_sizes: tuple[int, ...] = (100, 256)
    """N of the curves."""
    gains: tuple[float, ...] = (0.5, 0.7, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
    """g of the curves."""
    spectrum_steps: int = 5000
    """Steps of the one whole spectrum, of 100 units at g = 1.5."""
    seed: int = 0
    """Of all networks and starts."""


PRESETS = {
    "quick": {
        "num_steps": 400,
        "nets": (24, 12, 6, 3),
        "curve_nets": (6,),
        "curve_sizes": (100,),
        "gains": (0.5, 0.9, 1.0, 1.1, 1.3, 1.5, 2.0, 3.0, 5.0),
        "spectrum_steps": 400,
    },
    "full": {},
}


def mean_field(g: float) -> tuple[float, float]:
    """q and λ_max of the infinite network, by a dense grid: Gauss–Hermite with 100 nodes is off by .08 at g = 5."""
    z = np.linspace(-12, 12, 20001)
    weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])

    def excess(q):
        return g * g * (weight * np.tanh(np.sqrt(q) * z) ** 2).sum() - q

    q = root_scalar(excess, bracket=(1e-9, g * g)).root if g > 1 else 0.0  # below g = 1 the only solution is 0
    slope = (weight / np.cosh(np.sqrt(q) * z) ** 4).sum()
    return q, 0.5 * np.log(g * g * slope)


def step(W, state, x):
    """x ← tanh(W x), on rows."""
    del x
    return jnp.tanh(state @ W)


def weights_and_start(key, size: int):
    """W with independent N(0, 1/N) entries, and a first state."""
    key_W, key_x = jax.random.split(key)
    W = jax.random.normal(key_W, (size, size)) / jnp.sqrt(size)
    return W, jax.random.normal(key_x, (1, size))


@functools.cache
def measure(size: int, num_steps: int):
    """λ_max `[nets]` of one network a key, one after another, compiled once for every g."""

    def one(key, g):
        W, start = weights_and_start(key, size)
        found = rr.diagnostics.lyapunov(
            step,
            g * W,
            jnp.zeros((1, num_steps, 0)),
            state=start,
            num_exponents=2,  # a leading pair of complex eigenvalues turns one vector about
            discard=num_steps // 5,
        )
        return found.exponents[0, 0]

    return jax.jit(lambda keys, g: jax.lax.map(lambda key: one(key, g), keys))


def exponents(key, *, size: int, num_nets: int, g: float, num_steps: int) -> np.ndarray:
    """λ_max `[nets]` of as many networks; the same networks at every g."""
    keys = jax.random.split(key, num_nets)
    return np.asarray(measure(size, num_steps)(keys, g), np.float64)


def main(config: Config) -> Report:
    """Measures curve and fit, and compares both with the theory."""
    key = jax.random.key(config.seed)
    curve = _curve(config, jax.random.fold_in(key, 0))
    fits, means = _fits(config, jax.random.fold_in(key, 1))
    origin = _origin(config, jax.random.fold_in(key, 2))
    spectrum = _spectrum(config, jax.random.fold_in(key, 3))
    theory = {g: mean_field(g)[1] for g in config.gains}
    crossing = {size: _crossing(curve[size]) for size in config.curve_sizes}
    summary = {
        "mean_field": theory,
        "curve": curve,
        "crossing": crossing,
        "sizes": means,
        "fits": fits,
        "spectrum_at_g_1.5": {
            "kaplan_yorke": spectrum.kaplan_yorke[0],
            "entropy_rate": spectrum.entropy_rate[0],
            "largest": spectrum.exponents[0, 0],
            "standard_error": spectrum.standard_error[0, 0],
            "share_unconverged": spectrum.unconverged[0].mean(),
        },
    }
    figures = {"order_to_chaos": _figure(config, curve, fits, means, spectrum), "convergence": _convergence(spectrum)}
    text = _text(config, theory, curve, crossing, fits, means)
    return Report(summary, _claims(config, fits, origin), text, figures)


def _text(config: Config, theory, curve, crossing, fits, means) -> str:
    rows = [
        (f"{g:g}", f"{theory[g]:.4f}", *(plus_minus(*curve[N][g]) for N in config.curve_sizes)) for g in config.gains
    ]
    lines = [
        text_table(("g", "mean field", *(f"N = {N}" for N in config.curve_sizes)), rows),
        *(f"N = {N}: the mean exponent crosses 0 at g ≈ {at:.3g} (N → ∞: 1)" for N, at in crossing.items()),
    ]
    for g, fit in fits.items():
        by_size = ", ".join(f"{N}: {plus_minus(*means[g][N])}" for N in config.sizes)
        smaller = fit["without_smallest"]
        lines += [
            f"g = {g:g}: λ(N) {by_size}",
            f"  λ∞ = {plus_minus(fit['limit'], fit['limit_se'])}, c = {plus_minus(fit['c'], fit['c_se'])}, "
            f"χ² = {fit['chi_square']:.1f} on {fit['degrees']}; "
            f"without N = {config.sizes[0]}: λ∞ = {plus_minus(smaller['limit'], smaller['limit_se'])}",
        ]
    return "\n".join(lines)


def _curve(config: Config, key) -> dict[int, dict[float, tuple[float, float]]]:
    """By N and g, the mean of λ_max over networks and its standard error; the same networks at every g."""
    found = {}
    for place, (size, num) in enumerate(zip(config.curve_sizes, config.curve_nets, strict=True)):
        own = jax.random.fold_in(key, place)
        found[size] = {
            g: mean_and_error(exponents(own, size=size, num_nets=num, g=g, num_steps=config.num_steps))
            for g in config.gains
        }
    return found


def _fits(config: Config, key):
    """λ(N) = λ∞ − c/N by weighted least squares, at the gains of the claims."""
    fits, means = {}, {}
    for g in MEAN_FIELD:
        means[g] = {}
        for place, (size, num) in enumerate(zip(config.sizes, config.nets, strict=True)):
            own = jax.random.fold_in(jax.random.fold_in(key, int(g)), place)
            values = exponents(own, size=size, num_nets=num, g=g, num_steps=config.num_steps)
            means[g][size] = mean_and_error(values)
        mean, se = np.array(list(means[g].values())).T
        fits[g] = _weighted_fit(np.array(config.sizes), mean, se)
        fits[g]["without_smallest"] = _weighted_fit(np.array(config.sizes[1:]), mean[1:], se[1:])
    return fits, means


def _weighted_fit(sizes, mean, se) -> dict[str, Any]:
    """λ∞ and c with their standard errors, and χ² of the residuals with its degrees of freedom."""
    (slope, limit), covariance = np.polyfit(1 / sizes, mean, 1, w=1 / se, cov="unscaled")
    slope_se, limit_se = np.sqrt(np.diag(covariance))
    chi_square = float(np.sum(((mean - limit - slope / sizes) / se) ** 2))
    found = {"limit": limit, "limit_se": limit_se, "c": -slope, "c_se": slope_se}
    return {**found, "chi_square": chi_square, "degrees": len(mean) - 2}


def _origin(config: Config, key) -> float:
    """The largest |λ_max − ln(g ρ(W))| over networks at g = .5, where the origin attracts."""
    size, num, g = config.curve_sizes[0], config.curve_nets[0], 0.5
    values = exponents(key, size=size, num_nets=num, g=g, num_steps=config.num_steps)
    keys = jax.random.split(key, num)
    W = jax.vmap(lambda key: weights_and_start(key, size)[0])(keys)
    rho = rr.diagnostics.matrix_spectrum(g * np.asarray(W)).rho
    return float(np.abs(values - np.log(rho)).max())


def _spectrum(config: Config, key):
    """The whole spectrum of one network of 100 units at g = 1.5."""
    key_W, key_x = jax.random.split(key)
    W = 1.5 * jax.random.normal(key_W, (100, 100)) / 10
    start = jax.random.normal(key_x, (1, 100))
    xs = jnp.zeros((1, config.spectrum_steps, 0))
    return jax.jit(
        lambda W, start: rr.diagnostics.lyapunov(step, W, xs, state=start, discard=config.spectrum_steps // 5)
    )(W, start)


def _crossing(curve: dict[float, tuple[float, float]]) -> float:
    """Where the piecewise linear mean curve first passes 0 upwards; NaN where it does not."""
    gains, values = np.array(list(curve)), np.array([mean for mean, _ in curve.values()])
    for i in np.flatnonzero((values[:-1] <= 0) & (values[1:] > 0))[:1]:
        return float(np.interp(0, values[i : i + 2], gains[i : i + 2]))
    return float("nan")


def _claims(config: Config, fits, origin: float) -> list[Claim]:
    table, sizes = "q = g²E tanh²(√q z); table computed beforehand", f"N = {config.sizes[0]}…{config.sizes[-1]}"
    origin_attracts = Claim(
        "largest |λ_max − ln(g ρ(W))| over networks at g = .5", "the origin attracts below g = 1/ρ(W)"
    )
    return [
        *(
            Claim(f"mean-field λ_max at g = {g:g}, from a dense grid", table).close(
                value, mean_field(g)[1], tolerance=1e-4
            )
            for g, value in MEAN_FIELD.items()
        ),
        *(
            Claim(f"λ∞ of λ(N) = λ∞ − c/N at g = {g:g}, {sizes}", "mean field, N → ∞").close(
                value, fits[g]["limit"], tolerance=0.005
            )
            for g, value in {3.0: 0.3103, 5.0: 0.5324}.items()
        ),
        origin_attracts.at_most(0.01, origin),
    ]


def _figure(config: Config, curve, fits, means, spectrum) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(12.6, 4.0))
    _draw_curve(axes[0], config, curve)
    _draw_fits(axes[1], config, fits, means)
    rr.plotting.lyapunov_spectrum({"N = 100, g = 1.5": spectrum}, ax=axes[2])
    axes[2].set_title("(c) whole spectrum of one network, ± 1 SE", loc="left")
    return figure


def _convergence(spectrum) -> Figure:
    figure, ax = plt.subplots()
    rr.plotting.lyapunov_trace(spectrum, num_exponents=4, ax=ax)
    ax.set_title("N = 100, g = 1.5; bars at the right: ± 1 SE", loc="left")
    return figure


def _draw_curve(ax, config: Config, curve) -> None:
    """The whole curve, and its crossing of 0 enlarged."""
    fine = np.unique([*np.linspace(min(config.gains), max(config.gains), 181), 1.0])
    close_up = ax.inset_axes((0.44, 0.1, 0.54, 0.4))
    close_up.set(xlim=(0.87, 1.55), ylim=(-0.09, 0.09))
    close_up.tick_params(labelsize=7)
    for axes in (ax, close_up):
        axes.plot(fine, [mean_field(g)[1] for g in fine], color="black", label="mean field, N → ∞")
        for size, marker in zip(config.curve_sizes, "os", strict=False):
            mean, se = np.array(list(curve[size].values())).T
            name = f"N = {size}, mean ± 1 SE"
            axes.errorbar(list(curve[size]), mean, yerr=se, fmt=marker, capsize=2, label=name)
        axes.axhline(0, color="0.35", linewidth=0.8, linestyle=":")
    ax.indicate_inset_zoom(close_up)
    ax.set_xlabel("gain g")
    ax.set_ylabel("λ$_{max}$ (nats a step)")
    ax.set_title("(a) x ← tanh(g W x): finite networks cross 0 later", loc="left")
    ax.legend(loc="upper left")


def _draw_fits(ax, config: Config, fits, means) -> None:
    inverse = np.linspace(0, 1 / min(config.sizes), 50)
    for (g, fit), color in zip(fits.items(), ("#0072B2", "#D55E00"), strict=True):
        mean, se = np.array(list(means[g].values())).T
        at, theory = 1 / np.array(config.sizes, float), MEAN_FIELD[g]
        name = f"g = {g:g}: λ$_∞$ = {fit['limit']:.4f}, mean field {theory:.4f}"
        ax.errorbar(at, mean - theory, yerr=se, color=color, fmt="o", capsize=2, label=name)
        ax.plot(inverse, fit["limit"] - theory - fit["c"] * inverse, color=color, linewidth=1)
    ax.axhline(0, color="0.35", linewidth=0.8, linestyle=":")
    ax.set_xticks([0, *(1 / np.array(config.sizes))], ["0", *(f"1/{N}" for N in config.sizes)])
    ax.set_xlabel("1/N")
    ax.set_ylabel("λ$_{max}$ − mean field (nats a step)")
    ax.set_title("(b) lines: λ$_∞$ − c/N; dots: mean of the networks ± 1 SE", loc="left")
    ax.legend(loc="lower left")


if __name__ == "__main__":
    run(main, Config, PRESETS)
