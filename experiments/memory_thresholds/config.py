"""The options of the study."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.memory_thresholds.controls import VARIANTS


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the three thresholds."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    num_steps: tuple[int, ...] = (5, 10, 20, 40)
    """T that the law is fitted on."""
    predicted_steps: tuple[int, ...] = (80,)
    """T that is predicted, then run."""
    gains: tuple[float, ...] = (0.7, 0.8, 0.9, 1.0)
    """Gains g of the orthogonal start of W_hh."""
    fitted_gains: tuple[float, ...] = (0.7, 0.8, 0.9)
    """Gains that the law is fitted on; at g = 1 it says nothing, since c T exceeds λ_s."""
    predicted_gain: float = 0.85
    """A gain that is predicted, then run."""
    num_lambdas: int = 28
    """λ > 0 of a cold sweep, beside λ = 0."""
    seeds: int = 10
    """Seeds of a cold start."""
    num_updates: int = 2000
    """Updates of a cold start."""
    path_lambdas: int = 48
    """λ of a warm path, from 0.02 to 1.3 times the linear network's λ_s."""
    path_seeds: int = 8
    """Paths at each T."""
    path_updates: int = 400
    """Updates at each λ of a path."""
    path_rate: float = 1e-3
    """Adam's α on a path, smaller beyond T = 40: steps as wide as the memory's valley (about 1/T) end it too soon."""
    path_starts: tuple[str, ...] = ("orthogonal", "identity")
    """Starts of W_hh of the warm paths, which lead to a complex pair or to one real eigenvalue."""
    activations: tuple[str, ...] = ("tanh", "linear")
    """Networks of the main diagram; the law is about the first."""
    shown_steps: int = 20
    """T of the two axes against λ."""
    shown_gain: float = 0.9
    """Gain of the two axes against λ."""
    hidden_size: int = 16
    """H."""
    num_bits: int = 1
    """K."""
    learning_rate: float = 3e-3
    """Adam's α."""
    control_steps: tuple[int, int] = (10, 40)
    """T of the controls, a short and a long one."""
    control_lambdas: int = 18
    """λ of a control, from 1e-3 to 10."""
    control_seeds: int = 6
    """Seeds of a control."""
    control_names: tuple[str, ...] = tuple(VARIANTS)
    """Which ways to train are compared."""
    long_updates: int = 8000
    """Updates of the long training, whose thresholds are read on the way."""
    out: Path = Path("results/memory_thresholds")
    """Where sweeps, predictions, figures and summary.json go."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {
        "num_steps": (10,),
        "predicted_steps": (),
        "gains": (0.8, 0.9),
        "fitted_gains": (0.8, 0.9),
        "num_lambdas": 8,
        "seeds": 3,
        "num_updates": 400,
        "path_lambdas": 10,
        "path_seeds": 2,
        "path_updates": 100,
        "path_starts": ("orthogonal",),
        "path_rate": 1e-2,
        "activations": ("tanh",),
        "shown_steps": 10,
        "control_steps": (5, 10),
        "control_lambdas": 4,
        "control_seeds": 2,
        "control_names": (),
        "long_updates": 0,
        "learning_rate": 1e-2,
    },
}
