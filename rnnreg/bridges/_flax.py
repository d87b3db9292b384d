"""Networks and cells of Flax modules, linen and nnx."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnreg._checks import check_count
from rnnreg.bridges._carry import cell_of
from rnnreg.bridges._functions import FLAGS, Functions, accepted, flags_of, network_of
from rnnreg.bridges._nnx import nnx_cell, nnx_function, template
from rnnreg.bridges._tree import Params, class_path
from rnnreg.cells import Cell, Made, elman, gru, lstm
from rnnreg.networks import Network, network

LINEN, NNX = "flax.linen", "flax.nnx"
FLAX_RECURRENT = ("h*/kernel", "dense_h/kernel")  # in Flax's own cells: gate by gate, or joined


class Found(NamedTuple):
    """A module of Flax that was given."""

    module: Any  # or the cell of an RNN; of a factory its shapes
    library: str
    recurrent: bool
    draw: Any = None  # `draw(key) -> params`, of nnx


def from_flax(
    module: Any,
    *,
    output_size: int | None = None,
    readout: str = "all",
    carry: Sequence[str] | None = None,
    decayed: Sequence[str] | None = None,
    num_steps: int = 1,
) -> Network:
    """A network of a Flax module, linen or nnx, which trains, sweeps and is diagnosed like one of `rr.network`.

    A recurrent cell, or an `RNN` of one, becomes `rr.network([cell_from_flax(module)], output_size)`: its states are
    known, so gradient flow, Lyapunov spectra, saturation, masks and streaming work. Its parameters are
    `params["layer_0"]` (of linen `variables["params"]`, of an `RNN` that of its `cell`).

    Any other module is called with whole sequences, `module(xs)`, and its parameters are `params`. Its `__call__` may
    also take, by name, `mask` (`[B, T]` or None), `train`, `training` or `deterministic`, and `rngs` in nnx; dropout is
    on in training only. Only outputs are known; diagnostics that need states say so.

    An nnx module starts from its own parameters, whatever the key. Give a function of rngs to draw them for each seed:
    `rr.from_flax(lambda rngs: nnx.GRUCell(3, 16, rngs=rngs))`.

    Args:
      module: a linen module, an nnx module, or a function of `nnx.Rngs` that makes one.
      output_size: O. Of a recurrent cell, the size of a readout y = h W_hy + b_y that is added; None puts out h. Of
        any other module, what its outputs have; None: not stated.
      readout: "all" if there is an output at each step, "last" if there is one for each sequence.
      carry: of a recurrent cell whose class is not one of Flax's own, a name for each leaf of its carry, "h" for the
        one that is its output.
      decayed: patterns for the names or paths of the weights, which penalties cover; None: the leaves with two axes or
        more. State it if biases are stacked over layers.
      num_steps: T of the sequence on which a linen module is initialised, if its parameters depend on it.

    Returns:
      The network.

    Raises:
      ValueError: no module, an `RNN` that reads backwards, a cell with dropout or with a carry that is not named, a
        `__call__` that needs other arguments or has other switches, variables beside the parameters.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> net = from_flax(nn.RNN(nn.GRUCell(4)), output_size=1)
    >>> params = net.init(jax.random.key(0), input_size=2)
    >>> net.apply(params, jnp.ones((3, 5, 2))).states["layer_0"].h.shape
    (3, 5, 4)
    >>> params["layer_0"]["hn"]["kernel"].shape
    (4, 4)
    """
    check_count(num_steps, "num_steps")
    found = _read(module)
    made = Made("from_flax", (("module", class_path(found.module)), ("library", found.library)))
    if found.recurrent:
        cell = cell_from_flax(module, carry=carry, decayed=decayed)
        return network([cell], output_size, readout=readout)._replace(made=made)
    if carry is not None:
        raise ValueError(
            f"carry names the carry of a recurrent cell, and {type(found.module).__name__} is none; got {carry!r}."
        )
    if found.library == LINEN:
        pair = _linen_function(found.module, readout=readout, num_steps=num_steps)
    else:
        pair = nnx_function(found.module, found.draw, readout=readout)
    return network_of(*pair, output_size=output_size, decayed=decayed, made=made)


def cell_from_flax(
    module: Any, *, carry: Sequence[str] | None = None, decayed: Sequence[str] | None = None
) -> Cell:
    """A cell of a recurrent cell of Flax, for `rr.network([…])`; it steps the module itself, in the plain scan.

    The state is the module's carry, a record whose field h is its output: `HiddenState` or `LSTMState` for the cells
    that Flax has. The first carry is that of `nn.RNN`, zeros unless the cell says otherwise. A cell draws no random
    numbers. To run a GRU or an LSTM fused, take `rr.cells` and bring the weights with `rr.convert.from_flax`.

    Args:
      module: an `RNNCellBase` of linen or nnx, an `RNN` of one, or a function of `nnx.Rngs` that makes one.
      carry: as in `from_flax`; None for the cells that Flax has.
      decayed: what penalties cover, as in `from_flax`.

    Returns:
      The cell.

    Raises:
      ValueError: no recurrent cell, an `RNN` that reads backwards, dropout in it, or a carry that is not named.

    >>> import flax.linen as nn, rnnreg as rr
    >>> cell = cell_from_flax(nn.OptimizedLSTMCell(4))
    >>> cell.hidden_size, cell.initial_state(1)._fields, cell.facts.bounds
    (4, ('h', 'c'), (-1.0, 1.0))
    """
    found = _read(module)
    if not found.recurrent:
        raise ValueError(
            "module must be a recurrent cell of Flax (an RNNCellBase) or an RNN of one, others go to rr.from_flax; got "
            f"{type(found.module).__name__}."
        )
    with contextlib.suppress(NotImplementedError):  # a user's cell need not say its axes
        if found.module.num_feature_axes != 1:
            name = type(found.module).__name__
            raise ValueError(
                f"{name} reads images; a cell of rr.network reads [B, D] at each step."
            )
    names, bounds = (tuple(carry), None) if carry is not None else _facts(found)
    linen = found.library == LINEN
    own = _linen_cell(found.module) if linen else nnx_cell(found.module, found.draw)
    facts = {"carry": names, "bounds": bounds, "decayed": decayed}
    facts["recurrent"] = (
        FLAX_RECURRENT if carry is None else ()
    )  # of another class they are not known
    return cell_of(found.module, found.library, *own, **facts, factory="cell_from_flax")


def _read(module: Any) -> Found:
    """What was given: the library that it is of, whether it is a recurrent cell, and how nnx draws its parameters."""
    import flax.linen as nn
    from flax import nnx

    if isinstance(module, nn.Module):
        cell = _cell_within(module, nn.RNN)
        return Found(cell, LINEN, isinstance(cell, nn.RNNCellBase))
    if not callable(module) or (isinstance(module, type) and issubclass(module, nn.Module)):
        raise ValueError(
            "module must be a linen module such as nn.RNN(nn.GRUCell(16)), an nnx module, or a function of nnx.Rngs "
            f"that makes one; got {module!r}."
        )
    whole, draw = template(module)
    cell = _cell_within(whole, nnx.RNN)
    if cell is not whole:
        return Found(cell, NNX, True, lambda key: draw(key)["cell"])
    return Found(whole, NNX, isinstance(whole, nnx.RNNCellBase), draw)


def _cell_within(module: Any, rnn: Any) -> Any:
    """The cell of an RNN, which runs it forwards; any other module itself."""
    if not isinstance(module, rnn):
        return module
    if module.reverse:
        raise ValueError(
            "an RNN with reverse=True reads its sequence backwards; for both directions give rr.network "
            "rr.layer(rr.bridges.cell_from_flax(cell), bidirectional=True)."
        )
    return module.cell


def _facts(found: Found) -> tuple[tuple[str, ...] | None, tuple[float, float] | None]:
    """What is known of Flax's own cells: names for the leaves of the carry, and the bounds of h."""
    import flax.linen as nn
    from flax import nnx

    kind, module = type(found.module), found.module
    if kind in (nn.SimpleCell, nnx.SimpleCell):
        return ("h",), elman(1, activation=module.activation_fn).facts.bounds
    functions = {"activation": "activation_fn", "gate_activation": "gate_fn"}
    gates: dict[str, Any] = {ours: getattr(module, own, None) for ours, own in functions.items()}
    if kind in (nn.GRUCell, nn.MGUCell, nnx.GRUCell):  # one gate mixes h and a candidate
        return ("h",), gru(1, **gates).facts.bounds
    if kind in (nn.LSTMCell, nn.OptimizedLSTMCell, nnx.LSTMCell, nnx.OptimizedLSTMCell):
        return ("c", "h"), lstm(1, **gates).facts.bounds
    return None, None


def _linen_function(module: Any, *, readout: str, num_steps: int) -> tuple[Any, Functions]:
    """`init(key, input_size, dtype)` and `apply` of a module that reads whole sequences `[B, T, …]`."""
    name = type(module).__name__
    takes = accepted(module.__call__, 1, ("mask", *FLAGS), f"{name}.__call__")

    def init(key, input_size: int | None, dtype: Any) -> Params:
        shape = (1, num_steps) if input_size is None else (1, num_steps, input_size)
        xs = jnp.zeros(shape, jnp.int32 if input_size is None else dtype)
        masks: dict[str, Any] = {"mask": None} if "mask" in takes else {}
        return _linen_parameters(
            module.init(key, xs, **masks, **flags_of(takes, train=False)), name
        )

    def apply(params, xs, *, train: bool = False, key: Any = None, **masks: Any):
        rngs = None if key is None else {"params": key, "dropout": key}
        flags = flags_of(takes, train=train)
        return module.apply({"params": params}, xs, rngs=rngs, **masks, **flags)

    switched = {"key", "train"} if takes & set(FLAGS) else set()
    return init, Functions(apply, frozenset(takes & {"mask"} | switched), readout, name)


def _linen_cell(module: Any) -> tuple[Any, Any, Any]:
    """`init`, `start` and `step` of a recurrent cell, for `cell_of`."""

    def start(batch_size: int):
        # nn.RNN starts from this key too, and all cells of Flax start from zeros
        return module.initialize_carry(jax.random.key(0), (batch_size, 1))

    def init(key, input_size: int, dtype: Any) -> Params:
        variables = module.init(key, start(1), jnp.zeros((1, input_size), dtype))
        return _linen_parameters(variables, type(module).__name__)

    def step(params, carry, x):
        return module.apply({"params": params}, carry, x)[0]

    return init, start, step


def _linen_parameters(variables: Any, name: str) -> Params:
    """The collection "params"; raises if there are others, which training would have to carry along."""
    others = sorted(set(variables) - {"params"})
    if others:
        raise ValueError(
            f"{name} keeps variables beside its parameters, in {others}, which would have to be carried from update to "
            "update; only 'params' is supported. Use layer normalisation in place of batch normalisation."
        )
    return variables.get("params", {})
