"""The static choices of a run, the mapping of its traced hyperparameters, and what is checked of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from rnnreg._checks import is_count
from rnnreg.data import Batch, Split, check_batch
from rnnreg.losses import Loss
from rnnreg.networks import Network
from rnnreg.penalties import NEEDS, Penalty
from rnnreg.training._segments import as_segment_steps, check_segments, check_targets
from rnnreg.training._track import Track


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

    def get(self, name: str, default: Any = None) -> Any:
        self.reads.add(name)
        return super().get(name, default)


class Settings(NamedTuple):
    """The static choices of a run, for records and for the rooms that plan and score it.

    Attributes:
      net: the network, or a function of `hyper` that makes it.
      loss: the data loss.
      penalties: by name.
      optimizer: function of `hyper`.
      num_epochs: passes over the training rows.
      batch_size: rows an update; None for all of them.
      record_every: epochs between two records of the history.
      keep_best: whether the best parameters by validation loss are returned.
      patience: records without improvement after which the run stops; None never.
      metrics: further scores, by name, like losses.
      track: what is measured at each record, by name.
      devices: over which the rows of an update are split; None keeps them together.
      segment_steps: time steps an update; None for whole sequences.
    """

    net: Any
    loss: Loss
    penalties: dict[str, Penalty]
    optimizer: Callable[[Mapping[str, Any]], optax.GradientTransformation]
    num_epochs: int
    batch_size: int | None
    record_every: int
    keep_best: bool
    patience: int | None
    metrics: dict[str, Loss]
    track: dict[str, Track]
    devices: tuple[Any, ...] | None = None
    segment_steps: int | None = None


def checked(settings: Settings) -> Settings:
    """The settings with their defaults filled in.

    Raises:
      ValueError: one of them is out of range.
    """
    loss, penalties, optimizer = settings.loss, settings.penalties, settings.optimizer
    num_epochs, batch_size, patience = settings.num_epochs, settings.batch_size, settings.patience
    record_every, metrics = settings.record_every, settings.metrics
    for name, value in (
        ("num_epochs", num_epochs),
        ("batch_size", batch_size),
        ("patience", patience),
    ):
        if name != "num_epochs" and value is None:
            continue
        if not is_count(value):
            raise ValueError(f"{name} must be a positive int; got {value!r}.")
    if record_every is None:  # at most 50 records
        divisors = (d for d in range(1, num_epochs + 1) if num_epochs % d == 0)
        record_every = next(d for d in divisors if num_epochs // d <= 50)
    if not is_count(record_every) or num_epochs % record_every:
        raise ValueError(
            f"record_every must be a positive int that divides num_epochs={num_epochs}; got {record_every!r}."
        )
    if not callable(loss):
        raise ValueError(
            f"loss must be a function such as rr.losses.squared_error('mean'); got {loss!r}."
        )
    if penalties is not None and not isinstance(penalties, Mapping):
        raise ValueError(
            'penalties must be a dict by name, such as {"l2": rr.penalties.l2()}; got '
            f"{type(penalties).__name__}."
        )
    for name in metrics or {}:
        if name == "loss" or not str(name).isidentifier():
            raise ValueError(
                f"metrics may not be named {name!r}: 'loss' is the data loss itself, and a name is a word of letters, "
                "digits and _."
            )
    for name, penalty in (penalties or {}).items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"{name!r} cannot name a penalty: use a word of letters, digits and _; its λ has the same name."
            )
        if not isinstance(penalty, Penalty):
            raise ValueError(
                f"penalties[{name!r}] must be a Penalty such as rr.penalties.l2(); got {penalty!r}. Its λ comes "
                "from hyper."
            )
        if not penalty.needs <= NEEDS:
            raise ValueError(
                f"penalties[{name!r}] needs {sorted(penalty.needs - NEEDS)[0]!r}; a penalty may need "
                f"{sorted(NEEDS)}."
            )
    if not callable(optimizer) and not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            "optimizer must be an optax transformation or a function of hyper that returns one; got "
            f"{optimizer!r}."
        )
    segment_steps = as_segment_steps(settings.segment_steps)
    if isinstance(settings.net, Network):  # else where the function of hyper has made it
        check_segments(settings.net, segment_steps)
    fixed = isinstance(optimizer, optax.GradientTransformation)
    return settings._replace(
        penalties=dict(penalties or {}),
        optimizer=(lambda hyper: optimizer) if fixed else optimizer,
        num_epochs=int(num_epochs),
        batch_size=None if batch_size is None else int(batch_size),
        patience=None if patience is None else int(patience),
        record_every=int(record_every),
        metrics=dict(metrics or {}),
        track={name: _as_track(name, given) for name, given in (settings.track or {}).items()},
        segment_steps=segment_steps,
    )


def _as_track(name: str, given: Any) -> Track:
    """What is tracked under a name; a plain function has axes without names."""
    track = given if isinstance(given, Track) else Track(given)
    if not str(name).isidentifier() or not callable(track.function):
        raise ValueError(
            "track must be a dict of functions of (net, params, batch) by a word, such as {'flow': "
            f"rr.diagnostics.track_gradient_flow(loss)}}; got {name!r}: {given!r}."
        )
    return track


def as_hyper(hyper: Mapping[str, Any]) -> Hyper:
    """The mapping as one that says what is missing."""
    return hyper if isinstance(hyper, Hyper) else Hyper(hyper)


def check_hyper(settings: Settings, hyper: Mapping[str, Any]) -> None:
    """Raises where a penalty has no λ, or where a concrete λ is negative or not finite."""
    for name in settings.penalties:
        lam = as_hyper(hyper)[name]
        if isinstance(lam, jax.core.Tracer):
            continue
        values = np.asarray(lam, dtype=np.float64)  # NumPy: jnp would trace a constant inside jit
        if not np.isfinite(values).all() or (values < 0).any():
            raise ValueError(f"λ must be finite and not negative; got {name}={lam}.")


def check_update(hyper: Any, batch: Any) -> None:
    """Raises if an update is called with its arguments in another order, or without a batch."""
    if isinstance(batch, Batch) and not isinstance(hyper, (Batch, Split)):
        return
    raise ValueError(
        "an update is called as update(state, hyper, batch), with a dict of hyperparameters and then a Batch; got "
        f"hyper of type {type(hyper).__name__} and batch of type {type(batch).__name__}."
    )


def check_data(settings: Settings, data: Split) -> None:
    """Raises where the data cannot be trained on with these settings."""
    check_batch(data.train, name="data.train")
    check_targets(data.train, settings.segment_steps, name="data.train")
    if data.validation is not None:
        check_batch(data.validation, name="data.validation")
    num_rows = data.train.xs.shape[0]
    if settings.batch_size is not None and settings.batch_size > num_rows:
        raise ValueError(
            f"batch_size={settings.batch_size} is larger than the {num_rows} training rows; use a smaller one, "
            "or batch_size=None for all rows at once."
        )
    if data.validation is None and (settings.keep_best or settings.patience is not None):
        raise ValueError(
            "keep_best and patience score a validation set, and the data has none; give Split(validation=…), "
            "or folds in a sweep."
        )
