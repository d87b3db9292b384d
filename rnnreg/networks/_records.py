"""What a network is made of, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from rnnreg.cells import Cell

Params = dict[str, Any]


class Layer(NamedTuple):
    """A recurrent layer.

    Attributes:
      cell: its cell.
      repeat: how many times the same weights are applied, one after another.
      bidirectional: whether a second cell reads the sequence backwards; outputs are joined.
    """

    cell: Cell
    repeat: int = 1
    bidirectional: bool = False


class Recurrence(NamedTuple):
    """How the recurrence is computed: the arguments of `recurrence.unroll` that change time, memory or rounding.

    Attributes:
      backend: "auto", "scan" or "fused".
      remat: "full", "sqrt" or the number of steps a segment.
      truncate: steps after which the gradient is cut, or None.
      precision: of every matrix product of the network, or None for JAX's default.
    """

    backend: str = "auto"
    remat: str | int = "full"
    truncate: int | None = None
    precision: str | None = None


class NetworkOutput(NamedTuple):
    """What a network returns.

    Attributes:
      outputs: `[B, T, O]` with a readout at each step, `[B, O]` with one at the last true step.
      states: by layer, every state at every step, fields `[B, T, H]`.
      final_state: by layer, the state after the last step; give it back as `state` to go on.
    """

    outputs: Array
    states: dict[str, Any]
    final_state: dict[str, Any]


class Network(NamedTuple):
    """A network as two pure functions, with the static facts that other rooms ask for.

    Attributes:
      init: `init(key, input_size=None, *, dtype=float32) -> params`.
      apply: `apply(params, xs, *, mask, state, key, train, perturbations) -> NetworkOutput`.
      layers: the recurrent layers.
      readout: "all" or "last".
      output_size: O, or None without a readout matrix.
      recurrence: how the recurrence is computed.
      random: whether training draws random numbers (some dropout rate is not 0).
    """

    init: Callable[..., Params]
    apply: Callable[..., NetworkOutput]
    layers: tuple[Layer, ...]
    readout: str
    output_size: int | None
    recurrence: Recurrence = Recurrence()
    random: bool = False
