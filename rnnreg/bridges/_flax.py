"""Networks and cells of Flax modules, linen and nnx."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rnnreg._checks import check_called, check_count
from rnnreg._signatures import typed
from rnnreg.bridges._functions import Params
from rnnreg.bridges._module import (
    Known,
    Source,
    cell_from,
    network_from,
    parted,
    refuse_state,
    switches,
)
from rnnreg.cells import Cell, elman, gru, lstm
from rnnreg.networks import Network

FLAGS = ("train", "training", "deterministic")  # of a call, in linen and nnx
RECURRENT = ("h*/kernel", "dense_h/kernel")  # in Flax's own cells: gate by gate, or joined


@typed
def from_flax(
    module: Any,
    *,
    output_size: int | None = None,
    readout: str = "all",
    carry: str | Sequence[str] | None = None,
    decayed: str | Sequence[str] | None = None,
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
    options = {"output_size": output_size, "readout": readout, "carry": carry, "decayed": decayed}
    return network_from(_read(module, num_steps), "from_flax", **options)


@typed
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
    wanted = "a recurrent cell of Flax (an RNNCellBase) or an RNN of one, others go to rr.from_flax"
    return cell_from(_read(module), "cell_from_flax", carry, decayed, expected=wanted)


def _read(module: Any, num_steps: int = 1) -> Source:
    """What was given: a module of linen or nnx, or a function of rngs that makes one."""
    import flax.linen as nn
    from flax import nnx

    if isinstance(module, nn.Module):
        return _linen(_cell_within(module, nn.RNN), num_steps)
    if not callable(module) or (isinstance(module, type) and issubclass(module, nn.Module)):
        raise ValueError(
            "module must be a linen module such as nn.RNN(nn.GRUCell(16)), an nnx module, or a function of nnx.Rngs "
            f"that makes one; got {module!r}."
        )
    if isinstance(module, nnx.Module):
        own = _split(module)[1]
        return _nnx(module, lambda key: own)
    check_called(module, "module", 1)
    whole = nnx.eval_shape(lambda: module(nnx.Rngs(0)))
    if not isinstance(whole, nnx.Module):
        raise ValueError(
            f"a function of rngs must return an nnx module; it returned {type(whole).__name__}."
        )
    return _nnx(whole, lambda key: _split(module(nnx.Rngs(key)))[1])


def _linen(module: Any, num_steps: int) -> Source:
    import flax.linen as nn

    recurrent = isinstance(module, nn.RNNCellBase)

    def start(batch_size: int):
        # nn.RNN starts from this key too, and all cells of Flax start from zeros
        return module.initialize_carry(jax.random.key(0), (batch_size, 1))

    def init(key, input_size, dtype):
        if recurrent:
            variables = module.init(key, start(1), jnp.zeros((1, input_size), dtype))
        else:
            told = switches(own.takes, train=False, key=None)
            told |= {"mask": None} if "mask" in own.takes else {}
            tokens = input_size is None
            shape = (1, num_steps) if tokens else (1, num_steps, input_size)
            variables = module.init(key, jnp.zeros(shape, jnp.int32 if tokens else dtype), **told)
        if others := sorted(set(variables) - {"params"}):
            refuse_state(own.name, f"variables beside its parameters, in {others}")
        return variables.get("params", {})

    def bind(params, *, train, key):
        rngs = None if key is None else {"params": key, "dropout": key}
        return functools.partial(module.apply, {"params": params}, rngs=rngs)

    own = Source(module, "flax.linen", init, bind, offers=("mask", *FLAGS))
    return _as_cell(own, start) if recurrent else own


def _nnx(whole: Any, draw: Callable[[Any], Any]) -> Source:
    """The graph is static, the parameters are a nested dict; `draw(key)` is its state of parameters."""
    from flax import nnx

    module = _cell_within(whole, nnx.RNN)
    graph, shapes, streams = _split(module)
    back = _params(shapes)[1]
    kept, structure = jax.tree.flatten(streams)
    random = any(stream.tag != "carry" for _, stream in nnx.to_flat_state(streams))

    def init(key, *_) -> Params:
        params = _params(draw(key))[0]
        return params if module is whole else params["cell"]

    def bind(params, *, train, key):
        """The module, its streams keyed anew: nothing that it changes outlives the call."""
        key = jax.random.key(0) if key is None else key  # nothing that counts is drawn without one
        anew = [
            jax.random.split(jax.random.fold_in(key, number), leaf.shape)  # one a block, in a stack
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else jnp.zeros(leaf.shape, leaf.dtype)
            for number, leaf in enumerate(kept)
        ]
        own = nnx.merge(graph, back(params), jax.tree.unflatten(structure, anew))
        own.train() if train else own.eval()

        def call(*inputs, rngs=None, **given):
            return own(*inputs, **given | ({} if rngs is None else {"rngs": nnx.Rngs(rngs)}))

        return call

    offers = ("mask", "rngs", *FLAGS)
    own = Source(module, "flax.nnx", init, bind, offers=offers, random=random)
    if not isinstance(module, nnx.RNNCellBase):
        return own
    if random or any(isinstance(part, nnx.Dropout) for _, part in nnx.iter_modules(module)):
        raise ValueError(
            f"a step draws no random numbers, and {own.name} holds dropout or a random stream, which would be the same "
            "at every step. Take it out of the cell; rr.network has dropout= and others."
        )
    return _as_cell(own, lambda rows: module.initialize_carry((rows, 1), nnx.Rngs(0)))


def _split(module: Any) -> tuple[Any, Any, Any]:
    """Graph, parameters and random streams of a module of nnx; raises if it keeps more."""
    from flax import nnx

    graph, params, streams, rest = nnx.split(module, nnx.Param, nnx.RngState, ...)
    if others := sorted({type(one).__name__ for _, one in nnx.to_flat_state(rest)}):
        refuse_state(type(module).__name__, f"variables beside its parameters, {others}")
    return graph, params, streams


# in JAX's trees a variable of nnx is a node, whose value is an attribute
_params = functools.partial(parted, hidden=jax.tree_util.GetAttrKey)


def _as_cell(own: Source, start: Callable[[int], Any]) -> Source:
    """A recurrent cell, with what is known of Flax's own; raises if it reads images."""
    import flax.linen as nn
    from flax import nnx

    module = own.module
    with contextlib.suppress(NotImplementedError):  # a user's cell need not say its axes
        if module.num_feature_axes != 1:
            raise ValueError(
                f"{own.name} reads images; a cell of rr.network reads [B, D] at each step."
            )
    functions = {"activation": "activation_fn", "gate_activation": "gate_fn"}
    given = {
        ours: getattr(module, theirs)
        for ours, theirs in functions.items()
        if hasattr(module, theirs)
    }
    lstms = (nn.LSTMCell, nn.OptimizedLSTMCell, nnx.LSTMCell, nnx.OptimizedLSTMCell)
    for kinds, carry, ours in (
        ((nn.SimpleCell, nnx.SimpleCell), ("h",), elman),
        ((nn.GRUCell, nn.MGUCell, nnx.GRUCell), ("h",), gru),  # one gate mixes h and a candidate
        (lstms, ("c", "h"), lstm),
    ):
        if type(module) in kinds:
            bounds = ours(1, **given).facts.bounds
            return own._replace(start=start, known=Known(carry, bounds, RECURRENT))
    return own._replace(start=start)


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
