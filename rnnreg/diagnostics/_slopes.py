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


def steady(function: Callable[..., Any], *, floored: bool = False) -> Callable[..., Any]:
    """The same function of arrays, whose tanh, sigmoid and e^z − 1 have slopes that saturation does not round away.

    It holds for whatever the function is made of: gates, steps of a user's own, modules of other libraries. Only what
    states a derivative of its own (`jax.custom_jvp`, `jax.custom_vjp`) keeps that one. With `floored` a slope that is
    no number of the dtype is a very small one and not 0, which tells such a unit from a dead one.

    >>> print(f"{float(jax.grad(steady(jnp.tanh))(10.0)):.4g}")  # jax.grad(jnp.tanh)(10.0) is 0, or 4e-7
    8.245e-09
    """

    def evaluated(*args: Any) -> Any:
        program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _evaluate(floored, program.jaxpr, program.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return evaluated


def unfused(net: Network) -> Network:
    """The network through the plain scan: the fused one states a derivative, with slopes from stored outputs."""
    if not isinstance(net.apply, Stack):
        return net
    plain = net.recurrence._replace(backend="scan", projection="auto")
    return net._replace(apply=dataclasses.replace(net.apply, recurrence=plain), recurrence=plain)


@jax.custom_jvp
def _share(z: Array) -> Array:
    """1 / (1 + e^{−z}), written out: what a device takes for its logistic function may be ½ + ½ tanh(z / 2)."""
    return 1 / (1 + jnp.exp(-z))


def _bell(z: Array) -> Array:
    """σ′(z) = σ(z) σ(−z), of which neither factor cancels."""
    return _share(z) * _share(-z)


_share.defjvps(lambda dz, y, z: _bell(z) * dz)

# By the primitive: the function, and its slope.
_SLOPES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (jnp.tanh, lambda z: 4 * _bell(2 * z)),
    "logistic": (jax.lax.logistic, _bell),
    "expm1": (jnp.expm1, jnp.exp),
}


def _unit(name: str, z: Array, floored: bool) -> Array:
    """The function of that name, with its slope."""
    function, slope = _SLOPES[name]
    least = jnp.finfo(z.dtype).tiny * 1e6 if floored else 0  # a few more factors leave it a number

    @jax.custom_jvp
    def unit(z):
        return function(z)

    unit.defjvps(lambda dz, y, z: jnp.maximum(slope(z), jnp.asarray(least, z.dtype)) * dz)
    return unit(z)


def _evaluate(
    floored: bool, program: Jaxpr, consts: Sequence[Any], args: Sequence[Any]
) -> list[Any]:
    """The outputs of a program, equation by equation."""
    from jax.extend.core import Literal  # a tenth of the import of this package

    values = dict(zip([*program.constvars, *program.invars], [*consts, *args], strict=True))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in program.eqns:
        outputs = _apply(floored, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in program.outvars]


def _apply(floored: bool, equation: Any, inputs: list[Any]) -> Sequence[Any]:
    """The outputs of one equation; what holds a program of its own is taken apart, if its derivative is JAX's."""
    name, params = equation.primitive.name, equation.params

    def within(closed, *args):
        return _evaluate(floored, closed.jaxpr, closed.consts, args)

    if name in _SLOPES and jnp.issubdtype(jnp.result_type(*inputs), jnp.floating):
        return [_unit(name, inputs[0], floored)]
    if name in ("jit", "pjit"):
        return within(params["jaxpr"], *inputs)
    if name in ("remat2", "checkpoint"):
        run = functools.partial(_evaluate, floored, params["jaxpr"], ())
        kept = {"prevent_cse": params["prevent_cse"], "policy": params["policy"]}
        return jax.checkpoint(lambda *args: run(args), **kept)(*inputs)
    if name == "cond":
        branches = [functools.partial(within, closed) for closed in params["branches"]]
        return jax.lax.switch(inputs[0], branches, *inputs[1:])
    if name == "scan":
        return _scan(params, functools.partial(within, params["jaxpr"]), inputs)
    outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(params))
    return outputs if equation.primitive.multiple_results else [outputs]


def _scan(params: dict[str, Any], body: Callable[..., list[Any]], inputs: list[Any]) -> list[Any]:
    first, num_carry = params["num_consts"], params["num_carry"]
    consts, carry, xs = (
        inputs[:first],
        inputs[first : first + num_carry],
        inputs[first + num_carry :],
    )

    def step(carry, xs):
        outputs = body(*consts, *carry, *xs)
        return outputs[:num_carry], outputs[num_carry:]

    kept = {name: params[name] for name in ("length", "reverse", "unroll")}
    last, stacked = jax.lax.scan(step, carry, xs, **kept)
    return [*last, *stacked]
