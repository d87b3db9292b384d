"""A cell around the step of another library's cell: its carry as a state whose field h is the output."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.bridges._functions import as_patterns
from rnnreg.bridges._tree import Params, as_params, class_path
from rnnreg.cells import Cell, Facts, HiddenState, LSTMState, Step, from_step
from rnnreg.cells._base import made_by


class Recurrent(NamedTuple):
    """A recurrent cell of another library, as pure functions.

    Attributes:
      module: the cell itself, for its names.
      library: where it comes from, such as "flax.linen".
      init: `init(key, input_size, dtype) -> params`.
      start: `start(batch_size) -> carry`, before the first step.
      step: `step(params, carry, x [B, D]) -> carry`.
      carry: names for the leaves of the carry in order; "h" is the output. None: not stated.
      bounds: (low, high) that h stays inside; None: not known.
    """

    module: Any
    library: str
    init: Callable[[Array, int, Any], Params]
    start: Callable[[int], Any]
    step: Callable[[Params, Any, Array], Any]
    carry: tuple[str, ...] | None
    bounds: tuple[float, float] | None


def cell_of(
    own: Recurrent, *, decayed: Sequence[str] | None, recurrent: tuple[str, ...], factory: str
) -> Cell:
    """The cell that steps the module itself; the state is the carry, in its dtype, with h first."""
    name = type(own.module).__name__
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: own.start(1)))
    fields = _checked_names(own.carry, shapes, name)
    state_type = _state_type(fields)

    def as_state(carry, dtypes) -> Any:
        leaves = zip(fields, jax.tree.leaves(carry), dtypes, strict=True)
        return state_type(**{field: jnp.asarray(leaf, dtype) for field, leaf, dtype in leaves})

    def step(params, state, x):
        carry = jax.tree.unflatten(structure, [getattr(state, field) for field in fields])
        new = own.step(params, carry, x)
        if jax.tree.structure(new) != structure:
            raise ValueError(
                f"a step of {name} must return a carry like the one before, {structure}; got {jax.tree.structure(new)}."
            )
        return as_state(new, [getattr(state, field).dtype for field in fields])

    def initial_state(batch_size: int, dtype: Any = jnp.float32):
        real = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in shapes]
        dtypes = [dtype if r else leaf.dtype for r, leaf in zip(real, shapes, strict=True)]
        return as_state(own.start(batch_size), dtypes)

    def init(key, input_size: int, dtype: Any = jnp.float32):
        params = as_params(own.init(key, input_size, dtype), dtype, name)
        x = jnp.zeros((1, input_size), dtype)
        try:
            jax.eval_shape(step, params, initial_state(1, dtype), x)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} cannot read {input_size} input features: {error}") from error
        return params

    cell = from_step(
        Step(lambda params, state, x: (step(params, state, x), {}), Facts(bounds=own.bounds)),
        init=init,
        hidden_size=shapes[fields.index("h")].shape[-1],
        initial_state=initial_state,
        name=name,
        decayed=as_patterns(decayed),
        recurrent=recurrent,
    )
    return made_by(factory, cell, module=class_path(own.module), library=own.library, carry=fields)


def _state_type(fields: tuple[str, ...]) -> Any:
    if fields == ("h",):
        return HiddenState
    if sorted(fields) == ["c", "h"]:
        return LSTMState
    return namedtuple("Carry", ["h", *(field for field in fields if field != "h")])


def _checked_names(
    carry: tuple[str, ...] | None, leaves: Sequence[Any], name: str
) -> tuple[str, ...]:
    """The names of the leaves of a carry; raises if they are not stated, or do not fit."""
    shapes = [leaf.shape for leaf in leaves]
    if carry is None:
        raise ValueError(
            f"which part of its carry {name} puts out is not known; its leaves have the shapes {shapes} for one row. "
            'Give carry=, a name for each in order, "h" for the output, such as carry=("c", "h").'
        )
    names = (carry,) if isinstance(carry, str) else tuple(carry)
    fit = len(names) == len(leaves) == len(set(names)) and "h" in names
    if not fit or not all(isinstance(one, str) and one.isidentifier() for one in names):
        raise ValueError(
            f'carry must name each leaf of the carry of {name} once, "h" for the output; the leaves have the shapes '
            f"{shapes} for one row; got {carry!r}."
        )
    if len(shapes[names.index("h")]) != 2:
        raise ValueError(
            f"the output of {name} must be a vector for each row, [B, H]; got shape {shapes[names.index('h')]} for one "
            "row. Cells of images are not bridged."
        )
    return names
