"""Layers from and to Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnnreg._checks import check_choice
from rnnreg._signatures import typed
from rnnreg.cells import Cell
from rnnreg.convert._layers import (
    Params,
    as_numpy,
    check_gates,
    kind_of,
    layer_of,
    leaves_of,
    reset_of,
)

_RESETS = ("after", "before")


@typed
def from_keras(weights: Sequence[Any], cell: str | Cell) -> Params:
    """One layer `{"W_xh", "W_hh", "b_h"}` from a Keras `SimpleRNN`, `GRU` or `LSTM`.

    A GRU's bias tells its convention: `[2, 3H]` is `reset_after=True` and gives `b_h` and `b_hh`;
    `[3H]` is `reset_after=False`, for `rr.cells.gru(reset="before", recurrent_bias=False)`. A
    `Bidirectional` layer gives `{"forward": …, "backward": …}`; without biases `b_h` is zero. A
    `Dense` layer is the readout as it stands, `[W_hy, b_y]`, and an `Embedding` is `[W_embed]`.

    Args:
      weights: `layer.get_weights()`: kernel, recurrent kernel and bias; twice that for
        `Bidirectional`.
      cell: the `Cell` that the layer becomes; or "elman" (for `SimpleRNN`), "gru" or "lstm".

    Returns:
      Parameters of one layer, or of both directions, in NumPy arrays.

    Raises:
      ValueError: an unknown cell, another number of arrays, or of gates, than the cell's.

    >>> layer = from_keras([np.array([[2.0, 1.0, 3.0]]), np.ones((1, 3)), np.zeros((2, 3))], "gru")
    >>> layer["W_xh"].tolist(), sorted(layer)
    ([[1.0, 2.0, 3.0]], ['W_hh', 'W_xh', 'b_h', 'b_hh'])
    """
    cell = kind_of(cell, "keras", resets=_RESETS)
    arrays = [as_numpy(value) for value in weights]
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
    check_gates(cell, arrays[0], arrays[1])
    W_xh, W_hh, *rest = (_swap_gates(array, cell) for array in arrays)
    bias = rest[0] if rest else np.zeros(W_hh.shape[-1], W_hh.dtype)
    if bias.ndim == 1:
        return layer_of(cell, W_xh, W_hh, bias)
    return layer_of(cell, W_xh, W_hh, bias[0], bias[1])


@typed
def to_keras(
    params: Mapping[str, Any], cell: str | Cell, *, reset: str | None = None
) -> list[np.ndarray]:
    """The arrays for `set_weights()` of the Keras layer that computes the same.

    Args:
      params: one layer, `{"W_xh", "W_hh", "b_h"}`, or `{"forward": …, "backward": …}` for
        `Bidirectional`.
      cell: the `Cell` of the layer; or "elman", "gru" or "lstm".
      reset: of a GRU that is given by name, "after" (None too) for `reset_after=True` (bias `[2, 3H]`) or "before" for
        `reset_after=False`
        (`[3H]`; a recurrent bias is added to the other, where it belongs in that convention).

    Returns:
      Kernel, recurrent kernel and bias; twice that for `Bidirectional`.

    Raises:
      ValueError: an unknown cell or convention, or a learned initial state.

    >>> kernels = {"W_xh": np.ones((1, 3)), "W_hh": np.ones((1, 3))}
    >>> layer = kernels | {"b_h": np.ones(3), "b_hh": np.ones(3)}
    >>> [array.shape for array in to_keras(layer, "gru")]
    [(1, 3), (1, 3), (2, 3)]
    >>> to_keras(layer, "gru", reset="before")[2].tolist()
    [2.0, 2.0, 2.0]
    """
    own = reset_of(cell)
    if own is not None and reset not in (None, own):
        raise ValueError(
            f"the cell has reset={own!r}, and reset={reset!r} was given; leave it out."
        )
    reset = own or reset or "after"
    check_choice(reset, "reset", _RESETS)
    cell = kind_of(cell, "keras", resets=_RESETS)
    if "forward" in params:
        return [
            array
            for side in ("forward", "backward")
            for array in to_keras(params[side], cell, reset=reset)
        ]
    W_xh, W_hh, b_h, b_hh = leaves_of(params, cell)
    bias = b_h
    if cell == "gru":
        recurrent = np.zeros_like(b_h) if b_hh is None else b_hh
        bias = np.stack([b_h, recurrent]) if reset == "after" else b_h + recurrent
    return [_swap_gates(array, cell) for array in (W_xh, W_hh, bias)]


def _swap_gates(array: np.ndarray, cell: str) -> np.ndarray:
    """Keras' z, r, h ↔ our r, z, n on the last axis; other cells agree already."""
    if cell != "gru":
        return array
    first, second, candidate = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, candidate], axis=-1)
