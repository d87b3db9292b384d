"""Eigenvalues, singular values and norms of square recurrent blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._arrays import as_array
from rnnreg._linalg import safe_divide, square_blocks, wide
from rnnreg._signatures import Numbers, typed
from rnnreg._tree import leaf_paths, matching
from rnnreg.networks import Network, effective


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

    rho: Any
    sigma_max: Any
    frobenius: Any
    eigenvalues: Any
    singular_values: Any
    henrici: Any
    condition: Any


@typed
def spectra(
    params: dict[str, Any], *, paths: str | Sequence[str] = "W_hh", net: Network | None = None
) -> dict[str, Spectrum]:
    """ρ, σ_max, ‖·‖_F, departure from normality and condition of every `W_hh`, one a square gate block.

    Of stored parameters it is computed on the host, in float64. Inside `jit`, `vmap`, `SweepResult.map` or
    `make_train(track=…)` it has the precision of the parameters (see `matrix_spectrum`).

    How to read it: for a tanh network σ_max < 1 is sufficient for gradients to vanish, and ρ > 1 is
    necessary for a linear network's to explode (Pascanu, Mikolov & Bengio 2013); ρ ≤ σ_max ≤ ‖·‖_F. Between ρ and
    σ_max lies transient growth: a matrix far from normal (a large `henrici` beside `frobenius`) can amplify for many
    steps what decays in the end.

    Args:
      params: parameters of one network, or stacked over any leading axes.
      paths: one pattern or several for the matrices to take; each matches a whole path or a last name. Of a network
        of another library, for example "layer_0/h*/kernel".
      net: the network; needed if its cells have a parametrisation, whose effective matrices are then looked at.

    Returns:
      A `Spectrum` by path, such as "layer_0/W_hh", with an axis G for the gate blocks.

    Raises:
      ValueError: a matrix that is not made of square blocks, or no leaf that matches.

    Source: Henrici 1962 (departure from normality); Pascanu, Mikolov & Bengio 2013.

    >>> spectrum = spectra({"layer_0": {"W_hh": np.array([[0.0, 2.0], [0.5, 0.0]])}})["layer_0/W_hh"]
    >>> spectrum.rho.tolist(), spectrum.sigma_max.tolist(), spectrum.henrici.tolist()
    ([1.0], [2.0], [1.5])

    ρ(W_hh) through training, by gate:

    >>> track = {"rho": lambda net, params, batch: spectra(params)["layer_0/W_hh"].rho}
    """
    leaves = leaf_paths(params if net is None else effective(net, params))
    found = {}
    for path, leaf in matching(leaves, paths).items():
        W = (
            leaf
            if isinstance(leaf, jax.core.Tracer)
            else np.asarray(as_array(leaf, path), np.float64)
        )
        if W.ndim < 2 or not W.shape[-2] or W.shape[-1] % W.shape[-2]:
            raise ValueError(
                f"{path} must be [..., H, G·H], square blocks side by side; got shape {W.shape}. Of a matrix that is "
                "not square there are singular values, but no eigenvalues."
            )
        found[path] = matrix_spectrum(square_blocks(W))
    if not found:
        raise ValueError(
            f"spectra looks at leaves called {' or '.join([paths] if isinstance(paths, str) else paths)}; params has "
            f"{list(leaves)}. Give net= for the matrices of a parametrisation, paths= for other names, or any square "
            "matrix to matrix_spectrum."
        )
    return found


@typed
def matrix_spectrum(matrices: Numbers) -> Spectrum:
    """Eigenvalues, singular values and what follows from them, of any stack of square matrices.

    Arrays are taken to the host and to float64. Traced values (inside `jit`, `vmap`, `SweepResult.map` or `track=`)
    give traced ones in their own dtype, at least float32; their eigenvalues come from LAPACK on a CPU, and on other
    devices from the host (`jax.pure_callback`, `vmap_method="broadcast_all"`). They cannot be differentiated.

    How to read it: ρ decides whether powers of the matrix decay in the end, σ_max how much one application can stretch,
    and `henrici`, beside `frobenius`, how far the two are apart: 0 means that eigenvectors are orthogonal and nothing
    grows before it decays. A large `condition` means that some directions are lost in one step.

    Args:
      matrices: `[..., n, n]`; where one is not finite its numbers are NaN.

    Returns:
      The spectrum; the leading axes are those of `matrices`.

    Raises:
      ValueError: matrices that are not square.

    >>> found = matrix_spectrum(np.array([[0.0, -2.0], [2.0, 0.0]]))
    >>> float(found.rho.round(9)), float(found.henrici), float(found.condition.round(9))
    (2.0, 0.0, 1.0)
    """
    if isinstance(matrices, jax.core.Tracer):
        return _traced_spectrum(matrices)
    A = np.asarray(matrices, dtype=np.float64)
    _check_square(A.shape)
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


def _check_square(shape: tuple[int, ...]) -> None:
    if len(shape) < 2 or shape[-1] != shape[-2] or not shape[-1]:
        raise ValueError(
            f"eigenvalues need square matrices [..., n, n]; got shape {shape}. Take the square blocks of a "
            "recurrent matrix with several gates: `spectra` does."
        )


def _traced_spectrum(matrices: Array) -> Spectrum:
    """The same of a traced array, in its own precision."""
    _check_square(matrices.shape)
    dtype = wide(matrices.dtype)
    A, size = matrices.astype(dtype), matrices.shape[-1]
    finite = jnp.isfinite(A).all(axis=(-2, -1))
    A = jnp.where(finite[..., None, None], A, 0)
    missing = jnp.where(finite, jnp.ones((), dtype), jnp.nan)
    largest = jnp.max(jnp.abs(A), axis=(-2, -1))
    scale = jnp.where(largest > 0, largest, 1)  # squares neither under- nor overflow
    A = A / scale[..., None, None]
    eigenvalues = _eigenvalues(A)
    singular_values = jnp.linalg.svd(A, compute_uv=False)
    squares = jnp.square(singular_values).sum(axis=-1)
    departure = squares - jnp.square(jnp.abs(eigenvalues)).sum(axis=-1)
    rounding = 10 * size**0.5 * float(jnp.finfo(dtype).eps)  # some times what normal matrices show
    departure = jnp.where(departure > rounding * squares, departure, 0)
    smallest = singular_values[..., -1]
    condition = safe_divide(singular_values[..., 0], smallest)
    scale = scale * missing
    return Spectrum(
        rho=jnp.abs(eigenvalues).max(axis=-1) * scale,
        sigma_max=singular_values[..., 0] * scale,
        frobenius=jnp.sqrt(squares) * scale,
        eigenvalues=eigenvalues * scale[..., None].astype(eigenvalues.dtype),
        singular_values=singular_values * scale[..., None],
        henrici=jnp.sqrt(departure) * scale,
        condition=jnp.where(smallest > 0, condition, jnp.inf) * missing,
    )


def _eigenvalues(A: Array) -> Array:
    """Eigenvalues `[..., n]` of finite matrices, on every platform and under `vmap`."""
    return jax.lax.platform_dependent(A, cpu=jnp.linalg.eigvals, default=_eigenvalues_on_host)


def _eigenvalues_on_host(A: Array) -> Array:
    dtype = jnp.promote_types(A.dtype, jnp.complex64)
    result = jax.ShapeDtypeStruct(A.shape[:-1], dtype)

    def on_host(A):
        return np.linalg.eigvals(np.asarray(A, np.float64)).astype(dtype)

    return jax.pure_callback(on_host, result, A, vmap_method="broadcast_all")
