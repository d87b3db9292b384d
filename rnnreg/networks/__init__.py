"""Embedding → recurrent layers → readout; a network is a pair of pure functions."""

from rnnreg.networks._effective import calibrated, effective
from rnnreg.networks._effective import effective_shapes as effective_shapes
from rnnreg.networks._effective import isometric_paths as isometric_paths
from rnnreg.networks._effective import trains_apart as trains_apart
from rnnreg.networks._forecast import UNITS as UNITS
from rnnreg.networks._forecast import forecast
from rnnreg.networks._init import check_fits as check_fits
from rnnreg.networks._network import (
    describe,
    explain,
    layer,
    network,
    recurrent_paths,
    weight_paths,
)
from rnnreg.networks._rebuild import HELD as HELD
from rnnreg.networks._rebuild import rebuild
from rnnreg.networks._records import Dropout, Layer, Network, NetworkOutput, Noise, Recurrence
from rnnreg.networks._rows import cell_mixes_rows as cell_mixes_rows
from rnnreg.networks._rows import mixes_rows as mixes_rows
from rnnreg.networks._rows import mixing_part as mixing_part
from rnnreg.networks._sample import sample
from rnnreg.networks._stack import Stack
from rnnreg.networks._stack import expected_cell as expected_cell
from rnnreg.networks._stack import num_tokens as num_tokens
from rnnreg.networks._stack import visited as visited
from rnnreg.networks._states import check_states as check_states
from rnnreg.networks._states import start_state as start_state
from rnnreg.networks._walk import SIDES as SIDES
from rnnreg.networks._walk import Pass, Visit
from rnnreg.networks._walk import by_layer as by_layer
from rnnreg.networks._walk import passes_of as passes_of
from rnnreg.networks._walk import start_of as start_of

__all__ = [
    "Dropout",
    "Layer",
    "Network",
    "NetworkOutput",
    "Noise",
    "Pass",
    "Recurrence",
    "Stack",
    "Visit",
    "calibrated",
    "describe",
    "effective",
    "explain",
    "forecast",
    "layer",
    "network",
    "rebuild",
    "recurrent_paths",
    "sample",
    "weight_paths",
]
