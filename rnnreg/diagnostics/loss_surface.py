"""The loss, and the norm of its gradient, on a line or a plane through the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from rnnreg.data import Batch
from rnnreg.losses import Loss
from rnnreg.network import Network
from rnnreg.penalties import leaf_paths, with_leaves

Params = Any
LossOf = Callable[[Params], Array]


class LossSurface(NamedTuple):
    """The loss on a grid of parameters, centre + α·d₁ (+ β·d₂).

    Attributes:
      alphas: `[A]`, multiples of the first direction.
      betas: `[B]`, multiples of the second; None on a line.
      loss: `[A]` or `[A, B]`.
      gradient_norm: the same shape, ‖∂L/∂params‖₂ over all parameters, not only along the slice.
      slopes: `[A, 1]` or `[A, B, 2]`, the derivative of the loss along each direction.
    """

    alphas: Array
    betas: Array | None
    loss: Array
    gradient_norm: Array
    slopes: Array


def loss_surface(
    loss_of: LossOf,
    params: Params,
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
      alphas: `[A]` multiples of the first.
      betas: `[B]` multiples of the second; None for a line.
      chunk: how many points are computed together (memory grows with it).

    Raises:
      ValueError: a direction that is not like params, or a number of directions that does not fit the grid.

    Source: Goodfellow, Vinyals & Saxe 2015 (lines); Li, Xu, Taylor, Studer & Goldstein 2018, "Visualizing the
      loss landscape of neural nets" (planes).

    >>> params = {"W_hh": jnp.array([[3.0]]), "b_h": jnp.zeros(1)}
    >>> def square(params):
    ...     return jnp.sum(params["W_hh"] ** 2) + jnp.sum(params["b_h"] ** 2)
    >>> line = coordinate_direction(params, "W_hh")
    >>> surface = loss_surface(square, params, line, alphas=jnp.array([-3.0, 0.0, 1.0]))
    >>> surface.loss.tolist(), surface.gradient_norm.tolist()
    ([0.0, 9.0, 16.0], [0.0, 6.0, 8.0])
    """
    pair = [directions] if betas is None else list(directions)
    if betas is not None and (isinstance(directions, dict) or len(pair) != 2):
        raise ValueError(
            "a plane (betas given) needs a pair of directions; give (d1, d2), each a tree like params."
        )
    for direction in pair:
        _check_like(direction, params)
    centre, unravel = ravel_pytree(params)
    axes = jnp.stack([ravel_pytree(direction)[0].astype(centre.dtype) for direction in pair])
    grids = [
        jnp.asarray(grid, centre.dtype) for grid in ([alphas] if betas is None else [alphas, betas])
    ]
    points = jnp.stack([grid.ravel() for grid in jnp.meshgrid(*grids, indexing="ij")], axis=-1)

    def at(point):
        value, gradient = jax.value_and_grad(loss_of)(unravel(centre + point @ axes))
        flat = ravel_pytree(gradient)[0]
        largest = jnp.max(jnp.abs(flat))
        scale = jnp.where(largest > 0, largest, 1)  # squares of a cliff would overflow
        return value, scale * jnp.linalg.norm(flat / scale), axes @ flat

    loss, norm, slopes = jax.lax.map(at, points, batch_size=min(chunk, len(points)))
    shape = tuple(len(grid) for grid in grids)
    return LossSurface(
        grids[0],
        None if betas is None else grids[1],
        loss.reshape(shape),
        norm.reshape(shape),
        slopes.reshape(*shape, len(pair)),
    )


def data_loss_of(net: Network, loss: Loss, batch: Batch) -> LossOf:
    """`params -> L` of a network on a batch, without dropout and without penalties.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(2)], 1)
    >>> batch = rr.Batch(jnp.zeros((1, 3, 1)), jnp.ones((1, 3, 1)))
    >>> float(data_loss_of(net, rr.losses.squared_error("sum"), batch)(net.init(jax.random.key(0), 1)))
    3.0
    """

    def data_loss(params):
        out = net.apply(params, batch.xs, mask=batch.mask)
        return loss(out.outputs, batch.ys, batch.mask, batch.weights)

    return data_loss


def coordinate_direction(params: Params, path: str, *, index: tuple[int, ...] = ()) -> Params:
    """The unit direction along one parameter, such as `"layer_0/W_hh"` at index `(0, 1)`.

    Args:
      params: the tree.
      path: of the leaf.
      index: of the entry; not needed for a leaf of one entry.

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
        not -size <= at < size for at, size in zip(index, shape, strict=True)
    ):
        raise ValueError(
            f"{path!r} has shape {shape}, so index must name one entry of it; got {index}."
        )
    zeros = jax.tree.map(jnp.zeros_like, params)
    return with_leaves(zeros, {path: leaf_paths(zeros)[path].at[index].set(1)})


def random_direction(
    params: Params, *, key: Array, normalise: str = "filter", include_biases: bool = False
) -> Params:
    """A Gaussian direction, scaled to the weights filter by filter, to the whole matrix, or not at all.

    `"filter"`: the incoming weights of each unit (a column of a matrix, in the convention h W) get the norm of that
    column in `params`; `"layer"`: each matrix gets the norm of that matrix; `"none"`: N(0, 1) as drawn. Without
    normalisation a network whose weights are larger looks flatter, though it computes the same.

    Args:
      params: the weights that scale it.
      key: to draw it.
      normalise: "filter", "layer" or "none".
      include_biases: False sets biases (vectors) to zero, as the source does; True scales each as one filter.

    Raises:
      ValueError: an unknown normalisation.

    Source: Li, Xu, Taylor, Studer & Goldstein 2018.

    >>> params = {"W_hh": jnp.diag(jnp.array([1.0, 2.0])), "b_h": jnp.ones(2)}
    >>> direction = random_direction(params, key=jax.random.key(0))
    >>> jnp.linalg.norm(direction["W_hh"], axis=0).round(3).tolist(), direction["b_h"].tolist()
    ([1.0, 2.0], [0.0, 0.0])
    """
    if normalise not in ("filter", "layer", "none"):
        raise ValueError(f"normalise must be 'filter', 'layer' or 'none'; got {normalise!r}.")
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))

    def draw(key, leaf):
        if leaf.ndim < 2 and not include_biases:
            return jnp.zeros_like(leaf)
        noise = jax.random.normal(key, leaf.shape, leaf.dtype)
        if normalise == "none":
            return noise
        axes = 0 if leaf.ndim > 1 and normalise == "filter" else None
        drawn = jnp.sqrt(jnp.sum(jnp.square(noise), axis=axes, keepdims=True))
        wanted = jnp.sqrt(jnp.sum(jnp.square(leaf), axis=axes, keepdims=True))
        return noise * (wanted / jnp.where(drawn > 0, drawn, 1))

    return jax.tree.unflatten(structure, list(map(draw, keys, leaves)))


def _check_like(direction: Params, params: Params) -> None:
    """Raises where a direction is not a tree of the shapes of params."""
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (direction, params)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"a direction must be a tree like params, {shapes[1]}; got {shapes[0]}. One of several Hessian "
            "directions is jax.tree.map(lambda leaf: leaf[0], found.directions)."
        )
