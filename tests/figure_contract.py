"""What every figure keeps, whatever it draws: one check each, for the tables of the files that test figures."""

import itertools
import warnings

import matplotlib.pyplot as plt

from rnnreg import plotting


def draws_on_the_given_axes(draw):
    """And makes no other figure; both axes have labels."""
    figure, ax = plt.subplots()
    assert draw(ax) is ax
    assert plt.get_fignums() == [figure.number]
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def makes_one_white_figure(draw):
    """And leaves matplotlib's settings alone."""
    before = dict(plt.rcParams)
    ax = draw(None)
    assert plt.get_fignums() == [ax.figure.number]
    assert ax.figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert dict(plt.rcParams) == before


def fits(draw, size):
    """Nothing is cut off, and no tick labels overlap."""
    with plotting.style():
        figure, ax = plt.subplots(figsize=size)
    draw(ax)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that collapses is a warning
        figure.canvas.draw()
    whole = figure.bbox
    for part in (
        *(axes.get_tightbbox() for axes in figure.axes),
        *([ax.get_legend().get_window_extent()] if ax.get_legend() else []),
    ):
        assert part.x0 >= -1
        assert part.y0 >= -1
        assert part.x1 <= whole.width + 1
        assert part.y1 <= whole.height + 1
    boxes = sorted(
        (label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()),
        key=lambda box: box.x0,
    )
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
