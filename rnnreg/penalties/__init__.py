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
    ProxFunction,
    StartFunction,
    ValueFunction,
    covered,
)
from rnnreg.penalties._base import check_kept as check_kept
from rnnreg.penalties._base import check_penalty as check_penalty
from rnnreg.penalties._base import select as select
from rnnreg.penalties._base import value_of as value_of
from rnnreg.penalties._blocks import block_shape as block_shape
from rnnreg.penalties._conventions import convert_lambda
from rnnreg.penalties._gradients import omega
from rnnreg.penalties._groups import group_lasso
from rnnreg.penalties._identity import to_identity
from rnnreg.penalties._jacobians import gradient_flossing, jacobian_norm
from rnnreg.penalties._orthogonality import non_normal, soft_orthogonality
from rnnreg.penalties._path_norm import path_norm
from rnnreg.penalties._schedules import Scheduled, scheduled
from rnnreg.penalties._singular import nuclear, singular_value_margin, spectral_norm
from rnnreg.penalties._table import Table, TableRow, table
from rnnreg.penalties._weights import elastic_net, elementwise, l1, l2

__all__ = [
    "NEEDS",
    "Context",
    "CoversFunction",
    "Penalty",
    "ProxFunction",
    "Scheduled",
    "StartFunction",
    "Table",
    "TableRow",
    "ValueFunction",
    "activation",
    "activity_l1",
    "convert_lambda",
    "covered",
    "elastic_net",
    "elementwise",
    "firing_rate",
    "gradient_flossing",
    "group_lasso",
    "jacobian_norm",
    "l1",
    "l2",
    "non_normal",
    "norm_stabilizer",
    "nuclear",
    "omega",
    "path_norm",
    "scheduled",
    "singular_value_margin",
    "soft_orthogonality",
    "spectral_norm",
    "table",
    "temporal_activation",
    "to_identity",
]
