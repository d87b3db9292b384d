"""A recurrence as a map of states: products of Jacobians, exponents, spectra, fixed points."""

from rnnreg.diagnostics.dynamics._fixed_points import (
    DistinctPoints,
    FixedPoints,
    distinct_points,
    fixed_points,
)
from rnnreg.diagnostics.dynamics._jacobian_bounds import JacobianBounds, jacobian_bounds
from rnnreg.diagnostics.dynamics._jacobian_products import JacobianProducts, jacobian_products
from rnnreg.diagnostics.dynamics._lyapunov import Lyapunov, lyapunov
from rnnreg.diagnostics.dynamics._spectra import Spectrum, matrix_spectrum, spectra
from rnnreg.diagnostics.dynamics._step_spectra import step_jacobians, step_spectra

__all__ = [
    "DistinctPoints",
    "FixedPoints",
    "JacobianBounds",
    "JacobianProducts",
    "Lyapunov",
    "Spectrum",
    "distinct_points",
    "fixed_points",
    "jacobian_bounds",
    "jacobian_products",
    "lyapunov",
    "matrix_spectrum",
    "spectra",
    "step_jacobians",
    "step_spectra",
]
