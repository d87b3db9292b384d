"""Figures: takes results, computes nothing but means and errors for display, accepts ax, returns it."""

from rnnreg.plotting._curves import forecast, history, loss_curves
from rnnreg.plotting._dynamics import (
    jacobian_products,
    lyapunov_spectrum,
    lyapunov_trace,
    parameter_sensitivity,
)
from rnnreg.plotting._gradient_flow import gradient_flow
from rnnreg.plotting._gradients import gradient_heat_map, gradient_signal, path_lengths
from rnnreg.plotting._horizons import horizons
from rnnreg.plotting._lambda_axis import lambda_axis
from rnnreg.plotting._memory import fisher_memory, memory_curve, sufficient_window
from rnnreg.plotting._paths import cv_curve, weight_norms
from rnnreg.plotting._spectra import eigenvalue_cloud, singular_value_histogram, spectral_paths
from rnnreg.plotting._states import bifurcation, fixed_points, gate_openings, saturation
from rnnreg.plotting._style import (
    COLORS,
    legend_above,
    log_y,
    save,
    style,
    title_above,
    whole_steps,
)
from rnnreg.plotting._surface import hessian_spectrum, loss_surface

__all__ = [
    "COLORS",
    "bifurcation",
    "cv_curve",
    "eigenvalue_cloud",
    "fisher_memory",
    "fixed_points",
    "forecast",
    "gate_openings",
    "gradient_flow",
    "gradient_heat_map",
    "gradient_signal",
    "hessian_spectrum",
    "history",
    "horizons",
    "jacobian_products",
    "lambda_axis",
    "legend_above",
    "log_y",
    "loss_curves",
    "loss_surface",
    "lyapunov_spectrum",
    "lyapunov_trace",
    "memory_curve",
    "parameter_sensitivity",
    "path_lengths",
    "saturation",
    "save",
    "singular_value_histogram",
    "spectral_paths",
    "style",
    "sufficient_window",
    "title_above",
    "weight_norms",
    "whole_steps",
]
