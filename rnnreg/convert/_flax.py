"""Layers from and to Flax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnreg._checks import check_choice, described
from rnnreg._signatures import typed
from rnnreg.cells import Cell
from rnnreg.convert._layers import GATES, Params, as_numpy, kind_of, layer_of, leaves_of

_FLAX_STYLES = ("linen", "nnx", "nnx_optimized")


@typed
def from_flax(tree: Mapping[str, Any], cell: str | Cell) -> Params:
    """One layer `{"W_xh", "W_hh", "b_h"}` (with `b_hh` for a linen GRU) from a Flax cell.

    A linen `GRUCell` has one recurrent bias, that of the candidate inside the reset: `b_hh = [0, 0,
    b_hn]`. The nnx `GRUCell` has none, for `rr.cells.gru(recurrent_bias=False)`.

    Args:
      tree: the cell's own parameters: `variables["params"]` of linen, `nnx.state(cell, nnx.Param)`
        of nnx.
      cell: the `Cell` that the layer becomes; or "elman" (for `SimpleCell`), "gru" or "lstm" (for
        `LSTMCell` and `OptimizedLSTMCell`).

    Returns:
      Parameters of one layer, in NumPy arrays.

    Raises:
      ValueError: an unknown cell, or a tree that is not such a cell's.

    >>> tree = {"i": {"kernel": np.ones((1, 2)), "bias": np.ones(2)}, "h": {"kernel": np.eye(2)}}
    >>> from_flax(tree, "elman")["W_hh"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    cell = kind_of(cell, "flax", resets=("after",))
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
    return layer_of(cell, W_xh, W_hh, zeros if b_h is None else b_h, b_hh)


@typed
def to_flax(params: Mapping[str, Any], cell: str | Cell, *, style: str = "linen") -> Params:
    """The parameter tree of the Flax cell that computes the same.

    Args:
      params: one layer, `{"W_xh", "W_hh", "b_h"}`.
      cell: the `Cell` of the layer; or "elman", "gru" (with the reset after the product) or "lstm".
      style: "linen"; "nnx", for `nnx.update(cell, nnx.State(tree))`; or "nnx_optimized" for nnx'
        `OptimizedLSTMCell`.

    Returns:
      The cell's own tree, nested dicts of NumPy arrays.

    Raises:
      ValueError: an unknown cell or style, a learned initial state, or a recurrent bias inside the
        reset, which the nnx `GRUCell` does not have.

    >>> layer = {"W_xh": np.ones((1, 8)), "W_hh": np.ones((2, 8)), "b_h": np.ones(8)}
    >>> sorted(to_flax(layer, "lstm"))
    ['hf', 'hg', 'hi', 'ho', 'if', 'ig', 'ii', 'io']
    >>> to_flax(layer, "lstm", style="nnx_optimized")["dense_h"]["bias"].shape
    (8,)
    """
    cell = kind_of(cell, "flax", resets=("after",))
    check_choice(style, "style", _FLAX_STYLES)
    inputs, hiddens = _flax_names(cell, style)
    W_xh, W_hh, b_h, b_hh = leaves_of(params, cell)
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


def _flax_names(cell: str, style: str) -> tuple[list[str], list[str]]:
    if style == "nnx_optimized" or (style == "nnx" and cell != "lstm"):
        return ["dense_i"], ["dense_h"]
    inputs, hiddens = ([side + gate for gate in GATES[cell]] for side in "ih")
    if style == "nnx":
        inputs = ["if_" if name == "if" else name for name in inputs]  # `if` is a Python keyword
    return inputs, hiddens


def _joined(tree: Mapping[str, Any], names: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    missing = [name for name in names if "kernel" not in tree[name]]
    if missing:
        raise ValueError(
            f"tree[{missing[0]!r}] has no 'kernel'; got {described(tree[missing[0]])}."
        )
    kernels = [as_numpy(tree[name]["kernel"]) for name in names]
    biases = [as_numpy(tree[name]["bias"]) if "bias" in tree[name] else None for name in names]
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
