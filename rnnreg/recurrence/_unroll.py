"""A cell over a sequence, by the back end of a choice, whole or in segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, is_count
from rnnreg._signatures import typed
from rnnreg.cells import Cell, formed
from rnnreg.recurrence._backend import BACKENDS, choose_backend
from rnnreg.recurrence._product import check_precision
from rnnreg.recurrence._scan import Streams

Run = Callable[[Any, Streams], tuple[Any, Any]]


@typed
def unroll(
    cell: Cell,
    params: Any,
    xs: Array,
    state: Any,
    *,
    mask: Array | None = None,
    recurrent_mask: Array | None = None,
    perturbations: Array | None = None,
    holds: dict[str, Array] | None = None,
    reverse: bool = False,
    backend: str = "auto",
    remat: str | int = "full",
    truncate: int | None = None,
    precision: str | None = None,
    projection: str = "auto",
) -> tuple[Any, Any]:
    """Runs a cell over a time-major sequence, `state_t = cell(params, state_{t−1}, xs_t)`.

    A masked step holds the state, so padding on either side changes nothing.

    Args:
      cell: the cell.
      params: its parameters, in the dtype of `xs`.
      xs: `[T, B, D]` inputs.
      state: the state before the first step (before the last one, with `reverse`).
      mask: `[T, B]`, 1 where a step counts, or `[T, B, H]`, 1 where a unit takes its step.
      recurrent_mask: `[B, H]`, multiplies the h that enters the recurrent product at every step
        (variational dropout, Gal & Ghahramani 2016); the carried state is left alone.
      perturbations: `[T, B, H]`, added to h after each step; the gradient with respect to zeros is
        ∂L/∂h_t.
      holds: by field of the state, such as "h", `[T, B, H]` booleans: True where a unit keeps its old value of it
        (zoneout). Perturbations are added to held units too.
      reverse: run from the last step to the first.
      backend: "auto", "scan", "fused" or "native"; see `choose_backend`.
      remat: "full" keeps what the backward pass needs of all T steps; an int k keeps the states at the ends of
        segments of k steps and computes the rest again, segment by segment; "sqrt" is k = ⌈√T⌉, which needs
        O(√T) of what "full" keeps inside the steps, for one more forward pass. The gradient is the same.
      truncate: k cuts the gradient where a segment of k steps begins; the state is carried on (truncated
        back-propagation through time). None does not cut.
      precision: of the products; see `product`.
      projection: where the inputs are projected; see `choose_backend`.

    Returns:
      The state after the last step, and the states at every step, `[T, B, ...]`.

    Raises:
      ValueError: a recurrent mask for a cell that does its own product, a back end that cannot run the cell,
        segments that are not positive.

    >>> import rnnreg as rr
    >>> cell = rr.cells.elman(2, activation=lambda z: z, recurrent_init="identity")
    >>> params = cell.init(jax.random.key(0), 1) | {"W_xh": jnp.ones((1, 2))}
    >>> final, states = unroll(cell, params, jnp.ones((3, 1, 1)), cell.initial_state(1))
    >>> states.h[:, 0, 0].tolist(), final.h.tolist()
    ([1.0, 2.0, 3.0], [[3.0, 3.0]])
    """
    check_segments(remat, truncate)
    check_precision(precision)
    params = formed(cell, params)
    keeps = None if mask is None else mask.astype(bool)
    if keeps is not None:  # NaN at padding, times a gradient of 0, is NaN
        counted = keeps if keeps.ndim == 2 else keeps.any(axis=-1)
        xs = jnp.where(counted[..., None], xs, jnp.zeros((), xs.dtype))
    if holds and not held_apart(state, holds, perturbations is not None):
        moves = ~holds["h"]  # a mask for each unit, which every back end has
        keeps = moves if keeps is None else moves & (keeps if keeps.ndim == 3 else keeps[..., None])
        holds = None
    leaves = jax.tree.leaves((params, xs, state, perturbations))
    choice = choose_backend(
        cell,
        input_size=xs.shape[-1],
        backend=backend,
        projection=projection,
        precision=precision,
        dtype=xs.dtype if all(leaf.dtype == xs.dtype for leaf in leaves) else None,
        holds=bool(holds),
    )

    def whole(state: Any, streams: Streams) -> tuple[Any, Any]:
        return BACKENDS[choice.backend].run(
            cell,
            params,
            streams,
            state,
            recurrent_mask,
            reverse=bool(reverse),
            precision=precision,
            inside=choice.inside,
        )

    run: Run = whole
    if remat != "full":
        steps = min(xs.shape[0], truncate or xs.shape[0])
        length = math.ceil(math.sqrt(steps)) if remat == "sqrt" else int(remat)
        run = _in_segments(jax.checkpoint(run), length, reverse)
    if truncate is not None:
        run = _in_segments(run, int(truncate), reverse, cut=True)
    return run(state, Streams(xs, keeps, perturbations, holds or None))


def held_apart(state: Any, holds: Iterable[str], perturbed: bool) -> bool:
    """Whether holding these fields is more than a mask for each unit: of a state that is more than h, or perturbed."""
    return perturbed or set(holds) != {"h"} or len(jax.tree.leaves(state)) > 1


def check_segments(remat: str | int, truncate: int | None) -> None:
    """Raises where segments of that kind do not exist."""
    if remat not in ("full", "sqrt") and not is_count(remat):
        raise ValueError(
            f"remat must be 'full', 'sqrt' or a positive number of steps a segment; got {remat!r}."
        )
    if truncate is not None:
        check_count(truncate, "truncate", hint="It counts steps; None does not cut.")


def _in_segments(run: Run, length: int, reverse: bool, *, cut: bool = False) -> Run:
    """The same run, `length` steps at a time; with `cut`, no gradient passes from one segment to another."""

    def run_segments(state: Any, streams: Streams) -> tuple[Any, Any]:
        num_steps = streams.xs.shape[0]
        count, rest = divmod(num_steps, length)
        if num_steps <= length:
            return run(state, streams)

        def segment(state, streams):
            final, states = run(state, streams)
            return (jax.lax.stop_gradient(final) if cut else final), states

        # The odd steps come last in the order of running: at the start of a sequence that is read backwards.
        first, last = (rest, num_steps) if reverse else (0, num_steps - rest)
        whole = jax.tree.map(
            lambda leaf: leaf[first:last].reshape(count, length, *leaf.shape[1:]), streams
        )
        state, states = jax.lax.scan(segment, state, whole, reverse=reverse)
        states = jax.tree.map(lambda leaf: leaf.reshape(count * length, *leaf.shape[2:]), states)
        if rest:
            odd = slice(0, rest) if reverse else slice(last, None)
            _, odd_states = run(state, jax.tree.map(lambda leaf: leaf[odd], streams))
            pair = (odd_states, states) if reverse else (states, odd_states)
            states = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pair)
        return jax.tree.map(lambda leaf: leaf[0 if reverse else -1], states), states

    return run_segments
