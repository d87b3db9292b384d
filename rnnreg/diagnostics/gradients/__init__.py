"""Gradients on their way back through time: how they shrink, how far they reach, which lags they come from."""

from rnnreg.diagnostics.gradients._decay import DecayRate, Horizon, decay_rate, horizon
from rnnreg.diagnostics.gradients._gradient_flow import GradientFlow, gradient_flow
from rnnreg.diagnostics.gradients._parameter_sensitivity import (
    ParameterSensitivity,
    parameter_sensitivity,
)
from rnnreg.diagnostics.gradients._path_lengths import (
    GradientSignal,
    PathLengths,
    gradient_signal,
    path_lengths,
)
from rnnreg.diagnostics.gradients._track import track_gradient_flow

__all__ = [
    "DecayRate",
    "GradientFlow",
    "GradientSignal",
    "Horizon",
    "ParameterSensitivity",
    "PathLengths",
    "decay_rate",
    "gradient_flow",
    "gradient_signal",
    "horizon",
    "parameter_sensitivity",
    "path_lengths",
    "track_gradient_flow",
]
