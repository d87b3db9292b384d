"""The statistics and the measurements of the three thresholds of memory."""

import doctest
import itertools
import warnings
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import binomtest

import rnnreg as rr
from experiments import _thresholds as thresholds
from experiments._harness import claims_table, plain, proportion
from experiments._thresholds import Threshold, fit_threshold, ratio
from experiments.memory_thresholds import claims, controls, figures, law, report, slopes, theory
from experiments.memory_thresholds.__main__ import Config
from experiments.memory_thresholds.claims import branch_ratios
from experiments.memory_thresholds.law import fit_law
from experiments.memory_thresholds.measures import PREDICTORS, decoded_bits, gradient_slopes, memory
from experiments.memory_thresholds.runs import cold_starts, warm_paths
from experiments.memory_thresholds.task import (
    ALIVE,
    Variant,
    make_train,
    near_identity,
    network_of,
    recall_batch,
)

SMALL = Variant(hidden_size=4, num_updates=60, num_records=2, learning_rate=0.02)


def test_docstrings_hold():
    for module in (law, slopes, theory, thresholds, controls):
        assert doctest.testmod(module).failed == 0


@pytest.mark.slow
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


def test_seeds_alive_again_above_count_by_their_number_or_by_their_last():
    lams = np.geomspace(1e-3, 1, 7)
    alive = lams[:, None] < np.full(4, 0.2)  # five of seven λ
    alive[1:3] = False  # all seeds lost it there, for another reason
    by_number, by_last = fit_threshold(lams, alive), fit_threshold(lams, alive, last=True)
    assert lams[2] < by_number.value < lams[3]
    assert lams[4] < by_last.value < lams[5]
    assert by_number.unordered == by_last.unordered == 4
    alive[0] = False
    assert fit_threshold(lams, alive, last=True).below == 0
    assert fit_threshold(lams, np.zeros_like(alive), last=True).below == 4


def test_a_threshold_of_two_seeds_lies_between_the_last_with_and_the_first_without():
    lam = np.array([0, 1e-3, 1e-2, 1e-1])  # λ = 0 is on no logarithmic axis, and left out
    alive = np.array([[1, 1], [1, 1], [1, 1], [0, 0]], bool)
    end = fit_threshold(lam, alive)
    np.testing.assert_allclose(end.value, 10**-1.5, rtol=0.02)
    assert end.low <= 1e-2 * 1.02  # no narrower than the grid
    assert end.high >= 1e-1 * 0.98
    assert end.below + end.above == 0
    assert end == fit_threshold(lam[1:], alive[1:])


def test_seeds_without_an_end_are_counted_and_one_seed_bounds_nothing():
    lam = np.array([1e-3, 1e-2, 1e-1])
    both = fit_threshold(lam, np.array([[1, 0], [1, 0], [1, 0]], bool))
    assert (both.below, both.above) == (1, 1)
    assert (both.low, both.high) == (0, np.inf)  # one below and one above the grid bound nothing
    one = fit_threshold(lam, np.array([[1], [1], [0]], bool))
    assert 1e-2 < one.value < 1e-1
    assert (one.low, one.high) == (0, np.inf)
    assert np.isnan(fit_threshold(lam, np.zeros((3, 0), bool)).value)


def test_intervals_of_ratios_cover():
    rng = np.random.default_rng(0)
    lams, trials, inside = np.geomspace(1e-3, 1e1, 20), 60, 0
    for _ in range(trials):
        truth = rng.uniform(np.log(0.02), np.log(0.5), size=2)
        two = [
            fit_threshold(lams, np.log(lams)[:, None] < rng.logistic(at, 0.3, 6)) for at in truth
        ]
        found = ratio(two[0], two[1])
        assert found.low <= found.value <= found.high
        inside += found.low <= np.exp(truth[0] - truth[1]) <= found.high
    assert binomtest(inside, trials, 0.95, alternative="less").pvalue > 0.01, inside / trials


def test_ratios_of_thresholds_off_the_grid_are_bounds():
    lams = np.geomspace(0.1, 10, 5)
    dead, living = fit_threshold(lams, np.zeros((5, 4), bool)), fit_threshold(lams, np.ones((5, 4)))
    middle = fit_threshold(lams, np.repeat((lams < 1.5)[:, None], 4, axis=1))
    low = ratio(dead, middle)
    assert (low.value, low.low, low.high) == (0, 0, pytest.approx(0.1 / middle.low))
    high = ratio(middle, dead)
    assert (high.value, high.high) == (np.inf, np.inf)
    assert high.low == pytest.approx(middle.low / 0.1)
    assert ratio(living, dead).low == pytest.approx(100)
    assert np.isnan(ratio(dead, dead).value)
    assert thresholds.interval(ratio(dead, dead)) == "–"


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
    states = size * jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    bits = np.array([[1.0], [-1.0]])
    np.testing.assert_allclose(decoded_bits(states, bits), expected, atol=2e-3)


def test_two_bits_are_two():
    states = jnp.array([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
    np.testing.assert_allclose(decoded_bits(states, states), 2.0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2])
def test_the_gradient_axis_is_the_product_of_step_jacobians(depth, key):
    net = network_of(SMALL._replace(depth=depth))
    params, batch = net.init(key, 1), recall_batch(5)
    found = jax.jit(partial(memory, net))(params, batch)
    assert found.bits.shape == found.gradient.shape == found.rho.shape == ()
    if depth == 1:
        W = np.asarray(params["layer_0"]["W_hh"], np.float64)
        states = np.asarray(net.apply(params, batch.xs).states["layer_0"].h, np.float64)
        expected = []
        for h in states:
            product = np.eye(4)
            for t in range(1, 6):
                product = product @ W * (1 - h[t] ** 2)
            expected.append(np.linalg.norm(product, 2))
        np.testing.assert_allclose(found.gradient, np.sqrt(np.prod(expected)), rtol=1e-4)
    else:  # two layers: the state is twice as wide, and its Jacobian is at least that of the upper layer
        assert found.gradient > 0


def slopes_of(W, num_steps, activation):
    """The measured slope and its predictors of a network with this W_hh and states of 0, in float64."""
    with jax.enable_x64():
        net = network_of(Variant(activation=activation, hidden_size=len(W)))
        params = net.init(jax.random.key(0), 1, dtype=jnp.float64)
        params["layer_0"] |= {"W_hh": jnp.asarray(W), "W_xh": jnp.zeros((1, len(W)))}
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), recall_batch(num_steps))
        slope = {"tanh": jnp.tanh, "linear": jax.nn.identity}[activation]
        return jax.jit(partial(gradient_slopes, net, activation=slope))(params, batch)


@pytest.mark.slow
def test_the_slope_of_an_orthogonal_linear_network_is_the_log_of_its_gain():
    rng = np.random.default_rng(0)
    found = slopes_of(0.9 * np.linalg.qr(rng.normal(size=(6, 6)))[0], 10, "linear")
    assert sorted(found) == sorted(["slope", *PREDICTORS])
    np.testing.assert_allclose(list(found.values()), np.log(0.9), atol=1e-10)


@pytest.mark.slow
def test_the_slope_survives_float_underflow():
    found = slopes_of(1e-3 * np.eye(3), 400, "tanh")
    np.testing.assert_allclose(found["slope"], np.log(1e-3), rtol=1e-6)


@pytest.mark.slow
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
    value = penalty.value(jax.tree.map(jnp.asarray, params), None, penalty.init(params))[0]
    assert float(value) == 3.0
    assert penalty.covers(params) == ["layer_0/W_hh", "layer_0/W_xh", "readout/W_hy"]


@pytest.mark.slow
def test_decoupled_decay_shrinks_like_the_penalty_under_descent(key):
    # without a data gradient (W_hy = 0 gives one only to W_hy) W_hh shrinks by 1 − 2ηλ an update
    variant = SMALL._replace(optimizer="adamw", num_updates=1, num_records=1)
    train = make_train(variant)
    batch = recall_batch(2)
    state = jax.jit(train.init)({"l2": 0.5, "gain": 1.0}, batch, key=key)
    state.params["readout"]["W_hy"] *= 0
    moved, _ = jax.jit(train.update)(state, {"l2": 0.5, "gain": 1.0}, batch)
    np.testing.assert_allclose(
        moved.params["layer_0"]["W_hh"],
        state.params["layer_0"]["W_hh"] * (1 - 2 * 0.02 * 0.5),
        rtol=1e-5,
    )


@pytest.mark.slow
def test_sweeps_are_read_back_and_paths_start_from_the_memory(tmp_path):
    lams = np.array([0.0, 1e-3, 5.0])
    first = cold_starts(tmp_path, SMALL, 2, gains=(1.0,), lams=lams, seeds=2).metrics
    again = cold_starts(tmp_path, SMALL, 2, gains=(1.0,), lams=lams, seeds=2).metrics
    assert first.train_loss.equals(again.train_loss)
    assert dict(first.history_train_loss.sizes) == {"l2": 3, "gain": 1, "seed": 2, "epoch": 2}
    alive = first.train_loss < ALIVE
    assert alive.isel(l2=0).all()
    assert not alive.isel(l2=2).any()

    asked = {"gain": 1.0, "lams": np.array([1e-3, 1e-2, 5.0]), "seeds": 3, "updates": 60}
    warm = warm_paths(tmp_path, SMALL, 2, **asked)
    back = warm_paths(tmp_path, SMALL, 2, **asked)
    assert warm.equals(back)
    assert dict(warm.sizes) == {"way": 2, "seed": 3, "l2": 3}
    alive = warm.train_loss < ALIVE
    assert alive.sel(way="up").isel(l2=slice(2)).all()
    assert not alive.isel(l2=2).any()
    assert not alive.sel(way="down").any()  # nothing comes back on the way down
    norm = warm.frobenius.sel(way="up")
    assert (norm.isel(l2=0) > norm.isel(l2=1)).all()
    assert (warm.gradient.sel(way="up").isel(l2=0) > 0.1).all()  # what is held is measured
    assert (warm.bits.sel(way="up").isel(l2=0) > 0.9).all()
    assert len(list((tmp_path / "sweeps").glob("*.nc"))) == 2


def test_networks_that_lost_their_bits_are_told_apart_by_their_weights():
    lams = np.array([0.1, 1.0])
    # λ × seed × stage (0, λ, 0): lives on; dead at W = 0; dead with weights, comes back; never learnt; dead, diverged
    loss = np.array([[[0.1, 0.2, 0.2], [0.1, 1.0, 1.0], [0.1, 0.8, 0.1]]] * 2)
    squares = np.array([[[3.0, 2.0, 2.0], [3.0, 1e-9, 1e-9], [3.0, 0.4, 3.0]]] * 2)
    loss[1, 0], squares[1, 0] = [1.0, 1.0, 0.1], [1.0, 1e-9, 3.0]
    loss[1, 1], squares[1, 1] = [0.1, np.nan, np.nan], [3.0, np.nan, np.nan]
    found = controls.history_of(lams, loss, squares, 8000)
    assert found.dead[:2] == (4, 2)
    assert found.collapsed[:2] == (1, 0)
    assert found.others[:2] == (3, 2)
    assert found.collapsed.high == pytest.approx(binomtest(0, 1).proportion_ci(0.95).high)
    assert found.others.high == pytest.approx(binomtest(2, 3).proportion_ci(0.95).high)
    nothing = controls.history_of(lams, np.full((2, 3, 3), 0.1), squares, 8000)
    assert nothing.collapsed == (0, 0, 1.0)


def test_memories_that_longer_training_loses_and_gains_are_counted():
    lams = np.array([0.1, 1.0])
    history = np.ones((2, 2, 8))
    history[0, 0, 1:] = 0.1  # learns and keeps
    history[0, 1, 1:5] = 0.1  # learns and loses
    history[1, 0, 6:] = 0.1  # learns late
    history[1, 1, 2] = np.nan
    losses = xr.DataArray(history, {"l2": lams}, ("l2", "seed", "epoch"))
    found = controls.duration_of(losses, each=10, updates=25)
    assert (found.at, found.until) == (20, 80)
    assert (found.alive, found.lost, found.gained) == (2, 1, 1)
    assert found.lost_lams == [0.1]
    assert list(found.lam_cold) == [10, 20, 40, 80]
    assert controls.duration_of(losses, each=100, updates=25).at == 100  # the first record there is


@pytest.mark.slow
def test_the_controls_run(tmp_path):
    config = Config(
        out=tmp_path,
        hidden_size=4,
        num_updates=64,
        learning_rate=0.02,
        control_steps=(2,),
        control_lambdas=3,
        control_seeds=2,
        control_names=(controls.BASE,),
        long_updates=128,
    )
    found = controls.run_all(config)
    (by_steps,) = found.cold.values()
    assert set(by_steps) == {2}
    assert not found.fall  # there is one T
    for history in found.history.values():
        assert history.collapsed.revived == 0  # W = 0 has no gradient
        assert history.dead.num > 0
        assert history.updates_off == 128
    for scaled in found.scaled.values():
        assert scaled.bits[0] > 0.5
    duration = found.duration[2]
    assert list(duration.lam_cold) == [8, 16, 32, 64, 128]
    assert (duration.at, duration.until) == (64, 128)
    assert "λ switched on after training" in report.control_table(found)
    assert plain(found)["history"]["2"]["collapsed"]["revived"] == 0


def threshold_at(value, *, width=1.3):
    return Threshold(value, value / width, value * width, 0.1, 6, 0, 0, 0)


def some_controls():
    below = Threshold(0.0, 0.0, 1e-3, np.nan, 6, 6, 0, 0)
    open_below = threshold_at(0.5)._replace(low=0.0)
    open_above = threshold_at(1.0)._replace(high=np.inf)
    cold = {
        controls.BASE: {10: threshold_at(0.6), 40: threshold_at(0.08)},
        "depth 2": {10: open_below, 40: open_above},
        "relu": {10: below, 40: threshold_at(np.inf)._replace(low=10.0)},
    }
    fall = {name: ratio(by[40], by[10]) for name, by in cold.items()}
    dead, alive = controls.Returned(12, 1, 0.4), controls.Returned(0, 0, 1.0)
    history = {
        10: controls.History(threshold_at(1.0), dead, controls.Returned(11, 0, 0.3), dead, 8)
    }
    history[40] = controls.History(threshold_at(1.0), alive, alive, alive, 8)
    scaled = {40: controls.Scaled(0.1, 1.0, 4.0, (0.0, 0.0), (1.0, 0.0), (1.1, 0.3))}
    duration = {10: controls.Duration({8: threshold_at(1.0)}, 8, 16, 5, 2, 1, [0.1, 0.3])}
    return controls.Controls(cold, fall, dict.fromkeys(cold, 0.25), history, scaled, duration)


def test_controls_are_printed_with_their_intervals():
    text = report.control_table(some_controls())
    assert "depth 1 0.133 [0.092, 0.19], depth 2 2 [" in text
    assert "the law at depth 1: 0.17" in text
    assert "of those at W = 0, 0 of 11 (95 %: at most 30.0%); of the others, 1 of 12" in text
    assert "Of 5 networks that hold their bits at 8 updates, 2 have lost them at 16" in text
    assert "(λ = 0.1 to 0.3); 1 have come to hold them" in text
    assert "nan" not in text


def test_what_no_control_could_test_is_untested():
    config = SimpleNamespace(control_steps=(10, 40))
    found = claims.of_controls(config, some_controls())
    by = {claim.claim: claim for claim in found}
    collapse = "λ off after a collapse to W = 0: networks that come back"
    assert by[
        f"T = 10: {collapse}"
    ].holds  # of those not at W = 0 one came back, which no claim is about
    assert by[f"T = 40: {collapse}"].holds is None
    relu = next(claim for name, claim in by.items() if name.startswith("relu"))
    sgd = next(claim for name, claim in by.items() if name.startswith("SGD"))
    assert relu.holds is None  # both thresholds are off the grid
    assert sgd.holds is None  # not run
    scaled = next(claim for name, claim in by.items() if "scaled" in name)
    assert scaled.holds is None  # the penalised networks hold no bits either
    untested = [claim for claim in found if claim.holds is None]
    assert all(claim.measured is None for claim in untested)
    text = claims_table(found).splitlines()
    assert sum(line.endswith("not measured") for line in text) == len(untested)


def test_a_law_that_its_thresholds_do_not_determine_is_untested():
    one_length = fit_law([10.0, 10.0], [0.8, 0.9], [0.1, 0.3])
    assert np.isfinite(one_length.constant)
    assert np.isnan(one_length.free).all()
    nothing = fit_law(*np.zeros((3, 0)))
    none = {"cold": [], "warm": []}
    for found_law in (one_length, nothing):
        found = claims.of_law(SimpleNamespace(), found_law, none)
        assert found[0].holds is None
    assert found[1].holds is None


def gain_diagram(gains):
    both = {T: threshold_at(1.0) for T in (5, 10)}
    return SimpleNamespace(
        lam_cold={(T, gain): threshold_at(0.1 * gain) for T in (5, 10) for gain in gains},
        lam_c=both,
        lam_s=both,
        warm=both,
    )


def test_a_gain_has_one_colour_in_every_figure(no_figures_left):
    import matplotlib.pyplot as plt

    def colours(ax):
        handles, labels = ax.get_legend_handles_labels()
        found = {label: handle.get_color() for handle, label in zip(handles, labels, strict=True)}
        return {label: colour for label, colour in found.items() if "cold" in label}

    own = fit_law([5.0, 10.0, 20.0], [0.7, 0.8, 0.9], [0.1, 0.1, 0.1])
    drawn = []
    for gains in ((0.7, 0.8, 0.85, 0.9, 1.0), (0.8, 0.9), (0.9, 0.95, 1.1)):
        linear = figures.linear_diagram(gain_diagram(gains), None)
        drawn.append(colours(linear.axes[0]))
        ax = plt.figure().add_subplot()
        figures.phase_diagram(ax, gain_diagram(gains), own, {"cold": [], "warm": []})
        drawn.append(colours(ax))
        assert len(drawn[-1]) == len(gains)
    everywhere = {}
    for one in drawn:
        for label, colour in one.items():
            assert everywhere.setdefault(label, colour) == colour
    assert len(set(everywhere.values())) == len(everywhere) == 7


def test_slopes_outside_the_axes_are_drawn_at_the_edge_and_counted(no_figures_left):
    rng = np.random.default_rng(0)
    measured = rng.normal(0, 0.05, 200)
    table = pd.DataFrame({"T": np.repeat([5, 10], 100), "slope": measured})
    table = table.assign(**dict.fromkeys(PREDICTORS, measured + 0.01))
    table.loc[:2, PREDICTORS[0]] = 5.0
    empty = table.iloc[:0]
    figure = figures.slope_figure({"tanh": table, "linear": empty})
    first, second = figure.axes[:2]
    low, high = first.get_xlim()
    x = np.concatenate([line.get_xdata() for line in first.lines])
    assert x.min() >= low
    assert x.max() <= high
    assert "of 200 beyond" in first.get_title()
    bottom, top = first.get_ylim()
    outside = int(first.get_title().split("\n")[1].split()[0])
    assert outside == 3 + int(((measured[3:] < bottom) | (measured[3:] > top)).sum())
    at_edge = [line for line in first.lines if line.get_marker() == "D"]
    assert sum(len(line.get_xdata()) for line in at_edge) == outside
    assert ("beyond" in second.get_title()) == bool(((measured < bottom) | (measured > top)).any())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that collapses is a warning
        figure.canvas.draw()


def test_the_figure_of_the_controls_shows_bounds_as_arrows(no_figures_left):
    figure = figures.control_figure(some_controls())
    figure.canvas.draw()
    left, right = figure.axes
    markers = [line.get_marker() for line in left.lines]
    assert markers.count("<") == 2  # relu at T = 10, and the open interval of depth 2
    assert markers.count(">") == 2
    for ax in (left, right):
        low, high = ax.get_xlim()
        assert low > 0
        points = np.concatenate([np.asarray(line.get_xdata(), float) for line in ax.lines])
        assert points.min() >= low
        assert points.max() <= high
    boxes = [label.get_window_extent() for label in left.get_yticklabels()]
    assert all(a.y0 >= b.y1 or b.y0 >= a.y1 for a, b in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


def test_a_path_is_compared_with_the_theory_of_its_own_solution():
    turn = np.array([[0.0, 1.1], [-1.1, 0.0]])  # a pair: ‖W‖² = 2ρ²
    line = np.array([[1.1, 0.0], [0.0, 0.0]])
    lams = np.geomspace(0.1, 10, 400)
    spectrum = rr.diagnostics.matrix_spectrum(np.stack([turn, line]))
    cost = np.square(spectrum.frobenius / spectrum.rho)
    ends = np.array(
        [
            [f(10, pair=pair) for pair in (True, False)]
            for f in (theory.network_switch, theory.network_spinodal)
        ]
    )
    alive = lams[:, None] < ends[1]
    worth = lams[:, None] < ends[0]
    loss = xr.DataArray(np.where(worth, 0.5, 2.0), dims=("l2", "seed"))
    found = xr.Dataset({"objective": loss}, {"l2": lams})
    found = found.assign(alive=(("l2", "seed"), alive), cost=("seed", cost))
    warm = {10: found.broadcast_like(xr.Dataset(coords={"way": ["up", "down"]}))}
    ratios = branch_ratios(warm)
    np.testing.assert_allclose(np.concatenate([*ratios.values()]), 0, atol=0.01)
    assert [len(values) for values in ratios.values()] == [2, 2]


@pytest.mark.numerics
@pytest.mark.float64_only
@pytest.mark.parametrize(("T", "m"), [(5, 1), (20, 2)])
def test_the_closed_form_of_a_pair_is_a_saddle(T, m):
    """At θ = mπ/T it is stationary, with one direction down and one along which nothing changes."""

    def objective(v, lam):
        W, into, out = v[:4].reshape(2, 2), v[4:6], v[6:]
        p = into @ jnp.linalg.matrix_power(W, T) @ out
        return (1 - p) ** 2 + lam * jnp.sum(v * v)

    p = 1.2 * T / (2 * T + 2)
    rho = (T * p / 2) ** (1 / (T + 2))
    lam, size, angle = (1 - p) * rho**T, np.sqrt(2 / T) * rho, m * np.pi / T
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    into = np.array([size, 0.0])
    v = jnp.asarray(np.concatenate([(rho * turn).ravel(), into, (-1) ** m * into]))
    np.testing.assert_allclose(jax.grad(objective)(v, lam), 0, atol=1e-12)
    values = np.linalg.eigvalsh(jax.hessian(objective)(v, lam))
    assert values[0] < -0.1
    np.testing.assert_allclose(values[1], 0, atol=1e-10)
    assert values[2] > 0.1
    np.testing.assert_allclose(lam, theory._stationary(T, p, True))
