"""What the checks of arguments share."""

from __future__ import annotations

import sys
import warnings
from numbers import Integral
from typing import Any


def is_count(value: Any, *, least: int = 1) -> bool:
    """Whether a value is a whole number of at least `least`, Python's or NumPy's; True and False are none.

    >>> import numpy as np
    >>> [is_count(value) for value in (3, np.int64(3), 0, True, 2.0, "3", None)]
    [True, True, False, False, False, False, False]
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_whole(value: Any, name: str, *, least: int = 1) -> None:
    """Raises where a number is not a whole one of at least `least`."""
    if not is_count(value, least=least):
        raise ValueError(f"{name} must be at least {least}, a whole number; got {value!r}.")


def warn_caller(message: str) -> None:
    """A RuntimeWarning at the line of the user's code that led here, however deep inside the package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("rnnreg."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
