"""Which peers there are, and which of them are missing.

A peer is built from our parameters, so that all contenders compute the same losses and gradients. What it
may choose (threads, entry point) it chooses before the clock starts.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType

import numpy as np

from experiments.benchmarks.lanes import jax_peers, torch_peers
from experiments.benchmarks.lanes.problem import Entry, Problem
from experiments.keras_gru.peer import keras_at

PEERS: dict[str, tuple[Callable[[Problem], Entry], ...]] = {
    "torch": (torch_peers.torch_loop, torch_peers.torch_bmm),
    "keras": (jax_peers.keras_fit,),
    "flax": (jax_peers.flax_vmap,),
    "equinox": (jax_peers.equinox_vmap,),
}


def find_missing(names: tuple[str, ...], device: str) -> dict[str, str]:
    """{peer: why it cannot take part} of those that cannot."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # read when keras is imported
    missing = {}
    for name in names:
        try:
            _load(name, device)
        except (ImportError, RuntimeError) as error:
            missing[name] = str(error)
    return missing


def _load(name: str, device: str) -> ModuleType:
    if name == "torch":
        return torch_peers.load(device)
    return keras_at(np.float32) if name == "keras" else importlib.import_module(name)
