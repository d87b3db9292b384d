"""Penalties R(W): what is added to the data loss, each times its own λ. One file a family."""

from rnnreg.penalties._activations import (
    activation,
    activity_l1,
    firing_rate,
    norm_stabilizer,
    temporal_activation,
)
from rnnreg.penalties._base import (
    NEEDS,
    Context,
    CoversFunction,
    Penalty,
    StartFunction,
    ValueFunction,
    covered,
)
from rnnreg.penalties._base import check_kept as check_kept
from rnnreg.penalties._base import value_of as value_of
from rnnreg.penalties._conventions import convert_lambda
from rnnreg.penalties._gradients import omega
from rnnreg.penalties._jacobians import gradient_flossing, jacobian_norm
from rnnreg.penalties._weights import elastic_net, elementwise, l1, l2

__all__ = [
    "NEEDS",
    "Context",
    "CoversFunction",
    "Penalty",
    "StartFunction",
    "ValueFunction",
    "activation",
    "activity_l1",
    "convert_lambda",
    "covered",
    "elastic_net",
    "elementwise",
    "firing_rate",
    "gradient_flossing",
    "jacobian_norm",
    "l1",
    "l2",
    "norm_stabilizer",
    "omega",
    "temporal_activation",
]
