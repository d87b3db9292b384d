"""What a run asks of the functions that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from rnnreg.data import Batch
from rnnreg.networks import Network

if TYPE_CHECKING:
    import optax


class NetworkFunction(Protocol):
    """A network that depends on hyperparameters, such as one whose dropout rate is swept."""

    def __call__(self, hyper: Mapping[str, Any], /) -> Network:
        """The network of a `hyper`.

        Args:
          hyper: traced numbers by name; they may set rates, and no shape.

        Returns:
          A network; the shapes of its parameters are the same for every value.
        """
        ...


class OptimizerFunction(Protocol):
    """An optimiser that depends on hyperparameters, such as `lambda hyper: optax.adam(hyper["learning_rate"])`."""

    def __call__(self, hyper: Mapping[str, Any], /) -> optax.GradientTransformation:
        """The optimiser of a `hyper`.

        Args:
          hyper: traced numbers by name.

        Returns:
          An optax transformation; the shapes of its state are the same for every value.
        """
        ...


class TrackFunction(Protocol):
    """What is measured of a network at each record."""

    def __call__(self, net: Network, params: dict[str, Any], batch: Batch, /) -> Any:
        """The measurement.

        Args:
          net: the network of the run.
          params: its parameters at the record.
          batch: the training rows, as the network sees them (scaled).

        Returns:
          An array, or a tree of arrays, of the same shapes at every record.
        """
        ...
