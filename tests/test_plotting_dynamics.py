"""Figures of dynamics: what is drawn is what was measured, and what is unresolved is not drawn."""

import numpy as np
import pytest
from figure_cases import BOUNDS, NO_BOUNDS, make_lyapunov, make_products

import rnnreg as rr
from rnnreg.diagnostics import ParameterSensitivity, matrix_spectrum
from rnnreg.plotting.dynamics._lyapunov import _settled_limits

pytestmark = pytest.mark.usefixtures("no_figures_left")


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_products_with_their_bound_and_what_is_none():
    ax = rr.plotting.jacobian_products(make_products(-0.5), bounds=BOUNDS)
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(
        lines["largest, mean of trajectories"].get_ydata(), np.exp(-0.5 * np.arange(5))
    )
    bound, rho = (
        next(line for line in ax.lines if line.get_linestyle() == look and len(line.get_xdata()))
        for look in ("--", ":")
    )
    np.testing.assert_allclose(bound.get_ydata(), 2.0 ** np.arange(5))
    np.testing.assert_allclose(rho.get_ydata(), 1.5 ** np.arange(5))
    assert [text.split(" ")[0] for text in labels(ax)[1:]] == ["bound", "$\\rho^ℓ$"]
    unknown = rr.plotting.jacobian_products(make_products(-0.5), bounds=NO_BOUNDS)
    assert labels(unknown) == [
        "largest, mean of trajectories",
        "no bound follows from the weights",
    ]
    both = rr.plotting.jacobian_products(
        {"tanh": make_products(-0.5), "gru": make_products(-0.1)},
        bounds={"tanh": BOUNDS, "gru": NO_BOUNDS},
    )
    assert "no bound follows from the weights: gru" in labels(both)


def test_what_is_unresolved_is_not_drawn():
    ax = rr.plotting.jacobian_products(make_products(-0.5, unresolved=[(0, 4, 1)]))
    second = ax.lines[0].get_ydata()
    assert np.isfinite(second[:4]).all()
    assert np.isnan(second[4])
    ax = rr.plotting.singular_value_histogram(
        make_products(-0.5, unresolved=[(0, 4, 1)]), lags=[1, 4]
    )
    assert labels(ax) == ["ℓ = 1", "ℓ = 4 (1 unresolved)"]
    with pytest.raises(ValueError, match=r"lags \[9\] are not in the record"):
        rr.plotting.singular_value_histogram(make_products(-0.5), lags=[9])


def test_beyond_the_range_of_floats_the_axis_counts_decades():
    ax = rr.plotting.jacobian_products(make_products(-1000.0))
    assert ax.get_yscale() == "linear"
    largest = next(line for line in ax.lines if line.get_label().startswith("largest"))
    np.testing.assert_allclose(largest.get_ydata(), -1000 * np.arange(5) / np.log(10))
    assert ax.yaxis.get_major_formatter()(-400, 0) == "$10^{−400}$"


def test_several_products_share_the_names_of_their_limits():
    ax = rr.plotting.jacobian_products(
        {"a": make_products(-0.5), "b": make_products(-0.1)}, bounds={"a": BOUNDS, "b": BOUNDS}
    )
    assert len(labels(ax)) == 4
    with pytest.raises(ValueError, match=r"bounds has \['c'\]"):
        rr.plotting.jacobian_products({"a": make_products(-0.5)}, bounds={"c": BOUNDS})
    with pytest.raises(ValueError, match="give at least one"):
        rr.plotting.jacobian_products({})


def test_lyapunov_flags_are_seen():
    for flagged, line in ((True, "--"), (False, "-")):
        found = make_lyapunov([0.4, -1.6], unconverged=flagged)
        ax = rr.plotting.lyapunov_trace(found)
        named = [drawn for drawn in ax.lines if str(drawn.get_label()).startswith("λ")]
        assert {drawn.get_linestyle() for drawn in named} == {line}
        assert all(("unconverged" in text) == flagged for text in labels(ax))
    ax = rr.plotting.lyapunov_spectrum(
        {
            "map": make_lyapunov([0.4, -1.6, -np.inf], unconverged=False),
            "b": make_lyapunov([0.4, -1.6], unconverged=True),
        }
    )
    assert labels(ax) == [
        "map, Kaplan–Yorke dimension 1.25, 1 of 3 at −∞",
        "b, Kaplan–Yorke dimension 1.25",
        "b, unconverged",
    ]


def test_exponents_lost_to_rounding_are_told_from_minus_infinity():
    found = make_lyapunov([0.4, -np.inf, -np.inf], unconverged=False)
    found = found._replace(unconverged=np.array([[False, True, False]]))
    ax = rr.plotting.lyapunov_spectrum(found)
    words = labels(ax)[0].split()  # the legend breaks long lines
    assert " ".join(words).endswith("1.25, 1 of 3 at −∞, 1 of 3 lost to rounding")
    assert found.unconverged.tolist() == [[False, True, False]]


def test_a_standard_error_that_is_not_known_has_no_bar():
    found = make_lyapunov([0.4, -1.6], unconverged=True)
    found = found._replace(standard_error=np.array([[np.nan, 0.01]]))
    bars = rr.plotting.lyapunov_spectrum(found).containers[0].lines[2][0].get_segments()
    drawn = [np.isfinite(bar).all() and len(bar) == 2 for bar in bars]
    assert drawn == [False, True]
    containers = rr.plotting.lyapunov_trace(found).containers
    assert len(containers) == 1
    np.testing.assert_allclose(containers[0].lines[2][0].get_segments()[0][:, 1], [-1.61, -1.59])


def test_the_first_wild_steps_do_not_set_the_scale():
    trace = np.full((100, 1), 0.5)
    trace[0] = 100.0
    low, high = _settled_limits(trace)
    assert low < 0
    assert 0.5 < high < 1
    assert _settled_limits(np.full((5, 1), -np.inf)) == (-1.16, 1.16)


def test_sensitivity_draws_both_norms():
    logs = np.log([[1.0, 2.0, 4.0], [1.0, 8.0, 4.0]])
    ax = rr.plotting.parameter_sensitivity(ParameterSensitivity(np.arange(3), logs, -logs))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1, 4, 4])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [1, 1 / 4, 1 / 4])


def test_paths_over_epochs_and_over_lambda():
    W = np.array([2.0, 1.0])[:, None, None, None] * np.ones((1, 3, 1, 1)) * np.eye(2)
    found = matrix_spectrum(W[..., None, :, :])
    ax = rr.plotting.spectral_paths([1, 10], found, over="epoch")
    assert ax.get_xlabel() == "epoch"
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2, 1])
    ax = rr.plotting.spectral_paths([0, 0.1], found, quantities=["henrici"])
    assert labels(ax) == ["departure from normality"]
    with pytest.raises(ValueError, match=r"quantities \['tau'\] are not in a spectrum"):
        rr.plotting.spectral_paths([0, 0.1], found, quantities=["tau"])
    with pytest.raises(ValueError, match="2 rows for 3 values of epoch"):
        rr.plotting.spectral_paths([0, 1, 2], found, over="epoch")


def test_a_cloud_has_the_unit_circle():
    rotation = matrix_spectrum(np.array([[0.0, -0.5], [0.5, 0.0]]))
    ax = rr.plotting.eigenvalue_cloud({"W": rotation, "again": rotation})
    assert labels(ax) == ["W, ρ = 0.5", "again, ρ = 0.5"]
    np.testing.assert_allclose(np.hypot(*ax.lines[0].get_data()), 1)
    drawn = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(drawn[np.argsort(drawn[:, 1])], [[0, -0.5], [0, 0.5]], atol=1e-12)
