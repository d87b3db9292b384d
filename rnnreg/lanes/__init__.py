"""Many runs at once: which way they run is a choice apart from what they mean."""

from rnnreg.lanes._blocks import Block as Block
from rnnreg.lanes._blocks import Pace as Pace
from rnnreg.lanes._blocks import run_blocks as run_blocks
from rnnreg.lanes._calibration import calibrate
from rnnreg.lanes._calls import first_call
from rnnreg.lanes._plan import Plan, make_plan
from rnnreg.lanes._plan import for_part as for_part
from rnnreg.lanes._plan import narrower as narrower
from rnnreg.lanes._plan import repacked as repacked
from rnnreg.lanes._program import Program, map_lanes, trace
from rnnreg.lanes._program import calls_python as calls_python
from rnnreg.lanes._rates import Calibration, load_calibration
from rnnreg.lanes._rates import calibration_path as calibration_path

__all__ = [
    "Calibration",
    "Plan",
    "Program",
    "calibrate",
    "first_call",
    "load_calibration",
    "make_plan",
    "map_lanes",
    "trace",
]
