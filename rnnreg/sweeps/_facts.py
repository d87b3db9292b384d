"""What decides the numbers of a job's lanes, by name: what a folder of kept lanes is compared by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rnnreg.data import Fold
from rnnreg.lanes import Plan, calls_python
from rnnreg.recurrence.native import kernel_library
from rnnreg.runtime import Kept, environment, weakly
from rnnreg.sweeps._describe import describe_key, digest
from rnnreg.sweeps._job import Job
from rnnreg.sweeps._lane import one_lane

_FORMAT = 3
_VERSIONS = ("rnnreg", "jax", "jaxlib", "numpy")
_MACHINE = ("processor", "backend", "x64", "matmul_precision", "optimised", "xla_flags")
_DESCRIBED = ("network", "optimizer", "penalties", "loss", "metrics")
_MOST_LINES = 5
# Why two programs differ of which all that is described is equal.
WRITTEN = (
    "a number or a function that is written into the program, such as a fixed learning rate, a loss or an activation, "
    "is another one"
)
_JITTED = Kept()


def facts_of(job: Job) -> dict[str, Any]:
    """Everything that the numbers of a job's lanes depend on beside what tells one lane from another, ready for JSON.

    Lanes may be added without changing it: hyperparameters, seeds, rows of folds and parameters to start from belong to
    a lane, see `lane_digests`.
    """
    now = environment()
    return {
        "format": _FORMAT,
        "static": job.static,
        "data": digest(job.shared["data"]),
        "key": describe_key(job.shared["key"]),
        "versions": {name: now[name] for name in _VERSIONS},
        "dtype": jnp.result_type(float).name,
        **{name: now[name] for name in _MACHINE},
        "plan": _decisive(job.plan),
        "recurrence": job.description["recurrence"]["layers"],
        "kernel": kernel_of(job),
        **program_of(job),
    }


def kernel_of(job: Job) -> str | None:
    """The name of the compiled kernel that a job's layers run in; None if none does."""
    layers = job.description["recurrence"]["layers"]
    native = any(str(why).startswith("native") for why in layers.values())
    library = kernel_library(jnp.result_type(float)).path if native else None
    return None if library is None else library.stem


def facts_of_plan(plan: Plan) -> dict[str, Any]:
    """All of a plan but the number of lanes, ready for JSON."""
    return {
        "name": plan.name,
        "width": int(plan.width),
        "chunk": int(plan.chunk),
        "devices": len(plan.devices),
    }


def _decisive(plan: Plan) -> dict[str, Any]:
    """What of a plan decides a lane's numbers: on a CPU, if each lane runs alone, neither width nor devices do."""
    alone = plan.name == "one_by_one" and plan.devices[0].platform == "cpu"
    return {"name": plan.name} if alone else facts_of_plan(plan)


def program_of(job: Job) -> dict[str, Any]:
    """The SHA-256 of one lane's lowered program, and whether that calls Python, whose code it does not hold.

    The lane trains and validates on as many rows as there are: the program of a sweep depends on the number and the
    lengths of its folds, which may grow, and those belong to the lanes.
    """
    lane = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), job.lanes)
    shared = dict(job.shared)
    if job.folds is not None:
        shared["folds"] = _any_fold(shared["folds"], len(shared["data"].train.ys))
    of = weakly(job.train)
    run = _JITTED.get(
        job.train, "lane", lambda: jax.jit(lambda lane, shared: one_lane(of(), lane, shared))
    )
    with jax.disable_jit(False), jax.debug_nans(False):
        text = run.lower(lane, shared).as_text()
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {"program": sha256, "calls_python": calls_python(text)}


def description_of(job: Job) -> dict[str, Any]:
    """What is known of a job's program in words: it tells why two programs differ, and decides nothing."""
    settings = job.train.settings
    return {
        **{name: job.description[name] for name in _DESCRIBED},
        "hyper": sorted(job.lanes["hyper"]),
        "folds": job.folds is not None,
        "starts_from_params": job.shared["params"] is not None,
        "num_epochs": settings.num_epochs,
        "batch_size": settings.batch_size,
        "segment_steps": settings.segment_steps,
        "record_every": settings.record_every,
        "keep_best": settings.keep_best,
        "patience": settings.patience,
        "proximal": list(settings.proximal),
        "monitor": settings.monitor,
        "track": sorted(settings.track),
        "predictions": job.output.predictions is not None,
    }


def lane_digests(job: Job) -> list[bytes]:
    """What tells each lane from the others: its hyperparameters, seed, rows of the fold and parameters to start from.

    A lane has the same digest wherever it stands in a grid.
    """
    start = digest(job.shared["params"])
    folds = [""]
    if job.folds is not None:
        rows, count = job.folds.rows, len(job.folds.labels)
        each = [jax.tree.map(lambda leaf, n=number: leaf[n], rows) for number in range(count)]
        # XLA drops an axis of length one, and may round otherwise: a lone fold is of another program
        folds = [f"{digest(fold)} {rows.epoch_rows} {count > 1}" for fold in each]
    hyper, seeds = job.lanes["hyper"], job.lanes["seed"]
    names = sorted(hyper)
    found = []
    for number, fold in enumerate(job.lanes["fold"]):
        values = [f"{name} {hyper[name][number].tobytes().hex()}" for name in names]
        text = "\n".join([*values, f"seed {seeds[number]}", f"fold {folds[fold]}", start])
        found.append(hashlib.sha256(text.encode()).digest())
    return found


def differences(
    kept: Mapping[str, Any], asked: Mapping[str, Any], *, described: tuple[Any, Any]
) -> list[str]:
    """The facts in which two jobs differ, in words such as "dtype: kept 'float32', asked 'float64'".

    Args:
      kept: facts, from JSON.
      asked: facts.
      described: what `description_of` gives for both; the first may be None.

    Returns:
      At most a few of them, and none if the facts are equal.
    """
    kept, asked = _as_json(kept), _as_json(asked)
    old, new = _as_json(described[0]), _as_json(described[1])
    plain = {name for name in (*kept, *asked) if name not in ("program", "calls_python")}
    found = [
        line
        for name in dict.fromkeys((*asked, *kept))
        if name in plain
        for line in lines_of(name, kept.get(name), asked.get(name))
    ]
    unlike = kept.get("program") != asked.get("program")
    if (unlike or asked.get("calls_python")) and old is not None:
        found += [line for name in new for line in lines_of(name, old.get(name), new[name])]
    if unlike and not found:
        found = [
            *lines_of("program", kept.get("program"), asked.get("program")),
            WRITTEN,
        ]
    more = len(found) - _MOST_LINES
    return found[:_MOST_LINES] + ([f"and {more} more"] if more > 0 else [])


def _any_fold(folds: Fold, num_rows: int) -> Fold:
    """The shapes of one fold that trains and validates on so many rows."""

    def row(leaf, *shape):
        return jax.ShapeDtypeStruct((1, *shape), leaf.dtype)

    return Fold(
        train_rows=row(folds.train_rows, num_rows),
        train_weights=row(folds.train_weights, num_rows),
        validation_rows=row(folds.validation_rows, num_rows),
        validation_weights=row(folds.validation_weights, num_rows),
        scaling=jax.tree.map(lambda leaf: row(leaf, *leaf.shape[1:]), folds.scaling),
        epoch_rows=num_rows,
    )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def lines_of(path: str, kept: Any, asked: Any) -> Iterator[str]:
    """Each number, text or list that differs below a path, in words."""
    if kept == asked:
        return
    if isinstance(kept, dict) and isinstance(asked, dict):
        for name in dict.fromkeys((*asked, *kept)):
            yield from lines_of(f"{path}.{name}", kept.get(name), asked.get(name))
    elif isinstance(kept, list) and isinstance(asked, list) and len(kept) == len(asked):
        for number, (old, new) in enumerate(zip(kept, asked, strict=True)):
            yield from lines_of(f"{path}[{number}]", old, new)
    else:
        yield f"{path}: kept {_short(kept)}, asked {_short(asked)}"


def _short(value: Any) -> str:
    text = repr(value)
    hashed = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    return f"{value[:12]}…" if hashed else text if len(text) <= 120 else f"{text[:117]}…"
