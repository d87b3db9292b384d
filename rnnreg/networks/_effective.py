"""The parameters that cells compute with, and the statistics that they store for prediction."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._signatures import typed
from rnnreg.cells import formed
from rnnreg.networks._records import Network, Params
from rnnreg.networks._stack import Stack
from rnnreg.networks._walk import passes_of


@typed
def effective(net: Network, params: Params) -> Params:
    """The parameters that the cells compute with: those of a parametrisation in place of what is trained.

    Of a network without a parametrisation they are the parameters themselves. Penalties, recorded norms and spectra
    look at them, and a network of the same cells without the parametrisation computes the same with them: give both to
    whatever asks for plain parameters, such as `rr.convert`.

    Args:
      net: the network.
      params: its parameters, or stacked over any leading axes.

    Returns:
      A tree with a matrix, such as `params["layer_0"]["W_hh"]`, where the trained numbers stood.

    >>> import jax, rnnreg as rr
    >>> net = rr.network([rr.parametrizations.orthogonal(rr.cells.elman(2))], 1)
    >>> params = net.init(jax.random.key(0), 1)
    >>> list(params["layer_0"]["W_hh"]), effective(net, params)["layer_0"]["W_hh"].shape
    (['skew'], (2, 2))
    """
    formed_ones = {}
    for index, entry in enumerate(net.layers):
        form, name = entry.cell.effective, f"layer_{index}"
        if form is not None:
            own = params[name]
            both = entry.bidirectional
            formed_ones[name] = {side: form(own[side]) for side in own} if both else form(own)
    return {**params, **formed_ones} if formed_ones else params


def effective_shapes(net: Network, params: Params) -> Params:
    """The shapes of `effective(net, params)`, of arrays or of shapes."""
    return jax.eval_shape(lambda given: effective(net, given), params)


def isometric_paths(net: Network) -> list[str]:
    """The paths of the effective matrices whose singular values a parametrisation fixes."""
    return [
        f"{place.layer if place.side is None else f'{place.layer}/{place.side}'}/{path}"
        for together in passes_of(net.layers)
        for place in together
        for path in place.cell.isometric
    ]


def trains_apart(net: Network) -> bool:
    """Whether a cell of the network does in training what it does not do in prediction."""
    return any(entry.cell.training is not None for entry in net.layers)


@typed
def calibrated(net: Network, params: Params, xs: Array, *, weights: Array | None = None) -> Params:
    """The parameters with the statistics that `rr.cells.batch_norm` stores, those of these rows at each step.

    One pass in training's mode, without dropout: each layer sees what the layers below it give in training. The rows
    are one batch here, so that the statistics are those of the whole training set and no running average. `make_train`
    does it before each record and at the end; after updates by hand it is yours to do. A network without stored
    statistics gets its parameters back.

    Args:
      net: the network.
      params: its parameters.
      xs: `[B, T, D]`, all training rows, as the network sees them (scaled).
      weights: `[B]`, how much a row counts; None counts all alike.

    Returns:
      The parameters; all but the statistics are as they were.

    Raises:
      ValueError: a layer that is applied several times.

    >>> import jax.numpy as jnp, rnnreg as rr
    >>> net = rr.network([rr.cells.batch_norm(rr.cells.elman(2), num_steps=3)], 1)
    >>> params = net.init(jax.random.key(0), 1)
    >>> xs = jnp.array([0.0, 2.0])[:, None, None] * jnp.ones((2, 3, 1))
    >>> found = calibrated(net, params, xs)["layer_0"]
    >>> bool(jnp.allclose(found["mean_x"], params["layer_0"]["W_xh"]))  # of inputs 0 and 2
    True
    """
    if not trains_apart(net) or not isinstance(net.apply, Stack):
        return params
    visits, _ = net.apply.walk(params, xs, train=True, weights=weights)
    rows = jnp.ones(len(xs)) if weights is None else weights
    found = dict(params)
    for one in visits:
        cell, name, side = one.place.cell, one.place.layer, one.place.side
        if cell.training is None:
            continue
        seen = (one.inputs, one.before(), one.states)
        if one.place.reverse:  # its first step is the last of the sequence
            seen = jax.tree.map(lambda leaf: leaf[::-1], seen)
        leaves = cell.training.statistics(formed(cell, one.params), *seen, rows)
        found[name] = (
            {**found[name], **leaves}
            if side is None
            else {**found[name], side: {**one.params, **leaves}}
        )
    return found
