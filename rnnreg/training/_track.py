"""What is measured again and again while a network trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Track(NamedTuple):
    """A measurement of a network in training, for `make_train(…, track={name: …})`.

    Attributes:
      function: `function(net, params, batch)`, an array or a tree of arrays; the batch holds the training rows as the
        network sees them (scaled).
      dims: names for the axes of every array that it returns; None leaves them to the name of the array.
    """

    function: Callable[..., Any]
    dims: tuple[str, ...] | None = None
