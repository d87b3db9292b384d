"""The parameters of a network before training, and whether given ones are like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, check_key, described
from rnnreg._tree import leaf_paths
from rnnreg.cells import Cell, glorot_uniform
from rnnreg.networks._records import Layer, Params
from rnnreg.networks._walk import by_layer, passes_of
from rnnreg.recurrence import cell_step

if TYPE_CHECKING:
    from rnnreg.networks._stack import Stack


def init_stack(key: Array, stack: Stack, input_size: int | None, dtype: Any) -> Params:
    """The parameters of a stack: embedding, layers, readout; if starts are learned, one beside each cell's weights."""
    check_key(key)
    dtype = jnp.result_type(float) if dtype is None else dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"dtype must be one of real numbers, such as float32; got {jnp.dtype(dtype)}."
        )
    if input_size is not None:
        check_count(input_size, "input_size", hint="Of inputs [B, T, D] it is D, xs.shape[-1].")
    key_embedding, key_readout, key_layers = jax.random.split(key, 3)
    params: Params = {}
    if stack.embedding is not None:
        input_size = stack.embedding[1]
        table = jax.random.uniform(key_embedding, stack.embedding, dtype, -0.05, 0.05)
        params["embedding"] = {"W_embed": table}
    if input_size is None:
        raise ValueError(
            "a network without an embedding needs input_size, the number of input features D; for integer "
            "tokens give network(..., embedding=(num_tokens, size))."
        )
    for index, entry in enumerate(stack.layers):
        key_layer = jax.random.fold_in(key_layers, index)
        params[f"layer_{index}"] = _init_layer(entry, key_layer, input_size, dtype, stack.learned)
        if entry.repeat > 1 and entry.width != input_size:
            raise ValueError(
                f"layer {index} is applied {entry.repeat} times, so its input and output sizes must "
                f"agree; got input {input_size} and output {entry.width}."
            )
        input_size = entry.width
    if stack.output_size is not None:
        read = input_size * (stack.num_steps or 1)
        W_hy = glorot_uniform()(key_readout, (read, stack.output_size), dtype)
        params["readout"] = {"W_hy": W_hy, "b_y": jnp.zeros(stack.output_size, dtype)}
    return params


def _init_layer(entry: Layer, key: Array, input_size: int, dtype: Any, learned: bool) -> Params:
    def init_cell(key):
        params = entry.cell.init(key, input_size, dtype)
        if entry.cell.made is None:
            _check_step(entry.cell, params, input_size, dtype)
        if learned:
            start = entry.cell.initial_state(1, dtype)
            params = params | {"initial": {k: v[0] for k, v in start._asdict().items()}}
        return params

    if not entry.bidirectional:
        return init_cell(key)
    key_forward, key_backward = jax.random.split(key)
    return {"forward": init_cell(key_forward), "backward": init_cell(key_backward)}


def _check_step(cell: Cell, params: Params, input_size: int, dtype: Any) -> None:
    """Raises where one step of a cell of the user's own fails, or returns another state than it was given."""
    state = cell.initial_state(3, dtype)
    shape = getattr(getattr(state, "h", None), "shape", None)
    whose = f"the cell {cell.name!r} (hidden_size={cell.hidden_size})"
    if shape != (3, cell.hidden_size):
        raise ValueError(
            f"the initial state of {whose} must be a NamedTuple with a field h [B, H] = (3, {cell.hidden_size}); got "
            f"{_shapes(state)}."
        )
    x = jax.ShapeDtypeStruct((3, input_size), dtype)
    try:
        new = jax.eval_shape(cell_step(cell), params, state, x)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"the step of {whose} fails on a batch of three rows: {str(error).splitlines()[0]} It was given x "
            f"{x.shape}, the state {_shapes(state)} and the parameters {_shapes(params)} from its init."
        ) from error
    if jax.tree.structure(new) != jax.tree.structure(state) or _shapes(new) != _shapes(state):
        raise ValueError(
            f"the step of {whose} must return a state like the one that it was given, {_shapes(state)}; got "
            f"{_shapes(new)}. Return state._replace(h=...), or the state's own type."
        )


def _shapes(tree: Any) -> str:
    """The shapes of a tree as text, such as HiddenState(h=(3, 5))."""
    return str(jax.tree.map(lambda leaf: getattr(leaf, "shape", ()), tree))


def check_parts(params: Any, wanted: Mapping[str, Sequence[str]]) -> None:
    """Raises if the parameters lack a part of the network, such as the readout, or what belongs in it."""
    for part, names in wanted.items():
        own = params.get(part) if isinstance(params, Mapping) else None
        if own is None or not all(name in own for name in names):
            got = sorted(params) if isinstance(params, Mapping) else type(params).__name__
            raise ValueError(
                f"the network needs params[{part!r}]{f' with {list(names)}' if names else ''}; got "
                f"{got if own is None else sorted(own)}. net.init(key, input_size) makes all of them; "
                "rr.convert.from_torch(..., readout='head.') takes a linear layer along."
            )


def check_fits(stack: Stack, params: Any, num_features: int | None) -> None:
    """Raises if leaves of the parameters have not the shapes that the network gives them; a user's own cells may.

    Args:
      stack: the network.
      params: its parameters, or those of another network.
      num_features: D of the inputs; None with an embedding.

    Raises:
      ValueError: such a leaf, or one that is missing.
    """
    dtype = jnp.result_type(float)
    expected = jax.eval_shape(
        lambda key: init_stack(key, stack, num_features, dtype), jax.random.key(0)
    )
    own = [f"layer_{n}" for n, entry in enumerate(stack.layers) if entry.cell.made is None]
    got = leaf_paths(params)
    for path, leaf in leaf_paths(expected).items():
        if path.split("/")[0] in own or "initial" in path.split("/"):
            continue
        shape = jnp.shape(got[path]) if path in got else None
        if shape != leaf.shape:
            held = f"are {sorted(got)}" if shape is None else f"have it of shape {shape}"
            size = "" if num_features is None else f", input_size={num_features}"
            raise ValueError(
                f"the network needs {path} of shape {leaf.shape}, and the parameters {held}. Are they those of another "
                f"network, or of inputs of another width? net.init(key{size}) makes those of this one."
            )


def check_perturbations(stack: Stack, given: Any, rows_and_steps: tuple[int, ...]) -> None:
    """Raises if what is added to h is not, by layer, `[B, T, H]`: a smaller array would broadcast."""
    for place in (place for together in passes_of(stack.layers) for place in together):
        shape = jnp.shape(place.part_of(given))
        wanted = (*rows_and_steps, place.cell.hidden_size)
        if shape != wanted:
            raise ValueError(
                f"perturbations of {place.name} must be [B, T, H] = {wanted}; got shape {shape}."
            )


def check_state(stack: Stack, state: Any, num_rows: int) -> None:
    """Raises if a given state is not, by layer, like the one that the network starts from."""
    cells = [place.cell for together in passes_of(stack.layers) for place in together]
    starts = [jax.eval_shape(lambda c=c: c.initial_state(num_rows, jnp.float32)) for c in cells]
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (by_layer(stack.layers, starts), state)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"state must be like the final_state of the part before, with a row for each of the {num_rows} in xs: "
            f"{shapes[0]} (shapes); got {described(shapes[1])}."
        )
