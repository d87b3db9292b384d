"""Many runs at once: which way they run is a choice apart from what they mean."""

from rnnreg.lanes._calibration import Calibration, calibrate, load_calibration
from rnnreg.lanes._plan import Plan, make_plan
from rnnreg.lanes._program import Program, lower

__all__ = [
    "Calibration",
    "Plan",
    "Program",
    "calibrate",
    "load_calibration",
    "lower",
    "make_plan",
]
