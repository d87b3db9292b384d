"""What λ did: to the gradients that flow back through time, and to the spectra of the weights."""

from rnnreg.diagnostics.decay import DecayRate, Horizon, decay_rate, horizon
from rnnreg.diagnostics.gradient_flow import GradientFlow, gradient_flow
from rnnreg.diagnostics.path_lengths import (
    GradientSignal,
    PathLengths,
    gradient_signal,
    path_lengths,
)
from rnnreg.diagnostics.spectra import Spectrum, sigma_max, spectra
from rnnreg.diagnostics.track import Track, track_gradient_flow

__all__ = [
    "DecayRate",
    "GradientFlow",
    "GradientSignal",
    "Horizon",
    "PathLengths",
    "Spectrum",
    "Track",
    "decay_rate",
    "gradient_flow",
    "gradient_signal",
    "horizon",
    "path_lengths",
    "sigma_max",
    "spectra",
    "track_gradient_flow",
]
