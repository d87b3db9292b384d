"""Activations as records: the function, its slope from its output, a bound on the slope, and its range."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_elementwise
from rnnreg._signatures import typed

Elementwise = Callable[[Array], Array]


class _ActivationFields(NamedTuple):
    name: str
    function: Elementwise
    slope: Elementwise | None = None
    max_slope: float | None = None
    bounds: tuple[float, float] | None = None
    native: str | None = None


class Activation(_ActivationFields):
    """An elementwise function φ, and what is known of it.

    Calling the record applies the function. What is None is not known, and nothing is guessed in its place. Where the
    function is replaced, what was known of the old one is forgotten.

    Attributes:
      name: short name, for descriptions of cells.
      function: φ, elementwise.
      slope: φ′(z) as a function of y = φ(z), which a forward pass stores anyway; None leaves it to `jax.jvp`.
        Training uses it; diagnostics take slopes from z, which saturation does not round away. Fused, the derivative
        is multiplied by it: 0 times NaN or an infinity is NaN, where that of `jax.nn.relu` itself is 0.
      max_slope: sup |φ′|.
      bounds: (inf φ, sup φ), infinite where φ has no bound.
      native: the name of φ with this slope in the compiled kernel; None where it has no such function.
    """

    __slots__ = ()

    def __call__(self, z: Array) -> Array:
        return self.function(z)

    def _replace(self, **changes: Any) -> Activation:
        if "function" in changes:
            changes = {"slope": None, "max_slope": None, "bounds": None} | changes
        if "function" in changes or "slope" in changes:
            changes = {"native": None} | changes
        return Activation(**(self._asdict() | changes))

    __replace__ = _replace


_TANH = Activation("tanh", jnp.tanh, lambda y: 1 - y * y, 1.0, (-1.0, 1.0), "tanh")
_SIGMOID = Activation("sigmoid", jax.nn.sigmoid, lambda y: y * (1 - y), 0.25, (0.0, 1.0), "sigmoid")
_IDENTITY = Activation(
    "identity", jax.nn.identity, jnp.ones_like, 1.0, (-math.inf, math.inf), "identity"
)
# The slope at the kink is the one that jax.nn.relu has.
_RELU = Activation(
    "relu", jax.nn.relu, lambda y: (y > 0).astype(y.dtype), 1.0, (0.0, math.inf), "relu"
)

ACTIVATIONS: dict[str, Activation] = {
    known.name: known
    for known in (
        _TANH,
        _SIGMOID,
        _IDENTITY,
        _RELU,
        Activation("leaky_relu", jax.nn.leaky_relu, None, 1.0, (-math.inf, math.inf)),
        Activation("elu", jax.nn.elu, None, 1.0, (-1.0, math.inf)),
        Activation("softplus", jax.nn.softplus, None, 1.0, (0.0, math.inf)),
        Activation("soft_sign", jax.nn.soft_sign, None, 1.0, (-1.0, 1.0)),
        Activation("hard_tanh", jax.nn.hard_tanh, None, 1.0, (-1.0, 1.0)),
        Activation("hard_sigmoid", jax.nn.hard_sigmoid, None, 1 / 6, (0.0, 1.0)),
        Activation("relu6", jax.nn.relu6, None, 1.0, (0.0, 6.0)),
        Activation("silu", jax.nn.silu, None, 1.0998393194, (-0.2784645428, math.inf)),
        Activation("sin", jnp.sin, None, 1.0, (-1.0, 1.0)),
    )
}

# The functions that these records are about, under each name that JAX has for them.
_RECORDS = {known.function: known for known in ACTIVATIONS.values()} | {
    jax.lax.tanh: _TANH,
    jax.nn.tanh: _TANH,
    jax.lax.logistic: _SIGMOID,
}


@typed
def as_activation(given: Any) -> Activation:
    """The record of an activation that is given as a record, a name, or a function.

    `jnp.tanh`, `jax.nn.relu` and the other functions of `ACTIVATIONS` stand for their records. Any other function
    gets a record in which nothing but the function is known; give an `Activation` to state more.

    Args:
      given: an `Activation`, a name from `ACTIVATIONS`, or an elementwise function.

    Returns:
      The record.

    Raises:
      ValueError: an unknown name, or something that is not a function.

    >>> as_activation(jnp.tanh).max_slope, as_activation("sigmoid").bounds, as_activation(jnp.cosh).bounds
    (1.0, (0.0, 1.0), None)
    """
    if isinstance(given, Activation):
        return given
    if isinstance(given, str):
        if given not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {given!r}; expected one of {sorted(ACTIVATIONS)}, an elementwise function such "
                "as jnp.tanh, or a rr.cells.Activation."
            )
        return ACTIVATIONS[given]
    if not callable(given):
        raise ValueError(
            f"activation must be an elementwise function such as jnp.tanh, or its name; got {given!r}."
        )
    function: Any = given
    if isinstance(given, Hashable) and function in _RECORDS:
        return _RECORDS[function]
    check_elementwise(function, "the activation")
    return Activation(getattr(function, "__name__", "custom"), function)
