"""Parameters of other libraries as the nested dicts of arrays that penalties, sweeps and files take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Params = dict[str, Any]
Names = tuple[str, ...]


def nested(names: Sequence[Names], leaves: Sequence[Any]) -> Params:
    """A nested dict of leaves, each at its names.

    >>> nested([("a", "kernel"), ("b",)], [1, 2])
    {'a': {'kernel': 1}, 'b': 2}
    """
    from flax.traverse_util import unflatten_dict

    return unflatten_dict(dict(zip(names, leaves, strict=True)))


def leaves_at(params: Params, names: Sequence[Names]) -> list[Any]:
    """The leaves of a nested dict at some names; what else it holds, such as a learned start, is left alone."""
    from flax.traverse_util import flatten_dict

    flat = flatten_dict(params)
    missing = ["/".join(path) for path in names if path not in flat]
    if missing:
        held = ["/".join(map(str, path)) for path in flat]
        raise ValueError(f"the module has a parameter {missing[0]!r}; params hold {held}.")
    return [flat[path] for path in names]


def as_params(tree: Any, dtype: Any, name: str) -> Params:
    """A tree of parameters in a dtype; raises if it is not a nested dict of real arrays that a file can hold."""
    from flax.traverse_util import flatten_dict

    wanted = (
        f"the parameters of {name} must be nested dicts of arrays, by names without '.' and '/', so that penalties and "
        "files find them"
    )
    flat = flatten_dict(tree) if isinstance(tree, dict) else {(): tree}
    for path, leaf in flat.items():
        if not path or not jax.tree_util.all_leaves([leaf]):
            raise ValueError(f"{wanted}; got {type(leaf).__name__}.")
        for part in path:
            if not isinstance(part, str) or not part or "." in part or "/" in part:
                raise ValueError(f"{wanted}; got the name {part!r}.")
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"the parameters of {name} must be real numbers, which have a gradient; got {jnp.result_type(leaf)}. "
                "Keep constants inside the function."
            )
    if not flat:
        raise ValueError(f"{name} has no parameters, so there is nothing to train.")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def cast(params: Params, xs: Array) -> Params:
    """The parameters in the dtype of real inputs; as they are for tokens."""
    if not jnp.issubdtype(xs.dtype, jnp.floating):
        return params
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, xs.dtype), params)


def class_path(module: Any) -> str:
    """Where the class of a module is defined, such as "flax.linen.recurrent.GRUCell"."""
    return f"{type(module).__module__}.{type(module).__qualname__}"
