"""The way back through time, one step after another, with its length kept apart as a logarithm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._linalg import safe_norm, unit, wide
from rnnreg.data import Batch, check_batch
from rnnreg.diagnostics._slopes import steady, unfused
from rnnreg.losses import Loss
from rnnreg.metrics import as_function
from rnnreg.networks import Network, Stack, Visit, by_layer, start_state
from rnnreg.recurrence import cell_step, settle, states_before

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr

Params = dict[str, Any]


class Steps(NamedTuple):
    """A network's pass over a batch, laid out step by step, time first.

    Attributes:
      before: the state that each step starts from, fields `[T, B, …]`.
      xs: `[T, B, …]`.
      keeps: `[T, B]`, 1 where a step counts; None where every step does.
    """

    before: Any
    xs: Array
    keeps: Array | None


def check_network(net: Any, name: str) -> None:
    """Raises where what a diagnostic was given is no network."""
    if not isinstance(net, Network):
        raise ValueError(
            f"{name} takes a network, as its loss reads outputs; got {type(net).__name__}. Make one of a cell with "
            "rr.network([cell], output_size), and a cell of a step function with rr.cells.from_step."
        )


def as_loss(loss: Any, batch: Any, name: str) -> Loss:
    """The loss of `name(net, loss, params, batch)`, of two or four arguments, called with four.

    Raises where it is no loss, the batch is none, or its parts do not fit together; values are not looked at.
    """
    loss = as_function(loss, f"the loss of {name}(net, loss, params, batch)", loss=True)
    if isinstance(batch, Batch) and all(map(_is_array, jax.tree.leaves(batch))):
        jax.eval_shape(functools.partial(check_batch, name="batch"), batch)
    else:
        check_batch(batch, name="batch")
    return loss


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def why_not_forwards(net: Network) -> str | None:
    """Why a network is not one map of states that is iterated, so that its gradient goes back step by step; or None."""
    if not all(entry.forwards for entry in net.layers):
        return "a layer reads the sequence backwards"
    if net.readout == "flatten":
        return "readout='flatten' reads all steps together, and not one by one"
    if net.recurrence.truncate is not None:
        return f"truncate={net.recurrence.truncate} cuts the gradient between steps"
    for entry in net.layers:
        state = jax.eval_shape(lambda e=entry: e.cell.initial_state(1, jnp.float32))
        if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)):
            return f"the state of the cell {entry.cell.name!r} holds whole numbers, which have no gradient"
    return None


def why_not_by_layer(net: Network) -> str | None:
    """Why its gradient cannot go back layer by layer within each step; or None."""
    if not isinstance(net.apply, Stack):
        return (
            "its apply is not that of rr.network, so that its layers may be put together otherwise"
        )
    return why_not_forwards(net)


def steps_of(net: Network, params: Params, batch: Batch) -> tuple[Steps, Array, Any]:
    """Every step of the network on a batch, its outputs, and the states after each step, time first."""
    xs = jnp.asarray(batch.xs)
    out = net.apply(params, xs, mask=batch.mask)
    start = start_state(net, params, xs)

    states = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), out.states)
    keeps = None if batch.mask is None else jnp.swapaxes(jnp.asarray(batch.mask), 0, 1)
    before = states_before(start, states)
    return Steps(before, jnp.swapaxes(xs, 0, 1), keeps), out.outputs, states


def one_step(net: Network, params: Params, step: Steps, added: Any = None) -> tuple[Any, Array]:
    """The state after one step and its output `[B, O]`, with `added` (by layer, `[B, H]`) put on each new h."""
    if added is not None:
        added = jax.tree.map(lambda leaf: leaf[:, None], added)
    keep, xs = None if step.keeps is None else step.keeps[:, None], step.xs[:, None]

    @steady
    def run(params, before, added):
        out = unfused(net).apply(params, xs, mask=keep, state=before, perturbations=added)
        return out.final_state, out.outputs if net.readout == "last" else out.outputs[:, 0]

    return run(params, step.before, added)


def linearised(pullback_of: Callable[[Any], Any], steps: Any) -> tuple[Any, Callable[[Any], Any]]:
    """`pullback_of(step)` for all steps at once: what it keeps of each, `[T, …]`, and how to get it back from a slice.

    The forward computation of a step, which a loop over time would do one by one, becomes a few wide products, and
    the loop is left with the way back. What does not differ between steps (weights) is kept once.

    >>> step = lambda x: jax.vjp(lambda h: jnp.sin(h) * 2, x)[1]
    >>> kept, restore = linearised(step, jnp.zeros((3, 1)))
    >>> jax.lax.scan(lambda ct, at: (restore(at)(ct)[0], None), jnp.ones(1), kept)[0].tolist()
    [8.0]
    """
    from jax.extend.core import jaxpr_as_fun  # a tenth of the import of this package

    structure = None

    def keep(step):
        nonlocal structure
        leaves, structure = jax.tree.flatten(pullback_of(step))
        return leaves

    program = jax.make_jaxpr(keep)(jax.tree.map(lambda leaf: leaf[0], steps))
    differs = _differs(program)
    axes = [0 if own else None for own in differs]
    every = jax.vmap(jaxpr_as_fun(program), out_axes=axes)(*jax.tree.leaves(steps))

    def restore(kept):
        leaves = [k if own else e for k, e, own in zip(kept, every, differs, strict=True)]
        return jax.tree.unflatten(structure, leaves)

    return [leaf if own else None for leaf, own in zip(every, differs, strict=True)], restore


def _differs(program: ClosedJaxpr) -> list[bool]:
    """Of each output of a program, whether it follows from an input."""
    from jax.extend.core import Var

    found = set(program.jaxpr.invars)
    for equation in program.jaxpr.eqns:
        if any(isinstance(var, Var) and var in found for var in equation.invars):
            found.update(equation.outvars)
    return [isinstance(var, Var) and var in found for var in program.jaxpr.outvars]


def seeds_of(net: Network, gradients: Array, num_steps: int) -> Array:
    """∂L/∂y_t, `[T, B, O]`, from ∂L/∂outputs; a readout at the last step has it there alone."""
    if net.readout == "all":
        return jnp.swapaxes(gradients, 0, 1)
    zeros = jnp.zeros((num_steps - 1, *gradients.shape), gradients.dtype)
    return jnp.concatenate([zeros, gradients[None]])


def log_state_gradients(
    net: Network,
    params: Params,
    batch: Batch,
    seeds_from: Callable[[Array], Array],
    *,
    whole_state: bool,
) -> Any:
    """ln ‖∂L/∂h_t‖ of every example, by layer `[B, T]`; −∞ where the gradient is exactly 0.

    The recursion δ_{t−1} = (δ_t + ∂L/∂y_t) J_t carries a δ of each layer whose largest element is 1, and the
    logarithm of its length, example by example: nothing under- or overflows, whatever the number of steps, and
    however far apart the layers are. Within a step it goes down layer by layer, as those below do not enter above.

    Args:
      net: a network that goes by layer.
      params: its parameters.
      batch: B examples.
      seeds_from: ∂L/∂y_t `[T, B, O]` from the outputs.
      whole_state: take the norm over all that a layer carries (an LSTM's h and c), not over h alone.
    """
    assert isinstance(net.apply, Stack)  # it goes by layer
    passes, outputs = _passes_of(net.apply, params, batch)
    seeds = seeds_from(outputs)
    kept, pullbacks_at = linearised(
        lambda steps: [_pullback(one, step) for one, step in zip(passes, steps, strict=True)],
        [one.steps for one in passes],
    )

    def body(carry, inputs):
        # ∂L/∂state after this step, from later losses: of each pass e^log_after · after
        at, seed = inputs
        above, log_above = jax.vmap(unit)(seed)
        found = []
        for pullback, (after, log_after) in zip(pullbacks_at(at)[::-1], carry[::-1], strict=True):
            log_scale = jnp.maximum(log_after, log_above)
            log_scale = jnp.where(log_scale == -jnp.inf, 0, log_scale)  # there is no gradient yet
            after = _times(after, jnp.exp(log_after - log_scale))
            above = _times(above, jnp.exp(log_above - log_scale))
            before, at_h, *below = pullback((after, above))
            counted = _with_other_fields(at_h, after) if whole_state else at_h
            norms = log_scale + jnp.log(safe_norm(counted))
            before, log_before = jax.vmap(unit)(before)
            found.insert(0, ((before, log_scale + log_before), norms))
            if below:
                above, log_below = jax.vmap(unit)(below[0])
                log_above = log_scale + log_below
        carry, norms = zip(*found, strict=True)
        return carry, norms

    log_first = jnp.full(seeds.shape[1], -jnp.inf, wide(seeds.dtype))
    first = tuple(
        (jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), one.steps.before), log_first)
        for one in passes
    )
    _, norms = jax.lax.scan(body, first, (kept, seeds), reverse=True)
    return by_layer(net.layers, [leaf.T for leaf in norms])


class _Pass(NamedTuple):
    """One pass of one cell, as a map that is iterated.

    Attributes:
      run: `run(before, added, x, keep) -> (state, what it hands on)`, on rows: the h of the cell, or the output of the
        network at the top.
      steps: its steps, whose `before` is the state of its cell.
      lowest: whether it reads the inputs of the network.
    """

    run: Callable[[Any, Array, Array, Array | None], tuple[Any, Array]]
    steps: Steps
    lowest: bool


def _passes_of(stack: Stack, params: Params, batch: Batch) -> tuple[list[_Pass], Array]:
    """The passes of a network from input to output, and its outputs."""
    visits, hidden = stack.walk(params, batch.xs, mask=batch.mask)
    keeps = None if batch.mask is None else jnp.swapaxes(jnp.asarray(batch.mask), 0, 1) > 0
    passes = [
        _Pass(
            _run_of(stack, params, one, top=one is visits[-1]),
            Steps(one.before(), one.inputs, keeps),
            one is visits[0],
        )
        for one in visits
    ]
    if stack.readout == "last":
        return passes, stack.read(params, visits[-1].final.h)
    return passes, jnp.swapaxes(stack.read(params, hidden), 0, 1)


def _run_of(stack: Stack, params: Params, visit: Visit, *, top: bool) -> Callable[..., Any]:
    step = cell_step(visit.place.cell, precision=stack.recurrence.precision)

    @steady
    def run(before, added, x, keep):
        new = settle(step(visit.params, before, x), before, keep, added)
        return new, stack.read(params, new.h) if top else new.h

    return run


def _pullback(one: _Pass, step: Steps) -> Callable[[Any], Any]:
    """From cotangents of a step's state and output to those of the state before it, of h, and of x above the lowest."""
    zeros = jnp.zeros_like(step.before.h)
    if one.lowest:
        return jax.vjp(
            lambda before, added: one.run(before, added, step.xs, step.keeps), step.before, zeros
        )[1]
    return jax.vjp(
        lambda before, added, x: one.run(before, added, x, step.keeps), step.before, zeros, step.xs
    )[1]


def _with_other_fields(at_h: Array, after: Any) -> Array:
    """The gradients of every field of a state side by side: of h as given, of others as carried."""
    others = [value for name, value in after._asdict().items() if name != "h" and value.size]
    rows = [value.reshape(len(value), -1) for value in (at_h, *others)]
    return jnp.concatenate(rows, axis=-1)


def _times(tree: Any, factor: Array) -> Any:
    """Every leaf `[B, …]` times the factor of its row."""

    def times(leaf):
        return leaf * factor.astype(leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1))

    return jax.tree.map(times, tree)
