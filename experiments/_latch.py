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
    """The minimum with memory of (1 − h_T)² + λ w², against λ.

    Attributes:
      lam: `[n]`.
      w: `[n]`, NaN where no minimum with memory is left.
      margin: `[n]`, the largest constant opposing input that the unit withstands.
      shrink: `[n]`, w (1 − h*²), the factor on a gradient each step back.
      best: `[n]`, whether that minimum is better than forgetting, whose objective is 1 (w = 0).
    """

    lam: np.ndarray
    w: np.ndarray
    margin: np.ndarray
    shrink: np.ndarray
    best: np.ndarray


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


def latch_path(lams: np.ndarray, *, num_steps: int, num_weights: int) -> LatchPath:
    """The minimum with memory at each λ, from the loss and its gradient by autodiff on a grid of w."""
    weights = np.linspace(0.5, 6.0, num_weights)
    value_and_slope = jax.jit(
        jax.vmap(jax.value_and_grad(lambda w: jnp.square(1 - last_state(w, num_steps=num_steps))))
    )
    loss, slope = map(np.asarray, value_and_slope(weights))
    found = []
    for lam in lams:
        total = slope + 2 * lam * weights
        falls_then_rises = np.flatnonzero((total[:-1] < 0) & (total[1:] >= 0))
        if len(falls_then_rises) == 0:
            found.append((np.nan, False))
            continue
        at = falls_then_rises[-1]
        share = total[at] / (total[at] - total[at + 1])  # where the slope crosses 0
        w = weights[at] + share * (weights[at + 1] - weights[at])
        objective = np.interp(w, weights, loss) + lam * w**2
        found.append((w, objective < 1))
    w, best = np.array([w for w, _ in found]), np.array([best for _, best in found])
    return LatchPath(lams, w, np.where(np.isnan(w), np.nan, margin(w)), shrink(w), best)


def shrink(w: Any) -> np.ndarray:
    """w (1 − h*²)."""
    h = held_state(np.where(np.isnan(w), 2.0, w))
    return np.where(np.isnan(w), np.nan, w * (1 - h**2))


def thresholds() -> dict[str, float]:
    """λ_c and λ_s of a latch held for ever, in closed form up to a maximum over w.

    λ_c = max_w (1 − (1 − h*)²) / w² (above it, forgetting is better); λ_s = max_w (1 − h*) h*′ / w, h*′ = dh*/dw (above
    it, no minimum with memory is left).
    """
    w = np.linspace(1.0005, 6, 400_000)
    h = held_state(w)
    gradient = (1 - h**2) * h / (1 - w * (1 - h**2))
    switch = (1 - (1 - h) ** 2) / w**2
    spinodal = (1 - h) * gradient / w
    return {
        "lambda_c": float(switch.max()),
        "w_at_c": float(w[switch.argmax()]),
        "lambda_s": float(spinodal.max()),
        "w_at_s": float(w[spinodal.argmax()]),
    }
