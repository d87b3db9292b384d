"""The lanes of one static combination, as a result holds them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Group:
    """The lanes that share one static combination, and so one tree of parameters.

    Attributes:
      static: the static values by name.
      params: stacked parameters; the leading axes are the traced dimensions in order.
      predictions: `[..., seed, fold, row, …]` on the validation rows, in the split's units; None without any.
      targets: `[fold, row, …]` the targets of those rows; None without any.
      weights: `[fold, row]`, 0 where a row is padding or has no true step; None without any.
    """

    static: dict[str, Any]
    params: dict[str, Any]
    predictions: np.ndarray | None = None
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None
