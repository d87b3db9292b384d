"""The loss around a point of parameters, and where it curves most."""

from rnnreg.diagnostics.surface._hessian import HessianDirections, hessian_directions
from rnnreg.diagnostics.surface._loss_surface import (
    LossSurface,
    coordinate_direction,
    data_loss_of,
    loss_surface,
    random_direction,
)

__all__ = [
    "HessianDirections",
    "LossSurface",
    "coordinate_direction",
    "data_loss_of",
    "hessian_directions",
    "loss_surface",
    "random_direction",
]
