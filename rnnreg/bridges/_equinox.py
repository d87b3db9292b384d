"""Networks and cells of Equinox modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice
from rnnreg.bridges._carry import cell_of
from rnnreg.bridges._functions import Functions, accepted, network_of
from rnnreg.bridges._tree import Names, Params, class_path, leaves_at, nested
from rnnreg.cells import Cell, Made, gru, lstm
from rnnreg.networks import Network, network

LIBRARY = "equinox"


class Parted(NamedTuple):
    """A module taken apart."""

    module: Any  # as it was given, or as its factory made it once
    names: list[Names]  # where each parameter is
    structure: Any  # of the parameters alone
    static: Any  # everything else
    draw: Callable[[Array], Params]

    def joined(self, params: Params) -> Any:
        """The module with these parameters."""
        own = jax.tree.unflatten(self.structure, leaves_at(params, self.names))
        return _equinox().combine(own, self.static)


def from_equinox(
    module: Any,
    *,
    output_size: int | None = None,
    readout: str = "all",
    over: str = "sequence",
    carry: Sequence[str] | None = None,
    decayed: Sequence[str] | None = None,
) -> Network:
    """A network of an Equinox module, which trains, sweeps and is diagnosed like one of `rr.network`.

    A recurrent cell (`eqx.nn.GRUCell`, `LSTMCell`, or any module with `carry=`) becomes
    `rr.network([cell_from_equinox(module)], output_size)`, with states; its parameters are `params["layer_0"]`. Any
    other module is mapped over rows by `jax.vmap`, as Equinox has it, and `params` holds its real arrays by name;
    everything else in it is constant. Its `__call__` may also take, by name, `mask` (`[T]`, or a scalar with
    over="step"; None without a mask) and `key`. `inference` flags are off in training and on otherwise.

    A module starts from its own parameters, whatever the key. Give a function of a key to draw them for each seed:
    `rr.from_equinox(lambda key: eqx.nn.GRUCell(3, 16, key=key))`.

    Args:
      module: an Equinox module, or a function `make(key)` that makes one.
      output_size: O; as in `from_flax`.
      readout: "all" or "last"; as in `from_flax`.
      over: what one call of the module reads: "sequence" is `[T, D]` of one row, "step" is `[D]` of one step.
      carry: of a recurrent cell of your own, `cell(x, carry) -> carry` on one row: a name for each leaf of its carry,
        "h" for its output. The carry starts from zeros; the cell has `hidden_size`, the length of each leaf.
      decayed: what penalties cover, as in `from_flax`.

    Returns:
      The network.

    Raises:
      ImportError: Equinox is not installed.
      ValueError: no module, one with state (batch normalisation), or a `__call__` that needs other arguments.

    >>> import equinox as eqx  # doctest: +SKIP
    >>> net = from_equinox(lambda key: eqx.nn.GRUCell(2, 4, key=key), output_size=1)  # doctest: +SKIP
    >>> params = net.init(jax.random.key(0), input_size=2)  # doctest: +SKIP
    >>> net.apply(params, jnp.ones((3, 5, 2))).states["layer_0"].h.shape  # doctest: +SKIP
    (3, 5, 4)
    """
    check_choice(over, "over", ("sequence", "step"))
    parted = _part(module)
    arguments = (("module", class_path(parted.module)), ("library", LIBRARY))
    if carry is not None or _known(parted.module) is not None:
        cell = cell_from_equinox(module, carry=carry, decayed=decayed)
        made = Made("from_equinox", arguments)
        return network([cell], output_size, readout=readout)._replace(made=made)
    return network_of(
        lambda key, *_: parted.draw(key),
        _mapped(parted, over=over, readout=readout),
        output_size=output_size,
        decayed=decayed,
        made=Made("from_equinox", (*arguments, ("over", over))),
    )


def cell_from_equinox(
    module: Any, *, carry: Sequence[str] | None = None, decayed: Sequence[str] | None = None
) -> Cell:
    """A cell of a recurrent cell of Equinox, for `rr.network([…])`; it maps the module itself over rows.

    Args:
      module: the cell, or a function of a key that makes one; see `from_equinox`.
      carry: as in `from_equinox`; None for the cells of Equinox.
      decayed: what penalties cover, as in `from_flax`.

    Returns:
      The cell.

    Raises:
      ImportError: Equinox is not installed.
      ValueError: no recurrent cell, or a carry that is not named.

    >>> import equinox as eqx  # doctest: +SKIP
    >>> cell = cell_from_equinox(eqx.nn.LSTMCell(2, 4, key=jax.random.key(0)))  # doctest: +SKIP
    >>> cell.initial_state(1)._fields  # doctest: +SKIP
    ('h', 'c')
    """
    parted = _part(module)
    known = _known(parted.module)
    if carry is None and known is None:
        raise ValueError(
            f"module must be eqx.nn.GRUCell or eqx.nn.LSTMCell; got {type(parted.module).__name__}. Of another cell, "
            'cell(x, carry) -> carry, give carry=, a name for each leaf of its carry, "h" for its output.'
        )
    names, bounds = (tuple(carry), None) if carry is not None else known or ((), None)
    size = getattr(parted.module, "hidden_size", None)
    if not isinstance(size, int):
        raise ValueError(
            f"{type(parted.module).__name__} must have hidden_size, the length of each leaf of its carry; got {size!r}."
        )

    def start(batch_size: int):
        zeros = [jnp.zeros((batch_size, size)) for _ in names]
        return zeros[0] if len(zeros) == 1 else tuple(zeros)

    def step(params, carry, x):
        return jax.vmap(parted.joined(params))(x, carry)

    own = (lambda key, *_: parted.draw(key), start, step)
    facts = {"carry": names, "bounds": bounds, "decayed": decayed}
    facts["recurrent"] = (
        ("weight_hh",) if carry is None else ()
    )  # of another class they are not known
    return cell_of(parted.module, LIBRARY, *own, **facts, factory="cell_from_equinox")


def _equinox() -> Any:
    try:
        import equinox
    except ImportError as error:
        raise ImportError("a bridge to Equinox needs it installed: pip install equinox.") from error
    return equinox


def _part(module: Any) -> Parted:
    eqx = _equinox()
    draw = module if callable(module) and not isinstance(module, eqx.Module) else None
    own = draw(jax.random.key(0)) if draw else module  # for what is not a parameter
    if not isinstance(own, eqx.Module) or not callable(own):
        raise ValueError(
            f"module must be an Equinox module with a __call__, or a function make(key) of one; got {module!r}."
        )

    def stateful(leaf):
        return isinstance(leaf, eqx.nn.StateIndex)

    if any(map(stateful, jax.tree.leaves(own, is_leaf=stateful))):
        raise ValueError(
            f"{type(own).__name__} keeps a state (eqx.nn.State), which would have to be carried from update to update. "
            "Use layer normalisation in place of batch normalisation."
        )
    params, static = eqx.partition(own, eqx.is_inexact_array)
    with_paths, structure = jax.tree_util.tree_flatten_with_path(params)
    text = functools.partial(jax.tree_util.keystr, simple=True)
    names = [tuple(text((key,)) for key in path) for path, _ in with_paths]

    def drawn(key: Array) -> Params:
        found = eqx.filter(draw(key) if draw else own, eqx.is_inexact_array)
        return nested(names, jax.tree.leaves(found))

    return Parted(own, names, structure, static, drawn)


def _known(module: Any) -> tuple[tuple[str, ...], tuple[float, float] | None] | None:
    """What is known of Equinox's own cells: names for the leaves of the carry, and the bounds of h."""
    nn = _equinox().nn
    if type(module) is nn.GRUCell:
        return ("h",), gru(1).facts.bounds
    if type(module) is nn.LSTMCell:
        return ("h", "c"), lstm(1).facts.bounds
    return None


def _mapped(parted: Parted, *, over: str, readout: str) -> Functions:
    """`apply` of a module that reads one row, or one step of one row."""
    eqx = _equinox()
    name = type(parted.module).__name__
    takes = accepted(parted.module.__call__, 1, ("mask", "key"), f"{name}.__call__")

    def apply(params, xs, *, train: bool = False, key: Array | None = None, mask: Any = None):
        module = eqx.nn.inference_mode(parted.joined(params), value=not train)
        axes = 2 if over == "step" else 1
        given = {"mask": mask} if "mask" in takes else {}
        if "key" in takes:
            given["key"] = None if key is None else jax.random.split(key, xs.shape[:axes])

        one = jax.vmap(lambda x, given: module(x, **given))
        return (jax.vmap(one) if over == "step" else one)(xs, given)

    switched = {"key", "train"} if "key" in takes else {"train"}
    return Functions(apply, frozenset(takes & {"mask"} | switched), readout, name)
