"""The compiled recurrence as primitives of JAX: its call, its derivatives, lanes, and other platforms.

There are three. `forward` gives the states, and on request what the derivative reads. `tangent` is linear in the
tangents of the operands; it is evaluated by the fused recurrence, and its transpose is the third one, `backward`. So
training runs two compiled calls, while forward mode, higher orders and other platforms run what `_fused.py` states,
or `_stepped.py` for a cell that does its own products.

A program that `jax.export` makes holds no call either: it outlives the process and the machine that the library is for.
XLA cannot divide a call. Where `jit` divides its arguments over devices, each device gathers them and computes all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad, batching, mlir

from rnnreg.cells import Cell, HiddenState, Step, Weights, plain_weights
from rnnreg.recurrence._fused import Stored, fused_scan
from rnnreg.recurrence._scan import Streams, check_recurrent_dropout, plain_scan
from rnnreg.recurrence.native._build import target
from rnnreg.recurrence.native._kernels import KERNELS, Call

# The operands of every call in their order; a call has those that are there.
OPERANDS = ("x", "W_hh", "W_xh", "b_h", "b_hh", "h_0", "c_0", "keep", "mask", "perturbations")


def native_scan(
    cell: Cell,
    params: dict[str, Any],
    streams: Streams,
    state: Any,
    recurrent_mask: Array | None,
    *,
    reverse: bool,
    precision: str | None,
    inside: bool,
) -> tuple[Any, Any]:
    """`unroll` by the compiled kernel that the cell's gate or step states; inputs are projected inside its loop."""
    assert inside
    assert cell.weights is not None
    assert cell.facts.native is not None
    xs, keeps, perturbations, holds = streams
    assert holds is None
    kernel = KERNELS[cell.facts.native]
    whole = isinstance(kernel.rule, Step)  # it reads the parameters themselves
    if whole and recurrent_mask is not None:
        check_recurrent_dropout(cell)
    weights = plain_weights(params) if whole else Weights(*cell.weights(params))
    given = {
        "x": xs,
        "W_hh": weights.W_hh,
        "W_xh": weights.W_xh,
        "b_h": jnp.zeros_like(weights.W_hh[0]) if weights.b_h is None else weights.b_h,
        "b_hh": weights.b_hh,
        "h_0": state.h,
        "c_0": getattr(state, "c", None),
        "keep": keeps,
        "mask": None if recurrent_mask is None else recurrent_mask.astype(xs.dtype),
        "perturbations": perturbations,
    }
    if _is_unusual(given, kernel.gates):
        options = {"reverse": reverse, "precision": precision, "inside": not whole}
        run = plain_scan if whole else fused_scan
        return run(cell, params, streams, state, recurrent_mask, **options)
    names = tuple(name for name in OPERANDS if given[name] is not None)
    call = Call(cell.facts.native, reverse, precision, names)
    outs = forward_p.bind(*(given[name] for name in names), call=call, store=False, lanes=())
    num = len(call.states)
    return type(state)(*outs[num:]), type(state)(*outs[:num])


def _is_unusual(given: dict[str, Any], gates: int) -> bool:
    """Whether arrays are not just those that the kernel expects: it does not broadcast, and looks at no shape."""
    (steps, rows, input_size), hidden_size = given["x"].shape, given["W_hh"].shape[0]
    wide, state = gates * hidden_size, (rows, hidden_size)
    shapes = {
        "x": [(steps, rows, input_size)],
        "W_hh": [(hidden_size, wide)],
        "W_xh": [(input_size, wide)],
    }
    shapes |= {"b_h": [(wide,)], "b_hh": [(wide,)], "h_0": [state], "c_0": [state], "mask": [state]}
    shapes |= {"keep": [(steps, rows), (steps, *state)], "perturbations": [(steps, *state)]}
    there = {name: array for name, array in given.items() if array is not None}
    return given["x"].size == 0 or any(
        array.shape not in shapes[name]
        or array.dtype != (bool if name == "keep" else given["x"].dtype)
        or _is_divided(array)
        for name, array in there.items()
    )


def _is_divided(array: Array) -> bool:
    """Whether the type of an array says how it is divided over devices, which the call of a kernel cannot say on."""
    kind = jax.typeof(array)
    manual = getattr(kind, "manual_axis_type", kind)  # of a checked `shard_map`
    varying = getattr(manual, "varying", None) or getattr(manual, "vma", None)
    return bool(varying) or any(axis is not None for axis in kind.sharding.spec)


# ---- the same in JAX ------------------------------------------------------------------------------


def _forward(*operands: Array, call: Call, store: bool) -> list[Array]:
    inputs = call.inputs(dict(zip(call.operands, operands, strict=True)))
    stored = call.kernel.states(inputs, call, store=store)
    outs = call.with_last(stored.states)
    if store and "saved" in call.stored:
        saved = [stored.saved[name] for name in call.kernel.saved] or [stored.gated.h]
        outs.append(jnp.concatenate(saved, axis=-1))
    return outs


def _tangent(*operands: Array, call: Call, wanted: tuple[str, ...]) -> list[Array]:
    """The tangents of the states; operands are those of the call, what was stored, the tangents of those wanted."""
    num, kernel = len(call.operands), call.kernel
    given = dict(zip(call.operands, operands[:num], strict=True))
    stored = dict(zip(call.stored, operands[num : num + len(call.stored)], strict=True))
    tangents = dict(zip(wanted, operands[num + len(call.stored) :], strict=True))
    moving = {
        name: tangents.get(name, jnp.zeros_like(value))
        for name, value in given.items()
        if name != "keep"
    }
    inputs = call.inputs(given)
    states = type(inputs.state)(*(stored[name] for name in call.states))
    gated, saved = states, {}
    if kernel.saved:
        parts = jnp.split(stored["saved"], len(kernel.saved), axis=-1)
        saved = dict(zip(kernel.saved, parts, strict=True))
    elif "saved" in stored:
        gated = HiddenState(stored["saved"])
    return call.with_last(
        kernel.tangents(inputs, call.inputs(moving), Stored(states, gated, saved), call)
    )


def _backward(
    *operands: Array, call: Call, wanted: tuple[str, ...], given: tuple[str, ...]
) -> list[Array]:
    """The cotangents of the operands wanted, from those of the outputs that are given, which come last."""
    num = len(call.operands) + len(call.stored)
    residuals, cotangents = operands[:num], dict(zip(given, operands[num:], strict=True))
    moving = [operands[call.operands.index(name)] for name in wanted]
    states = dict(zip(call.stored, operands[len(call.operands) : num], strict=True))
    transpose = jax.linear_transpose(
        lambda *tangents: _tangent(*residuals, *tangents, call=call, wanted=wanted), *moving
    )
    zeros = call.with_last([jnp.zeros_like(states[name]) for name in call.states])
    pairs = zip(call.outputs, zeros, strict=True)
    return list(transpose([cotangents.get(name, zero) for name, zero in pairs]))


# ---- results and lanes ----------------------------------------------------------------------------

Shapes = dict[str, tuple[int, ...]]


def _forward_results(shapes: Shapes, call: Call, store: bool) -> Shapes:
    steps, rows, hidden_size = *shapes["x"][:2], shapes["W_hh"][0]
    shapes = dict.fromkeys(call.states, (steps, rows, hidden_size))
    shapes |= {f"{name}_last": (rows, hidden_size) for name in call.states}
    if store and "saved" in call.stored:
        shapes["saved"] = (steps, rows, call.width(hidden_size))
    return shapes


def _tangent_results(shapes: Shapes, call: Call, wanted: tuple[str, ...]) -> Shapes:
    return _forward_results(shapes, call, store=False)


def _backward_results(
    shapes: Shapes, call: Call, wanted: tuple[str, ...], given: tuple[str, ...]
) -> Shapes:
    return {f"d_{name}": shapes[name] for name in wanted}


def _split_lanes(avals: Sequence[Any], lanes: tuple[tuple[bool, ...], ...]):
    """The sizes of the axes of lanes, outermost first, and the shapes of one lane."""
    sizes, shapes = [], [aval.shape for aval in avals]
    for level in reversed(lanes):
        (size, *_) = {shape[0] for shape, mapped in zip(shapes, level, strict=True) if mapped}
        sizes.append(size)
        shapes = [
            shape[1:] if mapped else shape for shape, mapped in zip(shapes, level, strict=True)
        ]
    return tuple(sizes), shapes


def _over_lanes(function: Callable[..., Any], lanes: tuple[tuple[bool, ...], ...]):
    """The function of one lane under one `vmap` for each level, the innermost first."""
    for level in lanes:
        function = jax.vmap(function, in_axes=[0 if mapped else None for mapped in level])
    return function


def _native(
    *operands: Array,
    lanes: tuple[tuple[bool, ...], ...],
    results: Callable[..., Shapes],
    **params: Any,
):
    """The compiled call. An operand that lanes share gets an axis of size 1, and is not copied."""
    call = params["call"]
    names = (*call.operands, *call.stored, *(f"g_{name}" for name in params.get("given", ())))
    sizes, shapes = _split_lanes(operands, lanes)
    wanted = results(dict(zip(call.operands, shapes, strict=False)), **params)
    backward = "given" in params
    arrays = []
    for index, (operand, shape) in enumerate(zip(operands, shapes, strict=True)):
        axes = [
            size if level[index] else 1 for size, level in zip(sizes, reversed(lanes), strict=True)
        ]
        arrays.append(operand.reshape(*axes, *shape))
    dtype = operands[0].dtype
    return jax.ffi.ffi_call(
        target(dtype), [jax.ShapeDtypeStruct((*sizes, *shape), dtype) for shape in wanted.values()]
    )(
        *arrays,
        cell=call.cell,
        backward=backward,
        reverse=call.reverse,
        operands=" ".join(names[: len(arrays)]),
        results=" ".join(wanted),
    )


def _is_debugging() -> bool:
    """Whether JAX runs, or is to run again, one operation after another."""
    config = jax.config
    return config.jax_disable_jit or config.jax_debug_nans or config.jax_debug_infs


def _primitive(
    name: str, function: Callable[..., Any], results: Callable[..., Shapes], *, compiled: bool
):
    """A primitive with everything but its derivative: evaluation, types, lanes, and lowering for each platform."""
    from jax.extend.core import Primitive

    primitive = Primitive(f"rnnreg_{name}")
    primitive.multiple_results = True

    def reference(*operands, lanes, **params):
        return _over_lanes(functools.partial(function, **params), lanes)(*operands)

    @functools.lru_cache(maxsize=256)
    def jitted(params):
        return jax.jit(lambda *operands: primitive.bind(*operands, **dict(params)))

    @primitive.def_impl
    def _(*operands, **params):
        if _is_debugging():  # `jit` would come back here, to find the operation that is wrong
            return reference(*operands, **params)
        return jitted(tuple(params.items()))(*operands)

    @primitive.def_abstract_eval
    def _(*avals, lanes, **params):
        if any(not aval.sharding.mesh.empty for aval in avals):
            traced = jax.make_jaxpr(functools.partial(reference, lanes=lanes, **params))(*avals)
            return traced.out_avals
        sizes, shapes = _split_lanes(avals, lanes)
        shapes = results(dict(zip(params["call"].operands, shapes, strict=False)), **params)
        return [jax.core.ShapedArray((*sizes, *shape), avals[0].dtype) for shape in shapes.values()]

    def batch(operands, axes, *, lanes, **params):
        level = tuple(axis is not None for axis in axes)
        operands = [
            operand if axis is None else jnp.moveaxis(operand, axis, 0)
            for operand, axis in zip(operands, axes, strict=True)
        ]
        outs = primitive.bind(*operands, lanes=(*lanes, level), **params)
        return outs, [0] * len(outs)

    batching.primitive_batchers[primitive] = batch
    portable = mlir.lower_fun(reference, multiple_results=True)
    mlir.register_lowering(primitive, portable)
    if compiled:
        native = mlir.lower_fun(functools.partial(_native, results=results), multiple_results=True)

        def lower(context, *operands, **params):
            exported = context.module_context.lowering_parameters.for_export
            return (portable if exported else native)(context, *operands, **params)

        mlir.register_lowering(primitive, lower, platform="cpu")
    return primitive, reference


forward_p, _forward_reference = _primitive("forward", _forward, _forward_results, compiled=True)
tangent_p, _tangent_reference = _primitive("tangent", _tangent, _tangent_results, compiled=False)
backward_p, _backward_reference = _primitive(
    "backward", _backward, _backward_results, compiled=True
)


# ---- derivatives ----------------------------------------------------------------------------------


def _is_zero(tangent: Any) -> bool:
    return type(tangent) is ad.Zero


def _jvp(
    reference: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], **params: Any
):
    """`jax.jvp` of what JAX has for a primitive, in the operands that move."""
    moving = [index for index, tangent in enumerate(tangents) if not _is_zero(tangent)]

    def function(*moved):
        operands = list(primals)
        for index, value in zip(moving, moved, strict=True):
            operands[index] = value
        return reference(*operands, **params)

    return jax.jvp(function, [primals[i] for i in moving], [tangents[i] for i in moving])


def _forward_jvp(primals, tangents, *, call: Call, store: bool, lanes):
    if store:  # a derivative of the second order
        return _jvp(_forward_reference, primals, tangents, call=call, store=store, lanes=lanes)
    outs = forward_p.bind(*primals, call=call, store=True, lanes=lanes)
    wanted = [index for index, tangent in enumerate(tangents) if not _is_zero(tangent)]
    num = len(call.outputs)
    stored = [*outs[: len(call.states)], *outs[num:]]
    levels = tuple(
        (*level, *[True] * len(stored), *(level[index] for index in wanted)) for level in lanes
    )
    d_outs = tangent_p.bind(
        *primals,
        *stored,
        *(tangents[index] for index in wanted),
        call=call,
        wanted=tuple(call.operands[index] for index in wanted),
        lanes=levels,
    )
    return outs[:num], d_outs


def _tangent_jvp(primals, tangents, *, call: Call, wanted: tuple[str, ...], lanes):
    return _jvp(_tangent_reference, primals, tangents, call=call, wanted=wanted, lanes=lanes)


def _tangent_transpose(cotangents, *operands, call: Call, wanted: tuple[str, ...], lanes):
    num = len(call.operands) + len(call.stored)
    asked = [i for i in range(len(wanted)) if ad.is_undefined_primal(operands[num + i])]
    given = [i for i, cotangent in enumerate(cotangents) if not _is_zero(cotangent)]
    if not given:
        return [None] * len(operands)
    outs = backward_p.bind(
        *operands[:num],
        *(cotangents[i] for i in given),
        call=call,
        wanted=tuple(wanted[i] for i in asked),
        given=tuple(call.outputs[i] for i in given),
        lanes=tuple((*level[:num], *[True] * len(given)) for level in lanes),
    )
    found: list[Any] = [None] * len(operands)
    for i, out in zip(asked, outs, strict=True):
        shared = [k for k, level in enumerate(reversed(lanes)) if not level[num + i]]
        found[num + i] = jnp.sum(out, axis=shared) if shared else out
    return found


def _backward_jvp(primals, tangents, **params):
    return _jvp(_backward_reference, primals, tangents, **params)


ad.primitive_jvps[forward_p] = _forward_jvp
ad.primitive_jvps[tangent_p] = _tangent_jvp
ad.primitive_jvps[backward_p] = _backward_jvp
ad.primitive_transposes[tangent_p] = _tangent_transpose
