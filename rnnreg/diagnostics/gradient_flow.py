"""How the gradient of the loss shrinks or grows on its way back through time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg.data import Batch
from rnnreg.losses import Loss
from rnnreg.network import Network
from rnnreg.objective import zero_perturbations


class GradientFlow(NamedTuple):
    """Gradient norms against steps back ℓ.

    Attributes:
      lags: `[T]`, ℓ = 0 … T−1, steps back from τ.
      ratio: by layer, `[T]`, the geometric mean over examples of ‖∂L_τ/∂h_{τ−ℓ}‖ / ‖∂L_τ/∂h_τ‖; 1 at ℓ = 0.
        Examples that have no step τ−ℓ, or whose gradient there is exactly 0, are left out; NaN where none is left.
      vanished: by layer, `[T]`, the share of examples whose gradient is exactly 0 there (dead ReLU paths).
      norms: by layer, `[B, T]`, the evidence: ‖∂L_τ/∂h_{τ−ℓ}‖ of each example's own loss, NaN where it has no
        such step.
    """

    lags: Array
    ratio: dict[str, Any]
    vanished: dict[str, Any]
    norms: dict[str, Any]


def gradient_flow(
    net: Network, loss: Loss, params: dict[str, Any], batch: Batch, *, step: int | None = -1
) -> GradientFlow:
    """r(ℓ) = ‖∂L_τ/∂h_{τ−ℓ}‖ / ‖∂L_τ/∂h_τ‖ for the loss L_τ at one step τ, against steps back ℓ.

    The derivatives are those with respect to a perturbation added to h after each step, so they
    follow every path through the network. With `step=None` the loss of the whole sequence is
    differentiated instead, which mixes all τ: late steps then carry fewer terms than early ones.

    How to read it: a straight line on a logarithmic axis is an exponential rate, ln r(ℓ) ≈ −ℓ/ξ; a slope
    of 0 keeps the gradient, a negative one makes it vanish. For an LSTM this is the gradient with
    respect to h, not to the cell memory c.

    Args:
      net: the network.
      loss: the data loss (the penalty has no part in ∂/∂h).
      params: its parameters.
      batch: B examples.
      step: τ: −1 for each sequence's last true step (the only choice with a readout at the last step), a
        step number counted from 0, or None for the whole loss (lags then count from the last true step).

    Raises:
      ValueError: a step other than −1 or None with `readout="last"`, or one outside the sequence.

    Source: Pascanu, Mikolov & Bengio 2013; Arjovsky, Shah & Bengio 2016, Fig. 4.

    >>> import rnnreg as rr
    >>> cell = rr.cells.elman(4, activation=lambda z: z, recurrent_init=rr.cells.orthogonal(0.5))
    >>> net = rr.network([cell], output_size=1)
    >>> batch = rr.Batch(jnp.ones((2, 4, 1)), jnp.ones((2, 4, 1)))
    >>> params = net.init(jax.random.key(0), 1)
    >>> gradient_flow(net, rr.losses.squared_error(), params, batch).ratio["layer_0"].round(4).tolist()
    [1.0, 0.5, 0.25, 0.125]
    """
    num_steps = batch.xs.shape[1]
    if net.readout == "last" and step not in (-1, None):
        raise ValueError(
            f"a network with readout='last' has its loss at the last true step only; got step={step}."
        )
    if step is not None and not -1 <= step < num_steps:
        raise ValueError(f"step must be -1, None, or lie in 0 … {num_steps - 1}; got {step}.")

    true = jnp.ones(batch.xs.shape[:2]) if batch.mask is None else (batch.mask > 0)
    last_true = num_steps - 1 - jnp.argmax(true[:, ::-1] > 0, axis=1)
    tau = last_true if step in (-1, None) else jnp.full(len(last_true), step)
    loss_mask = batch.mask
    if step is not None and net.readout == "all":
        at_tau = jnp.arange(num_steps)[None, :] == tau[:, None]
        loss_mask = (at_tau & (true > 0)).astype(jnp.float32)

    def summed_loss(perturbations):
        """The sum of the examples' own losses, so that each gradient is that of its example alone."""
        out = net.apply(params, batch.xs, mask=batch.mask, perturbations=perturbations)

        def own_loss(outputs, ys, mask):
            return loss(outputs[None], ys[None], None if mask is None else mask[None])

        return jax.vmap(own_loss)(out.outputs, jnp.asarray(batch.ys), loss_mask).sum()

    gradients = jax.grad(summed_loss)(zero_perturbations(net, params, batch))
    lags = jnp.arange(num_steps)
    steps = tau[:, None] - lags[None, :]
    real = true > 0
    counted = jnp.take_along_axis(real, tau[:, None], axis=1)[:, 0]  # τ is a true step
    if batch.weights is not None:
        counted &= batch.weights > 0
    at_real = jnp.take_along_axis(real, jnp.maximum(steps, 0), axis=1)
    there = (steps >= 0) & at_real & counted[:, None]

    def norms_of(gradient):
        at_lag = jnp.take_along_axis(safe_norm(gradient), jnp.maximum(steps, 0), axis=1)
        return jnp.where(there, at_lag, jnp.nan)

    def ratio_of(norms):
        logs = jnp.where(norms > 0, jnp.log(norms), jnp.nan)
        return jnp.exp(jnp.nanmean(logs - logs[:, :1], axis=0))

    def vanished_of(norms):
        return jnp.nanmean(jnp.where(jnp.isnan(norms), jnp.nan, norms == 0), axis=0)

    norms = jax.tree.map(norms_of, gradients)
    return GradientFlow(
        lags, jax.tree.map(ratio_of, norms), jax.tree.map(vanished_of, norms), norms
    )


def safe_norm(values: Array, axis: int = -1) -> Array:
    """‖·‖₂ along an axis, scaled by the largest element so that squares do not underflow."""
    largest = jnp.max(jnp.abs(values), axis=axis, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)
    norm = jnp.sqrt(jnp.sum(jnp.square(values / scale), axis=axis))
    return norm * jnp.squeeze(scale, axis) * (jnp.squeeze(largest, axis) > 0)
