"""Whole training runs over named axes: one compiled program, a labelled result."""

from rnnreg.sweep._axes import Zipped, zipped
from rnnreg.sweep._result import SweepResult, load_result
from rnnreg.sweep._run import DryRun, sweep

__all__ = ["DryRun", "SweepResult", "Zipped", "load_result", "sweep", "zipped"]
