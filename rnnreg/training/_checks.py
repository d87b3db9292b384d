"""What is checked of the settings, the hyperparameters and the data of a run, before anything compiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rnnreg._checks import is_count, warn_caller
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split, check_batch, check_tokens
from rnnreg.losses import check_targets as check_targets_of
from rnnreg.metrics import as_function
from rnnreg.networks import Network
from rnnreg.penalties import Penalty, check_penalty
from rnnreg.training._segments import as_segment_steps, check_segments, check_targets
from rnnreg.training._settings import Hyper, Settings, as_hyper, is_optimizer
from rnnreg.training._track import Track

MOST_STEPS = 2**31 - 1


def checked(settings: Settings) -> Settings:
    """The settings with their defaults filled in.

    Raises:
      ValueError: one of them is out of range.
    """
    _check_counts(settings)
    record_every = _stride(settings)
    _check_functions(settings)
    penalties, metrics = settings.penalties, settings.metrics
    if penalties is not None and not isinstance(penalties, Mapping):
        raise ValueError(
            'penalties must be a dict by name, such as {"l2": rr.penalties.l2()}; got '
            f"{type(penalties).__name__}."
        )
    for name in metrics or {}:
        _check_metric_name(name)
    loss = as_function(settings.loss, "the loss", loss=True)
    metrics = {
        name: as_function(given, f"metrics[{name!r}]") for name, given in (metrics or {}).items()
    }
    _check_monitor(settings.monitor, metrics)
    for name, penalty in (penalties or {}).items():
        check_penalty(name, penalty)
    proximal = _proximal(settings.proximal, penalties or {})
    segment_steps = as_segment_steps(settings.segment_steps)
    if isinstance(settings.net, Network):  # else when the function of hyper has made it
        check_segments(settings.net, segment_steps)
    return settings._replace(
        loss=loss,
        penalties=dict(penalties or {}),
        num_epochs=int(settings.num_epochs),
        batch_size=None if settings.batch_size is None else int(settings.batch_size),
        patience=None if settings.patience is None else int(settings.patience),
        record_every=int(record_every),
        metrics=metrics,
        track={name: _as_track(name, given) for name, given in (settings.track or {}).items()},
        segment_steps=segment_steps,
        proximal=proximal,
    )


def _check_counts(settings: Settings) -> None:
    for name in ("num_epochs", "batch_size", "patience"):
        value = getattr(settings, name)
        if not is_count(value) and (name == "num_epochs" or value is not None):
            raise ValueError(f"{name} must be a positive int; got {value!r}.")
        if value is not None and value > MOST_STEPS:
            raise ValueError(
                f"{name} must be at most {MOST_STEPS}, as a run counts in 32 bits; got {value}."
            )


def _stride(settings: Settings) -> int:
    """Epochs between two records: as asked, or about as many as give 50 records (25 to 50, from 50 epochs on).

    One that divides the number of epochs is taken if there is one; else the last record comes early.
    """
    num_epochs, stride = settings.num_epochs, settings.record_every
    if stride is None:
        least = -(-num_epochs // 50)
        near = range(least, min(2 * least, least + 1000))
        return next((d for d in near if num_epochs % d == 0), least)
    if not is_count(stride) or num_epochs % stride:
        raise ValueError(
            f"record_every must be a positive int that divides num_epochs={num_epochs}; got {stride!r}."
        )
    return stride


def _check_functions(settings: Settings) -> None:
    loss, optimizer = settings.loss, settings.optimizer
    if hasattr(settings.net, "state_dict"):
        raise ValueError(
            f"net must be a Network or a function of hyper; got the PyTorch module {type(settings.net).__name__}. Make "
            "the same with rr.network, and take its weights with rr.convert.from_torch."
        )
    if not callable(loss):
        raise ValueError(
            f"loss must be a function such as rr.losses.squared_error('mean'); got {loss!r}."
        )
    if not callable(optimizer) and not is_optimizer(optimizer):
        raise ValueError(
            "optimizer must be an optax transformation or a function of hyper that returns one; got "
            f"{optimizer!r}."
        )


def _check_metric_name(name: Any) -> None:
    if name == "loss" or not str(name).isidentifier():
        raise ValueError(
            f"metrics may not be named {name!r}: 'loss' is the data loss itself, and a name is a word of letters, "
            "digits and _."
        )


def _check_monitor(monitor: str, metrics: Mapping[str, Any]) -> None:
    if monitor != "loss" and monitor not in metrics:
        plain = str(monitor).removeprefix("val_")
        cure = f" Write {plain!r}, without val_." if plain in ("loss", *metrics) else ""
        raise ValueError(
            f"monitor must be 'loss' or one of metrics, {sorted(metrics)}; got {monitor!r}.{cure}"
        )
    if monitor != "loss" and metrics[monitor].maximise is None:
        raise ValueError(
            f"monitor={monitor!r} has no direction, so nobody knows which value is the best: give "
            f"metrics={{{monitor!r}: rr.metrics.Score(function, maximise=True)}}, or maximise=False if less is better."
        )


def _proximal(given: Any, penalties: Mapping[str, Penalty]) -> tuple[str, ...]:
    """The names of the penalties that are taken by their prox.

    Raises:
      ValueError: a name of none, a penalty without a prox, or one that looks at states.
    """
    having = [name for name, penalty in penalties.items() if penalty.prox is not None]
    if isinstance(given, (bool, np.bool_)):
        names = having if given else []
        if given and not having:
            raise ValueError(
                f"proximal=True, and none of the penalties {list(penalties)} states a prox; l1, l2, elastic_net and "
                "elementwise(f, prox=…) do."
            )
    else:
        names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in penalties:
            raise ValueError(
                f"proximal must be True or names of penalties, {list(penalties)}; got {name!r}."
            )
        if name not in having or penalties[name].needs:
            cause = "looks at states" if name in having else "states no prox"
            raise ValueError(
                f"proximal={name!r}: the penalty {penalties[name].name!r} {cause}, so it can be taken by its gradient "
                f"only. Those with a prox are {having}."
            )
    return tuple(dict.fromkeys(names))


def warn_of_same(settings: Settings, covers: Mapping[str, list[str]]) -> None:
    """Warns if two penalties that were made alike shrink one leaf, one by its prox and one by its gradient.

    Args:
      settings: the static choices of a run.
      covers: by name of the penalty, the leaves that it covers.
    """
    factory = {name: _unscheduled(one).name for name, one in settings.penalties.items()}
    for name in settings.proximal:
        for other in [one for one in factory if one not in settings.proximal]:
            both = sorted(set(covers[name]) & set(covers[other]))
            if both and factory[name] == factory[other] != "custom":
                warn_caller(
                    f"penalties[{name!r}] is taken by its prox and penalties[{other!r}], the same one, by its "
                    f"gradient, and both shrink {both}: the two add up. Drop one of them."
                )


def _unscheduled(penalty: Penalty) -> Penalty:
    """What a schedule was put on."""
    inner = dict(penalty.arguments).get("penalty")
    return _unscheduled(inner) if isinstance(inner, Penalty) else penalty


def _as_track(name: str, given: Any) -> Track:
    """What is tracked under a name; a plain function has axes without names."""
    track = given if isinstance(given, Track) else Track(given)
    if not str(name).isidentifier() or not callable(track.function):
        raise ValueError(
            "track must be a dict of functions of (net, params, batch) by a word, such as {'flow': "
            f"rr.diagnostics.track_gradient_flow(loss)}}; got {name!r}: {given!r}."
        )
    return track


def check_hyper(settings: Settings, hyper: Mapping[str, Any]) -> None:
    """Raises where a penalty has no λ, or one that is no number, or where a concrete λ is negative or not finite."""
    for name in settings.penalties:
        lam = as_hyper(hyper)[name]
        if np.shape(lam):
            raise ValueError(
                f"hyper[{name!r}] must be one number, the λ of this run; got shape {np.shape(lam)}. Several runs are "
                "lanes: rr.sweep, or jax.vmap over the λ."
            )
        if not isinstance(lam, jax.core.Tracer):
            check_lambda(name, lam)


def check_lambda(name: str, values: Any) -> None:
    """Raises if one of the values of a λ is negative or not finite.

    Args:
      name: of the λ.
      values: one, or an array of them.

    Raises:
      ValueError: such a value.
    """
    values = np.asarray(values, dtype=np.float64)  # NumPy: jnp would trace a constant inside jit
    wrong = values[~np.isfinite(values) | (values < 0)]
    if wrong.size:
        raise ValueError(
            f"λ must be finite and not negative; {name!r} has {wrong[0]}. Did you mean 10**x?"
        )


def check_reads(hyper: Hyper) -> None:
    """Raises if a hyperparameter was given that a run, traced to its end, did not read."""
    unread = [name for name in hyper if name not in hyper.reads]
    if unread:
        raise ValueError(
            f"unknown hyperparameter {unread[0]!r}: nothing in the run reads it; the run reads "
            f"{sorted(hyper.reads)}. A penalty reads the λ of its own name; optimizer and net read what their "
            "functions of hyper ask for."
        )


def check_update(hyper: Any, batch: Any) -> None:
    """Raises if an update is called with its arguments in another order, or without a batch."""
    if isinstance(batch, Batch) and isinstance(hyper, Mapping):
        return
    raise ValueError(
        "an update is called as update(state, hyper, batch), with a dict of hyperparameters and then a Batch; got "
        f"hyper of type {type(hyper).__name__} and batch of type {type(batch).__name__}."
    )


def num_outputs(net: Network, params: Any, batch: Batch) -> int:
    """O of a network's outputs, whether or not it states it."""
    if net.output_size is not None:
        return net.output_size
    found = jax.eval_shape(lambda p, b: net.apply(p, b.xs, mask=b.mask).outputs, params, batch)
    return found.shape[-1]


def check_values(settings: Settings, data: Split, num_outputs: int, num_tokens: int | None) -> None:
    """Raises if a concrete token or target is one that network, loss or metrics cannot take, such as a class too many.

    Args:
      settings: the static choices of a run.
      data: the rows.
      num_outputs: O, of the network.
      num_tokens: of its embedding; None without.

    Raises:
      ValueError: such a value.
    """
    for name in ("train", "validation"):
        batch = getattr(data, name)
        if batch is not None:
            check_tokens(batch, num_tokens, name=f"data.{name}")
            for function in (settings.loss, *settings.metrics.values()):
                check_targets_of(function, batch, num_outputs, name=f"data.{name}")


@typed
def check_data(settings: Settings, data: Split) -> None:
    """Raises if the data cannot be trained on with these settings.

    Args:
      settings: the static choices of a run.
      data: the rows.

    Raises:
      ValueError: an array, a shape or a number of rows that does not fit.
    """
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
    segments = math.ceil(data.train.xs.shape[1] / (settings.segment_steps or math.inf)) or 1
    updates = (
        settings.num_epochs * segments * math.ceil(num_rows / (settings.batch_size or num_rows))
    )
    if updates > MOST_STEPS:
        raise ValueError(
            f"{settings.num_epochs} epochs of {num_rows} rows with batch_size={settings.batch_size} are {updates} "
            f"updates, and a run counts at most {MOST_STEPS}: take fewer epochs or larger batches."
        )
    if data.validation is None and (settings.keep_best or settings.patience is not None):
        raise ValueError(
            "keep_best and patience score a validation set, and the data has none; give Split(validation=…), "
            "or folds in a sweep."
        )
