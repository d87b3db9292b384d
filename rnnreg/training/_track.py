"""What is measured again and again while a network trains."""

from __future__ import annotations

from typing import NamedTuple

from rnnreg.training._contracts import TrackFunction


class Track(NamedTuple):
    """A measurement of a network in training, for `make_train(…, track={name: …})`.

    Attributes:
      function: `function(net, params, batch)`, an array or a tree of arrays; the batch holds the training rows as the
        network sees them (scaled).
      dims: names for the axes of every array that it returns; None leaves them to the name of the array.
    """

    function: TrackFunction
    dims: tuple[str, ...] | None = None
