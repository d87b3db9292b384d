"""A module of another library as a network or as a cell: what Flax and Equinox have in common."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.bridges._functions import (
    Functions,
    Params,
    as_params,
    as_tuple,
    network_of,
    takes_of,
)
from rnnreg.cells import Cell, Facts, HiddenState, LSTMState, Made, Step, from_step, made_by
from rnnreg.networks import Network, network


class Known(NamedTuple):
    """What is known of a recurrent cell: names of the leaves of its carry, bounds of h, its recurrent matrices."""

    carry: tuple[str, ...] | None = None
    bounds: tuple[float, float] | None = None
    recurrent: tuple[str, ...] = ()


class Source(NamedTuple):
    """A module that was given, or that its factory made once, and how its library calls it."""

    module: Any  # of an RNN its cell
    framework: str
    init: Callable[[Array, Any, Any], Params]  # of key, input size and dtype
    bind: Callable[..., Any]  # `bind(params, *, train, key)`, called like the module
    start: Callable[[int], Any] | None = None  # the first carry, of a recurrent cell
    known: Known = Known()
    offers: tuple[str, ...] = ()  # what a call may take by name, beside the switches of training
    random: bool = False  # whether it draws with keys of its own

    @property
    def name(self) -> str:
        return type(self.module).__name__

    @property
    def origin(self) -> dict[str, str]:
        """Where the class of the module is defined, such as "flax.linen.recurrent.GRUCell", and its library."""
        kind = type(self.module)
        return {"module": f"{kind.__module__}.{kind.__qualname__}", "library": self.framework}

    @property
    def takes(self) -> frozenset[str]:
        """What a call takes by name."""
        return takes_of(self.module.__call__, 1, self.offers, f"{self.name}.__call__")


def switches(takes: Collection[str], *, train: bool, key: Array | None) -> dict[str, Any]:
    """What a call that takes these names is told of training."""
    told = {"train": train, "training": train, "deterministic": not train, "key": key, "rngs": key}
    return {name: value for name, value in told.items() if name in takes}


def network_from(
    own: Source,
    factory: str,
    *,
    readout: str,
    carry: Any,
    decayed: Any,
    output_size: Any,
    **made: Any,
) -> Network:
    """The network of one cell, or of a module that reads whole sequences `[B, T, …]`; `made` are further arguments."""
    if own.start is not None:
        cell = cell_from(own, f"cell_{factory}", carry, decayed)
        made_of = Made(factory, tuple(own.origin.items()))
        return network([cell], output_size, readout=readout)._replace(made=made_of)
    if carry is not None:
        raise ValueError(
            f"carry names the carry of a recurrent cell, and {own.name} is none; got {carry!r}."
        )
    takes = own.takes
    drawn = {"key"} if own.random or takes - {"mask"} else set()

    def apply(params, xs, *, train=False, key=None, **mask):
        told = switches(takes, train=train, key=key)
        return own.bind(params, train=train, key=key)(xs, **mask, **told)

    run = Functions(apply, takes & {"mask"} | {"train"} | drawn, readout, own.name)
    made_of = Made(factory, (*own.origin.items(), *made.items()))
    return network_of(own.init, run, output_size=output_size, decayed=decayed, made=made_of)


def cell_from(own: Source, factory: str, carry: Any, decayed: Any, *, expected: str = "") -> Cell:
    """The cell that steps a module itself; the state is the carry, in its dtype, with h first."""
    start = own.start
    if start is None:
        raise ValueError(f"module must be {expected}; got {own.name}.")
    known = own.known if carry is None else Known(as_tuple(carry))
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: start(1)))
    fields = _checked_names(known.carry, shapes, own.name)
    types = {("h",): HiddenState, ("c", "h"): LSTMState}
    in_order = ["h", *(field for field in fields if field != "h")]
    state_type: Any = types.get(tuple(sorted(fields))) or namedtuple("Carry", in_order)

    def as_state(carry, dtypes) -> Any:
        leaves = zip(fields, jax.tree.leaves(carry), dtypes, strict=True)
        return state_type(**{field: jnp.asarray(leaf, dtype) for field, leaf, dtype in leaves})

    def step(params, state, x):
        old = [getattr(state, field) for field in fields]
        new = own.bind(params, train=False, key=None)(jax.tree.unflatten(structure, old), x)[0]
        if (got := jax.tree.structure(new)) != structure:
            raise ValueError(
                f"a step of {own.name} must return a carry like {structure}; got {got}."
            )
        return as_state(new, [leaf.dtype for leaf in old])

    def initial_state(batch_size: int, dtype: Any = jnp.float32):
        real = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in shapes]
        dtypes = [dtype if r else leaf.dtype for r, leaf in zip(real, shapes, strict=True)]
        return as_state(start(batch_size), dtypes)

    def init(key, input_size: int, dtype: Any = jnp.float32):
        params = as_params(own.init(key, input_size, dtype), dtype, own.name)
        x = jnp.zeros((1, input_size), dtype)
        try:
            jax.eval_shape(step, params, initial_state(1, dtype), x)
        except (TypeError, ValueError) as error:
            what = f"{own.name} cannot read {input_size} input features: {error}"
            raise ValueError(what) from error
        return params

    cell = from_step(
        Step(lambda params, state, x: (step(params, state, x), {}), Facts(bounds=known.bounds)),
        init=init,
        hidden_size=shapes[fields.index("h")].shape[-1],
        initial_state=initial_state,
        name=own.name,
        decayed=as_tuple(decayed),
        recurrent=known.recurrent,
    )
    return made_by(factory, cell, **own.origin, carry=fields)


def _checked_names(names: tuple[str, ...] | None, leaves: Any, name: str) -> tuple[str, ...]:
    """The names of the leaves of a carry; raises if they are not stated, or do not fit."""
    shapes = [leaf.shape for leaf in leaves]
    held = f"its leaves have the shapes {shapes} for one row"
    if names is None:
        raise ValueError(
            f'which part of its carry {name} puts out is not known; {held}. Give carry=, a name for each in order, "h" '
            'for the output, such as carry=("c", "h").'
        )
    fit = len(names) == len(leaves) == len(set(names)) and "h" in names
    if not fit or not all(isinstance(one, str) and one.isidentifier() for one in names):
        raise ValueError(
            f'carry must name each leaf of the carry of {name} once, "h" for the output; {held}; got {names!r}.'
        )
    if len(shapes[names.index("h")]) != 2:
        raise ValueError(
            f"the output of {name} must be a vector for each row, [B, H]; {held}. Cells of images are not bridged."
        )
    return names


def parted(tree: Any, *, hidden: Any = ()) -> tuple[Params, Callable[[Params], Any]]:
    """A library's own tree as nested dicts, and the way back; keys of the `hidden` kinds are no names.

    >>> params, back = parted({"a": [1, 2]})
    >>> params, back(params)
    ({'a': {'0': 1, '1': 2}}, {'a': [1, 2]})
    """
    from flax.traverse_util import flatten_dict, unflatten_dict

    found, structure = jax.tree_util.tree_flatten_with_path(tree)
    text = functools.partial(jax.tree_util.keystr, simple=True)
    names = [tuple(text((k,)) for k in path if not isinstance(k, hidden)) for path, _ in found]

    def back(params):
        flat = flatten_dict(params)  # what else it holds, such as a learned start, is left alone
        if missing := ["/".join(path) for path in names if path not in flat]:
            held = ["/".join(map(str, path)) for path in flat]
            raise ValueError(f"the module has a parameter {missing[0]!r}; params hold {held}.")
        return jax.tree.unflatten(structure, [flat[path] for path in names])

    leaves = [leaf for _, leaf in found]
    return unflatten_dict(dict(zip(names, leaves, strict=True))), back


def refuse_state(name: str, kept: str) -> None:
    """Raises, as a module keeps more than parameters."""
    raise ValueError(
        f"{name} keeps {kept}, which would have to be carried from update to update; only parameters are supported. "
        "Use layer normalisation in place of batch normalisation."
    )
