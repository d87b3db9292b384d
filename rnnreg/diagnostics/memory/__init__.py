"""What a state still holds of its past inputs."""

from rnnreg.diagnostics.memory._fisher_memory import FisherMemory, fisher_memory
from rnnreg.diagnostics.memory._recall import (
    MemoryCurve,
    SufficientWindow,
    memory_curve,
    sufficient_window,
)

__all__ = [
    "FisherMemory",
    "MemoryCurve",
    "SufficientWindow",
    "fisher_memory",
    "memory_curve",
    "sufficient_window",
]
