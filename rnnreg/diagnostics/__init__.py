"""What λ did: to the gradients that flow back through time, and to the spectra of the weights."""

from rnnreg.diagnostics.decay import DecayRate, Horizon, decay_rate, horizon
from rnnreg.diagnostics.gradient_flow import GradientFlow, gradient_flow
from rnnreg.diagnostics.spectra import Spectrum, sigma_max, spectra

__all__ = [
    "DecayRate",
    "GradientFlow",
    "Horizon",
    "Spectrum",
    "decay_rate",
    "gradient_flow",
    "horizon",
    "sigma_max",
    "spectra",
]
