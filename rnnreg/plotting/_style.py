"""How figures look, and how they reach the disk."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Colors(NamedTuple):
    """Six colours that colour-blind readers can tell apart, by name and in the order of curves.

    Okabe & Ito's palette without black and without its yellow, which is too pale for a line on white.

    Attributes:
      blue: of the first curve.
      vermillion: of the second.
      green: of the third.
      purple: of the fourth.
      orange: of the fifth.
      sky: of the sixth.

    Source: Okabe & Ito 2008, Color Universal Design.

    >>> COLORS.vermillion == COLORS[1], len(COLORS)
    (True, 6)
    """

    blue: str = "#0072B2"
    vermillion: str = "#D55E00"
    green: str = "#009E73"
    purple: str = "#CC79A7"
    orange: str = "#E69F00"
    sky: str = "#56B4E9"


COLORS = Colors()

METRICS = {"val_loss": "validation loss", "train_loss": "training loss"}  # in words, for a label

_SETTINGS: dict[str, Any] = {
    "figure.figsize": (4.8, 3.2),
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    # A README is read on light and on dark: black text on a transparent face would vanish on the latter.
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "savefig.dpi": 200,
    "text.color": "black",
    "axes.edgecolor": "0.25",
    "axes.labelcolor": "black",
    "xtick.color": "0.25",
    "ytick.color": "0.25",
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    # Text stays text: it can be searched, and journals reject Type 3 fonts.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of this library's figures, while the context lasts.

    A white face in every theme, colours that colour-blind readers can tell apart (Okabe & Ito), 8 and 9
    point text at any figure size, fonts embedded as text, and a layout in which nothing overlaps. The
    plotting functions use it for the figures that they make themselves; axes that are given keep their own.

    Yields:
      Nothing: `with style(): …`.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import matplotlib.pyplot as plt
    >>> with style():
    ...     figure, axes = plt.subplots(1, 2, figsize=(7, 2.6))
    >>> figure.get_facecolor()
    (1.0, 1.0, 1.0, 1.0)
    >>> plt.close(figure)

    Source: Okabe & Ito 2008, Color Universal Design (the palette).
    """
    import matplotlib

    settings: Any = {**_SETTINGS, "axes.prop_cycle": matplotlib.cycler(color=COLORS)}
    with matplotlib.rc_context(settings):
        yield


def save(figure: Figure, path: str | Path, *, close: bool = False) -> tuple[Path, Path]:
    """Writes `path.pdf` (vectors) and, beside it, `path.png` (200 dots an inch).

    Args:
      figure: what to write.
      path: without a suffix, or with .pdf or .png; missing folders are made.
      close: release the figure afterwards, as a script that makes many should.

    Returns:
      The two paths.

    >>> import matplotlib, tempfile
    >>> matplotlib.use("Agg")
    >>> from rnnreg.plotting import loss_curves
    >>> ax = loss_curves({"a": [1.0, 0.5]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save(ax.figure, f"{folder}/figures/loss", close=True)]
    ['loss.pdf', 'loss.png']
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".pdf", ".png") else path
    stem.parent.mkdir(parents=True, exist_ok=True)
    pdf, png = (stem.with_name(stem.name + suffix) for suffix in (".pdf", ".png"))
    with style():
        # without a date the same figure is the same file
        figure.savefig(pdf, metadata={"CreationDate": None})
        figure.savefig(png)
    if close:
        import matplotlib.pyplot as plt

        plt.close(figure)
    return pdf, png


def log_y(ax: Axes) -> None:
    r"""Makes y logarithmic, with few and plain numbers: 0.02, 0.05, 0.1, and powers of ten far from 1.

    Values that are not positive leave a gap.

    Args:
      ax: the axes; their y axis is changed.

    >>> import matplotlib.pyplot as plt
    >>> plt.switch_backend("Agg")
    >>> figure, ax = plt.subplots()
    >>> ax.set_ylim(0.03, 3)
    (0.03, 3.0)
    >>> log_y(ax)
    >>> [ax.yaxis.get_major_formatter()(tick, 0) for tick in (0.1, 1.0, 1e5)]
    ['0.1', '1', '$\\mathdefault{10^{5}}$']
    >>> plt.close(figure)
    """
    from rnnreg.plotting._ticks import PlainLogFormatter

    ax.set_yscale("log", nonpositive="mask")
    ax.yaxis.set_major_formatter(PlainLogFormatter())
    ax.yaxis.set_minor_formatter(PlainLogFormatter(minor=True))


def whole_steps(ax: Axes) -> None:
    """Puts the ticks of x at whole numbers only: steps, lags, ranks, epochs.

    Args:
      ax: the axes; their x axis is changed.

    >>> import matplotlib.pyplot as plt
    >>> plt.switch_backend("Agg")
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


@contextlib.contextmanager
def canvas(ax: Axes | None) -> Iterator[Axes]:
    """The given axes with their own look, or new ones in `style()`; a failure leaves no figure behind."""
    if ax is not None:
        yield ax
        return
    import matplotlib.pyplot as plt

    with style():
        figure, made = plt.subplots()
        try:
            yield made
        except BaseException:
            plt.close(figure)
            raise


def legend_above(ax: Axes, *, first: Any = ()) -> None:
    """The legend above the axes, where it hides no data, in as many columns as fit the width.

    Labels that are wider than the axes are broken over lines. Without a labelled artist there is no legend. Call it
    once the axes have their labels, since these take part of the width.

    Args:
      ax: the axes.
      first: the artists to list before all others; matplotlib itself lists error bars last.

    >>> import matplotlib.pyplot as plt
    >>> plt.switch_backend("Agg")
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
    width = width_inches(ax)
    room = max(8, int((width - 0.35) / text_inches("x", 8)))
    labels = [
        textwrap.fill(text, room, break_long_words=False) if printed_length(text) > room else text
        for text in labels
    ]
    for columns in range(len(labels), 0, -1):
        legend = ax.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=columns,
            borderaxespad=0.3,
            columnspacing=1.2,
            labelspacing=0.35,
            fontsize=8,
            frameon=False,
        )
        if legend.get_window_extent().width <= width * legend.get_figure(root=True).dpi:
            return


def title_above(ax: Axes, text: str) -> None:
    """A title over the legend of `legend_above`, which `ax.set_title` would write across.

    Args:
      ax: axes that `legend_above` gave a legend, as all figures of this room with named curves have.
      text: the title.

    Raises:
      ValueError: axes without a legend.

    >>> import matplotlib
    >>> matplotlib.use("Agg")
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


def width_inches(ax: Axes) -> float:
    """Width of the axes, after the layout that the figure has so far."""
    return _size_inches(ax)[0]


def height_inches(ax: Axes) -> float:
    """Height of the axes, after the layout that the figure has so far."""
    return _size_inches(ax)[1]


def _size_inches(ax: Axes) -> tuple[float, float]:
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


def as_curve(values: Any, times: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """`(times, values)` of one curve given as an array `[T]` or `[T, 1]`, or as a pair with its own times.

    Raises:
      ValueError: lengths that differ.
    """
    if isinstance(values, tuple):
        times, values = values
    values = np.asarray(values, dtype=np.float64)
    values = values[..., 0] if values.ndim > 1 and values.shape[-1] == 1 else values
    times = np.arange(1, len(values) + 1) if times is None else np.asarray(times)
    if values.ndim != 1 or times.shape != values.shape:
        raise ValueError(
            f"a curve needs one value a time; got times of shape {times.shape} and values of shape "
            f"{values.shape}. Give (times, values) where a curve has times of its own."
        )
    return times, values
