"""Layers from and to PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnreg._checks import described
from rnnreg._signatures import typed, typed_with
from rnnreg.cells import Cell
from rnnreg.convert._layers import Params, as_numpy, kind_of, layer_of, leaves_of

_TORCH_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@typed_with(state_dict="It is that of a module, module.state_dict().")
def from_torch(
    state_dict: Mapping[str, Any], cell: str | Cell, *, prefix: str = "", readout: str | None = None
) -> Params:
    """The layers of a `torch.nn.RNN`, `GRU` or `LSTM`: `{"layer_0": {"W_xh", "W_hh", "b_h"}, …}`.

    A GRU's `bias_hh` becomes `b_hh`; for the others `b_h = bias_ih + bias_hh`. A bidirectional
    layer becomes `{"forward": …, "backward": …}`.

    Outputs are the same; training is not quite. Torch trains both biases, and each gets the gradient of their sum, so
    under torch's optimiser the sum moves twice as fast as `b_h` does here at the same learning rate.

    Args:
      state_dict: `module.state_dict()`, or that of a module which contains it; tensors of any real dtype, bfloat16
        included, which stays bfloat16.
      cell: the `Cell` that the layers become; or "elman" (for `nn.RNN`), "gru" or "lstm".
      prefix: what the names begin with, such as "rnn." when the module is an attribute `rnn`.
      readout: what the names of an `nn.Linear` begin with, such as "head."; it becomes `{"readout": {"W_hy", "b_y"}}`,
        with zeros for a bias that it lacks. None leaves it out.

    Returns:
      Parameters of the `rr.network` that computes the same, in NumPy arrays.

    Raises:
      ValueError: no state_dict, an unknown cell or one that torch does not have, no weights under the prefix or the
        name of the readout, another number of gates than the cell's, or an LSTM with projections (`proj_size`).

    >>> state = {"weight_ih_l0": np.ones((2, 1)), "weight_hh_l0": np.eye(2),
    ...          "bias_ih_l0": np.ones(2), "bias_hh_l0": np.ones(2)}
    >>> from_torch(state, "elman")["layer_0"]["b_h"].tolist()
    [2.0, 2.0]
    """
    cell = kind_of(cell, "torch", resets=("after",), named=False)
    state = {
        name.removeprefix(prefix): as_numpy(value)
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
    W_hy = np.ascontiguousarray(as_numpy(weight).T)
    b_y = np.zeros(W_hy.shape[1], W_hy.dtype) if bias is None else as_numpy(bias)
    return {"W_hy": W_hy, "b_y": b_y}


@typed
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
    kind = kind_of(cell, "torch", resets=("after",), named=False)
    if not isinstance(params, Mapping) or "layer_0" not in params:
        raise ValueError(f"params must hold 'layer_0', 'layer_1', …; got {described(params)}.")
    state = {}
    for index in range(sum(name.startswith("layer_") for name in params)):
        if f"layer_{index}" not in params:
            raise ValueError(
                f"params must hold layer_0, layer_1, … without a gap; got {list(params)}."
            )
        layer = params[f"layer_{index}"]
        sides = (
            {"": layer["forward"], "_reverse": layer["backward"]}
            if "forward" in layer
            else {"": layer}
        )
        for suffix, side in sides.items():
            W_xh, W_hh, b_h, b_hh = leaves_of(side, kind)
            values = (W_xh.T, W_hh.T, b_h, np.zeros_like(b_h) if b_hh is None else b_hh)
            for name, value in zip(_TORCH_NAMES, values, strict=True):
                state[f"{prefix}{name}_l{index}{suffix}"] = np.ascontiguousarray(value)
    if readout is not None:
        own = params.get("readout", {})
        if not {"W_hy", "b_y"} <= set(own):
            raise ValueError(
                f"readout={readout!r} needs params['readout'] with W_hy and b_y; got {sorted(own) or sorted(params)}."
            )
        state[f"{readout}weight"] = np.array(as_numpy(own["W_hy"]).T, order="C")
        state[f"{readout}bias"] = np.array(as_numpy(own["b_y"]))
    return state


def _layer_from_torch(state: Mapping[str, np.ndarray], cell: str, suffix: str) -> Params:
    missing = [name + suffix for name in _TORCH_NAMES[:2] if name + suffix not in state]
    if missing:
        raise ValueError(f"the state_dict has no {missing[0]!r}; got {sorted(state)}.")
    W_xh, W_hh = (np.ascontiguousarray(state[name + suffix].T) for name in _TORCH_NAMES[:2])
    b_ih, b_hh = (state.get(name + suffix) for name in _TORCH_NAMES[2:])
    if b_ih is None:
        b_ih = np.zeros(W_hh.shape[-1], W_hh.dtype)
    return layer_of(cell, W_xh, W_hh, b_ih, b_hh)
