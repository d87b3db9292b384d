"""Networks and cells of Equinox modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rnnreg._checks import check_called, check_choice
from rnnreg._signatures import typed
from rnnreg.bridges._functions import as_tuple
from rnnreg.bridges._module import Known, Source, cell_from, network_from, parted, refuse_state
from rnnreg.cells import Cell, gru, lstm
from rnnreg.networks import Network


@typed
def from_equinox(
    module: Any,
    *,
    output_size: int | None = None,
    readout: str = "all",
    over: str = "sequence",
    carry: str | Sequence[str] | None = None,
    decayed: str | Sequence[str] | None = None,
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
    own = _read(module, carry, over)
    options = {"output_size": output_size, "readout": readout, "carry": carry, "decayed": decayed}
    return network_from(own, "from_equinox", **options, over=over)


@typed
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
    wanted = (
        "eqx.nn.GRUCell or eqx.nn.LSTMCell, or another cell, cell(x, carry) -> carry, with carry=, a name for each "
        'leaf of its carry, "h" for its output'
    )
    own = _read(module, carry, "step")
    return cell_from(own, "cell_from_equinox", carry, decayed, expected=wanted)


def _read(module: Any, carry: Sequence[str] | None, over: str) -> Source:
    """What was given: a module, whose real arrays are parameters, or a function of a key that makes one."""
    try:
        import equinox as eqx
    except ImportError as error:
        raise ImportError("a bridge to Equinox needs it installed: pip install equinox.") from error

    make = module if callable(module) and not isinstance(module, eqx.Module) else None
    if make:
        check_called(make, "module", 1)
    own = make(jax.random.key(0)) if make else module  # for what is not a parameter
    if not isinstance(own, eqx.Module) or not callable(own):
        raise ValueError(
            f"module must be an Equinox module with a __call__, or a function make(key) of one; got {module!r}."
        )

    def stateful(leaf):
        return isinstance(leaf, eqx.nn.StateIndex)

    if any(map(stateful, jax.tree.leaves(own, is_leaf=stateful))):
        refuse_state(type(own).__name__, "a state (eqx.nn.State)")
    params, static = eqx.partition(own, eqx.is_inexact_array)
    fixed, back = parted(params)

    def init(key, *_):
        return parted(eqx.filter(make(key), eqx.is_inexact_array))[0] if make else fixed

    def bind(params, *, train, key):
        one = eqx.combine(back(params), static)
        if recurrent:
            return lambda carry, x: (jax.vmap(one)(x, carry),)
        one = eqx.nn.inference_mode(one, value=not train)

        def call(xs, **given):
            if given.get("key") is not None:
                given["key"] = jax.random.split(given["key"], xs.shape[: 1 + (over == "step")])
            rows = jax.vmap(lambda x, given: one(x, **given))
            return (jax.vmap(rows) if over == "step" else rows)(xs, given)

        return call

    known = Known(as_tuple(carry))
    for kind, names, ours in ((eqx.nn.GRUCell, ("h",), gru), (eqx.nn.LSTMCell, ("h", "c"), lstm)):
        if carry is None and type(own) is kind:
            known = Known(names, ours(1).facts.bounds, ("weight_hh",))
    recurrent = known.carry is not None

    def start(batch_size: int):
        size = getattr(own, "hidden_size", None)
        if not isinstance(size, int):
            raise ValueError(
                f"{type(own).__name__} must have hidden_size, the length of each leaf of its carry; got {size!r}."
            )
        zeros = (jnp.zeros((batch_size, size)),) * len(known.carry or ())
        return zeros[0] if len(zeros) == 1 else zeros

    own_start = start if recurrent else None
    return Source(own, "equinox", init, bind, own_start, known, offers=("mask", "key"))
