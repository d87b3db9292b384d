"""A function of one lane, compiled once for all lanes of a plan."""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rnnreg._checks import warn_caller
from rnnreg._signatures import typed
from rnnreg._tree import leaf_paths
from rnnreg.lanes._calls import calls, executions, first_call, homes, inputs
from rnnreg.lanes._plan import Plan, make_plan
from rnnreg.runtime import Kept, weakly

_JITTED, _COMPILED, _BY_TEXT = Kept(), Kept(), Kept()
# The text of a program does not say which function of Python it calls.
_PYTHON = ("callback", "host_transfer")


class Program:
    """A function of one lane, compiled once for all lanes of a plan.

    `function(lane, shared) -> outputs`: `lane` is a tree of one lane's values, `shared` is the same for
    all. It is compiled for the shapes of `lanes` and `shared`; `run` takes any values of those shapes.

    With an `owner` it is `function(owner, lane, shared)`, a function of the module, and what is compiled is kept for
    as long as the owner lives: the next program of the same owner, function, plan and shapes compiles nothing. Nor does
    one of another owner that is the same to the letter, of the last few. As under `jax.jit`, the function is pure; an
    owner that is itself a function is compiled anew if a name that stands in it means another thing than before.

    Attributes:
      plan: the plan.
      fingerprint: SHA-256 of the lowered program.
      compile_seconds: how long it took to lower and compile.
      compiled_now: whether it was compiled, and not kept from before.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        plan: Plan,
        lanes: Any,
        shared: Any,
        *,
        owner: Any = None,
    ):
        self.plan, self.compiled_now = plan, False
        start = time.perf_counter()
        if jax.config.jax_disable_jit:
            warn_caller(
                "jax_disable_jit is on, and lanes are compiled all the same. To step through one run, call "
                "train(hyper, data, key=key)."
            )
        with jax.disable_jit(False):
            call = first_call(plan, lanes)
            found = [
                self._compiled(_jitted(function, plan, owner), home, call, shared, owner)
                for home in homes(plan)
            ]
        self._one_thread = _one_blas_thread(plan)
        self.fingerprint, self._runs = found[0].fingerprint, [each.run for each in found]
        self.compile_seconds = time.perf_counter() - start

    def _compiled(self, jitted: Any, home: Any, call: Any, shared: Any, owner: Any) -> _Compiled:
        """The program, compiled for a device, or for all of a plan (None)."""
        with nullcontext() if home is None else jax.default_device(home):
            traced = jitted.trace(call, shared)

            def compiled():
                lowered = traced.lower()
                text = lowered.as_text()
                fingerprint = hashlib.sha256(text.encode()).hexdigest()

                def compile_now():
                    self.compiled_now = True
                    return _interruptible(lowered.compile)

                # another owner may have the same program: a network that was made again, of another sweep
                where = self.plan.devices if home is None else home
                alike = (fingerprint, lowered.in_tree, lowered.out_tree, *_settings(), where)
                run = (
                    compile_now()
                    if calls_python(text)
                    else _BY_TEXT.get(Program, alike, compile_now)
                )
                return _Compiled(traced.jaxpr, fingerprint, run)

            # jax.jit has one jaxpr for equal shapes and settings of JAX, and keeps it
            key = (id(traced.jaxpr), home, self.plan.devices)
            return compiled() if owner is None else _COMPILED.get(owner, key, compiled)

    @typed
    def run(self, lanes: Any, shared: Any) -> Iterator[tuple[np.ndarray, Any]]:
        """The lanes, call by call.

        Args:
          lanes: a tree whose leaves have a leading axis of lanes, `[L, …]`.
          shared: what all lanes share.

        Yields:
          Lane numbers `[n]`, and their outputs in NumPy, leaves `[n, …]`.
        """
        _check_lanes(lanes, self.plan)
        for numbers, rows in self.calls():
            chunk = jax.tree.map(lambda leaf, rows=rows: leaf[rows], lanes)
            outputs = jax.tree.map(np.asarray, self(chunk, shared))
            true = numbers == rows
            yield numbers[true], jax.tree.map(lambda leaf, true=true: leaf[true], outputs)

    def calls(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Which lanes run in which call.

        Yields:
          The places of each call, `[width]`, and the lane number in each; the last lane fills up the last call.
        """
        for numbers in calls(self.plan):
            yield numbers, np.minimum(numbers, self.plan.num_lanes - 1)

    def __call__(self, chunk: Any, shared: Any) -> Any:
        """The lanes of one call; Ctrl-C need not wait for them.

        Args:
          chunk: the lanes, leaves `[width, …]`.
          shared: what all lanes share.

        Returns:
          Their outputs, leaves `[width, …]`.
        """
        places = [
            (home, run, shared if home is None else jax.device_put(shared, home))
            for home, run in zip(homes(self.plan), self._runs, strict=True)
        ]
        given, stop_at_nan = [], jax.config.jax_debug_nans
        dealt = executions(self.plan)
        for place, own in dealt:
            home, run, everywhere = places[place]
            each = [inputs(self.plan, rows, chunk) for rows in own]
            given.append((run, each if home is None else jax.device_put(each, home), everywhere))

        def outputs(run, each, shared):  # settings of JAX are those of a thread
            with jax.disable_jit(False), jax.debug_nans(stop_at_nan):
                return [jax.block_until_ready(run(one, shared)) for one in each]

        def all_outputs():
            if len(given) == 1:
                return outputs(*given[0])
            with futures.ThreadPoolExecutor(len(given)) as pool:
                return list(itertools.chain(*pool.map(outputs, *zip(*given, strict=True))))

        with self._one_thread():
            found = _interruptible(all_outputs)
        rows = np.concatenate([rows.reshape(-1) for _, own in dealt for rows in own])
        if len(found) == 1 and (rows >= 0).all():
            return found[0]  # still on its device
        return jax.tree.map(lambda *each: np.concatenate(each)[rows >= 0], *found)

    @typed
    def collect(self, lanes: Any, shared: Any) -> Any:
        """The outputs of all lanes.

        Args:
          lanes: a tree whose leaves have a leading axis of lanes, `[L, …]`.
          shared: what all lanes share.

        Returns:
          A tree in NumPy, leaves `[L, …]`, in the order of the lanes.
        """
        numbers, outputs = zip(*self.run(lanes, shared), strict=True)
        order = np.argsort(np.concatenate(numbers))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *outputs)


def _check_lanes(lanes: Any, plan: Plan) -> None:
    """Raises unless every leaf has an entry for each lane of the plan: JAX would repeat the last one."""
    for path, leaf in leaf_paths(lanes).items():
        if jnp.ndim(leaf) < 1 or len(leaf) != plan.num_lanes:
            name = f"lanes[{path!r}]" if path else "lanes"
            raise ValueError(
                f"{name} must have a leading axis of {plan.num_lanes} lanes; got shape {jnp.shape(leaf)}."
            )


def _one_blas_thread(plan: Plan) -> Callable[[], AbstractContextManager[Any]]:
    """Makes contexts in which BLAS has one thread, where a plan puts lanes on several cores; else they do nothing.

    LAPACK, which draws orthogonal matrices, calls BLAS, whose threads wait for each other in a loop: with two lanes at
    work the draw of a matrix of H = 128 took 26 ms longer. The libraries are those that are loaded now.
    """
    if len(plan.devices) == 1 or plan.devices[0].platform != "cpu":
        return nullcontext
    from threadpoolctl import ThreadpoolController

    return functools.partial(ThreadpoolController().limit, limits=1, user_api="blas")


@typed
def map_lanes(
    function: Callable[[Any, Any], Any],
    lanes: Any,
    *,
    shared: Any = None,
    plan: str | Plan = "auto",
    width: int | None = None,
    chunk: int | None = None,
    hidden_size: int = 32,
    lane_seconds: float = 0.1,
) -> Any:
    """`function(lane, shared)` of every lane, compiled once and run as the lanes of a sweep are.

    The compiled program is kept for as long as `function` lives. As under `jax.jit`, what it calls is read once.

    A lane is whatever one call needs: a seed, a tree of parameters, a start of a search. For a function that runs long,
    on many values, this uses all cores, where `jax.vmap` would use one and move every lane at each step.

    Args:
      function: of one lane, and of what all lanes share; pure.
      lanes: a tree whose leaves have a leading axis of lanes, `[L, …]`.
      shared: what all lanes share, such as the data; None if nothing.
      plan: how lanes run: a name, or a ready `Plan`; see `make_plan`.
      width: lanes a call; None chooses.
      chunk: lanes together, for "chunks"; None chooses.
      hidden_size: H, of the largest recurrent layer, by which "auto" chooses.
      lane_seconds: estimated time of one lane on one device; sets how many run in a call.

    Returns:
      What the function returns, in NumPy, leaves `[L, …]` in the order of the lanes.

    Raises:
      ValueError: no lane, leaves with different numbers of lanes, or a plan that does not fit them.

    >>> lanes = {"x": np.arange(3, dtype=np.float32)}
    >>> map_lanes(lambda lane, power: lane["x"] ** power, lanes, shared=np.float32(2)).tolist()
    [0.0, 1.0, 4.0]
    """
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(lanes)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            f"lanes must be a tree of arrays with one leading axis of lanes; got leading axes {sorted(sizes)}."
        )
    ((num_lanes,),) = sizes
    chosen = make_plan(
        num_lanes,
        plan=plan,
        width=width,
        chunk=chunk,
        hidden_size=hidden_size,
        lane_seconds=lane_seconds,
    )
    return Program(_call, chosen, lanes, shared, owner=function).collect(lanes, shared)


@typed
def trace(function: Callable[[Any, Any], Any], plan: Plan, lanes: Any, shared: Any) -> Any:
    """The program of a plan, traced for one call: what `Program` lowers and compiles.

    Args:
      function: of one lane, and of what all lanes share.
      plan: how lanes run.
      lanes: a tree whose leaves have a leading axis of lanes; only shapes count.
      shared: what all lanes share, or its shapes.

    Returns:
      A `jax.stages.Traced`, of `first_call(plan, lanes)` and what is shared: its `jaxpr`; and `lower()`, for this
      machine, or with `lowering_platforms=("tpu",)` for another.

    >>> plan = make_plan(4, plan="vmap", devices=jax.devices()[:1])
    >>> traced = trace(lambda lane, shared: lane + shared, plan, np.zeros(4, np.float32), np.float32(1))
    >>> traced.out_info.shape
    (4,)
    """
    return _jitted(function, plan).trace(first_call(plan, lanes), shared)


class _Compiled(NamedTuple):
    """A compiled program, and the jaxpr by whose identity it is found again."""

    jaxpr: Any
    fingerprint: str
    run: Callable[[Any, Any], Any]


def calls_python(text: str) -> bool:
    """Whether a lowered program calls functions of Python, which its text does not name."""
    return any(word in text for word in _PYTHON)


def _jitted(function: Callable[..., Any], plan: Plan, owner: Any = None) -> Any:
    """The program of a plan under `jax.jit`: the same for the same owner, which it does not keep alive."""
    if owner is None:
        return jax.jit(_together(function, plan), keep_unused=True)

    def make():
        of = weakly(owner)
        of_lane = lambda lane, shared: function(of(), lane, shared)  # noqa: E731
        # an argument that is not used stays, so that equal texts take equal arguments
        return jax.jit(_together(of_lane, plan), keep_unused=True), meant

    meant = _meant(owner)  # kept too, so that no other thing can get the place of one of them
    key = (function, plan.name, plan.chunk, plan.devices, *map(id, meant))
    return _JITTED.get(owner, key, make)[0]


def _meant(owner: Any) -> list[Any]:
    """What the names in a function mean at present; [] of any other object."""
    if not isinstance(owner, types.FunctionType):
        return []
    try:
        names = inspect.getclosurevars(owner)
    except ValueError:  # a name that means nothing yet: nothing is equal to this
        return [object()]
    found = [*names.nonlocals.values(), *names.globals.values(), *(owner.__defaults__ or ())]
    found += (owner.__kwdefaults__ or {}).values()
    return [value for value in found if value is not owner]


def _interruptible(function: Callable[[], Any]) -> Any:
    """What a function returns that runs in a thread of its own, so that Ctrl-C need not wait for it.

    Python acts on Ctrl-C between two instructions of the main thread, and a compilation is one instruction. After
    Ctrl-C the thread works on, and nobody takes what it returns; only the end of the process waits for it.
    """
    future: futures.Future[Any] = futures.Future()

    def run():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    # no pool: Ctrl-C while it starts its thread would leave one for which the end of the process waits for ever
    threading.Thread(target=run).start()
    while not futures.wait([future], timeout=0.2).done:  # Windows wakes up between waits only
        pass
    return future.result()


def _call(function: Callable[[Any, Any], Any], lane: Any, shared: Any) -> Any:
    return function(lane, shared)


def _settings() -> tuple[Any, ...]:
    """What changes a compiled program, and not its text."""
    return (jax.config.read("jax_disable_most_optimizations"),)


def _together(function, plan: Plan):
    def on_one_device(call, shared):
        lanes, count = call
        together = jax.vmap(function, in_axes=(0, None))
        if plan.name == "vmap":
            return together(lanes, shared)
        if plan.chunk == 1:
            return _in_turn(lambda lane: function(lane, shared), lanes, count[0])
        chunks = jax.tree.map(lambda leaf: leaf.reshape(-1, plan.chunk, *leaf.shape[1:]), lanes)
        outputs = _in_turn(lambda chunk: together(chunk, shared), chunks, count[0])
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)

    if len(plan.devices) == 1 or plan.name == "split_rows" or homes(plan) != (None,):
        return on_one_device  # with split rows, the function itself uses the devices
    mesh = Mesh(np.array(plan.devices), ("lanes",))
    # check_vma=False: the check refuses scans that start from constants such as jnp.zeros
    return jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(PartitionSpec("lanes"), PartitionSpec()),
        out_specs=PartitionSpec("lanes"),
        check_vma=False,
    )


def _in_turn(function: Callable[[Any], Any], rows: Any, count: Any) -> Any:
    """`function(row)` of the first `count` rows, one after another; the others give zeros.

    XLA does not know the number, so that a lane is the body of a loop wherever it runs: a loop of one turn would be
    written into what stands around it, and rounded otherwise.
    """
    first = jax.tree.map(lambda leaf: leaf[0], rows)
    shapes = jax.eval_shape(function, first)
    size = jax.tree.leaves(rows)[0].shape[0]
    room = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), shapes)

    def one(number, room):
        row = jax.tree.map(lambda leaf: leaf[number], rows)
        return jax.tree.map(lambda room, new: room.at[number].set(new), room, function(row))

    return jax.lax.fori_loop(0, count, one, room)
