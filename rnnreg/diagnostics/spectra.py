"""Eigenvalues, singular values and norms of square recurrent blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg.penalties import leaf_paths


class Spectrum(NamedTuple):
    """Spectrum of one recurrent matrix, gate block by gate block; leading axes are those of the leaf.

    Attributes:
      rho: `[..., G]` spectral radius, max |eigenvalue|.
      sigma_max: `[..., G]` largest singular value.
      frobenius: `[..., G]` √Σ w².
      eigenvalues: `[..., G, H]`, complex.
      singular_values: `[..., G, H]`, from large to small.
    """

    rho: np.ndarray
    sigma_max: np.ndarray
    frobenius: np.ndarray
    eigenvalues: np.ndarray
    singular_values: np.ndarray


def spectra(params: dict[str, Any]) -> dict[str, Spectrum]:
    """ρ, σ_max and ‖·‖_F of every `W_hh`, one a square gate block, computed on the host.

    How to read it: for a tanh network σ_max < 1 is sufficient for gradients to vanish, and ρ > 1 is
    necessary for a linear network's to explode (Pascanu, Mikolov & Bengio 2013); ρ ≤ σ_max ≤ ‖·‖_F.

    Args:
      params: parameters of one network, or stacked over any leading axes.

    >>> spectrum = spectra({"layer_0": {"W_hh": np.array([[0.0, 2.0], [0.5, 0.0]])}})["layer_0/W_hh"]
    >>> spectrum.rho.tolist(), spectrum.sigma_max.tolist()
    ([1.0], [2.0])
    """
    found = {}
    for path, leaf in leaf_paths(params).items():
        if path.split("/")[-1] != "W_hh":
            continue
        blocks = np.asarray(square_blocks(np.asarray(leaf, dtype=np.float64)))
        eigenvalues = np.linalg.eigvals(blocks)
        singular_values = np.linalg.svd(blocks, compute_uv=False)
        found[path] = Spectrum(
            rho=np.abs(eigenvalues).max(axis=-1),
            sigma_max=singular_values[..., 0],
            frobenius=np.sqrt(np.square(singular_values).sum(axis=-1)),
            eigenvalues=eigenvalues,
            singular_values=singular_values,
        )
    return found


def square_blocks(W: Any) -> Any:
    """A recurrent matrix `[..., H, G·H]` as its square blocks `[..., G, H, H]`."""
    hidden_size = W.shape[-2]
    blocks = W.reshape(*W.shape[:-1], W.shape[-1] // hidden_size, hidden_size)
    return blocks.swapaxes(-2, -3)


def sigma_max(W: Array, *, num_iterations: int = 30) -> Array:
    """σ_max(W) by power iteration on W Wᵀ; a lower bound that is exact in the limit.

    Runs on every backend and inside training; its error falls like (σ₂/σ₁)^(2·num_iterations). Use
    `spectra` for the exact value of stored parameters.

    Args:
      W: `[M, N]`.
      num_iterations: how many products with W Wᵀ.

    >>> bool(abs(sigma_max(jnp.diag(jnp.array([3.0, 1.0]))) - 3) < 1e-5)
    True
    """
    start = jnp.sin(
        1.0 + jnp.arange(W.shape[0], dtype=W.dtype)
    )  # fixed, and orthogonal to nothing likely

    def iterate(u, _):
        scale = jnp.max(jnp.abs(u))
        u = u / jnp.where(scale > 0, scale, 1)
        u = u / jnp.maximum(jnp.linalg.norm(u), jnp.finfo(W.dtype).tiny)
        v = u @ W
        return W @ v, jnp.linalg.norm(v)

    _, values = jax.lax.scan(iterate, start, length=num_iterations)
    return values[-1]
