"""The one walk through a network: every pass of every cell, in order, with what it read and what it wrote.

A layer is passed once for each repeat and each direction. Whatever has to go through a network (its output, its
start, gradients layer by layer, gates along a batch) goes through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from rnnreg._checks import described
from rnnreg._signatures import typed
from rnnreg.cells import Cell
from rnnreg.networks._dropout import Drops
from rnnreg.networks._noise import draw
from rnnreg.networks._records import Dropout, Layer, Noise, Params, Recurrence
from rnnreg.recurrence import states_before, unroll

SIDES = ("forward", "backward")


class Pass(NamedTuple):
    """One pass of one cell over the sequence.

    Attributes:
      index: of the layer.
      application: which of the layer's repeats; None where it has one.
      side: "forward" or "backward" of a bidirectional layer; None of any other.
      cell: the cell.
      reverse: whether it reads from the last step to the first.
    """

    index: int
    application: int | None
    side: str | None
    cell: Cell
    reverse: bool = False

    @property
    def layer(self) -> str:
        """The name of the layer, "layer_0"."""
        return f"layer_{self.index}"

    @property
    def name(self) -> str:
        """The name of the pass, such as "layer_0", "layer_1/0" or "layer_1/backward"."""
        parts = (self.layer, self.application, self.side)
        return "/".join(str(part) for part in parts if part is not None)

    @property
    def leaf(self) -> str:
        """The path of its parameters, which all repeats of a layer share, such as "layer_1/backward"."""
        return self.layer if self.side is None else f"{self.layer}/{self.side}"

    @typed
    def params_of(self, params: Params) -> Params:
        """The parameters of its cell, which all repeats of a layer share.

        Args:
          params: the network's parameters.

        Returns:
          The parameters of one cell.
        """
        own = _entry(params, self.layer, "params")
        return own if self.side is None else _entry(own, self.side, f"params[{self.layer!r}]")

    @typed
    def part_of(self, tree: dict[str, Any]) -> Any:
        """Its part of a tree by layer, such as `NetworkOutput.states`.

        Args:
          tree: values by layer, as the network returns them.

        Returns:
          The value of this pass.
        """
        own = _entry(tree, self.layer, "the tree by layer")
        own = own if self.application is None else own[self.application]
        return own if self.side is None else own[self.side]


class Visit(NamedTuple):
    """What happened in one pass, time first.

    Attributes:
      place: the pass.
      params: the parameters of its cell.
      inputs: `[T, B, D]`, what it read.
      start: the state before its first step (of a backward cell: before the last step of the sequence).
      final: the state after its last step.
      states: the states at every step, fields `[T, B, …]`.
    """

    place: Pass
    params: Params
    inputs: Array
    start: Any
    final: Any
    states: Any

    def before(self) -> Any:
        """The states that each step started from, fields `[T, B, …]`.

        Returns:
          The states, in the order of time.
        """
        return states_before(self.start, self.states, reverse=self.place.reverse)


def _entry(tree: Any, name: str, what: str) -> Any:
    """What a tree holds under a name, or an error that says what it holds."""
    if not isinstance(tree, Mapping) or name not in tree:
        raise ValueError(
            f"{what} must hold {name!r}; got {described(tree)}. Does it belong to another network?"
        )
    return tree[name]


def passes_of(layers: Sequence[Layer]) -> Iterator[list[Pass]]:
    """The passes through the layers in order; those that read the same sequence (two directions) come together."""
    for index, entry in enumerate(layers):
        for application in range(entry.repeat):
            number = application if entry.repeat > 1 else None
            sides = SIDES if entry.bidirectional else (None,)
            yield [
                Pass(index, number, side, entry.cell, entry.reverse or side == "backward")
                for side in sides
            ]


def by_layer(layers: Sequence[Layer], values: Sequence[Any]) -> dict[str, Any]:
    """One value a pass, in order, as a tree by layer: a tuple over repeats, a dict over directions."""
    left, tree = iter(values), {}
    for index, entry in enumerate(layers):
        repeats = tuple(
            {side: next(left) for side in SIDES} if entry.bidirectional else next(left)
            for _ in range(entry.repeat)
        )
        tree[f"layer_{index}"] = repeats if entry.repeat > 1 else repeats[0]
    return tree


def walk(
    layers: Sequence[Layer],
    params: Params,
    sequence: Array,
    *,
    mask: Array | None = None,
    state: dict[str, Any] | None = None,
    drops: Drops | None = None,
    rates: Dropout = Dropout(),  # noqa: B008 - a tuple of numbers
    noise: Noise = Noise(),  # noqa: B008
    perturbations: dict[str, Any] | None = None,
    recurrence: Recurrence = Recurrence(),  # noqa: B008
    train: bool = False,
    weights: Array | None = None,
) -> tuple[list[Visit], Array]:
    """Every pass over a time-first sequence, and the sequence that comes out at the top.

    Args:
      layers: the layers.
      params: the network's parameters.
      sequence: `[T, B, D]` real inputs (tokens are embedded).
      mask: `[T, B]`, 1 where a step counts.
      state: by layer, the states to start from; None is each cell's own.
      drops: draws dropout masks; None drops nothing, and takes the expectation of noise.
      rates: of dropout.
      noise: in the recurrence.
      perturbations: by layer, `[B, T, H]`, added to h after each step.
      recurrence: how the recurrence is computed.
      train: whether cells do what they do in training alone.
      weights: `[B]`, how much a row counts in statistics over the batch.

    Returns:
      The visits in order, and the h of the last layer, `[T, B, H]`.
    """
    drops = Drops(None, False) if drops is None else drops
    visits: list[Visit] = []
    for number, together in enumerate(passes_of(layers)):
        rate = rates.between if number else rates.inputs
        sequence = drops(sequence, rate)
        joined = []
        for place in together:
            own = place.params_of(params)
            size = (sequence.shape[1], place.cell.hidden_size)
            given = None if state is None else place.part_of(state)
            start = start_of(place.cell, own, sequence) if given is None else given
            drawn = draw(
                noise,
                place.cell,
                own,
                start,
                key=drops.key,
                num_steps=len(sequence),
                name=place.name,
                leaf=place.leaf,
            )
            place, start, added = place._replace(cell=drawn.cell), drawn.start, drawn.added
            cell = place.cell
            if train and cell.training is not None:
                cell, start = _in_training(place, start, mask, weights)
            if perturbations is not None:
                given = jnp.swapaxes(place.part_of(perturbations), 0, 1)
                added = given if added is None else given + added
            final, states = unroll(
                cell,
                own,
                sequence,
                start,
                mask=mask,
                recurrent_mask=drops.mask(size, rates.recurrent, sequence.dtype),
                perturbations=added,
                holds=drawn.holds,
                reverse=place.reverse,
                **recurrence._asdict(),
            )
            visits.append(Visit(place, own, sequence, start, final, states))
            joined.append(states.h)
        sequence = merged(layers[together[0].index], joined)
    return visits, sequence


def _in_training(
    place: Pass, start: Any, mask: Array | None, weights: Array | None
) -> tuple[Cell, Any]:
    """The cell with its gate of training, and its start with the weights of the rows; raises where it cannot be."""
    cell = place.cell
    if mask is not None or place.application is not None:
        what = "a mask" if mask is not None else "a layer that is applied several times"
        raise ValueError(
            f"the cell {cell.name!r} takes statistics of each step over the rows of a batch in training, and {what} "
            "leaves a step without one set of rows. Use sequences of one length and repeat=1, or rr.cells.layer_norm."
        )
    assert cell.training is not None
    if weights is not None:
        start = start._replace(weight=weights.astype(start.h.dtype)[:, None])
    return cell._replace(gate=cell.training.gate), start


def merged(layer: Layer, hidden: Sequence[Array]) -> Array:
    """The h of one direction, or of two as the layer puts them together, `[…, its width]`."""
    if len(hidden) == 1:
        return hidden[0]
    if layer.merge == "concat":
        return jnp.concatenate(hidden, axis=-1)
    first, second = hidden
    total = first * second if layer.merge == "product" else first + second
    return total / 2 if layer.merge == "mean" else total


def start_of(cell: Cell, params: Params, sequence: Array) -> Any:
    """What a cell starts from on `[T, B, D]`: its own state, or what it learned, the same for every row.

    A learned start is a record of the fields of the state under the name "initial".
    """
    state = cell.initial_state(sequence.shape[1], sequence.dtype)
    learned = params.get("initial") if isinstance(params, dict) else None
    if not isinstance(learned, dict) or set(learned) != set(getattr(state, "_fields", ())):
        return state
    fields = state._asdict().items()
    return type(state)(**{name: jnp.broadcast_to(learned[name], v.shape) for name, v in fields})
