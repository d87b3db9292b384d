"""The closed forms of what λ‖W‖² does, against numerical minimisation and gradient descent."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from experiments.memory_thresholds import theory
from experiments.penalty_theory import chain, runs

CHAIN = {  # T: (λ_s, λ_c)
    5: (1.735, 1.0518),
    10: (2.904, 1.0112),
    20: (5.373, 1.0026),
    50: (12.857, 1.0004),
    100: (25.35, 1.0001),
}
NETWORK = {  # T: (λ_s, λ_c, ρ)
    10: (1.93, 0.572, 1.212),
    20: (4.06, 0.694, 1.146),
    40: (8.68, 0.799, 1.092),
    50: (11.05, 0.828, 1.078),
    100: (23.16, 0.896, 1.046),
}


def last_lambda(holds, low, high):
    """Where a condition on λ stops holding, by bisection."""
    for _ in range(40):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def best(objective, lam, bottom):
    """The least value on the memory's side of the spinodal."""
    return minimize_scalar(
        objective, args=(lam,), bounds=(bottom, 1.3), method="bounded", options={"xatol": 1e-10}
    ).fun


@pytest.mark.parametrize("T", CHAIN)
def test_the_chains_thresholds_are_those_of_its_objective(T):
    spinodal, switch = CHAIN[T]
    assert chain.spinodal(T) == pytest.approx(spinodal, abs=6e-4 * spinodal)
    assert chain.switch(T) == pytest.approx(switch, abs=6e-5)

    w = np.linspace(0, 1, 200_001)[1:]
    stationary = T * w ** (T - 2) * (1 - w**T)
    assert chain.spinodal(T) == pytest.approx(stationary.max(), rel=1e-6)

    def objective(w, lam):
        return (1 - w**T) ** 2 + lam * w**2

    bottom = ((T - 2) / (2 * T - 2)) ** (1 / T)
    found = last_lambda(lambda lam: best(objective, lam, bottom) < 1, 0.1, spinodal)
    assert chain.switch(T) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("T", NETWORK)
def test_the_networks_thresholds_are_those_of_its_objective(T, pair):
    if not pair:
        spinodal, switch, radius = NETWORK[T]
        assert theory.network_spinodal(T) == pytest.approx(spinodal, abs=6e-3)
        assert theory.network_switch(T) == pytest.approx(switch, abs=6e-4)
        assert theory.network_radius(T) == pytest.approx(radius, abs=6e-4)

    cost = (
        2 if pair else 1
    )  # of ‖W_hh‖² = cost ρ², and W_xh, W_hy at their best: ρ²/T (a pair: 2ρ²/T)

    def objective(rho, lam):
        p = cost * rho ** (T + 2) / T
        return (1 - p) ** 2 + lam * cost * rho**2 * (1 + 2 / T)

    rho = np.linspace(0.3, 1.4, 400_001)
    p = cost * rho ** (T + 2) / T
    stationary = p * (1 - p) * T / (cost * rho**2)
    assert theory.network_spinodal(T, pair=pair) == pytest.approx(stationary.max(), rel=1e-6)
    bottom = (T * T / (2 * T + 2) / cost) ** (1 / (T + 2))
    top = theory.network_spinodal(T, pair=pair)
    found = last_lambda(lambda lam: best(objective, lam, bottom) < 1, 0.05, top)
    assert theory.network_switch(T, pair=pair) == pytest.approx(found, rel=1e-6)


def test_the_three_matrices_share_the_penalty_as_the_theory_says():
    # The full objective of a linear network of 2 units, minimised over all 8 weights from a rotation and a projection.
    from scipy.optimize import minimize

    T, lam = 10, 0.3

    def objective(weights):
        a, b, W = weights[:2], weights[2:4], weights[4:].reshape(2, 2)
        return (1 - a @ np.linalg.matrix_power(W, T) @ b) ** 2 + lam * np.sum(weights**2)

    start = np.array([0.4, 0.1, 0.4, 0.0, 1.1, 0.1, 0.0, 0.2])
    found = minimize(objective, start, method="BFGS").x
    W = found[4:].reshape(2, 2)
    rho = np.abs(np.linalg.eigvals(W)).max()
    assert rho > 1
    np.testing.assert_allclose(np.sum(found[:2] ** 2), rho**2 / T, rtol=1e-3)
    np.testing.assert_allclose(np.sum(W**2), rho**2, rtol=1e-3)


@pytest.mark.parametrize(("T", "expected"), [(10, 2.80), (20, 2.64), (50, 0.316), (100, 0.0033)])
def test_descent_from_a_small_start_splits_at_lambda_cold(T, expected):
    cold = chain.cold(T, 0.9)
    assert cold == pytest.approx(expected, rel=0.01)
    for lam, up in ((0.99 * cold, True), (1.01 * cold, False)):
        slope = -2 * T * 0.9 ** (T - 1) * (1 - 0.9**T) + 2 * lam * 0.9
        assert (slope < 0) == up


def test_the_branch_solves_the_stationary_equation():
    lams = np.linspace(0.1, 5.3, 7)
    w = chain.branch(20, lams) ** (1 / 20)
    np.testing.assert_allclose(20 * w**18 * (1 - w**20), lams, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.numerics
def test_the_library_runs_are_those_of_the_closed_forms():
    with jax.enable_x64():
        decay = runs.shrinkage(np.array([0.0, 0.3]), rate=0.05, num_updates=30, hidden_size=4)
        np.testing.assert_allclose(decay.rho, decay.theory, rtol=1e-11)

        rng = np.random.default_rng(1)
        xs, ys = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
        lams = np.array([0.0, 0.1, 10.0])
        trained = runs.one_step(xs, ys, lams, num_updates=300)
        np.testing.assert_allclose(trained, runs.ridge(xs, ys, lams), atol=1e-9)

        memory = runs.Chain((5, 8), num_updates=400, path_updates=400)
        weight, total = memory.fit([5, 8, 8], [1.0, 1.0, 1.0], [1.0, 2.0, 2.6])
        expected = [chain.branch(5, np.array(1.0)), chain.branch(8, np.array(2.0)), 0]
        # descent on w = 0's side is (1 − 2ηλ)^t, slow
        np.testing.assert_allclose(weight ** np.array([5, 8, 8]), expected, atol=1e-5)
        by_hand = (1 - weight ** np.array([5, 8, 8])) ** 2 + np.array([1.0, 2.0, 2.6]) * weight**2
        np.testing.assert_allclose(total, by_hand, rtol=1e-10)


def test_docstrings_hold():
    import doctest

    assert doctest.testmod(chain).failed == 0
    assert doctest.testmod(theory).failed == 0
