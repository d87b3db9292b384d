"""Figures of gradients: what is drawn is what was given, and which gradient it is."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from diagnostic_records import flow_of
from figure_cases import make_parts

from rnnreg import plotting
from rnnreg.diagnostics import GradientSignal, horizon
from rnnreg.sweeps import SweepResult

LAMS = np.array([0.0, 1e-4, 1e-3, 1e-2, 1e-1])
LAGS = np.arange(8)


@pytest.fixture(autouse=True)
def no_figures_left():
    plt.close("all")
    yield
    plt.close("all")


def flow(rate, *, whole=False, error=0.1, runs=None):
    logs = np.log(rate) * LAGS[None]
    logs = logs if runs is None else logs + np.array(runs)[:, None, None] * LAGS
    found = flow_of(logs, whole=whole)
    return found._replace(log_ratio_se={"layer_0": np.full(found.lags.shape, error)})


def tracked(folds=("0", "1", "all")):
    values = np.log(0.5) * LAGS * np.ones((5, 2, len(folds), 6, 1))
    values[..., folds.index("all"), :, :] = 99.0  # left out of the mean
    dims = ["l2", "seed", "fold", "epoch", "lag"]
    coords = {"l2": LAMS, "seed": [0, 1], "fold": list(folds), "epoch": 10 * np.arange(1, 7)}
    metrics = xr.Dataset({"history_flow.layer_0": (dims, values)}, coords)
    return SweepResult(metrics, (), {"seeds": [0, 1], "dims": dims[:3]}, "")


def test_the_axis_says_which_loss_is_shown():
    assert "whole" not in plotting.gradient_flow(flow(0.5)).get_ylabel()
    assert "whole loss" in plotting.gradient_flow(flow(0.5, whole=True)).get_ylabel()
    with pytest.raises(ValueError, match="measure different things"):
        plotting.gradient_flow([flow(0.5), flow(0.5, whole=True)])


def test_ratios_that_are_no_float32_are_drawn():
    logs = {"layer_0": (-20 * LAGS).astype(np.float32)}
    small = flow(0.5)._replace(log_ratio=logs, ratio={"layer_0": np.zeros(8)})
    ax = plotting.gradient_flow(small, floor=1e-61)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.exp(-20.0 * LAGS))
    assert ax.get_ylim()[0] < 1e-60


def test_the_band_is_the_standard_error_of_the_logarithm():
    ax = plotting.gradient_flow(flow(0.5, error=0.2))
    (band,) = ax.collections
    edges = band.get_paths()[0].vertices
    assert edges[:, 1].max() == pytest.approx(np.exp(0.2))
    runs = [-0.1, 0.0, 0.1]  # over runs, where there are several
    ax = plotting.gradient_flow(flow(0.5, runs=runs))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.5**LAGS)
    low = ax.collections[0].get_paths()[0].vertices[:, 1].min()
    assert low == pytest.approx(0.5**7 * np.exp(-7 * 0.1 / np.sqrt(3)))
    assert not plotting.gradient_flow(flow(0.5), band=False).collections


def test_path_lengths_have_two_axes_and_a_mark_for_the_rest():
    left, right = plotting.path_lengths(make_parts())
    np.testing.assert_allclose(left.lines[0].get_ydata(), 0.5**LAGS)
    np.testing.assert_allclose(right.lines[1].get_ydata(), np.full(8, 1 / 8))
    left, right = plotting.path_lengths([make_parts(0.2)] * 5, lams=LAMS)
    assert sum(line.get_marker() == "s" for line in left.lines) == 5
    _, axes = plt.subplots(1, 2)
    assert plotting.path_lengths(make_parts(), axes=axes)[0] is axes[0]
    with pytest.raises(ValueError, match="lams needs one entry per PathLengths; got 5 for 1"):
        plotting.path_lengths([make_parts()], lams=LAMS)
    with pytest.raises(ValueError, match="axes must be 2; got 1"):
        plotting.path_lengths(make_parts(), axes=[axes[0]])


def test_the_signal_is_drawn_as_it_is():
    signal = GradientSignal(LAGS, 0.5**LAGS, -(0.3**LAGS), np.ones((3, 8)))
    ax = plotting.gradient_signal(signal)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), -(0.3**LAGS))
    np.testing.assert_allclose(ax.lines[2].get_ydata(), 0.5**LAGS)


def test_the_heat_map_has_one_panel_a_lambda_and_leaves_the_refit_out():
    axes = plotting.gradient_heat_map(tracked())
    assert [ax.get_title() for ax in axes] == [
        "λ = 0",
        "λ = $10^{-4}$",
        "λ = $10^{-2}$",
        "λ = $10^{-1}$",
    ]
    for ax in axes:
        (mesh,) = ax.collections
        shown = np.asarray(mesh.get_array()).reshape(8, 6)
        np.testing.assert_allclose(shown, np.log10(0.5) * LAGS[:, None] * np.ones(6))
    axes = plotting.gradient_heat_map(tracked(), lams=[0.0, 1e-1])
    assert len(axes) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axes[0].figure.canvas.draw()
    with pytest.raises(ValueError, match="nothing was tracked as 'other' of 'layer_0'"):
        plotting.gradient_heat_map(tracked(), name="other")
    with pytest.raises(ValueError, match="the figure needs the dimension 'lr'"):
        plotting.gradient_heat_map(tracked(), axis="lr")


def test_censored_horizons_are_marked_and_not_averaged():
    rates = np.array([[0.01, 0.01, 1.0], [0.5, 0.5, 0.01], [1.0, 1.0, 1.0]])
    reach = horizon(-rates[..., None, None] * np.arange(8))
    ax = plotting.horizons([0.0, 1e-2, 1e-1], reach)
    median = next(line for line in ax.lines if line.get_label() == "horizon").get_ydata()
    np.testing.assert_allclose(median, [np.nan, np.nan, 2, 1], rtol=1e-5)  # a gap after λ = 0
    open_ = next(line for line in ax.lines if line.get_marker() == "^")
    assert open_.get_ydata().tolist() == [7, 7, 7]
    with pytest.raises(ValueError, match="one horizon per λ in front"):
        plotting.horizons([0.0, 1.0], reach)
