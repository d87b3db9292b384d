"""Figures: takes results, computes nothing but means and errors for display, accepts ax, returns it."""

from rnnreg.plotting._curves import forecast, history, loss_curves
from rnnreg.plotting._gradients import (
    gradient_flow,
    gradient_heat_map,
    gradient_signal,
    path_lengths,
)
from rnnreg.plotting._horizons import horizons
from rnnreg.plotting._lambda_axis import lambda_axis
from rnnreg.plotting._paths import cv_curve, weight_norms
from rnnreg.plotting._style import save, style

__all__ = [
    "cv_curve",
    "forecast",
    "gradient_flow",
    "gradient_heat_map",
    "gradient_signal",
    "history",
    "horizons",
    "lambda_axis",
    "loss_curves",
    "path_lengths",
    "save",
    "style",
    "weight_norms",
]
