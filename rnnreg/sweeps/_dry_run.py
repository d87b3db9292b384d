"""What a sweep would do, and roughly how long it would take."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax

from rnnreg._checks import printable
from rnnreg._memory import check_fits
from rnnreg._tree import leaf_paths, tree_bytes
from rnnreg.data import Fold, Split
from rnnreg.lanes import Calibration, Plan
from rnnreg.networks import Network, Stack, effective_shapes, recurrent_paths
from rnnreg.training import Run, Settings

# Of a program, and of each equation of a lane in it: ten programs of 1,200 to 5,900 equations took .66 to 1.64 times
# the sum, on two cores of a shared machine.
_COMPILE_SECONDS, _EQUATION_SECONDS = 2.5, 2.4e-3
_MOST = 2**62  # a plan counts bytes in 64 bits
_ACCELERATOR_STEP_SECONDS = 3e-5  # a step of a scan over many lanes is bound by launches


@dataclasses.dataclass(frozen=True, repr=False)
class DryRun:
    """What a sweep would do.

    Attributes:
      lanes: runs in all.
      updates: updates of one lane.
      compilations: programs to compile, one for each static combination.
      bytes: memory of the stored result.
      memory: estimated memory of the lanes that run at the same time, of the largest static combination.
      seconds: rough estimate of the whole time, of which
      seconds_compile: to compile, from the size of the program; less if programs are kept from an earlier sweep of the
        same `train`, or on disk (`rr.compilation_cache`). The rest is computing, from the number of operations.
      plans: how the lanes would run, one for each static combination.
    """

    lanes: int
    updates: tuple[int, ...]
    compilations: int
    bytes: int
    memory: int
    seconds: float
    seconds_compile: float
    plans: tuple[Plan, ...]

    def __repr__(self) -> str:
        lines = [
            f"{self.lanes} lanes, {'/'.join(map(str, self.updates))} updates each, "
            f"{self.compilations} compilation(s), {self.bytes / 2**20:.1f} MiB of results, "
            f"about {self.seconds_compile:.0f} s of compiling and "
            f"{self.seconds - self.seconds_compile:.0f} s of computing (a rough estimate)",
            *(f"  {plan}" for plan in self.plans),
        ]
        return printable("\n".join(lines))


def check_memory(jobs: list[Any]) -> None:
    """Raises if the results of the jobs, or one of their lanes, cannot fit into memory, whatever else runs.

    Raises:
      ValueError: they need more than there is in all.
    """
    lanes = sum(job.plan.num_lanes for job in jobs)
    records = max(job.output.history["train_loss"].shape[0] for job in jobs)
    check_fits(
        _result_bytes(jobs),
        f"what {lanes} lanes return, each its parameters, {records} records and predictions,",
        "Take fewer lanes or records (record_every), or a smaller network.",
    )
    for job in jobs:
        num_rows, steps = job.shared["data"].train.xs.shape[:2]
        rows = job.train.settings.batch_size or num_rows
        parameters = sum(leaf.size for leaf in jax.tree.leaves(job.output.params))
        parts = len(job.plan.devices) if job.plan.name == "split_rows" else 1
        check_fits(
            job.cost.least_bytes // parts,
            f"one lane, with {parameters} parameters and updates on {rows} rows of {steps} steps,",
            "Take a smaller hidden_size or batch_size, or rr.network(remat='sqrt'), which keeps fewer states.",
            job.plan.devices[0],
        )


def _result_bytes(jobs: list[Any]) -> int:
    return sum(job.plan.num_lanes * tree_bytes(job.output) for job in jobs)


def describe(jobs: list[Any]) -> DryRun:
    """What the jobs would do."""

    def seconds(job):
        plan = job.plan
        in_turn = 1 if plan.name == "vmap" else -(-plan.num_lanes // plan.streams)
        return in_turn * job.cost.lane_seconds

    compiling = sum(job.cost.compile_seconds for job in jobs)
    return DryRun(
        lanes=sum(job.plan.num_lanes for job in jobs),
        updates=tuple(sorted({job.cost.updates for job in jobs})),
        compilations=len(jobs),
        bytes=_result_bytes(jobs),
        memory=max(job.plan.memory for job in jobs),
        seconds=compiling + sum(map(seconds, jobs)),
        seconds_compile=compiling,
        plans=tuple(job.plan for job in jobs),
    )


class Estimate(NamedTuple):
    """What a lane costs, roughly.

    Attributes:
      updates: updates of a lane (with segments, where no segment is empty).
      lane_seconds: time of one lane on one device.
      compile_seconds: time to compile the program.
      lane_bytes: memory of one lane while it trains.
      least_bytes: memory without which no lane trains: what it carries from block to block, and the states of an update
        that its backward pass needs.
      hidden_size: H of the largest recurrent layer.
      step_operations: multiplications and additions of one step's recurrent products.
    """

    updates: int
    lane_seconds: float
    compile_seconds: float
    lane_bytes: int
    least_bytes: int
    hidden_size: int
    step_operations: float


class Size(NamedTuple):
    """What is known of a lane's program before it is compiled, and sets its cost.

    Attributes:
      hidden_size: H of the largest recurrent layer; 16 for a network without any.
      recurrent: the shapes of its recurrent matrices.
      embedding: numbers in its embedding; 0 without one.
      equations: of its jaxpr, those of its loops once.
      keeps_states: whether the backward pass has the states of all steps.
    """

    hidden_size: int
    recurrent: list[tuple[int, ...]]
    embedding: int = 0
    equations: int = 0
    keeps_states: bool = False


def size_of(net: Network, params: Any) -> Size:
    """The size of a network's part of a lane."""
    hidden = max((entry.cell.hidden_size for entry in net.layers), default=16)
    embedding = net.apply.embedding if isinstance(net.apply, Stack) else None
    formed = effective_shapes(net, params)
    leaves = leaf_paths(formed)
    shapes = [leaves[path].shape for path in recurrent_paths(net, formed)]
    keeps = isinstance(net.apply, Stack) and net.recurrence.remat == "full"
    return Size(hidden, shapes, math.prod(embedding or (0,)), keeps_states=keeps)


def count_equations(jaxpr: Any) -> int:
    """The equations of a jaxpr and of every one inside it."""
    inner = (
        getattr(part, "jaxpr", part)
        for equation in jaxpr.eqns
        for value in equation.params.values()
        for part in (value if isinstance(value, (tuple, list)) else (value,))
    )
    return len(jaxpr.eqns) + sum(count_equations(one) for one in inner if hasattr(one, "eqns"))


def estimate(
    settings: Settings,
    size: Size,
    data: Split,
    folds: Fold | None,
    output: Run,
    rates: Calibration,
) -> Estimate:
    """What a lane costs, from the number of operations and the measured rates of the device."""
    num_rows = data.train.xs.shape[0] if folds is None else folds.train_rows.shape[1]
    batch = num_rows if settings.batch_size is None else settings.batch_size
    epoch_rows = num_rows if folds is None or folds.epoch_rows is None else folds.epoch_rows
    minibatches = settings.num_epochs * max(1, -(-epoch_rows // batch))
    steps = data.train.xs.shape[1]
    segments = 1 if settings.segment_steps is None else -(-steps // settings.segment_steps)
    leaves = leaf_paths(output.params)
    # tokens pick rows of the embedding, and multiply nothing
    weights = sum(leaf.size for leaf in leaves.values()) - size.embedding
    hidden = size.hidden_size
    itemsize = max((leaf.dtype.itemsize for leaf in leaves.values()), default=4)
    # states and gates are stored for the backward pass, and their cotangents come back
    activations = 4 * num_rows * steps * sum(map(max, size.recurrent)) * itemsize
    of_update = math.ceil(steps / segments) if size.keeps_states else 0
    kept = batch * of_update * sum(min(shape[-2:]) for shape in size.recurrent) * itemsize
    operations = 6.0 * batch * steps * weights * minibatches
    if jax.default_backend() == "cpu":
        rate = rates.rate(hidden)
        seconds = operations / (1e9 * rate) + minibatches * steps * 4e-6
    else:
        seconds = minibatches * steps * _ACCELERATOR_STEP_SECONDS
    return Estimate(
        updates=minibatches * segments,
        lane_seconds=seconds,
        compile_seconds=_COMPILE_SECONDS + _EQUATION_SECONDS * size.equations,
        lane_bytes=min(tree_bytes(output) + 4 * tree_bytes(output.params) + activations, _MOST),
        least_bytes=tree_bytes(output) + tree_bytes(output.params) + kept,
        hidden_size=hidden,
        step_operations=2.0 * batch * sum(map(math.prod, size.recurrent)),
    )
