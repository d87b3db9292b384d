"""What the states of a network look like along a batch: saturated, dead or linear units, gates, dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, check_function, check_mask, check_share
from rnnreg._linalg import marked, masked_mean, safe_divide, wide
from rnnreg._signatures import typed
from rnnreg.cells import Cell
from rnnreg.diagnostics.dynamics._system import System, check_order
from rnnreg.diagnostics.dynamics._trajectory import check_sequences
from rnnreg.diagnostics.states._layer_states import cell_runs, network_runs, step_runs
from rnnreg.networks import Network

Params = dict[str, Any]
Bounds = tuple[float | None, float | None]


class GateOpening(NamedTuple):
    """How open one gate is; all over true steps.

    Attributes:
      mean: the mean of the gate.
      open: share of (example, step, unit) above 0.9.
      closed: share below 0.1.
      mean_steps: `[T]`, the mean at each step; NaN at a step that no example has.
      open_units: `[H]`, the share of steps at which each unit is open.
      closed_units: `[H]`, at which it is closed.
    """

    mean: Array
    open: Array
    closed: Array
    mean_steps: Array
    open_units: Array
    closed_units: Array


class Saturation(NamedTuple):
    """The states h of one layer along a batch; all over true steps, and NaN where a state they count is not finite.

    Attributes:
      bounds: `(low, high)` of the activation, ±inf where it has none.
      saturated: share of (example, step, unit) with h within the margin of a bound.
      linear: share in the middle of a bounded activation, or above the bound of a rectifier, where it is nearly
        linear.
      dead: share of units that never leave the margin of one and the same bound.
      saturated_units: `[H]`, the share of steps at which each unit is saturated.
      linear_units: `[H]`, at which it is linear; 1 for a unit that never bends.
      dead_units: `[H]` booleans; False where a state is not finite.
      saturated_steps: `[T]`, the share of units and examples that are saturated at each step; NaN where no
        example has it.
      histogram: `[T, N]`, the share of units and examples in each bin at each step; 0 where no example has it.
      edges: `[N + 1]`, of the bins.
      participation: (Σλ)²/Σλ², λ the eigenvalues of the covariance of h: how many directions the states use,
        from 1 to H.
      gates: a `GateOpening` of each gate that the cell names: reset and update of a GRU; input, forget and output of
        an LSTM.
    """

    bounds: tuple[float, float]
    saturated: Array
    linear: Array
    dead: Array
    saturated_units: Array
    linear_units: Array
    dead_units: Array
    saturated_steps: Array
    histogram: Array
    edges: Array
    participation: Array
    gates: dict[str, GateOpening]


@typed
def saturation(
    system: System,
    params: Any,
    xs: Array,
    *,
    mask: Array | None = None,
    state: Any = None,
    bounds: Bounds | Mapping[str, Bounds] | None = None,
    margin: float = 0.05,
    middle: float = 0.3,
    num_bins: int = 40,
    gates: Callable[[Any, Any, Array], dict[str, Array]] | None = None,
) -> dict[str, Saturation]:
    """Saturated, linear and dead units, histograms through time, gate openings and dimension, by layer.

    With the bounds of the activation [low, high], a state is *saturated* within margin · (high − low) of a bound
    (|tanh| > 0.9 at the default), *linear* within middle · (high − low)/2 of the centre (|tanh| < 0.3, where the
    slope is above 0.91). A rectifier has one bound: saturated is h = 0, linear h > 0. A *dead* unit never leaves
    one bound.

    How to read it: each saturated step multiplies the gradient by about the slope there, at most 0.19 for tanh;
    a dead rectifier passes none at all. Units that are always linear compute nothing that a smaller λ‖W‖² would
    not have allowed: with a strong penalty all of them are. A participation far below H says that few directions
    are in use. Gates that are closed (update gate of the GRU: open) for long are what holds a memory.

    Args:
      system: a network, a cell, or a function `step(params, state, x)` on rows (each array of its state is a
        "layer").
      params: its parameters.
      xs: `[B, T, D]`, or `[B, T]` tokens for a network that embeds them.
      mask: `[B, T]`, 1 where a step counts.
      state: the state before the first step; a function needs it.
      bounds: `(low, high)` of the activation, None for no bound, for all layers or in a dict by the layer's name;
        by default what the gate of the cell states (`rr.cells.Facts`). A gate or function that states none needs them.
      margin: see above.
      middle: see above.
      num_bins: N.
      gates: `gates(params, state, x) -> {name: [B, H]}` on rows, in place of the gates that the cell names; a function
        has no names of its own.

    Returns:
      One record a layer: "layer_0", "layer_1/forward", …; "cell" for a cell; the names of the fields for a
      function.

    Raises:
      ValueError: bounds that are not known, in the wrong order, or of a layer that is not there; a mask or a state
        that does not fit; a margin outside 0 … ½, or a middle outside 0 … 1.

    Source: Glorot & Bengio 2010 (saturation through layers); Karpathy, Johnson & Li 2015 (gates open and closed,
      0.9 and 0.1); Gao & Ganguli 2015 (participation ratio).

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(3, recurrent_init="identity")], 1)
    >>> params = net.init(jax.random.key(0), 1)
    >>> params["layer_0"] |= {"W_hh": jnp.zeros((3, 3)), "W_xh": jnp.array([[0.1, 1.0, 9.0]])}
    >>> found = saturation(net, params, jnp.array([[[1.0], [-1.0]]]))["layer_0"]
    >>> found.saturated_units.tolist(), found.linear_units.tolist(), found.bounds
    ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0], (-1.0, 1.0))
    """
    check_count(num_bins, "num_bins")
    check_share(margin, "margin", most=0.5)
    check_share(middle, "middle")
    if gates is not None:
        check_function(gates, "gates", "gates(params, state, x) -> {name: [B, H]}")
    check_order(system, xs)
    if not isinstance(system, Network):
        xs = check_sequences(xs)
    first = jnp.shape(xs)[:2]
    if mask is not None:
        mask = jnp.asarray(mask)
        check_mask(mask, first)
    true = jnp.ones(first, bool) if mask is None else mask > 0
    if isinstance(system, Network):
        runs = network_runs(system, params, xs, mask, state, gates)
    elif isinstance(system, Cell):
        runs = cell_runs(system, params, xs, mask, state, gates)
    else:
        runs = step_runs(system, params, xs, mask, state, gates)
    runs = list(runs)
    if isinstance(bounds, Mapping) and not set(bounds) <= {run.name for run in runs}:
        raise ValueError(
            f"bounds has {list(bounds)}; expected some of {[run.name for run in runs]}."
        )
    found = {}
    for name, cell, states, openings in runs:
        limits = _bounds(name, cell, bounds)
        found[name] = _measure(states, true, limits, margin, middle, num_bins, openings)
    return found


def _bounds(name: str, cell: Cell | None, given: Bounds | Mapping[str, Bounds] | None) -> Bounds:
    """(low, high) of a layer, infinite where there is no bound."""
    bounds = given.get(name) if isinstance(given, Mapping) else given
    if bounds is None:
        found = None if cell is None else cell.facts.bounds
        if found is None:
            what = "this function" if cell is None else f"the cell {cell.name!r}"
            raise ValueError(
                f"the bounds of the activation in {what} are not known: give bounds=(low, high), None where there is "
                "no bound, such as (-1, 1) for tanh or (0, None) for a rectifier; or by layer, "
                f"{{{name!r}: (low, high)}}."
            )
        return found
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise ValueError(f"bounds must be (low, high); got {bounds!r}.")
    low = -math.inf if bounds[0] is None else float(bounds[0])
    high = math.inf if bounds[1] is None else float(bounds[1])
    if not low < high:
        raise ValueError(f"bounds must be (low, high) with low < high; got {bounds}.")
    return low, high


def _measure(states, true, bounds, margin, middle, num_bins, gates) -> Saturation:
    """The numbers of one layer, from states `[B, T, H]`."""
    dtype = wide(states.dtype)
    states = jnp.where(jnp.isfinite(states), states.astype(dtype), jnp.nan)
    low, high = bounds
    bounded = math.isfinite(low) and math.isfinite(high)
    span = (high - low) if bounded else 0.0
    at_low, at_high = states <= low + margin * span, states >= high - margin * span
    if bounded:
        linear = jnp.abs(states - (low + high) / 2) <= middle * span / 2
    else:
        linear = ~(at_low | at_high)
    full = at_low | at_high

    def share(what, axis):
        return masked_mean(_known(what, states), true[..., None], axis)

    saturated = share(full, None)
    never_leaves = jnp.stack([share(side, (0, 1)) for side in (at_low, at_high)])
    dead_units = (never_leaves == 1).any(axis=0)
    edges = _edges(states, true, bounds, num_bins)
    return Saturation(
        bounds=(low, high),
        saturated=saturated,
        linear=share(linear, None),
        dead=jnp.where(jnp.isnan(saturated), jnp.nan, jnp.mean(dead_units.astype(dtype))),
        saturated_units=share(full, (0, 1)),
        linear_units=share(linear, (0, 1)),
        dead_units=dead_units,
        saturated_steps=share(full, (0, 2)),
        histogram=_histogram(states, true, edges),
        edges=edges,
        participation=_participation(states, true),
        gates={name: _opening(value.astype(dtype), true) for name, value in gates.items()},
    )


def _known(what: Array, values: Array) -> Array:
    """1 where something holds of a value, 0 where it does not, NaN where the value is."""
    return jnp.where(jnp.isnan(values), jnp.nan, what.astype(values.dtype))


def _edges(states: Array, true: Array, bounds: tuple[float, float], num_bins: int) -> Array:
    """Bins between the bounds, or between the extremes where there is no bound."""
    counted = true[..., None]
    lowest = jnp.min(jnp.where(counted, states, jnp.inf))
    highest = jnp.max(jnp.where(counted, states, -jnp.inf))
    low = bounds[0] if math.isfinite(bounds[0]) else jnp.where(jnp.isfinite(lowest), lowest, 0)
    high = bounds[1] if math.isfinite(bounds[1]) else jnp.where(jnp.isfinite(highest), highest, 1)
    high = jnp.where(high > low, high, jnp.asarray(low) + 1)
    return jnp.linspace(low, high, num_bins + 1, dtype=states.dtype)


def _histogram(states: Array, true: Array, edges: Array) -> Array:
    """`[T, N]`, the share in each bin at each step."""
    num_bins = len(edges) - 1

    def at_step(values, counted):
        weight = jnp.broadcast_to(counted[:, None], values.shape).astype(values.dtype)
        place = jnp.clip(jnp.searchsorted(edges, values, side="right") - 1, 0, num_bins - 1)
        counts = jnp.zeros(num_bins, values.dtype).at[place.ravel()].add(weight.ravel())
        missing = jnp.any(jnp.isnan(values) & counted[:, None])
        return jnp.where(missing, jnp.nan, counts / jnp.maximum(jnp.sum(weight), 1))

    return jax.vmap(at_step, in_axes=1)(states, true)


def _participation(states: Array, true: Array) -> Array:
    """(tr C)² / ‖C‖_F², which needs no eigenvalues."""
    size = states.shape[-1]
    rows, counted = states.reshape(-1, size), true.reshape(-1, 1)
    centred = jnp.where(counted, rows - masked_mean(rows, counted, 0, keepdims=True), 0)
    covariance = centred.T @ centred
    largest = jnp.max(jnp.abs(covariance))
    covariance = safe_divide(covariance, largest)  # squares do not underflow
    squares = jnp.sum(jnp.square(covariance))
    ratio = safe_divide(jnp.square(jnp.trace(covariance)), squares)
    return marked(~(squares > 0), ratio)


def _opening(values: Array, true: Array) -> GateOpening:
    open_, closed = _known(values > 0.9, values), _known(values < 0.1, values)
    counted = true[..., None]
    return GateOpening(
        mean=masked_mean(values, counted, None),
        open=masked_mean(open_, counted, None),
        closed=masked_mean(closed, counted, None),
        mean_steps=masked_mean(values, counted, (0, 2)),
        open_units=masked_mean(open_, counted, (0, 1)),
        closed_units=masked_mean(closed, counted, (0, 1)),
    )
