"""What one trained network is like: the two axes of its memory, and the slope of its gradient with four predictors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import rnnreg as rr

PREDICTORS = ("ln ρ(W)", "ln ρ(W diag E φ′)", "½ ln χ", "λ_max along the data")


class Memory(NamedTuple):
    """What one network holds, and how.

    Attributes:
      bits: the memory axis, bits of u that a noisy decoder finds in h_T (see `decoded_bits`).
      gradient: the gradient axis, ‖∂h_T/∂h_0‖₂ over the states of all layers, geometric mean over patterns.
      rho: spectral radius of W_hh (the largest over layers).
      frobenius: ‖W_hh‖_F over all layers.
    """

    bits: Array
    gradient: Array
    rho: Array
    frobenius: Array


def memory(net: rr.Network, params: Any, batch: rr.Batch) -> Memory:
    """Both axes of memory, from all patterns of delayed recall."""
    silence, start = _after_the_bits(net, params, batch)
    options: Any = {"state": start, "num_singular": 1, "small_ones": False}
    every = silence.shape[1]  # one product of all steps
    products = rr.diagnostics.jacobian_products(net, params, silence, every=every, **options)
    spectra = rr.diagnostics.spectra(params).values()
    last = net.apply(params, batch.xs).final_state[f"layer_{len(net.layers) - 1}"].h
    return Memory(
        decoded_bits(last, batch.ys),
        jnp.exp(products.log_norm[-1]),
        jnp.stack([one.rho[0] for one in spectra]).max(),
        jnp.linalg.norm(jnp.stack([one.frobenius[0] for one in spectra])),
    )


def decoded_bits(states: Array, bits: Any, *, noise: float = 0.1) -> Array:
    """Σ_k 1 − H₂(error_k): bits of u decoded from h_T plus N(0, noise²) on every unit; h_T `[2^K, H]`, u `[2^K, K]`.

    The decision on bit k is the sign of the least-squares readout of h_T, and its error rate is exact (no sampling):
    Φ(−margin / (noise ‖w_k‖)), averaged over patterns. Without the noise any h_T ≠ 0 would decode, 1e-30 included.
    The noise is a tenth of a tanh unit's range on either side.
    """
    readout = jnp.linalg.pinv(states, rtol=1e-6) @ bits
    size = jnp.linalg.norm(readout, axis=0)
    margin = bits * (states @ readout)
    scaled = margin / jnp.where(size > 0, noise * size, 1)
    wrong = jnp.minimum(jax.scipy.stats.norm.cdf(-scaled).mean(axis=0), 0.5)
    entropy = jax.scipy.special.entr(wrong) + jax.scipy.special.entr(1 - wrong)
    return jnp.sum(1 - entropy / jnp.log(2.0))


def gradient_slopes(
    net: rr.Network, params: Any, batch: rr.Batch, *, activation: Callable[[Array], Array]
) -> dict[str, Array]:
    """The slope of ln‖∂h_T/∂h_t‖₂ against T − t, mean over patterns, and its `PREDICTORS`, nats a step."""
    silence, start = _after_the_bits(net, params, batch)
    diagnostics = rr.diagnostics
    along = {"xs": silence, "state": start}
    products = diagnostics.jacobian_products(net, params, **along, num_singular=1, small_ones=False)
    jacobians = diagnostics.step_jacobians(net, params, **along)
    W = params["layer_0"]["W_hh"]
    before = net.apply(params, batch.xs).states["layer_0"].h[:, :-1]
    found = (
        diagnostics.decay_rate(products.log_singular[..., 0], first=1).rate,
        jnp.log(diagnostics.matrix_spectrum(W).rho),
        jnp.log(diagnostics.matrix_spectrum(jacobians.mean(axis=(0, 1))).rho),
        mean_field_rate(W, before, activation),
        exponent_along(jacobians),
    )
    return dict(zip(("slope", *PREDICTORS), found, strict=True))


def mean_field_rate(W: Array, before: Array, activation: Callable[[Array], Array]) -> Array:
    """½ ln χ, χ = σ_w² E φ′(√q z)², z ~ N(0, 1): σ_w² = ‖W‖_F² / H, q the mean square of what W makes of the states.

    Source: Poole et al. 2016, Schoenholz et al. 2017.
    """
    q = jnp.square(before @ W).mean()
    z = jnp.linspace(-8, 8, 2001)
    density = jax.nn.softmax(-jnp.square(z) / 2)
    slopes = jax.vmap(jax.grad(activation))(jnp.sqrt(q) * z)
    return 0.5 * jnp.log(jnp.square(W).sum() / len(W) * (jnp.square(slopes) @ density))


def exponent_along(jacobians: Array) -> Array:
    """The largest Lyapunov exponent of the products of J_t `[B, T, n, n]`, mean over patterns.

    They are gone through twice: the first time aligns the frame, the second one counts.
    """
    num_rows, num_steps, size, _ = jacobians.shape
    found = rr.diagnostics.lyapunov(
        lambda _, tangent, J: jnp.einsum("bij,bj->bi", J, tangent),
        None,
        jnp.concatenate([jacobians, jacobians], axis=1),
        state=jnp.zeros((num_rows, size), jacobians.dtype),
        discard=num_steps,
    )
    return found.exponents[:, 0].mean()


def _after_the_bits(net: rr.Network, params: Any, batch: rr.Batch) -> tuple[Array, Any]:
    """The silent steps, and the state h_0 that they start from."""
    xs = jnp.asarray(batch.xs)
    return xs[:, 1:], net.apply(params, xs[:, :1]).final_state
