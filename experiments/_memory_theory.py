"""Closed forms of what λ‖W‖² does to a memory: one weight, and the linear network that holds one bit.

The one-weight chain carries 1 over T steps by h ← w h and pays (1 − w^T)² + λ w². The linear network with one
input and one output writes a bit into its state, holds it for T silent steps and reads it, and pays (1 − p)² + λ‖W‖²
over its three matrices, p = W_xh W_hh^T W_hy. Both have the same three thresholds:

    λ_c     above it the objective of the memory exceeds 1, that of the net at W = 0: no longer the global optimum
    λ_s     above it the memory is no local optimum either (a saddle-node: the branch ends)
    λ_cold  above it gradient descent from a small start goes to W = 0
"""

from __future__ import annotations

import numpy as np


def chain_spinodal(num_steps: float) -> float:
    """λ_s = T y^((T−2)/T) (1 − y) at y = w^T = (T−2)/(2T−2), where the chain's memory branch ends.

    A stationary w ≠ 0 has λ = T w^(T−2) (1 − w^T); λ_s is the largest value of the right-hand side.

    >>> [round(chain_spinodal(T), 3) for T in (5, 10, 20, 50, 100)]
    [1.735, 2.904, 5.373, 12.857, 25.352]
    """
    T = num_steps
    y = (T - 2) / (2 * T - 2)
    return T * y ** ((T - 2) / T) * (1 - y)


def chain_switch(num_steps: float) -> float:
    """λ_c of the chain: where (1 − w^T)² + λ w² = 1 on its branch, which is at w^T = (T−2)/(T−1).

    >>> [round(chain_switch(T), 4) for T in (5, 10, 20, 50, 100)]
    [1.0518, 1.0112, 1.0026, 1.0004, 1.0001]
    """
    y = (num_steps - 2) / (num_steps - 1)
    return num_steps * (1 - y) * y ** (1 - 2 / num_steps)


def chain_cold(num_steps: float, start: float) -> float:
    """λ_cold = T w₀^(T−2) (1 − w₀^T): from w₀ below the spinodal, gradient descent keeps the memory below it.

    >>> [round(chain_cold(T, 0.9), 4) for T in (10, 20, 50)]
    [2.8037, 2.6369, 0.3165]
    """
    return num_steps * start ** (num_steps - 2) * (1 - start**num_steps)


def chain_branch(num_steps: float, lams: np.ndarray) -> np.ndarray:
    """w^T on the chain's memory branch at each λ; NaN beyond λ_s.

    >>> chain_branch(10, np.array([0.0, 2.9, 3.0])).round(2).tolist()
    [1.0, 0.46, nan]
    """
    lams = np.asarray(lams, dtype=np.float64)
    bottom = (num_steps - 2) / (2 * num_steps - 2)
    low, high = np.full(lams.shape, bottom), np.ones(lams.shape)
    for _ in range(60):  # λ falls from λ_s to 0 as y goes from the spinodal to 1
        middle = (low + high) / 2
        above = num_steps * middle ** (1 - 2 / num_steps) * (1 - middle) > lams
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(lams <= chain_spinodal(num_steps), (low + high) / 2, np.nan)


def network_spinodal(num_steps: float, *, pair: bool = False) -> float:
    """λ_s = (T y)^(T/(T+2)) (1 − y), y = T/(2T+2), of the linear network; smaller for a complex pair.

    One real eigenvalue ρ carries p = ρ^(T+2) / T at the cost λ ρ² (1 + 2/T). A pair ρ e^{±iθ} costs twice the ‖W_hh‖².

    >>> [round(network_spinodal(T), 2) for T in (10, 20, 40, 50, 100)]
    [1.93, 4.06, 8.68, 11.05, 23.16]
    """
    T = num_steps
    y = T / (2 * T + 2)
    return (T * y / (2 if pair else 1)) ** (T / (T + 2)) * (1 - y)


def network_switch(num_steps: float, *, pair: bool = False) -> float:
    """λ_c of the linear network: where its objective on the branch is 1, which is at p = T/(T+1).

    >>> [round(network_switch(T), 3) for T in (10, 20, 40, 50, 100)]
    [0.572, 0.694, 0.799, 0.828, 0.896]
    """
    T = num_steps
    y = T / (T + 1)
    return (T * y / (2 if pair else 1)) ** (T / (T + 2)) * (1 - y)


def network_radius(num_steps: float) -> float:
    """ρ(W_hh) = T^(1/(T+2)) of the linear network as λ → 0: the cheapest memory has a radius above 1.

    >>> [round(network_radius(T), 3) for T in (10, 20, 40, 50, 100)]
    [1.212, 1.146, 1.092, 1.078, 1.046]
    """
    return num_steps ** (1 / (num_steps + 2))
