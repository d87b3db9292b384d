"""Recurrent matrices that are functions of what is trained: orthogonal, within a margin, of low rank, antisymmetric."""

from rnnreg.parametrizations._base import (
    FormFunction,
    Parametrization,
    StartFunction,
    parametrized,
)
from rnnreg.parametrizations._orthogonal import orthogonal, singular_margin
from rnnreg.parametrizations._plain import antisymmetric, low_rank, weight_norm

__all__ = [
    "FormFunction",
    "Parametrization",
    "StartFunction",
    "antisymmetric",
    "low_rank",
    "orthogonal",
    "parametrized",
    "singular_margin",
    "weight_norm",
]
