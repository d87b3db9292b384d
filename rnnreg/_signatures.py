"""Arguments are what a signature says: the one entrance of every public function."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._arrays import as_array
from rnnreg._checks import check_key, described, is_called

F = TypeVar("F", bound=Callable[..., Any])

Number = Any
"""One real number, Python's, NumPy's or JAX's; a traced one is not looked at."""

Numbers = Any
"""Real numbers: an array, or what becomes one (a list, pandas, PyTorch)."""


def typed(function: F) -> F:
    """The function, whose arguments are checked to be what its signature says, before anything else is done.

    A whole number is no fraction, no text and no truth value, a flag is True or False, a number is not NaN, and a
    record is one of that name. `Array` and `Numbers` become arrays of numbers that JAX can take. In which range an
    argument lies is checked by the function itself.

    Args:
      function: a public function or method.

    Returns:
      The function, with the same signature.

    >>> @typed
    ... def halves(num_steps: int, *, reverse: bool = False) -> int:
    ...     return num_steps // 2
    >>> halves("4")
    Traceback (most recent call last):
    ValueError: num_steps must be a whole number; got '4'.
    """
    return typed_with()(function)


def typed_with(**hints: str) -> Callable[[F], F]:
    """`typed`, with what to do where an argument is something else, by its name.

    >>> @typed_with(num_steps="Count the steps with len(xs).")
    ... def halves(num_steps: int) -> int:
    ...     return num_steps // 2
    >>> halves([1, 2])
    Traceback (most recent call last):
    ValueError: num_steps must be a whole number; got [1, 2]. Count the steps with len(xs).
    """

    def decorate(function: F) -> F:
        @functools.cache
        def stated() -> tuple[inspect.Signature, dict[str, _Argument]]:
            signature = inspect.signature(function)
            call = _call(function, signature)
            return signature, {
                name: _Argument(parameter, hints.get(name, call if _is_placed(parameter) else ""))
                for name, parameter in signature.parameters.items()
            }

        @functools.wraps(function)
        def entrance(*arguments: Any, **options: Any) -> Any:
            signature, stated_as = stated()
            try:
                given = signature.bind(*arguments, **options)
            except TypeError as error:
                raise TypeError(
                    f"{function.__name__}() {error}{_like(options, signature)}"
                ) from None
            for name, value in given.arguments.items():
                given.arguments[name] = stated_as[name].taken(value)
            return function(*given.args, **given.kwargs)

        return entrance  # pyright: ignore[reportReturnType]

    return decorate


def _is_placed(parameter: inspect.Parameter) -> bool:
    """Whether an argument has to be given, by its place."""
    return (
        parameter.default is parameter.empty and parameter.kind <= parameter.POSITIONAL_OR_KEYWORD
    )


def _call(function: Callable[..., Any], signature: inspect.Signature) -> str:
    """How the function is called, for arguments in another order; "" where it takes one."""
    needed = [
        f"{p.name}={p.name}" if p.kind is p.KEYWORD_ONLY else p.name
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD and p.name != "self"
    ]
    name = _CALLS.get(function.__qualname__, function.__name__)
    return f"The call is {name}({', '.join(needed)})." if len(needed) > 1 else ""


def _like(options: Mapping[str, Any], signature: inspect.Signature) -> str:
    """What may have been meant by a name that a function does not take."""
    unknown = [name for name in options if name not in signature.parameters]
    close = get_close_matches(unknown[0], signature.parameters, n=1) if unknown else []
    return f"; did you mean {close[0]!r}?" if close else ""


# What users call an object that is called.
_CALLS = {
    "Train.__call__": "train",
    "Stack.__call__": "net.apply",
    "Functions.__call__": "net.apply",
    "Penalty.__call__": "penalty",
}


class _Argument:
    """One argument as a signature states it."""

    def __init__(self, parameter: inspect.Parameter, hint: str) -> None:
        self.name, self.default = parameter.name, parameter.default
        self.hint = f" {hint}" if hint else ""
        unstated = parameter.annotation is parameter.empty
        self.kinds = ["Any"] if unstated else _alternatives(str(parameter.annotation))
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            self.kinds = ["Any"]

    def taken(self, value: Any) -> Any:
        """The value, or an array made of it where one is asked for; raises where it is something else."""
        if value is self.default or (value is None and "None" in self.kinds):
            return value
        if self.name == "key":
            check_key(value)
        if self.name == "key" or "Any" in self.kinds:
            return value
        if "Numbers" in self.kinds and _is_number(value):
            return value
        if _ARRAYS.intersection(self.kinds):
            if value is None or isinstance(value, Mapping) or callable(value):
                self._refuse(value, "an array of numbers")
            return value if isinstance(value, jax.ShapeDtypeStruct) else as_array(value, self.name)
        if not any(_is(value, kind) for kind in self.kinds):
            for kind in self.kinds:
                for wrong, what in _wrong_inside(value, kind):
                    raise ValueError(
                        f"{self.name} must hold {what}; got {described(wrong)} in {described(value)}."
                    )
            words = [_words(kind) for kind in self.kinds if kind != "None"]
            *others, last = dict.fromkeys([*words, *["None"] * ("None" in self.kinds)])
            self._refuse(value, f"{', '.join(others)} or {last}" if others else last)
        return value

    def _refuse(self, value: Any, expected: str) -> None:
        hint = self.hint
        if (
            isinstance(value, tuple)
            and "Batch" in self.kinds
            and any(_is(v, "Batch") for v in value)
        ):
            hint = (
                " rr.data.windows returns (batch, times): give rr.Split(batch, target_times=times)."
            )
        held = value.values() if isinstance(value, Mapping) else ()
        held = value.flat if isinstance(value, np.ndarray) else held
        if any(
            _is(one, kind) for one in held for kind in self.kinds if _parts(kind)[0] not in _KINDS
        ):
            entries = f"its entries {list(value)}" if isinstance(value, Mapping) else "them"
            hint = f" Take one of {entries}."
        raise ValueError(f"{self.name} must be {expected}; got {described(value)}.{hint}")


class _Kind(NamedTuple):
    """A plain kind of value: whether something is one, and what one is called, and several."""

    test: Callable[[Any], bool]
    one: str
    several: str = ""


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_whole(value: Any) -> bool:  # beyond 64 bits are NumPy's objects, and nobody counts that far
    return isinstance(value, Integral) and not _is_flag(value) and abs(int(value)) < 2**63


def _is_params(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_array, jax.tree.leaves(value)))


def _is_array(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return isinstance(value, (int, float)) if dtype is None else jnp.issubdtype(dtype, jnp.number)


def _is_number(value: Any) -> bool:
    if isinstance(value, (jax.Array, np.ndarray)):
        real = jnp.issubdtype(value.dtype, jnp.integer) or jnp.issubdtype(value.dtype, jnp.floating)
        if value.shape != () or not real:
            return False
        if isinstance(value, jax.core.Tracer):
            return True
        value = value.item()
    if isinstance(value, Integral):
        return _is_whole(value)
    return isinstance(value, Real) and value == value


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


# How many arguments the functions of a user's own are called with.
_ARITY = {
    "DrawFunction": 3,
    "GateFunction": 4,
    "InitFunction": 3,
    "InitialStateFunction": 2,
    "LossOf": 1,
    "NetworkFunction": 1,
    "OptimizerFunction": 1,
    "StepFunction": 3,
    "TrackFunction": 3,
}
_DICT = _Kind(lambda value: isinstance(value, Mapping), "a dict")
_LIST = _Kind(_is_list, "a list")
_FUNCTION = _Kind(callable, "a function")
_LOSS = _Kind(callable, "a function such as rr.losses.squared_error()")
_KINDS = {
    "None": _Kind(lambda value: value is None, "None"),
    "int": _Kind(_is_whole, "a whole number", "whole numbers"),
    "bool": _Kind(_is_flag, "True or False"),
    "float": _Kind(_is_number, "a number", "numbers"),
    "Number": _Kind(_is_number, "a number"),
    "str": _Kind(lambda value: isinstance(value, str), "a text", "texts"),
    "Path": _Kind(lambda value: isinstance(value, os.PathLike), "a path"),
    "optax.GradientTransformation": _Kind(
        lambda value: hasattr(value, "init") and hasattr(value, "update"),
        "an optax transformation",
    ),
    "Params": _Kind(_is_params, "a nested dict of arrays of numbers, as net.init returns"),
    **dict.fromkeys(("Mapping", "dict"), _DICT),
    **dict.fromkeys(("Sequence", "Iterable", "Collection", "tuple"), _LIST),
    **dict.fromkeys(("Loss", "Metric"), _LOSS),
    **dict.fromkeys(("Callable", *_ARITY), _FUNCTION),
}
_ARRAYS = {"Array", "Numbers"}
_ALIASES = {
    "System": ("Network", "Cell", "Callable[[Params, State, Array], State]"),
    "Paths": ("str", "Sequence[str]"),
    "Layers": ("str", "Sequence[str]"),
    "Bounds": ("tuple[float, float]",),
}
# How users come by a record, by the name of its class.
MAKERS = {
    "Batch": "Batch(xs, ys)",
    "Cell": "cells.elman(hidden_size)",
    "Choice": "selection.choose",
    "DistinctPoints": "diagnostics.distinct_points",
    "FisherMemory": "diagnostics.fisher_memory",
    "FixedPoints": "diagnostics.fixed_points",
    "GradientFlow": "diagnostics.gradient_flow",
    "GradientSignal": "diagnostics.gradient_signal",
    "Halving": "selection.halving",
    "HessianDirections": "diagnostics.hessian_directions",
    "Horizon": "diagnostics.horizon",
    "JacobianBounds": "diagnostics.jacobian_bounds",
    "JacobianProducts": "diagnostics.jacobian_products",
    "LossSurface": "diagnostics.loss_surface",
    "Lyapunov": "diagnostics.lyapunov",
    "MemoryCurve": "diagnostics.memory_curve",
    "Network": "network(cells, output_size)",
    "Noise": "Noise(zoneout=0.1)",
    "ParameterSensitivity": "diagnostics.parameter_sensitivity",
    "PathLengths": "diagnostics.path_lengths",
    "Penalty": "penalties.l2()",
    "Plan": "lanes.make_plan",
    "Saturation": "diagnostics.saturation for each layer",
    "Spectrum": "diagnostics.spectra for each matrix, matrix_spectrum or step_spectra",
    "Split": "Split(train)",
    "SufficientWindow": "diagnostics.sufficient_window",
    "SweepResult": "sweep",
    "Train": "make_train",
    "TrainState": "train.init",
}


def _alternatives(stated: str) -> list[str]:
    """The parts of a union: "int | Mapping[str, A | B]" has two.

    >>> _alternatives("Paths | Mapping[str, int | None]")
    ['str', 'Sequence[str]', 'Mapping[str, int | None]']
    """
    parts, depth = [""], 0
    for letter in stated:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [one for part in parts for one in _ALIASES.get(part.strip(), (part.strip(),))]


def _parts(kind: str) -> tuple[str, str]:
    """A kind, and the first that it holds: "Sequence" and "int" of "Sequence[int]"."""
    head, _, inner = kind.partition("[")
    return head, re.split(r"[\],]", inner)[0].strip()


def _arity(kind: str) -> int | None:
    """With how many arguments a function of a kind is called; None for another kind, or where that is left open.

    >>> _arity("Callable[[Params, dict[str, Any]], Array]"), _arity("StepFunction"), _arity("Callable[..., Any]")
    (2, 3, None)
    """
    if not kind.startswith("Callable[["):
        return _ARITY.get(kind)
    count, depth = 1, 0
    for letter in kind.removeprefix("Callable[["):
        depth += (letter == "[") - (letter == "]")
        if depth < 0:
            break
        count += letter == "," and not depth
    return count


def _is(value: Any, kind: str) -> bool:
    """Whether a value is of a kind, and so is what it holds, where that is stated to be plain."""
    head, _ = _parts(kind)
    if head in _KINDS:
        plain = _KINDS[head].test(value) and not any(_wrong_inside(value, kind))
        return plain and (_KINDS[head] is not _FUNCTION or is_called(value, _arity(kind)))
    return any(base.__name__ == head.rpartition(".")[2] for base in type(value).__mro__)


def _wrong_inside(value: Any, kind: str) -> Iterator[tuple[Any, str]]:
    """What a list holds, or a dict has for keys, that is not of the plain kind that it is stated to be."""
    head, inner = _parts(kind)
    several = _KINDS[inner].several if inner in _KINDS else ""
    known = isinstance(value, (list, tuple, set, frozenset, range, np.ndarray, Mapping))
    if several and known and head in _KINDS and _KINDS[head].test(value):
        named = f"{several} as keys" if isinstance(value, Mapping) else several
        open_end = isinstance(value, tuple)  # None in a pair is no bound
        for item in value:
            if not (_KINDS[inner].test(item) or (item is None and open_end)):
                yield item, named


def _words(kind: str) -> str:
    """What a value of a kind is called in a message."""
    head, inner = _parts(kind)
    if arity := _arity(kind):
        return f"a function of {arity} argument{'s' * (arity > 1)}"
    if head in _KINDS:
        several = _KINDS[inner].several if inner in _KINDS else ""
        one = (
            "a pair" if head == "tuple" and kind.count(",") == 1 and "..." not in kind else "a list"
        )
        return f"{one} of {several}" if several and _KINDS[head] is _LIST else _KINDS[head].one
    name = head.rpartition(".")[2]
    made = f" (rr.{MAKERS[name]})" if name in MAKERS else ""
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}{made.replace('rr.train', 'train')}"
