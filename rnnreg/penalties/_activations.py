"""Penalties on activations: how large the hidden states are, how fast they move, how steady their norm is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_number
from rnnreg._signatures import Number, typed
from rnnreg.penalties._base import Penalty
from rnnreg.penalties._passes import (
    Layers,
    check_layers,
    chosen_states,
    counted_steps,
    mean_over_steps,
)
from rnnreg.penalties._weights import absolute

Measure = Callable[[Array, Array, Array | None], Array]


@typed
def activation(layers: Layers = "last") -> Penalty:
    """AR: mean_b mean_t (1/H) Σ_j h_btj², the mean square of the hidden states.

    As all penalties on activations it is a mean: over units, over the true steps of a row, over rows by their weights,
    and over the chosen layers. So λ means the same at every size. States are those before output dropout.

    Args:
      layers: "last" (the source's), "*", or patterns of names: "layer_0", "layer_1/backward".

    Returns:
      The penalty.

    Raises:
      ValueError: layers that are not patterns; in an objective, a pattern that matches no layer.

    Source: Merity, McCann & Socher 2017, "Revisiting activation regularization for language RNNs", arXiv:1708.01009;
    their AWD-LSTM takes λ = 2, and its code the element mean, which the papers write as a norm.

    >>> import rnnreg as rr
    >>> states = {"layer_0": rr.cells.HiddenState(h=jnp.array([[[3.0, 1.0], [0.0, 0.0]]]))}
    >>> context = rr.penalties.Context(outputs=None, states=states)
    >>> float(activation().value({}, context, ())[0])
    2.5
    """

    def measure(h, counted, weights):
        return jnp.mean(mean_over_steps(jnp.square(h), counted, weights))

    return _on_states("activation", measure, layers)


@typed
def activity_l1(layers: Layers = "*") -> Penalty:
    """mean_b mean_t (1/H) Σ_j |h_btj|, with the subgradient 0 at 0: sparse activity.

    Args:
      layers: as in `activation`.

    Returns:
      The penalty.

    Raises:
      ValueError: as `activation`.

    Source: Glorot, Bordes & Bengio 2011, "Deep sparse rectifier neural networks" (the L1 norm of activations).

    >>> import rnnreg as rr
    >>> states = {"layer_0": rr.cells.HiddenState(h=jnp.array([[[3.0, -1.0], [0.0, 0.0]]]))}
    >>> float(activity_l1().value({}, rr.penalties.Context(outputs=None, states=states), ())[0])
    1.0
    """

    def measure(h, counted, weights):
        return jnp.mean(mean_over_steps(absolute(h), counted, weights))

    return _on_states("activity_l1", measure, layers)


@typed
def firing_rate(layers: Layers = "*", *, target: Number | None = None) -> Penalty:
    """mean_b mean_t (1/H) Σ_j r_btj², what firing costs; with a target r*, (1/H) Σ_j (r̄_j − r*)².

    r = h is the rate of a unit, and r̄_j its mean over rows (by their weights) and true steps.

    Args:
      layers: as in `activation`.
      target: r*, the rate that each unit should have on average; None: no rate is free. It may be traced if the run is
        made in the same trace; it is no name of `hyper`, and no axis of a sweep.

    Returns:
      The penalty.

    Raises:
      ValueError: as `activation`, or a target that is no number.

    Source: Song, Yang & Wang 2016 (pycog) and Ehrlich et al. 2021 (PsychRNN), mean r²; Bellec et al. 2018, "Long
    short-term memory and learning-to-learn in networks of spiking neurons", the target.

    >>> import rnnreg as rr
    >>> states = {"layer_0": rr.cells.HiddenState(h=jnp.array([[[3.0, 1.0], [1.0, 0.0]]]))}
    >>> context = rr.penalties.Context(outputs=None, states=states)
    >>> [float(firing_rate(target=target).value({}, context, ())[0]) for target in (None, 1.0)]
    [2.75, 0.625]
    """
    if target is not None:
        check_number(target, "target")

    def measure(h, counted, weights):
        if target is None:
            return jnp.mean(mean_over_steps(jnp.square(h), counted, weights))
        rates = mean_over_steps(h, counted, weights)
        return jnp.mean(jnp.square(rates - jnp.asarray(target, h.dtype)))

    return _on_states("firing_rate", measure, layers, target=target)


@typed
def temporal_activation(layers: Layers = "last") -> Penalty:
    """TAR: mean_b mean_t (1/H) Σ_j (h_{b,t+1,j} − h_btj)², how fast the hidden states move.

    The mean is over pairs of neighbouring true steps.

    Args:
      layers: as in `activation`.

    Returns:
      The penalty.

    Raises:
      ValueError: as `activation`.

    Source: Merity, McCann & Socher 2017 (see `activation`); AWD-LSTM takes λ = 1.

    >>> import rnnreg as rr
    >>> states = {"layer_0": rr.cells.HiddenState(h=jnp.array([[[3.0, 1.0], [0.0, 0.0]]]))}
    >>> float(temporal_activation().value({}, rr.penalties.Context(outputs=None, states=states), ())[0])
    5.0
    """

    def measure(h, counted, weights):
        moved = jnp.square(h[:, 1:] - h[:, :-1])
        return jnp.mean(mean_over_steps(moved, counted[:, 1:] & counted[:, :-1], weights))

    return _on_states("temporal_activation", measure, layers)


@typed
def norm_stabilizer(layers: Layers = "*") -> Penalty:
    """mean_b mean_t (‖h_{b,t+1}‖₂ − ‖h_bt‖₂)²: the norm of the hidden state keeps its value, the state may turn.

    The mean is over pairs of neighbouring true steps; the norm has the gradient 0 at h = 0.

    Args:
      layers: as in `activation`.

    Returns:
      The penalty.

    Raises:
      ValueError: as `activation`.

    Source: Krueger & Memisevic 2016, "Regularizing RNNs by stabilizing activations", arXiv:1511.08400. The mean over
    T − 1 pairs is that of the code of Krueger et al. 2017, which takes λ = 50.

    >>> import rnnreg as rr
    >>> states = {"layer_0": rr.cells.HiddenState(h=jnp.array([[[3.0, 4.0], [0.0, 0.0]]]))}
    >>> float(norm_stabilizer().value({}, rr.penalties.Context(outputs=None, states=states), ())[0])
    25.0
    """

    def measure(h, counted, weights):
        squares = jnp.tensordot(
            jnp.square(h), jnp.ones(h.shape[-1], h.dtype), 1, precision="highest"
        )
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        moved = jnp.square(norms[:, 1:] - norms[:, :-1])
        return mean_over_steps(moved, counted[:, 1:] & counted[:, :-1], weights)

    return _on_states("norm_stabilizer", measure, layers)


def _on_states(name: str, measure: Measure, layers: Layers, **arguments: Any) -> Penalty:
    """The penalty that is the mean over layers of `measure(h [B, T, H], counted [B, T], weights [B])`."""
    check_layers(layers)

    def value(params, context, state):
        parts = [
            measure(h, counted_steps(context, h), context.weights)
            for h in chosen_states(context, layers)
        ]
        return jnp.stack(parts).mean(), state

    return Penalty(
        lambda params: (),
        value,
        needs=frozenset({"states"}),
        name=name,
        arguments=(("layers", layers), *arguments.items()),
    )
