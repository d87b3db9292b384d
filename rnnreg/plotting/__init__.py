"""Figures: takes results, computes nothing but means and errors for display, accepts ax, returns it."""

from rnnreg.plotting._curves import forecast, gradient_flow, history, loss_curves
from rnnreg.plotting._lambda_axis import lambda_axis
from rnnreg.plotting._memory import fisher_memory, memory_curve, sufficient_window
from rnnreg.plotting._paths import cv_curve, weight_norms
from rnnreg.plotting._states import bifurcation, fixed_points, gate_openings, saturation
from rnnreg.plotting._style import save, style
from rnnreg.plotting._surface import hessian_spectrum, loss_surface

__all__ = [
    "bifurcation",
    "cv_curve",
    "fisher_memory",
    "fixed_points",
    "forecast",
    "gate_openings",
    "gradient_flow",
    "hessian_spectrum",
    "history",
    "lambda_axis",
    "loss_curves",
    "loss_surface",
    "memory_curve",
    "saturation",
    "save",
    "style",
    "sufficient_window",
    "weight_norms",
]
