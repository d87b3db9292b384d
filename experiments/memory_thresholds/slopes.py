"""Which number tells how fast ∂h_T/∂h_t grows or fades: four predictors of one measured slope, on trained networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments._harness import text_table
from experiments.memory_thresholds.measures import PREDICTORS

if TYPE_CHECKING:
    import pandas as pd

FADING = -0.02  # nats a step: below it one would want to know the slope


class Score(NamedTuple):
    """How well a predictor meets what was measured.

    Attributes:
      r2: 1 − Σ(measured − predicted)² / Σ(measured − mean)², of the predictor as it is (no line is fitted).
      bias: mean of predicted − measured.
      correlation: Pearson's.
    """

    r2: float
    bias: float
    correlation: float


def score(measured: Any, predicted: Any) -> Score:
    """R², bias and correlation of a prediction, to what float32 knows of it; NaN of fewer than two.

    >>> score(np.array([0.0, 1.0, 2.0]), np.array([0.1, 1.1, 2.1]))
    Score(r2=0.985, bias=0.1, correlation=1.0)
    """
    if len(measured) < 2:
        return Score(np.nan, np.nan, np.nan)
    error = predicted - measured
    found = (1 - np.mean(error**2) / np.var(measured), np.mean(error), np.corrcoef(measured, predicted)[0, 1])
    return Score(*(round(float(value), 6) for value in found))


def living_networks(diagram: Any) -> pd.DataFrame:
    """A row for each network of the cold starts that holds its bits: T, its slope and what predicts it."""
    import pandas as pd

    names = ["slope", *PREDICTORS]
    parts = [pd.DataFrame(columns=["T", *names], dtype=float)]
    for T, cold in sorted(diagram.cold.items()):
        networks = cold[["alive", *names]].to_dataframe()
        parts.append(networks.loc[networks.alive, names].astype(float).assign(T=T))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def scores(networks: pd.DataFrame) -> dict[str, Score]:
    """By predictor."""
    return {name: score(networks.slope.to_numpy(), networks[name].to_numpy()) for name in PREDICTORS}


def table(name: str, networks: pd.DataFrame) -> str:
    """The scores as text: of all, and of those whose gradient fades."""
    fading = networks.query(f"slope < {FADING}")
    header = ["predictor of the slope", "R²", "bias", "correlation"]
    rows = [
        [predictor, f"{of.r2:.3f}", f"{of.bias:+.4f}", f"{of.correlation:.3f}"]
        for predictor, of in scores(networks).items()
    ]
    if len(fading) > 2:
        header += ["R², fading", "bias, fading"]
        for row, of in zip(rows, scores(fading).values(), strict=True):
            row += [f"{of.r2:.3f}", f"{of.bias:+.4f}"]
    title = f"{name}: {len(networks)} networks that hold their bits, {len(fading)} with a fading gradient"
    return title + "\n" + text_table(header, rows)
