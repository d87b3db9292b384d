"""The statistics and the measurements of the three thresholds of memory."""

import doctest

import jax
import numpy as np
import pytest
from scipy.stats import binomtest

from experiments import _intervals as intervals
from experiments import _memory_predictors as predictors
from experiments import _memory_statistics as statistics
from experiments._intervals import proportion
from experiments._memory_runs import cold_starts, warm_paths
from experiments._memory_statistics import fit_law, fit_threshold
from experiments._memory_task import (
    Variant,
    decoded_bits,
    make_train,
    measure,
    near_identity,
    network_of,
    recall_batch,
)

pytestmark = pytest.mark.usefixtures("compile_quickly")

SMALL = Variant(hidden_size=4, num_updates=60, num_records=2, learning_rate=0.02)


def test_docstrings_hold():
    assert doctest.testmod(statistics).failed == 0
    assert doctest.testmod(intervals).failed == 0


@pytest.mark.parametrize("scale", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("num_seeds", [6, 10])
def test_intervals_cover_the_true_threshold(scale, num_seeds):
    rng = np.random.default_rng(3)
    lams = np.geomspace(1e-3, 1e1, 20)  # half a unit of ln λ apart
    inside, errors, trials = 0, [], 100
    for _ in range(trials):
        truth = rng.uniform(np.log(0.02), np.log(0.5))
        own = rng.logistic(truth, scale, size=num_seeds)
        found = fit_threshold(lams, np.log(lams)[:, None] < own)
        inside += found.low <= np.exp(truth) <= found.high
        errors.append(np.log(found.value) - truth)
    # 95 % wanted; a shortfall that 100 trials could not explain fails
    assert binomtest(inside, trials, 0.95, alternative="less").pvalue > 0.01, inside / trials
    deviation = np.sqrt((scale * np.pi / np.sqrt(3)) ** 2 / num_seeds + 0.5**2 / 12)
    assert abs(np.mean(errors)) < 4 * deviation / np.sqrt(trials)


def test_thresholds_off_the_grid_are_bounds():
    lams = np.geomspace(0.1, 10, 5)
    dead = fit_threshold(lams, np.zeros((5, 4), bool))
    assert (dead.value, dead.high, dead.below) == (0.0, pytest.approx(0.1), 4)
    living = fit_threshold(lams, np.ones((5, 4), bool))
    assert (living.value, living.low, living.above) == (np.inf, pytest.approx(10), 4)


def test_a_threshold_with_all_seeds_in_one_bracket_is_that_bracket():
    lams = np.geomspace(0.1, 10, 9)
    alive = np.repeat((lams < 1.5)[:, None], 8, axis=1)
    found = fit_threshold(lams, alive)
    assert found.low <= lams[4] * 1.05
    assert found.high >= lams[5] * 0.95
    assert lams[4] < found.value < lams[5]


def test_seeds_that_come_alive_again_are_counted():
    lams = np.geomspace(0.1, 10, 5)
    alive = np.array([[1, 1], [0, 1], [1, 1], [0, 0], [0, 0]], bool)
    assert fit_threshold(lams, alive).unordered == 1


def test_order_of_lambdas_does_not_matter():
    lams = np.geomspace(0.1, 10, 6)
    alive = lams[:, None] < np.array([0.5, 1.0, 2.0])
    assert fit_threshold(lams[::-1], alive[::-1]) == fit_threshold(lams, alive)


def test_proportions_are_clopper_pearson():
    for n in (1, 7, 10):
        for k in range(n + 1):
            low, high = proportion(np.array(k), n)
            exact = binomtest(k, n).proportion_ci(0.95, method="exact")
            np.testing.assert_allclose([low, high], [exact.low, exact.high], atol=1e-12)


def test_the_law_is_recovered_from_noisy_thresholds():
    rng = np.random.default_rng(0)
    T, g = (grid.ravel() for grid in np.meshgrid([5.0, 10, 20, 40], [0.7, 0.8, 0.9]))
    lams = 0.14 * T * g ** (T - 2) * np.exp(0.1 * rng.normal(size=T.size))
    law = fit_law(T, g, lams)
    assert law.low < 0.14 < law.high
    assert law.free[2] == pytest.approx(1, abs=0.03)
    assert law(80.0, 0.9) == pytest.approx(law.constant * 80 * 0.9**78)


def test_the_batch_is_every_pattern_once():
    batch = recall_batch(3, num_bits=2)
    assert batch.xs.shape == (4, 4, 2)
    assert len(np.unique(batch.ys, axis=0)) == 4
    np.testing.assert_array_equal(batch.xs[:, 0], batch.ys)
    assert not batch.xs[:, 1:].any()


@pytest.mark.parametrize(("size", "expected"), [(0.0, 0.0), (1e-12, 0.0), (0.1, 0.369), (1.0, 1.0)])
def test_a_bit_is_decoded_where_the_state_stands_out_of_the_noise(size, expected):
    # K = 1, h = ±size on one unit: the error rate is Φ(−size / noise), Φ(−1) = .1587, 1 − H₂ = .369
    states = size * np.array([[[1.0, 0.0]], [[-1.0, 0.0]]]).reshape(1, 2, 2)
    bits = np.array([[1.0], [-1.0]])
    np.testing.assert_allclose(decoded_bits(states, bits), expected, atol=2e-3)


def test_two_bits_are_two():
    states = np.array([[[-1.0, -1], [1, -1], [-1, 1], [1, 1]]])
    np.testing.assert_allclose(decoded_bits(states, states[0]), 2.0, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2])
def test_the_gradient_axis_is_the_product_of_step_jacobians(depth, key):
    variant = SMALL._replace(depth=depth)
    net = network_of(variant)
    params = net.init(key, 1)
    stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], params)
    found = measure(net, stacked, 5)
    assert found.loss.shape == (1,)
    if depth == 1:
        W = np.asarray(params["layer_0"]["W_hh"], np.float64)
        h = found.states[0, 1].astype(np.float64)
        product = np.eye(4)
        for t in range(1, 6):
            product = product @ W * (1 - h[t] ** 2)
        expected = np.linalg.norm(product, 2)
        np.testing.assert_allclose(found.gradient[0], expected, rtol=1e-4)
    else:  # two layers: the state is twice as wide, and its Jacobian is at least that of the upper layer
        assert found.gradient[0] > 0


def test_the_slope_of_an_orthogonal_linear_network_is_the_log_of_its_gain():
    rng = np.random.default_rng(0)
    W = 0.9 * np.linalg.qr(rng.normal(size=(6, 6)))[0][None]
    states = np.ones((1, 2, 11, 6))
    found = predictors.slopes_of(W, states, "linear")
    np.testing.assert_allclose(np.concatenate(found), np.log(0.9), atol=1e-10)


def test_the_slope_survives_float_underflow():
    W = 1e-3 * np.eye(3)[None]
    found = predictors.slopes_of(W, np.zeros((1, 2, 401, 3)), "tanh")
    np.testing.assert_allclose(found[0], np.log(1e-3), rtol=1e-6)


def test_biases_stay_at_zero_and_the_penalty_to_the_identity_vanishes_there(key):
    train = make_train(SMALL)
    run = jax.jit(train)({"l2": 0.01, "gain": 1.0}, recall_batch(3), key=key)
    assert not run.params["layer_0"]["b_h"].any()
    assert not run.params["readout"]["b_y"].any()
    penalty = near_identity()
    params = {
        "layer_0": {"W_hh": np.eye(3, dtype=np.float32), "W_xh": np.ones((1, 3), np.float32)},
        "readout": {"W_hy": np.zeros((3, 1), np.float32)},
    }
    value = penalty.value(jax.tree.map(jax.numpy.asarray, params), None, penalty.init(params))[0]
    assert float(value) == 3.0
    assert penalty.covers(params) == ["layer_0/W_hh", "layer_0/W_xh", "readout/W_hy"]


def test_decoupled_decay_shrinks_like_the_penalty_under_descent(key):
    # without a data gradient (W_hy = 0 gives one only to W_hy) W_hh shrinks by 1 − 2ηλ an update
    variant = SMALL._replace(optimizer="adamw", num_updates=1, num_records=1)
    train = make_train(variant)
    batch = recall_batch(2)
    state = train.init({"l2": 0.5, "gain": 1.0}, batch, key=key)
    state.params["readout"]["W_hy"] *= 0
    moved, _ = train.update(state, jax.tree.map(jax.numpy.asarray, batch), {"l2": 0.5, "gain": 1.0})
    np.testing.assert_allclose(
        moved.params["layer_0"]["W_hh"],
        state.params["layer_0"]["W_hh"] * (1 - 2 * 0.02 * 0.5),
        rtol=1e-5,
    )


def test_sweeps_are_read_back_and_paths_start_from_the_memory(tmp_path):
    lams = np.array([0.0, 1e-3, 5.0])
    first = cold_starts(tmp_path, SMALL, 2, gains=(1.0,), lams=lams, seeds=2)
    again = cold_starts(tmp_path, SMALL, 2, gains=(1.0,), lams=lams, seeds=2)
    np.testing.assert_array_equal(first.loss, again.loss)
    assert first.history.shape == (3, 1, 2, 2)
    assert first.alive[0].all()
    assert not first.alive[2].any()

    asked = {"gain": 1.0, "lams": np.array([1e-3, 1e-2, 5.0]), "seeds": 3, "updates": 60}
    warm = warm_paths(tmp_path, SMALL, 2, **asked)
    back = warm_paths(tmp_path, SMALL, 2, **asked)
    np.testing.assert_array_equal(warm.loss, back.loss)
    assert warm.loss.shape == (2, 3, 3)
    assert warm.alive[0, :2].all()
    assert not warm.alive[:, 2].any()
    assert not warm.alive[1].any()  # nothing comes back on the way down
    leaf = warm.params["layer_0"]["W_hh"]
    assert leaf.shape == (2, 3, 3, 4, 4)
    norm = np.square(leaf).sum(axis=(-2, -1))
    assert (norm[0, 0] > norm[0, 1]).all()
    assert len(list((tmp_path / "sweeps").glob("*.nc"))) == 2


@pytest.mark.slow
def test_the_controls_run(tmp_path):
    from experiments import _memory_controls as controls
    from experiments.memory_thresholds import Config

    config = Config(
        out=tmp_path,
        hidden_size=4,
        num_updates=64,
        learning_rate=0.02,
        control_steps=(2,),
        control_lambdas=3,
        control_seeds=2,
        control_names=("tanh, Adam, all matrices",),
        long_updates=64,
    )
    found = controls.run_all(config)
    (by_steps,) = found.cold.values()
    assert set(by_steps) == {2}
    for history in found.history.values():
        assert history.revived == 0  # W = 0 has no gradient
        assert history.dead > 0
    for scaled in found.scaled.values():
        assert scaled.bits[0] > 0.5
    assert list(found.duration[2]) == [4, 8, 16, 32, 64]
    assert "λ switched on after training" in controls.table(found)


def test_a_path_is_compared_with_the_theory_of_its_own_solution():
    from types import SimpleNamespace

    from experiments import _memory_theory as theory
    from experiments._memory_claims import branch_ratios

    turn = np.array([[0.0, 1.1], [-1.1, 0.0]])  # a pair: ‖W‖² = 2ρ²
    line = np.array([[1.1, 0.0], [0.0, 0.0]])
    lams = np.geomspace(0.1, 10, 400)
    W = np.stack([np.broadcast_to(one, (2, 400, 2, 2)) for one in (turn, line)], axis=2)
    ends = np.array(
        [
            [f(10, pair=pair) for pair in (True, False)]
            for f in (theory.network_switch, theory.network_spinodal)
        ]
    )
    alive = lams[:, None] < ends[1]
    worth = lams[:, None] < ends[0]
    warm = SimpleNamespace(
        lams=lams,
        loss=np.zeros((2, 400, 2)),
        alive=np.stack([alive, alive]),
        objective=np.stack([np.where(worth, 0.5, 2.0)] * 2),
        params={"layer_0": {"W_hh": W}},
    )
    switch, spinodal = branch_ratios(SimpleNamespace(warm={10: warm}))
    np.testing.assert_allclose(np.concatenate([switch, spinodal]), 0, atol=0.01)
