"""Whole training runs over named axes: one compiled program, a labelled result."""

from rnnreg.sweep._axes import Zipped, zipped
from rnnreg.sweep._dry_run import DryRun
from rnnreg.sweep._result import Group, SweepResult, load_result
from rnnreg.sweep._run import sweep

__all__ = ["DryRun", "Group", "SweepResult", "Zipped", "load_result", "sweep", "zipped"]
