"""Embedding → recurrent layers → readout; a network is a pair of pure functions."""

from rnnreg.networks._forecast import forecast
from rnnreg.networks._network import explain, layer, network
from rnnreg.networks._records import Layer, Network, NetworkOutput, Recurrence

__all__ = [
    "Layer",
    "Network",
    "NetworkOutput",
    "Recurrence",
    "explain",
    "forecast",
    "layer",
    "network",
]
