"""A training run as pure functions: init, update, advance, finish, and the whole run as one call."""

from rnnreg.training._blocks import Progress as Progress
from rnnreg.training._blocks import go_on as go_on
from rnnreg.training._blocks import recorded_so_far as recorded_so_far
from rnnreg.training._checks import check_data
from rnnreg.training._checks import check_lambda as check_lambda
from rnnreg.training._checks import check_reads as check_reads
from rnnreg.training._checks import check_values as check_values
from rnnreg.training._checks import num_outputs as num_outputs
from rnnreg.training._contracts import NetworkFunction, OptimizerFunction, TrackFunction
from rnnreg.training._epoch import recorded as recorded
from rnnreg.training._measure import averaged as averaged
from rnnreg.training._measure import monitored as monitored
from rnnreg.training._minibatches import minibatches as minibatches
from rnnreg.training._minibatches import train_on as train_on
from rnnreg.training._records import Best, Run, TrainInfo, TrainState
from rnnreg.training._run import Train, make_train
from rnnreg.training._run import whole as whole
from rnnreg.training._settings import Hyper as Hyper
from rnnreg.training._settings import Settings
from rnnreg.training._settings import as_hyper as as_hyper
from rnnreg.training._settings import is_optimizer as is_optimizer
from rnnreg.training._settings import network_of as network_of
from rnnreg.training._start import check_start as check_start
from rnnreg.training._track import Track

__all__ = [
    "Best",
    "NetworkFunction",
    "OptimizerFunction",
    "Run",
    "Settings",
    "Track",
    "TrackFunction",
    "Train",
    "TrainInfo",
    "TrainState",
    "check_data",
    "make_train",
]
