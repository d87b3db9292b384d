"""Embedding → recurrent layers → readout, with dropout; a network is a pair of pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import is_count
from rnnreg.cells import Cell, glorot_uniform
from rnnreg.networks._dropout import Drops, is_zero
from rnnreg.networks._records import Layer, Network, NetworkOutput, Params, Recurrence
from rnnreg.recurrence import BackendChoice, choose_backend, product, unroll
from rnnreg.recurrence._backend import check_backend
from rnnreg.recurrence._product import check_precision
from rnnreg.recurrence._unroll import check_segments


def layer(cell: Cell, *, repeat: int = 1, bidirectional: bool = False) -> Layer:
    """A layer that applies its cell `repeat` times with the same weights, or in both directions.

    Weights that are applied several times are one leaf, so a penalty counts them once.

    >>> import rnnreg as rr
    >>> net = network([layer(rr.cells.elman(2), bidirectional=True)], output_size=1)
    >>> list(net.init(jax.random.key(0), input_size=3)["layer_0"])
    ['forward', 'backward']
    """
    if not is_count(repeat):
        raise ValueError(f"repeat must be a positive int; got {repeat!r}.")
    return Layer(cell, repeat, bidirectional)


def network(
    cells: Sequence[Cell | Layer],
    output_size: int | None,
    *,
    embedding: tuple[int, int] | None = None,
    readout: str = "all",
    input_dropout: Any = 0.0,
    dropout: Any = 0.0,
    output_dropout: Any = 0.0,
    recurrent_dropout: Any = 0.0,
    variational: bool = False,
    initial_state: str = "zero",
    backend: str = "auto",
    remat: str | int = "full",
    truncate: int | None = None,
    precision: str | None = None,
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
        backward cell, at the first).
      input_dropout: rate on the inputs of the first layer (after the embedding).
      dropout: rate between layers, and between the applications of a repeated layer.
      output_dropout: rate before the readout.
      recurrent_dropout: rate on the h that enters the recurrent product, one mask over time.
      variational: use one mask over time for the other three rates too.
      initial_state: "zero" or "learned" (starts at zero).
      backend: "auto", "scan" or "fused": which recurrence runs; `rr.explain` says which, and why.
      remat: "full", "sqrt" or an int: how much of a long sequence the backward pass keeps, and how much it
        computes again (see `rr.recurrence.unroll`). The gradient is the same.
      truncate: None, or the number of steps after which the gradient is cut (truncated back-propagation
        through time); the state is carried on.
      precision: of every matrix product: None (JAX's default), "default", "high", "highest" or "bfloat16"
        (operands rounded to bfloat16; sums, states and parameters stay in float32).

    Every rate may be traced, so that it can be an axis of a sweep; a traced rate outside [0, 1) makes the run diverge.

    >>> import rnnreg as rr
    >>> net = network([rr.cells.elman(hidden_size=4)], output_size=1)
    >>> params = net.init(jax.random.key(0), input_size=2)
    >>> net.apply(params, jnp.ones((3, 5, 2))).outputs.shape
    (3, 5, 1)
    """
    layers = tuple(Layer(c) if isinstance(c, Cell) else c for c in cells)
    if not layers or not all(isinstance(entry, Layer) for entry in layers):
        raise ValueError(
            f"cells must be a non-empty sequence of cells or layers, such as [rr.cells.elman(16)]; got {cells!r}."
        )
    if readout not in ("all", "last"):
        raise ValueError(f"readout must be 'all' or 'last'; got {readout!r}.")
    if initial_state not in ("zero", "learned"):
        raise ValueError(
            f"initial_state must be 'zero' or 'learned'; got {initial_state!r}. A given state is passed "
            "to apply(..., state=...)."
        )
    for entry in layers:
        check_backend(entry.cell, backend)
    check_segments(remat, truncate)
    check_precision(precision)
    for entry in layers:
        if precision is not None and entry.cell.gate is None:
            raise ValueError(
                f"precision={precision!r} sets the products that the library does; the cell {entry.cell.name!r} does "
                "its own in its step. Leave precision=None, or use a cell with a gate."
            )
    recurrence = Recurrence(backend, remat, truncate, precision)
    for name, rate in (
        ("input_dropout", input_dropout),
        ("dropout", dropout),
        ("output_dropout", output_dropout),
        ("recurrent_dropout", recurrent_dropout),
    ):
        if isinstance(rate, Real) and not 0 <= float(rate) < 1:
            raise ValueError(f"{name} must lie in [0, 1); got {rate}.")
    rates = (input_dropout, dropout, output_dropout, recurrent_dropout)
    random = not all(map(is_zero, rates))

    def init(key: Array, input_size: int | None = None, *, dtype: Any = None) -> Params:
        dtype = jnp.result_type(float) if dtype is None else dtype
        key_embedding, key_readout, key_layers = jax.random.split(key, 3)
        params: Params = {}
        if embedding is not None:
            input_size = embedding[1]
            table = jax.random.uniform(key_embedding, embedding, dtype, -0.05, 0.05)
            params["embedding"] = {"W_embed": table}
        if input_size is None:
            raise ValueError(
                "a network without an embedding needs input_size, the number of input features D; for integer "
                "tokens give network(..., embedding=(num_tokens, size))."
            )
        for index, entry in enumerate(layers):
            key_layer = jax.random.fold_in(key_layers, index)
            params[f"layer_{index}"] = _init_layer(
                entry, key_layer, input_size, dtype, initial_state == "learned"
            )
            size = _output_width(entry)
            if entry.repeat > 1 and size != input_size:
                raise ValueError(
                    f"layer {index} is applied {entry.repeat} times, so its input and output sizes must "
                    f"agree; got input {input_size} and output {size}."
                )
            input_size = size
        if output_size is not None:
            W_hy = glorot_uniform()(key_readout, (input_size, output_size), dtype)
            params["readout"] = {"W_hy": W_hy, "b_y": jnp.zeros(output_size, dtype)}
        return params

    def apply(
        params: Params,
        xs: Array,
        *,
        mask: Array | None = None,
        state: dict[str, Any] | None = None,
        key: Array | None = None,
        train: bool = False,
        perturbations: dict[str, Any] | None = None,
    ) -> NetworkOutput:
        if state is not None and any(entry.bidirectional for entry in layers):
            raise ValueError(
                "a bidirectional network reads the whole sequence, so no state can be continued; give it all at once."
            )
        drops = Drops(key if train else None, variational)
        if train and key is None and random:
            raise ValueError(
                "dropout in training draws masks: pass apply(..., train=True, key=key)."
            )
        sequence, params = _enter(params, xs, mask, embedding)
        check_width(params, sequence, layers)
        sequence = drops(jnp.swapaxes(sequence, 0, 1), input_dropout)
        time_mask = None if mask is None else jnp.swapaxes(mask, 0, 1)

        states, final_state = {}, {}
        for index, entry in enumerate(layers):
            name = f"layer_{index}"
            passes = []
            for application in range(entry.repeat):
                if index + application > 0:
                    sequence = drops(sequence, dropout)
                given = _at(state, name, application, entry.repeat)
                passed = _at(perturbations, name, application, entry.repeat)
                final, every, sequence = _run_layer(
                    entry,
                    params[name],
                    sequence,
                    given,
                    time_mask,
                    drops,
                    recurrent_dropout,
                    passed,
                    recurrence,
                )
                passes.append((final, every))
            finals, everys = zip(*passes, strict=True)
            final_state[name] = finals if entry.repeat > 1 else finals[0]
            states[name] = everys if entry.repeat > 1 else everys[0]

        if readout == "last":
            last = f"layer_{len(layers) - 1}"
            final = final_state[last]
            final = final[-1] if layers[-1].repeat > 1 else final
            hidden = (
                jnp.concatenate([final["forward"].h, final["backward"].h], axis=-1)
                if layers[-1].bidirectional
                else final.h
            )
        else:
            hidden = sequence
        hidden = drops(hidden, output_dropout, over_time=readout == "all")
        if output_size is not None:
            hidden = product(hidden, params["readout"]["W_hy"], precision=precision)
            hidden = hidden + jnp.broadcast_to(params["readout"]["b_y"], hidden.shape)
        outputs = jnp.swapaxes(hidden, 0, 1) if readout == "all" else hidden
        states = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), states)
        return NetworkOutput(outputs, states, final_state)

    return Network(init, apply, layers, readout, output_size, recurrence, random)


def explain(net: Network, *, input_size: int) -> dict[str, BackendChoice]:
    """Which recurrence runs each layer of a network, and why, by layer.

    Args:
      net: the network.
      input_size: D, of its first layer (the size of the embedding, where it has one).

    >>> import rnnreg as rr
    >>> net = network([rr.cells.elman(8), rr.cells.gru(8, reset="before")], 1)
    >>> {name: choice.backend for name, choice in explain(net, input_size=2).items()}
    {'layer_0': 'fused', 'layer_1': 'scan'}
    """
    if not isinstance(net, Network):
        raise ValueError(
            f"explain takes a network; got {type(net).__name__}. Of a function of hyper, give what it returns."
        )
    choices = {}
    for index, entry in enumerate(net.layers):
        choices[f"layer_{index}"] = choose_backend(
            entry.cell, input_size=input_size, backend=net.recurrence.backend
        )
        input_size = _output_width(entry)
    return choices


def start_state(net: Network, params: Params, xs: Array) -> dict[str, Any]:
    """What the network starts from, by layer, fields `[B, H]`: a masked step holds the state, and hands it back."""
    first = jnp.asarray(xs)[:, :1]
    return net.apply(params, first, mask=jnp.zeros(first.shape[:2])).final_state


def check_width(params: Params, sequence: Array, layers: tuple[Layer, ...]) -> None:
    """Raises where the inputs do not have the number of features that the first layer was made for."""
    weights = params["layer_0"]["forward"] if layers[0].bidirectional else params["layer_0"]
    if "W_xh" in weights and weights["W_xh"].shape[0] != sequence.shape[-1]:
        raise ValueError(
            f"the network was made for {weights['W_xh'].shape[0]} input features; xs has "
            f"{sequence.shape[-1]} (shape {sequence.shape}, [batch, time, feature])."
        )


def _enter(
    params: Params, xs: Array, mask: Array | None, embedding: tuple[int, int] | None
) -> tuple[Array, Params]:
    xs = jnp.asarray(xs)  # NumPy's float64 becomes the precision in force
    tokens = jnp.issubdtype(xs.dtype, jnp.integer)
    if tokens != (embedding is not None) or xs.ndim != (2 if tokens else 3):
        expected = "[B, T] integer tokens" if embedding is not None else "[B, T, D] real numbers"
        raise ValueError(f"xs must be {expected}; got shape {xs.shape} of {xs.dtype}.")
    if 0 in xs.shape[:2]:
        raise ValueError(f"xs needs at least one row and one step; got shape {xs.shape}.")
    if mask is not None:
        if mask.shape != xs.shape[:2]:
            raise ValueError(f"mask must be [B, T] = {xs.shape[:2]}; got {mask.shape}.")
        # NaN at padding (or a padding token without a row) times a zero gradient would be NaN
        true = mask.astype(bool)
        xs = jnp.where(true if tokens else true[..., None], xs, 0)
    if embedding is not None:
        # JAX would clamp a token that has no row to the last one, and wrap a negative one: NaN instead
        rows = jnp.where(xs < 0, embedding[0], xs)
        table = jnp.asarray(params["embedding"]["W_embed"])
        return table.at[rows].get(mode="fill", fill_value=jnp.nan), params
    return xs, jax.tree.map(lambda leaf: leaf.astype(xs.dtype), params)


def _init_layer(entry: Layer, key: Array, input_size: int, dtype: Any, learned: bool) -> Params:
    def init_cell(key):
        params = entry.cell.init(key, input_size, dtype)
        if learned:
            start = entry.cell.initial_state(1, dtype)
            params = params | {"initial": {k: v[0] for k, v in start._asdict().items()}}
        return params

    if not entry.bidirectional:
        return init_cell(key)
    key_forward, key_backward = jax.random.split(key)
    return {"forward": init_cell(key_forward), "backward": init_cell(key_backward)}


def _output_width(entry: Layer) -> int:
    return entry.cell.hidden_size * (2 if entry.bidirectional else 1)


def _at(tree: dict[str, Any] | None, name: str, application: int, repeat: int) -> Any:
    if tree is None:
        return None
    return tree[name][application] if repeat > 1 else tree[name]


def _run_layer(
    entry, params, sequence, state, mask, drops, recurrent_rate, perturbations, recurrence
):
    """One pass over a layer: final state, states `[T, B, H]`, and the sequence that it hands on."""

    def run(params, state, perturbations, reverse):
        batch = sequence.shape[1]
        if state is None:
            state = entry.cell.initial_state(batch, sequence.dtype)
            if "initial" in params:
                learned = params["initial"]
                state = type(state)(
                    **{k: jnp.broadcast_to(learned[k], v.shape) for k, v in state._asdict().items()}
                )
        shape = (batch, entry.cell.hidden_size)
        if perturbations is not None:
            perturbations = jnp.swapaxes(perturbations, 0, 1)
        return unroll(
            entry.cell,
            params,
            sequence,
            state,
            mask=mask,
            recurrent_mask=drops.mask(shape, recurrent_rate, sequence.dtype),
            perturbations=perturbations,
            reverse=reverse,
            **recurrence._asdict(),
        )

    if not entry.bidirectional:
        final, states = run(params, state, perturbations, False)
        return final, states, states.h
    sides = {
        side: run(
            params[side],
            None if state is None else state[side],
            None if perturbations is None else perturbations[side],
            side == "backward",
        )
        for side in ("forward", "backward")
    }
    final = {side: pair[0] for side, pair in sides.items()}
    states = {side: pair[1] for side, pair in sides.items()}
    return final, states, jnp.concatenate([states["forward"].h, states["backward"].h], axis=-1)
