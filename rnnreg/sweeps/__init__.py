"""Whole training runs over named axes: one compiled program, a labelled result."""

from rnnreg.sweeps._axes import Zipped, zipped
from rnnreg.sweeps._axes import check_name as check_name
from rnnreg.sweeps._axes import read_seeds as read_seeds
from rnnreg.sweeps._dry_run import DryRun
from rnnreg.sweeps._ended import warn_of_lanes as warn_of_lanes
from rnnreg.sweeps._folds import pairs_of as pairs_of
from rnnreg.sweeps._group import Group
from rnnreg.sweeps._load import load_result
from rnnreg.sweeps._lookup import position as position
from rnnreg.sweeps._path import sweep_path as sweep_path
from rnnreg.sweeps._request import Request as Request
from rnnreg.sweeps._result import SweepResult
from rnnreg.sweeps._run import dry_run, sweep
from rnnreg.sweeps._stages import Stages as Stages
from rnnreg.sweeps._verify import Verification, verify

__all__ = [
    "DryRun",
    "Group",
    "SweepResult",
    "Verification",
    "Zipped",
    "dry_run",
    "load_result",
    "sweep",
    "verify",
    "zipped",
]
