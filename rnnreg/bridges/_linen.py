"""Flax linen modules: variables as parameters, flags and keys as linen wants them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rnnreg.bridges._carry import Recurrent
from rnnreg.bridges._functions import Functions, accepted
from rnnreg.bridges._tree import Params

LIBRARY = "flax.linen"
FLAGS = {"train": True, "training": True, "deterministic": False}  # by what they are in training


def flags_of(takes: frozenset[str], *, train: bool) -> dict[str, bool]:
    """The flags of training that a module takes, with their values."""
    return {name: train == on for name, on in FLAGS.items() if name in takes}


def linen_function(module: Any, *, readout: str, num_steps: int) -> tuple[Any, Functions]:
    """`init(key, input_size, dtype)` and `apply` of a module that reads whole sequences `[B, T, …]`."""
    name = type(module).__name__
    takes = accepted(module.__call__, 1, ("mask", *FLAGS), f"{name}.__call__")

    def init(key, input_size: int | None, dtype: Any) -> Params:
        shape = (1, num_steps) if input_size is None else (1, num_steps, input_size)
        xs = jnp.zeros(shape, jnp.int32 if input_size is None else dtype)
        masks: dict[str, Any] = {"mask": None} if "mask" in takes else {}
        return parameters(module.init(key, xs, **masks, **flags_of(takes, train=False)), name)

    def apply(params, xs, *, train: bool = False, key: Any = None, **masks: Any):
        rngs = None if key is None else {"params": key, "dropout": key}
        flags = flags_of(takes, train=train)
        return module.apply({"params": params}, xs, rngs=rngs, **masks, **flags)

    switched = {"key", "train"} if takes & set(FLAGS) else set()
    return init, Functions(apply, frozenset(takes & {"mask"} | switched), readout, name)


def linen_cell(module: Any, carry: tuple[str, ...] | None, bounds: Any) -> Recurrent:
    """A recurrent cell as pure functions."""

    def start(batch_size: int):
        # nn.RNN starts from this key too, and all cells of Flax start from zeros
        return module.initialize_carry(jax.random.key(0), (batch_size, 1))

    def init(key, input_size: int, dtype: Any) -> Params:
        variables = module.init(key, start(1), jnp.zeros((1, input_size), dtype))
        return parameters(variables, type(module).__name__)

    def step(params, carry, x):
        return module.apply({"params": params}, carry, x)[0]

    return Recurrent(module, LIBRARY, init, start, step, carry, bounds)


def parameters(variables: Any, name: str) -> Params:
    """The collection "params"; raises if there are others, which training would have to carry along."""
    others = sorted(set(variables) - {"params"})
    if others:
        raise ValueError(
            f"{name} keeps variables beside its parameters, in {others}, which would have to be carried from update to "
            "update; only 'params' is supported. Use layer normalisation in place of batch normalisation."
        )
    return variables.get("params", {})
