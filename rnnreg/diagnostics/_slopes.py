"""Slopes of saturated units, from what a unit reads and not from what it returns.

The derivative of tanh is 1 − y² to JAX, and y is exactly ±1 in float32 from |z| ≈ 8: a slope of 4e-8 is then 0, and
one of 1e-6 is wrong by a twentieth. Here a function is read as a program, and evaluated with slopes that keep all their
digits however far a unit is saturated, as long as they are numbers of the dtype (|z| < 44 in float32).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.networks import Network, Stack

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr


def steady(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of arrays, whose tanh, sigmoid and e^z − 1 have slopes that saturation does not round away.

    It holds for whatever the function is made of: gates, steps of a user's own, modules of other libraries. Only what
    states a derivative of its own (`jax.custom_jvp`, `jax.custom_vjp`) keeps that one.

    >>> slope = jax.grad(jnp.tanh)(10.0), jax.grad(steady(jnp.tanh))(10.0)
    >>> [f"{float(value):.4g}" for value in slope]
    ['0', '8.245e-09']
    """

    def evaluated(*args: Any) -> Any:
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _evaluate(program.jaxpr, program.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return evaluated


def unfused(net: Network) -> Network:
    """The network through the plain scan: the fused one states a derivative, with slopes from stored outputs."""
    if not isinstance(net.apply, Stack):
        return net
    plain = net.recurrence._replace(backend="scan", projection="auto")
    return net._replace(apply=dataclasses.replace(net.apply, recurrence=plain), recurrence=plain)


@jax.custom_jvp
def _tanh(z: Array) -> Array:
    return jnp.tanh(z)


@jax.custom_jvp
def _sigmoid(z: Array) -> Array:
    return jax.lax.logistic(z)


@jax.custom_jvp
def _share(z: Array) -> Array:
    """1 / (1 + e^{−z}), written out: what a device takes for its logistic function may be ½ + ½ tanh(z / 2)."""
    return 1 / (1 + jnp.exp(-z))


def _bell(z: Array) -> Array:
    """σ′(z) = σ(z) σ(−z), of which neither factor cancels."""
    return _share(z) * _share(-z)


_tanh.defjvps(lambda dz, y, z: 4 * _bell(2 * z) * dz)
_sigmoid.defjvps(lambda dz, y, z: _bell(z) * dz)
_share.defjvps(lambda dz, y, z: _bell(z) * dz)


@jax.custom_jvp
def _expm1(z: Array) -> Array:
    return jnp.expm1(z)


_expm1.defjvps(lambda dz, y, z: jnp.exp(z) * dz)

_STEADY = {"tanh": _tanh, "logistic": _sigmoid, "expm1": _expm1}


def _evaluate(program: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The outputs of a program, equation by equation."""
    from jax.extend.core import Literal  # a tenth of the import of this package

    values = dict(zip([*program.constvars, *program.invars], [*consts, *args], strict=True))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in program.eqns:
        outputs = _apply(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in program.outvars]


def _apply(equation: Any, inputs: list[Any]) -> Sequence[Any]:
    """The outputs of one equation; what holds a program of its own is taken apart, if its derivative is JAX's."""
    name, params = equation.primitive.name, equation.params
    if name in _STEADY:
        dtype = equation.invars[0].aval.dtype
        own = jnp.issubdtype(dtype, jnp.floating)
        return [_STEADY[name](inputs[0])] if own else [equation.primitive.bind(*inputs, **params)]
    if name in ("jit", "pjit"):
        return _evaluate(params["jaxpr"].jaxpr, params["jaxpr"].consts, inputs)
    if name == "checkpoint":
        run = functools.partial(_evaluate, params["jaxpr"], ())
        again = jax.checkpoint(
            lambda *args: run(args), prevent_cse=params["prevent_cse"], policy=params["policy"]
        )
        return again(*inputs)
    if name == "cond":
        branches = [functools.partial(_branch, closed) for closed in params["branches"]]
        return jax.lax.switch(inputs[0], branches, *inputs[1:])
    if name == "scan":
        return _scan(params, inputs)
    outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(params))
    return outputs if equation.primitive.multiple_results else [outputs]


def _branch(closed: Any, *args: Any) -> list[Any]:
    return _evaluate(closed.jaxpr, closed.consts, args)


def _scan(params: dict[str, Any], inputs: list[Any]) -> list[Any]:
    body, num_consts, num_carry = params["jaxpr"], params["num_consts"], params["num_carry"]
    consts, carry = inputs[:num_consts], inputs[num_consts : num_consts + num_carry]

    def step(carry, xs):
        outputs = _evaluate(body.jaxpr, body.consts, [*consts, *carry, *xs])
        return outputs[:num_carry], outputs[num_carry:]

    last, stacked = jax.lax.scan(
        step,
        carry,
        inputs[num_consts + num_carry :],
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*last, *stacked]
