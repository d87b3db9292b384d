"""What a cell asks of the functions that it is made of."""

from __future__ import annotations

from typing import Any, Protocol

from jax import Array

Params = dict[str, Any]


class GateFunction(Protocol):
    """A plain gate: one step on rows, from the two projections that the library computes."""

    def __call__(self, params: Params, state: Any, x_proj: Array, h_proj: Array, /) -> Any:
        """The state after the step.

        Args:
          params: the cell's own parameters.
          state: before the step, fields `[B, …]`.
          x_proj: `[B, G·H]`, x W_xh + b_h.
          h_proj: `[B, G·H]`, h W_hh + b_hh.

        Returns:
          The new state, of the same type.
        """
        ...


class StepFunction(Protocol):
    """A whole step on rows, its own matrix products included."""

    def __call__(self, params: Params, state: Any, x: Array, /) -> Any:
        """The state after the step.

        Args:
          params: the cell's parameters.
          state: before the step, fields `[B, …]`.
          x: `[B, D]` inputs.

        Returns:
          The new state, of the same type.
        """
        ...


class InitFunction(Protocol):
    """How the parameters of a cell are drawn."""

    def __call__(self, key: Array, input_size: int, dtype: Any, /) -> Params:
        """The parameters.

        Args:
          key: a random key of their own.
          input_size: D, the number of input features.
          dtype: of every array.

        Returns:
          A dict of arrays; a `W_xh [D, G·H]` among them lets the library check D.
        """
        ...


class InitialStateFunction(Protocol):
    """What a cell carries before its first step."""

    def __call__(self, batch_size: int, dtype: Any, /) -> Any:
        """The state.

        Args:
          batch_size: B.
          dtype: of its real arrays.

        Returns:
          A NamedTuple of arrays `[B, …]`, whose field `h [B, H]` is the output.
        """
        ...


class WeightsFunction(Protocol):
    """How the matrices of a cell follow from its effective parameters, once per sequence."""

    def __call__(self, params: Params, /) -> Any:
        """The effective weights.

        Args:
          params: the cell's parameters.

        Returns:
          A `Weights`, or the plain triple (W_xh, W_hh, b_h).
        """
        ...


class EffectiveFunction(Protocol):
    """What trained numbers stand for, formed once per sequence: W_hh = exp(A), for instance."""

    def __call__(self, params: Params, /) -> Params:
        """The parameters that weights, gate and step of the cell read, and that penalties and spectra see.

        Args:
          params: the cell's parameters as they are trained, or stacked over any leading axes.

        Returns:
          The parameters of the cell without a parametrisation.
        """
        ...


class DrawFunction(Protocol):
    """How one gate block of a weight matrix is drawn; an `Initializer` is one."""

    def __call__(self, key: Array, shape: tuple[int, int], dtype: Any, /) -> Array:
        """The block.

        Args:
          key: a random key of its own.
          shape: (rows, H); rows are D for inputs and H for the recurrence.
          dtype: of the block.

        Returns:
          W `[rows, H]`.
        """
        ...
