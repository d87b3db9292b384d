"""Embedding → recurrent layers → readout; a network is a pair of pure functions."""

from rnnreg.network._forecast import forecast
from rnnreg.network._network import check_width, explain, layer, network, start_state
from rnnreg.network._records import Layer, Network, NetworkOutput, Recurrence

__all__ = [
    "Layer",
    "Network",
    "NetworkOutput",
    "Recurrence",
    "check_width",
    "explain",
    "forecast",
    "layer",
    "network",
    "start_state",
]
