"""Lanes of a result that run again, each alone: whether the numbers come back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._checks import is_count, printable
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split, as_split
from rnnreg.lanes import Plan, Program, make_plan, trace
from rnnreg.runtime import environment
from rnnreg.sweeps._axes import zipped
from rnnreg.sweeps._config import describe_job
from rnnreg.sweeps._facts import WRITTEN, lines_of, program_of
from rnnreg.sweeps._job import Job, make_job
from rnnreg.sweeps._label import recorded_epochs
from rnnreg.sweeps._lane import one_block
from rnnreg.sweeps._load import load_result
from rnnreg.sweeps._lookup import position
from rnnreg.sweeps._names import plain_name
from rnnreg.sweeps._request import Request
from rnnreg.sweeps._result import SweepResult
from rnnreg.training import Run, Train

# What a process decides, and what it runs by: this changes numbers by their rounding.
_PRECISION = ("x64", "matmul_precision")
_CODE = ("code", "rnnreg", "jax", "jaxlib", "optax", "backend")
_MACHINE = ("numpy", "processor", "device_kind", "optimised", "xla_flags")
_RAN = ("recurrence", "kernel", "plans", "updates", "program_sha256", "lane_program_sha256")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Verification:
    """Lanes that ran again.

    Attributes:
      lanes: n lanes, each by its labels.
      params: `[n]`, the largest |difference| of a parameter; infinite where one is a number and the other is none.
      history: `[n]`, the same of the history.
      metrics: `[n]`, the same of the final values, `num_updates` and `diverged_at`.
      equal: whether every number is equal, bit for bit.
      changed: in what machine, versions and plan differ from those of the result, in words.
      num_lanes: how many lanes the result has.
    """

    lanes: tuple[dict[str, Any], ...]
    params: np.ndarray
    history: np.ndarray
    metrics: np.ndarray
    equal: bool
    changed: tuple[str, ...]
    num_lanes: int

    def __repr__(self) -> str:
        parts = {name: getattr(self, name) for name in ("params", "history", "metrics")}
        worst = max(float(values.max()) for values in parts.values())
        found = "equal bit for bit" if self.equal else f"the largest difference is {worst:.2g}"
        lines = [f"{len(self.lanes)} of {self.num_lanes} lanes ran again, each alone: {found}"]
        for number, lane in enumerate(self.lanes):
            named = " ".join(f"{name}={value}" for name, value in lane.items()) or "the lane"
            apart = ", ".join(f"{name} {values[number]:.2g}" for name, values in parts.items())
            lines.append(f"  {named}: {apart}")
        lines += [f"  changed: {line}" for line in self.changed]
        return printable("\n".join(lines))


@typed
def verify(
    result: SweepResult | str | Path,
    train: Train | Callable[[Mapping[str, Any]], Train],
    data: Split | Batch | Callable[[Mapping[str, Any]], Split],
    *,
    folds: Any = None,
    params: Any = None,
    lanes: int | Sequence[Mapping[str, Any]] = 3,
) -> Verification:
    """Some lanes of a result run again, each alone: whether their numbers come back.

    A result says what its runs were, and holds no function and no data: they are given again, and are compared with
    what it says before anything runs. Lanes that ran one by one come back bit for bit on the same machine with the same
    versions, and lanes that ran in chunks, under `vmap` or with split rows up to rounding.

    Args:
      result: the result of a sweep, a part of one (`result.select`), or the path of a saved one.
      train: what the sweep was given.
      data: what the sweep was given.
      folds: what the sweep was given.
      params: what the sweep was given.
      lanes: how many of the finished lanes, drawn at random by the sweep's own key, so that the same are drawn again;
        or which, a list of labels.

    Returns:
      The differences by lane, and what of machine, versions and plan is another.

    Raises:
      ValueError: what is given is not what the sweep was given (the message names each field that differs), or no lane
        is finished.
      FileNotFoundError, OSError: as `rr.load_result`.

    >>> import optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=5)
    >>> result = rr.sweep(train, {"l2": [0, 1e-3]}, batch, seeds=2, key=jax.random.key(0),
    ...     plan="one_by_one", progress=False)
    >>> verify(result, train, batch, lanes=[{"l2": 1e-3, "seed": 1}])
    1 of 4 lanes ran again, each alone: equal bit for bit
      l2=0.001 seed=1: params 0, history 0, metrics 0
    """
    result = load_result(result) if isinstance(result, str | os.PathLike) else result
    if "path" in result.config:
        raise ValueError(
            "the result is a warm path, whose runs start from one another, and verify runs each alone: call "
            "rr.selection.warm_path again with the same arguments, and compare."
        )
    chosen = _chosen(result, lanes)
    found: list[_Apart | None] = [None] * len(chosen)
    changed: dict[str, None] = {}
    for number in range(len(result.groups)):
        own = [n for n, (group, _) in enumerate(chosen) if group == number]
        if not own:
            continue
        job, alone, lines = _again(result, number, train, data, folds=folds, params=params)
        changed |= dict.fromkeys(lines)
        labels = [chosen[n][1] for n in own]
        runs = _run_alone(job, alone, [_lane_number(job, result, each) for each in labels])
        for row, n in enumerate(own):
            run = jax.tree.map(lambda leaf, row=row: leaf[row], runs)
            found[n] = _compared(result, number, chosen[n][1], job, run)
    return _verification(result, [labels for _, labels in chosen], found, tuple(changed))


# ---- which lanes ------------------------------------------------------------------------------------


def _chosen(result: SweepResult, lanes: Any) -> list[tuple[int, dict[str, Any]]]:
    """The lanes that run again, each with the number of its group."""
    finished = result.metrics["finished"]
    names = [str(dim) for dim in finished.dims]

    def at(place):
        return {name: finished[name].values[n].item() for name, n in zip(names, place, strict=True)}

    if is_count(lanes):
        places = np.argwhere(finished.values)
        words = np.asarray(result.config["key"]["data"]).reshape(-1).tolist()
        order = np.random.default_rng(words).permutation(len(places))
        labels = [at(places[n]) for n in sorted(order[: int(lanes)])]
        if not labels:
            raise ValueError("no lane of this result is finished, so none can run again.")
    elif isinstance(lanes, Sequence) and lanes and all(isinstance(e, Mapping) for e in lanes):
        labels = []
        for each in lanes:
            number = result._group_number(each)
            place = result._place(each, None)
            if not result._is_finished(result.groups[number], place):
                raise ValueError(
                    f"the lane {dict(each)} did not finish, so it has nothing to compare."
                )
            own = {dim: result.metrics[dim].values[n].item() for dim, n in place.items()}
            labels.append(result.groups[number].static | own)
    else:
        raise ValueError(
            "lanes must be a positive number of lanes, or a list of labels such as [{'l2': 1e-3, 'seed': 0}]; got "
            f"{lanes!r}."
        )
    return [(result._group_number(each), each) for each in labels]


def _selected(result: SweepResult, number: int) -> dict[str, Any]:
    """The labels that are common to a result and were taken out of its dimensions, and the static values."""
    return result.config.get("selected", {}) | result.groups[number].static


def _lane_number(job: Job, result: SweepResult, labels: dict[str, Any]) -> int:
    """The number of a labelled lane among those of its job."""
    labels = result.config.get("selected", {}) | labels
    axes = {axis.name: axis.labels for axis in job.axes}
    coordinates = {"seed": np.asarray(result.config["seeds"])}
    coordinates["fold"] = np.asarray(job.fold_labels or ["0"])
    labels = labels if job.folds is not None else labels | {"fold": "0"}
    place = [position(name, each, labels, None) for name, each in (coordinates | axes).items()]
    return int(np.ravel_multi_index(place, job.shape))


# ---- the sweep again ----------------------------------------------------------------------------


def _again(
    result: SweepResult, number: int, train: Any, data: Any, *, folds: Any, params: Any
) -> tuple[Job, Train, list[str]]:
    """The job of a group as it was, its run for lanes that are alone, and what has changed; raises if it differs."""
    config = result.config
    traced = {*config["grid"], "seed", "fold"}
    static = {k: v for k, v in _selected(result, number).items() if k not in traced}
    labels = config["folds"]
    if (labels is None) != (folds is None):
        how = "had no folds" if labels is None else f"had the folds {labels}"
        raise ValueError(f"the sweep {how}: give verify(..., folds=…) what the sweep was given.")
    if (config["start"][number] is None) != (params is None):
        how = "drew its parameters" if params is not None else "started from given parameters"
        raise ValueError(f"the sweep {how}: give verify(..., params=…) what the sweep was given.")
    grid = {
        name: zipped(**values) if isinstance(values, dict) else values
        for name, values in config["grid"].items()
    }
    key = jax.random.wrap_key_data(
        jnp.asarray(config["key"]["data"], jnp.uint32), impl=config["key"]["impl"]
    )
    plan, devices = config["plans"][number], jax.local_devices()
    own = tuple(devices[: plan["devices"]])

    def kept(num_lanes: int) -> Plan:
        width = plan["width"] // plan["devices"] * len(own) or 1
        return Plan(plan["name"], width, plan["chunk"], own, num_lanes, "as it was")

    request = Request(
        grid,
        key,
        np.asarray(config["seeds"]),
        folds,
        "all" in (labels or ()),
        kept=kept,
    )
    rows: Any = data(static) if callable(data) else data
    made: Any = train if isinstance(train, Train) or not callable(train) else train(static)
    job = make_job(
        made,
        as_split(rows),
        request,
        static=static,
        params=params(static) if callable(params) else params,
    )
    return job, made, _changed(config, number, job)


def _changed(config: dict[str, Any], number: int, job: Job) -> list[str]:
    """What of machine, versions and plan is another; raises if what was given is another."""
    now, before = environment(), config["environment"]
    kept = json.loads(json.dumps({name: config[name][number] for name in config["by_group"]}))
    asked = json.loads(json.dumps(describe_job(job)))

    def between(names, one, other):
        return [line for name in names for line in lines_of(name, one.get(name), other.get(name))]

    wrong = between(_PRECISION, before, now)
    wrong += between([name for name in kept if name not in _RAN], kept, asked)
    code = between(_CODE, before, now) + between(("recurrence", "kernel"), kept, asked)
    fewer = between(("plans",), kept, asked)
    lines = code + fewer + between(_MACHINE, before, now)
    # the cores of a CPU run the program of one; other plans have another program for another number of devices
    alike = not fewer or (now["backend"] == "cpu" and asked["plans"]["name"] != "split_rows")
    if alike and not wrong and not _same_program(job, kept):
        (lines if code else wrong).append(f"program: {WRITTEN}")
    if wrong:
        raise ValueError(
            f"what is given is not what the sweep was given: {'; '.join(wrong)}. Give verify(result, train, data) what "
            "the sweep was given, in a process of the same precision."
        )
    return lines


def _same_program(job: Job, kept: dict[str, Any]) -> bool:
    """Whether a job has the program of the sweep: that of one lane if it had a folder, whose lanes may have run by the
    programs of other sweeps, with other folds; else that of its plan.
    """
    if kept.get("lane_program_sha256") is not None:
        return program_of(job)["program"] == kept["lane_program_sha256"]
    return _fingerprint(job) == kept["program_sha256"]


def _fingerprint(job: Job) -> str:
    """The SHA-256 of the program of a job's plan."""
    with jax.disable_jit(False):
        lanes, shared = job.inputs(np.arange(job.plan.num_lanes))
        traced = trace(lambda *own: one_block(job.train, *own), job.plan, lanes, shared)
        return hashlib.sha256(traced.lower().as_text().encode()).hexdigest()


def _run_alone(job: Job, train: Train, numbers: list[int]) -> Run:
    """The runs of some lanes, each in a call of its own."""
    plan = make_plan(len(numbers), plan="one_by_one", width=1, devices=jax.local_devices()[:1])
    lanes, shared = job.inputs(np.asarray(numbers))
    with jax.debug_nans(False):
        return Program(one_block, plan, lanes, shared, owner=train).collect(lanes, shared).run


# ---- differences --------------------------------------------------------------------------------

_Apart = dict[str, tuple[float, bool]]


def _compared(
    result: SweepResult, number: int, labels: dict[str, Any], job: Job, run: Run
) -> _Apart:
    """The largest difference of parameters, history and final values, and whether all of each are equal."""
    own = {dim: label for dim, label in labels.items() if dim in result.dims}
    stored = jax.tree.map(
        lambda leaf: leaf[tuple(result._place(own, None).values())], result.groups[number].params
    )
    metrics = result.metrics.sel(labels)
    epochs = recorded_epochs(job.train.settings, run.history)
    history = metrics.sel(epoch=epochs)
    last = {**run.metrics, "num_updates": run.num_updates, "diverged_at": run.diverged_at}
    pairs = {
        "params": zip(jax.tree.leaves(stored), jax.tree.leaves(run.params), strict=True),
        "history": [
            (history[f"history_{plain_name(n)}"].values, each) for n, each in run.history.items()
        ],
        "metrics": [(metrics[plain_name(n)].values, each) for n, each in last.items()],
    }
    apart = {name: [_apart(*pair) for pair in each] for name, each in pairs.items()}
    return {
        name: (max((a for a, _ in each), default=0.0), all(same for _, same in each))
        for name, each in apart.items()
    }


def _apart(stored: Any, new: Any) -> tuple[float, bool]:
    """The largest |difference| of two arrays, and whether they are equal; NaN is equal to NaN.

    Where static combinations have arrays of several lengths, the stored one is filled up.

    >>> _apart([1.0, np.nan, 9.0], [1.5, np.nan]), _apart([np.nan], [0.0])
    ((0.5, False), (inf, False))
    """
    new = np.asarray(new)
    stored = np.asarray(stored)[tuple(map(slice, new.shape))]
    new = new.astype(np.result_type(new, stored))
    same = (stored == new) | ((stored != stored) & (new != new))
    with np.errstate(invalid="ignore"):
        apart = np.abs(stored - new)
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    return float(apart.max(initial=0.0)), bool(same.all())


def _verification(
    result: SweepResult, labels: list[dict[str, Any]], found: Sequence[Any], changed: Any
) -> Verification:
    parts = {name: [each[name] for each in found] for name in ("params", "history", "metrics")}
    return Verification(
        lanes=tuple(labels),
        **{name: np.array([apart for apart, _ in each]) for name, each in parts.items()},
        equal=all(same for each in parts.values() for _, same in each),
        changed=changed,
        num_lanes=int(result.metrics["finished"].size),
    )
