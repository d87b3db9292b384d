"""Rows of sequences: batches, splits, windows of a series, scaling, and folds as lists of row numbers.

A fold is nothing but a transformation of the data: `take_fold(split, fold)` returns the split that
one fold trains and validates on, so that training itself knows nothing about folds.
"""

from rnnreg.data._batches import as_split
from rnnreg.data._checks import check_batch
from rnnreg.data._checks import check_tokens as check_tokens
from rnnreg.data._folds import as_pairs as as_pairs
from rnnreg.data._folds import stack_folds, take_fold
from rnnreg.data._records import Batch, Fold, Scaling, Split
from rnnreg.data._rows import cleared as cleared
from rnnreg.data._rows import counted as counted
from rnnreg.data._rows import loss_weights as loss_weights
from rnnreg.data._rows import per_row as per_row
from rnnreg.data._rows import row_weights, take_rows
from rnnreg.data._rows import where_counted as where_counted
from rnnreg.data._scaling import fit_scaling, scale_batch, standardize, unscale_outputs
from rnnreg.data._scaling import scale_inputs as scale_inputs
from rnnreg.data._times import check_span as check_span
from rnnreg.data._times import check_target_times as check_target_times
from rnnreg.data._times import shown as shown
from rnnreg.data._times import widened as widened
from rnnreg.data._windows import lengths_to_mask, windows

__all__ = [
    "Batch",
    "Fold",
    "Scaling",
    "Split",
    "as_split",
    "check_batch",
    "fit_scaling",
    "lengths_to_mask",
    "row_weights",
    "scale_batch",
    "stack_folds",
    "standardize",
    "take_fold",
    "take_rows",
    "unscale_outputs",
    "windows",
]
