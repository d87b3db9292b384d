"""Closed forms of the one-weight chain, which carries 1 over T steps by h ← w h and pays (1 − w^T)² + λ w².

λ_c     above it the objective of the memory exceeds 1, that of w = 0: no longer the global optimum
λ_s     above it the memory is no local optimum either (a saddle-node: the branch ends)
λ_cold  above it gradient descent from a small start goes to w = 0
"""

from __future__ import annotations

from typing import Any

import numpy as np


def bottom(num_steps: Any) -> Any:
    """w^T = (T−2)/(2T−2) at λ_s, where the memory branch ends; at least 3/8 for T ≥ 5."""
    return (num_steps - 2) / (2 * num_steps - 2)


def spinodal(num_steps: Any) -> Any:
    """λ_s = T y^((T−2)/T) (1 − y) at y = w^T = (T−2)/(2T−2), where the chain's memory branch ends.

    A stationary w ≠ 0 has λ = T w^(T−2) (1 − w^T); λ_s is the largest value of the right-hand side.

    >>> [round(spinodal(T), 3) for T in (5, 10, 20, 50, 100)]
    [1.735, 2.904, 5.373, 12.857, 25.352]
    """
    T = num_steps
    y = bottom(T)
    return T * y ** ((T - 2) / T) * (1 - y)


def switch(num_steps: Any) -> Any:
    """λ_c of the chain: where (1 − w^T)² + λ w² = 1 on its branch, which is at w^T = (T−2)/(T−1).

    >>> [round(switch(T), 4) for T in (5, 10, 20, 50, 100)]
    [1.0518, 1.0112, 1.0026, 1.0004, 1.0001]
    """
    y = (num_steps - 2) / (num_steps - 1)
    return num_steps * (1 - y) * y ** (1 - 2 / num_steps)


def cold(num_steps: Any, start: float) -> Any:
    """λ_cold = T w₀^(T−2) (1 − w₀^T): from w₀ below the spinodal, gradient descent keeps the memory below it.

    >>> [round(cold(T, 0.9), 4) for T in (10, 20, 50)]
    [2.8037, 2.6369, 0.3165]
    """
    return num_steps * start ** (num_steps - 2) * (1 - start**num_steps)


def branch(num_steps: float, lams: np.ndarray) -> np.ndarray:
    """w^T on the chain's memory branch at each λ; NaN beyond λ_s.

    >>> branch(10, np.array([0.0, 2.9, 3.0])).round(2).tolist()
    [1.0, 0.46, nan]
    """
    lams = np.asarray(lams, dtype=np.float64)
    low, high = np.full(lams.shape, bottom(num_steps)), np.ones(lams.shape)
    for _ in range(60):  # λ falls from λ_s to 0 as y goes from the spinodal to 1
        middle = (low + high) / 2
        above = num_steps * middle ** (1 - 2 / num_steps) * (1 - middle) > lams
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(lams <= spinodal(num_steps), (low + high) / 2, np.nan)


def colds(num_steps: np.ndarray, start: float) -> np.ndarray:
    """λ_cold of each T; NaN if w₀ lies above the spinodal, so that a cold start is a warm one."""
    T = np.asarray(num_steps, dtype=np.float64)
    return np.where(start**T < bottom(T), cold(T, start), np.nan)
