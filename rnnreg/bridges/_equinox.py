"""Networks and cells of Equinox modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice
from rnnreg.bridges._carry import Recurrent, cell_of
from rnnreg.bridges._functions import Functions, accepted, network_of
from rnnreg.bridges._tree import Names, Params, class_path, leaves_at, nested
from rnnreg.cells import Cell, Made, gru, lstm
from rnnreg.networks import Network, network

LIBRARY = "equinox"


class Parted(NamedTuple):
    """A module taken apart.

    Attributes:
      module: as it was given, or as its factory made it once.
      names: where each parameter is.
      structure: of the parameters alone.
      static: everything else.
      draw: `draw(key) -> params`.
    """

    module: Any
    names: list[Names]
    structure: Any
    static: Any
    draw: Callable[[Array], Params]

    def joined(self, params: Params) -> Any:
        """The module with these parameters."""
        eqx = _equinox()
        leaves = leaves_at(params, self.names)
        return eqx.combine(jax.tree.unflatten(self.structure, leaves), self.static)


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
      output_size: O. Of a recurrent cell, the size of a readout y = h W_hy + b_y that is added; None puts out h. Of
        any other module, what its outputs have; None: not stated.
      readout: "all" if there is an output at each step, "last" if there is one for each sequence.
      over: what one call of the module reads: "sequence" is `[T, D]` of one row, "step" is `[D]` of one step.
      carry: of a recurrent cell that is not Equinox's own, called as `cell(x, carry) -> carry` on one row: a name for
        each leaf of its carry, "h" for the one that is its output. Its carry starts from zeros, and it must have
        `hidden_size`, the length of each leaf.
      decayed: patterns for the names or paths of the weights, which penalties cover; None: the leaves with two axes or
        more. State it if biases are stacked over layers.

    Returns:
      The network.

    Raises:
      ImportError: Equinox is not installed.
      ValueError: something that is no module, one with state (batch normalisation), another `over`, or a `__call__`
        that needs other arguments.

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
        lambda key, input_size, dtype: parted.draw(key),
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
      carry: a name for each leaf of the carry, "h" for the one that is its output; None for the cells of Equinox.
      decayed: patterns for the names or paths of the weights; None: the leaves with two axes or more.

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
            f"module must be eqx.nn.GRUCell or eqx.nn.LSTMCell; got {type(parted.module).__name__}. Of another "
            "recurrent cell, called as cell(x, carry) -> carry, give carry=, a name for each leaf of its carry, "
            '"h" for its output.'
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

    def init(key, input_size: int, dtype: Any) -> Params:
        return parted.draw(key)

    def step(params, carry, x):
        return jax.vmap(parted.joined(params))(x, carry)

    own = Recurrent(parted.module, LIBRARY, init, start, step, names, bounds)
    recurrent = ("weight_hh",) if carry is None else ()  # of another class they are not known
    return cell_of(own, decayed=decayed, recurrent=recurrent, factory="cell_from_equinox")


def _equinox() -> Any:
    try:
        import equinox
    except ImportError as error:
        raise ImportError("a bridge to Equinox needs it installed: pip install equinox.") from error
    return equinox


def _part(module: Any) -> Parted:
    eqx = _equinox()
    if isinstance(module, eqx.Module):
        own, draw = module, None
    elif callable(module):
        own = module(jax.random.key(0))  # for what is not a parameter; the key of a run draws those
        draw = module
    else:
        own = draw = None
    if not isinstance(own, eqx.Module) or not callable(own):
        raise ValueError(
            "module must be an Equinox module that can be called, or a function make(key) that makes one; got "
            f"{module!r}."
        )
    stateful = [eqx.nn.StateIndex]
    leaves = jax.tree.leaves(own, is_leaf=lambda leaf: type(leaf) in stateful)
    if any(type(leaf) in stateful for leaf in leaves):
        raise ValueError(
            f"{type(own).__name__} keeps a state (eqx.nn.State), which would have to be carried from update to update. "
            "Use layer normalisation in place of batch normalisation."
        )
    params, static = eqx.partition(own, eqx.is_inexact_array)
    with_paths, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path) for path, _ in with_paths
    ]

    def parameters(of: Any) -> Params:
        return nested(names, jax.tree.leaves(eqx.filter(of, eqx.is_inexact_array)))

    return Parted(own, names, structure, static, lambda key: parameters(draw(key) if draw else own))


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

        def one(x, given):
            return module(x, **given)

        for _ in range(axes):
            one = jax.vmap(one)
        return one(xs, given)

    switched = {"key", "train"} if "key" in takes else {"train"}
    return Functions(apply, frozenset(takes & {"mask"} | switched), readout, name)
