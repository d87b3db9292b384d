"""Weights of layers from and to PyTorch, Keras and Flax, as plain NumPy arrays; no peer is imported (`rr.from_flax`
makes a network of a whole module instead).

| | order of gates | kernel | biases |
|---|---|---|---|
| rnnreg | GRU r, z, n; LSTM i, f, g, o | `[D, G·H]` | `b_h`, and a GRU may have `b_hh` |
| PyTorch | the same | `[G·H, D]` | `bias_ih` and `bias_hh` |
| Keras | GRU z, r, h; LSTM i, f, c, o | `[D, G·H]` | one; `[2, 3H]` with `reset_after=True` |
| Flax | one array a gate, or joined as here | `[D, H]` a gate | on one side; GRU also `hn` |

Only where two biases enter one sum are they added (Elman, LSTM, the r and z gates of a GRU); the
bias inside the reset of a GRU's candidate is always kept apart. The arrays keep their dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from rnnreg._checks import check_choice
from rnnreg.cells import Cell, describe_cell

Params = dict[str, Any]

_GATES = {"elman": ("",), "gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o")}
_TORCH_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_FLAX_STYLES = ("linen", "nnx", "nnx_optimized")


def from_torch(
    state_dict: Mapping[str, Any], cell: str, *, prefix: str = "", readout: str | None = None
) -> Params:
    """The layers of a `torch.nn.RNN`, `GRU` or `LSTM`: `{"layer_0": {"W_xh", "W_hh", "b_h"}, …}`.

    A GRU's `bias_hh` becomes `b_hh`; for the others `b_h = bias_ih + bias_hh`. A bidirectional
    layer becomes `{"forward": …, "backward": …}`.

    Outputs are the same; training is not quite. Torch trains both biases, and each gets the gradient of their sum, so
    under torch's optimiser the sum moves twice as fast as `b_h` does here at the same learning rate.

    Args:
      state_dict: `module.state_dict()`, or that of a module which contains it; tensors of any real dtype, bfloat16
        included, which stays bfloat16.
      cell: "elman" (for `nn.RNN`), "gru" or "lstm".
      prefix: what the names begin with, such as "rnn." when the module is an attribute `rnn`.
      readout: what the names of an `nn.Linear` begin with, such as "head."; it becomes `{"readout": {"W_hy", "b_y"}}`,
        with zeros for a bias that it lacks. None leaves it out.

    Returns:
      Parameters of the `rr.network` that computes the same, in NumPy arrays.

    Raises:
      ValueError: an unknown cell, no weights under the prefix or the name of the readout, another number of gates
        than the cell's, or an LSTM with projections (`proj_size`).

    >>> state = {"weight_ih_l0": np.ones((2, 1)), "weight_hh_l0": np.eye(2),
    ...          "bias_ih_l0": np.ones(2), "bias_hh_l0": np.ones(2)}
    >>> from_torch(state, "elman")["layer_0"]["b_h"].tolist()
    [2.0, 2.0]
    """
    check_choice(cell, "cell", _GATES)
    state = {
        name.removeprefix(prefix): _array(value)
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    if any(name.startswith("weight_hr_l") for name in state):
        raise ValueError(
            "an LSTM with proj_size multiplies h by one more matrix (weight_hr_l0), which rnnreg's "
            "lstm does not have."
        )
    params: Params = {}
    while f"weight_ih_l{len(params)}" in state:
        index = len(params)
        forward = _layer_from_torch(state, cell, f"_l{index}")
        if f"weight_ih_l{index}_reverse" in state:
            backward = _layer_from_torch(state, cell, f"_l{index}_reverse")
            params[f"layer_{index}"] = {"forward": forward, "backward": backward}
        else:
            params[f"layer_{index}"] = forward
    if not params:
        raise ValueError(
            f"no recurrent weights found: expected the name {prefix + 'weight_ih_l0'!r}; got "
            f"{sorted(state_dict)}. Give prefix='rnn.' when the module is an attribute named rnn."
        )
    if readout is not None:
        params["readout"] = _readout_from_torch(state_dict, readout)
    return params


def _readout_from_torch(state_dict: Mapping[str, Any], prefix: str) -> Params:
    weight, bias = (state_dict.get(prefix + name) for name in ("weight", "bias"))
    if weight is None or np.ndim(weight) != 2:
        raise ValueError(
            f"no readout found: expected {prefix + 'weight'!r} of an nn.Linear, a matrix; got {sorted(state_dict)}."
        )
    W_hy = np.ascontiguousarray(_array(weight).T)
    b_y = np.zeros(W_hy.shape[1], W_hy.dtype) if bias is None else _array(bias)
    return {"W_hy": W_hy, "b_y": b_y}


def to_torch(
    params: Mapping[str, Any], cell: str | Cell, *, prefix: str = "", readout: str | None = None
) -> dict[str, np.ndarray]:
    """The `state_dict`, in NumPy arrays, of the `torch.nn.RNN`, `GRU` or `LSTM` that does the same.

    Parameters do not tell what is computed with them: those of a GRU with `reset="before"` look like any other, and no
    module of torch computes the same. Give the cell itself, and such a cell is refused.

    Where rnnreg has one bias, `bias_ih` holds it and `bias_hh` is zero; torch's optimisers train both, so their sum
    moves twice as fast as the one bias does here. Turn each array into a tensor for `load_state_dict`:
    `{name: torch.from_numpy(array) for name, array in …}` (bfloat16 by way of float32, which NumPy and torch share).

    Args:
      params: a network's parameters; its `layer_0`, `layer_1`, … are read, the rest is left out.
      cell: the `Cell` of the layers; or "elman", "gru" (with the reset after the product) or "lstm".
      prefix: put before every name of a recurrent layer.
      readout: what the names of the `nn.Linear` begin with, such as "head."; None leaves the readout out.

    Returns:
      Arrays by name, the caller's own to change.

    Raises:
      ValueError: an unknown cell, or one that torch does not have (another reset or activation); no layers, no
        readout where one is named, or a learned initial state, which those modules do not have.

    >>> layer = {"W_xh": np.ones((1, 2)), "W_hh": np.eye(2), "b_h": np.ones(2)}
    >>> {name: array.shape for name, array in to_torch({"layer_0": layer}, "elman").items()}
    {'weight_ih_l0': (2, 1), 'weight_hh_l0': (2, 2), 'bias_ih_l0': (2,), 'bias_hh_l0': (2,)}
    """
    kind = _torch_kind(cell)
    if "layer_0" not in params:
        raise ValueError(f"params must hold 'layer_0', 'layer_1', …; got {sorted(params)}.")
    state = {}
    for index in range(sum(name.startswith("layer_") for name in params)):
        layer = params[f"layer_{index}"]
        sides = (
            {"": layer["forward"], "_reverse": layer["backward"]}
            if "forward" in layer
            else {"": layer}
        )
        for suffix, side in sides.items():
            W_xh, W_hh, b_h, b_hh = _leaves(side, kind)
            values = (W_xh.T, W_hh.T, b_h, np.zeros_like(b_h) if b_hh is None else b_hh)
            for name, value in zip(_TORCH_NAMES, values, strict=True):
                state[f"{prefix}{name}_l{index}{suffix}"] = np.ascontiguousarray(value)
    if readout is not None:
        own = params.get("readout", {})
        if not {"W_hy", "b_y"} <= set(own):
            raise ValueError(
                f"readout={readout!r} needs params['readout'] with W_hy and b_y; got {sorted(own) or sorted(params)}."
            )
        state[f"{readout}weight"] = np.array(_array(own["W_hy"]).T, order="C")
        state[f"{readout}bias"] = np.array(_array(own["b_y"]))
    return state


def _torch_kind(cell: str | Cell) -> str:
    """The kind of a cell by its name; of the cell itself after a look at what torch cannot do."""
    if not isinstance(cell, Cell):
        check_choice(cell, "cell", _GATES)
        return cell
    described = describe_cell(cell)
    while described["factory"] == "chrono":
        described = described["arguments"]["cell"]
    kind, given = described["factory"], described["arguments"]
    phis = ("tanh", "relu") if kind == "elman" else ("tanh",)
    own = cell.made is not None and cell.made.parts[2:5] != (cell.weights, cell.gate, cell.step)
    if (
        kind not in _GATES
        or own
        or given.get("reset", "after") != "after"
        or given.get("activation") not in phis
        or given.get("gate_activation", "sigmoid") != "sigmoid"
    ):
        raise ValueError(
            f"torch has no module that computes the cell {cell.name!r} with {given}: it has elman with tanh or relu, "
            'gru(reset="after") and lstm, with tanh and sigmoid.'
        )
    return kind


def from_keras(weights: Sequence[Any], cell: str) -> Params:
    """One layer `{"W_xh", "W_hh", "b_h"}` from a Keras `SimpleRNN`, `GRU` or `LSTM`.

    A GRU's bias tells its convention: `[2, 3H]` is `reset_after=True` and gives `b_h` and `b_hh`;
    `[3H]` is `reset_after=False`, for `rr.cells.gru(reset="before", recurrent_bias=False)`. A
    `Bidirectional` layer gives `{"forward": …, "backward": …}`; without biases `b_h` is zero. A
    `Dense` layer is the readout as it stands, `[W_hy, b_y]`, and an `Embedding` is `[W_embed]`.

    Args:
      weights: `layer.get_weights()`: kernel, recurrent kernel and bias; twice that for
        `Bidirectional`.
      cell: "elman" (for `SimpleRNN`), "gru" or "lstm".

    Raises:
      ValueError: an unknown cell, another number of arrays, or of gates, than the cell's.

    >>> layer = from_keras([np.array([[2.0, 1.0, 3.0]]), np.ones((1, 3)), np.zeros((2, 3))], "gru")
    >>> layer["W_xh"].tolist(), sorted(layer)
    ([[1.0, 2.0, 3.0]], ['W_hh', 'W_xh', 'b_h', 'b_hh'])
    """
    check_choice(cell, "cell", _GATES)
    arrays = [_array(value) for value in weights]
    if len(arrays) in (4, 6):
        half = len(arrays) // 2
        return {
            "forward": from_keras(arrays[:half], cell),
            "backward": from_keras(arrays[half:], cell),
        }
    if len(arrays) not in (2, 3):
        raise ValueError(
            "weights must be [kernel, recurrent_kernel] or [kernel, recurrent_kernel, bias] of one "
            "layer (twice that for Bidirectional), as layer.get_weights() gives them; got "
            f"{len(arrays)} arrays."
        )
    _check_gates(cell, arrays[0], arrays[1])
    W_xh, W_hh, *rest = (_swap_gates(array, cell) for array in arrays)
    bias = rest[0] if rest else np.zeros(W_hh.shape[-1], W_hh.dtype)
    if bias.ndim == 1:
        return _layer(cell, W_xh, W_hh, bias)
    return _layer(cell, W_xh, W_hh, bias[0], bias[1])


def to_keras(params: Mapping[str, Any], cell: str, *, reset: str = "after") -> list[np.ndarray]:
    """The arrays for `set_weights()` of the Keras layer that computes the same.

    Args:
      params: one layer, `{"W_xh", "W_hh", "b_h"}`, or `{"forward": …, "backward": …}` for
        `Bidirectional`.
      cell: "elman", "gru" or "lstm".
      reset: of a GRU, "after" for `reset_after=True` (bias `[2, 3H]`) or "before" for
        `reset_after=False`
        (`[3H]`; a recurrent bias is added to the other, where it belongs in that convention).

    Raises:
      ValueError: an unknown cell or convention, or a learned initial state.

    >>> kernels = {"W_xh": np.ones((1, 3)), "W_hh": np.ones((1, 3))}
    >>> layer = kernels | {"b_h": np.ones(3), "b_hh": np.ones(3)}
    >>> [array.shape for array in to_keras(layer, "gru")]
    [(1, 3), (1, 3), (2, 3)]
    >>> to_keras(layer, "gru", reset="before")[2].tolist()
    [2.0, 2.0, 2.0]
    """
    check_choice(cell, "cell", _GATES)
    check_choice(reset, "reset", ("after", "before"))
    if "forward" in params:
        return [
            array
            for side in ("forward", "backward")
            for array in to_keras(params[side], cell, reset=reset)
        ]
    W_xh, W_hh, b_h, b_hh = _leaves(params, cell)
    bias = b_h
    if cell == "gru":
        recurrent = np.zeros_like(b_h) if b_hh is None else b_hh
        bias = np.stack([b_h, recurrent]) if reset == "after" else b_h + recurrent
    return [_swap_gates(array, cell) for array in (W_xh, W_hh, bias)]


def from_flax(tree: Mapping[str, Any], cell: str) -> Params:
    """One layer `{"W_xh", "W_hh", "b_h"}` (with `b_hh` for a linen GRU) from a Flax cell.

    A linen `GRUCell` has one recurrent bias, that of the candidate inside the reset: `b_hh = [0, 0,
    b_hn]`. The nnx `GRUCell` has none, for `rr.cells.gru(recurrent_bias=False)`.

    Args:
      tree: the cell's own parameters: `variables["params"]` of linen, `nnx.state(cell, nnx.Param)`
        of nnx.
      cell: "elman" (for `SimpleCell`), "gru" or "lstm" (for `LSTMCell` and `OptimizedLSTMCell`).

    Raises:
      ValueError: an unknown cell, or a tree that is not such a cell's.

    >>> tree = {"i": {"kernel": np.ones((1, 2)), "bias": np.ones(2)}, "h": {"kernel": np.eye(2)}}
    >>> from_flax(tree, "elman")["W_hh"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check_choice(cell, "cell", _GATES)
    for style in _FLAX_STYLES:
        names = _flax_names(cell, style)
        if all(name in tree for side in names for name in side):
            break
    else:
        raise ValueError(
            f"not the parameters of a Flax cell of kind {cell!r}: expected "
            f"{_flax_names(cell, 'linen')} (linen) or {_flax_names(cell, 'nnx')} (nnx); got "
            f"{sorted(map(str, tree))}. Give the cell's own tree, such as variables['params']."
        )
    W_xh, b_h = _joined(tree, names[0])
    W_hh, b_hh = _joined(tree, names[1])
    zeros = np.zeros(W_hh.shape[-1], W_hh.dtype)
    return _layer(cell, W_xh, W_hh, zeros if b_h is None else b_h, b_hh)


def to_flax(params: Mapping[str, Any], cell: str, *, style: str = "linen") -> Params:
    """The parameter tree of the Flax cell that computes the same, as nested dicts of NumPy arrays.

    Args:
      params: one layer, `{"W_xh", "W_hh", "b_h"}`.
      cell: "elman", "gru" (with the reset after the product) or "lstm".
      style: "linen"; "nnx", for `nnx.update(cell, nnx.State(tree))`; or "nnx_optimized" for nnx'
        `OptimizedLSTMCell`.

    Raises:
      ValueError: an unknown cell or style, a learned initial state, or a recurrent bias inside the
        reset, which the nnx `GRUCell` does not have.

    >>> layer = {"W_xh": np.ones((1, 8)), "W_hh": np.ones((2, 8)), "b_h": np.ones(8)}
    >>> sorted(to_flax(layer, "lstm"))
    ['hf', 'hg', 'hi', 'ho', 'if', 'ig', 'ii', 'io']
    >>> to_flax(layer, "lstm", style="nnx_optimized")["dense_h"]["bias"].shape
    (8,)
    """
    check_choice(cell, "cell", _GATES)
    check_choice(style, "style", _FLAX_STYLES)
    inputs, hiddens = _flax_names(cell, style)
    W_xh, W_hh, b_h, b_hh = _leaves(params, cell)
    input_bias, hidden_bias, candidate_bias = b_h, None, None
    if cell == "lstm":  # Flax keeps the bias of an LSTM with the recurrent kernels
        input_bias, hidden_bias = None, b_h
    if cell == "gru":
        two_gates = 2 * W_hh.shape[0]
        recurrent = np.zeros_like(b_h) if b_hh is None else b_hh
        gate_biases, candidate_bias = b_h + recurrent, recurrent[two_gates:]
        input_bias = np.concatenate([gate_biases[:two_gates], b_h[two_gates:]])
        if style != "linen" and candidate_bias.any():
            raise ValueError(
                "the nnx GRUCell has no bias inside the reset, and the last third of b_hh is not "
                "zero; use style='linen', or train with rr.cells.gru(recurrent_bias=False)."
            )
    tree = _parted(W_xh, input_bias, inputs) | _parted(W_hh, hidden_bias, hiddens)
    if cell == "gru" and style == "linen":
        tree["hn"]["bias"] = candidate_bias
    return tree


def _array(value: Any) -> np.ndarray:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    try:
        return np.asarray(value).copy()  # training the module changes its tensors in place
    except (
        TypeError
    ):  # a dtype that NumPy itself lacks, such as torch.bfloat16; ml_dtypes, which JAX uses, has it
        name = str(value.dtype).removeprefix("torch.")
        return np.asarray(value.float()).astype(jnp.dtype(name))


def _check_gates(cell: str, W_xh: np.ndarray, W_hh: np.ndarray) -> None:
    hidden_size, width = W_hh.shape
    expected = len(_GATES[cell]) * hidden_size
    if width != expected or W_xh.shape[-1] != width:
        raise ValueError(
            f"cell {cell!r} has {len(_GATES[cell])} gate(s), so with hidden size {hidden_size} its "
            f"kernels must have {expected} columns; got W_xh {W_xh.shape} and W_hh {W_hh.shape}."
        )


def _layer(cell: str, W_xh: Any, W_hh: Any, b_h: Any, b_hh: Any = None) -> Params:
    """The layer, with two biases made one where they enter one sum."""
    _check_gates(cell, W_xh, W_hh)
    params = {"W_xh": W_xh, "W_hh": W_hh, "b_h": b_h}
    if b_hh is not None:
        params |= {"b_hh": b_hh} if cell == "gru" else {"b_h": b_h + b_hh}
    return params


def _leaves(params: Mapping[str, Any], cell: str) -> tuple[Any, Any, Any, Any]:
    """W_xh, W_hh, b_h and b_hh (None where there is none) of one of our layers, checked."""
    if "initial" in params:
        raise ValueError(
            "a learned initial state has no place in the other library's parameters; pass it there "
            "as the first state, and the layer here without its 'initial' entry."
        )
    missing = [name for name in ("W_xh", "W_hh", "b_h") if name not in params]
    if missing:
        raise ValueError(
            f"a layer holds W_xh, W_hh and b_h; {missing[0]} is missing from {sorted(params)}."
        )
    # copies: an array of JAX is read-only, and what is handed out is the caller's own
    W_xh, W_hh, b_h = (np.array(_array(params[name])) for name in ("W_xh", "W_hh", "b_h"))
    b_hh = np.array(_array(params["b_hh"])) if "b_hh" in params else None
    _check_gates(cell, W_xh, W_hh)
    return W_xh, W_hh, b_h, b_hh


def _layer_from_torch(state: Mapping[str, np.ndarray], cell: str, suffix: str) -> Params:
    W_xh, W_hh = (np.ascontiguousarray(state[name + suffix].T) for name in _TORCH_NAMES[:2])
    b_ih, b_hh = (state.get(name + suffix) for name in _TORCH_NAMES[2:])
    if b_ih is None:
        b_ih = np.zeros(W_hh.shape[-1], W_hh.dtype)
    return _layer(cell, W_xh, W_hh, b_ih, b_hh)


def _swap_gates(array: np.ndarray, cell: str) -> np.ndarray:
    """Keras' z, r, h ↔ our r, z, n on the last axis; other cells agree already."""
    if cell != "gru":
        return array
    first, second, candidate = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, candidate], axis=-1)


def _flax_names(cell: str, style: str) -> tuple[list[str], list[str]]:
    if style == "nnx_optimized" or (style == "nnx" and cell != "lstm"):
        return ["dense_i"], ["dense_h"]
    inputs, hiddens = ([side + gate for gate in _GATES[cell]] for side in "ih")
    if style == "nnx":
        inputs = ["if_" if name == "if" else name for name in inputs]  # `if` is a Python keyword
    return inputs, hiddens


def _joined(tree: Mapping[str, Any], names: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    kernels = [_array(tree[name]["kernel"]) for name in names]
    biases = [_array(tree[name]["bias"]) if "bias" in tree[name] else None for name in names]
    kernel = np.concatenate(kernels, axis=-1)
    if all(bias is None for bias in biases):
        return kernel, None
    filled = [
        np.zeros(k.shape[-1], k.dtype) if b is None else b
        for k, b in zip(kernels, biases, strict=True)
    ]
    return kernel, np.concatenate(filled)


def _parted(kernel: np.ndarray, bias: np.ndarray | None, names: list[str]) -> Params:
    tree = {
        name: {"kernel": part}
        for name, part in zip(names, np.split(kernel, len(names), axis=-1), strict=True)
    }
    if bias is not None:
        for name, part in zip(names, np.split(bias, len(names)), strict=True):
            tree[name]["bias"] = part
    return tree
