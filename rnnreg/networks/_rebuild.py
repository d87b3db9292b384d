"""A network from its description, in another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rnnreg._signatures import typed
from rnnreg.cells import Cell, batch_norm, elman, gru, layer_norm, lstm
from rnnreg.networks._network import layer, network
from rnnreg.networks._records import Network, Noise
from rnnreg.parametrizations import (
    antisymmetric,
    low_rank,
    orthogonal,
    singular_margin,
    weight_norm,
)

FACTORIES = {"elman": elman, "gru": gru, "lstm": lstm}
_OF_A_CELL = {
    made.__name__: made
    for made in (
        antisymmetric,
        batch_norm,
        layer_norm,
        low_rank,
        orthogonal,
        singular_margin,
        weight_norm,
    )
}
_DRAWS = ("recurrent_init", "input_init")
_OF_TRAINING = ("function_of_hyper", "reads", "dropout")
_APART = ("layers", "output_size", "recurrence", "embedding", "by_layer", "made", "noise")
HELD = ("zoneout", "zoneout_c")  # the noise that prediction depends on


@typed
def rebuild(described: Mapping[str, Any]) -> Network:
    """The network that `rr.networks.describe` described, for its forward pass.

    What matters in training alone is left out: there is no dropout and no noise but the expectation of zoneout, and
    `init` draws as the cells do by default.

    Args:
      described: what `describe` returned, or JSON made of it.

    Returns:
      The network.

    Raises:
      ValueError: a network, a cell or an activation that is a function of a user's own, or a rate of zoneout that is a
        function of hyper, which no description holds.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.gru(8, reset="before")], 1, readout="last", output_dropout=0.1)
    >>> rebuild(rr.networks.describe(net)).layers[0].cell.name
    'gru_reset_before'
    """
    if not described["by_layer"] or described["made"] is not None:
        factory = (described["made"] or {}).get("factory", "a function")
        raise ValueError(f"its forward pass is not that of rr.network, but of {factory}")
    layers = [
        layer(_cell(entry["cell"]), **{name: entry[name] for name in entry if name != "cell"})
        for entry in described["layers"]
    ]
    rates = {name: described.get("noise", {}).get(name, 0.0) for name in HELD}
    traced = [name for name, rate in rates.items() if isinstance(rate, str)]
    if traced:
        raise ValueError(f"its {traced[0]}, which its predictions depend on, is {rates[traced[0]]}")
    embedding = described["embedding"]
    return network(
        layers,
        described["output_size"],
        embedding=None if embedding is None else tuple(embedding),
        noise=Noise(**rates),
        **described["recurrence"],
        **{name: described[name] for name in described if name not in (*_OF_TRAINING, *_APART)},
    )


def _cell(described: Mapping[str, Any]) -> Cell:
    factory, arguments = described["factory"], described["arguments"]
    if described["changed"] or described["own"]:
        part = ", ".join(described["own"]) or "a part that was replaced"
        raise ValueError(f"its cell {described['name']!r} has a function of your own ({part})")
    if factory == "chrono":  # draws biases, and changes nothing else
        return _cell(arguments["cell"])
    if factory in _OF_A_CELL:
        rest = {name: given for name, given in arguments.items() if name != "cell"}
        return _OF_A_CELL[factory](_cell(arguments["cell"]), **rest)
    if factory not in FACTORIES:
        raise ValueError(f"its cell {described['name']!r} is not one of {', '.join(FACTORIES)}")
    return FACTORIES[factory](**{name: arguments[name] for name in arguments if name not in _DRAWS})
