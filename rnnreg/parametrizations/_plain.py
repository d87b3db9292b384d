"""Matrices of low rank, antisymmetric ones, and columns with a length and a direction."""

from __future__ import annotations

import jax.numpy as jnp

from rnnreg._checks import check_count, check_number
from rnnreg._signatures import Number, typed
from rnnreg.cells import Cell, made_by
from rnnreg.parametrizations._base import Parametrization, with_map


@typed
def low_rank(cell: Cell, rank: int) -> Cell:
    """W_hh = U Vᵀ with U, V `[H, r]` for each gate block.

    In the parameters `W_hh` is `{"left": U, "right": V [G, H, r]}`. Penalties see W_hh. A decay inside the optimiser
    acts on the factors, where ½(‖U‖² + ‖V‖²) is at least the nuclear norm of W_hh, and equal to it at the minimum.

    Args:
      cell: any cell that states its recurrent matrices.
      rank: r, at most H.

    Returns:
      The cell. It starts at the matrix of rank r nearest to the W_hh that the cell draws.

    Raises:
      ValueError: a rank outside 1 … H, or a cell without recurrent matrices of square blocks.

    Source: Eckart & Young 1936 (the start); Srebro, Rennie & Jaakkola 2004 (the nuclear norm).

    >>> import jax, rnnreg as rr
    >>> cell = low_rank(rr.cells.elman(4), 1)
    >>> W = cell.effective(cell.init(jax.random.key(0), 1))["W_hh"]
    >>> int(jnp.linalg.matrix_rank(W))
    1
    """
    check_count(rank, "rank", most=cell.hidden_size, hint="It is at most the hidden size.")

    def start(key, W):
        del key
        U, s, Vh = jnp.linalg.svd(W)
        root = jnp.sqrt(s[None, :rank])
        return {"left": U[:, :rank] * root, "right": Vh[:rank].T * root}

    def form(leaves):
        return leaves["left"] @ leaves["right"].T

    found = with_map(cell, Parametrization("low_rank", start, form))
    return made_by("low_rank", found, cell=cell, rank=rank)


@typed
def antisymmetric(cell: Cell, *, gamma: Number = 0.01) -> Cell:
    """W_hh = M − Mᵀ − γI from the lower triangle of the trained M, with eigenvalues −γ ± iω.

    Stability needs a cell that adds: in h ← h + ε tanh(h W_hh + …) a step multiplies by |1 + ε(−γ ± iω)| at h = 0,
    which is at most 1 only for γ ≥ ε(γ² + ω²)/2.

    In the parameters `W_hh` is `{"skew": M [G, H, H]}`. Penalties see W_hh.

    Args:
      cell: any cell that states its recurrent matrices.
      gamma: γ ≥ 0, the diffusion; may be traced, so that it can be an axis of a sweep.

    Returns:
      The cell. It starts at the antisymmetric part of the W_hh that the cell draws, minus γI.

    Raises:
      ValueError: a negative γ, or a cell without recurrent matrices of square blocks.

    Source: Chang, Chen, Haber & Chi 2019, "AntisymmetricRNN", equation 8 (γ = 0.01).

    >>> import jax, rnnreg as rr
    >>> cell = antisymmetric(rr.cells.elman(4), gamma=0.1)
    >>> W = cell.effective(cell.init(jax.random.key(0), 1))["W_hh"]
    >>> bool(jnp.allclose(W + W.T, -0.2 * jnp.eye(4)))
    True
    """
    check_number(gamma, "gamma", least=0)

    def start(key, W):
        del key
        return {"skew": jnp.tril((W - W.T) / 2, -1)}

    def form(leaves):
        lower = jnp.tril(leaves["skew"], -1)
        one = jnp.eye(len(lower), dtype=lower.dtype)
        return lower - lower.T - jnp.asarray(gamma, lower.dtype) * one

    found = with_map(cell, Parametrization("antisymmetric", start, form))
    return made_by("antisymmetric", found, cell=cell, gamma=gamma)


@typed
def weight_norm(cell: Cell) -> Cell:
    """w_j = g_j v_j / ‖v_j‖ for the incoming weights of each unit and gate, the columns of W_hh.

    In the parameters `W_hh` is `{"direction": v [G, H, H], "length": g [G, H]}`. Penalties see W_hh, so that ‖W_hh‖² is
    Σ g². A decay inside the optimiser acts on v too: that changes no weight, but raises the learning rate of
    directions.

    Args:
      cell: any cell that states its recurrent matrices.

    Returns:
      The cell. It starts at the W_hh that the cell draws.

    Raises:
      ValueError: a cell without recurrent matrices of square blocks.

    Source: Salimans & Kingma 2016, "Weight normalization"; van Laarhoven 2017 (the decay).

    >>> import jax, rnnreg as rr
    >>> plain, key = rr.cells.elman(4), jax.random.key(0)
    >>> params = weight_norm(plain).init(key, 1)
    >>> jnp.round(params["W_hh"]["length"], 4).tolist()  # of an orthogonal matrix
    [[1.0, 1.0, 1.0, 1.0]]
    """

    def start(key, W):
        del key
        length = jnp.sqrt(jnp.sum(jnp.square(W), axis=0))
        # a column of zeros has no direction of its own
        return {
            "direction": jnp.where(length[None] > 0, W, jnp.eye(len(W), dtype=W.dtype)),
            "length": length,
        }

    def form(leaves):
        v = leaves["direction"]
        square = jnp.sum(jnp.square(v), axis=0)
        norm = jnp.sqrt(jnp.where(square > 0, square, 1))  # the gradient is finite at 0
        return v * (leaves["length"] / norm)[None]

    return made_by(
        "weight_norm", with_map(cell, Parametrization("weight_norm", start, form)), cell=cell
    )
