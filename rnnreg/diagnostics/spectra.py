"""Eigenvalues, singular values and norms of square recurrent blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg.penalties import leaf_paths


class Spectrum(NamedTuple):
    """Spectrum of square matrices; of a recurrent leaf, gate block by gate block. Leading axes are those given.

    Attributes:
      rho: `[..., G]` spectral radius, max |eigenvalue|.
      sigma_max: `[..., G]` largest singular value.
      frobenius: `[..., G]` √Σ w².
      eigenvalues: `[..., G, H]`, complex.
      singular_values: `[..., G, H]`, from large to small.
      henrici: `[..., G]` departure from normality, √(‖W‖_F² − Σ |eigenvalue|²); 0 for a normal matrix.
      condition: `[..., G]` σ_max / σ_min; ∞ for a singular matrix.
    """

    rho: np.ndarray
    sigma_max: np.ndarray
    frobenius: np.ndarray
    eigenvalues: np.ndarray
    singular_values: np.ndarray
    henrici: np.ndarray
    condition: np.ndarray


def spectra(params: dict[str, Any]) -> dict[str, Spectrum]:
    """ρ, σ_max, ‖·‖_F, departure from normality and condition of every `W_hh`, one a square gate block, on the host.

    How to read it: for a tanh network σ_max < 1 is sufficient for gradients to vanish, and ρ > 1 is
    necessary for a linear network's to explode (Pascanu, Mikolov & Bengio 2013); ρ ≤ σ_max ≤ ‖·‖_F. Between ρ and
    σ_max lies transient growth: a matrix far from normal (a large `henrici` beside `frobenius`) can amplify for many
    steps what decays in the end.

    Args:
      params: parameters of one network, or stacked over any leading axes.

    Raises:
      ValueError: a `W_hh` that is not made of square blocks.

    Source: Henrici 1962 (departure from normality); Pascanu, Mikolov & Bengio 2013.

    >>> spectrum = spectra({"layer_0": {"W_hh": np.array([[0.0, 2.0], [0.5, 0.0]])}})["layer_0/W_hh"]
    >>> spectrum.rho.tolist(), spectrum.sigma_max.tolist(), spectrum.henrici.tolist()
    ([1.0], [2.0], [1.5])
    """
    found = {}
    for path, leaf in leaf_paths(params).items():
        if path.split("/")[-1] != "W_hh":
            continue
        W = np.asarray(leaf, dtype=np.float64)
        if W.ndim < 2 or W.shape[-1] % W.shape[-2]:
            raise ValueError(
                f"{path} must be [..., H, G·H], square blocks side by side; got shape {W.shape}. Of a matrix that is "
                "not square there are singular values, but no eigenvalues."
            )
        found[path] = matrix_spectrum(np.asarray(square_blocks(W)))
    return found


def matrix_spectrum(matrices: Any) -> Spectrum:
    """Eigenvalues, singular values and what follows from them, of any stack of square matrices, on the host.

    Args:
      matrices: `[..., n, n]`; where one is not finite its numbers are NaN.

    Raises:
      ValueError: matrices that are not square.

    >>> found = matrix_spectrum(np.array([[0.0, -2.0], [2.0, 0.0]]))
    >>> float(found.rho.round(9)), float(found.henrici), float(found.condition.round(9))
    (2.0, 0.0, 1.0)
    """
    A = np.asarray(matrices, dtype=np.float64)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ValueError(
            f"eigenvalues need square matrices [..., n, n]; got shape {A.shape}. Take the square blocks of a "
            "recurrent matrix with several gates: `spectra` does."
        )
    finite = np.asarray(np.isfinite(A).all(axis=(-2, -1)))
    A = np.where(finite[..., None, None], A, 0)
    missing = np.where(finite, 1.0, np.nan)
    eigenvalues = np.linalg.eigvals(A).astype(np.complex128) * missing[..., None]
    singular_values = np.linalg.svd(A, compute_uv=False) * missing[..., None]
    squares = np.square(singular_values).sum(axis=-1)
    departure = squares - np.square(np.abs(eigenvalues)).sum(axis=-1)
    departure = (
        np.where(departure > 1e-14 * A.shape[-1] * squares, departure, 0) * missing
    )  # rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = singular_values[..., 0] / singular_values[..., -1]
    return Spectrum(
        rho=np.abs(eigenvalues).max(axis=-1),
        sigma_max=singular_values[..., 0],
        frobenius=np.sqrt(squares),
        eigenvalues=eigenvalues,
        singular_values=singular_values,
        henrici=np.sqrt(departure),
        condition=np.where(singular_values[..., 0] == 0, np.inf, condition),
    )


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
