"""What a network is made of, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from rnnreg.cells import Cell, Made
from rnnreg.networks._dropout import is_zero

Params = dict[str, Any]


class Layer(NamedTuple):
    """A recurrent layer.

    Attributes:
      cell: its cell.
      repeat: how many times the same weights are applied, one after another.
      bidirectional: whether a second cell reads the sequence backwards.
      reverse: whether its only cell reads the sequence backwards.
      merge: what becomes of the h of two directions: "concat", "sum", "mean" or "product".
    """

    cell: Cell
    repeat: int = 1
    bidirectional: bool = False
    reverse: bool = False
    merge: str = "concat"

    @property
    def width(self) -> int:
        """The number of features that the layer hands on."""
        return self.cell.hidden_size * (2 if self.bidirectional and self.merge == "concat" else 1)

    @property
    def forwards(self) -> bool:
        """Whether it reads the sequence forwards alone, so that its state can be carried on."""
        return not (self.bidirectional or self.reverse)


class Recurrence(NamedTuple):
    """How the recurrence is computed: the arguments of `recurrence.unroll` that change time, memory or rounding.

    Attributes:
      backend: "auto", "scan", "fused" or "native".
      remat: "full", "sqrt" or the number of steps a segment.
      truncate: steps after which the gradient is cut, or None.
      precision: of every matrix product of the network, or None for JAX's default.
      projection: "auto", or where inputs are projected: "inside" the loop or "before" it.
    """

    backend: str = "auto"
    remat: str | int = "full"
    truncate: int | None = None
    precision: str | None = None
    projection: str = "auto"


class Dropout(NamedTuple):
    """The rates of a network's dropout; each may be traced.

    Attributes:
      inputs: on the inputs of the first layer.
      between: between layers, and between the applications of a repeated one.
      outputs: before the readout.
      recurrent: on the h that enters the recurrent product, one mask over time.
      variational: whether the first three use one mask over time too.
    """

    inputs: Any = 0.0
    between: Any = 0.0
    outputs: Any = 0.0
    recurrent: Any = 0.0
    variational: bool = False

    @property
    def any(self) -> bool:
        """Whether some rate is not 0 (a traced one counts as such)."""
        return not all(map(is_zero, (self.inputs, self.between, self.outputs, self.recurrent)))


class NetworkOutput(NamedTuple):
    """What a network returns.

    Attributes:
      outputs: `[B, T, O]` with a readout at each step, `[B, O]` with one of the last true step or of all together.
      states: by layer, every state at every step, fields `[B, T, H]`.
      final_state: by layer, the state after the last step; give it back as `state` to go on.
    """

    outputs: Array
    states: dict[str, Any]
    final_state: dict[str, Any]


class _NetworkFields(NamedTuple):
    init: Callable[..., Params]
    apply: Callable[..., NetworkOutput]
    layers: tuple[Layer, ...]
    readout: str
    output_size: int | None
    recurrence: Recurrence = Recurrence()
    random: bool = False
    decayed: tuple[str, ...] | None = None
    made: Made | None = None


class Network(_NetworkFields):
    """A network as two pure functions, with the static facts that other rooms ask for.

    Attributes:
      init: `init(key, input_size=None, *, dtype=float32) -> params`; see `help(net.init)`.
      apply: `apply(params, xs, *, mask, state, key, train, perturbations) -> NetworkOutput`; a `Stack` for a network
        of recurrent layers, which diagnostics can walk through. See `help(net.apply)`.
      layers: the recurrent layers, by which states are named; empty if the network is only known as a function.
      readout: "all", "last" or "flatten".
      output_size: O, or None without a readout matrix.
      recurrence: how the recurrence is computed.
      random: whether training draws random numbers (some dropout rate is not 0).
      decayed: names or paths of the leaves outside the layers that are weights, which penalties shrink; wildcards are
        allowed. None: the matrices.
      made: how a network of another library, or of two functions, was made; None for `rr.network`.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        layers = ", ".join(map(_named, self.layers)) or (
            self.made.factory if self.made is not None else "a function"
        )
        size = "" if self.output_size is None else f" -> {self.output_size}"
        return f"Network({layers}{size}, readout {self.readout!r}{', random in training' * self.random})"

    def _replace(self, **changes: Any) -> Network:
        said = [name for name in _SAID_OF_APPLY if name in changes]
        if said and "apply" not in changes:
            raise ValueError(
                f"{said[0]} says what apply does, and replacing it alone changes nothing in apply; make another "
                "network with rr.network(...), or replace apply with it."
            )
        return Network(**(self._asdict() | changes))

    __replace__ = _replace


def _named(layer: Layer) -> str:
    """A layer in a word or two, such as "2 x bidirectional gru(16)"."""
    times = f"{layer.repeat} x " if layer.repeat > 1 else ""
    way = "bidirectional " if layer.bidirectional else "reverse " if layer.reverse else ""
    return f"{times}{way}{layer.cell.name}({layer.cell.hidden_size})"


_SAID_OF_APPLY = ("layers", "readout", "output_size", "recurrence", "random")
