"""The way back through time, one step after another, with its length kept apart as a logarithm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Var, jaxpr_as_fun

from rnnreg.data import Batch
from rnnreg.network import Network, start_state

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


def goes_forwards(net: Network) -> bool:
    """Whether the network is one map of states that is iterated, so that its gradient can go back step by step."""
    if net.recurrence.truncate is not None or any(entry.bidirectional for entry in net.layers):
        return False
    states = [
        jax.eval_shape(lambda e=entry: e.cell.initial_state(1, jnp.float32)) for entry in net.layers
    ]
    return all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(states))


def steps_of(net: Network, params: Params, batch: Batch) -> tuple[Steps, Array]:
    """Every step of the network on a batch, and its outputs."""
    xs = jnp.asarray(batch.xs)
    out = net.apply(params, xs, mask=batch.mask)
    start = start_state(net, params, xs)

    def before(first, states):
        return jnp.concatenate([first[None], jnp.swapaxes(states, 0, 1)[:-1]])

    keeps = None if batch.mask is None else jnp.swapaxes(jnp.asarray(batch.mask), 0, 1)
    steps = Steps(jax.tree.map(before, start, out.states), jnp.swapaxes(xs, 0, 1), keeps)
    return steps, out.outputs


def one_step(net: Network, params: Params, step: Steps, added: Any = None) -> tuple[Any, Array]:
    """The state after one step and its output `[B, O]`, with `added` (by layer, `[B, H]`) put on each new h."""
    if added is not None:
        added = jax.tree.map(lambda leaf: leaf[:, None], added)
    keep = None if step.keeps is None else step.keeps[:, None]
    out = net.apply(params, step.xs[:, None], mask=keep, state=step.before, perturbations=added)
    return out.final_state, out.outputs if net.readout == "last" else out.outputs[:, 0]


def linearised(pullback_of: Callable[[Any], Any], steps: Any) -> tuple[Any, Callable[[Any], Any]]:
    """`pullback_of(step)` for all steps at once: what it keeps of each, `[T, …]`, and how to get it back from a slice.

    The forward computation of a step, which a loop over time would do one by one, becomes a few wide products, and
    the loop is left with the way back. What does not differ between steps (weights) is kept once.

    >>> step = lambda x: jax.vjp(lambda h: jnp.sin(h) * 2, x)[1]
    >>> kept, restore = linearised(step, jnp.zeros((3, 1)))
    >>> jax.lax.scan(lambda ct, at: (restore(at)(ct)[0], None), jnp.ones(1), kept)[0].tolist()
    [8.0]
    """
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
    net: Network, params: Params, steps: Steps, seeds: Array, *, whole_state: bool
) -> Any:
    """ln ‖∂L/∂h_t‖ of every example, by layer `[B, T]`; −∞ where the gradient is exactly 0.

    The recursion δ_{t−1} = (δ_t + ∂L/∂y_t) J_t carries a δ whose largest element is 1, and the logarithm of its
    length, example by example: nothing under- or overflows, whatever the number of steps.

    Args:
      net: a network that goes forwards.
      params: its parameters.
      steps: of `steps_of`.
      seeds: `[T, B, O]`, ∂L/∂y_t.
      whole_state: take the norm over all that a layer carries (an LSTM's h and c), not over h alone.
    """
    zeros = jax.tree.map(
        lambda state: jnp.zeros_like(state.h[0]), steps.before, is_leaf=lambda s: hasattr(s, "h")
    )

    def pullback_of(step):
        def run(before, added):
            return one_step(net, params, step._replace(before=before), added)

        return jax.vjp(run, step.before, zeros)[1]

    kept, pullback_at = linearised(pullback_of, steps)

    def body(carry, inputs):
        # ∂L/∂state after this step, from later losses: e^log_after · after
        after, log_after = carry
        at, seed = inputs
        seed, log_seed = _unit(seed)
        log_scale = jnp.maximum(log_after, log_seed)
        log_scale = jnp.where(jnp.isfinite(log_scale), log_scale, 0)  # there is no gradient yet
        after = _times(after, jnp.exp(log_after - log_scale))
        before, at_h = pullback_at(at)((after, _times(seed, jnp.exp(log_seed - log_scale))))
        found = _with_other_fields(at_h, after) if whole_state else at_h
        norms = jax.tree.map(lambda leaf: log_scale + jnp.log(safe_norm(leaf)), found)
        before, log_before = _unit(before)
        return (before, log_scale + log_before), norms

    first = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), steps.before)
    log_first = jnp.full(seeds.shape[1], -jnp.inf, _wide(seeds.dtype))
    _, norms = jax.lax.scan(body, (first, log_first), (kept, seeds), reverse=True)
    return jax.tree.map(lambda leaf: leaf.T, norms)


def safe_norm(values: Array, axis: int = -1) -> Array:
    """‖·‖₂ along an axis, scaled by the largest element so that squares do not underflow; at least float32."""
    values = values.astype(_wide(values.dtype))
    largest = jnp.max(jnp.abs(values), axis=axis, keepdims=True)
    scale = jnp.where(largest > 0, largest, 1)
    norm = jnp.sqrt(jnp.sum(jnp.square(values / scale), axis=axis))
    return norm * jnp.squeeze(largest, axis)


def _with_other_fields(at_h: Any, after: Any) -> Any:
    """By layer, the gradients of every field of the state side by side: of h as given, of others as carried."""

    def joined(h, state):
        others = [value for name, value in state._asdict().items() if name != "h"]
        rows = [value.reshape(len(value), -1) for value in (h, *others)]
        return jnp.concatenate(rows, axis=-1)

    return jax.tree.map(joined, at_h, after)


def _unit(tree: Any) -> tuple[Any, Array]:
    """Each row of the leaves `[B, …]` divided by its largest |element| over all of them, and that one's logarithm."""
    rows = [jnp.abs(leaf).reshape(len(leaf), -1).max(axis=1) for leaf in jax.tree.leaves(tree)]
    largest = functools.reduce(jnp.maximum, [row.astype(_wide(row.dtype)) for row in rows])
    return _times(tree, 1 / jnp.where(largest > 0, largest, 1)), jnp.log(largest)


def _times(tree: Any, factor: Array) -> Any:
    """Every leaf `[B, …]` times the factor of its row."""

    def times(leaf):
        return leaf * factor.astype(leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1))

    return jax.tree.map(times, tree)


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)
