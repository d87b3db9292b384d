"""Figures: takes results, computes nothing but means and errors for display, accepts ax, returns it."""

from rnnreg.plotting._axes import legend_above, log_y, whole_steps
from rnnreg.plotting._choices import cv_map, cv_seeds
from rnnreg.plotting._lambda_axis import lambda_axis
from rnnreg.plotting._memory import fisher_memory, memory_curve, sufficient_window
from rnnreg.plotting._search import halving_brackets, regret
from rnnreg.plotting._series import loss_curves, predicted_series
from rnnreg.plotting._states import gate_openings, saturation
from rnnreg.plotting._style import COLORS, save, style
from rnnreg.plotting._surface import hessian_spectrum, loss_surface
from rnnreg.plotting._sweeps import cv_curve, history, weight_norms
from rnnreg.plotting.dynamics._fixed_points import bifurcation, fixed_points
from rnnreg.plotting.dynamics._jacobian_products import jacobian_products, singular_value_histogram
from rnnreg.plotting.dynamics._lyapunov import lyapunov_spectrum, lyapunov_trace
from rnnreg.plotting.dynamics._spectra import eigenvalue_cloud, spectral_paths
from rnnreg.plotting.gradients._gradient_flow import gradient_flow
from rnnreg.plotting.gradients._heat_map import gradient_heat_map
from rnnreg.plotting.gradients._horizons import horizons
from rnnreg.plotting.gradients._parameter_sensitivity import parameter_sensitivity
from rnnreg.plotting.gradients._path_lengths import gradient_signal, path_lengths

__all__ = [
    "COLORS",
    "bifurcation",
    "cv_curve",
    "cv_map",
    "cv_seeds",
    "eigenvalue_cloud",
    "fisher_memory",
    "fixed_points",
    "gate_openings",
    "gradient_flow",
    "gradient_heat_map",
    "gradient_signal",
    "halving_brackets",
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
    "predicted_series",
    "regret",
    "saturation",
    "save",
    "singular_value_histogram",
    "spectral_paths",
    "style",
    "sufficient_window",
    "weight_norms",
    "whole_steps",
]
