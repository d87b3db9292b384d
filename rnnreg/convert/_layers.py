"""One recurrent layer as its arrays, and the kind of a cell by name or by its description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from rnnreg._checks import check_choice
from rnnreg.cells import Cell, describe_cell

Params = dict[str, Any]

GATES = {"elman": ("",), "gru": ("r", "z", "n"), "lstm": ("i", "f", "g", "o")}


def kind_of(cell: str | Cell, library: str, *, resets: tuple[str, ...], named: bool = True) -> str:
    """The kind of a cell by its name; of the cell itself after a look at what the library does not compute.

    Args:
      cell: the cell, or "elman", "gru" or "lstm".
      library: whose layers are meant.
      resets: the conventions of a GRU's reset that it has.
      named: whether its layers take the activation by name, so that any may be given.

    Raises:
      ValueError: another name, or a cell that the library has no layer for.
    """
    if not isinstance(cell, Cell):
        check_choice(cell, "cell", GATES)
        return cell
    if cell.effective is not None:
        raise ValueError(
            f"{library} gets plain weights, and the cell {cell.name!r} has a parametrisation: give the cell that it "
            "was made from, with the layer of rr.networks.effective(net, params)."
        )
    described = _described(cell)
    kind, given = described["factory"], described["arguments"]
    phis = ("tanh", "relu") if kind == "elman" else ("tanh",)
    own = cell.made is not None and cell.made.parts[2:5] != (cell.weights, cell.gate, cell.step)
    plain = given.get("activation") in phis and given.get("gate_activation", "sigmoid") == "sigmoid"
    if (
        kind not in GATES
        or own
        or given.get("reset", "after") not in resets
        or not (named or plain)
    ):
        has = f"gru(reset={' or '.join(map(repr, resets))})"
        raise ValueError(
            f"{library} has no module that computes the cell {cell.name!r} with {given}: it has elman, {has} and lstm"
            + ("." if named else ", with tanh (elman: relu too) and sigmoid.")
        )
    return kind


def reset_of(cell: str | Cell) -> str | None:
    """The convention of a GRU's reset that a cell states; None if a name was given in its place."""
    return _described(cell)["arguments"].get("reset") if isinstance(cell, Cell) else None


def _described(cell: Cell) -> dict[str, Any]:
    """How the cell was made, without what draws its first biases."""
    described = describe_cell(cell)
    while described["factory"] == "chrono":
        described = described["arguments"]["cell"]
    return described


def as_numpy(value: Any) -> np.ndarray:
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


def check_gates(cell: str, W_xh: np.ndarray, W_hh: np.ndarray) -> None:
    if W_xh.ndim != 2 or W_hh.ndim != 2:
        raise ValueError(
            f"the weights of a layer are matrices; got W_xh {W_xh.shape} and W_hh {W_hh.shape}."
        )
    hidden_size, width = W_hh.shape
    expected = len(GATES[cell]) * hidden_size
    if width != expected or W_xh.shape[-1] != width:
        raise ValueError(
            f"cell {cell!r} has {len(GATES[cell])} gate(s), so with hidden size {hidden_size} its "
            f"kernels must have {expected} columns; got W_xh {W_xh.shape} and W_hh {W_hh.shape}."
        )


def check_bias(name: str, bias: Any, W_hh: Any) -> None:
    """Raises if a bias has not one number for each column of the recurrent matrix."""
    if bias is not None and np.shape(bias) != W_hh.shape[-1:]:
        raise ValueError(
            f"{name} must have one number for each of the {W_hh.shape[-1]} columns of W_hh; got shape {np.shape(bias)}."
        )


def layer_of(cell: str, W_xh: Any, W_hh: Any, b_h: Any, b_hh: Any = None) -> Params:
    """The layer, with two biases made one where they enter one sum."""
    check_gates(cell, W_xh, W_hh)
    for name, bias in (("b_h", b_h), ("b_hh", b_hh)):
        check_bias(name, bias, W_hh)
    params = {"W_xh": W_xh, "W_hh": W_hh, "b_h": b_h}
    if b_hh is not None:
        params |= {"b_hh": b_hh} if cell == "gru" else {"b_h": b_h + b_hh}
    return params


def leaves_of(params: Mapping[str, Any], cell: str) -> tuple[Any, Any, Any, Any]:
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
    W_xh, W_hh, b_h = (np.array(as_numpy(params[name])) for name in ("W_xh", "W_hh", "b_h"))
    b_hh = np.array(as_numpy(params["b_hh"])) if "b_hh" in params else None
    check_gates(cell, W_xh, W_hh)
    check_bias("b_h", b_h, W_hh)
    check_bias("b_hh", b_hh, W_hh)
    return W_xh, W_hh, b_h, b_hh
