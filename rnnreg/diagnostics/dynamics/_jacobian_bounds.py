"""What the weights alone say about ‖∂h_T/∂h_t‖: a bound from σ_max, and ρ, which is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnreg._checks import described
from rnnreg._signatures import typed
from rnnreg._tree import leaf_paths
from rnnreg.cells import Cell, WeightsFunction, formed
from rnnreg.diagnostics.dynamics._spectra import matrix_spectrum
from rnnreg.diagnostics.dynamics._system import System
from rnnreg.networks import Network, expected_cell, passes_of


class JacobianBounds(NamedTuple):
    """Rates a step back, in nats: multiply by ℓ to compare with ln ‖∂h_T/∂h_{T−ℓ}‖.

    Attributes:
      slope: γ = sup |φ′|; None if the gate does not state it.
      sigma_max: of W_hh, a float or an array of the leading axes; None where the state is not that of one square block.
      rho: the spectral radius of W_hh; None as for sigma_max.
      log_bound: ln(γ σ_max), so that ‖∂h_T/∂h_{T−ℓ}‖₂ ≤ (γ σ_max)^ℓ; None where either is None.
      log_rho: ln ρ. ρ^ℓ bounds nothing: products pass above it (non-normal W) and below it (φ′ < 1).
    """

    slope: float | None
    sigma_max: Any
    rho: Any
    log_bound: Any
    log_rho: Any


@typed
def jacobian_bounds(system: System, params: Any) -> JacobianBounds:
    """‖∂h_T/∂h_{T−ℓ}‖₂ ≤ (γ σ_max(W_hh))^ℓ, γ = sup |φ′|, and beside it ρ(W_hh)^ℓ, which is no bound.

    Of stored parameters it is computed on the host in float64, inside `jit`, `vmap`, `SweepResult.map` and
    `track=` in their precision (see `matrix_spectrum`).

    γ is what the gate states as `max_slope`: an Elman cell has that of its activation (tanh 1, sigmoid ¼, relu 1, the
    identity 1, see `rr.cells.Activation`). A gate that states none has None, and so no bound. For gated cells, for
    networks of several layers and for step functions there is no such bound from one matrix, and all fields are None.

    How to read it: γ σ_max < 1 is sufficient for gradients to vanish. The bound is reached by a linear network with
    a scaled orthogonal W_hh, and else lies far above: real units saturate, and singular vectors do not line up.

    Args:
      system: a cell, a network of one layer, or a step function.
      params: its parameters, or stacked over any leading axes.

    Returns:
      The bounds; fields are None where there is none.

    Raises:
      ValueError: parameters that are not those of the cell.

    Source: Pascanu, Mikolov & Bengio 2013; Hochreiter 1991 (the ¼ of the logistic function).

    >>> import rnnreg as rr
    >>> cell = rr.cells.elman(3, activation=jax.nn.sigmoid, recurrent_init=rr.cells.orthogonal(2.0))
    >>> bounds = jacobian_bounds(cell, cell.init(jax.random.key(0), 1))
    >>> bounds.slope, round(bounds.sigma_max, 4), round(bounds.log_bound / float(np.log(0.5)), 4)
    (0.25, 2.0, 1.0)
    """
    if isinstance(system, (Cell, Network)) and not isinstance(params, Mapping):
        raise ValueError(f"params must be those of the network or cell; got {described(params)}.")
    cell, weights = _only_cell(system, params)
    if cell is None or cell.weights is None:
        return JacobianBounds(None, None, None, None, None)
    form = cell.weights
    W_hh = _recurrent_matrix(cell, lambda own: form(formed(cell, own)), weights)
    if W_hh.shape[-2] != W_hh.shape[-1]:
        return JacobianBounds(None, None, None, None, None)
    spectrum = matrix_spectrum(W_hh)
    slope, sigma_max, rho = cell.facts.max_slope, spectrum.sigma_max, spectrum.rho
    log_bound = None if slope is None else _log(slope * sigma_max)
    found = JacobianBounds(slope, sigma_max, rho, log_bound, _log(rho))
    if isinstance(rho, jax.Array) or np.ndim(rho):
        return found
    return JacobianBounds(*(value if value is None else float(value) for value in found))


def _recurrent_matrix(cell: Cell, weights: WeightsFunction, params: Any) -> Any:
    """The effective W_hh `[..., H, G·H]`, leading axes those of the parameters."""
    alone = leaf_paths(jax.eval_shape(lambda: cell.init(jax.random.key(0), 1, jnp.float32)))
    given = leaf_paths(params)
    missing = sorted(set(alone) - set(given))
    if missing:
        raise ValueError(
            f"params of the cell {cell.name!r} must have {list(alone)}; {missing} are missing from {list(given)}."
        )
    columns = {path: jnp.shape(given[path])[-1:] for path in alone}
    if any(columns[path] != leaf.shape[-1:] for path, leaf in alone.items()):
        raise ValueError(
            f"params are not those of the cell {cell.name!r}, whose leaves have "
            f"{ {path: leaf.shape[-1:] for path, leaf in alone.items()} } columns; got {columns}."
        )
    axes = {jnp.ndim(given[path]) - leaf.ndim for path, leaf in alone.items()}
    if len(axes) > 1 or min(axes) < 0:
        shapes = {path: jnp.shape(given[path]) for path in alone}
        raise ValueError(f"params must all have the same leading axes; got shapes {shapes}.")
    for _ in range(axes.pop()):
        weights = jax.vmap(weights)
    return weights(params)[1]


def _only_cell(system: System, params: Any) -> tuple[Cell | None, Any]:
    """The cell whose state is all the state there is, with its parameters."""
    if isinstance(system, Cell):
        return system, params
    if isinstance(system, Network) and len(system.layers) == 1:
        layer = system.layers[0]
        if layer.repeat == 1 and layer.forwards:
            place = next(passes_of(system.layers))[0]
            return expected_cell(system, 0), place.params_of(params)
    return None, None


def _log(values: Any) -> Any:
    if isinstance(values, jax.Array):
        return jnp.log(values)
    with np.errstate(divide="ignore"):
        return np.log(values)
