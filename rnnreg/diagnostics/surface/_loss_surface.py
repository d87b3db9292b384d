"""The loss, and the norm of its gradient, on a line or a plane through the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from rnnreg._checks import (
    check_choice,
    check_count,
    check_function,
    check_key,
    described,
    is_count,
)
from rnnreg._linalg import safe_divide, safe_norm
from rnnreg._signatures import typed
from rnnreg._tree import leaf_paths, with_leaves
from rnnreg.data import Batch, check_batch
from rnnreg.losses import Loss
from rnnreg.metrics import as_function
from rnnreg.networks import Network

Params = Any
LossOf = Callable[[Params], Array]


class LossSurface(NamedTuple):
    """The loss on a grid of parameters, centre + α·d₁ (+ β·d₂).

    Attributes:
      alphas: `[A]`, multiples of the first direction.
      betas: `[B]`, multiples of the second; None on a line.
      loss: `[A]` or `[A, B]`.
      gradient_norm: the same shape, ‖∂L/∂params‖₂ over all parameters, not only along the slice; infinite where an
        entry is.
      slopes: `[A, 1]` or `[A, B, 2]`, the derivative of the loss along each direction.
    """

    alphas: Array
    betas: Array | None
    loss: Array
    gradient_norm: Array
    slopes: Array


@typed
def loss_surface(
    loss_of: LossOf,
    params: Any,
    directions: Any,
    *,
    alphas: Array,
    betas: Array | None = None,
    chunk: int = 64,
) -> LossSurface:
    """L(params + α d₁) on a line, or L(params + α d₁ + β d₂) on a plane, with the gradient's norm at each point.

    How to read it: a cliff is a line along which the loss steps and ‖∂L/∂params‖ rises by orders of magnitude;
    there a plain gradient step is thrown far, and a clipped one is not (Pascanu, Mikolov & Bengio 2013, Fig. 6).
    A slice shows two of many dimensions: a minimum on it need not be one of the loss, and only filter-normalised
    directions make widths of two networks comparable. For a recurrent network take fine grids: the cliffs of
    long sequences are thin.

    Args:
      loss_of: `loss_of(params) -> scalar`; `data_loss_of` makes one of a network, a loss and a batch.
      params: the centre.
      directions: one tree like params for a line, a pair of them for a plane; from `coordinate_direction`,
        `random_direction` or `hessian_directions`, as they are (no length is changed here).
      alphas: `[A]` multiples of the first, A at least 1.
      betas: `[B]` multiples of the second; None for a line.
      chunk: how many points are computed together (memory grows with it).

    Returns:
      The loss, the norm of its gradient and its slopes, at each point of the grid.

    Raises:
      ValueError: a direction that is not like params, a number of directions that does not fit the grid, alphas or
        betas that are not `[A]`, parameters that are not real, or a chunk that is not a whole number of at least 1.

    Source: Goodfellow, Vinyals & Saxe 2015 (lines); Li, Xu, Taylor, Studer & Goldstein 2018, "Visualizing the
      loss landscape of neural nets" (planes).

    >>> params = {"W_hh": jnp.array([[3.0]]), "b_h": jnp.zeros(1)}
    >>> def square(params):
    ...     return jnp.sum(params["W_hh"] ** 2) + jnp.sum(params["b_h"] ** 2)
    >>> line = coordinate_direction(params, "W_hh")
    >>> surface = loss_surface(square, params, line, alphas=jnp.array([-3.0, 0.0, 1.0]))
    >>> surface.loss.tolist(), surface.gradient_norm.tolist()
    ([0.0, 9.0, 16.0], [0.0, 6.0, 8.0])

    A plane of two weights of a network, and one of the two directions in which its loss curves most:

    >>> import rnnreg as rr
    >>> key, grid = jax.random.key(0), jnp.linspace(-1, 1, 5)
    >>> net = rr.network([rr.cells.elman(2)], 1, readout="last")
    >>> params, batch = net.init(key, 1), rr.Batch(jnp.ones((1, 4, 1)), jnp.ones((1, 1)))
    >>> loss_of = data_loss_of(net, rr.losses.squared_error("sum"), batch)
    >>> weights = [coordinate_direction(params, "layer_0/W_hh", index=at) for at in ((0, 0), (0, 1))]
    >>> surface = loss_surface(loss_of, params, weights, alphas=grid, betas=grid)
    >>> surface.loss.shape, surface.slopes.shape
    ((5, 5), (5, 5, 2))
    >>> found = rr.diagnostics.hessian_directions(loss_of, params, key=key)
    >>> sharpest = [jax.tree.map(lambda leaf: leaf[place], found.directions) for place in (0, 1)]
    >>> near = grid / 100
    >>> surface = loss_surface(loss_of, params, sharpest, alphas=near, betas=near)
    >>> bend = (surface.slopes[3, 2, 0] - surface.slopes[1, 2, 0]) / (near[3] - near[1])
    >>> bool(abs(bend / found.eigenvalues[0] - 1) < 0.01)  # the eigenvalue is the curvature
    True
    """
    check_count(chunk, "chunk")
    pair = [directions] if betas is None else list(directions)
    if betas is not None and (isinstance(directions, dict) or len(pair) != 2):
        raise ValueError(
            "a plane (betas given) needs a pair of directions; give (d1, d2), each a tree like params."
        )
    for direction in pair:
        _check_like(direction, params)
    centre, unravel = flat_params(params)
    check_loss_of(loss_of, params)
    axes = jnp.stack([ravel_pytree(direction)[0].astype(centre.dtype) for direction in pair])
    given = {"alphas": alphas} if betas is None else {"alphas": alphas, "betas": betas}
    grids = [_grid(name, values, centre.dtype) for name, values in given.items()]
    points = jnp.stack([grid.ravel() for grid in jnp.meshgrid(*grids, indexing="ij")], axis=-1)

    def at(point):
        value, gradient = jax.value_and_grad(loss_of)(unravel(centre + point @ axes))
        flat = ravel_pytree(gradient)[0]
        along = jnp.where(axes == 0, 0, axes * flat).sum(axis=1)  # 0 · ∞ is no slope
        return value, safe_norm(flat), along

    loss, norm, slopes = jax.lax.map(at, points, batch_size=min(chunk, len(points)))
    shape = tuple(len(grid) for grid in grids)
    return LossSurface(
        grids[0],
        None if betas is None else grids[1],
        loss.reshape(shape),
        norm.reshape(shape),
        slopes.reshape(*shape, len(pair)),
    )


@typed
def data_loss_of(net: Network, loss: Loss, batch: Batch) -> LossOf:
    """`params -> L` of a network on a batch, without dropout and without penalties.

    Args:
      net: the network.
      loss: the data loss.
      batch: B examples; its mask and its weights count.

    Returns:
      `loss_of(params) -> scalar`, in the unit of the loss.

    Raises:
      ValueError: a batch whose arrays do not fit each other.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(2)], 1)
    >>> batch = rr.Batch(jnp.zeros((1, 3, 1)), jnp.ones((1, 3, 1)))
    >>> float(data_loss_of(net, rr.losses.squared_error("sum"), batch)(net.init(jax.random.key(0), 1)))
    3.0
    """
    if not isinstance(net, Network):
        raise ValueError(f"data_loss_of(net, loss, batch) takes a network; got {described(net)}.")
    loss = as_function(loss, "the loss of data_loss_of(net, loss, batch)", loss=True)
    check_batch(batch, name="batch")

    def data_loss(params):
        out = net.apply(params, batch.xs, mask=batch.mask)
        return loss(out.outputs, batch.ys, batch.mask, batch.weights)

    return data_loss


@typed
def coordinate_direction(params: Any, path: str, *, index: tuple[int, ...] = ()) -> Params:
    """The unit direction along one parameter, such as `"layer_0/W_hh"` at index `(0, 1)`.

    Args:
      params: the tree.
      path: of the leaf.
      index: of the entry; not needed for a leaf of one entry.

    Returns:
      A tree like params: 1 at that entry, 0 elsewhere.

    Raises:
      ValueError: an unknown path, or an index that does not name one entry of the leaf.

    >>> coordinate_direction({"b_h": jnp.zeros(3)}, "b_h", index=(1,))["b_h"].tolist()
    [0.0, 1.0, 0.0]
    """
    leaves = leaf_paths(params)
    if path not in leaves:
        raise ValueError(f"path {path!r} names no leaf; the leaves are {sorted(leaves)}.")
    shape = jnp.shape(leaves[path])
    if not index and np.prod(shape, dtype=int) == 1:
        index = (0,) * len(shape)
    if len(index) != len(shape) or any(
        not is_count(at, least=-size) or at >= size for at, size in zip(index, shape, strict=True)
    ):
        raise ValueError(
            f"{path!r} has shape {shape}, so index must name one entry of it; got {index}."
        )
    zeros = jax.tree.map(jnp.zeros_like, params)
    return with_leaves(zeros, {path: leaf_paths(zeros)[path].at[tuple(index)].set(1)})


@typed
def random_direction(
    params: Any, *, key: Array, scale: str = "filter", include_biases: bool = False
) -> Params:
    """A Gaussian direction, scaled to the weights filter by filter, to the whole matrix, or not at all.

    `"filter"`: the incoming weights of each unit (a column of a matrix, in the convention h W) get the norm of that
    column in `params`; `"layer"`: each matrix gets the norm of that matrix; `"none"`: N(0, 1) as drawn. Without
    normalisation a network whose weights are larger looks flatter, though it computes the same.

    Args:
      params: the weights that scale it.
      key: to draw it.
      scale: "filter", "layer" or "none".
      include_biases: False sets biases (vectors) to zero, as the source does; True scales each as one filter.

    Returns:
      A tree like params.

    Raises:
      ValueError: an unknown normalisation.

    Source: Li, Xu, Taylor, Studer & Goldstein 2018.

    >>> params = {"W_hh": jnp.diag(jnp.array([1.0, 2.0])), "b_h": jnp.ones(2)}
    >>> direction = random_direction(params, key=jax.random.key(0))
    >>> jnp.linalg.norm(direction["W_hh"], axis=0).round(3).tolist(), direction["b_h"].tolist()
    ([1.0, 2.0], [0.0, 0.0])
    """
    check_key(key)
    check_choice(scale, "scale", ("filter", "layer", "none"))
    check_real(params)
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, params))
    keys = jax.random.split(key, len(leaves))

    def draw(key, leaf):
        if leaf.ndim < 2 and not include_biases:
            return jnp.zeros_like(leaf)
        noise = jax.random.normal(key, leaf.shape, leaf.dtype)
        if scale == "none":
            return noise
        axes = 0 if leaf.ndim > 1 and scale == "filter" else tuple(range(leaf.ndim))
        drawn, wanted = safe_norm(noise, axes), safe_norm(leaf, axes)
        return noise * safe_divide(wanted, drawn).astype(leaf.dtype)

    return jax.tree.unflatten(structure, list(map(draw, keys, leaves)))


def check_loss_of(loss_of: Any, params: Params) -> None:
    """Raises unless `loss_of(params)` is one real number."""
    check_function(loss_of, "loss_of", "loss_of(params) -> scalar")
    found = jax.eval_shape(loss_of, params)
    if getattr(found, "shape", None) != () or not jnp.issubdtype(found.dtype, jnp.floating):
        shapes = jax.tree.map(lambda leaf: f"{leaf.dtype} of shape {leaf.shape}", found)
        raise ValueError(f"loss_of(params) must return one real number; got {shapes}.")


def check_real(params: Params) -> None:
    """Raises unless all leaves are real numbers, and there is one."""
    dtypes = {path: jnp.result_type(leaf) for path, leaf in leaf_paths(params).items()}
    wrong = {
        path: str(one) for path, one in dtypes.items() if not jnp.issubdtype(one, jnp.floating)
    }
    if wrong or not dtypes:
        raise ValueError(
            f"params must be a tree of real numbers, which a loss can be differentiated by; got {wrong or 'no leaves'}."
        )


def flat_params(params: Params) -> tuple[Array, Callable[[Array], Params]]:
    """Parameters as one vector, and the way back; raises where a leaf is not real."""
    check_real(params)
    return ravel_pytree(params)


def _grid(name: str, values: Any, dtype: Any) -> Array:
    """Multiples of a direction as an array; raises where they are not a list of numbers."""
    values = jnp.asarray(values, dtype)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"{name} must be one list of numbers, at least one; got shape {values.shape}."
        )
    return values


def _check_like(direction: Params, params: Params) -> None:
    """Raises where a direction is not a tree of the shapes of params."""
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (direction, params)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"a direction must be a tree like params, {shapes[1]}; got {shapes[0]}. One of several Hessian "
            "directions is jax.tree.map(lambda leaf: leaf[0], found.directions)."
        )
