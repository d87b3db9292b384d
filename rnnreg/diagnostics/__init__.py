"""What λ did: to the gradients that flow back through time, and to the spectra of the weights."""

from rnnreg.diagnostics.gradient_flow import GradientFlow, gradient_flow
from rnnreg.diagnostics.jacobian_products import JacobianProducts, jacobian_products
from rnnreg.diagnostics.lyapunov import Lyapunov, lyapunov
from rnnreg.diagnostics.parameter_sensitivity import ParameterSensitivity, parameter_sensitivity
from rnnreg.diagnostics.spectra import Spectrum, sigma_max, spectra

__all__ = [
    "GradientFlow",
    "JacobianProducts",
    "Lyapunov",
    "ParameterSensitivity",
    "Spectrum",
    "gradient_flow",
    "jacobian_products",
    "lyapunov",
    "parameter_sensitivity",
    "sigma_max",
    "spectra",
]
