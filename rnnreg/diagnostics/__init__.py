"""What λ did: to the gradients that flow back through time, and to the spectra of the weights."""

from rnnreg.diagnostics.decay import DecayRate, Horizon, decay_rate, horizon
from rnnreg.diagnostics.gradient_flow import GradientFlow, gradient_flow
from rnnreg.diagnostics.jacobian_bounds import JacobianBounds, jacobian_bounds
from rnnreg.diagnostics.jacobian_products import JacobianProducts, jacobian_products
from rnnreg.diagnostics.lyapunov import Lyapunov, lyapunov
from rnnreg.diagnostics.parameter_sensitivity import ParameterSensitivity, parameter_sensitivity
from rnnreg.diagnostics.path_lengths import (
    GradientSignal,
    PathLengths,
    gradient_signal,
    path_lengths,
)
from rnnreg.diagnostics.spectra import Spectrum, matrix_spectrum, sigma_max, spectra
from rnnreg.diagnostics.step_spectra import step_jacobians, step_spectra
from rnnreg.diagnostics.track import Track, track_gradient_flow

__all__ = [
    "DecayRate",
    "GradientFlow",
    "GradientSignal",
    "Horizon",
    "JacobianBounds",
    "JacobianProducts",
    "Lyapunov",
    "ParameterSensitivity",
    "PathLengths",
    "Spectrum",
    "Track",
    "decay_rate",
    "gradient_flow",
    "gradient_signal",
    "horizon",
    "jacobian_bounds",
    "jacobian_products",
    "lyapunov",
    "matrix_spectrum",
    "parameter_sensitivity",
    "path_lengths",
    "sigma_max",
    "spectra",
    "step_jacobians",
    "step_spectra",
    "track_gradient_flow",
]
