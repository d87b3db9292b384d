"""What λ did: to the gradients that flow back through time, and to the spectra of the weights."""

from rnnreg.diagnostics.gradient_flow import GradientFlow, gradient_flow
from rnnreg.diagnostics.jacobian_bounds import JacobianBounds, jacobian_bounds
from rnnreg.diagnostics.jacobian_products import JacobianProducts, jacobian_products
from rnnreg.diagnostics.lyapunov import Lyapunov, lyapunov
from rnnreg.diagnostics.parameter_sensitivity import ParameterSensitivity, parameter_sensitivity
from rnnreg.diagnostics.spectra import Spectrum, matrix_spectrum, sigma_max, spectra
from rnnreg.diagnostics.step_spectra import step_jacobians, step_spectra

__all__ = [
    "GradientFlow",
    "JacobianBounds",
    "JacobianProducts",
    "Lyapunov",
    "ParameterSensitivity",
    "Spectrum",
    "gradient_flow",
    "jacobian_bounds",
    "jacobian_products",
    "lyapunov",
    "matrix_spectrum",
    "parameter_sensitivity",
    "sigma_max",
    "spectra",
    "step_jacobians",
    "step_spectra",
]
