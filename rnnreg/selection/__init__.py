"""Choosing λ: grids, samples and folds, one-standard-error rules, searches, the refit, and λ by gradient."""

from rnnreg.selection._choice import RULES as RULES
from rnnreg.selection._choice import Choice, choose
from rnnreg.selection._curve import Curve, one_standard_error
from rnnreg.selection._cv_results import cv_results
from rnnreg.selection._extended import sweep_extended
from rnnreg.selection._folds import blocked_folds, grouped, rolling_origin
from rnnreg.selection._grid import LambdaGrid, lambda_grid
from rnnreg.selection._halving import halving
from rnnreg.selection._hyperband import hyperband
from rnnreg.selection._hypergradient import Hypergradient, hypergradient
from rnnreg.selection._improvement import Improvement, improvement
from rnnreg.selection._nested import Nested, nested
from rnnreg.selection._online import OnlineTuning, tune_online
from rnnreg.selection._optuna import to_optuna
from rnnreg.selection._paths import warm_path
from rnnreg.selection._refit import refit
from rnnreg.selection._run_study import run_study
from rnnreg.selection._rungs import Halving, Rung
from rnnreg.selection._scores import axis_of as axis_of
from rnnreg.selection._scores import is_zipped as is_zipped
from rnnreg.selection._spaces import IntUniform, LogUniform, OneOf, Uniform, sample

__all__ = [
    "Choice",
    "Curve",
    "Halving",
    "Hypergradient",
    "Improvement",
    "IntUniform",
    "LambdaGrid",
    "LogUniform",
    "Nested",
    "OneOf",
    "OnlineTuning",
    "Rung",
    "Uniform",
    "blocked_folds",
    "choose",
    "cv_results",
    "grouped",
    "halving",
    "hyperband",
    "hypergradient",
    "improvement",
    "lambda_grid",
    "nested",
    "one_standard_error",
    "refit",
    "rolling_origin",
    "run_study",
    "sample",
    "sweep_extended",
    "to_optuna",
    "tune_online",
    "warm_path",
]
