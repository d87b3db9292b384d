"""Constraints and decay of weights as optax transformations, which chain with any optimiser. One file a family."""

from rnnreg.constraints._base import Constrained, covering, project
from rnnreg.constraints._base import warn_of_constraints as warn_of_constraints
from rnnreg.constraints._decay import Decayed, cautious_decay, decoupled_decay
from rnnreg.constraints._decay import decayed_paths as decayed_paths
from rnnreg.constraints._entries import connectivity, dale, non_negative
from rnnreg.constraints._matrices import orthogonal, spectral_ball
from rnnreg.constraints._norms import fixed_norm, l1_ball, l2_ball, max_norm

__all__ = [
    "Constrained",
    "Decayed",
    "cautious_decay",
    "connectivity",
    "covering",
    "dale",
    "decoupled_decay",
    "fixed_norm",
    "l1_ball",
    "l2_ball",
    "max_norm",
    "non_negative",
    "orthogonal",
    "project",
    "spectral_ball",
]
