"""Networks and cells of Flax modules, linen and nnx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rnnreg._checks import check_count
from rnnreg.bridges._carry import cell_of
from rnnreg.bridges._functions import network_of
from rnnreg.bridges._linen import LIBRARY as LINEN
from rnnreg.bridges._linen import linen_cell, linen_function
from rnnreg.bridges._nnx import LIBRARY as NNX
from rnnreg.bridges._nnx import nnx_cell, nnx_function, template
from rnnreg.bridges._tree import class_path
from rnnreg.cells import Cell, Made, elman, gru, lstm
from rnnreg.networks import Network, network

FLAX_RECURRENT = ("h*/kernel", "dense_h/kernel")  # in Flax's own cells: gate by gate, or joined


class Found(NamedTuple):
    """A module of Flax that was given.

    Attributes:
      module: the module, or the cell of an RNN; of a factory its shapes.
      library: "flax.linen" or "flax.nnx".
      recurrent: whether it is a recurrent cell.
      draw: `draw(key) -> params`, of nnx.
    """

    module: Any
    library: str
    recurrent: bool
    draw: Any = None


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
      ValueError: something that is no module, an `RNN` that reads backwards, a cell whose output is not stated, or a
        `__call__` that needs other arguments. Later: variables beside the parameters, such as those of batch
        normalisation.

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
        init, apply = linen_function(found.module, readout=readout, num_steps=num_steps)
    else:
        init, apply = nnx_function(found.module, found.draw, readout=readout)
    return network_of(init, apply, output_size=output_size, decayed=decayed, made=made)


def cell_from_flax(
    module: Any, *, carry: Sequence[str] | None = None, decayed: Sequence[str] | None = None
) -> Cell:
    """A cell of a recurrent cell of Flax, for `rr.network([…])`; it steps the module itself, in the plain scan.

    The state is the module's carry, a record whose field h is its output: `HiddenState` or `LSTMState` for the cells
    that Flax has. The first carry is that of `nn.RNN`, zeros unless the cell says otherwise. A cell draws no random
    numbers. To run a GRU or an LSTM fused, take `rr.cells` and bring the weights with `rr.convert.from_flax`.

    Args:
      module: an `RNNCellBase` of linen or nnx, an `RNN` of one, or a function of `nnx.Rngs` that makes one.
      carry: a name for each leaf of the carry, "h" for the one that is its output; None for the cells that Flax has.
      decayed: patterns for the names or paths of the weights; None: the leaves with two axes or more.

    Returns:
      The cell.

    Raises:
      ValueError: no recurrent cell, an `RNN` that reads backwards, or a carry that is not named.

    >>> import flax.linen as nn, rnnreg as rr
    >>> cell = cell_from_flax(nn.OptimizedLSTMCell(4))
    >>> cell.hidden_size, cell.initial_state(1)._fields, cell.facts.bounds
    (4, ('h', 'c'), (-1.0, 1.0))
    """
    found = _read(module)
    if not found.recurrent:
        raise ValueError(
            f"module must be a recurrent cell of Flax (an RNNCellBase) or an RNN of one; got "
            f"{type(found.module).__name__}. rr.from_flax takes other modules."
        )
    if _reads_images(found.module):
        raise ValueError(
            f"{type(found.module).__name__} reads images; a cell of rr.network reads [B, D] at each step."
        )
    names, bounds = (tuple(carry), None) if carry is not None else _facts(found)
    if found.library == LINEN:
        own = linen_cell(found.module, names, bounds)
    else:
        own = nnx_cell(found.module, found.draw, names, bounds)
    recurrent = FLAX_RECURRENT if carry is None else ()  # of another class they are not known
    return cell_of(own, decayed=decayed, recurrent=recurrent, factory="cell_from_flax")


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


def _reads_images(cell: Any) -> bool:
    try:
        return cell.num_feature_axes != 1
    except NotImplementedError:  # a user's cell need not say it
        return False


def _facts(found: Found) -> tuple[tuple[str, ...] | None, tuple[float, float] | None]:
    """What is known of Flax's own cells: names for the leaves of the carry, and the bounds of h."""
    import flax.linen as nn
    from flax import nnx

    kind, module = type(found.module), found.module
    if kind in (nn.SimpleCell, nnx.SimpleCell):
        return ("h",), elman(1, activation=module.activation_fn).facts.bounds
    gates: dict[str, Any] = {
        "activation": getattr(module, "activation_fn", None),
        "gate_activation": getattr(module, "gate_fn", None),
    }
    if kind in (nn.GRUCell, nn.MGUCell, nnx.GRUCell):  # one gate mixes h and a candidate
        return ("h",), gru(1, **gates).facts.bounds
    if kind in (nn.LSTMCell, nn.OptimizedLSTMCell, nnx.LSTMCell, nnx.OptimizedLSTMCell):
        return ("c", "h"), lstm(1, **gates).facts.bounds
    return None, None
