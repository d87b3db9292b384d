"""A bit held by one unit, h_t = tanh(w h_{t−1} + u_t): how safely, against w and against λ.

For w > 1 the silent unit (u = 0) has stable states ±h*, h* = tanh(w h*). What holds the bit also hides it: the factor
by which a gradient shrinks each step is w (1 − h*²), which falls as the margin grows (Bengio, Simard & Frasconi 1994).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim
from rnnreg.cells import HiddenState
from rnnreg.plotting import COLORS, legend_above

BENGIO, HERE = "Bengio, Simard & Frasconi 1994", "derived here"
STEPS = (100, 400, 1600)
NET = rr.network([rr.cells.elman(1)], output_size=None, readout="last")


class LatchPath(NamedTuple):
    """The minimum with memory of (1 − h_T)² + λ w² from h_0 = 1, and what becomes of it.

    Attributes:
      lam: `[n]`, in the order of a rising λ.
      w: `[n]`, the weight at the minimum.
      margin: `[n]`, the largest constant opposing input that the unit withstands for ever.
      shrink: `[n]`, w (1 − h*²), the factor on a gradient each step back.
      lambda_c: above it forgetting (w = 0, objective 1) is better.
      lambda_s: above it there is no minimum with memory.
    """

    lam: np.ndarray
    w: np.ndarray
    margin: np.ndarray
    shrink: np.ndarray
    lambda_c: float
    lambda_s: float


def held_state(w: Any) -> np.ndarray:
    """h* > 0 with h* = tanh(w h*); 0 for w ≤ 1. Newton's method from above."""
    w = np.asarray(w, np.float64)
    h = np.ones_like(w)
    for _ in range(200):
        value = np.tanh(w * h)
        slope = 1 - w * (1 - value**2)
        h = np.where(w > 1, h - (h - value) / np.where(slope > 1e-12, slope, 1), 0.0)
    return h


def margin(w: Any) -> np.ndarray:
    """√(w(w − 1)) − artanh √(1 − 1/w): where w (1 − h²) = 1 and the held state meets the unstable one; 0 for w ≤ 1."""
    w = np.maximum(np.asarray(w, np.float64), 1.0)
    turn = np.sqrt(1 - 1 / w)
    return w * turn - np.arctanh(turn)


def last_state(w: Any, *, opposing: Any = 0.0, start: Any = 1.0, num_steps: int) -> Any:
    """h after `num_steps` of the library's own cell; differentiable in w."""
    dtype = jnp.result_type(float)
    params = {
        "layer_0": {
            "W_xh": -jnp.ones((1, 1), dtype),
            "W_hh": jnp.asarray(w, dtype).reshape(1, 1),
            "b_h": jnp.zeros(1, dtype),
        }
    }
    xs = jnp.broadcast_to(jnp.asarray(opposing, dtype), (1, num_steps, 1))
    state = {"layer_0": HiddenState(h=jnp.asarray(start, dtype).reshape(1, 1))}
    return NET.apply(params, xs, state=state).outputs[0, 0]


def measured_margin(w: np.ndarray, *, num_steps: int, num_halvings: int = 30) -> np.ndarray:
    """The largest constant opposing input after which h is still positive, by halving an interval."""
    low, high = np.zeros_like(w), np.maximum(w, 1.0)

    @jax.jit
    def survives(w, opposing):
        def one(w, u):
            return last_state(w, opposing=u, num_steps=num_steps) > 0

        return jax.vmap(one)(w, opposing)

    for _ in range(num_halvings):
        middle = (low + high) / 2
        alive = np.asarray(survives(w, middle))
        low, high = np.where(alive, middle, low), np.where(alive, high, middle)
    return low


def latch_path(*, num_steps: int, num_weights: int) -> LatchPath:
    """The branch, by autodiff of the library's cell on a grid of w: a minimum at w has λ = −L′(w) / 2w."""
    # finer towards w = 1, where the branch ends
    weights = 1 + np.concatenate([-np.geomspace(0.2, 1e-5, num_weights // 4), [0], np.geomspace(1e-5, 5, num_weights)])
    value_and_slope = jax.jit(
        jax.vmap(jax.value_and_grad(lambda w: jnp.square(1 - last_state(w, num_steps=num_steps))))
    )
    loss, slope = map(np.asarray, value_and_slope(weights))
    lam = -slope / (2 * weights)
    end = int(lam.argmax())
    branch = np.arange(len(weights))[end:][::-1]  # from large w and small λ to the end
    branch = branch[lam[branch] > 1e-4]
    w = weights[branch]
    return LatchPath(
        lam=lam[branch],
        w=w,
        margin=margin(w),
        shrink=w * (1 - held_state(w) ** 2),
        lambda_c=float(((1 - loss) / weights**2).max()),
        lambda_s=float(lam[end]),
    )


def lambda_c() -> float:
    """Of a latch that is held for ever: max_w (1 − (1 − h*)²) / w²."""
    w = np.linspace(1.001, 6, 100_000)
    return float(((1 - (1 - held_state(w)) ** 2) / w**2).max())


def lambda_s(num_steps: int) -> float:
    """To leading orders in 1/√T. It grows like √T without bound, so a latch held for ever has none.

    Near w = 1 + ε, h obeys dh/dt = εh − h³/3, hence h_T = √(3/T) F(εT), F(x) = √(x / (1 − e^{−2x})), and a minimum has
    λ = (1 − h_T) dh_T/dε.
    """
    x = np.linspace(-6, 12, 200_001)
    x = np.where(np.abs(x) < 1e-9, 1e-9, x)
    F = np.sqrt(x / -np.expm1(-2 * x))
    return float((np.sqrt(3 * num_steps) * np.gradient(F, x) * (1 - np.sqrt(3 / num_steps) * F)).max())


def measure(num_weights: int) -> dict[str, Any]:
    """Margins by halving, the path over λ by autodiff, and thresholds in closed form."""
    w = np.array([0.5, 0.8, 0.95, 1.05, 1.2, 1.5, 2.0, 3.0, 4.0])
    return {
        "w": w,
        "margin": margin(w),
        "margin_measured": measured_margin(w, num_steps=3000),
        "paths": {T: latch_path(num_steps=T, num_weights=num_weights) for T in STEPS},
        "lambda_c": lambda_c(),
        "lambda_s": {T: lambda_s(T) for T in STEPS},
    }


def claims(held) -> list[Claim]:
    """The threshold w = 1, the margin, and what λ does to both."""
    below, above = held["w"] < 1, held["w"] > 1
    path = held["paths"][STEPS[-1]]
    claims = [
        Claim("latch: largest margin at any w < 1", BENGIO).at_most(1e-6, held["margin_measured"][below].max()),
        Claim("latch: margin at w > 1, measured − (√(w(w−1)) − artanh √(1−1/w)), largest difference", HERE).at_most(
            1e-4, np.abs(held["margin_measured"] - held["margin"])[above].max()
        ),
        Claim(f"latch: λ_c, above which forgetting is better, T = {STEPS[-1]}", HERE).close(
            held["lambda_c"], path.lambda_c, tolerance=0.01 * held["lambda_c"]
        ),
    ]
    for T, allowed in zip(STEPS, (0.2, 0.1, 0.05), strict=True):
        claims.append(
            Claim(
                f"latch: λ_s, above which no minimum with memory is left, T = {T}", "expansion in 1/√T, derived here"
            ).close(held["lambda_s"][T], held["paths"][T].lambda_s, tolerance=allowed * held["lambda_s"][T])
        )
    return [
        *claims,
        Claim("latch: the margin only falls with λ (largest step up)", HERE).at_most(0.0, np.diff(path.margin).max()),
        Claim(
            "latch: the gradient's factor a step only rises with λ, while w > 1 (smallest step)",
            BENGIO + ": what is held safely has a vanishing gradient",
        ).at_least(0.0, np.diff(path.shrink[path.w > 1]).min()),
        Claim(f"latch: w where memory ends, T = {STEPS[-1]}", BENGIO + ": threshold w = 1").close(
            1.0, path.w[-1], tolerance=2 / STEPS[-1]
        ),
    ]


def figure(held) -> Figure:
    """Margin against w; weight, margin and gradient's factor against λ."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.7))
    w = np.linspace(0.4, 4.2, 300)
    left.plot(w, margin(w), color=COLORS[0], label="closed form")
    left.plot(held["w"], held["margin_measured"], "o", color=COLORS[1], label="by halving")
    left.axvline(1, color="0.5", linestyle=":", label="threshold w = 1")
    left.set(xlabel="recurrent weight w", ylabel="margin: opposing input withstood")
    left.legend()
    left.set_title("(a) h ← tanh(w h + u): a bit held against −u", loc="left")

    path = held["paths"][STEPS[-1]]
    right.plot(path.lam, path.w, label="weight w")
    right.plot(path.lam, path.margin, label="margin")
    right.plot(path.lam, path.shrink, label="gradient's factor a step")
    for at, line, label in ((path.lambda_c, "--", "λ$_c$ "), (path.lambda_s, ":", "λ$_s$ ")):
        right.axvline(at, color="0.4", linestyle=line)
        right.text(at, 0.6, label, transform=right.get_xaxis_transform(), ha="right")
    right.set(xscale="log", xlabel="λ", ylabel="w, margin, factor w(1 − h*²)")
    right.set_ylim(bottom=0)
    legend_above(right)
    right.set_title(f"(b) at the minimum of (1 − h$_T$)² + λw², T = {STEPS[-1]}", loc="left")
    return fig
