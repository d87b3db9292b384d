"""A cell around the step of another library's cell: its carry as a state whose field h is the output."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.bridges._functions import as_patterns
from rnnreg.bridges._tree import Params, as_params, class_path
from rnnreg.cells import Cell, Facts, HiddenState, LSTMState, Step, from_step
from rnnreg.cells._base import made_by


def cell_of(
    module: Any,
    library: str,
    own_init: Callable[[Array, int, Any], Params],
    own_start: Callable[[int], Any],
    own_step: Callable[[Params, Any, Array], Any],
    *,
    carry: tuple[str, ...] | None,
    bounds: tuple[float, float] | None,
    decayed: Sequence[str] | None,
    recurrent: tuple[str, ...],
    factory: str,
) -> Cell:
    """The cell that steps a module itself; the state is the carry, in its dtype, with h first.

    The module is known by `own_init(key, input_size, dtype) -> params`, `own_start(batch_size) -> carry` and
    `own_step(params, carry, x [B, D]) -> carry`. `carry` names the leaves in order, "h" the output (None: not stated),
    and h stays inside `bounds` (None: not known).
    """
    name = type(module).__name__
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: own_start(1)))
    fields = _checked_names(carry, shapes, name)
    known = {("h",): HiddenState, ("c", "h"): LSTMState}
    state_type: Any = known.get(tuple(sorted(fields))) or namedtuple(
        "Carry", ["h", *(field for field in fields if field != "h")]
    )

    def as_state(carry, dtypes) -> Any:
        leaves = zip(fields, jax.tree.leaves(carry), dtypes, strict=True)
        return state_type(**{field: jnp.asarray(leaf, dtype) for field, leaf, dtype in leaves})

    def step(params, state, x):
        old = jax.tree.unflatten(structure, [getattr(state, field) for field in fields])
        new = own_step(params, old, x)
        if jax.tree.structure(new) != structure:
            got = jax.tree.structure(new)
            raise ValueError(f"a step of {name} must return a carry like {structure}; got {got}.")
        return as_state(new, [getattr(state, field).dtype for field in fields])

    def initial_state(batch_size: int, dtype: Any = jnp.float32):
        real = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in shapes]
        dtypes = [dtype if r else leaf.dtype for r, leaf in zip(real, shapes, strict=True)]
        return as_state(own_start(batch_size), dtypes)

    def init(key, input_size: int, dtype: Any = jnp.float32):
        params = as_params(own_init(key, input_size, dtype), dtype, name)
        x = jnp.zeros((1, input_size), dtype)
        try:
            jax.eval_shape(step, params, initial_state(1, dtype), x)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} cannot read {input_size} input features: {error}") from error
        return params

    cell = from_step(
        Step(lambda params, state, x: (step(params, state, x), {}), Facts(bounds=bounds)),
        init=init,
        hidden_size=shapes[fields.index("h")].shape[-1],
        initial_state=initial_state,
        name=name,
        decayed=as_patterns(decayed),
        recurrent=recurrent,
    )
    return made_by(factory, cell, module=class_path(module), library=library, carry=fields)


def _checked_names(
    carry: tuple[str, ...] | None, leaves: Sequence[Any], name: str
) -> tuple[str, ...]:
    """The names of the leaves of a carry; raises if they are not stated, or do not fit."""
    shapes = [leaf.shape for leaf in leaves]
    held = f"its leaves have the shapes {shapes} for one row"
    if carry is None:
        raise ValueError(
            f'which part of its carry {name} puts out is not known; {held}. Give carry=, a name for each in order, "h" '
            'for the output, such as carry=("c", "h").'
        )
    names = (carry,) if isinstance(carry, str) else tuple(carry)
    fit = len(names) == len(leaves) == len(set(names)) and "h" in names
    if not fit or not all(isinstance(one, str) and one.isidentifier() for one in names):
        raise ValueError(
            f'carry must name each leaf of the carry of {name} once, "h" for the output; {held}; got {carry!r}.'
        )
    if len(shapes[names.index("h")]) != 2:
        raise ValueError(
            f"the output of {name} must be a vector for each row, [B, H]; {held}. Cells of images are not bridged."
        )
    return names
