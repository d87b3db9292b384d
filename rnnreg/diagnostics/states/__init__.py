"""What the states and the gates of a network look like along a batch."""

from rnnreg.diagnostics.states._saturation import GateOpening, Saturation, saturation

__all__ = [
    "GateOpening",
    "Saturation",
    "saturation",
]
