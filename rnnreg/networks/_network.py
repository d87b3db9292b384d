"""The factory of networks of recurrent layers, and what can be said of a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import (
    check_choice,
    check_count,
    check_share,
    described,
    warn_caller,
)
from rnnreg._memory import check_made
from rnnreg._signatures import Number, typed, typed_with
from rnnreg._tree import is_learned_start, leaf_paths, matrices
from rnnreg.cells import (
    Cell,
    decayed_leaves,
    describe_cell,
    describe_made,
    named,
    plain,
    recurrent_leaves,
)
from rnnreg.networks._dropout import is_zero
from rnnreg.networks._init import init_stack
from rnnreg.networks._noise import check_noise, held
from rnnreg.networks._records import Dropout, Layer, Network, Noise, Params, Recurrence
from rnnreg.networks._stack import Stack, expected_cell
from rnnreg.networks._walk import passes_of
from rnnreg.recurrence import (
    BackendChoice,
    check_backend,
    check_precision,
    check_recurrent_dropout,
    check_segments,
    choose_backend,
    held_apart,
)
from rnnreg.runtime import is_traced


@typed
def layer(
    cell: Cell,
    *,
    repeat: int = 1,
    bidirectional: bool = False,
    reverse: bool = False,
    merge: str = "concat",
) -> Layer:
    """A layer that applies its cell `repeat` times with the same weights, backwards, or in both directions.

    Weights that are applied several times are one leaf, so a penalty counts them once.

    Args:
      cell: the cell.
      repeat: how many times it is applied, one after another.
      bidirectional: whether a second cell of the same kind reads the sequence backwards.
      reverse: whether the cell itself reads the sequence backwards.
      merge: what the layer hands on of two directions: "concat" (both, 2H features), their "sum", "mean" or "product".

    Returns:
      The layer, for `rr.network([...])`.

    Raises:
      ValueError: a number of repeats that is not a positive whole number, another merge, one without two directions, or
        `reverse` of both directions.

    >>> import jax, rnnreg as rr
    >>> net = network([layer(rr.cells.elman(2), bidirectional=True)], output_size=1)
    >>> list(net.init(jax.random.key(0), input_size=3)["layer_0"])
    ['forward', 'backward']
    """
    check_count(repeat, "repeat")
    check_choice(merge, "merge", ("concat", "sum", "mean", "product"))
    if merge != "concat" and not bidirectional:
        raise ValueError(f"merge={merge!r} puts two directions together; give bidirectional=True.")
    if reverse and bidirectional:
        raise ValueError("a bidirectional layer reads both ways already; leave reverse=False.")
    return Layer(cell, repeat, bool(bidirectional), bool(reverse), merge)


@typed_with(embedding="It is (number of tokens, size).")
def network(
    cells: Sequence[Cell | Layer],
    output_size: int | None,
    *,
    embedding: tuple[int, int] | None = None,
    readout: str = "all",
    num_steps: int | None = None,
    input_dropout: Number = 0.0,
    dropout: Number = 0.0,
    output_dropout: Number = 0.0,
    recurrent_dropout: Number = 0.0,
    variational: bool = False,
    noise: Noise = Noise(),  # noqa: B008 - a tuple of numbers
    initial_state: str = "zero",
    backend: str = "auto",
    remat: str | int = "full",
    truncate: int | None = None,
    precision: str | None = None,
    projection: str = "auto",
) -> Network:
    """y_t = h_t W_hy + b_y over a stack of recurrent layers.

    Params are nested dicts: `{"layer_0": {"W_xh", "W_hh", "b_h"}, "readout": {"W_hy", "b_y"}}`, with
    `{"embedding": {"W_embed"}}` before them for tokens, `{"forward": …, "backward": …}` inside a
    bidirectional layer, and `"initial"` beside a layer's weights when the initial state is learned.

    Args:
      cells: the layers from input to output; a `Cell`, or `rr.layer(cell, repeat=…, bidirectional=…)`.
      output_size: O; None returns the last layer's hidden states.
      embedding: `(num_tokens, size)` for integer inputs; None for real ones. A token outside
        0 … num_tokens − 1 gives NaN, so that a run on it diverges and says so.
      readout: "all" reads at each step; "last" reads h at the last true step of each sequence (for a
        backward cell, at the first); "flatten" reads the h of all steps together, 0 where a step is masked.
      num_steps: T, for "flatten", whose W_hy is `[T·H, O]`; None for the others.
      input_dropout: rate on the inputs of the first layer (after the embedding).
      dropout: rate between layers, and between the applications of a repeated layer.
      output_dropout: rate before the readout.
      recurrent_dropout: rate on the h that enters the recurrent product, one mask over time; needs cells with a gate.
      variational: use one mask over time for the other three rates too.
      noise: in the recurrence, such as `rr.Noise(zoneout=0.1)`: zoneout, DropConnect, noise on weights and on states.
      initial_state: "zero" or "learned" (starts at zero).
      backend: "auto", "scan", "fused" or "native": which recurrence runs; `rr.explain` says which, and why.
      remat: "full", "sqrt" or an int: how much of a long sequence the backward pass keeps, and how much it
        computes again (see `rr.recurrence.unroll`). The gradient is the same.
      truncate: None, or the number of steps after which the gradient is cut (truncated back-propagation
        through time); the state is carried on.
      precision: of every matrix product: None (JAX's default), "default", "high", "highest" or "bfloat16"
        (operands rounded to bfloat16; sums, states and parameters stay in float32).
      projection: "auto", or where the fused recurrence projects its inputs: "inside" its loop or "before" it.

    Every rate may be traced, so that it can be an axis of a sweep; a traced rate outside [0, 1) makes the run diverge.
    They act in training; zoneout has its expectation in prediction.

    Returns:
      The network.

    Raises:
      ValueError: an argument out of range, or one that a cell cannot serve.

    >>> import jax, jax.numpy as jnp, rnnreg as rr
    >>> net = network([rr.cells.elman(hidden_size=4)], output_size=1)
    >>> params = net.init(jax.random.key(0), input_size=2)
    >>> net.apply(params, jnp.ones((3, 5, 2))).outputs.shape
    (3, 5, 1)
    """
    if isinstance(cells, (Cell, Layer)):
        raise ValueError(
            f"cells must be a list, from input to output; got one {type(cells).__name__}: put it into a list, [cell]."
        )
    layers = tuple(Layer(c) if isinstance(c, Cell) else c for c in cells)
    recurrence = Recurrence(backend, remat, truncate, precision, projection)
    rates = Dropout(input_dropout, dropout, output_dropout, recurrent_dropout, variational)
    _check_layers(layers, cells, recurrence, rates)
    check_noise(noise, [entry.cell for entry in layers], backend)
    if output_size is not None:
        check_count(output_size, "output_size", hint="None returns the hidden states.")
    if embedding is not None:
        _check_embedding(embedding)
    check_segments(remat, truncate)
    check_precision(precision)
    check_choice(readout, "readout", ("all", "last", "flatten"))
    if readout == "flatten":
        check_count(num_steps, "num_steps", hint="readout='flatten' has weights for each step.")
    elif num_steps is not None:
        raise ValueError(f"num_steps is for readout='flatten'; got readout={readout!r}.")
    hint = "A given state is passed to apply(..., state=...)."
    check_choice(initial_state, "initial_state", ("zero", "learned"), hint=hint)
    _check_rates(rates)
    if len(layers) == 1 and layers[0].repeat == 1 and not is_zero(dropout):
        warn_caller(
            "dropout acts between layers, and this network has one: it does nothing. Use input_dropout, "
            "output_dropout or recurrent_dropout."
        )
    learned = initial_state == "learned"
    stack = Stack(
        layers, output_size, embedding, readout, rates, recurrence, learned, num_steps, noise
    )

    @typed_with(input_size="It is the number of input features, xs.shape[-1].")
    def init(key: Array, input_size: int | None = None, *, dtype: Any = None) -> Params:
        """The parameters before training, drawn from a key by the initialisers of the cells.

        Args:
          key: from `jax.random.key`.
          input_size: D, the number of input features; None for a network with an embedding.
          dtype: of the parameters; None is JAX's default, float32.

        Returns:
          A nested dict of arrays, such as `{"layer_0": {"W_xh", "W_hh", "b_h"}, "readout": {"W_hy", "b_y"}}`.

        Raises:
          ValueError: an input size that is missing or does not fit.
        """
        draw = functools.partial(init_stack, stack=stack, input_size=input_size, dtype=dtype)
        if not is_traced(key):
            hint = "Take a smaller hidden_size, input_size, output_size or embedding."
            check_made(jax.eval_shape(draw, key), "the parameters of this network", hint)
        return draw(key)

    return Network(init, stack, layers, readout, output_size, recurrence, stack.random)


def _check_layers(layers: Any, cells: Any, recurrence: Recurrence, rates: Dropout) -> None:
    if not layers or not all(isinstance(entry, Layer) for entry in layers):
        raise ValueError(
            "cells must be a non-empty sequence of cells or layers, such as [rr.cells.elman(16)]; got "
            f"{described(cells)}."
        )
    for entry in layers:
        check_backend(entry.cell, recurrence.backend, recurrence.projection)
        if recurrence.precision is not None and entry.cell.gate is None:
            raise ValueError(
                f"precision={recurrence.precision!r} sets the products that the library does; the cell "
                f"{entry.cell.name!r} does its own in its step. Leave precision=None, or use a cell with a gate."
            )
        if not is_zero(rates.recurrent):
            check_recurrent_dropout(entry.cell)


def _check_embedding(embedding: Any) -> None:
    if not isinstance(embedding, (tuple, list)) or len(embedding) != 2:
        raise ValueError(
            f"embedding must be a pair (number of tokens, size); got {described(embedding)}."
        )
    for count, name in zip(embedding, ("the number of tokens", "the size"), strict=True):
        check_count(count, f"embedding: {name}")


def _check_rates(rates: Dropout) -> None:
    for name, rate in (
        ("input_dropout", rates.inputs),
        ("dropout", rates.between),
        ("output_dropout", rates.outputs),
        ("recurrent_dropout", rates.recurrent),
    ):
        check_share(rate, name, ends="[)")


@typed
def explain(net: Network, *, input_size: int) -> dict[str, BackendChoice]:
    """Which recurrence runs each layer of a network, and why, by layer.

    Args:
      net: the network.
      input_size: D, of its first layer (the size of the embedding, where it has one).

    Returns:
      A `BackendChoice` for each layer in training; print it.

    Raises:
      ValueError: something that is not a network, or a size that is no count.

    >>> import rnnreg as rr
    >>> normalised = rr.cells.layer_norm(rr.cells.gru(8, reset="before"))
    >>> net = network([rr.cells.elman(8, activation="elu"), normalised], 1)
    >>> {name: choice.backend for name, choice in explain(net, input_size=2).items()}
    {'layer_0': 'fused', 'layer_1': 'scan'}
    """
    if not isinstance(net, Network):
        raise ValueError(
            f"explain takes a network; got {type(net).__name__}. If your network depends on hyper, pass "
            "explain(make_net(hyper), …)."
        )
    check_count(input_size, "input_size")
    choices, noise = {}, net.apply.noise if isinstance(net.apply, Stack) else Noise()
    asked = net.recurrence._asdict()
    asked = {name: asked[name] for name in ("backend", "projection", "precision")}
    for index, entry in enumerate(net.layers):
        state = jax.eval_shape(lambda e=entry: e.cell.initial_state(1, jnp.float32))
        holds, noisy = held(noise, state), not is_zero(noise.recurrent_noise)
        apart = bool(holds) and held_apart(state, holds, noisy)
        choice = choose_backend(entry.cell, input_size=input_size, **asked, holds=apart)
        if holds:
            predicts = choose_backend(expected_cell(net, index), input_size=input_size, **asked)
            also = f"{choice.reason}; in prediction zoneout has its expectation and runs {predicts.backend}"
            choice = choice._replace(reason=also)
        choices[f"layer_{index}"] = choice
        input_size = entry.width
    return choices


@typed
def weight_paths(net: Network, params: Params) -> list[str]:
    """The paths of the leaves that are weights, which penalties shrink: each cell says which of its own are.

    Outside the layers (an embedding, a readout, a network of another library) `net.decayed` says which leaves are
    weights. If it is None the matrices are: a bias, a gain or a scale is not, whatever its name.

    Args:
      net: the network.
      params: its parameters.

    Returns:
      Paths such as "layer_0/W_hh".

    Raises:
      ValueError: a pattern of `net.decayed` that matches no leaf.

    >>> import jax, rnnreg as rr
    >>> net = network([rr.cells.elman(2)], 1)
    >>> weight_paths(net, net.init(jax.random.key(0), 1))
    ['layer_0/W_hh', 'layer_0/W_xh', 'readout/W_hy']
    """
    own = _of_cells(net, params, decayed_leaves)
    leaves = leaf_paths(params)
    layers = {f"layer_{index}" for index in range(len(net.layers))}
    rest = {path: leaf for path, leaf in leaves.items() if path.split("/")[0] not in layers}
    outside = "the parameters outside the layers"
    own |= set(matrices(rest) if net.decayed is None else named(rest, net.decayed, outside))
    starts = isinstance(net.apply, Stack) and net.apply.learned
    return [path for path in leaves if path in own and not (starts and is_learned_start(path))]


@typed
def recurrent_paths(net: Network, params: Params) -> list[str]:
    """The paths of the recurrent matrices, whose norms a run records: each cell states its own (`Cell.recurrent`).

    Args:
      net: the network.
      params: its parameters.

    Returns:
      Paths such as "layer_0/W_hh"; [] for a network that is known as a function.

    >>> import jax, rnnreg as rr
    >>> net = network([rr.cells.elman(2)], 1)
    >>> recurrent_paths(net, net.init(jax.random.key(0), 1))
    ['layer_0/W_hh']
    """
    own = _of_cells(net, params, recurrent_leaves)
    return [path for path in leaf_paths(params) if path in own]


def _of_cells(
    net: Network, params: Params, paths_of: Callable[[Cell, Params], list[str]]
) -> set[str]:
    """The paths that `paths_of(cell, its params)` gives of every cell, in the network's parameters."""
    found = set()
    for together in passes_of(net.layers):
        for place in together:
            prefix = place.layer if place.side is None else f"{place.layer}/{place.side}"
            found |= {f"{prefix}/{path}" for path in paths_of(place.cell, place.params_of(params))}
    return found


@typed
def describe(net: Network) -> dict[str, Any]:
    """What a network is made of, ready for JSON.

    Args:
      net: the network.

    Returns:
      A dict: `layers` (cell and its directions), `output_size`, `readout`, `recurrence`, and of a network of
      recurrent layers `embedding`, `dropout` and `noise`; `by_layer` says whether its `apply` is that of `rr.network`,
      and `made` how a network of another library was made: factory and arguments.

    >>> import rnnreg as rr
    >>> described = describe(network([rr.cells.gru(8)], 1))
    >>> described["layers"][0]["cell"]["factory"], described["readout"]
    ('gru', 'all')
    """
    found: dict[str, Any] = {
        "layers": [
            {
                "cell": describe_cell(entry.cell),
                "repeat": int(entry.repeat),
                "bidirectional": bool(entry.bidirectional),
                "reverse": bool(entry.reverse),
                "merge": entry.merge,
            }
            for entry in net.layers
        ],
        "output_size": plain(net.output_size),
        "readout": net.readout,
        "recurrence": net.recurrence._asdict(),
        "by_layer": isinstance(net.apply, Stack),
        "made": None if net.made is None else describe_made(net.made),
    }
    if isinstance(net.apply, Stack):
        found["num_steps"] = net.apply.num_steps
        found["embedding"] = plain(net.apply.embedding)
        found["initial_state"] = "learned" if net.apply.learned else "zero"
        found["dropout"] = {name: plain(rate) for name, rate in net.apply.rates._asdict().items()}
        found["noise"] = {name: plain(rate) for name, rate in net.apply.noise._asdict().items()}
    return found
