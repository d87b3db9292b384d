"""What λ did: to the gradients that flow back through time, and to the spectra of the weights."""

from rnnreg.diagnostics.gradient_flow import GradientFlow, gradient_flow
from rnnreg.diagnostics.spectra import Spectrum, sigma_max, spectra

__all__ = ["GradientFlow", "Spectrum", "gradient_flow", "sigma_max", "spectra"]
