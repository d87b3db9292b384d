"""Lyapunov exponents: how fast neighbouring trajectories part, along the data or alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, check_every
from rnnreg._linalg import marked, pushed, safe_divide, starting_frame
from rnnreg._signatures import typed
from rnnreg.diagnostics.dynamics._frames import (
    apart,
    check_inputs,
    how_many,
    orthonormalised,
    rounded,
    time_first,
)
from rnnreg.diagnostics.dynamics._system import System, dynamics_of
from rnnreg.diagnostics.dynamics._trajectory import check_arrays


class Lyapunov(NamedTuple):
    """The Lyapunov spectrum of each trajectory, in nats a step, and how sure it is.

    Attributes:
      exponents: `[B, k]`, from large to small; −inf where a direction was lost.
      standard_error: `[B, k]`, by batch means; NaN for an exponent that is not finite, or from fewer than two counts.
      unconverged: `[B, k]`, True where the error, or the difference between the first and the second half of the
        counted steps, exceeds the tolerance, or what rounding leaves open of each count does on average; where the
        exponent or its error is NaN; and where a direction was lost to rounding at any count, so that −inf stands for
        a number that is not known. A −inf from r_ii = 0 alone is exact.
      lost: `[B, k]`, the share of counts at which the direction was lost: a Jacobian that is singular (dead ReLU,
        saturated units), or a contraction since the last QR that the dtype cannot resolve (a smaller `every`, or
        float64, resolves more).
      kaplan_yorke: `[B]`, the Kaplan–Yorke dimension; NaN where too few exponents were asked for.
      entropy_rate: `[B]`, the sum of the positive exponents; NaN where too few exponents were asked for.
      trace: `[B, R, k]`, the evidence: the mean of the local exponents over the counts so far.
      steps: `[R]`, the number of counted steps at each of them.
    """

    exponents: Array
    standard_error: Array
    unconverged: Array
    lost: Array
    kaplan_yorke: Array
    entropy_rate: Array
    trace: Array
    steps: Array


@typed
def lyapunov(
    system: System,
    params: Any,
    xs: Any,
    *,
    state: Any = None,
    num_exponents: int | None = None,
    every: int = 1,
    discard: int | None = None,
    num_batches: int = 20,
    tolerance: float = 0.01,
    key: Array | None = None,
) -> Lyapunov:
    """λ_i = lim 1/T Σ_t ln |r_ii(t)|, where Q_t R_t = J_t Q_{t−1} and J_t = ∂h_t/∂h_{t−1} along the trajectory.

    A frame of k orthonormal vectors is moved by the Jacobian of each step and made orthonormal again by a QR, all in
    one scan, so that nothing under- or overflows however long the sequence. The state is all that the system carries.

    How to read it: λ_1 < 0 forgets its start at e^{λ_1} a step, and gradients vanish at that rate; λ_1 = 0 is the
    edge; λ_1 > 0 is chaos, and gradients explode along the data. With inputs the exponents are conditional on them:
    λ_1 < 0 then means that the state is a function of the inputs alone (echo state). The sum of all is the mean
    of ln |det J|. Look at `unconverged` first, and with smallest exponents at `lost`.

    Args:
      system: a network, a cell, or `step(params, state, x) -> state` on rows.
      params: its parameters.
      xs: `[B, T, D]` inputs, a trajectory a row; for an autonomous system `jnp.zeros((B, T, 0))` or a constant input.
        True steps only: there is no mask, and padding would count as steps. Cut rows of several lengths to the
        shortest, `xs[:, :length]`, or measure those of one length at a time.
      state: the state before the first step; None is the system's own.
      num_exponents: k, how many leading exponents; None is all.
      every: steps between two QRs; T must be a multiple of it. More than 1 is faster, and resolves less.
      discard: steps before counting begins, while trajectory and frame settle (rounded up to a multiple of `every`);
        None is a tenth of T.
      num_batches: of the batch means behind the standard error.
      tolerance: nats a step, of `unconverged`.
      key: draws the starting frame; None takes a fixed one in general position.

    Returns:
      The spectrum, with its errors and its convergence.

    Raises:
      ValueError: more exponents than state numbers, T that is not a multiple of `every`, nothing left to count,
        inputs, parameters or a state that do not fit the system, or a step that does not return a state like the one
        it was given.

    Source: Benettin et al. 1980 (QR); Kaplan & Yorke 1979; Vogt et al. 2022, Engelken et al. 2023 (recurrent networks).

    >>> step = lambda W, state, x: state @ W
    >>> W, xs = jnp.diag(jnp.array([0.5, 2.0])), jnp.zeros((1, 100, 0))
    >>> spectrum = lyapunov(step, W, xs, state=jnp.zeros((1, 2)))
    >>> jnp.exp(spectrum.exponents).round(2).tolist(), jnp.exp(spectrum.entropy_rate).round(2).tolist()
    ([[2.0, 0.5]], [2.0])
    """
    check_arrays(xs)
    num_steps = check_inputs(xs)
    check_count(num_batches, "num_batches", least=2)
    skipped = _blocks(num_steps, every, discard)
    dynamics = dynamics_of(system, params, xs, state=state)
    k = how_many(num_exponents, "num_exponents", dynamics.size)
    start = dynamics.start
    frame = starting_frame(dynamics.size, k, start.dtype, key=key)
    frame = jnp.broadcast_to(frame, (start.shape[0], *frame.shape))

    def advance(carry, x):
        state, frame = carry
        new, moved = pushed(dynamics.step, state, x, frame)
        _, again = pushed(dynamics.floored, rounded(state), x, frame)
        underflow = ((moved == 0) & (again != 0)).any(axis=(1, 2))
        return (new, moved), (apart(again, moved), underflow)

    def block(carry, xs):
        (state, frame), (rounding, underflow) = jax.lax.scan(advance, carry, xs)
        frame, R, doubt = orthonormalised(frame, rounding.sum(axis=0))
        growth = jnp.abs(jnp.diagonal(R, axis1=-2, axis2=-1))
        lost = doubt >= 1
        logs = jnp.where(lost, -jnp.inf, jnp.log(jnp.where(lost, 1, growth)))
        unknown = lost & ((growth != 0) | underflow.any(axis=0)[:, None])
        return (state, frame), (logs / every, lost, unknown, doubt / every)

    blocks = jax.tree.map(
        lambda leaf: leaf.reshape(num_steps // every, every, *leaf.shape[1:]), time_first(xs)
    )
    _, found = jax.lax.scan(block, (start, frame), blocks)
    found = [jnp.swapaxes(values[skipped:], 0, 1) for values in found]  # [B, R, k]
    order = jnp.argsort(-found[0].mean(axis=1), axis=-1)[:, None]
    logs, lost, unknown, doubt = (jnp.take_along_axis(values, order, axis=-1) for values in found)
    exponents = logs.mean(axis=1)
    error = _batch_error(logs, num_batches)
    unsure = unknown.any(axis=1) | (jnp.where(lost, 0, doubt).mean(axis=1) > tolerance)
    counts = jnp.arange(1, logs.shape[1] + 1)
    return Lyapunov(
        exponents=exponents,
        standard_error=error,
        unconverged=_unconverged(logs, exponents, error, tolerance) | unsure,
        lost=lost.mean(axis=1, dtype=start.dtype),
        kaplan_yorke=_kaplan_yorke(exponents, dynamics.size),
        entropy_rate=_entropy_rate(exponents, dynamics.size),
        trace=jnp.cumsum(logs, axis=1) / counts[None, :, None].astype(logs.dtype),
        steps=counts * every,
    )


def _blocks(num_steps: int, every: int, discard: int | None) -> int:
    """How many blocks of `every` steps go by before counting begins."""
    check_every(every, num_steps)
    discard = num_steps // 10 if discard is None else discard
    check_count(discard, "discard", least=0)
    skipped = -(-discard // every)
    if skipped >= num_steps // every:
        raise ValueError(
            f"discard must leave at least {every} of the T={num_steps} steps to count; got discard={discard}."
        )
    return skipped


def _batch_error(logs: Array, num_batches: int) -> Array:
    """Standard error of the mean over `[B, R, k]`, from the means of consecutive batches."""
    batches = min(num_batches, logs.shape[1])
    if batches < 2:
        none = jnp.ones((logs.shape[0], logs.shape[2]), bool)
        return marked(none, jnp.zeros(none.shape, logs.dtype))
    length = logs.shape[1] // batches
    means = logs[:, -batches * length :].reshape(len(logs), batches, length, -1).mean(axis=2)
    finite = jnp.isfinite(means).all(axis=1)
    spread = jnp.std(jnp.where(finite[:, None], means, 0), axis=1, ddof=1)
    return marked(~finite, spread / jnp.sqrt(jnp.asarray(batches, spread.dtype)))


def _unconverged(logs: Array, exponents: Array, error: Array, tolerance: float) -> Array:
    """True where the error is larger than the tolerance, or the halves differ by more, or a number is NaN."""
    half = logs.shape[1] // 2
    drift = jnp.abs(logs[:, :half].mean(axis=1) - logs[:, half:].mean(axis=1)) if half else jnp.inf
    settled = (error <= tolerance) & (drift <= tolerance)
    return ~(settled | (exponents == -jnp.inf))


def _kaplan_yorke(exponents: Array, size: int) -> Array:
    """j + S_j / |λ_{j+1}|, j the largest with S_j = λ_1 + … + λ_j ≥ 0; exponents from large to small."""
    sums = jnp.cumsum(exponents, axis=-1)
    negative = sums < 0
    first = jnp.argmax(negative, axis=-1)[:, None]
    before = jnp.where(first > 0, jnp.take_along_axis(sums, jnp.maximum(first - 1, 0), axis=-1), 0)
    rate = jnp.abs(jnp.take_along_axis(exponents, first, axis=-1))
    inside = (first.astype(rate.dtype) + safe_divide(before, rate))[:, 0]
    whole = exponents.shape[-1] == size
    beyond = jnp.asarray(size if whole else jnp.nan, exponents.dtype)
    found = jnp.where(negative.any(axis=-1), inside, beyond)
    return jnp.where(jnp.isnan(exponents).any(axis=-1), jnp.nan, found)


def _entropy_rate(exponents: Array, size: int) -> Array:
    """Σ max(λ_i, 0), unless positive exponents may be missing."""
    total = jnp.sum(jnp.maximum(exponents, 0), axis=-1)
    missing = (exponents[:, -1] > 0) & (exponents.shape[-1] < size)
    return jnp.where(missing, jnp.nan, total)
