"""Recurrent cells, each a small record of pure functions, and the initialisers of their weights."""

from rnnreg.cells._activation import ACTIVATIONS, Activation, as_activation
from rnnreg.cells._base import (
    Cell,
    HiddenState,
    Made,
    Training,
    Weights,
    describe_cell,
    from_step,
)
from rnnreg.cells._base import decayed_leaves as decayed_leaves
from rnnreg.cells._base import describe_made as describe_made
from rnnreg.cells._base import formed as formed
from rnnreg.cells._base import made_by as made_by
from rnnreg.cells._base import made_for as made_for
from rnnreg.cells._base import named as named
from rnnreg.cells._base import plain as plain
from rnnreg.cells._base import plain_weights as plain_weights
from rnnreg.cells._base import recurrent_leaves as recurrent_leaves
from rnnreg.cells._batch_norm import NormalisedState, batch_norm
from rnnreg.cells._chrono import chrono
from rnnreg.cells._contracts import (
    DrawFunction,
    EffectiveFunction,
    GateFunction,
    InitFunction,
    InitialStateFunction,
    StepFunction,
    WeightsFunction,
)
from rnnreg.cells._elman import elman, irnn
from rnnreg.cells._gate import Facts, Gate, Step, as_gate, as_step
from rnnreg.cells._gru import gru
from rnnreg.cells._initializers import (
    Initializer,
    gaussian,
    glorot_normal,
    glorot_uniform,
    identity,
    normal,
    orthogonal,
)
from rnnreg.cells._layer_norm import layer_norm
from rnnreg.cells._lstm import LSTMState, lstm

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Cell",
    "DrawFunction",
    "EffectiveFunction",
    "Facts",
    "Gate",
    "GateFunction",
    "HiddenState",
    "InitFunction",
    "InitialStateFunction",
    "Initializer",
    "LSTMState",
    "Made",
    "NormalisedState",
    "Step",
    "StepFunction",
    "Training",
    "Weights",
    "WeightsFunction",
    "as_activation",
    "as_gate",
    "as_step",
    "batch_norm",
    "chrono",
    "describe_cell",
    "elman",
    "from_step",
    "gaussian",
    "glorot_normal",
    "glorot_uniform",
    "gru",
    "identity",
    "irnn",
    "layer_norm",
    "lstm",
    "normal",
    "orthogonal",
]
