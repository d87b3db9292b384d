"""What λ did: to the gradients that flow back through time, and to the spectra of the weights."""

from rnnreg.diagnostics.fisher_memory import FisherMemory, fisher_memory
from rnnreg.diagnostics.fixed_points import (
    DistinctPoints,
    FixedPoints,
    distinct_points,
    fixed_points,
)
from rnnreg.diagnostics.gradient_flow import GradientFlow, gradient_flow
from rnnreg.diagnostics.hessian import HessianDirections, hessian_directions
from rnnreg.diagnostics.loss_surface import (
    LossSurface,
    coordinate_direction,
    data_loss_of,
    loss_surface,
    random_direction,
)
from rnnreg.diagnostics.memory import (
    MemoryCurve,
    SufficientWindow,
    memory_curve,
    sufficient_window,
)
from rnnreg.diagnostics.saturation import GateOpening, Saturation, saturation
from rnnreg.diagnostics.spectra import Spectrum, sigma_max, spectra

__all__ = [
    "DistinctPoints",
    "FisherMemory",
    "FixedPoints",
    "GateOpening",
    "GradientFlow",
    "HessianDirections",
    "LossSurface",
    "MemoryCurve",
    "Saturation",
    "Spectrum",
    "SufficientWindow",
    "coordinate_direction",
    "data_loss_of",
    "distinct_points",
    "fisher_memory",
    "fixed_points",
    "gradient_flow",
    "hessian_directions",
    "loss_surface",
    "memory_curve",
    "random_direction",
    "saturation",
    "sigma_max",
    "spectra",
    "sufficient_window",
]
