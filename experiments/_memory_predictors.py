"""Which number tells how fast ∂h_T/∂h_t grows or fades: four predictors of one measured slope, on trained networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from experiments._memory_statistics import Score, score
from experiments._report import text_table

NAMES: tuple[str, ...] = ("ln ρ(W)", "ln ρ(W diag E φ′)", "½ ln χ", "λ_max along the data")


class Slopes(NamedTuple):
    """Slopes in nats a step.

    Attributes:
      measured: `[n]` slope of ln‖∂h_T/∂h_t‖₂ against T − t, mean over patterns.
      predicted: by name, `[n]`.
      num_steps: `[n]` T of each network.
      scores: by name, R², bias and correlation.
      slow: by name, the same among networks whose gradient fades (slope below −0.02), where one would want to know.
    """

    measured: np.ndarray
    predicted: dict[str, np.ndarray]
    num_steps: np.ndarray
    scores: dict[str, Score]
    slow: dict[str, Score]


def slopes_of(W: np.ndarray, states: np.ndarray, activation: str) -> tuple[np.ndarray, ...]:
    """The measured slope and the four predictors, `[n]` each.

    One step is dh_t = dh_{t−1} W D_t with D_t = diag φ′(h_t). All in float64, products renormalised at each step.

    Args:
      W: `[n, H, H]`.
      states: `[n, B, T + 1, H]`.
      activation: "tanh", "linear" or "relu".
    """
    W, states = np.asarray(W, np.float64), np.asarray(states, np.float64)
    derivative = {
        "tanh": lambda h: 1 - h**2,
        "linear": np.ones_like,
        "relu": lambda h: (h > 0).astype(float),
    }[activation]
    gates = derivative(states[:, :, 1:])  # [n, B, T, H]
    n, B, T, H = gates.shape

    product = np.broadcast_to(np.eye(H), (n, B, H, H)).copy()
    log_scale, norms = np.zeros((n, B)), np.zeros((n, B, T))
    for lag in range(1, T + 1):
        product = W[:, None] @ (gates[:, :, T - lag, :, None] * product)
        size = np.maximum(np.abs(product).max(axis=(-2, -1)), 1e-300)
        product, log_scale = product / size[..., None, None], log_scale + np.log(size)
        top = np.linalg.svd(product, compute_uv=False)[..., 0]
        norms[:, :, lag - 1] = np.log(np.maximum(top, 1e-300)) + log_scale
    lags = np.arange(1, T + 1) - (T + 1) / 2
    measured = ((norms - norms.mean(-1, keepdims=True)) @ lags / (lags @ lags)).mean(axis=1)

    tiny = 1e-300
    ln_rho = np.log(np.maximum(np.abs(np.linalg.eigvals(W)).max(axis=-1), tiny))
    mean_gate = gates.mean(axis=(1, 2))  # [n, H]
    gated = np.linalg.eigvals(W * mean_gate[:, None, :])
    ln_gated = np.log(np.maximum(np.abs(gated).max(axis=-1), tiny))

    variance = np.square(W).sum(axis=(-2, -1)) / H
    before = states[:, :, :-1] @ W[:, None]
    q = np.square(before).mean(axis=(1, 2, 3))
    z = np.linspace(-8, 8, 2001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    u = np.sqrt(q)[:, None] * z
    squared = {
        "tanh": lambda: np.cosh(np.clip(u, -300, 300)) ** -4.0,
        "linear": lambda: np.ones_like(u),
        "relu": lambda: np.full_like(u, 0.5),
    }[activation]()
    ln_chi = 0.5 * np.log(np.maximum(variance * (squared @ density), tiny))

    rng = np.random.default_rng(0)
    frame = np.broadcast_to(np.linalg.qr(rng.normal(size=(H, H)))[0], (n, B, H, H))
    total = np.zeros((n, B, H))
    for step in range(2 * T):  # rows of the frame are perturbations of h_t; a first pass aligns it
        t = step % T
        moved = (frame @ W[:, None]) * gates[:, :, t, None, :]
        q_new, r = np.linalg.qr(np.swapaxes(moved, -1, -2))
        frame = np.swapaxes(q_new, -1, -2)
        total += (step >= T) * np.log(np.maximum(np.abs(np.diagonal(r, axis1=-2, axis2=-1)), tiny))
    lyapunov = (total / T).max(axis=-1).mean(axis=1)
    return measured, ln_rho, ln_gated, ln_chi, lyapunov


def compare(diagram: Any) -> Slopes:
    """Slopes of every network of the cold starts that holds its bits."""
    parts, steps = [], []
    for T in sorted({T for T, _ in diagram.cold}):
        for cold, found in diagram.measured_cold(T):
            alive = cold.alive.ravel()
            if not alive.any():
                continue
            W = np.asarray(cold.params["layer_0"]["W_hh"])
            shape = cold.alive.shape
            states = found.states
            flat = states.reshape(-1, *states.shape[len(shape) :])[alive]
            W = W.reshape(-1, *W.shape[len(shape) :])[alive]
            parts.append(np.stack(slopes_of(W, flat, diagram.activation)))
            steps.append(np.full(int(alive.sum()), T))
    together = np.concatenate([np.zeros((len(NAMES) + 1, 0)), *parts], axis=1)
    measured, predicted = together[0], dict(zip(NAMES, together[1:], strict=True))
    fading = measured < -0.02
    return Slopes(
        measured,
        predicted,
        np.concatenate([np.zeros(0, int), *steps]),
        {name: score(measured, values) for name, values in predicted.items()},
        {name: score(measured[fading], values[fading]) for name, values in predicted.items()}
        if fading.sum() > 2
        else {},
    )


def table(name: str, slopes: Slopes) -> str:
    """The scores as text."""
    rows = []
    for predictor in NAMES:
        found = slopes.scores[predictor]
        row = [predictor, f"{found.r2:.3f}", f"{found.bias:+.4f}", f"{found.correlation:.3f}"]
        if slopes.slow:
            slow = slopes.slow[predictor]
            row += [f"{slow.r2:.3f}", f"{slow.bias:+.4f}"]
        rows.append(row)
    header = ["predictor of the slope", "R²", "bias", "correlation"]
    fading = int((slopes.measured < -0.02).sum())
    header += ["R², fading", "bias, fading"] if slopes.slow else []
    title = f"{name}: {len(slopes.measured)} networks that hold their bits, {fading} with a fading gradient"
    return title + "\n" + text_table(header, rows)
