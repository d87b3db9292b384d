"""Figures of states, of memory and of the loss: drawn where they were asked for, with nothing cut off."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from diagnostic_records import hessian_of
from figure_cases import (
    make_curve,
    make_fisher,
    make_line,
    make_plane,
    make_points,
    make_saturation,
    make_window,
)

from rnnreg import plotting

pytestmark = pytest.mark.usefixtures("no_figures_left")


def test_what_did_not_converge_is_named_and_not_drawn():
    ax = plotting.fisher_memory({"bad": make_fisher(converged=False)})
    assert ax.lines[0].get_label() == "bad, not converged"
    assert len(ax.lines[0].get_xdata()) == 0


def test_a_window_that_no_length_serves_is_said():
    ax = plotting.sufficient_window(make_window(-1), tolerance=1e-9)
    assert ax.lines[1].get_label() == "tolerance: no window tried serves all"


def test_the_band_of_windows_ends_before_the_whole_history():
    found = make_window()
    found.deviation[-1] = 0  # all steps kept: nothing is left of the deviation
    (band,) = plotting.sufficient_window(found).collections
    heights = np.concatenate([path.vertices[:, 1] for path in band.get_paths()])
    assert (heights > 0).all()


def test_sequences_without_an_output_are_counted_and_not_drawn():
    found = make_window()
    found.deviation[:, 1] = np.nan
    ax = plotting.sufficient_window(found, tolerance=0.1)
    assert ax.lines[0].get_label() == "median (1 of 4 not finite)"
    assert np.isfinite(ax.lines[0].get_ydata()).all()
    none = found._replace(deviation=np.full((6, 4), np.nan))
    ax = plotting.sufficient_window(none, tolerance=0.1)
    ax.figure.canvas.draw()
    assert ax.get_ylim()[0] < 0.1 < ax.get_ylim()[1]


def test_recall_below_zero_is_seen_and_dropped_directions_are_counted():
    curve = make_curve()._replace(recall=np.linspace(1, -0.4, 20), num_dropped=2)
    ax = plotting.memory_curve(curve)
    assert ax.get_ylim()[0] < -0.4
    assert ax.lines[0].get_label().endswith("(2 directions dropped)")


def test_the_ticks_of_curvatures_do_not_overlap_around_zero():
    ax = plotting.hessian_spectrum(hessian_of([9.0, 2.0], [0.1, 1.0], [-1.0, 0.0, 2.0, 9.0]))
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_yticklabels() if label.get_text()]
    boxes.sort(key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def test_the_colour_bar_of_a_plane_has_more_than_one_number():
    ax = plotting.loss_surface(make_plane(), show="gradient_norm")
    ax.figure.canvas.draw()
    bar = ax.child_axes[0].yaxis
    labels = [label.get_text() for minor in (False, True) for label in bar.get_ticklabels(minor)]
    assert {"0.5", "1", "2"} <= set(labels)


def test_a_flat_surface_can_be_drawn():
    ax = plotting.loss_surface(make_plane(flat=True))
    assert ax.get_xlim() == (-1, 1)


def test_slow_points_are_open_and_kinds_are_counted():
    ax = plotting.fixed_points(make_points(slow=(0, 4)))
    faces = {c.get_label(): len(c.get_facecolors()) for c in ax.collections}
    assert faces == {"stable (1)": 1, "stable, slow (2)": 0, "saddle (4)": 1, "unstable (2)": 1}


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plotting.loss_surface(make_plane(), show="norm"), "show must be"),
        (lambda: plotting.loss_surface(make_line(), paths={"a": [(0, 0)]}), "drawn on a plane"),
        (
            lambda: plotting.loss_surface(make_plane()._replace(loss=-np.ones((7, 7)))),
            "nothing to draw: the colours are logarithmic, and no loss is positive",
        ),
        (
            lambda: plotting.loss_surface(make_plane()._replace(loss=np.ones((1, 7)))),
            "at least two alphas and two betas",
        ),
        (
            lambda: plotting.hessian_spectrum(hessian_of([np.nan], [np.nan], [np.nan] * 3)),
            "nothing to draw: the eigenvalues are not finite",
        ),
        (lambda: plotting.fixed_points(make_points(0)), "nothing to draw"),
        (
            lambda: plotting.fixed_points(make_points(1)._asdict()),
            "must be a DistinctPoints .*; got a dict",
        ),
        (lambda: plotting.bifurcation([0.0], []), "one entry per DistinctPoints; got 1 for 0"),
        (lambda: plotting.gate_openings(make_saturation(gates=False)), "no gates to draw"),
    ],
)
def test_what_cannot_be_drawn_is_said_and_leaves_no_figure(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
    assert plt.get_fignums() == []
