"""The regularisers: a line each, with the range of its strength and where it enters a run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import optax

import rnnreg as rr

NONE = "none"
FAMILIES = ("weights", "states", "gradients", "noise", "structure")


@dataclasses.dataclass(frozen=True)
class Method:
    """A regulariser of one strength.

    Attributes:
        name: in figures and tables.
        family: which of `FAMILIES`.
        program: methods of one program are compiled together, those that are off with a strength that does nothing.
        mild: the weak end of the range of strengths.
        strong: the strong end.
        log: whether strengths are spread evenly in their logarithm.
        off: the strength that does nothing.
        penalty: makes the penalty whose λ is the strength.
        option: argument of `rr.network` that is the strength.
        noise: field of `rr.Noise` that is the strength.
        step: makes of the strength a transformation of updates.
        last: whether that stands after the learning rate, as constraints do.
        cell: what is made of the cell.
        proximal: whether the penalty is taken by its proximal step.
        gated: whether it is defined for gated cells.
    """

    name: str
    family: str
    program: str
    mild: float = 0.0
    strong: float = 0.0
    log: bool = True
    off: float = 0.0
    penalty: Callable[[], rr.penalties.Penalty] | None = None
    option: str | None = None
    noise: str | None = None
    step: Callable[[Any], optax.GradientTransformation] | None = None
    last: bool = False
    cell: Callable[[rr.cells.Cell], rr.cells.Cell] | None = None
    proximal: bool = False
    gated: bool = True

    @property
    def key(self) -> str:
        """The name of its strength in `hyper`."""
        return re.sub(r"\W+", "_", self.name).lower()

    @property
    def tunable(self) -> bool:
        """Whether it has a strength."""
        return self.mild != self.strong

    def strength(self, share: float) -> float:
        """The strength at a share of its range, from 0 (mild) to 1 (strong).

        >>> round(METHODS["L2"].strength(0.5), 9), METHODS["max norm"].strength(1.0)
        (0.0001, 0.7)
        """
        if not self.tunable:
            return self.off
        if self.log:
            return float(self.mild * (self.strong / self.mild) ** share)
        return float(self.mild + share * (self.strong - self.mild))


def _weights(name: str, mild: float, strong: float, penalty: Callable[[], Any], **options: Any) -> Method:
    return Method(name, "weights", "weights", mild, strong, penalty=penalty, **options)


def _states(name: str, mild: float, strong: float, penalty: Callable[[], Any]) -> Method:
    return Method(name, "states", "states", mild, strong, penalty=penalty)


def _gradients(name: str, mild: float, strong: float, penalty: Callable[[], Any]) -> Method:
    return Method(name, "gradients", name, mild, strong, penalty=penalty)  # they are dear: a program for each


def _noise(name: str, mild: float, strong: float, log: bool = False, **where: str) -> Method:
    return Method(name, "noise", "noise", mild, strong, log, **where)  # type: ignore[arg-type]


def slow_skew(share: Any) -> optax.GradientTransformation:
    """A share of the learning rate for the skew matrices of `rr.parametrizations.orthogonal`."""

    def skew(params):
        return rr.with_leaves(params, {path: path.endswith("skew") for path in rr.leaf_paths(params)})

    return optax.masked(optax.scale(share), skew)


P, C = rr.penalties, rr.constraints
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(NONE, "none", "weights"),
        _weights("L2", 1e-6, 1e-2, P.l2),
        _weights("L2 of W_hh", 1e-6, 1e-2, lambda: P.l2("W_hh")),
        Method("L1, proximal", "weights", "L1", 1e-6, 1e-2, penalty=P.l1, proximal=True),
        _weights("elastic net", 1e-6, 1e-2, P.elastic_net),
        _weights("group lasso", 1e-5, 1e-1, P.group_lasso),
        _weights("nuclear norm", 1e-5, 1e-1, P.nuclear),
        _weights("spectral norm", 1e-4, 1.0, P.spectral_norm),
        _weights("soft orthogonality", 1e-4, 1.0, P.soft_orthogonality),
        _weights("singular-value margin", 1e-4, 1.0, P.singular_value_margin),
        _weights("non-normality", 1e-4, 1.0, P.non_normal),
        _weights("to identity", 1e-5, 1e-1, P.to_identity, gated=False),
        _weights("path norm", 1e-6, 1e-2, P.path_norm, gated=False),
        Method("decoupled decay", "weights", "states", 1e-3, 1.0, step=C.decoupled_decay),
        Method(
            "max norm", "weights", "states", 2.0, 0.7, off=1e6, last=True, step=lambda c: C.max_norm(c, paths="W_hh")
        ),
        _states("AR", 1e-3, 1.0, P.activation),
        _states("TAR", 1e-3, 1.0, P.temporal_activation),
        _states("norm stabiliser", 1e-3, 1.0, P.norm_stabilizer),
        _states("firing rate", 1e-3, 1.0, lambda: P.firing_rate(target=0.0)),
        _states("activity L1", 1e-3, 1.0, P.activity_l1),
        _gradients("Ω", 1e-3, 2.0, P.omega),
        _gradients("Jacobian norm", 1e-3, 1.0, lambda: P.jacobian_norm(num_directions=1, key=jax.random.key(0))),
        _gradients("flossing", 1e-2, 10.0, lambda: P.gradient_flossing(8, num_rows=1)),
        _noise("dropout", 0.05, 0.6, option="output_dropout"),
        _noise("recurrent dropout", 0.05, 0.5, option="recurrent_dropout"),
        _noise("zoneout", 0.02, 0.5, noise="zoneout"),
        _noise("DropConnect", 0.05, 0.5, noise="dropconnect"),
        _noise("weight noise", 3e-3, 0.1, log=True, noise="weight_noise"),
        _noise("recurrent noise", 3e-3, 0.3, log=True, noise="recurrent_noise"),
        # the strength is the share of the learning rate that the skew matrices have: at most 1, a tenth in the source
        Method(
            "orthogonal W_hh",
            "structure",
            "orthogonal",
            1.0,
            0.1,
            cell=lambda cell: rr.parametrizations.orthogonal(cell, method="cayley"),
            step=slow_skew,
            last=True,
        ),
        Method("layer norm", "structure", "layer norm", cell=rr.cells.layer_norm),
    )
}
