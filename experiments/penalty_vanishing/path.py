"""What λ did to one kind of network: the path over λ and seeds, in numbers and as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import rnnreg as rr
from experiments._harness import text_table

PASCANU = "Pascanu, Mikolov & Bengio 2013, section 3.1"


class Path(NamedTuple):
    """What λ did, `[λ, seed]` each; a diverged lane is NaN.

    Attributes:
      lam: `[λ]`.
      train: data loss on the training rows, without the penalty.
      test: data loss on fresh rows.
      rho: spectral radius of W_hh (of a GRU, of the candidate's block).
      horizon: lag at which r(ℓ) falls below 1/e for good; NaN where it does not.
      censored: whether it does not: the horizon is longer than the sequence.
      squares: ‖W‖², what λ multiplies.
    """

    lam: np.ndarray
    train: np.ndarray
    test: np.ndarray
    rho: np.ndarray
    horizon: np.ndarray
    censored: np.ndarray
    squares: np.ndarray


def measure(result: rr.SweepResult, static: Mapping[str, Any], flow_of: Callable[..., Any], *, dim: str) -> Path:
    """The path of one static combination; `flow_of(params)` is its gradient flow, `dim` the axis beside λ."""
    part = result.select(**static) if static else result

    def reach(params):
        found = rr.diagnostics.horizon(flow_of(params).log_norms["layer_0"])
        return {"lag": found.lag, "censored": found.censored}

    horizon = part.map(reach)
    spectrum = rr.diagnostics.spectra(part.groups[0].params)["layer_0/W_hh"]

    def values(array):
        return array.transpose("l2", dim).values

    ordered = part.metrics["train_loss"].dims  # (l2, dim), or the other way about
    rho = spectrum.rho[..., -1]  # a GRU's last block is its candidate's; a tanh network has one
    return Path(
        lam=part.metrics["l2"].values,
        train=values(part.metrics["train_loss"]),
        test=values(part.metrics["val_loss"]),
        rho=rho if ordered[0] == "l2" else rho.T,
        horizon=values(horizon["lag"]),
        censored=values(horizon["censored"]).astype(bool),
        squares=values(part.metrics["penalty_l2"]),
    )


def median_horizon(path: Path) -> np.ndarray:
    """`[λ]`, over seeds; ∞ where most are longer than the sequence, NaN where no seed has a gradient."""
    values = np.where(path.censored, np.inf, path.horizon)
    return np.array([np.median(row[~np.isnan(row)]) if (~np.isnan(row)).any() else np.nan for row in values])


def table(path: Path, shares: Sequence[str] | None = None) -> str:
    """λ by λ: losses, the share of seeds that remember if there is one, horizon, ρ, ‖W‖²."""
    columns = {
        "λ": [f"{lam:.3g}" for lam in path.lam],
        "data loss": [f"{np.nanmean(row):.4f}" for row in path.train],
        "test ± SE": [f"{np.nanmean(row):.4f} ± {np.nanstd(row, ddof=1) / np.sqrt(len(row)):.4f}" for row in path.test],
        **({} if shares is None else {"remember [95 %]": shares}),
        "horizon (median)": ["longer" if np.isinf(reach) else f"{reach:.1f}" for reach in median_horizon(path)],
        "ρ(W_hh)": [f"{np.nanmean(row):.3f}" for row in path.rho],
        "‖W‖²": [f"{np.nanmean(row):.3g}" for row in path.squares],
    }
    return text_table(list(columns), list(zip(*columns.values(), strict=True)))
