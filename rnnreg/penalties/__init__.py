"""Penalties R(W): what is added to the data loss, each times its own λ. One file a family."""

from rnnreg.penalties._base import (
    NEEDS,
    Context,
    CoversFunction,
    Penalty,
    ProxFunction,
    StartFunction,
    ValueFunction,
    covered,
)
from rnnreg.penalties._base import check_kept as check_kept
from rnnreg.penalties._base import value_of as value_of
from rnnreg.penalties._conventions import convert_lambda
from rnnreg.penalties._weights import elastic_net, elementwise, l1, l2

__all__ = [
    "NEEDS",
    "Context",
    "CoversFunction",
    "Penalty",
    "ProxFunction",
    "StartFunction",
    "ValueFunction",
    "convert_lambda",
    "covered",
    "elastic_net",
    "elementwise",
    "l1",
    "l2",
]
