"""Norm regularisation in recurrent networks: λ paths, and what λ did to weights and gradients."""

from rnnreg import cells, data, losses, penalties
from rnnreg.data import Batch, Scaling, Split
from rnnreg.network import Network, forecast, layer, network
from rnnreg.objective import make_objective
from rnnreg.penalties import convert_lambda

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Network",
    "Scaling",
    "Split",
    "cells",
    "convert_lambda",
    "data",
    "forecast",
    "layer",
    "losses",
    "make_objective",
    "network",
    "penalties",
]
