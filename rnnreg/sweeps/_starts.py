"""Which parts of a network start alike for every seed, since their parameters do not depend on the key."""

from __future__ import annotations

from collections.abc import Iterable

import jax

from rnnreg._checks import warn_caller
from rnnreg._tree import leaf_paths
from rnnreg.networks import Network, Stack


def alike_for_every_key(net: Network, input_size: int | None) -> list[str]:
    """The parts of a network, its layers or all of it, whose every parameter is the same for every key.

    >>> import rnnreg as rr
    >>> alike_for_every_key(rr.network([rr.cells.irnn(3)], 1), 2)
    []
    """
    program, shapes = jax.make_jaxpr(lambda key: net.init(key, input_size), return_shape=True)(
        jax.random.key(0)
    )
    drawn = set(program.jaxpr.invars)
    for equation in program.jaxpr.eqns:
        if any(not hasattr(one, "val") and one in drawn for one in equation.invars):
            drawn.update(equation.outvars)
    flags = [not hasattr(one, "val") and one in drawn for one in program.jaxpr.outvars]
    by_path = leaf_paths(jax.tree.unflatten(jax.tree.structure(shapes), flags))
    if not isinstance(net.apply, Stack):
        return [] if any(by_path.values()) else ["the network"]
    layers = {path.split("/")[0] for path in by_path if path.startswith("layer_")}
    return sorted(
        layer
        for layer in layers
        if not any(flag for path, flag in by_path.items() if path.split("/")[0] == layer)
    )


def warn_of_equal_starts(alike: Iterable[list[str]]) -> None:
    """Warns if parts of a network start alike for several seeds."""
    names = next((each for each in alike if each), [])
    if names:
        warn_caller(
            f"every seed starts from the same parameters of {', '.join(names)}, which do not depend on the key: a "
            "module that was made before keeps its own. Give a function that makes it, "
            "rr.from_equinox(lambda key: …) or rr.from_flax(lambda rngs: …), or take one seed."
        )
