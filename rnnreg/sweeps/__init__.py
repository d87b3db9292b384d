"""Whole training runs over named axes: one compiled program, a labelled result."""

from rnnreg.sweeps._axes import Zipped, zipped
from rnnreg.sweeps._dry_run import DryRun
from rnnreg.sweeps._result import Group, SweepResult, load_result
from rnnreg.sweeps._run import sweep

__all__ = ["DryRun", "Group", "SweepResult", "Zipped", "load_result", "sweep", "zipped"]
