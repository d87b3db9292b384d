"""One static combination of a sweep: its lanes, what they share, their plan, and every check before it compiles."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._checks import check_key, described
from rnnreg.data import Split, check_target_times
from rnnreg.lanes import Calibration, Plan, for_part, load_calibration, make_plan
from rnnreg.losses import DataLoss
from rnnreg.networks import Network
from rnnreg.runtime import Kept, counter_based
from rnnreg.sweeps._axes import Axis, coarse_first, lane_values, narrowed, read_grid
from rnnreg.sweeps._carry import nothing, stored
from rnnreg.sweeps._describe import (
    describe_data,
    describe_function,
    describe_network,
    describe_optimizer,
    describe_penalties,
    describe_recurrence,
    digest,
)
from rnnreg.sweeps._dry_run import Estimate, Size, count_equations, estimate, size_of
from rnnreg.sweeps._files import tree_of
from rnnreg.sweeps._folds import Folds, check_batch_size, make_folds
from rnnreg.sweeps._lane import given_of
from rnnreg.sweeps._mixing import check_rows_apart
from rnnreg.sweeps._names import axes_of, plain_name
from rnnreg.sweeps._request import Request
from rnnreg.sweeps._starts import alike_for_every_key
from rnnreg.training import (
    Hyper,
    Progress,
    Run,
    Settings,
    Train,
    check_data,
    check_values,
    is_optimizer,
    num_outputs,
    whole,
)


@dataclasses.dataclass(frozen=True)
class Job:
    """One static combination, ready to compile.

    Attributes:
      static: its static values by name.
      train: the run.
      axes: the traced axes.
      lanes: hyperparameters, seed and fold number of every lane, `[L]` each, in the order of `shape`.
      shape: seeds × folds × axes; its product is L.
      shared: what all lanes share: data, folds, root key, parameters to start from.
      folds: rows, labels and sizes of the folds; None without.
      plan: how the lanes run.
      output: the shapes of one lane's run.
      progress: the shapes of what one lane carries from block to block, as `stored`.
      cost: what a lane costs, roughly.
      own_axes: by the name of what is tracked or scored, its axes next to those of the sweep and the epoch.
      alike: the parts of the network that start alike for every seed, if there are several.
      description: network, optimiser, penalties, scores and data, ready for JSON.
    """

    static: dict[str, Any]
    train: Train
    axes: list[Axis]
    lanes: dict[str, Any]
    shape: tuple[int, ...]
    shared: dict[str, Any]
    folds: Folds | None
    plan: Plan
    output: Run
    progress: Progress
    cost: Estimate
    own_axes: dict[str, list[str]]
    alike: list[str]
    description: dict[str, Any]

    def __str__(self) -> str:
        layers = self.description["recurrence"]["layers"]
        return "\n".join([str(self.plan), *(f"{name}: {why}" for name, why in layers.items())])

    @property
    def fold_labels(self) -> list[str] | None:
        """The folds' names; None without folds."""
        return None if self.folds is None else self.folds.labels

    @property
    def dims(self) -> list[str]:
        """The traced dimensions, in order."""
        return [axis.name for axis in self.axes] + ["seed"] + (["fold"] if self.folds else [])

    @property
    def order(self) -> np.ndarray:
        """The lanes in the order in which they run: seed by seed and fold by fold, the axes from coarse to fine."""
        return coarse_first(self.shape, self.axes)

    @property
    def call_seconds(self) -> float:
        """Estimated time of a call, if the lanes that a device runs together take as long as one after another."""
        return self.cost.lane_seconds * self.plan.width / self.plan.streams

    def inputs(self, numbers: np.ndarray) -> tuple[Any, Any]:
        """What a program of `one_block` is called with for some lanes: each of them, and what all share.

        They have not begun, and the block is all of their epochs.
        """
        lanes = jax.tree.map(lambda leaf: leaf[numbers], self.lanes)
        start = nothing(self.progress, len(numbers))
        return (lanes, start), (self.shared, np.int32(0), np.int32(self.train.settings.num_epochs))

    def by_label(self, lanes: np.ndarray) -> np.ndarray:
        """What there is of each lane, `[L, …]`, along the dimensions, `[*dims, …]`."""
        lanes = lanes.reshape(*self.shape, *lanes.shape[1:])
        last = len(self.axes)
        lanes = np.moveaxis(lanes, (0, 1), (last, last + 1))
        return lanes if self.folds else lanes.squeeze(last + 1)


def make_job(
    train: Any, data: Split, request: Request, *, static: dict[str, Any], params: Any = None
) -> Job:
    """Everything about one static combination that can be known, and checked, before it compiles."""
    _check_run(train, request)
    settings: Settings = train.settings
    axes, constants = read_grid(request.grid, settings.penalties, static)
    _check_rows(settings, data, request)
    if data.target_times is not None:
        check_target_times(data.target_times, len(data.train.ys))
    folds = make_folds(request.folds, data, refit=request.refit)
    check_batch_size(settings.batch_size, folds)
    lanes, shape = _lanes(axes, constants, request.seeds, folds)
    shared = {
        "data": jax.tree.map(jnp.asarray, data.replace(test={}, target_times=None)),
        "folds": None if folds is None else jax.tree.map(jnp.asarray, folds.rows),
        "key": counter_based(request.key),
        "params": params,
    }
    seen = _look(train, lanes, shared)
    taken = [*static, *(axis.name for axis in axes), "seed", "fold", "epoch"]
    num_tokens, _ = seen.description["network"].get("embedding") or (None, None)
    check_values(settings, data, seen.num_outputs, num_tokens)
    path = math.prod(shape[2:])  # which seeds and folds repeat
    _check_optimizers(train, {name: each[:path] for name, each in lanes["hyper"].items()})
    first = {name: each[0] for name, each in lanes["hyper"].items()}
    rates = load_calibration()
    rows = None if folds is None else folds.rows
    cost = estimate(settings, seen.size, data, rows, seen.output, rates)
    plan = _plan(len(lanes["seed"]), request, cost, rates, split=_adds_up(settings, seen))
    check_rows_apart(train, first, shared, folds, plan)
    return Job(
        static=static,
        train=train.split_rows(plan.devices) if plan.name == "split_rows" else train,
        axes=axes,
        lanes=lanes,
        shape=shape,
        shared=shared,
        folds=folds,
        plan=plan,
        output=seen.output,
        progress=seen.progress,
        cost=cost,
        own_axes=_own_axes(settings, seen.output, taken),
        alike=seen.alike if params is None and len(request.seeds) > 1 else [],
        description=_describe(settings, seen, data, folds, params),
    )


# ---- checks -----------------------------------------------------------------------------------------


def _check_run(train: Any, request: Request) -> None:
    if not isinstance(train, Train):
        raise ValueError(
            "train must come from rr.make_train, or be a function that returns one; got "
            f"{described(train)}. The order is (train, grid, data)."
        )
    check_key(request.key)


def _check_rows(settings: Settings, data: Split, request: Request) -> None:
    """Raises if data, folds, refit and the settings do not go together."""
    validates = settings.keep_best or settings.patience is not None
    if request.folds is not None and data.validation is not None:
        raise ValueError(
            "give folds or a validation set, not both: folds cut the training rows themselves. Drop one "
            "(data.replace(validation=None), or folds=None)."
        )
    if request.refit and request.folds is None:
        raise ValueError(
            "refit=True adds the fold 'all' to folds; without folds every run is on all rows."
        )
    if request.refit and validates:
        raise ValueError(
            "refit=True adds runs on all rows, which have nothing to validate on, and so no best epoch. Drop it, and "
            "call rr.selection.refit(train, result, rr.selection.choose(result), data, key=key): it takes the "
            "number of epochs that is best for all folds together, and trains on all rows for that many."
        )
    if request.folds is not None:  # the folds will be the validation set
        settings = settings._replace(keep_best=False, patience=None)
    check_data(settings, data)


def _check_optimizers(train: Train, hyper: dict[str, np.ndarray]) -> None:
    """Makes the optimiser of every value: one that refuses a number, such as a radius of 0, sees none in a trace."""
    if not is_optimizer(train.settings.optimizer):
        for values in dict.fromkeys(zip(*hyper.values(), strict=True)):
            train.optimizer(dict(zip(hyper, values, strict=True)))


# ---- parts of a job ---------------------------------------------------------------------------------


def _lanes(
    axes: list[Axis], constants: dict[str, float], seeds: np.ndarray, folds: Folds | None
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The values of every lane in the types of the run, and the shape of seeds × folds × axes."""
    lanes, shape = lane_values(axes, constants, seeds, 1 if folds is None else len(folds.labels))
    dtype = jnp.result_type(float)
    return {
        "hyper": {name: narrowed(name, each, dtype) for name, each in lanes["hyper"].items()},
        "seed": lanes["seed"].astype(np.uint32),
        "fold": lanes["fold"].astype(np.int32),
    }, shape


class _Seen(NamedTuple):
    """What one abstract run of a lane shows, without compiling; no array and no tracer is in it.

    Attributes:
      output: the shapes of its run.
      progress: the shapes of what it carries from block to block.
      num_outputs: O, of the network.
      size: what its network costs, by which lanes are planned.
      random: whether its network draws random numbers in training.
      alike: the parts of its network that start alike for every key.
      description: network, recurrence, optimiser and penalties, ready for JSON.
    """

    output: Run
    progress: Progress
    num_outputs: int
    size: Size
    random: bool
    alike: list[str]
    description: dict[str, Any]


_SEEN = Kept()


def _look(train: Train, lanes: dict[str, Any], shared: dict[str, Any]) -> _Seen:
    """What a lane shows; for equal shapes it is looked at once."""
    lane = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), lanes)
    leaves, structure = jax.tree.flatten((lane, shared))
    shapes = tuple((jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves)
    return _SEEN.get(train, (structure, shapes), lambda: _seen(train, lane, shared))


def _seen(train: Train, lane: dict[str, Any], shared: dict[str, Any]) -> _Seen:
    settings, seen = train.settings, {}
    xs = shared["data"].train.xs
    input_size = xs.shape[-1]

    def run(lane, shared):
        of_network, of_optimizer = (Hyper(lane["hyper"]) for _ in range(2))
        hyper, data, key, params = given_of(lane, shared)
        state, output = whole(train, hyper, data, key, params)
        net, params = train.network(of_network), output.params
        norm = output.history["gradient_norm"][0]
        carried = stored(Progress(state, output, norm, norm == 0))
        seen["progress"] = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), carried
        )
        tree_of(params)  # a tree that no file could hold is refused before it is trained
        # all that is wanted of the network is said here: it may hold tracers, which must not leave the trace
        fixed = isinstance(settings.net, Network)
        reads = None if fixed else sorted(of_network.reads)
        seen["network"] = describe_network(net, reads=reads)
        seen["recurrence"] = describe_recurrence(net, input_size)
        seen["penalties"] = describe_penalties(settings.penalties, net, params)
        seen["state"] = jax.eval_shape(train.optimizer(of_optimizer).init, params)
        seen["num_outputs"] = num_outputs(net, params, shared["data"].train)
        seen["optimizer_reads"] = sorted(of_optimizer.reads)
        seen["random"] = net.random
        seen["alike"] = alike_for_every_key(net, input_size if xs.ndim == 3 else None)
        seen["size"] = size_of(net, params)
        return output

    with jax.disable_jit(False):  # else every loop would be written out
        jaxpr, output = jax.make_jaxpr(run, return_shape=True)(lane, shared)

    def start():
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), output.params)
        return settings.optimizer.init(zeros)  # type: ignore[union-attr]

    reads = seen["optimizer_reads"] if not is_optimizer(settings.optimizer) else None
    described = {name: seen[name] for name in ("network", "recurrence", "penalties")}
    described["optimizer"] = describe_optimizer(seen["state"], reads=reads, start=start)
    size = seen["size"]._replace(equations=count_equations(jaxpr.jaxpr))
    return _Seen(
        output,
        seen["progress"],
        seen["num_outputs"],
        size,
        seen["random"],
        seen["alike"],
        described,
    )


def _adds_up(settings: Settings, seen: _Seen) -> bool:
    """Whether the objective is a mean over rows and nothing is drawn, so that split rows give equal sums."""
    return (
        not seen.random
        and isinstance(settings.loss, DataLoss)
        and settings.loss.mean_over_rows
        and not any(penalty.needs for penalty in settings.penalties.values())
    )


def _plan(
    num_lanes: int, request: Request, cost: Estimate, rates: Calibration, *, split: bool
) -> Plan:
    """How the lanes run; `split` allows the rows of a lone lane to be split unasked."""
    if request.kept is not None:
        return request.kept(num_lanes)
    plan = make_plan(
        num_lanes,
        lane_seconds=cost.lane_seconds,
        lane_bytes=cost.lane_bytes,
        hidden_size=cost.hidden_size,
        step_operations=cost.step_operations if split else 0.0,
        plan=request.plan,
        width=request.width,
        chunk=request.chunk,
        max_memory=request.max_memory,
        calibration=rates,
    )
    if isinstance(request.plan, Plan):
        return plan
    return for_part(plan, math.ceil(num_lanes * request.share))


def _own_axes(settings: Settings, output: Run, taken: list[str]) -> dict[str, list[str]]:
    """Names for the axes of what is tracked, and of scores that are arrays; raises if they do not fit."""
    if len(jax.tree.leaves(output.predictions)) > 1 or isinstance(
        output.predictions, (dict, tuple)
    ):
        raise ValueError(
            "the outputs of a network in a sweep must be one array, whose mean over seeds is scored; got "
            f"{type(output.predictions).__name__}. Join them along the last axis, and split them in the loss."
        )
    arrays = {
        plain_name(path): jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
        for path, leaf in output.history.items()
        if path.split("/")[0] in settings.track
    }
    named = {name: track.dims for name, track in settings.track.items() if track.dims is not None}
    for name in settings.metrics:  # training and validation rows are scored along the same axes
        both = [f"{rows}_{name}" for rows in ("train", "val") if f"{rows}_{name}" in output.metrics]
        shapes = {output.metrics[one].shape for one in both}
        axes = tuple(f"{name}.{axis}" for axis in range(len(shapes.copy().pop())))
        named |= {one: axes for one in both if len(shapes) == 1}
        arrays |= {one: output.metrics[one] for one in both}
    return axes_of(arrays, named, taken=taken)


def _describe(
    settings: Settings, seen: _Seen, data: Split, folds: Folds | None, params: Any
) -> dict[str, Any]:
    return {
        **seen.description,
        "loss": describe_function(settings.loss),
        "metrics": {name: describe_function(one) for name, one in settings.metrics.items()},
        "data": describe_data(data, folds),
        "start": None if params is None else digest(params),
    }
