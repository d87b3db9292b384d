"""How figures look, how they reach the disk, and the axes that they are drawn on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnnreg._signatures import typed

GROWS = "rnnreg-grows"  # the gid of a figure that this room has made, which may become taller

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

_SETTINGS: dict[str, Any] = {
    "figure.figsize": (4.8, 3.2),
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    # A README is read on light and on dark: black text on a transparent face would vanish on the latter.
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "white"),
    **dict.fromkeys(("text.color", "axes.labelcolor"), "black"),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), "black"),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), "0.25"),
    "savefig.transparent": False,
    "savefig.dpi": 200,
    "font.family": "sans-serif",
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 9),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8),
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    # Text stays text: it can be searched, and journals reject Type 3 fonts.
    **dict.fromkeys(("pdf.fonttype", "ps.fonttype"), 42),
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


@typed
def save(
    figure: Figure | Axes | np.ndarray, path: str | Path, *, close: bool = False
) -> tuple[Path, Path]:
    """Writes `path.pdf` (vectors) and, next to it, `path.png` (200 dots per inch).

    Args:
      figure: what to write; of axes, or of an array of them, the whole figure.
      path: without a suffix, or with .pdf or .png; "~" is the home folder, and missing folders are made.
      close: release the figure afterwards, as a script that makes many should.

    Returns:
      The two paths.

    Raises:
      TypeError: neither a figure nor axes.
      ValueError: no name of a file.

    >>> import tempfile
    >>> from rnnreg.plotting import loss_curves
    >>> ax = loss_curves({"a": [1.0, 0.5]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save(ax, f"{folder}/figures/loss", close=True)]
    ['loss.pdf', 'loss.png']
    """
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

    given: Any = np.ravel(np.asarray(figure, dtype=object))[0]
    if not isinstance(given, Axes | FigureBase):
        raise TypeError(f"save writes a figure or axes; got {type(given).__name__}.")
    whole: Any = given.get_figure(root=True)
    path = Path(path).expanduser()
    if not path.name:
        raise ValueError(
            f"save needs the name of a file, such as 'figures/loss'; got {str(path)!r}."
        )
    stem = path.with_suffix("") if path.suffix in (".pdf", ".png") else path
    stem.parent.mkdir(parents=True, exist_ok=True)
    pdf, png = (stem.with_name(stem.name + suffix) for suffix in (".pdf", ".png"))
    with style():
        # without a date the same figure is the same file
        whole.savefig(pdf, metadata={"CreationDate": None})
        whole.savefig(png)
    if close:
        import matplotlib.pyplot as plt

        plt.close(whole)
    return pdf, png


def nth_color(place: int) -> str:
    """The colour of a curve by its place; after the last the first comes again."""
    return COLORS[place % len(COLORS)]


def nth_line(place: int) -> str:
    """The line style of a curve by its place, so that curves are told apart without colours too."""
    return ("-", "--", "-.", ":")[place % 4]


def nth_marker(place: int) -> str:
    """The marker of a curve by its place, where its line style says something else."""
    return "osD^v<>P"[place % 8]


def check_axes(ax: Any, name: str = "ax") -> Axes:
    """The axes that were given, or an error that says what they are."""
    from matplotlib.axes import Axes

    if isinstance(ax, Axes):
        return ax
    several = np.size(np.asarray(ax, dtype=object))
    if isinstance(ax, np.ndarray | list | tuple) and several > 0:
        got = f"an array of {several}; take one of them, such as {name}=axes[{(0,) * np.ndim(ax)}]"
        got = got.replace("[(0,)]", "[0]").replace("[(0, 0)]", "[0, 0]")
    else:
        got = f"{type(ax).__name__}; make it with figure, ax = plt.subplots()"
    raise ValueError(f"{name} must be one matplotlib Axes to draw in; got {got}.")


@contextlib.contextmanager
def canvas(ax: Axes | None) -> Iterator[Axes]:
    """The given axes with their own look, or new ones in `style()`; a failure leaves no figure behind."""
    if ax is not None:
        yield check_axes(ax)
        return
    with _new() as made:
        yield made
        _grow(made)


@contextlib.contextmanager
def panels(count: int, axes: Any, *, width: float, share: bool) -> Iterator[Any]:
    """So many axes: those given with their own look, or new ones side by side in `style()`."""
    if axes is not None:
        axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        if len(axes) != count:
            raise ValueError(f"axes must be {count}; got {len(axes)}.")
        yield np.array([check_axes(ax, "axes") for ax in axes], dtype=object)
        return
    size = (width * count + 0.8, 2.7)
    with _new(ncols=count, figsize=size, sharey=share, squeeze=False) as made:
        yield made[0]
        _grow(*made[0])


def _grow(*axes: Axes) -> None:
    """Makes a new figure taller by what its legends take beyond a few lines."""
    figure, legends = axes[0].figure, [ax.get_legend() for ax in axes]
    tallest = max((legend.get_window_extent().height for legend in legends if legend), default=0)
    width, height = figure.get_size_inches()  # pyright: ignore
    figure.set_size_inches(width, height + max(0, tallest / figure.dpi - 0.5))  # pyright: ignore


@contextlib.contextmanager
def _new(**options: Any) -> Iterator[Any]:
    """What `plt.subplots` makes in `style()`, closed if the drawing fails."""
    import matplotlib.pyplot as plt

    with style():
        figure, made = plt.subplots(gid=GROWS, **options)
        try:
            yield made
        except BaseException:
            plt.close(figure)
            raise
