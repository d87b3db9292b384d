"""The sweep itself: plan, compile, run call by call, label."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg.data import Batch, Fold, Split, as_split, stack_folds, take_fold
from rnnreg.lanes import Plan, Program, make_plan, tree_bytes
from rnnreg.penalties import leaf_paths
from rnnreg.runtime import environment
from rnnreg.sweep._axes import Axis, lane_values, read_grid, read_seeds, read_static
from rnnreg.sweep._result import Group, SweepResult
from rnnreg.training import Hyper, Run, Train, check_data

# Measured rates of one lane on one CPU core by hidden size, in 1e9 operations a second (Elman, plain scan).
_CORE_RATES = {8: 3.0, 16: 6.0, 32: 18.0, 64: 29.0, 128: 50.0}
_ACCELERATOR_STEP_SECONDS = 3e-5  # a step of a scan over many lanes is bound by launches


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What a sweep would do.

    Attributes:
      lanes: runs in all.
      updates: updates of one lane.
      compilations: programs to compile, one a static combination.
      bytes: memory of the stored result.
      seconds: rough estimate of the time of computing, from the number of operations; compilation
        comes on top.
      plans: how the lanes would run, one a static combination.
    """

    lanes: int
    updates: tuple[int, ...]
    compilations: int
    bytes: int
    seconds: float
    plans: tuple[Plan, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.lanes} lanes, {'/'.join(map(str, self.updates))} updates each, "
            f"{self.compilations} compilation(s), {self.bytes / 2**20:.1f} MiB of results, "
            f"about {self.seconds:.0f} s of computing (a rough estimate)",
            *(f"  {plan}" for plan in self.plans),
        ]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Job:
    """One static combination, ready to compile."""

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

    def lane(self, lane: dict[str, Any], shared: dict[str, Any]) -> Run:
        return _run_lane(self.train, lane, shared)


@overload
def sweep(
    train: Train | Callable[[Mapping[str, Any]], Train],
    grid: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    refit: bool = False,
    static: Mapping[str, Iterable[Any]] | None = None,
    plan: str = "auto",
    width: int | None = None,
    dry_run: Literal[False] = False,
    progress: bool = True,
) -> SweepResult: ...


@overload
def sweep(
    train: Train | Callable[[Mapping[str, Any]], Train],
    grid: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    refit: bool = False,
    static: Mapping[str, Iterable[Any]] | None = None,
    plan: str = "auto",
    width: int | None = None,
    dry_run: Literal[True],
    progress: bool = True,
) -> DryRun: ...


def sweep(
    train: Train | Callable[[Mapping[str, Any]], Train],
    grid: Mapping[str, Any],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    refit: bool = False,
    static: Mapping[str, Iterable[Any]] | None = None,
    plan: str = "auto",
    width: int | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> SweepResult | DryRun:
    """Every run of grid × seeds × folds, in one compiled program a static combination.

    Lanes differ by seed only in their key, `fold_in(key, seed)`: every λ, learning rate and fold shares its
    initialisation and order of rows, so differences are paired, and a longer grid or more seeds leave the
    old lanes as they were. A lane equals `train(hyper, take_fold(data, fold), key=fold_in(key, seed))`.

    Args:
      train: from `make_train`, or a function of the static values that returns one.
      grid: by name, a list of values (an axis), a number (no axis), or `rr.zipped(...)`; λ = 0 is welcome.
      data: the rows, or a function of the static values.
      key: root of all randomness.
      seeds: how many, or which.
      folds: a scikit-learn splitter, `rr.selection.blocked_folds(5)`, any function of the split, or a list of
        (training rows, validation rows).
      refit: add the fold "all", every run on all the training rows, in the same program.
      static: axes that set shapes, `{"hidden_size": [16, 32]}`, each combination compiled by itself.
      plan: "auto", "one_by_one" or "vmap"; how lanes run.
      width: lanes a call; None chooses.
      dry_run: print and return what would be done, and compile nothing.
      progress: show a bar on anything longer than a few seconds.

    Returns:
      A `SweepResult`; after Ctrl-C, one whose `finished` marks what was done. With `dry_run`, a `DryRun`.

    Raises:
      ValueError: bad arguments, before anything compiles.

    Warns:
      RuntimeWarning: lanes diverged, or the sweep was interrupted.
    """
    static = read_static(static)
    seed_numbers = read_seeds(seeds)
    jobs = []
    for combination in product(*static.values()):
        chosen = dict(zip(static, combination, strict=True))
        made = train if isinstance(train, Train) else train(chosen)
        if static and isinstance(train, Train):
            raise ValueError(
                f"static axes {list(static)} need `train` as a function of them, such as "
                "lambda static: rr.make_train(rr.network([rr.cells.elman(static['hidden_size'])], 1), …)."
            )
        rows = as_split(data(chosen) if callable(data) else data)
        jobs.append(
            _make_job(
                made, grid, rows, seed_numbers, folds, refit, chosen, static, key, plan, width
            )
        )
    if dry_run:
        described = _describe(jobs)
        print(described)
        return described
    return _run_jobs(jobs, grid, seed_numbers, static, progress)


def _make_job(train, grid, data, seeds, folds, refit, chosen, static, key, how, width) -> _Job:
    if not isinstance(train, Train):
        raise ValueError(
            f"train must come from rr.make_train, or be a function that returns one; got {train!r}."
        )
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
            "return their first parameters. Fix num_epochs, or choose it by rr.selection.choose(updates='common') "
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
    output, params = _trace(
        train, lanes, shared, [*constants, *(n for axis in axes for n in axis.values)]
    )
    updates, lane_seconds = _estimate(settings, data, stacked, params)
    lane_bytes = tree_bytes(output) + 4 * tree_bytes(params)
    plan = make_plan(
        len(lanes["seed"]), lane_seconds=lane_seconds, lane_bytes=lane_bytes, how=how, width=width
    )
    return _Job(
        chosen,
        train,
        axes,
        lanes,
        shape,
        shared,
        labels,
        sizes,
        plan,
        output,
        updates,
        lane_seconds,
    )


def _run_lane(
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
        pairs = splitter(np.zeros((len(ys), 1)), ys if ys.ndim == 1 else None)
    else:
        pairs = folds(data) if callable(folds) else folds
    stacked, labels = stack_folds(pairs, data, include_all=refit)
    sizes = stacked.validation_weights.sum(axis=1), stacked.train_weights.sum(axis=1)
    return stacked, labels, sizes


def _trace(train: Train, lanes, shared, names: list[str]):
    """Shapes of one lane's output, without compiling; raises where a name is never read."""
    lane = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), lanes)
    logs = []

    def run(lane, shared):
        logs.append(Hyper(lane["hyper"]))
        return _run_lane(train, lane, shared, logs[-1])

    output = jax.eval_shape(run, lane, shared)
    unread = [name for name in names if name not in logs[-1].reads]
    if unread:
        raise ValueError(
            f"unknown hyperparameter {unread[0]!r}: nothing in the run reads it; the run reads "
            f"{sorted(logs[-1].reads)}. A penalty reads the λ of its own name; optimizer and net read what their "
            "functions of hyper ask for."
        )
    return output, output.params


def _estimate(settings, data: Split, folds: Fold | None, params) -> tuple[int, float]:
    """Updates of a lane, and a rough time of one lane on one device."""
    num_rows = data.train.xs.shape[0] if folds is None else folds.train_rows.shape[1]
    batch = num_rows if settings.batch_size is None else settings.batch_size
    updates = settings.num_epochs * (-(-num_rows // batch))
    steps = data.train.xs.shape[1]
    leaves = leaf_paths(params)
    weights = sum(leaf.size for path, leaf in leaves.items() if path.split("/")[-1] != "W_embed")
    hidden = max(
        (leaf.shape[0] for path, leaf in leaves.items() if path.endswith("W_hh")), default=16
    )
    operations = 6.0 * batch * steps * weights * updates
    if jax.default_backend() == "cpu":
        sizes = sorted(_CORE_RATES)
        rate = float(np.interp(hidden, sizes, [_CORE_RATES[size] for size in sizes]))
        return updates, operations / (1e9 * rate) + updates * steps * 4e-6
    return updates, updates * steps * _ACCELERATOR_STEP_SECONDS


def _describe(jobs: list[_Job]) -> DryRun:
    def seconds(job):
        lanes = job.plan.num_lanes
        share = -(-lanes // len(job.plan.devices)) if job.plan.how == "one_by_one" else 1
        return share * job.lane_seconds

    return DryRun(
        lanes=sum(job.plan.num_lanes for job in jobs),
        updates=tuple(sorted({job.updates for job in jobs})),
        compilations=len(jobs),
        bytes=sum(job.plan.num_lanes * tree_bytes(job.output) for job in jobs),
        seconds=sum(map(seconds, jobs)),
        plans=tuple(job.plan for job in jobs),
    )


def _run_jobs(jobs, grid, seeds, static, progress) -> SweepResult:
    from tqdm.auto import tqdm

    total = sum(job.plan.num_lanes for job in jobs)
    datasets, groups, hashes = [], [], []
    seconds_compile = seconds_compute = 0.0
    interrupted = False
    bar = tqdm(total=total, unit="lane", desc="sweep", delay=3, disable=not progress)
    with bar:
        for job in jobs:
            store = _empty(job)
            finished = np.zeros(job.plan.num_lanes, dtype=bool)
            try:
                if not interrupted:
                    program = Program(job.lane, job.plan, job.lanes, job.shared)
                    seconds_compile += program.compile_seconds
                    hashes.append(program.fingerprint)
                    start = time.perf_counter()
                    for numbers, outputs in program.run(job.lanes, job.shared):
                        jax.tree.map(
                            lambda kept, new, n=numbers: kept.__setitem__(n, new), store, outputs
                        )
                        finished[numbers] = True
                        bar.update(len(numbers))
                        seconds_compute += time.perf_counter() - start
                        start = time.perf_counter()
            except KeyboardInterrupt:
                interrupted = True
            dataset, group = _label(job, store, finished, seeds)
            datasets.append(dataset)
            groups.append(group)
    metrics: Any = _join(datasets, static)
    config = {
        "grid": {name: _listed(value) for name, value in grid.items()},
        "seeds": [int(seed) for seed in seeds],
        "folds": jobs[0].fold_labels,
        "static": static,
        "dims": [axis.name for axis in jobs[0].axes]
        + ["seed"]
        + (["fold"] if jobs[0].fold_labels else []),
        "loss": getattr(jobs[0].train.settings.loss, "__name__", "loss"),
        "penalties": list(jobs[0].train.settings.penalties),
        "num_epochs": [job.train.settings.num_epochs for job in jobs],
        "batch_size": [job.train.settings.batch_size for job in jobs],
        "updates": [job.updates for job in jobs],
        "lanes": total,
        "compilations": len(hashes),
        "seconds_compile": seconds_compile,
        "seconds_compute": seconds_compute,
        "program_sha256": hashes,
        "interrupted": interrupted,
        "environment": environment(),
    }
    _warn(metrics, interrupted)
    return SweepResult(metrics, tuple(groups), config, "\n".join(str(job.plan) for job in jobs))


def _listed(value: Any) -> Any:
    values = getattr(value, "values", None)
    if isinstance(values, dict):
        return {name: array.tolist() for name, array in values.items()}
    return np.asarray(value, dtype=np.float64).tolist()


def _empty(job: _Job) -> Run:
    """Room for every lane's output, NaN until it is filled."""

    def room(leaf):
        fill = np.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else -1
        return np.full((job.plan.num_lanes, *leaf.shape), fill, dtype=leaf.dtype)

    return jax.tree.map(room, job.output)


def _label(job: _Job, store: Run, finished: np.ndarray, seeds: np.ndarray):
    import xarray as xr

    has_folds = job.fold_labels is not None
    shape = job.shape if has_folds else job.shape[:-1]
    dims = [axis.name for axis in job.axes] + ["seed"] + (["fold"] if has_folds else [])

    def shaped(leaf):
        return leaf.reshape(*shape, *leaf.shape[1:])

    store = jax.tree.map(shaped, store)
    variables: dict[str, Any] = {}
    for name, values in store.metrics.items():
        variables[_plain(name)] = (dims, values.astype(np.float64))
    for name, values in store.history.items():
        variables[f"history_{_plain(name)}"] = ([*dims, "epoch"], values.astype(np.float64))
    variables["diverged_at"] = (dims, store.diverged_at)
    variables["num_steps"] = (dims, store.num_steps)
    variables["finished"] = (dims, finished.reshape(shape))
    coords: dict[str, Any] = {"seed": seeds.astype(np.int64)}
    for axis in job.axes:
        coords[axis.name] = axis.labels
        coords.update({n: (axis.name, v) for n, v in axis.values.items() if n != axis.name})
    settings = job.train.settings
    num_records = next(iter(store.history.values())).shape[-1]
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


def _join(datasets: list[Any], static: dict[str, list[Any]]) -> Any:
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


def _plain(name: str) -> str:
    return name.replace("/", ".")  # netCDF names have no slash


def _ensemble(job: _Job, store: Run, ok: np.ndarray, has_folds: bool):
    """Scores of the mean prediction over seeds; NaN where any seed diverged or did not run."""
    settings = job.train.settings
    seed_axis = len(job.axes)
    predictions = _wide(store.predictions)
    extra = predictions.ndim - ok.ndim
    masked = np.where(ok.reshape(*ok.shape, *[1] * extra), predictions, np.nan)
    mean = masked.mean(axis=seed_axis)  # [axes..., (fold), row, ...]
    if not has_folds:
        mean = np.expand_dims(mean, seed_axis)
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
                # a NaN prediction must stay visible: losses leave out rows of weight 0 only
                values = np.asarray(score(outputs), dtype=np.float64).reshape(lead)
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


def _warn(metrics, interrupted: bool) -> None:
    finished = metrics["finished"]
    if interrupted:
        warnings.warn(
            f"the sweep was interrupted: {int(finished.sum())} of {finished.size} lanes are finished; "
            "result.metrics.finished marks them, all other values are NaN.",
            RuntimeWarning,
            stacklevel=4,
        )
    diverged = int((metrics["diverged_at"].values >= 0).sum())
    if diverged:
        warnings.warn(
            f"{diverged} of {finished.size} lanes diverged and were frozen at their last finite state; "
            "result.metrics.diverged_at holds the step, and their scores are NaN.",
            RuntimeWarning,
            stacklevel=4,
        )
