"""Norms, quotients and means that stay finite, and the blocks of a recurrent matrix."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_key


def wide(dtype: Any) -> Any:
    """The dtype that sums and norms of a dtype are in: at least float32, also under strict promotion.

    >>> [str(wide(dtype)) for dtype in (jnp.bfloat16, jnp.int32, jnp.float32, jnp.complex64)]
    ['float32', 'float32', 'float32', 'complex64']
    """
    enough = jnp.issubdtype(dtype, jnp.inexact) and jnp.dtype(dtype).itemsize >= 4
    return jnp.dtype(dtype if enough else jnp.float32)


def computing(params: Any, xs: Any) -> tuple[Any, Any]:
    """Parameters and real inputs in the dtype that is computed in: the widest of the parameters, whatever the inputs'.

    Data may be stored in half precision; states, outputs and sums over time are not. To compute in bfloat16 give
    parameters in bfloat16. Whole numbers, such as tokens, stay what they are.

    >>> params, xs = computing({"W": jnp.ones(1)}, jnp.ones(1, jnp.bfloat16))
    >>> str(xs.dtype)
    'float32'
    """
    real = [leaf.dtype for leaf in map(jnp.asarray, jax.tree.leaves(params))]
    real = [dtype for dtype in real if jnp.issubdtype(dtype, jnp.floating)]
    if not real:
        return params, xs
    dtype = functools.reduce(jnp.promote_types, real)

    def cast(leaf):
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, params), cast(xs)


def widen(values: Any) -> Any:
    """Real numbers in the dtype that sums of them are in; whole numbers, such as classes, as they are.

    >>> [str(widen(jnp.zeros(1, dtype)).dtype) for dtype in (jnp.bfloat16, jnp.int32)]
    ['float32', 'int32']
    """
    real = jnp.issubdtype(values.dtype, jnp.inexact)
    return values.astype(wide(values.dtype)) if real else values


def widen_labels(values: Any) -> Any:
    """Classes or tokens in at least 32 bits: a bound of Python's, such as 256, does not fit the dtype uint8.

    >>> str(widen_labels(jnp.zeros(1, jnp.uint8)).dtype)
    'int32'
    """
    return values if values.dtype.itemsize >= 4 else values.astype(jnp.int32)


def safe_divide(values: Array, by: Array) -> Array:
    """values / by where `by` is above 0, and the values themselves elsewhere; its gradient is finite at 0 / 0 too.

    >>> safe_divide(jnp.array([6.0, 0.0]), jnp.array([2.0, 0.0])).tolist()
    [3.0, 0.0]
    """
    return values / jnp.where(by > 0, by, 1)


def marked(missing: Array, values: Array) -> Array:
    """The values, with NaN where there is none.

    Outside of a trace NumPy writes it: `jax_debug_nans` looks for NaN that JAX computes, and does not stop at a mark.

    >>> with jax.debug_nans(True):
    ...     marks = marked(jnp.array([False, True]), jnp.array([1.0, 2.0]))
    >>> marks.tolist()
    [1.0, nan]
    """
    if isinstance(missing, jax.core.Tracer) or isinstance(values, jax.core.Tracer):
        return jnp.where(missing, jnp.nan, values)
    return jax.device_put(np.where(missing, np.nan, values).astype(values.dtype))


def masked_mean(values: Array, counted: Array, axis: Any, *, keepdims: bool = False) -> Array:
    """The mean over axes of the values that count; NaN if none does, and what does not count may be NaN.

    >>> masked_mean(jnp.array([[1.0, 3.0], [jnp.nan, 5.0]]), jnp.array([[True], [False]]), axis=0).tolist()
    [1.0, 3.0]
    """
    counted = jnp.broadcast_to(counted, values.shape)
    number = jnp.sum(counted, axis=axis, keepdims=keepdims).astype(values.dtype)
    total = jnp.sum(jnp.where(counted, values, 0), axis=axis, keepdims=keepdims)
    return marked(number == 0, total / jnp.maximum(number, 1))


def mean_and_error(values: Array, axis: int = -1) -> tuple[Array, Array]:
    """Mean and standard error along an axis, of what is finite; NaN for none, and the error for one.

    >>> [float(found) for found in mean_and_error(jnp.array([1.0, 3.0, jnp.inf]))]
    [2.0, 1.0]
    """
    finite = jnp.isfinite(values)
    count = jnp.sum(finite, axis=axis, keepdims=True).astype(values.dtype)
    values = jnp.where(finite, values, 0)
    mean = jnp.sum(values, axis=axis, keepdims=True) / jnp.maximum(count, 1)
    squares = jnp.sum(jnp.where(finite, jnp.square(values - mean), 0), axis=axis, keepdims=True)
    error = jnp.sqrt(squares / jnp.maximum(count - 1, 1) / jnp.maximum(count, 1))
    none, few, mean, error = (
        jnp.squeeze(one, axis) for one in (count == 0, count < 2, mean, error)
    )
    return marked(none, mean), marked(few, error)


def safe_norm(values: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """‖·‖₂ along an axis, or several, scaled by the largest element; infinite where an element is, at least float32.

    Its derivative is x / ‖x‖, and 0 at x = 0.

    >>> lengths = safe_norm(jnp.array([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0], [1.0, jnp.inf]]))
    >>> [f"{length:.3g}" for length in lengths.tolist()]
    ['5e-30', '5e+30', '0', 'inf']
    """
    values = values.astype(wide(values.dtype))
    scale = jax.lax.stop_gradient(scale_of(jnp.max(jnp.abs(values), axis=axis, keepdims=True)))
    squares = jnp.sum(jnp.square(values / scale), axis=axis)
    norm = jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares)))
    return norm * jnp.squeeze(scale, axis)


def unit(tree: Any) -> tuple[Any, Array]:
    """A tree divided by its largest |element|, and the logarithm of that one: −∞ for zeros.

    One that is not finite is left as it is, so that it is seen later; its logarithm is 0.

    >>> divided, log = unit({"a": jnp.array([2.0, -4.0]), "b": jnp.zeros(1)})
    >>> divided["a"].tolist(), round(float(log), 4)
    ([0.5, -1.0], 1.3863)
    """
    parts = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree) if leaf.size]
    largest = functools.reduce(jnp.maximum, [part.astype(wide(part.dtype)) for part in parts])
    scale = scale_of(largest)
    divided = jax.tree.map(lambda leaf: leaf / scale.astype(leaf.dtype), tree)
    return divided, jnp.where(largest == 0, -jnp.inf, jnp.log(scale))


def scale_of(largest: Array) -> Array:
    """What to divide numbers by whose largest |number| this is, so that squares stay in range; 1 for 0 and for ∞."""
    return jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)


def starting_frame(size: int, columns: int, dtype: Any, *, key: Array | None = None) -> Array:
    """`[size, columns]` orthonormal columns in general position: drawn from `key`, or always the same without one.

    General position matters: a frame along the axes would never find the growing direction of a diagonal map.
    """
    if key is None:
        drawn = jnp.asarray(np.random.default_rng(0).normal(size=(size, columns)), dtype)
    else:
        check_key(key)
        drawn = jax.random.normal(key, (size, columns), dtype)
    return jnp.linalg.qr(drawn)[0]


def pushed(
    step: Callable[[Array, Array], Array], state: Array, x: Any, frame: Array
) -> tuple[Array, Array]:
    """The next state `[B, n]`, and J F: the frame `[B, n, k]` moved by the step's Jacobian, row by row."""
    new, push = jax.linearize(lambda state: step(state, x), state)
    return new, jnp.moveaxis(jax.vmap(push)(jnp.moveaxis(frame, -1, 0)), 0, -1)


def each(function: Callable[..., Any], *stacked: Any) -> Any:
    """A function of every matrix of a stack, one after another: `jax.vmap` without a batch.

    For what calls LAPACK. On a CPU a batched kernel of jaxlib hands its matrices to the pool of threads that it runs on
    and waits; as many of them at once as there are threads, on two cores two, wait for ever.

    >>> each(jnp.linalg.inv, jnp.stack([jnp.eye(2), 2 * jnp.eye(2)]))[:, 0, 0].tolist()
    [1.0, 0.5]
    """
    if len(jax.tree.leaves(stacked)[0]) > 1:
        return jax.lax.map(lambda one: function(*one), stacked)
    found = function(*jax.tree.map(lambda leaf: leaf[0], stacked))
    return jax.tree.map(lambda leaf: leaf[None], found)


def square_blocks(W: Any) -> Any:
    """A recurrent matrix `[..., H, G·H]` as its square blocks `[..., G, H, H]`."""
    hidden_size = W.shape[-2]
    blocks = W.reshape(*W.shape[:-1], W.shape[-1] // hidden_size, hidden_size)
    return blocks.swapaxes(-2, -3)


def joined_blocks(blocks: Any) -> Any:
    """Square blocks `[..., G, H, H]` side by side, `[..., H, G·H]`.

    >>> joined_blocks(square_blocks(np.arange(8.0).reshape(2, 4))).tolist()
    [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
    """
    return blocks.swapaxes(-2, -3).reshape(*blocks.shape[:-3], blocks.shape[-2], -1)


def sigma_max(W: Array, *, num_iterations: int = 30) -> Array:
    """σ_max(W) by power iteration on W Wᵀ; a lower bound that is exact in the limit.

    Runs on every backend and inside training; its error falls like (σ₂/σ₁)^(2·num_iterations). Use
    `spectra` for the exact value of stored parameters.

    How to read it: below 1, for a tanh network, gradients must vanish; above 1 nothing follows. Two close largest
    singular values make it too small by a little: compare two `num_iterations` if that matters.

    Args:
      W: `[M, N]`.
      num_iterations: how many products with W Wᵀ.

    Returns:
      A scalar in the dtype of W.

    >>> bool(abs(sigma_max(jnp.diag(jnp.array([3.0, 1.0]))) - 3) < 1e-5)
    True
    """
    largest = jnp.max(jnp.abs(W))
    unit = jnp.where(largest > 0, largest, 1)
    W = W / unit  # squares neither under- nor overflow
    start = jnp.sin(
        1.0 + jnp.arange(W.shape[0], dtype=W.dtype)
    )  # fixed, and orthogonal to nothing likely

    def iterate(u, _):
        scale = jnp.max(jnp.abs(u))
        u = safe_divide(u, scale)
        u = u / jnp.maximum(jnp.linalg.norm(u), jnp.finfo(W.dtype).tiny)
        v = u @ W
        return W @ v, jnp.linalg.norm(v)

    _, values = jax.lax.scan(iterate, start, length=num_iterations)
    return values[-1] * unit


@jax.custom_jvp
def clip_singular_values(W: Array, limit: Array) -> Array:
    """W with every singular value above `limit` set to it: the nearest matrix whose σ_max is no more.

    From the eigenvalues σ² of the smaller of WᵀW and WWᵀ, which cost less than an SVD: what is above the limit is taken
    away, so a W below it comes back bit for bit. Its relative error is that of the dtype times (σ_max/limit)². The
    derivative is that of the matrix function (Daleckii & Krein), which exists where singular values repeat; that of
    eigenvectors does not.

    Args:
      W: `[M, N]`, real.
      limit: scalar above 0, in the dtype of W.

    >>> clip_singular_values(jnp.diag(jnp.array([3.0, 0.5])), jnp.asarray(2.0)).round(4).tolist()
    [[2.0, 0.0], [0.0, 0.5]]
    """
    if W.shape[0] < W.shape[1]:
        return clip_singular_values(W.T, limit).T
    V, s = _right_vectors(W)
    return W - W @ (V * _excess(s, limit)) @ V.T


@clip_singular_values.defjvp
def _clip_singular_values_jvp(primals, tangents):
    # P = W − W k(WᵀW), k = max(0, 1 − limit/σ). The derivative of k(S) is V (D ∘ Vᵀ dS V) Vᵀ, with D the divided
    # differences of k by σ², written without a cancellation.
    (W, limit), (dW, dlimit) = primals, tangents
    if W.shape[0] < W.shape[1]:
        found = _clip_singular_values_jvp((W.T, limit), (dW.T, dlimit))
        return found[0].T, found[1].T
    V, s = _right_vectors(W)
    high, low = jnp.maximum(s, s.T), jnp.minimum(s, s.T)
    both = safe_divide(limit, low * high * (high + low))
    one = safe_divide(high - limit, (high - low) * high * (high + low))
    D = jnp.where(low > limit, both, jnp.where(high > limit, one, 0))
    half = V.T @ (dW.T @ W) @ V
    edge = jnp.where(s > limit, safe_divide(dlimit, s), 0)
    changed = D * (half + half.T) - jnp.diag(jnp.ravel(edge))
    removed = (V * _excess(s, limit)) @ V.T
    return W - W @ removed, dW - dW @ removed - W @ (V @ changed @ V.T)


def _right_vectors(W: Array) -> tuple[Array, Array]:
    """The right singular vectors of a tall W, in columns, and the singular values `[1, N]`."""
    squares, V = jnp.linalg.eigh(W.T @ W)
    return V, jnp.sqrt(jnp.maximum(squares, 0))[None]


def _excess(s: Array, limit: Array) -> Array:
    """k = max(0, 1 − limit/σ): the share of σ that is above the limit."""
    return jnp.where(s > limit, 1 - safe_divide(limit, s), 0)


def lanczos(
    product: Callable[[Array], Array], start: Array, num_iterations: int, *, key: Array
) -> tuple[Array, Array, Array]:
    """Orthonormal rows Q `[m, P]` with Q H Qᵀ tridiagonal, for a symmetric H that is known by its products.

    Every new row is orthogonalised twice against all before it. If the rows span an invariant subspace, the next one
    is drawn at random outside it, and the number beside the diagonal is 0 there.

    Args:
      product: H v, of `[P]` vectors.
      start: `[P]`, the first row, of norm 1.
      num_iterations: m, at most P.
      key: for the rows that are drawn.

    Returns:
      Q; the diagonal `[m]`; and what stands beside it, `[m]`: the last number is the norm of what H leaves over.

    >>> scales = jnp.array([1.0, 5.0, -2.0])
    >>> _, diagonal, beside = lanczos(lambda v: scales * v, jnp.ones(3) / 3**0.5, 3, key=jax.random.key(0))
    >>> T = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    >>> jnp.linalg.eigvalsh(T).round(3).tolist()
    [-2.0, 1.0, 5.0]
    """
    size, dtype = start.size, start.dtype
    basis = jnp.zeros((num_iterations, size), dtype)

    def orthogonal_to(basis, vector):
        for _ in range(2):  # once leaves an error of the order of what it removed
            vector = vector - (basis @ vector) @ basis
        return vector

    def iterate(carry, index):
        basis, vector = carry
        basis = basis.at[index].set(vector)
        image = product(vector)
        along = vector @ image
        rest = orthogonal_to(basis, image)
        beside = safe_norm(rest)
        # nothing is left where an invariant subspace is complete: go on from a vector outside it
        spent = beside <= 10 * size**0.5 * jnp.finfo(dtype).eps * safe_norm(image)
        fresh = jax.random.normal(jax.random.fold_in(key, index), (size,), dtype)
        rest = jnp.where(spent, orthogonal_to(basis, fresh), rest)
        length = safe_norm(rest)
        following = safe_divide(rest, length)
        return (basis, following), (along, jnp.where(spent, 0, beside))

    (basis, _), (diagonal, off_diagonal) = jax.lax.scan(
        iterate, (basis, start), jnp.arange(num_iterations)
    )
    return basis, diagonal, off_diagonal
