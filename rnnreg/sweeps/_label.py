"""From the stored lanes to labels: metrics by dimension, scores of the mean prediction over seeds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._checks import warn_caller
from rnnreg._linalg import widen
from rnnreg.data import Batch, row_weights, take_fold
from rnnreg.sweeps._group import Group
from rnnreg.sweeps._job import Job
from rnnreg.sweeps._names import plain_name
from rnnreg.training import Run, Settings


def empty(job: Job) -> Run:
    """Room for every lane's output, NaN until it is filled."""

    def room(leaf):
        fill = np.nan if jnp.issubdtype(leaf.dtype, jnp.inexact) else -1
        return np.full((job.plan.num_lanes, *leaf.shape), fill, dtype=leaf.dtype)

    return jax.tree.map(room, job.output)


def label(
    job: Job, store: Run, finished: np.ndarray, seeds: np.ndarray, *, ensembles: bool = True
) -> tuple[Any, Group]:
    """The stored lanes of a job as a Dataset of metrics, and a group of parameters and predictions.

    Without `ensembles`, neither predictions nor scores of their means are there, which take time.
    """
    import xarray as xr

    store, finished = jax.tree.map(job.by_label, (store, finished))
    variables = _variables(job, store) | {"finished": (job.dims, finished)}
    group = Group(job.static, store.params)
    if store.predictions is not None and ensembles:
        ok = finished & (store.diverged_at < 0)
        group, ensemble = _ensemble(job, store, ok)
        dims = [dim for dim in job.dims if dim != "seed"]
        for name, values in ensemble.items():
            own = job.own_axes.get(name.removeprefix("ensemble_"), [])
            variables[name] = ([*dims, *own], values)
    dataset = xr.Dataset(variables, _coordinates(job, store, seeds))
    for name, value in job.static.items():
        dataset = dataset.expand_dims({name: [value]})
    return dataset, group


def _variables(job: Job, store: Run) -> dict[str, Any]:
    """Final values, histories and sizes of folds by name, each with its dimensions."""
    dims = job.dims
    variables: dict[str, Any] = {}
    for name, values in store.metrics.items():
        name = plain_name(name)
        variables[name] = ([*dims, *job.own_axes.get(name, [])], values.astype(np.float64))
    for name, values in store.history.items():
        name = plain_name(name)
        axes = [*dims, "epoch", *job.own_axes.get(name, [])]
        variables[f"history_{name}"] = (axes, values.astype(np.float64))
    variables["diverged_at"] = (dims, store.diverged_at)
    variables["num_updates"] = (dims, store.num_updates)
    if job.folds is not None:
        variables["fold_size"] = (["fold"], job.folds.sizes.astype(np.float64))
        variables["fold_train_size"] = (["fold"], job.folds.train_sizes.astype(np.float64))
    return variables


def _coordinates(job: Job, store: Run, seeds: np.ndarray) -> dict[str, Any]:
    """The labels of every dimension, and the hyperparameters along zipped ones."""
    coords: dict[str, Any] = {"seed": seeds.astype(np.int64)}
    for axis in job.axes:
        coords[axis.name] = axis.labels
        coords.update({n: (axis.name, v) for n, v in axis.values.items() if n != axis.name})
    coords["epoch"] = recorded_epochs(job.train.settings, store.history)
    if job.folds is not None:
        coords["fold"] = np.asarray(job.folds.labels)
    return coords


def recorded_epochs(settings: Settings, history: dict[str, Any]) -> np.ndarray:
    """`[R]`, the epochs after which a history was recorded."""
    num_records = history["train_loss"].shape[-1]
    epochs = settings.record_every * (1 + np.arange(num_records))
    return np.minimum(epochs, settings.num_epochs)


def _ensemble(job: Job, store: Run, ok: np.ndarray) -> tuple[Group, dict[str, np.ndarray]]:
    """Scores of the mean prediction over seeds; NaN where any seed diverged or did not run."""
    seed_axis = len(job.axes)
    predictions = widen(store.predictions)
    extra = predictions.ndim - ok.ndim
    masked = np.where(ok.reshape(*ok.shape, *[1] * extra), predictions, np.nan)
    mean = masked.mean(axis=seed_axis)  # [axes..., (fold), row, ...]
    alive = np.asarray(ok.all(axis=seed_axis))
    if job.folds is None:
        mean, alive = np.expand_dims(mean, seed_axis), alive[..., None]
    batches = [_validation(job, number) for number in range(mean.shape[seed_axis])]
    scores = [
        _scores(job, batch, np.take(mean, number, axis=seed_axis), alive[..., number])
        for number, batch in enumerate(batches)
    ]
    stacked = {name: np.stack([each[name] for each in scores], seed_axis) for name in scores[0]}
    if job.folds is None:
        stacked = {name: values.squeeze(seed_axis) for name, values in stacked.items()}
    targets = np.stack([widen(np.asarray(batch.ys)) for batch in batches])
    weights = np.stack([np.asarray(row_weights(batch)) for batch in batches])
    return Group(job.static, store.params, predictions, targets, weights), stacked


def _validation(job: Job, number: int) -> Batch:
    """The validation rows of a fold."""
    data, folds = job.shared["data"], job.shared["folds"]
    fold = None if folds is None else jax.tree.map(lambda leaf: leaf[number], folds)
    batch = take_fold(data, fold).validation
    assert batch is not None  # there are predictions
    return batch


def _scores(job: Job, batch: Batch, mean: np.ndarray, alive: np.ndarray) -> dict[str, np.ndarray]:
    """Loss and metrics of mean predictions `[axes..., row, …]` on the rows of one fold."""
    settings, scores = job.train.settings, {}
    outputs = jnp.asarray(
        mean[alive]
    )  # a metric may refuse NaN, or make a number of it (argmax does)
    for name, function in {"loss": settings.loss, **settings.metrics}.items():
        own = job.output.metrics[f"val_{name}"].shape
        values = np.full((*alive.shape, *own), np.nan)
        if len(outputs) and np.asarray(row_weights(batch)).any():
            # one by one: a score may call what does not batch, and the lanes are trained already
            try:
                values[alive] = [function(o, batch.ys, batch.mask, batch.weights) for o in outputs]
            except Exception as error:  # it may not cost the lanes
                warn_caller(
                    f"the metric {name!r} fails on the mean prediction of all seeds, and ensemble_val_{name} is NaN: "
                    f"{error!r}."
                )
        scores[f"ensemble_val_{name}"] = values
    return scores
