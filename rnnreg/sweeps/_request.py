"""What is asked of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from rnnreg.lanes import Plan


class Request(NamedTuple):
    """What is asked of every static combination: the arguments of `sweep`, read.

    Attributes:
      grid: the traced axes and constants.
      key: root of all randomness.
      seeds: `[S]` seed numbers.
      folds: what was given as folds, or None.
      refit: whether the fold "all" is added.
      plan: how lanes run, a name or a ready plan.
      width: lanes a call, or None.
      chunk: lanes together, or None.
      max_memory: bytes of the lanes that run at the same time, or None.
      share: the share of the lanes that a call trains, by which its plan is no wider than it needs.
      kept: the plan of an earlier sweep for a number of lanes, which goes before all of these; or None.
    """

    grid: Mapping[str, Any]
    key: Array
    seeds: np.ndarray
    folds: Any = None
    refit: bool = False
    plan: str | Plan = "auto"
    width: int | None = None
    chunk: int | None = None
    max_memory: int | None = None
    share: Fraction = Fraction(1)
    kept: Callable[[int], Plan] | None = None
