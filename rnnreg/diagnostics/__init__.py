"""What λ did: to the gradients that flow back through time, and to the spectra of the weights."""

from rnnreg.diagnostics.decay import DecayRate, Horizon, decay_rate, horizon
from rnnreg.diagnostics.fisher_memory import FisherMemory, fisher_memory
from rnnreg.diagnostics.fixed_points import (
    DistinctPoints,
    FixedPoints,
    distinct_points,
    fixed_points,
)
from rnnreg.diagnostics.gradient_flow import GradientFlow, gradient_flow
from rnnreg.diagnostics.hessian import HessianDirections, hessian_directions
from rnnreg.diagnostics.jacobian_bounds import JacobianBounds, jacobian_bounds
from rnnreg.diagnostics.jacobian_products import JacobianProducts, jacobian_products
from rnnreg.diagnostics.loss_surface import (
    LossSurface,
    coordinate_direction,
    data_loss_of,
    loss_surface,
    random_direction,
)
from rnnreg.diagnostics.lyapunov import Lyapunov, lyapunov
from rnnreg.diagnostics.memory import MemoryCurve, SufficientWindow, memory_curve, sufficient_window
from rnnreg.diagnostics.parameter_sensitivity import ParameterSensitivity, parameter_sensitivity
from rnnreg.diagnostics.path_lengths import (
    GradientSignal,
    PathLengths,
    gradient_signal,
    path_lengths,
)
from rnnreg.diagnostics.saturation import GateOpening, Saturation, saturation
from rnnreg.diagnostics.spectra import Spectrum, matrix_spectrum, sigma_max, spectra
from rnnreg.diagnostics.step_spectra import step_jacobians, step_spectra
from rnnreg.diagnostics.track import Track, track_gradient_flow

__all__ = [
    "DecayRate",
    "DistinctPoints",
    "FisherMemory",
    "FixedPoints",
    "GateOpening",
    "GradientFlow",
    "GradientSignal",
    "HessianDirections",
    "Horizon",
    "JacobianBounds",
    "JacobianProducts",
    "LossSurface",
    "Lyapunov",
    "MemoryCurve",
    "ParameterSensitivity",
    "PathLengths",
    "Saturation",
    "Spectrum",
    "SufficientWindow",
    "Track",
    "coordinate_direction",
    "data_loss_of",
    "decay_rate",
    "distinct_points",
    "fisher_memory",
    "fixed_points",
    "gradient_flow",
    "gradient_signal",
    "hessian_directions",
    "horizon",
    "jacobian_bounds",
    "jacobian_products",
    "loss_surface",
    "lyapunov",
    "matrix_spectrum",
    "memory_curve",
    "parameter_sensitivity",
    "path_lengths",
    "random_direction",
    "saturation",
    "sigma_max",
    "spectra",
    "step_jacobians",
    "step_spectra",
    "sufficient_window",
    "track_gradient_flow",
]
