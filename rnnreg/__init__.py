"""Norm regularisation in recurrent networks: λ paths, and what λ did to weights and gradients."""

from rnnreg import cells, data, diagnostics, losses, penalties
from rnnreg.data import Batch, Scaling, Split
from rnnreg.network import Network, forecast, layer, network
from rnnreg.objective import make_objective
from rnnreg.penalties import convert_lambda
from rnnreg.training import Train, make_train

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Network",
    "Scaling",
    "Split",
    "Train",
    "cells",
    "convert_lambda",
    "data",
    "diagnostics",
    "forecast",
    "layer",
    "losses",
    "make_objective",
    "make_train",
    "network",
    "penalties",
]
