"""The sweep that is disturbed, and processes in which it runs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import multiprocessing
import signal
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

import rnnreg as rr

PLANS = {
    "one_by_one": {"plan": "one_by_one", "width": 1},
    "chunks": {"plan": "chunks", "chunk": 2, "width": 4},
    "vmap": {"plan": "vmap", "width": 8},
}
LAMBDAS = (0.0, 1e-4, 1e-3, 1e-2)

# A process of its own that has imported all it needs and touched no device: what it forks starts in no time.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["experiments.faults.sweep", "xarray", "h5netcdf"])
tqdm.get_lock()  # made before any process starts, of which a killed one would leave its own behind


@dataclasses.dataclass(frozen=True)
class Work:
    """A sweep.

    Attributes:
        num_epochs: of a lane.
        seeds: so many for each λ.
        plan: a name of `PLANS`.
    """

    num_epochs: int
    seeds: int
    plan: str = "one_by_one"

    def run(self, **options: Any) -> rr.SweepResult:
        """The sweep, without a word about what it warns of; the options go to `rr.sweep`."""
        arguments = {"seeds": self.seeds, "key": jax.random.key(0), "progress": False, **PLANS[self.plan]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return rr.sweep(_train(self.num_epochs), {"l2": LAMBDAS}, _data(), **arguments, **options)


@functools.cache
def _train(num_epochs: int) -> rr.Train:
    # without the compiled recurrence, whose library a process without a home would have to compile again
    net = rr.network([rr.cells.elman(8)], 1, readout="last", backend="fused")
    return rr.make_train(
        net,
        loss=rr.losses.squared_error("mean"),
        penalties={"l2": rr.penalties.l2()},
        optimizer=optax.adam(1e-2),
        num_epochs=num_epochs,
    )


@functools.cache
def _data() -> rr.Split:
    return rr.datasets.sunspots(window=12)


def digest(result: rr.SweepResult) -> str:
    """The SHA-256 of every number of a result, finished or not."""
    sha = hashlib.sha256()
    for name in sorted(map(str, result.metrics.data_vars)):
        sha.update(np.ascontiguousarray(result.metrics[name].values).tobytes())
    for group in result.groups:
        for leaf in jax.tree.leaves((group.params, group.predictions)):
            sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


class Child:
    """A process that calls a function, and may end before it does.

    Attributes:
        process: the process; it has started.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self._receiver, sender = _CONTEXT.Pipe(duplex=False)
        self.process = _CONTEXT.Process(target=_call, args=(sender, function, arguments))
        self.process.start()
        sender.close()

    def answer(self) -> Any:
        """What the function returned; None if the process ended before."""
        try:
            return self._receiver.recv()
        except EOFError:
            return None
        finally:
            self.process.join()


def _call(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rr.compilation_cache()
    sender.send(function(*arguments))
