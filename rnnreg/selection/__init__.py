"""Choosing λ: grids and folds, one-standard-error rules, honest errors of a choice, the refit, and λ by gradient."""

from rnnreg.selection._choice import Choice, choose
from rnnreg.selection._curve import Curve, one_standard_error
from rnnreg.selection._extended import sweep_extended
from rnnreg.selection._folds import blocked_folds, grouped, rolling_origin
from rnnreg.selection._grid import LambdaGrid, lambda_grid
from rnnreg.selection._hypergradient import Hypergradient, hypergradient
from rnnreg.selection._improvement import Improvement, improvement
from rnnreg.selection._nested import Nested, nested
from rnnreg.selection._online import OnlineTuning, tune_online
from rnnreg.selection._paths import warm_path
from rnnreg.selection._refit import refit
from rnnreg.selection._scores import axis_of as axis_of

__all__ = [
    "Choice",
    "Curve",
    "Hypergradient",
    "Improvement",
    "LambdaGrid",
    "Nested",
    "OnlineTuning",
    "blocked_folds",
    "choose",
    "grouped",
    "hypergradient",
    "improvement",
    "lambda_grid",
    "nested",
    "one_standard_error",
    "refit",
    "rolling_origin",
    "sweep_extended",
    "tune_online",
    "warm_path",
]
