"""One static combination of a sweep: its lanes, what they share, their plan, and every check before it compiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg.data import Fold, Split, stack_folds, take_fold
from rnnreg.lanes import Plan, load_calibration, make_plan
from rnnreg.losses import squared_error
from rnnreg.networks import Network, explain
from rnnreg.sweeps._axes import Axis, lane_values, read_grid
from rnnreg.sweeps._dry_run import estimate
from rnnreg.sweeps._names import axes_of, plain_name
from rnnreg.training import Hyper, Run, Settings, Train, check_data


@dataclasses.dataclass(frozen=True)
class Job:
    """One static combination, ready to compile.

    Attributes:
      static: its static values by name.
      train: the run.
      axes: the traced axes.
      lanes: hyperparameters, seed and fold number of every lane, `[L]` each.
      shape: axes × seeds × folds, whose product is L.
      shared: what all lanes share: data, folds, root key.
      fold_labels: None without folds.
      fold_sizes: the sums of the weights of each fold's validation and training rows; None without folds.
      plan: how the lanes run.
      output: the shapes of one lane's run.
      updates: updates of a lane.
      lane_seconds: rough time of one lane on one device.
      recurrence: how the recurrence is computed: what was asked for, and by layer what runs and why.
      tracked: by the name of what is tracked, its axes beside those of the sweep and the epoch.
    """

    static: dict[str, Any]
    train: Train
    axes: list[Axis]
    lanes: dict[str, Any]
    shape: tuple[int, ...]
    shared: dict[str, Any]
    fold_labels: list[str] | None
    fold_sizes: tuple[np.ndarray, np.ndarray] | None
    plan: Plan
    output: Run
    updates: int
    lane_seconds: float
    recurrence: dict[str, Any]
    tracked: dict[str, list[str]]

    def __str__(self) -> str:
        layers = self.recurrence["layers"]
        return "\n".join([str(self.plan), *(f"{name}: {why}" for name, why in layers.items())])

    def lane(self, lane: dict[str, Any], shared: dict[str, Any]) -> Run:
        """One lane of this job."""
        return run_lane(self.train, lane, shared)

    @property
    def dims(self) -> list[str]:
        """The traced dimensions, in order."""
        return [axis.name for axis in self.axes] + ["seed"] + (["fold"] if self.fold_labels else [])


def make_job(
    train: Any,
    grid: Mapping[str, Any],
    data: Split,
    *,
    key: Array,
    seeds: np.ndarray,
    folds: Any,
    refit: bool,
    static: dict[str, Any],
    plan: str,
    width: int | None,
    chunk: int | None,
) -> Job:
    """Everything about one static combination that can be known, and checked, before it compiles."""
    if not isinstance(train, Train):
        raise ValueError(
            f"train must come from rr.make_train, or be a function that returns one; got {train!r}."
        )
    if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"key must come from jax.random.key(0); got {key!r}.")
    settings = train.settings
    axes, constants = read_grid(grid, settings.penalties, static)
    if folds is not None and data.validation is not None:
        raise ValueError(
            "give folds or a validation set, not both: folds cut the training rows themselves. Drop one "
            "(data.replace(validation=None), or folds=None)."
        )
    if refit and folds is None:
        raise ValueError(
            "refit=True adds the fold 'all' to folds; without folds every run is on all rows."
        )
    if refit and (settings.keep_best or settings.patience is not None):
        raise ValueError(
            "refit=True adds runs on all rows, which have nothing to validate on, so keep_best and patience would "
            "return their first parameters. Fix num_epochs, or choose it by rr.selection.choose(num_epochs='common') "
            "and call rr.selection.refit."
        )
    check_data(
        settings._replace(keep_best=False, patience=None) if folds is not None else settings, data
    )
    stacked, labels, sizes = _stack(folds, data, refit)
    if stacked is not None and settings.batch_size is not None:
        smallest = int(stacked.train_weights.sum(axis=1).min())
        if settings.batch_size > smallest:
            raise ValueError(
                f"batch_size={settings.batch_size} is larger than the {smallest} training rows of the smallest "
                "fold; use a smaller one, or batch_size=None."
            )
    lanes, shape = lane_values(axes, constants, seeds, 1 if labels is None else len(labels))
    dtype = jnp.result_type(float)
    lanes["hyper"] = {name: values.astype(dtype) for name, values in lanes["hyper"].items()}
    lanes = {
        **lanes,
        "seed": lanes["seed"].astype(np.uint32),
        "fold": lanes["fold"].astype(np.int32),
    }
    shared = {
        "data": jax.tree.map(jnp.asarray, data.replace(test={}, target_times=None)),
        "folds": None if stacked is None else jax.tree.map(jnp.asarray, stacked),
        "key": key,
    }
    output, recurrence, random = _trace(
        train, lanes, shared, [*constants, *(n for axis in axes for n in axis.values)]
    )
    dims = [*(axis.name for axis in axes), "seed", "fold", "epoch"]
    tracked = _axes_of_tracks(settings, output, [*static, *dims])
    # Rows may be split unasked where the objective is a mean over rows and nothing is drawn: the sums are then equal.
    separable = (
        not random
        and getattr(settings.loss, "__module__", None) == squared_error.__module__
        and not any(penalty.needs for penalty in settings.penalties.values())
    )
    rates = load_calibration()
    cost = estimate(settings, data, stacked, output, rates)
    chosen = make_plan(
        len(lanes["seed"]),
        lane_seconds=cost.lane_seconds,
        lane_bytes=cost.lane_bytes,
        hidden_size=cost.hidden_size,
        step_operations=cost.step_operations if separable else 0.0,
        plan=plan,
        width=width,
        chunk=chunk,
        calibration=rates,
    )
    if chosen.name == "split_rows":
        train = train.split_rows(chosen.devices)
    return Job(
        static=static,
        train=train,
        axes=axes,
        lanes=lanes,
        shape=shape,
        shared=shared,
        fold_labels=labels,
        fold_sizes=sizes,
        plan=chosen,
        output=output,
        updates=cost.updates,
        lane_seconds=cost.lane_seconds,
        recurrence=recurrence,
        tracked=tracked,
    )


def run_lane(
    train: Train, lane: dict[str, Any], shared: dict[str, Any], hyper: Hyper | None = None
) -> Run:
    """One lane: its fold of the data, its key, its run."""
    folds: Fold | None = shared["folds"]
    fold = None if folds is None else jax.tree.map(lambda leaf: leaf[lane["fold"]], folds)
    key = jax.random.fold_in(shared["key"], lane["seed"])
    return train(
        Hyper(lane["hyper"]) if hyper is None else hyper, take_fold(shared["data"], fold), key=key
    )


def _stack(folds: Any, data: Split, refit: bool):
    if folds is None:
        return None, None, None
    pairs: Any
    splitter = getattr(folds, "split", None)
    if splitter is not None:
        ys = np.asarray(data.train.ys)
        try:
            pairs = list(splitter(np.zeros((len(ys), 1)), ys if ys.ndim == 1 else None))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{type(folds).__name__} cannot split these rows ({error}). A stratified splitter needs class "
                "targets ys [N]; for groups pass list(splitter.split(X, y, groups))."
            ) from error
    elif callable(folds):
        pairs = folds(data)
    elif isinstance(folds, Iterable):
        pairs = folds
    else:
        raise ValueError(
            f"folds must be a splitter, a function of the split, or pairs of rows; got {folds!r}. For blocks of "
            f"time: rr.selection.blocked_folds({folds!r})."
        )
    stacked, labels = stack_folds(pairs, data, include_all=refit)
    weights = np.ones(len(data.train.ys)) if data.train.weights is None else data.train.weights
    weights = np.asarray(weights, dtype=np.float64)
    if data.train.mask is not None:
        weights = weights * np.any(np.asarray(data.train.mask) > 0, axis=1)
    sizes = (
        (stacked.validation_weights * weights[stacked.validation_rows]).sum(axis=1),
        (stacked.train_weights * weights[stacked.train_rows]).sum(axis=1),
    )
    for verb, values in zip(("validate", "train"), sizes, strict=True):
        for label, size in zip(labels, values, strict=True):
            if size == 0 and not (label == "all" and verb == "validate"):
                raise ValueError(
                    f"fold {label} leaves nothing to {verb} on: all its rows are masked or have weight 0."
                )
    return stacked, labels, sizes


def _trace(train: Train, lanes, shared, names: list[str]):
    """Shapes of one lane's output, how its recurrence runs, and whether it draws random numbers, without compiling.

    Raises where a name is never read.
    """
    lane = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), lanes)
    logs, networks = [], []

    def run(lane, shared):
        logs.append(Hyper(lane["hyper"]))
        net = train.settings.net
        networks.append(net if isinstance(net, Network) else net(Hyper(lane["hyper"])))
        return run_lane(train, lane, shared, logs[-1])

    output = jax.eval_shape(run, lane, shared)
    unread = [name for name in names if name not in logs[-1].reads]
    if unread:
        raise ValueError(
            f"unknown hyperparameter {unread[0]!r}: nothing in the run reads it; the run reads "
            f"{sorted(logs[-1].reads)}. A penalty reads the λ of its own name; optimizer and net read what their "
            "functions of hyper ask for."
        )
    described = _describe(networks[-1], output.params, shared["data"].train.xs.shape[-1])
    return output, described, networks[-1].random


def _axes_of_tracks(settings: Settings, output: Run, taken: list[str]) -> dict[str, list[str]]:
    """Names for the axes of what is tracked; raises where they do not fit, before anything compiles."""
    tracks = settings.track
    arrays = {
        plain_name(path): jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
        for path, leaf in output.history.items()
        if path.split("/")[0] in tracks
    }
    named = {name: track.dims for name, track in tracks.items() if track.dims is not None}
    return axes_of(arrays, named, taken=taken)


def _describe(net: Network, params: dict[str, Any], input_size: int) -> dict[str, Any]:
    if "embedding" in params:
        input_size = params["embedding"]["W_embed"].shape[1]
    chosen = explain(net, input_size=input_size)
    return net.recurrence._asdict() | {"layers": {name: str(why) for name, why in chosen.items()}}
