"""Choosing λ: blocked folds, the one-standard-error rules, and the refit."""

from rnnreg.selection._choice import Choice, choose
from rnnreg.selection._curve import Curve, one_standard_error
from rnnreg.selection._folds import blocked_folds
from rnnreg.selection._refit import refit
from rnnreg.selection._scores import axis_of as axis_of

__all__ = ["Choice", "Curve", "blocked_folds", "choose", "one_standard_error", "refit"]
