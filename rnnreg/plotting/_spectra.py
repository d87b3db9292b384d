"""Figures of spectra: eigenvalue clouds, histograms of singular values, paths of ρ and σ_max."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg.diagnostics import JacobianProducts, Spectrum
from rnnreg.plotting._paths import weight_norms
from rnnreg.plotting._style import COLORS, canvas, legend_above, log_y

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def eigenvalue_cloud(spectra: Spectrum | Mapping[str, Spectrum], *, ax: Axes | None = None) -> Axes:
    """Eigenvalues in the complex plane, with the unit circle: inside it a linear recurrence decays.

    Args:
      spectra: one, or several by label, from `rr.diagnostics.spectra`, `matrix_spectrum` or `step_spectra`; the
        eigenvalues of all matrices in a record are drawn together. The label gives the largest ρ.
      ax: where to draw.

    Returns:
      The axes.

    >>> import matplotlib, rnnreg as rr
    >>> matplotlib.use("Agg")
    >>> ax = eigenvalue_cloud(rr.diagnostics.matrix_spectrum(np.array([[0.0, 1.0], [-1.0, 0.0]])))
    >>> ax.get_legend().get_texts()[0].get_text(), ax.get_aspect()
    ('ρ = 1', 1.0)
    >>> matplotlib.pyplot.close(ax.figure)
    """
    several = {"": spectra} if isinstance(spectra, Spectrum) else dict(spectra)
    with canvas(ax) as ax:
        angle = np.linspace(0, 2 * np.pi, 200)
        ax.plot(np.cos(angle), np.sin(angle), color="0.35", linewidth=0.9, zorder=1)
        for place, (label, spectrum) in enumerate(several.items()):
            values = np.ravel(spectrum.eigenvalues)
            values = values[np.isfinite(values)]
            size = 9 if len(values) < 1000 else 3
            name = f"ρ = {np.nanmax(spectrum.rho):.4g}" if np.size(spectrum.rho) else "ρ = –"
            ax.scatter(
                values.real,
                values.imag,
                s=size,
                color=COLORS[place % len(COLORS)],
                alpha=0.75,
                linewidths=0,
                label=f"{label}, {name}" if label else name,
                zorder=2,
            )
        ax.axhline(0, color="0.85", linewidth=0.6, zorder=0)
        ax.axvline(0, color="0.85", linewidth=0.6, zorder=0)
        ax.set_aspect("equal")
        ax.margins(0.06)
        ax.set_xlabel("real part")
        ax.set_ylabel("imaginary part")
        legend_above(ax)
    return ax


def singular_value_histogram(
    products: JacobianProducts,
    *,
    lags: Sequence[int] | None = None,
    num_bins: int = 40,
    ax: Axes | None = None,
) -> Axes:
    """How the singular values of ∂h_T/∂h_{T−ℓ} are spread, at a few lags ℓ: all at 1 is dynamical isometry.

    Args:
      products: from `rr.diagnostics.jacobian_products` with all singular values; those of all trajectories are
        counted together, unresolved ones left out (the label says how many).
      lags: steps back, among those of the record; None takes up to four, from the first step to the last.
      num_bins: over the range of all that is shown.
      ax: where to draw.

    Returns:
      The axes.

    Raises:
      ValueError: a lag that the record does not have.

    Source: Saxe, McClelland & Ganguli 2014; Pennington, Schoenholz & Ganguli 2017 (dynamical isometry).

    >>> import matplotlib, jax.numpy as jnp, rnnreg as rr
    >>> matplotlib.use("Agg")
    >>> step = lambda W, state, x: state @ W
    >>> found = rr.diagnostics.jacobian_products(step, jnp.eye(3), jnp.zeros((1, 8, 0)), state=jnp.ones((1, 3)))
    >>> ax = singular_value_histogram(found, lags=[1, 8])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['ℓ = 1', 'ℓ = 8']
    >>> matplotlib.pyplot.close(ax.figure)
    """
    known = np.asarray(products.lags)
    if lags is None:
        places = np.unique(np.geomspace(1, len(known) - 1, 4).round().astype(int))
        chosen: list[int] = known[places].tolist()
    else:
        chosen = list(lags)
    missing = [lag for lag in chosen if lag not in known]
    if missing:
        raise ValueError(f"lags {missing} are not in the record, which has {known.tolist()}.")
    decades = np.asarray(products.log_singular, np.float64) / np.log(10)
    shown, counts = [], []
    for lag in chosen:
        at = int(np.flatnonzero(known == lag)[0])
        unresolved = np.asarray(products.unresolved[:, at])
        shown.append(np.ravel(decades[:, at][~unresolved]))
        counts.append(int(unresolved.sum()))
    everything = np.concatenate(shown)
    low, high = (everything.min(), everything.max()) if everything.size else (-1.0, 1.0)
    margin = max(0.02 * (high - low), 0.05)
    bins = np.linspace(low - margin, high + margin, num_bins + 1).tolist()
    with canvas(ax) as ax:
        for place, (lag, values, left_out) in enumerate(zip(chosen, shown, counts, strict=True)):
            color = COLORS[place % len(COLORS)]
            name = f"ℓ = {lag}" + (f" ({left_out} unresolved)" if left_out else "")
            weights = np.full(len(values), 1 / max(len(values), 1))
            ax.hist(
                values,
                bins=bins,
                weights=weights,
                histtype="step",
                color=color,
                linewidth=1.3,
                label=name,
            )
        ax.axvline(0, color="0.35", linewidth=0.9, linestyle=":")
        ax.set_xlabel("log$_{10}$ singular value of ∂h$_T$/∂h$_{T−ℓ}$")
        ax.set_ylabel("share")
        legend_above(ax)
    return ax


def spectral_paths(
    at: Any,
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
      ValueError: a quantity that the spectrum does not have, or a first axis that is not that of `at`.

    >>> import matplotlib, rnnreg as rr
    >>> matplotlib.use("Agg")
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
    unknown = [quantity for quantity in quantities if quantity not in names]
    if unknown:
        raise ValueError(
            f"quantities {unknown} are not in a spectrum; expected some of {list(names)}."
        )
    at = np.asarray(at, np.float64)
    values = {
        names[quantity]: np.asarray(getattr(spectrum, quantity))[..., gate]
        for quantity in quantities
    }
    if over == "λ":
        return weight_norms(at, values, ylabel="of the recurrent weights", ax=ax)
    for name, array in values.items():
        if len(array) != len(at):
            raise ValueError(f"{name} has {len(array)} rows for {len(at)} values of {over}.")
    with canvas(ax) as ax:
        for place, (name, array) in enumerate(values.items()):
            seeds = array.reshape(len(at), -1)
            mean, color = seeds.mean(axis=1), COLORS[place % len(COLORS)]
            ax.plot(at, mean, color=color, label=name)
            if seeds.shape[1] > 1:
                se = seeds.std(axis=1, ddof=1) / np.sqrt(seeds.shape[1])
                ax.fill_between(at, mean - se, mean + se, color=color, alpha=0.22, linewidth=0)
        ax.axhline(1, color="0.35", linewidth=0.9, linestyle=":")
        log_y(ax) if "condition" in quantities else ax.set_ylim(bottom=0)
        ax.set_xlabel(over)
        ax.set_ylabel("of the recurrent weights")
        legend_above(ax)
    return ax
