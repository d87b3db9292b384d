"""What figures do to axes: logarithmic and whole-numbered ticks, the legend above, labels of numbers and curves."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

METRICS = {"val_loss": "validation loss", "train_loss": "training loss"}  # in words, for a label


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
    ax.set_yscale("log", nonpositive="mask")
    plain_numbers(ax.yaxis)


def plain_numbers(axis: Axis) -> None:
    """The labels of `log_y`, of an axis that is logarithmic already."""
    from rnnreg.plotting._ticks import PlainLogFormatter

    axis.set_major_formatter(PlainLogFormatter())
    axis.set_minor_formatter(PlainLogFormatter(minor=True))


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

    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


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
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    finite = logs[np.isfinite(logs)]
    if not finite.size or np.ptp(finite) < 12 * np.log(10):
        ax.set_yscale("log", nonpositive="mask")
        return np.exp
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{value:.0f}}}$"))
    return lambda logs: logs / np.log(10)


def legend_above(ax: Axes, *, first: Any = ()) -> None:
    """The legend above the axes, where it hides no data, in as many columns as fit the width.

    Labels that are wider than the axes are broken over lines. Without a labelled artist there is no legend. Call it
    once the axes have their labels, since these take part of the width.

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
    named = ax.get_legend_handles_labels()[0]
    handles = [*first, *(handle for handle in named if all(handle is not one for one in first))]
    if not handles:
        return
    labels = [str(handle.get_label()) for handle in handles]
    width, _ = size_inches(ax)
    room = max(8, int((width - 0.35) / text_inches("x", 8)))
    for place, text in enumerate(labels):
        if printed_length(text) > room:
            labels[place] = textwrap.fill(text, room, break_long_words=False)
    where = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.3}
    look = {"columnspacing": 1.2, "labelspacing": 0.35, "fontsize": 8, "frameon": False}
    for columns in range(len(labels), 0, -1):
        legend = ax.legend(handles, labels, ncols=columns, **where, **look)
        if legend.get_window_extent().width <= width * ax.figure.dpi:
            return


def title_above(ax: Axes, text: str) -> None:
    """A title over the legend of `legend_above`, which `ax.set_title` would write across.

    Args:
      ax: axes that `legend_above` gave a legend, as all figures of this room with named curves have.
      text: the title.

    Raises:
      ValueError: axes without a legend.

    >>> import matplotlib
    >>> from rnnreg.plotting import loss_curves
    >>> ax = loss_curves({"training": [1.0, 0.5]})
    >>> title_above(ax, "(a) adding problem")
    >>> ax.get_legend().get_title().get_text()
    '(a) adding problem'
    >>> matplotlib.pyplot.close(ax.figure)
    """
    from matplotlib.font_manager import FontProperties

    legend = ax.get_legend()
    if legend is None:
        raise ValueError("ax has no legend: give it its title by ax.set_title.")
    legend.set_title(text, prop=FontProperties(size=9))
    legend.set_alignment("left")


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


def number(value: float) -> str:
    r"""A number for a label: 0, 0.03, 1.2 × 10⁻⁴.

    >>> number(0.0), number(0.03), number(1.234e-4)
    ('0', '0.03', '$1.2\\times10^{-4}$')
    """
    if value == 0 or 1e-2 <= abs(value) < 1e4:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1.0" else f"${mantissa}\\times{power}$"
