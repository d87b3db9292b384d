"""Flax nnx modules: the graph is static, the parameters are a nested dict of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnreg.bridges._functions import FLAGS, Functions, accepted, flags_of
from rnnreg.bridges._tree import Names, Params, leaves_at, nested


class Graph(NamedTuple):
    """A module without its numbers."""

    definition: Any  # what `nnx.merge` makes the module from
    names: list[Names]  # where each parameter is, by strings
    params: list[tuple[Any, Any]]  # paths and variables of the parameters
    randomness: list[tuple[Any, Any]]  # paths and variables of keys and counts

    @property
    def random(self) -> bool:
        """Whether the module keeps keys for more than the start of a carry."""
        return any(variable.tag != "carry" for _, variable in self.randomness)


def graph_of(module: Any) -> Graph:
    """The graph of a module; raises if it keeps more than parameters and keys."""
    from flax import nnx

    definition, params, randomness, rest = nnx.split(module, nnx.Param, nnx.RngState, ...)
    others = sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(rest)})
    if others:
        raise ValueError(
            f"{type(module).__name__} keeps variables beside its parameters, {others}, which would have to be carried "
            "from update to update; only nnx.Param is supported. Use layer normalisation in place of batch "
            "normalisation."
        )
    flat = list(nnx.to_flat_state(params))
    names = [tuple(map(str, path)) for path, _ in flat]
    return Graph(definition, names, flat, list(nnx.to_flat_state(randomness)))


def parameters(module: Any) -> Params:
    """The parameters of a module, nested by name; lists count as "0", "1", …"""
    graph = graph_of(module)
    return nested(graph.names, [variable.get_value() for _, variable in graph.params])


def merged(graph: Graph, params: Params, key: Any = None) -> Any:
    """The module with these parameters, its random streams keyed anew: nothing that it changes outlives the call."""
    from flax import nnx

    key = jax.random.key(0) if key is None else key  # nothing that counts is drawn without one

    def stream(number, variable):
        is_key = isinstance(variable, nnx.RngKey)
        return jax.random.fold_in(key, number) if is_key else jnp.zeros((), jnp.uint32)

    leaves = zip(graph.params, leaves_at(params, graph.names), strict=True)
    of_params = nnx.from_flat_state([(path, var.replace(leaf)) for (path, var), leaf in leaves])
    streams = [(p, v.replace(stream(number, v))) for number, (p, v) in enumerate(graph.randomness)]
    return nnx.merge(graph.definition, of_params, nnx.from_flat_state(streams))


def template(module: Any) -> tuple[Any, Callable[[Any], Params]]:
    """A module to take the graph from, and `draw(key) -> params`: its own parameters, or those of a factory."""
    from flax import nnx

    if isinstance(module, nnx.Module):
        own = parameters(module)
        return module, lambda key: own
    shapes = nnx.eval_shape(lambda: module(nnx.Rngs(0)))
    if not isinstance(shapes, nnx.Module):
        raise ValueError(
            f"a function of rngs must return an nnx module; it returned {type(shapes).__name__}."
        )
    return shapes, lambda key: parameters(module(nnx.Rngs(key)))


def nnx_function(module: Any, draw: Any, *, readout: str) -> tuple[Any, Functions]:
    """`init(key, input_size, dtype)` and `apply` of a module that reads whole sequences `[B, T, …]`."""
    from flax import nnx

    name = type(module).__name__
    graph = graph_of(module)
    takes = accepted(module.__call__, 1, ("mask", "rngs", *FLAGS), f"{name}.__call__")

    def apply(params, xs, *, train: bool = False, key: Any = None, **masks: Any):
        own = merged(graph, params, key)
        own.train() if train else own.eval()
        rngs = {"rngs": None if key is None else nnx.Rngs(key)} if "rngs" in takes else {}
        return own(xs, **masks, **rngs, **flags_of(takes, train=train))

    switched = {"key", "train"} if graph.random or takes & {"rngs", *FLAGS} else set()
    return lambda key, *_: draw(key), Functions(
        apply, frozenset(takes & {"mask"} | switched), readout, name
    )


def nnx_cell(module: Any, draw: Any) -> tuple[Any, Any, Any]:
    """`init`, `start` and `step` of a recurrent cell, for `cell_of`; raises if it draws random numbers."""
    from flax import nnx

    graph = graph_of(module)
    drops = any(isinstance(part, nnx.Dropout) for _, part in nnx.iter_modules(module))
    if drops or graph.random:
        raise ValueError(
            f"a step draws no random numbers, and {type(module).__name__} holds dropout or a random stream, which "
            "would be the same at every step. Take it out of the cell; rr.network has dropout= and others."
        )

    def start(batch_size: int):
        return module.initialize_carry((batch_size, 1), nnx.Rngs(0))

    def step(params, carry, x):
        own = merged(graph, params)
        own.eval()
        return own(carry, x)[0]

    return lambda key, *_: draw(key), start, step
