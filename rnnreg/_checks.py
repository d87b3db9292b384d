"""The checks of arguments that every room shares, so that one mistake is named in one way."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable
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
        raise ValueError(f"{name} must {limits}, a whole number; got {value!r}.{_then(hint)}")


def check_share(
    value: Any, name: str, *, most: float = 1, ends: str = "[]", hint: str = ""
) -> None:
    """Raises if a number is outside 0 … `most`; "[" and "]" include an end, "(" and ")" do not.

    An array may be traced, so its value is not looked at.

    >>> check_share(1.0, "dropout", ends="[)")
    Traceback (most recent call last):
    ValueError: dropout must lie in [0, 1); got 1.0.
    """
    if isinstance(value, (jax.Array, np.ndarray)):
        return
    number = float(value) if isinstance(value, Real) else math.nan
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
    if value not in known:
        *others, last = map(repr, known)
        raise ValueError(
            f"{name} must be {', '.join(others)} or {last}; got {value!r}.{_then(hint)}"
        )


def check_mask(mask: Any, shape: tuple[int, ...]) -> None:
    """Raises if a mask has not the shape `[B, T]` of what it masks."""
    if mask.shape != shape:
        raise ValueError(f"mask must be [B, T] = {shape}; got {mask.shape}.")


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
