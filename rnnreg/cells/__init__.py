"""Recurrent cells, each a small record of pure functions, and the initialisers of their weights."""

from rnnreg.cells._base import Cell, Derivative, HiddenState, Weights, from_step
from rnnreg.cells.chrono import chrono
from rnnreg.cells.elman import elman, irnn
from rnnreg.cells.gru import gru
from rnnreg.cells.initializers import (
    gaussian,
    glorot_normal,
    glorot_uniform,
    identity,
    normal,
    orthogonal,
)
from rnnreg.cells.lstm import LSTMState, lstm

__all__ = [
    "Cell",
    "Derivative",
    "HiddenState",
    "LSTMState",
    "Weights",
    "chrono",
    "elman",
    "from_step",
    "gaussian",
    "glorot_normal",
    "glorot_uniform",
    "gru",
    "identity",
    "irnn",
    "lstm",
    "normal",
    "orthogonal",
]
