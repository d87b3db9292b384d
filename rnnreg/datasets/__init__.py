"""Real data that ships with the library; every loader returns a `Split`."""

from rnnreg.datasets._sunspots import (
    SUNSPOT_VARIANCE,
    TEST_YEARS,
    TRAIN_YEARS,
    inverse_sqrt,
    sqrt_transform,
    sunspot_series,
    sunspots,
)

__all__ = [
    "SUNSPOT_VARIANCE",
    "TEST_YEARS",
    "TRAIN_YEARS",
    "inverse_sqrt",
    "sqrt_transform",
    "sunspot_series",
    "sunspots",
]
