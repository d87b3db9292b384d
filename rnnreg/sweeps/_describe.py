"""What a result says of its runs: network, optimiser, penalties, scores and data, ready for JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from rnnreg._tree import leaf_paths
from rnnreg.cells import plain
from rnnreg.data import Scaling, Split
from rnnreg.losses import DataLoss
from rnnreg.metrics import Score, UserFunction
from rnnreg.networks import Network, Stack, describe, effective_shapes, explain, weight_paths
from rnnreg.penalties import Penalty
from rnnreg.sweeps._folds import Folds, rows_of


def describe_network(net: Network, *, reads: list[str] | None) -> dict[str, Any]:
    """What a network is made of, and what it reads of `hyper` (None if it is no function of it)."""
    return {"function_of_hyper": reads is not None, "reads": reads or [], **describe(net)}


def describe_recurrence(net: Network, input_size: int) -> dict[str, Any]:
    """How the recurrence is computed: what was asked for, and by layer what runs and why."""
    if isinstance(net.apply, Stack) and net.apply.embedding is not None:
        input_size = net.apply.embedding[1]
    chosen = explain(net, input_size=input_size)
    return net.recurrence._asdict() | {"layers": {name: str(why) for name, why in chosen.items()}}


def describe_optimizer(
    state: Any, *, reads: list[str] | None, start: Callable[[], Any]
) -> dict[str, Any]:
    """What is known of an optax transformation: the records of its state, what it reads of `hyper`, and its numbers.

    optax states no arguments: `optax.adam(1e-3)` is a pair of functions that hold 1e-3 where nobody can read it. The
    numbers of a fixed optimiser are known only if its state holds them, as `optax.inject_hyperparams(optax.adam)(1e-3)`
    does: `hyperparams` has them, as they are at the start, one dict for each record that shows some. Of a function of
    `hyper` the names that it reads are known, and their values are in the grid.

    Args:
      state: its state, or the shapes of it.
      reads: what it reads of `hyper`; None if it is fixed.
      start: makes the state of a fixed optimiser; called only if it shows numbers.

    Returns:
      A dict of `function_of_hyper`, `reads`, `states` and `hyperparams`, ready for JSON.
    """
    shown = [] if reads is not None or not _hyperparams(state) else _hyperparams(start())
    return {
        "function_of_hyper": reads is not None,
        "reads": reads or [],
        "states": _records(state),
        "hyperparams": [
            {name: np.asarray(value).tolist() for name, value in one.items()} for one in shown
        ],
    }


def describe_penalties(
    penalties: Mapping[str, Penalty], net: Network, params: Any
) -> dict[str, Any]:
    """By name, which is that of its λ: how a penalty was made, what it covers, and what it needs besides."""
    params = effective_shapes(net, params)
    weights, leaves = weight_paths(net, params), leaf_paths(params)
    covers = {name: list(one.covers(params, weights)) for name, one in penalties.items()}
    return {
        name: {
            "name": penalty.name,
            "arguments": {key: plain(value) for key, value in penalty.arguments},
            "covers": covers[name],
            "num_weights": sum(leaves[path].size for path in covers[name]),
            "needs": sorted(penalty.needs),
        }
        for name, penalty in penalties.items()
    }


def describe_function(function: Any) -> dict[str, Any]:
    """The fields of a loss of the library, or the name of any other function; and whether more is better, if known."""
    maximise = getattr(function, "maximise", None)
    if isinstance(function, DataLoss):
        return {
            "name": function.name,
            "reduction": function.reduction,
            "mean_over_rows": function.mean_over_rows,
            **dict(function.arguments),
            "maximise": maximise,
        }
    while isinstance(function, (Score, UserFunction)):
        function = function.function
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return {"name": name, "module": getattr(function, "__module__", None), "maximise": maximise}


def describe_data(data: Split, folds: Folds | None) -> dict[str, Any]:
    """Digests of the arrays and of the rows of each fold, and how the arrays were scaled: to their own units, and again
    for each fold.
    """
    validation = data.validation
    rows = {"train": data.train, "validation": validation}
    scaling: Any = _scaling(data.scaling)
    dealt = None
    if folds is not None:
        dealt = {label: digest(rows_of(folds, n)) for n, label in enumerate(folds.labels)}
        stacked = folds.rows.scaling
        scaling = {
            label: _scaling(jax.tree.map(lambda leaf, n=number: leaf[n], stacked))
            for number, label in enumerate(folds.labels)
        }
    return {
        "sha256": digest(rows),
        "train_rows": len(data.train.ys),
        "validation_rows": None if validation is None else len(validation.ys),
        "folds": dealt,
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


def _hyperparams(state: Any) -> list[Mapping[str, Any]]:
    """The numbers that an optimiser's state shows, by record, as those of `optax.inject_hyperparams` do."""

    def shows(part):
        return hasattr(part, "hyperparams")

    return [part.hyperparams for part in jax.tree.leaves(state, is_leaf=shows) if shows(part)]


def _scaling(scaling: Scaling | None) -> dict[str, list[float]] | None:
    if scaling is None:
        return None
    return {
        name: np.asarray(values, np.float64).reshape(-1).tolist()
        for name, values in scaling._asdict().items()
    }
