"""What a parametrisation is, and the cell whose recurrent matrices have one."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import described
from rnnreg._linalg import each, joined_blocks, square_blocks, wide
from rnnreg._signatures import typed
from rnnreg._tree import leaf_paths
from rnnreg.cells import Cell, made_by, recurrent_leaves

Leaves = dict[str, Array]
_OWN_KEYS = 1 << 20  # apart from the keys that a cell splits off


class StartFunction(Protocol):
    """Where the trained numbers of a matrix start."""

    def __call__(self, key: Array, W: Array, /) -> Leaves:
        """The trained numbers.

        Args:
          key: a random key of their own.
          W: `[H, H]`, the gate block that the cell itself would start from.

        Returns:
          Arrays by name.
        """
        ...


class FormFunction(Protocol):
    """The matrix that trained numbers stand for."""

    def __call__(self, leaves: Leaves, /) -> Array:
        """The matrix.

        Args:
          leaves: the trained numbers by name.

        Returns:
          A gate block `[H, H]`.
        """
        ...


class Parametrization(NamedTuple):
    """How a square matrix follows from what is trained; every gate block has one of its own.

    Attributes:
      name: of the parametrisation, for messages.
      start: `start(key, W [H, H]) -> leaves`, so that `form(leaves)` is the point nearest to W, or one that the source
        draws; see `StartFunction`.
      form: `form(leaves) -> W [H, H]`; see `FormFunction`.
      isometric: whether all singular values are 1, whatever the leaves are.
    """

    name: str
    start: StartFunction
    form: FormFunction
    isometric: bool = False


@typed
def parametrized(cell: Cell, parametrization: Parametrization) -> Cell:
    """The cell with each square block of its recurrent matrices a function of other numbers, which are trained.

    In the parameters, a dict of those numbers stands in the place of the matrix: `params["W_hh"]["skew"]`, for
    instance. The matrix is formed once per sequence, before any product: every back end runs the cell as before, and
    the gradient passes through the map. Penalties, recorded norms and `rr.networks.effective(net, params)` show the
    matrix that is formed, under its own path "layer_0/W_hh"; an optimiser, and a decay that is part of it, moves the
    trained numbers.

    Args:
      cell: any cell that states its recurrent matrices (`Cell.recurrent`).
      parametrization: the map, and where it starts.

    Returns:
      The cell; its `init` draws the matrices as before and starts from them.

    Raises:
      ValueError: a cell that has a parametrisation already, or that states no recurrent matrix of square blocks.

    >>> import rnnreg as rr
    >>> symmetric = Parametrization(
    ...     "symmetric",
    ...     start=lambda key, W: {"half": W / 2},
    ...     form=lambda leaves: leaves["half"] + leaves["half"].T,
    ... )
    >>> cell = parametrized(rr.cells.gru(3), symmetric)
    >>> params = cell.init(jax.random.key(0), 2)
    >>> params["W_hh"]["half"].shape, cell.effective(params)["W_hh"].shape
    ((3, 3, 3), (3, 9))
    """
    return made_by(
        "parametrized", with_map(cell, parametrization), cell=cell, parametrization=parametrization
    )


def with_map(cell: Cell, parametrization: Parametrization) -> Cell:
    """The cell whose recurrent matrices have a parametrisation, without a note of how it was made."""
    paths = _paths(cell, parametrization.name)

    def init(key, input_size: int, dtype: Any = jnp.float32):
        params = cell.init(key, input_size, dtype)  # what the cell draws without a parametrisation
        for place, path in enumerate(paths):
            blocks = square_blocks(_upright(_at(params, path))).astype(wide(dtype))
            keys = jax.random.split(jax.random.fold_in(key, _OWN_KEYS + place), len(blocks))
            leaves = each(parametrization.start, keys, blocks)
            params = _put(params, path, {name: leaf.astype(dtype) for name, leaf in leaves.items()})
        return params

    block = jax.ShapeDtypeStruct((cell.hidden_size,) * 2, jnp.float32)
    shapes = jax.eval_shape(parametrization.start, jax.random.key(0), block)
    first = next(iter(shapes.values())).ndim

    def effective(params):
        for path, lies in paths.items():
            leaves = _at(params, path)
            (dtype,) = {leaf.dtype for leaf in leaves.values()}
            leaves = {name: leaf.astype(wide(dtype)) for name, leaf in leaves.items()}
            form = parametrization.form
            for _ in range(
                next(iter(leaves.values())).ndim - first
            ):  # over gates, and whatever is stacked
                form = functools.partial(each, form)
            W = joined_blocks(form(leaves)).astype(dtype)
            params = _put(params, path, W.swapaxes(-1, -2) if lies else W)
        return params

    return cell._replace(
        init=init,
        effective=effective,
        isometric=tuple(paths) if parametrization.isometric else (),
    )


def _paths(cell: Cell, name: str) -> dict[str, bool]:
    """The recurrent matrices of a cell by path, and whether one is `[G·H, H]` rather than `[H, G·H]`."""
    if not isinstance(cell, Cell):
        raise ValueError(
            f"a parametrisation is for a cell, such as rr.cells.gru(8); got {described(cell)}."
        )
    if cell.effective is not None:
        raise ValueError(
            f"the cell {cell.name!r} has a parametrisation already, so it takes none ({name})."
        )
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), 1, jnp.float32))
    leaves = leaf_paths(shapes)
    paths = {path: leaves[path].shape for path in recurrent_leaves(cell, shapes)}
    H = cell.hidden_size
    if not paths or not all(min(shape) == H and not max(shape) % H for shape in paths.values()):
        raise ValueError(
            f"a parametrisation needs recurrent matrices of square blocks, [H, G·H] with H = {H}; the cell "
            f"{cell.name!r} states {paths or 'none'} (Cell.recurrent = {cell.recurrent})."
        )
    return {path: shape[0] > shape[1] for path, shape in paths.items()}


def _upright(W: Array) -> Array:
    """A recurrent matrix as `[H, G·H]`."""
    return W if W.shape[0] <= W.shape[1] else W.T


def _at(tree: Any, path: str) -> Any:
    for name in path.split("/"):
        tree = tree[name]
    return tree


def _put(tree: Any, path: str, value: Any) -> Any:
    """The tree of dicts with another value at a path."""
    name, _, rest = path.partition("/")
    return {**tree, name: _put(tree[name], rest, value) if rest else value}
