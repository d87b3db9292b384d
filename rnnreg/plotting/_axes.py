"""What figures do to axes: logarithmic and whole-numbered ticks, the legend above, labels of numbers and curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._signatures import typed
from rnnreg.plotting._style import GROWS, check_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_CAP = "rnnreg-cap"  # the gid of what lifts titles over a legend
ROWS = {"val": "validation", "train": "training"}


@typed
def log_y(ax: Axes) -> None:
    r"""Makes y logarithmic, with few and plain numbers: 0.02, 0.05, 0.1, and powers of ten far from 1.

    Values that are not positive leave a gap.

    Args:
      ax: the axes; their y axis is changed.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> ax.set_ylim(0.03, 3)
    (0.03, 3.0)
    >>> log_y(ax)
    >>> [ax.yaxis.get_major_formatter()(tick, 0) for tick in (0.1, 1.0, 1e5)]
    ['0.1', '1', '$\\mathdefault{10^{5}}$']
    >>> plt.close(figure)
    """
    check_axes(ax).set_yscale("log", nonpositive="mask")
    plain_numbers(ax.yaxis)


def plain_numbers(axis: Axis) -> None:
    """The labels of `log_y`, of an axis that is logarithmic already."""
    from rnnreg.plotting._ticks import PlainLogFormatter

    axis.set_major_formatter(PlainLogFormatter())
    axis.set_minor_formatter(PlainLogFormatter(minor=True))


@typed
def whole_steps(ax: Axes) -> None:
    """Puts the ticks of x at whole numbers only: steps, lags, ranks, epochs.

    Args:
      ax: the axes; their x axis is changed.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> whole_steps(ax)
    >>> ax.set_xlim(0, 3)
    (0.0, 3.0)
    >>> [float(tick) for tick in ax.get_xticks() if 0 <= tick <= 3]
    [0.0, 1.0, 2.0, 3.0]
    >>> plt.close(figure)
    """
    from matplotlib.ticker import MaxNLocator

    check_axes(ax).xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def dated(ax: Axes) -> bool:
    """Whether x is dates; if so, with as many of them as fit, each in few letters."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if not isinstance(ax.xaxis.get_major_locator(), AutoDateLocator):
        return False
    locator = AutoDateLocator(minticks=2, maxticks=max(3, int(size_inches(ax)[0] / 0.5)))
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return True


def ink(ax: Axes) -> str:
    """Black, or white on axes with a dark face."""
    from matplotlib.colors import to_rgba

    red, green, blue, alpha = to_rgba(ax.get_facecolor())
    return "white" if alpha > 0 and red + green + blue < 1.5 else "black"


def steps_back(ax: Axes, *, symbol: str = "ℓ") -> None:
    """Says that x counts steps back."""
    ax.set_xlabel(f"steps back {symbol}")
    whole_steps(ax)


def log_or_decades(ax: Axes, logs: np.ndarray) -> Callable[[Any], Any]:
    """Makes y logarithmic, whatever the range, and returns how natural logarithms are drawn on it.

    Over a few decades it is an ordinary logarithmic axis; over more, beyond the range of floats too, powers of ten
    on a linear one.
    """
    from matplotlib.ticker import MaxNLocator

    finite = logs[np.isfinite(logs)]
    if not finite.size or np.ptp(finite) < 12 * np.log(10):
        log_y(ax)
        return np.exp
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter("$10^{{{x:.0f}}}$")
    return lambda logs: logs / np.log(10)


def limit_y(ax: Axes, low: float, high: float) -> None:
    """Sets the limits of y; if drawn axes share them, theirs are kept within, so that nothing leaves their picture."""
    shared = ax.get_shared_y_axes().get_siblings(ax)
    if any(other is not ax and other.has_data() for other in shared):
        low, high = min(low, *ax.get_ylim()), max(high, *ax.get_ylim())
    ax.set_ylim(low, high)


def bar_beside(ax: Axes, colors: Any, **look: Any) -> Any:
    """A colour bar at the right of the axes, which moves with them and takes no room from any other axes."""
    return ax.figure.colorbar(colors, cax=ax.inset_axes((1.03, 0, 0.04, 1)), **look)


@typed
def legend_above(ax: Axes, *, first: Any = ()) -> None:
    """The legend above the axes, where it hides no data, in as many columns as fit the width; titles stand over it.

    Labels that are wider than the axes are broken over lines, those of the axes too. In a figure without a layout
    engine the axes shrink as far as their labels, legend and title need room; no other axes move. Without a labelled
    artist there is no legend. Call it last, when the axes have their labels.

    Args:
      ax: the axes.
      first: the artists to list before all others; matplotlib itself lists error bars last.

    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> lines = ax.plot([1, 2], label="training") + ax.plot([2, 1], label="validation")
    >>> legend_above(ax, first=lines[1:])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['validation', 'training']
    >>> plt.close(figure)
    """
    _say_once(check_axes(ax))
    width, height = _break_labels(ax)
    if _shrink(ax, 0):
        width, height = _break_labels(ax)
    named = ax.get_legend_handles_labels()[0]
    handles = [*first, *(handle for handle in named if all(handle is not one for one in first))]
    if handles:
        taken = _fitted_legend(ax, handles, width, height)
        if not any(child.get_gid() == _CAP for child in ax.child_axes):
            _cap(ax)
        if (
            taken > 0.3 * height * ax.figure.dpi or width < 2
        ):  # low or narrow axes change with their legend
            _break_labels(ax)
            now, _ = size_inches(ax)
            if now < 0.97 * width:
                _fitted_legend(ax, handles, now, height)
    _shrink(ax, 1)


def _cap(ax: Axes) -> None:
    """An empty axes in the place of the legend: matplotlib lifts titles over such children, but not over legends.

    The titles of all axes in the same row of a grid stand over it too, so that they are level.
    """
    cap = ax.inset_axes((0, 1, 1, 0.1), gid=_CAP)
    cap.set_axis_off()
    cap.get_window_extent = _BoxOfLegend(ax)  # pyright: ignore
    figure, place = ax.get_figure(root=False), ax.get_subplotspec()
    if figure is None or place is None:
        return
    cap.set_subplotspec(place)
    places = [(other, other.get_subplotspec()) for other in figure.axes]
    grid = place.get_gridspec()
    row = [other for other, spec in places if spec is not None and spec.get_gridspec() is grid]
    figure.align_titles([*row, cap])


class _BoxOfLegend:
    """Where the legend of axes is now, or the axes if the legend is gone; a class, so that figures can be pickled."""

    def __init__(self, ax: Axes):
        self.ax = ax

    def __call__(self, renderer: Any = None, **_: Any) -> Any:
        return (self.ax.get_legend() or self.ax).get_window_extent(renderer)


def _fitted_legend(ax: Axes, handles: list[Any], width: float, height: float) -> float:
    """In as many columns as fit the width; of given axes it takes half of the height at most.

    If it needs more, its letters get smaller, and then entries in the middle are left out and counted. A figure that
    is made for the curves grows instead. Returns the height in pixels.
    """
    from matplotlib.lines import Line2D

    figure, cell = ax.get_figure(root=True), ax.get_subplotspec()
    assert figure is not None
    if cell is not None:
        height = max(height, cell.get_position(figure).height * figure.bbox_inches.height)
    limit = 0.5 * height * figure.dpi if figure.get_gid() != GROWS else np.inf
    taken = 0.0
    for size in (8, 7, 6):
        taken = _legend(ax, handles, width, size)
        if taken <= limit:
            return taken
    fit = int(limit / taken * len(handles))
    for kept in range(min(fit, len(handles) - 2), 1, -1):
        left_out = Line2D([], [], linestyle="none", label=f"… {len(handles) - kept} more …")
        shown = [*handles[: (kept + 1) // 2], left_out, *handles[len(handles) - kept // 2 :]]
        taken = _legend(ax, shown, width, 6)
        if taken <= limit:
            break
    return taken


def _legend(ax: Axes, handles: list[Any], width: float, size: int) -> float:
    """Draws the legend in letters of such a size, and returns its height in pixels."""
    where: Any = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.3}
    where |= {"columnspacing": 1.2, "labelspacing": 0.35, "frameon": False, "fontsize": size}
    texts = [str(handle.get_label()) for handle in handles]
    labels = [_broken(text, width - 0.35, size) for text in texts]
    room = 0.97 * width * ax.figure.dpi  # letters are wider at a low resolution
    box = ax.legend(handles, labels, **where).get_window_extent()
    if box.width > room:  # wide letters
        labels = [_broken(text, 0.9 * (width * room / box.width - 0.35), size) for text in texts]
        box = ax.legend(handles, labels, **where).get_window_extent()
    more = int(room / box.width) + (2 if len(labels) < 5 else 1)  # entries differ in width
    for columns in range(min(len(labels), more), 0, -1):
        box = ax.legend(handles, labels, ncols=columns, **where).get_window_extent()
        if box.width <= room:
            break
    return box.height


def _break_labels(ax: Axes) -> tuple[float, float]:
    """Breaks the labels of both axes over lines if they are longer than these; width and height in inches."""
    size = size_inches(ax)
    for axis, room in zip((ax.xaxis, ax.yaxis), size, strict=True):
        axis.label.set_text(_broken(axis.label.get_text(), room, float(axis.label.get_fontsize())))
    return size


def _broken(text: str, inches: float, points: float) -> str:
    """The text over as many lines as it needs in such a width."""
    room = max(8, int(inches / text_inches("x", points)))
    if max(map(printed_length, text.split("\n"))) <= room:
        return text
    lines = [""]
    for word in text.replace("\n", " ").split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if printed_length(longer) <= room or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _say_once(ax: Axes) -> None:
    """Hides a y label that axes at the left, with the same y axis, carry already."""
    for other in ax.get_shared_y_axes().get_siblings(ax):
        same = (
            other.get_ylabel().split() == ax.get_ylabel().split()
            and other.yaxis.label.get_visible()
        )
        if other is not ax and same and other.get_position().x0 < ax.get_position().x0:
            ax.yaxis.label.set_visible(False)


def _shrink(ax: Axes, k: int) -> bool:
    """Makes axes smaller, along x (0) or y (1), until what they carry ends before the figure does and other axes begin.

    Only in a figure without a layout engine, which would do it for all axes. At most half of the size goes. Room for
    a title is kept. Returns whether anything changed.
    """
    from matplotlib.transforms import Bbox

    figure = ax.get_figure(root=True)
    if figure is None or figure.get_layout_engine() is not None:
        return False
    boxes: Any = ax.get_window_extent(), ax.get_tightbbox()
    frame, own = (box.get_points() for box in boxes)
    (low, high), gap = figure.bbox.get_points()[:, k], figure.dpi / 18
    for other in figure.axes:
        theirs, taken = other.get_window_extent().get_points(), other.get_tightbbox()
        level = (theirs[0] < frame[1])[1 - k] and (theirs[1] > frame[0])[1 - k]
        if other is ax or taken is None or not level:
            continue
        if theirs[1, k] <= frame[0, k]:
            low = max(low, taken.get_points()[1, k] + gap)
        elif theirs[0, k] >= frame[1, k]:
            high = min(high, taken.get_points()[0, k] - gap)
    if k == 1 and not any(ax.get_title(where) for where in ("left", "center", "right")):
        own[1, 1] += (1.2 * float(ax.title.get_fontsize()) + 6) / 72 * figure.dpi
    before, after = max(low - own[0, k], 0), max(own[1, k] - high, 0)
    if before + after:
        cut = min(1, 0.5 * (frame[1, k] - frame[0, k]) / (before + after))
        frame[:, k] += cut * before, -cut * after
        parent: Any = ax.get_figure(root=False)
        ax.set_position(Bbox(frame).transformed(parent.transSubfigure.inverted()))
        ax.set_in_layout(True)  # for a layout that is asked for later
    return bool(before + after)


def size_inches(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes, after the layout that the figure has so far."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("ax belongs to no figure; make it with plt.subplots().")
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    size, place = figure.bbox_inches, ax.get_position()
    return size.width * place.width, size.height * place.height


def text_inches(text: str, points: float) -> float:
    """About how wide a text is."""
    return printed_length(text) * 0.56 * points / 72


def printed_length(text: str) -> int:
    """Characters that are seen: of a formula, without the commands and braces."""
    if "$" not in text:
        return len(text)
    for command in ("\\mathrm", "\\lambda", "\\times", "\\rho", "\\sigma"):
        text = text.replace(command, "x" if command != "\\mathrm" else "")
    return sum(character not in "${}_^" for character in text)


def in_words(name: str) -> str:
    """A recorded name as a label.

    >>> in_words("val_accuracy"), in_words("train_loss"), in_words("gradient_norm")
    ('validation accuracy', 'training loss', 'gradient norm')
    """
    rows, _, rest = name.partition("_")
    return (f"{ROWS[rows]} {rest}" if rest and rows in ROWS else name).replace("_", " ")


def numbers(values: Iterable[float]) -> list[str]:
    r"""Numbers of one figure, in one format: powers of ten for all but 0 where one of them needs it.

    >>> numbers([0.0, 0.03, 0.2]), numbers([0, 0.001, 0.03])
    (['0', '0.03', '0.2'], ['0', '$10^{-3}$', '$3.0\\times10^{-2}$'])
    """
    values = [float(value) for value in values]
    power = not all(_is_plain(value) for value in values)
    return [number(value, power=power) for value in values]


def _is_plain(value: float) -> bool:
    return value == 0 or 1e-2 <= abs(value) < 1e4


def number(value: float, *, power: bool = False) -> str:
    r"""A number for a label: 0, 0.03, 1.2 × 10⁻⁴; a power of ten too if it is asked for.

    >>> number(0.0), number(0.03), number(1.234e-4)
    ('0', '0.03', '$1.2\\times10^{-4}$')
    """
    if value == 0 or (not power and _is_plain(value)):
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    scale = f"10^{{{int(exponent)}}}"
    return f"${scale}$" if mantissa == "1.0" else f"${mantissa}\\times{scale}$"
