"""Figures: takes results, computes nothing but means and errors for display, accepts ax, returns it."""

from rnnreg.plotting._curves import forecast, gradient_flow, history, loss_curves
from rnnreg.plotting._dynamics import (
    jacobian_products,
    lyapunov_spectrum,
    lyapunov_trace,
    parameter_sensitivity,
)
from rnnreg.plotting._lambda_axis import lambda_axis
from rnnreg.plotting._paths import cv_curve, weight_norms
from rnnreg.plotting._spectra import eigenvalue_cloud, singular_value_histogram, spectral_paths
from rnnreg.plotting._style import save, style

__all__ = [
    "cv_curve",
    "eigenvalue_cloud",
    "forecast",
    "gradient_flow",
    "history",
    "jacobian_products",
    "lambda_axis",
    "loss_curves",
    "lyapunov_spectrum",
    "lyapunov_trace",
    "parameter_sensitivity",
    "save",
    "singular_value_histogram",
    "spectral_paths",
    "style",
    "weight_norms",
]
