"""What a result says of its runs: network, optimiser, penalties, scores and data, ready for JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rnnreg._tree import leaf_paths
from rnnreg.cells._base import plain
from rnnreg.data import Scaling, Split
from rnnreg.losses import DataLoss
from rnnreg.networks import Network, Stack, describe, explain, weight_paths
from rnnreg.penalties import Penalty
from rnnreg.sweeps._folds import Folds


def describe_network(net: Network, *, reads: list[str] | None) -> dict[str, Any]:
    """What a network is made of, and what it reads of `hyper` (None if it is no function of it)."""
    return {"function_of_hyper": reads is not None, "reads": reads or [], **describe(net)}


def describe_recurrence(net: Network, input_size: int) -> dict[str, Any]:
    """How the recurrence is computed: what was asked for, and by layer what runs and why."""
    if isinstance(net.apply, Stack) and net.apply.embedding is not None:
        input_size = net.apply.embedding[1]
    chosen = explain(net, input_size=input_size)
    return net.recurrence._asdict() | {"layers": {name: str(why) for name, why in chosen.items()}}


def describe_optimizer(state: Any, *, reads: list[str] | None) -> dict[str, Any]:
    """What is known of an optax transformation: the records of its state, and what it reads of `hyper`."""
    return {
        "function_of_hyper": reads is not None,
        "reads": reads or [],
        "states": _records(state),
    }


def describe_penalties(
    penalties: Mapping[str, Penalty], net: Network, params: Any
) -> dict[str, Any]:
    """By name, which is that of its λ: how a penalty was made, the leaves that it covers, and what it needs besides."""
    weights = weight_paths(net, params)
    return {
        name: {
            "name": penalty.name,
            "arguments": {key: plain(value) for key, value in penalty.arguments},
            "covers": list(penalty.covers(params, weights)),
            "needs": sorted(penalty.needs),
        }
        for name, penalty in penalties.items()
    }


def describe_function(function: Any) -> dict[str, Any]:
    """The fields of a loss of the library; of any other function, its name."""
    if isinstance(function, DataLoss):
        return {
            "name": function.name,
            "reduction": function.reduction,
            "mean_over_rows": function.mean_over_rows,
        }
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return {"name": name, "module": getattr(function, "__module__", None)}


def describe_data(data: Split, folds: Folds | None) -> dict[str, Any]:
    """The digest of the arrays, and how they were scaled: to their own units, and again for each fold."""
    validation = data.validation
    rows = {"train": data.train, "validation": validation}
    scaling: Any = _scaling(data.scaling)
    if folds is not None:
        stacked = folds.rows.scaling
        scaling = {
            label: _scaling(jax.tree.map(lambda leaf, n=number: leaf[n], stacked))
            for number, label in enumerate(folds.labels)
        }
    return {
        "sha256": digest(rows),
        "train_rows": len(data.train.ys),
        "validation_rows": None if validation is None else len(validation.ys),
        "units": _scaling(data.units),
        "scaling": scaling,
    }


def describe_key(key: jax.Array) -> dict[str, Any]:
    """The words of a key, from which `jax.random.wrap_key_data` makes it again."""
    data = np.asarray(jax.random.key_data(key))
    return {"impl": str(jax.random.key_impl(key)), "data": data.tolist()}


def digest(tree: Any) -> str:
    """SHA-256 of the arrays of a tree, with their paths, shapes and types.

    >>> digest({"x": np.zeros(2)}) == digest({"x": np.zeros(2)}) != digest({"x": np.ones(2)})
    True
    """
    found = hashlib.sha256()
    for path, leaf in leaf_paths(tree).items():
        array = np.ascontiguousarray(leaf)
        found.update(f"{path} {array.shape} {array.dtype}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _records(state: Any) -> list[str]:
    """The names of the records in an optimiser's state, outer ones first."""
    if not isinstance(state, tuple):
        return []
    own = [type(state).__name__] if hasattr(state, "_fields") else []
    return own + [name for part in state for name in _records(part)]


def _scaling(scaling: Scaling | None) -> dict[str, list[float]] | None:
    if scaling is None:
        return None
    return {
        name: np.asarray(values, np.float64).reshape(-1).tolist()
        for name, values in scaling._asdict().items()
    }
