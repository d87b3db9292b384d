"""The checks of arguments that every room shares, so that one mistake is named in one way."""

from __future__ import annotations

import contextlib
import inspect
import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any

import jax
import numpy as np


def is_count(value: Any, *, least: int = 1) -> bool:
    """Whether a value is a whole number of at least `least`, Python's or NumPy's; True and False are none.

    >>> import numpy as np
    >>> [is_count(value) for value in (3, np.int64(3), 0, True, 2.0, "3", None)]
    [True, True, False, False, False, False, False]
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_count(
    value: Any, name: str, *, least: int = 1, most: int | None = None, hint: str = ""
) -> None:
    """Raises if a number is not a whole one of at least `least` and at most `most`; the hint says why, or what to do.

    >>> check_count(2.5, "chunk")
    Traceback (most recent call last):
    ValueError: chunk must be at least 1, a whole number; got 2.5.
    """
    if not is_count(value, least=least) or (most is not None and value > most):
        limits = f"be at least {least}" if most is None else f"lie in {least} … {most}"
        raise ValueError(
            f"{name} must {limits}, a whole number; got {described(value)}.{_then(hint)}"
        )


def described(value: Any) -> str:
    """A value in a few words for a message: of arrays the shape, of what is large the type.

    >>> described(np.zeros((2, 3))), described({"layer_0": 1}), described("a")
    ('an array of shape (2, 3)', "a dict with ['layer_0']", "'a'")
    """
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of shape {value.shape}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {list(value)[:6]}"
    if inspect.isfunction(value):
        return f"the function {value.__name__}{inspect.signature(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def check_function(value: Any, name: str, signature: str) -> None:
    """Raises if a value cannot be called.

    >>> check_function(3, "loss_of", "loss_of(params) -> scalar")
    Traceback (most recent call last):
    ValueError: loss_of must be a function, loss_of(params) -> scalar; got 3.
    """
    if not callable(value):
        raise ValueError(f"{name} must be a function, {signature}; got {described(value)}.")


def is_called(value: Any, arity: int | None) -> bool:
    """Whether a function can be called with so many arguments by place, as far as it tells; any number for None.

    >>> [is_called(lambda params, xs: xs, arity) for arity in (1, 2, None)]
    [False, True, True]
    """
    try:
        inspect.signature(value).bind(*[None] * (arity or 0))
    except ValueError:  # a function of C tells nothing
        return True
    except TypeError:
        return arity is None
    return True


def check_called(value: Any, name: str, arity: int) -> None:
    """Raises if a function cannot be called with so many arguments by place.

    >>> check_called(lambda: 3, "folds", 1)
    Traceback (most recent call last):
    ValueError: folds must be a function of 1 argument; got the function <lambda>().
    """
    if not is_called(value, arity):
        raise ValueError(
            f"{name} must be a function of {arity} argument{'s' * (arity > 1)}; got {described(value)}."
        )


def check_number(
    value: Any, name: str, *, least: float = -math.inf, above: bool = False, hint: str = ""
) -> None:
    """Raises unless a value is a finite real number of at least `least`, or `above` it; a traced one is not looked at.

    >>> check_number("x", "ridge", least=0)
    Traceback (most recent call last):
    ValueError: ridge must be a number of at least 0; got 'x'.
    """
    if isinstance(value, jax.core.Tracer):
        return
    number = (
        value.item() if isinstance(value, (jax.Array, np.ndarray)) and value.size == 1 else value
    )
    real = isinstance(number, Real) and not isinstance(number, bool)
    if not real or not math.isfinite(number) or number < least or (above and number == least):
        bound = "above" if above else "of at least"
        expected = "a finite number" if least == -math.inf else f"a number {bound} {least:g}"
        raise ValueError(f"{name} must be {expected}; got {described(value)}.{_then(hint)}")


def check_key(key: Any, name: str = "key") -> None:
    """Raises if a value is not one random key, of `jax.random.key` or of `jax.random.PRNGKey`.

    >>> check_key(0)
    Traceback (most recent call last):
    ValueError: key must be one random key, such as jax.random.key(0); got 0.
    """
    dtype = getattr(key, "dtype", None)
    if isinstance(key, (jax.Array, np.ndarray)):
        typed = jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
        raw = jax.random.key_data(jax.random.key(0)).shape
        if key.shape == () if typed else key.shape == raw and dtype == np.uint32:
            return
    raise ValueError(
        f"{name} must be one random key, such as jax.random.key(0); got {described(key)}."
    )


def check_share(
    value: Any, name: str, *, most: float = 1, ends: str = "[]", hint: str = ""
) -> None:
    """Raises if a number is outside 0 … `most`; "[" and "]" include an end, "(" and ")" do not.

    A traced value is not looked at.

    >>> check_share(1.0, "dropout", ends="[)")
    Traceback (most recent call last):
    ValueError: dropout must lie in [0, 1); got 1.0.
    """
    if isinstance(value, jax.core.Tracer):
        return
    if isinstance(value, (jax.Array, np.ndarray)) and value.shape == ():
        value = value.item()
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    above = number > 0 if ends[0] == "(" else number >= 0
    below = number < most if ends[1] == ")" else number <= most
    if not (above and below):
        raise ValueError(
            f"{name} must lie in {ends[0]}0, {most}{ends[1]}; got {value!r}.{_then(hint)}"
        )


def check_choice(value: Any, name: str, choices: Iterable[Any], *, hint: str = "") -> None:
    """Raises if a value is not one of those that there are.

    >>> check_choice("first", "readout", ("all", "last"))
    Traceback (most recent call last):
    ValueError: readout must be 'all' or 'last'; got 'first'.
    """
    known = list(choices)
    if not any(isinstance(value, type(one)) and value == one for one in known):
        *others, last = map(repr, known)
        listed = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{name} must be {listed}; got {described(value)}.{_then(hint)}")


def check_elementwise(function: Any, what: str) -> None:
    """Raises unless a function of an array can be traced, and returns one of the same shape and dtype.

    >>> check_elementwise(jax.numpy.mean, "the activation")
    Traceback (most recent call last):
    ValueError: the activation must be elementwise, [2, 3] -> [2, 3] float32; mean returns float32[].
    """
    given = jax.ShapeDtypeStruct((2, 3), jax.numpy.float32)
    name = getattr(function, "__name__", type(function).__name__)
    found = traced(function, given, what=f"{what} {name}")
    if (getattr(found, "shape", None), getattr(found, "dtype", None)) != (given.shape, given.dtype):
        got = getattr(found, "str_short", lambda: type(found).__name__)()
        if isinstance(found, jax.ShapeDtypeStruct):
            got = f"{found.dtype}{list(found.shape)}"
        raise ValueError(
            f"{what} must be elementwise, [2, 3] -> [2, 3] float32; {name} returns {got}."
        )


@contextlib.contextmanager
def in_words(what: str) -> Iterator[None]:
    """Errors of JAX about a traced value that Python needs, in our words."""
    try:
        yield
    except _NOT_TRACED as error:
        raise ValueError(
            f"{what} cannot be traced by JAX ({type(error).__name__}): it has to be written in jax.numpy, without "
            "float(x), np.asarray(x) or `if x > 0` of a traced x (jnp.where takes the place of if)."
        ) from error


def traced(function: Any, *arguments: Any, what: str) -> Any:
    """The shapes that a user's function returns of such arguments; raises in our words where it cannot be traced.

    >>> scalar = jax.ShapeDtypeStruct((), jax.numpy.float32)
    >>> traced(float, scalar, what="the schedule")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the schedule cannot be traced by JAX (ConcretizationTypeError): it has to be written in jax.numpy, ...
    """
    try:
        with in_words(what):
            return jax.eval_shape(function, *arguments)
    except (TypeError, AttributeError, IndexError, KeyError) as error:
        shapes = [str(getattr(one, "shape", one)) for one in arguments]
        raise ValueError(
            f"{what} fails on arrays of shapes {', '.join(shapes)}: {type(error).__name__}: {error}"
        ) from error


_NOT_TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
)


def check_every(every: int, num_steps: int) -> None:
    """Raises if steps do not come in blocks of `every`."""
    check_count(every, "every")
    if num_steps % every:
        raise ValueError(
            f"every must divide the number of steps; got every={every!r} and T={num_steps}. Cut xs, or change every."
        )


def check_mask(mask: Any, shape: tuple[int, ...]) -> None:
    """Raises if a mask has not the shape `[B, T]` of what it masks."""
    if np.shape(mask) != shape:
        raise ValueError(f"mask must be [B, T] = {shape}; got {np.shape(mask)}.")
    check_marks(mask)


def check_marks(mask: Any) -> None:
    """Raises if a concrete mask holds something else than 0 and 1, such as NaN, which would count as true.

    >>> check_marks(np.array([[1.0, np.nan]]))
    Traceback (most recent call last):
    ValueError: mask must hold 0 (not read) and 1 (a true step) only; got nan.
    """
    if mask is None or isinstance(mask, jax.core.Tracer) or mask.dtype == bool:
        return
    values = np.asarray(mask, dtype=np.float64)
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
        raise ValueError(f"mask must hold 0 (not read) and 1 (a true step) only; got {wrong[0]}.")


def check_row_weights(weights: Any) -> None:
    """Raises if concrete weights of rows or steps are negative or not finite."""
    if weights is None or isinstance(weights, jax.core.Tracer):
        return
    values = np.asarray(weights, np.float64)
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if wrong.size:
        raise ValueError(f"weights must be finite and not negative; got {wrong[0]}.")


def in_units(count: int) -> str:
    """Bytes in words.

    >>> in_units(1536), in_units(5 * 2**30), in_units(4 * 10**18)
    ('1.5 KiB', '5.0 GiB', '3.5 EiB')
    """
    names = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min((max(int(count), 1).bit_length() - 1) // 10, len(names) - 1)
    return f"{count / 1024**power:.{min(power, 1)}f} {names[power]}"


def _then(hint: str) -> str:
    return f" {hint}" if hint else ""


_PLAIN = str.maketrans(
    {
        "λ": "lambda",
        "…": "...",
        "−": "-",
        "–": "-",
        "×": "x",
        "·": "*",
        "≥": ">=",
        "≤": "<=",
        "→": "->",
    }
)


def printable(text: str) -> str:
    r"""A text in ASCII, as every terminal and every log file can take it: a repr must not raise.

    >>> print(printable("λ_min ≤ 3, … Größe"))
    lambda_min <= 3, ... Gr\xf6\xdfe
    """
    return text.translate(_PLAIN).encode("ascii", "backslashreplace").decode()


def warn_caller(message: str) -> None:
    """A RuntimeWarning at the line of the user's code that led here, however deep inside the package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("rnnreg."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
