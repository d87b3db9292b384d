"""A score with its direction, and plain functions of the user as losses and scores."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import described, in_words
from rnnreg._linalg import wide
from rnnreg.losses import DataLoss, counted_pair, row_mean


@dataclasses.dataclass(frozen=True)
class Score:
    """A metric that declares whether more of it is better; called as `score(outputs, ys, mask=None, weights=None)`.

    Choices, early stopping and figures read the direction here. Two scores with equal fields are equal.

    Attributes:
      function: `function(outputs, ys, mask, weights)`, see `rr.losses.Metric`; or `function(outputs, ys)`, a mean over
        rows and steps if the data has a mask or weights.
      maximise: whether more is better.
      refused: which targets the score cannot take, as in `rr.losses.DataLoss`; None if it takes every number.

    >>> def hits(outputs, ys):
    ...     return jnp.mean(jnp.abs(outputs - ys) < 0.1)
    >>> score = Score(hits, maximise=True)
    >>> float(score(jnp.zeros((2, 1)), jnp.array([[0.0], [1.0]]), weights=jnp.array([3.0, 1.0])))
    0.75
    """

    function: Callable[..., Any]
    maximise: bool = dataclasses.field(kw_only=True)
    refused: Callable[[np.ndarray, int], tuple[np.ndarray, str]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.maximise, bool):
            raise ValueError(
                f"maximise must be True (more is better) or False (less is better); got {self.maximise!r}."
            )
        object.__setattr__(self, "function", as_function(self.function, f"the score {self.name!r}"))

    @property
    def name(self) -> str:
        """The name of the function, for records and messages."""
        return function_name(self.function)

    def __call__(self, outputs: Any, ys: Any, mask: Any = None, weights: Any = None) -> Any:
        """The score of a batch; arguments are those of `rr.losses.Metric`."""
        return self.function(outputs, ys, mask, weights)


@dataclasses.dataclass(frozen=True)
class UserFunction:
    """A loss or a metric that is a plain function, with the checks that come before it is compiled.

    Attributes:
      function: of `(outputs, ys, mask, weights)`, or of `(outputs, ys)`.
      what: what messages call it.
      pair: whether it takes the first two arguments alone.
      loss: whether it is to be differentiated, and so must return one real number.
    """

    function: Callable[..., Any]
    what: str
    pair: bool
    loss: bool = False

    @property
    def maximise(self) -> bool | None:
        """Whether more is better, if the function has such an attribute; None if nothing is known."""
        return getattr(self.function, "maximise", None)

    def __call__(self, outputs: Any, ys: Any, mask: Any = None, weights: Any = None) -> Any:
        """What the function returns of a batch; arguments are those of `Loss`."""
        one, other = (
            getattr(leaf, "shape", None) for leaf in (outputs, ys)
        )  # outputs may be a tree
        if one and other and (one == (*other, 1) or other == (*one, 1)):
            self._refuse_pairs_of_rows(outputs, ys, mask, weights)
        with in_words(self.what):
            if (
                self.loss and self.pair
            ):  # whether it is a mean over rows is asked only of one number
                self._check_number(jax.eval_shape(self.function, outputs, ys))
            value = self._value(outputs, ys, mask, weights)
        if self.loss:
            self._check_number(value)
        return value

    def _check_number(self, value: Any) -> None:
        """Raises unless the value, or its shape and dtype, is one real number."""
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", int)
        if isinstance(value, float) or (shape == () and jnp.issubdtype(dtype, jnp.floating)):
            return
        got = type(value).__name__ if shape is None else f"{dtype} of shape {shape}"
        raise ValueError(
            f"the loss must return one real number for a batch; got {got}. Average over rows, steps and outputs, for "
            "example with jnp.mean."
        )

    def _value(self, outputs: Any, ys: Any, mask: Any, weights: Any) -> Any:
        if not self.pair:
            return self.function(outputs, ys, mask, weights)
        if mask is None and weights is None:
            return self.function(outputs, ys)
        steps_count = mask is not None or weights.ndim == 2
        by_step = steps_count and outputs.ndim == 3 and ys.shape[:2] == outputs.shape[:2]
        self._check_mean(outputs, ys, by_step)
        errors = self._alone(*counted_pair(outputs, ys, mask, weights), by_step)
        errors = errors.astype(wide(errors.dtype))
        return row_mean(errors, mask, weights, reduction="mean", num_outputs=1)

    def _alone(self, outputs: Any, ys: Any, by_step: bool) -> Array:
        """The function of each row alone, `[B]`, or of each step alone, `[B, T]`."""
        lead = (None,) * (1 + by_step)
        alone = lambda o, y: jnp.asarray(self.function(o[lead], y[lead]))  # noqa: E731
        return (jax.vmap(jax.vmap(alone)) if by_step else jax.vmap(alone))(outputs, ys)

    def _check_mean(self, outputs: Any, ys: Any, by_step: bool) -> None:
        """Raises unless the function of some numbers is the mean of what it is of each row (and step) alone."""
        rng, rows = np.random.default_rng(0), 3
        o = rng.normal(size=(rows, *outputs.shape[1:])).astype(outputs.dtype)
        y = rng.uniform(
            0, 2, size=(rows, *ys.shape[1:])
        )  # whole numbers become the classes 0 and 1
        y = (y if jnp.issubdtype(ys.dtype, jnp.integer) else y / 2).astype(ys.dtype)
        try:
            with jax.ensure_compile_time_eval():
                together = self.function(jnp.asarray(o), jnp.asarray(y))
                mean = jnp.mean(self._alone(jnp.asarray(o), jnp.asarray(y), by_step))
                is_mean = np.allclose(together, mean, rtol=1e-2 if together.itemsize < 4 else 1e-4)
        except (TypeError, ValueError):
            is_mean = False
        if not is_mean:
            raise ValueError(
                f"the data has a mask or weights, which {self.what} does not take: it is a function of (outputs, ys) "
                f"alone, and no mean over rows{' and steps' if by_step else ''}. (Folds bring weights of their own: 0 "
                "for the rows that fill the shorter folds up.) Write it with four arguments, f(outputs, ys, mask, "
                "weights); rows of weight 0 and masked steps must not count."
            )

    def _refuse_pairs_of_rows(self, outputs: Any, ys: Any, mask: Any, weights: Any) -> None:
        """Raises if [N] and [N, 1] meet, so that each output is compared with the targets of all rows."""
        many = 1009  # a number of rows that no other axis has
        given = (outputs, ys) if self.pair else (outputs, ys, mask, weights)
        shapes = [
            None if leaf is None else jax.ShapeDtypeStruct((many, *leaf.shape[1:]), leaf.dtype)
            for leaf in given
        ]
        try:
            found = jax.make_jaxpr(lambda *leaves: self.function(*leaves))(*shapes)
            pairs = any(shape.count(many) > 1 for shape in _shapes_inside(found.jaxpr))
        except (TypeError, ValueError):  # steps meet rows
            pairs = outputs.ndim > 1 and outputs.shape[0] == outputs.shape[1] > 1
        if pairs:
            raise ValueError(
                f"{self.what} compares every row with every other: outputs have shape {outputs.shape} and targets "
                f"{ys.shape}, which broadcast to a square. Give targets of the shape of the outputs: "
                f"ys.reshape({outputs.shape})."
            )


def as_function(given: Any, what: str, *, loss: bool = False) -> Any:
    """A loss or metric as the library calls it: a record as it is, a plain function with its checks.

    Args:
      given: what the user gave.
      what: what messages call it.
      loss: whether it is to be differentiated.

    Returns:
      The record, or a `UserFunction`.

    Raises:
      ValueError: something that is not called as `(outputs, ys)` or `(outputs, ys, mask, weights)`.
    """
    if not callable(given):
        raise ValueError(
            f"{what} must be a function of (outputs, ys, mask, weights); got {described(given)}."
        )
    if isinstance(given, (DataLoss, Score, UserFunction)):
        return given
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):  # a function of C tells nothing
        return UserFunction(given, what, pair=False, loss=loss)
    places = [p for p in signature.parameters.values() if p.kind <= p.VAR_POSITIONAL]
    # a third argument with a default of its own, such as axis=-1, is no mask
    own = [p for p in places[2:4] if p.default not in (p.empty, None)]
    if not own and _binds(signature, 4):
        return UserFunction(given, what, pair=False, loss=loss)
    if _binds(signature, 2):
        return UserFunction(given, what, pair=True, loss=loss)
    raise ValueError(
        f"{what} must be a function of (outputs, ys) or of (outputs, ys, mask, weights), called by place; got one of "
        f"{signature}."
    )


def function_name(function: Any) -> str:
    """What a function is called, for records and messages."""
    if isinstance(function, (UserFunction, Score)):
        return function_name(function.function)
    named = getattr(function, "name", None) or getattr(function, "__qualname__", None)
    return str(named or type(function).__qualname__)


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _shapes_inside(jaxpr: Any) -> list[tuple[int, ...]]:
    """The shapes of everything that a program computes, inner programs included."""
    found = []
    for equation in jaxpr.eqns:
        found += [getattr(out.aval, "shape", ()) for out in equation.outvars]
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            found += _shapes_inside(inner) if hasattr(inner, "eqns") else []
    return found
