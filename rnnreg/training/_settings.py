"""The static choices of a run, the mapping of its traced hyperparameters, and what is made of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rnnreg._checks import described, printable
from rnnreg.losses import Loss, Metric
from rnnreg.metrics import function_name
from rnnreg.networks import Network
from rnnreg.penalties import Penalty
from rnnreg.training._contracts import NetworkFunction, OptimizerFunction
from rnnreg.training._segments import check_segments
from rnnreg.training._track import Track

if TYPE_CHECKING:
    import optax


class _NoAttributeError(AttributeError, ValueError):
    """To Python a name that is not there, to users a bad argument."""


class Hyper(dict):
    """All traced hyperparameters by name; remembers which were read, and says what is missing."""

    def __init__(self, values: Mapping[str, Any]):
        super().__init__(values)
        self.reads: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.reads.add(name)
        if name not in self:
            raise ValueError(
                f"the run reads the hyperparameter {name!r}, which was not given; got {sorted(self)}. Every "
                "penalty reads the λ of its own name, for example hyper={'l2': 1e-3, 'learning_rate': 1e-2}."
            )
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        """As of a dict; being there, it lets dict(hyper) and f(**hyper) read name by name."""
        return super().__iter__()

    def __getattr__(self, name: str) -> Any:
        raise _NoAttributeError(f"hyper is a dict: read hyper[{name!r}], and not hyper.{name}.")

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a name, which counts as read even if it is not there."""
        self.reads.add(name)
        return super().get(name, default)


class Settings(NamedTuple):
    """The static choices of a run, for records and for the rooms that plan and score it.

    Attributes:
      net: the network, or a function of `hyper` that makes it.
      loss: the data loss.
      penalties: by name.
      optimizer: the optimiser, or a function of `hyper` that makes it.
      num_epochs: passes over the training rows.
      batch_size: rows of each update; None for all of them.
      record_every: epochs between two records of the history.
      keep_best: whether the best parameters by validation loss are returned.
      patience: records without improvement after which the run stops; None never.
      metrics: further scores, by name, like losses.
      track: what is measured at each record, by name.
      devices: over which the rows of an update are split; None keeps them together.
      segment_steps: time steps of each update; None for whole sequences.
      monitor: the score on the validation rows by which the best record is told, "loss" or one of the metrics.
      proximal: the names of the penalties that are taken by their prox.
    """

    net: Network | NetworkFunction
    loss: Loss
    penalties: dict[str, Penalty]
    optimizer: optax.GradientTransformation | OptimizerFunction
    num_epochs: int
    batch_size: int | None
    record_every: int
    keep_best: bool
    patience: int | None
    metrics: dict[str, Metric]
    track: dict[str, Track]
    devices: tuple[Any, ...] | None = None
    segment_steps: int | None = None
    monitor: str = "loss"
    proximal: tuple[str, ...] = ()

    @property
    def maximise(self) -> bool:
        """Whether more of the monitored score is better."""
        return self.monitor != "loss" and bool(self.metrics[self.monitor].maximise)  # type: ignore[attr-defined]


def lines_of(settings: Settings) -> str:
    """The settings that were made, one a line; functions by their names."""
    shown = {
        "net": settings.net if isinstance(settings.net, Network) else "a function of hyper",
        "loss": function_name(settings.loss),
        "penalties": ", ".join(f"{name} ({one.name})" for name, one in settings.penalties.items()),
        "proximal": ", ".join(settings.proximal),
        "optimizer": type(settings.optimizer).__name__
        if is_optimizer(settings.optimizer)
        else "a function of hyper",
        "metrics": ", ".join(settings.metrics),
        "track": ", ".join(settings.track),
    }
    plain = (
        "num_epochs",
        "batch_size",
        "segment_steps",
        "record_every",
        "keep_best",
        "patience",
    )
    shown |= {name: getattr(settings, name) for name in plain}
    shown["monitor"] = settings.monitor if settings.monitor != "loss" else None
    return printable("".join(f"  {name}: {value}\n" for name, value in shown.items() if value))


def as_hyper(hyper: Mapping[str, Any]) -> Hyper:
    """The mapping as one that says what is missing; raises if it is no mapping to numbers."""
    if isinstance(hyper, Hyper):
        return hyper
    if not isinstance(hyper, Mapping):
        raise ValueError(
            f"hyper must be a dict of numbers by name, such as {{'l2': 1e-3}}; got {described(hyper)}. It comes before "
            "the data: train(hyper, data, key=key)."
        )
    for name, value in hyper.items():
        if value is None or isinstance(value, (str, bytes, list, tuple, complex, Mapping)):
            cure = " rr.sweep takes lists of values." if isinstance(value, (list, tuple)) else ""
            raise ValueError(f"hyper[{name!r}] must be a number; got {value!r}.{cure}")
    return Hyper(hyper)


def network_of(settings: Settings, hyper: Hyper) -> Network:
    """The network of a `hyper`, checked."""
    made = settings.net if isinstance(settings.net, Network) else settings.net(hyper)
    if not isinstance(made, Network):
        raise ValueError(
            f"net must be an rnnreg Network or a function that returns one; got {made!r}."
        )
    check_segments(made, settings.segment_steps)
    return made


def optimizer_of(settings: Settings, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
    """The optimiser of a `hyper`, checked."""
    import optax

    given = settings.optimizer
    try:
        made = given if is_optimizer(given) else given(hyper)  # type: ignore[operator]
    except TypeError as error:  # such as optax.adam, which was not called
        raise ValueError(
            f"optimizer is called with hyper and failed ({error}): give optax.adam(1e-2), or lambda hyper: "
            "optax.adam(hyper['learning_rate'])."
        ) from error
    if not is_optimizer(made):
        raise ValueError(
            "optimizer must return an optax transformation, as lambda hyper: "
            f"optax.adam(hyper['learning_rate']) does; got {type(made).__name__}."
        )
    if not isinstance(made, optax.GradientTransformation):  # such as optax.MultiSteps
        made = optax.GradientTransformationExtraArgs(made.init, made.update)
    return optax.with_extra_args_support(made)


def is_optimizer(given: Any) -> bool:
    """Whether something is an optax transformation: anything with `init` and `update`, such as `optax.MultiSteps`."""
    return all(callable(getattr(given, name, None)) for name in ("init", "update"))
