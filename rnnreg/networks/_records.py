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


class Noise(NamedTuple):
    """Noise in the recurrence of a network in training; each number may be traced.

    Every layer draws its own, outside the loop over time, and each kind of noise has a key of its own:

        W_hh ← m ⊙ (W_hh + σ_w ε) / (1 − p_w),  W_xh ← W_xh + σ_w ε        once for each batch
        c_t = z_c ⊙ c_{t−1} + (1 − z_c) ⊙ c̃_t                              memory of an LSTM
        h_t = z_h ⊙ h_{t−1} + (1 − z_h) ⊙ h̃_t + σ_h ε_t                    at each step

    h̃ and c̃ are what the cell returns, z is 1 with probability p, m is 0 with probability p_w, and ε is standard
    normal. A masked step holds the state, without noise. Prediction draws nothing: zoneout has its expectation there,
    h_t = p h_{t−1} + (1 − p) h̃_t, and the other kinds their mean, which is no noise. Diagnostics look at the network
    that predicts.

    Attributes:
      zoneout: p of h. A typical value is 0.05 to 0.15.
      zoneout_c: p of c, for cells whose state has one (LSTM). A typical value is 0.15 to 0.5.
      dropconnect: p_w, the rate at which weights of W_hh are dropped. A typical value is 0.5.
      weight_noise: σ_w, the standard deviation of what is added to W_xh and W_hh. A typical value is 0.075.
      recurrent_noise: σ_h, the standard deviation of what is added to h at each step.

    Source: zoneout is Krueger et al. 2017, eq. 4–5, dropped recurrent weights Merity, Keskar & Socher 2018, and
    weight noise Graves 2011; the typical values are those of Krueger et al. and of Merity et al.

    >>> import jax, jax.numpy as jnp, rnnreg as rr
    >>> net = rr.network([rr.cells.lstm(4)], 1, noise=rr.Noise(zoneout=0.1, zoneout_c=0.5))
    >>> params = net.init(jax.random.key(0), input_size=1)
    >>> net.apply(params, jnp.ones((2, 5, 1)), train=True, key=jax.random.key(1)).outputs.shape
    (2, 5, 1)
    """

    zoneout: Any = 0.0
    zoneout_c: Any = 0.0
    dropconnect: Any = 0.0
    weight_noise: Any = 0.0
    recurrent_noise: Any = 0.0

    @property
    def any(self) -> bool:
        """Whether some number is not 0 (a traced one counts as such)."""
        return not all(map(is_zero, self))

    @property
    def holding(self) -> bool:
        """Whether units are held."""
        return not (is_zero(self.zoneout) and is_zero(self.zoneout_c))

    @property
    def on_weights(self) -> bool:
        """Whether weights are changed."""
        return not (is_zero(self.dropconnect) and is_zero(self.weight_noise))


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
      random: whether training draws random numbers (some rate of dropout or noise is not 0).
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
