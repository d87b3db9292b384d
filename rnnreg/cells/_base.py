"""What a cell is: its weights, its gate or step, the state that it carries, and how it was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count
from rnnreg._signatures import typed
from rnnreg._tree import leaf_paths, matching, matrices
from rnnreg.cells._activation import ACTIVATIONS, Activation
from rnnreg.cells._contracts import (
    EffectiveFunction,
    GateFunction,
    InitFunction,
    InitialStateFunction,
    Params,
    StepFunction,
    WeightsFunction,
)
from rnnreg.cells._gate import Facts, Gate, Step


class HiddenState(NamedTuple):
    """The state of a cell that carries its output alone.

    Attributes:
      h: `[B, H]` hidden state, which is also the output.
    """

    h: Array


class Weights(NamedTuple):
    """The effective weights of a cell, formed once a sequence from its parameters.

    Attributes:
      W_xh: `[D, G·H]`, enters as x W_xh + b_h.
      W_hh: `[H, G·H]`, enters as h W_hh + b_hh.
      b_h: `[G·H]`.
      b_hh: `[G·H]`, for cells whose recurrent product has a bias of its own; None without.
    """

    W_xh: Array
    W_hh: Array
    b_h: Array
    b_hh: Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """How a record was made, so that a result can say it and another process can make it again.

    Attributes:
      factory: name of the function that made it, such as "gru".
      arguments: its arguments, pairs of name and value.
      parts: the functions that it made; a record that holds other ones was changed afterwards.
    """

    factory: str
    arguments: tuple[tuple[str, Any], ...]
    parts: tuple[Any, ...] = ()


class Training(NamedTuple):
    """What a cell does in training and not in prediction: statistics over the rows of a batch.

    Attributes:
      gate: the gate in training; it may mix the rows of a batch.
      statistics: `statistics(params, xs [T, B, D], before, states, weights [B]) -> leaves` to store for prediction,
        from the states `[T, B, …]` before and after each step of a pass in training.
      settled: `settled(state) -> state`, the same state after all steps that have statistics of their own: from there
        on each step of prediction is the same map. None: it always is.
    """

    gate: Gate
    statistics: Callable[..., Params]
    settled: Callable[[Any], Any] | None = None


class Cell(NamedTuple):
    """A recurrent cell as its gates; the library does the matrix products.

    One step, on rows: `state' = gate(params, state, x W_xh + b_h, h W_hh + b_hh)`. A cell whose recurrent
    product does not come first gives `step(params, state, x) -> state` instead of `gate`.

    Attributes:
      name: short name, for messages and records; nothing is decided by it.
      hidden_size: H.
      init: `init(key, input_size, dtype) -> params`; see `InitFunction`.
      initial_state: `initial_state(batch_size, dtype) -> state`, zeros; see `InitialStateFunction`.
      weights: `weights(params) -> Weights`, formed once per sequence; see `WeightsFunction`.
      gate: a `Gate`, or a row-wise function `gate(params, state, x_proj [B, G·H], h_proj [B, G·H]) -> state`.
      step: a `Step`, or a function `step(params, state, x [B, D]) -> state`, for cells without `gate`.
      decayed: names or paths of the leaves that are weights, which penalties shrink; wildcards are allowed. None: the
        matrices.
      made: how the cell was made; None for a cell of a user's own.
      recurrent: names or paths of its recurrent matrices, `[H, G·H]` or `[G·H, H]`, whose norms a run records;
        wildcards are allowed, and a name that is no leaf is passed over.
      effective: `effective(params) -> params`, what the trained numbers of a parametrisation stand for; see
        `EffectiveFunction`. None: the parameters stand for themselves.
      isometric: paths of the effective matrices whose singular values a parametrisation fixes.
      training: what it does in training and not in prediction; None for a cell that does the same in both.
    """

    name: str
    hidden_size: int
    init: InitFunction
    initial_state: InitialStateFunction
    weights: WeightsFunction | None = None
    gate: Gate | GateFunction | None = None
    step: Step | StepFunction | None = None
    decayed: tuple[str, ...] | None = None
    made: Made | None = None
    recurrent: tuple[str, ...] = ("W_hh",)
    effective: EffectiveFunction | None = None
    isometric: tuple[str, ...] = ()
    training: Training | None = None

    @property
    def facts(self) -> Facts:
        """What is known of the gate or the step; nothing for a plain function."""
        own = self.gate if self.gate is not None else self.step
        return own.facts if isinstance(own, (Gate, Step)) else Facts()


def made_by(factory: str, made: Cell, /, **arguments: Any) -> Cell:
    """The cell with a note of how it was made."""
    return made._replace(made=Made(factory, tuple(arguments.items()), _parts(made)))


def _parts(cell: Cell) -> tuple[Any, ...]:
    functions = (cell.init, cell.initial_state, cell.weights, cell.gate, cell.step)
    return (*functions, cell.decayed, cell.recurrent, cell.effective, cell.training)


@typed
def describe_cell(cell: Cell) -> dict[str, Any]:
    """How a cell was made, ready for JSON: name, hidden size, factory and arguments; None for what is not stated.

    Args:
      cell: any cell.

    Returns:
      A dict of `name`, `hidden_size`, `factory`, `arguments`, `own` (the arguments that are activations of a user's
      own, which a name does not describe) and `changed` (whether parts were replaced afterwards).

    >>> import rnnreg as rr
    >>> describe_cell(rr.cells.elman(4))["arguments"]["activation"]
    'tanh'
    """
    made = cell.made
    described = {"factory": None, "arguments": {}} if made is None else describe_made(made)
    own = [
        name
        for name, value in (() if made is None else made.arguments)
        if isinstance(value, Activation) and ACTIVATIONS.get(value.name) is not value
    ]
    return {
        "name": cell.name,
        "hidden_size": int(cell.hidden_size),
        **described,
        "own": own,
        "changed": made is not None and made.parts != _parts(cell),
    }


def describe_made(made: Made) -> dict[str, Any]:
    """The factory and the arguments of a record, ready for JSON."""
    arguments = {name: plain(value) for name, value in made.arguments}
    return {"factory": made.factory, "arguments": arguments}


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers, strings, descriptions of records; words for what is only a function."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Cell):
        return describe_cell(value)
    if isinstance(value, jax.core.Tracer):
        return "traced: a function of hyper"
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return [plain(item) for item in value]
    if hasattr(value, "shape") and value.shape == ():
        return value.item()
    described = getattr(value, "arguments", None)
    if described is not None:
        return {"name": value.name, **{name: plain(given) for name, given in described}}
    return getattr(value, "name", None) or getattr(value, "__name__", type(value).__name__)


def decayed_leaves(cell: Cell, params: Params) -> list[str]:
    """The paths of the leaves of a cell that are weights: those that it names, else its matrices."""
    leaves = leaf_paths(params)
    if cell.decayed is None:
        return matrices(leaves)
    return named(leaves, cell.decayed, f"the parameters of the cell {cell.name!r}")


def named(leaves: dict[str, Any], patterns: str | Sequence[str], whose: str) -> list[str]:
    """The paths that the patterns of `decayed` match, in the order of the leaves; raises if one matches nothing."""
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if not matching(leaves, pattern):
            raise ValueError(f"decayed={pattern!r} matches none of {whose}: {list(leaves)}.")
    return list(matching(leaves, patterns))


def recurrent_leaves(cell: Cell, params: Params) -> list[str]:
    """The paths of the matrices of a cell that it states as recurrent."""
    return matrices(matching(leaf_paths(params), cell.recurrent))


def made_for(cell: Cell, params: Params) -> int | None:
    """D, the number of input features that the parameters of a cell were made for; None if its step does not say."""
    if cell.weights is None:
        return None
    try:
        shapes = jax.eval_shape(lambda own: formed(cell, own), params)
        return Weights(*jax.eval_shape(cell.weights, shapes)).W_xh.shape[-2]
    except KeyError as error:
        raise ValueError(
            f"the parameters of the cell {cell.name!r} lack {error}; got {sorted(params)}."
        ) from error


def formed(cell: Cell, params: Params) -> Params:
    """The effective parameters of a cell, which its weights, gate and step read."""
    return params if cell.effective is None else cell.effective(params)


def normalisable(cell: Cell, who: str) -> Made:
    """How a cell was made; raises unless it is one of the library's that was not changed since."""
    described = describe_cell(cell)
    if (
        cell.made is None
        or described["changed"]
        or cell.made.factory not in ("elman", "gru", "lstm")
    ):
        raise ValueError(
            f"{who} is for a cell as elman, irnn, gru or lstm makes it; got {cell.name!r}"
            f"{', which was changed since' if described['changed'] else ''}. Normalise first, as in "
            f"rr.cells.chrono(rr.cells.{who}(rr.cells.lstm(16), …), 100)."
        )
    return cell.made


def plain_weights(params: Params) -> Weights:
    """The leaves themselves, for cells without a parametrisation."""
    return Weights(params["W_xh"], params["W_hh"], params["b_h"], params.get("b_hh"))


def zero_hidden(hidden_size: int) -> Callable[..., HiddenState]:
    """`initial_state` of a cell that carries only h."""

    def initial_state(batch_size: int, dtype: Any = jnp.float32) -> HiddenState:
        return HiddenState(h=jnp.zeros((batch_size, hidden_size), dtype))

    return initial_state


def check_hidden_size(hidden_size: int) -> None:
    """Raises if the hidden size is not a positive whole number (it sets shapes, so it is static)."""
    hint = 'It sets shapes: sweep it as a static axis, static={"hidden_size": [16, 32]}.'
    check_count(hidden_size, "hidden_size", hint=hint)


@typed
def from_step(
    step: Step | StepFunction,
    *,
    init: InitFunction,
    hidden_size: int,
    initial_state: InitialStateFunction | None = None,
    name: str = "custom",
    decayed: tuple[str, ...] | None = None,
    recurrent: tuple[str, ...] = ("W_hh",),
) -> Cell:
    """A cell from any `step(params, state, x) -> state`; welcome everywhere, through the plain scan.

    Args:
      step: one step on rows `x [B, D]`; the state is a NamedTuple whose field `h [B, H]` is the output. A `Step`
        states what is known of it too, such as the names of its gates.
      init: `init(key, input_size, dtype) -> params`, a dict of arrays.
      hidden_size: H.
      initial_state: `initial_state(batch_size, dtype) -> state`; None is a `HiddenState` of zeros.
      name: for messages and records.
      decayed: names or paths of the leaves that penalties shrink; None: the matrices.
      recurrent: names or paths of its recurrent matrices; see `Cell`.

    Returns:
      The cell.

    Raises:
      ValueError: a hidden size that is not a positive whole number.

    >>> leaky = from_step(
    ...     lambda params, state, x: HiddenState(h=0.5 * state.h + x @ params["W_xh"]),
    ...     init=lambda key, input_size, dtype: {"W_xh": jnp.ones((input_size, 3), dtype)},
    ...     hidden_size=3, name="leaky")
    >>> leaky.step({"W_xh": jnp.ones((1, 3))}, leaky.initial_state(1), jnp.ones((1, 1))).h.tolist()
    [[1.0, 1.0, 1.0]]
    """
    check_hidden_size(hidden_size)
    start = initial_state or zero_hidden(hidden_size)
    return Cell(name, hidden_size, init, start, step=step, decayed=decayed, recurrent=recurrent)
