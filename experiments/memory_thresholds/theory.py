"""Closed forms of a linear network that holds one bit.

With one input and one output it writes a bit into its state, holds it for T silent steps and reads it, and pays
(1 − p)² + λ‖W‖² over its three matrices, p = W_xh W_hh^T W_hy. One real eigenvalue ρ carries p = ρ^(T+2) / T at the
cost λ ρ² (1 + 2/T); a complex pair ρ e^{±iθ} costs twice the ‖W_hh‖². A stationary p has λ = (T p)^(T/(T+2)) (1 − p).
The pair of the closed form turns by θ = mπ/T, in a W_hh that is normal. It is stationary, but a saddle: its Hessian has
one negative eigenvalue. The pairs that minimise the objective lie beside it, and their thresholds .1 to .8 % above.
The thresholds are those of `experiments.penalty_theory`'s chain of one weight.
"""

from __future__ import annotations


def network_spinodal(num_steps: float, *, pair: bool = False) -> float:
    """λ_s, the largest λ of a stationary p, at p = T/(2T+2); smaller for a complex pair.

    >>> [round(network_spinodal(T), 2) for T in (10, 20, 40, 50, 100)]
    [1.93, 4.06, 8.68, 11.05, 23.16]
    """
    return _stationary(num_steps, num_steps / (2 * num_steps + 2), pair)


def network_switch(num_steps: float, *, pair: bool = False) -> float:
    """λ_c: where its objective on the branch is 1, which is at p = T/(T+1).

    >>> [round(network_switch(T), 3) for T in (10, 20, 40, 50, 100)]
    [0.572, 0.694, 0.799, 0.828, 0.896]
    """
    return _stationary(num_steps, num_steps / (num_steps + 1), pair)


def network_radius(num_steps: float) -> float:
    """ρ(W_hh) = T^(1/(T+2)) as λ → 0: the cheapest memory has a radius above 1.

    >>> [round(network_radius(T), 3) for T in (10, 20, 40, 50, 100)]
    [1.212, 1.146, 1.092, 1.078, 1.046]
    """
    return num_steps ** (1 / (num_steps + 2))


def _stationary(num_steps: float, p: float, pair: bool) -> float:
    """The λ at which p is stationary."""
    T = num_steps
    return (T * p / (2 if pair else 1)) ** (T / (T + 2)) * (1 - p)
