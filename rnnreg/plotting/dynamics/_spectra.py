"""Eigenvalues in the plane, and what spectra do along λ or training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rnnreg._checks import check_count
from rnnreg._signatures import Numbers, typed
from rnnreg.diagnostics import Spectrum
from rnnreg.plotting._axes import legend_above, log_y
from rnnreg.plotting._inputs import by_label, one
from rnnreg.plotting._style import canvas, nth_color, nth_line, nth_marker
from rnnreg.plotting._sweeps import over_seeds, weight_norms, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@typed
def eigenvalue_cloud(spectra: Spectrum | Mapping[str, Spectrum], *, ax: Axes | None = None) -> Axes:
    """Eigenvalues in the complex plane, with the unit circle: inside it a linear recurrence decays.

    Args:
      spectra: one, or several by label, from `rr.diagnostics.spectra`, `matrix_spectrum` or `step_spectra`; the
        eigenvalues of all matrices in a record are drawn together. The label gives the largest ρ.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, or none.

    >>> import matplotlib, rnnreg as rr
    >>> ax = eigenvalue_cloud(rr.diagnostics.matrix_spectrum(np.array([[0.0, 1.0], [-1.0, 0.0]])))
    >>> ax.get_legend().get_texts()[0].get_text(), ax.get_aspect()
    ('ρ = 1', 1.0)
    >>> matplotlib.pyplot.close(ax.figure)
    """
    several = by_label(spectra, Spectrum)
    with canvas(ax) as ax:
        angle = np.linspace(0, 2 * np.pi, 200)
        ax.plot(np.cos(angle), np.sin(angle), color="0.5", linewidth=0.9, zorder=1)
        for place, (label, spectrum) in enumerate(several.items()):
            values = np.ravel(spectrum.eigenvalues)
            values = values[np.isfinite(values)]
            name = f"ρ = {np.nanmax(spectrum.rho):.4g}" if np.size(spectrum.rho) else "ρ = –"
            name = f"{label}, {name}" if label else name
            few = len(values) < 1000
            look = {
                "s": 12 if few else 3,
                "marker": nth_marker(place),
                "rasterized": len(values) > 5000,
            }
            look |= {"color": nth_color(place), "alpha": 0.75}
            ax.scatter(values.real, values.imag, linewidths=0, zorder=2, label=name, **look)
        ax.axhline(0, color="0.5", alpha=0.4, linewidth=0.6, zorder=0)
        ax.axvline(0, color="0.5", alpha=0.4, linewidth=0.6, zorder=0)
        ax.set_aspect("equal")
        ax.margins(0.06)
        ax.set_xlabel("real part")
        ax.set_ylabel("imaginary part")
        legend_above(ax)
    return ax


@typed
def spectral_paths(
    at: Numbers,
    spectrum: Spectrum,
    *,
    gate: int = 0,
    over: str = "λ",
    quantities: Sequence[str] = ("sigma_max", "rho"),
    ax: Axes | None = None,
) -> Axes:
    r"""σ_max and ρ of one recurrent block against λ, or against training time: means ± 1 SE over seeds.

    Args:
      at: `[n]`, values of λ, or epochs.
      spectrum: of stacked parameters, leading axes `[n]` or `[n, S]`: of a sweep,
        `spectra(result.groups[0].params)["layer_0/W_hh"]`, or of the parameters at several epochs.
      gate: which square block.
      over: "λ" for its logarithmic axis with a place for 0; anything else labels a plain axis, such as "epoch".
      quantities: fields of the spectrum: "rho", "sigma_max", "frobenius", "henrici", "condition".
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: another record, a quantity that the spectrum does not have, or a first axis that is not that of `at`.

    >>> import matplotlib, rnnreg as rr
    >>> W = np.array([1.5, 1.0, 0.2])[:, None, None] * np.eye(4)
    >>> ax = spectral_paths([0, 1e-3, 1e-1], rr.diagnostics.spectra({"W_hh": W})["W_hh"])
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_legend().get_texts()]
    ('λ', ['$\\sigma_\\mathrm{max}(W_{hh})$', '$\\rho(W_{hh})$'])
    >>> matplotlib.pyplot.close(ax.figure)
    """
    names = {
        "rho": r"$\rho(W_{hh})$",
        "sigma_max": r"$\sigma_\mathrm{max}(W_{hh})$",
        "frobenius": "‖W$_{hh}$‖$_F$",
        "henrici": "departure from normality",
        "condition": "condition number",
    }
    unknown = [name for name in quantities if name not in names]
    if unknown:
        raise ValueError(f"quantities {unknown} are not in a spectrum; expected {list(names)}.")
    at, fields = np.asarray(at, np.float64), one(spectrum, Spectrum)._asdict()
    check_count(gate, "gate", least=0, most=np.shape(fields["rho"])[-1] - 1)
    values = {names[name]: np.asarray(fields[name])[..., gate] for name in quantities}
    if over == "λ":
        return weight_norms(at, values, ylabel="of the recurrent weights", ax=ax)
    for name, array in values.items():
        if len(array) != len(at):
            raise ValueError(f"{name} has {len(array)} rows for {len(at)} values of {over}.")
    with canvas(ax) as ax:
        for place, (name, array) in enumerate(values.items()):
            mean, se, name = over_seeds(array, name)
            look = nth_line(place) + nth_marker(place)
            ax.plot(at, mean, look, color=nth_color(place), markersize=2.5, label=name)
            edges = mean - se, mean + se
            ax.fill_between(at, *edges, color=nth_color(place), alpha=0.22, linewidth=0)
        ax.axhline(1, color="0.5", linewidth=0.9, linestyle=":")
        log_y(ax) if "condition" in quantities else ax.set_ylim(bottom=0)
        ax.set_xlabel(over)
        ax.set_ylabel(with_error("of the recurrent weights", *values.values()))
        legend_above(ax)
    return ax
