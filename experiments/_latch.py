"""A bit held by one unit, h_t = tanh(w h_{t−1} + u_t): how safely, against w and against λ.

For w > 1 the silent unit (u = 0) has stable states ±h*, h* = tanh(w h*). What holds the bit also hides it: the factor
by which a gradient shrinks each step is w (1 − h*²), which falls as the margin grows (Bengio, Simard & Frasconi 1994).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from rnnreg.cells import HiddenState

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
    weights = 1 + np.concatenate(
        [-np.geomspace(0.2, 1e-5, num_weights // 4), [0], np.geomspace(1e-5, 5, num_weights)]
    )
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
    return float(
        (np.sqrt(3 * num_steps) * np.gradient(F, x) * (1 - np.sqrt(3 / num_steps) * F)).max()
    )
