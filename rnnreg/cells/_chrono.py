"""Gate biases from the time scales that are expected."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rnnreg.cells._base import Cell

# by the cell's name: number of gates, the gate that keeps the state, and the one that lets new values in
_GATES = {"lstm": (4, 1, 0), "gru": (3, 1, None), "gru_reset_before": (3, 1, None)}


def chrono(cell: Cell, longest: Any) -> Cell:
    """The cell with its memory gates open for 1 … `longest` steps at the start: b ~ ln U[1, longest − 1].

    A gate held at σ(ln(τ − 1)) = 1 − 1/τ forgets at the time scale τ. Of an LSTM the forget bias is drawn so, and the
    input bias is its negative; of a GRU the bias of the update gate, which keeps h here, is drawn so.

    Args:
      cell: from `lstm` or `gru`.
      longest: T_max, the longest dependency that is expected, in steps; above 2, and may be traced.

    Raises:
      ValueError: a cell without such gates, or a `longest` of 2 or less.

    Source: Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", section 2.

    >>> import rnnreg as rr
    >>> bias = chrono(rr.cells.lstm(3), 100).init(jax.random.key(0), 1)["b_h"]
    >>> i, f = bias[:3], bias[3:6]
    >>> bool((i == -f).all()), bool((0 <= f).all()), bool((f <= jnp.log(99.0)).all())
    (True, True, True)
    """
    if cell.name not in _GATES:
        raise ValueError(
            f"chrono sets the biases of memory gates, of {sorted(_GATES)}; got the cell {cell.name!r}."
        )
    if isinstance(longest, (int, float)) and longest <= 2:
        raise ValueError(f"longest must be more than 2 steps; got {longest}.")
    num_gates, keep, enter = _GATES[cell.name]
    H = cell.hidden_size

    def init(key, input_size: int, dtype: Any = jnp.float32):
        key_cell, key_bias = jax.random.split(key)
        params = cell.init(key_cell, input_size, dtype)
        draws = jax.random.uniform(key_bias, (H,), dtype)
        spread = jnp.asarray(longest, dtype) - 2
        bias = jnp.log1p(draws * spread)  # ln of 1 … longest − 1
        gates = params["b_h"].reshape(num_gates, H).at[keep].set(bias)
        if enter is not None:
            gates = gates.at[enter].set(-bias)
        return params | {"b_h": gates.reshape(-1)}

    return cell._replace(init=init)
