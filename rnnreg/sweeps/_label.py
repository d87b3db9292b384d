"""From the stored lanes to labels: metrics by dimension, scores of the mean prediction over seeds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg.data import take_fold
from rnnreg.sweeps._job import Job
from rnnreg.sweeps._names import plain_name
from rnnreg.sweeps._result import Group
from rnnreg.training import Run


def empty(job: Job) -> Run:
    """Room for every lane's output, NaN until it is filled."""

    def room(leaf):
        fill = np.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else -1
        return np.full((job.plan.num_lanes, *leaf.shape), fill, dtype=leaf.dtype)

    return jax.tree.map(room, job.output)


def label(job: Job, store: Run, finished: np.ndarray, seeds: np.ndarray) -> tuple[Any, Group]:
    """The stored lanes of a job as a Dataset of metrics, and a group of parameters and predictions."""
    import xarray as xr

    has_folds = job.fold_labels is not None
    shape = job.shape if has_folds else job.shape[:-1]
    dims = job.dims

    def shaped(leaf):
        return leaf.reshape(*shape, *leaf.shape[1:])

    store = jax.tree.map(shaped, store)
    variables: dict[str, Any] = {}
    for name, values in store.metrics.items():
        variables[plain_name(name)] = (dims, values.astype(np.float64))
    for name, values in store.history.items():
        name = plain_name(name)
        axes = [*dims, "epoch", *job.tracked.get(name, [])]
        variables[f"history_{name}"] = (axes, values.astype(np.float64))
    variables["diverged_at"] = (dims, store.diverged_at)
    variables["num_updates"] = (dims, store.num_updates)
    variables["finished"] = (dims, finished.reshape(shape))
    coords: dict[str, Any] = {"seed": seeds.astype(np.int64)}
    for axis in job.axes:
        coords[axis.name] = axis.labels
        coords.update({n: (axis.name, v) for n, v in axis.values.items() if n != axis.name})
    settings = job.train.settings
    num_records = store.history["train_loss"].shape[-1]
    coords["epoch"] = settings.record_every * (1 + np.arange(num_records))
    group = Group(job.static, store.params)
    if job.fold_sizes is not None:
        coords["fold"] = np.asarray(job.fold_labels)
        for name, sizes in zip(("fold_size", "fold_train_size"), job.fold_sizes, strict=True):
            variables[name] = (["fold"], sizes.astype(np.float64))
    if store.predictions is not None:
        ok = variables["finished"][1] & (store.diverged_at < 0)
        group, ensemble = _ensemble(job, store, ok, has_folds)
        for name, values in ensemble.items():
            variables[name] = ([d for d in dims if d != "seed"], values)
    dataset = xr.Dataset(variables, coords)
    for name, value in job.static.items():
        dataset = dataset.expand_dims({name: [value]})
    return dataset, group


def join(datasets: list[Any], static: dict[str, list[Any]]) -> Any:
    """The static combinations as one Dataset; what one of them lacks (a second layer, an epoch) is NaN."""
    import xarray as xr

    dims = {name: array.dims for dataset in datasets for name, array in dataset.data_vars.items()}

    def filled(dataset):
        missing = [name for name in dims if name not in dataset]
        shapes = {name: [dataset.sizes[dim] for dim in dims[name]] for name in missing}
        return dataset.assign(
            {name: (dims[name], np.full(shape, np.nan)) for name, shape in shapes.items()}
        )

    joined = [filled(dataset) for dataset in datasets]
    for name in reversed(static):  # the last axis varies fastest
        size = len(static[name])
        joined = [
            xr.concat(
                joined[start : start + size],
                name,
                data_vars="all",
                coords="minimal",
                compat="override",
                join="outer",
            )
            for start in range(0, len(joined), size)
        ]
    return joined[0].transpose(*static, ...)


def _ensemble(job: Job, store: Run, ok: np.ndarray, has_folds: bool):
    """Scores of the mean prediction over seeds; NaN where any seed diverged or did not run."""
    settings = job.train.settings
    seed_axis = len(job.axes)
    predictions = _wide(store.predictions)
    extra = predictions.ndim - ok.ndim
    masked = np.where(ok.reshape(*ok.shape, *[1] * extra), predictions, np.nan)
    mean = masked.mean(axis=seed_axis)  # [axes..., (fold), row, ...]
    alive = np.asarray(ok.all(axis=seed_axis))
    if not has_folds:
        mean, alive = np.expand_dims(mean, seed_axis), alive[..., None]
    data, folds = job.shared["data"], job.shared["folds"]
    scores = {f"ensemble_val_{name}": [] for name in ("loss", *settings.metrics)}
    targets, weights = [], []
    lead = mean.shape[:seed_axis]
    for number in range(mean.shape[seed_axis]):
        fold = None if folds is None else jax.tree.map(lambda leaf, n=number: leaf[n], folds)
        batch = take_fold(data, fold).validation
        assert batch is not None  # there are predictions
        row_weights = jnp.ones(len(batch.ys)) if batch.weights is None else batch.weights
        targets.append(_wide(batch.ys))
        weights.append(np.asarray(row_weights))
        outputs = jnp.asarray(
            np.take(mean, number, axis=seed_axis).reshape(-1, *mean.shape[seed_axis + 1 :])
        )
        for name, function in (("loss", settings.loss), *settings.metrics.items()):
            if not weights[-1].any():
                values = np.full(lead, np.nan)
            else:
                score = jax.vmap(lambda out, f=function, b=batch: f(out, b.ys, b.mask, b.weights))
                values = np.asarray(score(outputs), dtype=np.float64).reshape(lead)
                # a metric may turn NaN predictions into a number (argmax does)
                values = np.where(alive[..., number], values, np.nan)
            scores[f"ensemble_val_{name}"].append(values)
    stacked = {name: np.stack(values, axis=-1) for name, values in scores.items()}
    if not has_folds:
        stacked = {name: values[..., 0] for name, values in stacked.items()}
    group = Group(job.static, store.params, predictions, np.stack(targets), np.stack(weights))
    return group, stacked


def _wide(values: Any) -> np.ndarray:
    """At least float32, in which means are taken and files are written; integers as they are."""
    values = np.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return values
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
