"""Constraints on single entries: their sign, and which of them exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import described
from rnnreg._signatures import Numbers, typed
from rnnreg.constraints._base import Paths, Signed, constraint, project

if TYPE_CHECKING:
    import optax


@typed
def non_negative(
    paths: Paths = "W_hh", *, include_biases: bool = False
) -> optax.GradientTransformation:
    """w ← max(w, 0) of each covered entry.

    Args:
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      include_biases: cover leaves that are no matrices too.

    Returns:
      An optax transformation, for the end of a chain; see `project`.

    Raises:
      ValueError: at `init`, a pattern that matches no leaf.

    >>> import optax
    >>> positive, params = non_negative("W_hy"), {"W_hy": jnp.array([[3.0, -2.0]])}
    >>> updates, _ = positive.update(jax.tree.map(jnp.zeros_like, params), positive.init(params), params)
    >>> optax.apply_updates(params, updates)["W_hy"].tolist()
    [[3.0, 0.0]]
    """
    import optax

    return project(
        optax.projections.projection_non_negative, paths=paths, include_biases=include_biases
    )


@typed
def dale(signs: Numbers, *, paths: Paths = "W_hh") -> optax.GradientTransformation:
    """Dale's law: all that unit i sends, row i of `h @ W`, has the sign s_i; entries of the other sign become 0.

    A unit of sign +1 is excitatory, of −1 inhibitory, of 0 free. In the gates of a GRU or LSTM the rule holds for every
    gate. Start with entries of the right signs, such as s_i |w_ij|: half of a random start is cut to 0 by the first
    update. Units whose output may be negative (tanh) have no sign in this sense; use a rectifier. A run warns of them.

    Args:
      signs: `[M]` of +1, −1 and 0, one for each row of the matrix.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").

    Returns:
      An optax transformation, for the end of a chain; see `project`.

    Raises:
      ValueError: other signs; at `init`, a pattern that matches no leaf, no matrix, or one with another number of rows.

    Source: Song, Yang & Wang 2016.

    >>> import optax
    >>> law, params = dale(jnp.array([1, -1])), {"W_hh": jnp.array([[0.5, -0.5], [0.5, -0.5]])}
    >>> updates, _ = law.update(jax.tree.map(jnp.zeros_like, params), law.init(params), params)
    >>> optax.apply_updates(params, updates)["W_hh"].tolist()
    [[0.5, 0.0], [0.0, -0.5]]
    """
    signs = _entries(signs, "signs", (-1, 0, 1), axes=1)

    def start(path, leaf):
        if leaf.shape[0] != len(signs):
            raise ValueError(
                f"signs must hold one number for each row of {path}, whose shape is {leaf.shape}; got {len(signs)}."
            )
        return Signed()

    def onto(path, W, _):
        column = signs.astype(W.dtype)[:, None]
        return jnp.where(column * W >= 0, W, 0)

    return constraint(onto, paths, matrices="dale", start=start)


@typed
def connectivity(connected: Numbers, *, paths: Paths = "W_hh") -> optax.GradientTransformation:
    """w_ij ← 0 where `connected[i, j]` is 0: connections that do not exist.

    With `h @ W`, entry (i, j) leads from unit i to unit j. Gradients there are not zero but undone, so clipping by the
    global norm before it sees them.

    Args:
      connected: `[M, N]` of 1 and 0 (or True and False), in the shape of the matrix; or of one block, such as `[H, H]`,
        which then holds for every gate of `[H, G·H]`.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").

    Returns:
      An optax transformation, for the end of a chain; see `project`.

    Raises:
      ValueError: other entries; at `init`, a pattern that matches no leaf, no matrix, or one of another shape.

    >>> import optax
    >>> ring = connectivity(jnp.array([[0, 1], [1, 0]]))
    >>> params = {"W_hh": jnp.array([[0.5, -0.5], [0.25, 1.0]])}
    >>> updates, _ = ring.update(jax.tree.map(jnp.zeros_like, params), ring.init(params), params)
    >>> optax.apply_updates(params, updates)["W_hh"].tolist()
    [[0.0, -0.5], [0.25, 0.0]]
    """
    connected = _entries(connected, "connected", (0, 1), axes=2)
    height, width = connected.shape

    def start(path, leaf):
        if leaf.shape[0] != height or leaf.shape[1] % width:
            raise ValueError(
                f"connected must have the shape of {path}, {leaf.shape}, or of one of its gate blocks; got "
                f"{(height, width)}."
            )
        return ()

    def onto(path, W, _):
        kept = jnp.tile(connected, (1, W.shape[1] // width))
        return jnp.where(kept != 0, W, 0)

    return constraint(onto, paths, matrices="connectivity", start=start)


def _entries(values: Any, name: str, allowed: tuple[int, ...], *, axes: int) -> Array:
    """The values as an array; raises if it has another number of axes, or if a concrete one has other entries."""
    array = values if isinstance(values, Array) else np.asarray(values)
    if array.ndim != axes or 0 in array.shape:
        shape = f"an array with {axes} {'axis' if axes == 1 else 'axes'}"
        raise ValueError(f"{name} must be {shape}; got {described(values)}.")
    if not isinstance(array, jax.core.Tracer):
        wrong = np.asarray(array)[~np.isin(array, allowed)]
        if wrong.size:
            raise ValueError(f"{name} must hold only {list(allowed)}; got {wrong[0]}.")
    return jnp.asarray(array)
