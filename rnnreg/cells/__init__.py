"""Recurrent cells, each a small record of pure functions, and the initialisers of their weights."""

from rnnreg.cells._base import Cell, Derivative, HiddenState, Weights, from_step
from rnnreg.cells._chrono import chrono
from rnnreg.cells._elman import elman, irnn
from rnnreg.cells._gru import gru
from rnnreg.cells._initializers import (
    gaussian,
    glorot_normal,
    glorot_uniform,
    identity,
    normal,
    orthogonal,
)
from rnnreg.cells._lstm import LSTMState, lstm

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
