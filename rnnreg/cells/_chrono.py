"""Gate biases from the time scales that are expected."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rnnreg._signatures import Number, typed
from rnnreg.cells._base import Cell, made_by


@typed
def chrono(cell: Cell, longest: Number) -> Cell:
    """The cell with its memory gates open for 1 … `longest` steps at the start: b ~ ln U[1, longest − 1].

    A gate held at σ(ln(τ − 1)) = 1 − 1/τ forgets at the time scale τ. Of an LSTM the forget bias is drawn so, and the
    input bias is its negative; of a GRU the bias of the update gate, which keeps h here, is drawn so.

    Args:
      cell: from `lstm` or `gru`, or any cell whose facts name its gate blocks and the one that keeps the state.
      longest: T_max, the longest dependency that is expected, in steps; above 2, and may be traced.

    Returns:
      The cell with another `init`.

    Raises:
      ValueError: a cell without such gates, or a `longest` of 2 or less.

    Source: Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", section 2.

    >>> import rnnreg as rr
    >>> bias = chrono(rr.cells.lstm(3), 100).init(jax.random.key(0), 1)["b_h"]
    >>> i, f = bias[:3], bias[3:6]
    >>> bool((i == -f).all()), bool((0 <= f).all()), bool((f <= jnp.log(99.0)).all())
    (True, True, True)
    """
    facts = cell.facts
    if facts.keeps is None:
        raise ValueError(
            f"chrono sets the bias of the gate that keeps the state, and the cell {cell.name!r} states none; use "
            "rr.cells.lstm or rr.cells.gru, or name it in the facts of your gate, Facts(blocks=…, keeps=…)."
        )
    if isinstance(longest, (int, float)) and not longest > 2:
        raise ValueError(f"longest must be more than 2 steps; got {longest}.")
    H = cell.hidden_size

    def init(key, input_size: int, dtype: Any = jnp.float32):
        key_cell, key_bias = jax.random.split(key)
        params = cell.init(key_cell, input_size, dtype)
        if "b_h" not in params:
            raise ValueError(
                f"chrono sets the bias b_h, and the cell {cell.name!r} has {list(params)}; call it so."
            )
        draws = jax.random.uniform(key_bias, (H,), dtype)
        spread = jnp.asarray(longest, dtype) - 2
        bias = jnp.log1p(draws * spread)  # ln of 1 … longest − 1
        gates = params["b_h"].reshape(len(facts.blocks), H)
        gates = gates.at[facts.blocks.index(facts.keeps)].set(bias)
        if facts.enters is not None:
            gates = gates.at[facts.blocks.index(facts.enters)].set(-bias)
        return params | {"b_h": gates.reshape(-1)}

    return made_by("chrono", cell._replace(init=init), cell=cell, longest=longest)
