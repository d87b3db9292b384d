"""What every figure keeps, whatever it draws: one check each, for the table in `figure_cases.py`."""

import itertools
import warnings

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

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


def leaves_other_axes_alone(draw):
    """Where they lie, how far they reach, and what they hold."""

    def facts(ax):
        children = [type(child) for child in ax.get_children()]
        return ax.get_position().bounds, ax.get_xlim(), ax.get_ylim(), ax.get_yscale(), children

    figure, (left, middle, right) = plt.subplots(1, 3)
    before = facts(left), facts(right)
    draw(middle)
    assert (facts(left), facts(right)) == before
    assert figure.axes == [left, middle, right]


def fits(draw, size):
    """Nothing is cut off, and no texts overlap, in one panel of such a size."""
    with plotting.style():
        figure, ax = plt.subplots(figsize=size)
    draw(ax)
    nothing_collides(figure)


def nothing_collides(figure):
    """All text lies inside the figure, apart from other text, and no title, legend or label lies on a panel."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that collapses is a warning
        figure.canvas.draw()
    boxes, panels = {}, []
    for number, ax in enumerate(figure.axes):
        panels.append(ax.get_window_extent())
        boxes |= {(number, *name): box for name, box in _boxes(ax).items()}
        for child in ax.child_axes:
            boxes |= {(number, "bar", *name): box for name, box in _boxes(child).items()}
    for name, box in boxes.items():
        assert box.x0 >= -1, (name, "is cut off at the left")
        assert box.y0 >= -1, (name, "is cut off below")
        assert box.x1 <= figure.bbox.width + 1, (name, "is cut off at the right")
        assert box.y1 <= figure.bbox.height + 1, (name, "is cut off above")
        for panel in panels:
            assert not _overlap(box, panel), (name, "lies on a panel")
    for (one, box), (other, its) in itertools.combinations(boxes.items(), 2):
        assert not _overlap(box, its), (one, "overlaps", other)


def _boxes(ax):
    """The boxes of the texts around axes by name: titles, legend, labels, numbers at ticks."""
    found = {}
    if not ax.axison:
        return found
    for where, title in (("left", ax.get_title("left")), ("center", ax.get_title())):
        if title:
            artist = {"left": ax._left_title, "center": ax.title}[where]
            found["title", where] = artist.get_window_extent()
    if ax.get_legend():
        found["legend", ""] = ax.get_legend().get_window_extent()
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            for label in (tick.label1, tick.label2):
                there = low <= tick.get_loc() <= high and label.get_visible() and tick.get_visible()
                if there and label.get_text():
                    key = (axis.axis_name, f"{tick.get_loc():.6g} {label.get_text()}")
                    found[key] = label.get_window_extent()
        for what, text in (("label", axis.label), ("offset", axis.offsetText)):
            if text.get_visible() and text.get_text():
                found[axis.axis_name, what] = text.get_window_extent()
    return found


def _overlap(box, other):
    """Whether two boxes share more than a pixel in both directions."""
    width = min(box.x1, other.x1) - max(box.x0, other.x0)
    height = min(box.y1, other.y1) - max(box.y0, other.y0)
    return width > 1 and height > 1


def is_told_apart_without_colours(draw):
    """Entries of the legend differ in line, marker or filling, unless their colours say a number (λ)."""
    handles, texts = draw(None).get_legend_handles_labels()
    named = [text.startswith(tuple(f"{other}:" for other in texts)) for text in texts]
    looks = [_look(handle) for handle, by_text in zip(handles, named, strict=True) if not by_text]
    looks = [look for look in looks if look[0] in plotting.COLORS]
    assert len({look[1:] for look in looks}) == len(looks), looks


def _look(handle):
    """Colour, and all that is seen without it."""
    handle = handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle
    lines = getattr(handle, "get_linestyle", lambda: None)()
    paths = getattr(handle, "get_paths", list)()
    marker = getattr(handle, "get_marker", lambda: None)()
    marker = np.round(paths[0].vertices, 3).tobytes() if paths else marker
    face = getattr(handle, "get_markerfacecolor", lambda: None)()
    if hasattr(handle, "get_facecolor"):
        face = "none" if len(np.ravel(handle.get_facecolor())) == 0 else "filled"
    color = getattr(
        handle, "get_color", handle.get_edgecolor if hasattr(handle, "get_edgecolor") else str
    )()
    color = color if isinstance(color, str) else to_hex(np.ravel(color)[:3])
    hollow = face == "none"
    return color.upper(), type(handle).__name__, str(lines), marker, hollow
