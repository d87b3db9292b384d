"""How much of its past inputs a state still holds: by linear recall, and by the window that suffices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_count, check_function, check_key, check_number, is_count
from rnnreg._linalg import safe_divide
from rnnreg._signatures import typed
from rnnreg.diagnostics.dynamics._system import Dynamics, System, dynamics_of
from rnnreg.diagnostics.dynamics._trajectory import check_sequences, states_along
from rnnreg.networks import Network, Stack, passes_of


class MemoryCurve(NamedTuple):
    """How well past inputs can be read off the states by a linear map.

    Attributes:
      lags: `[K]`, k = 0 … K−1; 0 is the input that has just entered.
      recall: `[K]`, (R² − baseline) / (1 − baseline): 1 is perfect recall, 0 none; a little below 0 by chance.
      capacity: Σ_k recall(k), in inputs.
      r_squared: `[K]`, R² of u_{t−k} on h_t, as fitted.
      baseline: `[K]`, the mean R² of the surrogates.
      surrogates: `[S, K]`, R² of inputs that do not drive the state, the evidence behind the baseline.
      num_rows: how many (sequence, step) pairs were fitted.
      num_dropped: how many directions of the states were left out of the fit, as no larger than what rounding makes
        (n·eps of the largest). What they hold is not counted; float64 resolves more of them.
    """

    lags: Array
    recall: Array
    capacity: Array
    r_squared: Array
    baseline: Array
    surrogates: Array
    num_rows: int
    num_dropped: Array


@typed
def memory_curve(
    system: System,
    params: Any,
    xs: Array,
    *,
    key: Array,
    num_lags: int,
    channel: int = 0,
    washout: int = 0,
    ridge: float = 0.0,
    num_surrogates: int = 20,
    state: Any = None,
) -> MemoryCurve:
    """R²(k) of the input u_{t−k} as a linear function of the state h_t, less what a fit to unrelated inputs gets.

    The fit is on the pairs it is scored on, so R² of pure noise is about n / num_rows, not 0. The baseline measures
    that: the same fit to inputs that do not drive the state, with their own correlations in time. They are those of
    another sequence, shifted in time at random, so the sequences must be independent of each other (windows of one
    series are not). Of a single sequence they are its own inputs from at least n + K steps before or after them,
    which takes 3 (n + K) steps; what a state holds from further back than that counts as chance.

    How to read it: with independent inputs the capacity is at most n, the number of state variables, reached by a
    linear delay line; a nonlinear network spends part of it on products of inputs, which this does not count.
    Correlated inputs are recalled from their neighbours: the baseline does not take that away, so compare
    systems on the same xs. A noiseless linear network recalls from directions of vanishing variance; `ridge`
    says which variance still counts.

    Args:
      system: a network, a cell, or a function `step(params, state, x)` on rows.
      params: its parameters.
      xs: `[B, T, D]`, the inputs that drive it, best independent in time; every step counts, padding too.
      key: for the surrogates.
      num_lags: K.
      channel: which of the D inputs to recall.
      washout: how many first steps to leave out, at least; never fewer than K − 1, so that every lag has the
        same rows.
      ridge: penalty of the fit, relative to the largest variance of a direction of the states.
      num_surrogates: S.
      state: the state before the first step; a function needs it.

    Returns:
      The recall at each lag, its sum, and the surrogates behind the baseline.

    Raises:
      ValueError: xs that are not [B, T, D], a channel that they lack, counts that are not whole or too small, fewer
        rows than twice the size of the state, or a single sequence that is too short for surrogates.

    Source: Jaeger 2002, "Short term memory in echo state networks", GMD report 152; the correction is
      that of an adjusted R², with the surrogates' mean in place of its expectation.

    >>> def delay_line(params, state, x):
    ...     return jnp.concatenate([x, state[:, :-1]], axis=1)
    >>> xs = jax.random.normal(jax.random.key(0), (4, 100, 1))
    >>> memory = memory_curve(delay_line, None, xs, key=jax.random.key(1), num_lags=5, state=jnp.zeros((4, 3)))
    >>> memory.recall.round(1).tolist()[:3], round(float(memory.capacity))
    ([1.0, 1.0, 1.0], 3)
    """
    xs = _real_inputs(system, xs)
    hint = f"xs has {xs.shape[2]} channels, counted from 0."
    check_count(channel, "channel", least=0, most=xs.shape[2] - 1, hint=hint)
    check_count(num_lags, "num_lags")
    check_count(num_surrogates, "num_surrogates")
    check_count(washout, "washout", least=0)
    check_number(ridge, "ridge", least=0)
    check_key(key)
    dynamics = dynamics_of(system, params, xs, state=state)
    first, apart = max(washout, num_lags - 1), dynamics.size + num_lags
    num_rows = _check_rows(xs, first, dynamics.size, num_lags)

    states = states_along(dynamics, xs)[:, first:].reshape(num_rows, -1)
    basis, kept, num_dropped = _basis(states, ridge)
    pasts = _pasts(xs[..., channel], first, num_lags)
    r_squared = _r_squared(basis, kept, pasts)
    surrogates = jax.lax.map(
        lambda key: _r_squared(basis, kept, _unrelated(pasts, key, apart)),
        jax.random.split(key, num_surrogates),
    )
    baseline = jnp.mean(surrogates, axis=0)
    recall = (r_squared - baseline) / jnp.maximum(1 - baseline, jnp.finfo(xs.dtype).eps)
    return MemoryCurve(
        jnp.arange(num_lags),
        recall,
        recall.sum(),
        r_squared,
        baseline,
        surrogates,
        num_rows,
        num_dropped,
    )


def _real_inputs(system: System, xs: Any) -> Array:
    """The inputs `[B, T, D]`; raises if they are tokens, or have another shape."""
    xs = jnp.asarray(xs)
    if _are_tokens(system, xs):
        raise ValueError(
            f"memory_curve recalls real inputs [B, T, D]; got whole numbers of shape {xs.shape}, as a network "
            "with an embedding takes. Give its first cell with the embedded tokens as xs, or one of one-hot inputs."
        )
    return check_sequences(xs)


def _check_rows(xs: Array, first: int, size: int, num_lags: int) -> int:
    """The number of pairs of state and input; raises if they are too few to fit, or to make surrogates of."""
    used, apart = xs.shape[1] - first, size + num_lags
    num_rows = xs.shape[0] * max(used, 0)
    if num_rows < 2 * size:
        raise ValueError(
            f"{num_rows} pairs of state and input are too few to fit {size} state variables: {xs.shape[0]} "
            f"sequences of {xs.shape[1]} steps, less the first {first}. Give longer or more sequences."
        )
    if len(xs) == 1 and used < 3 * apart:
        raise ValueError(
            f"one sequence of {used} steps is too short for surrogates that the state has not seen: {size} "
            f"state variables and {num_lags} lags take {3 * apart} steps. Give several sequences, or a longer one."
        )
    return num_rows


def _pasts(inputs: Array, first: int, num_lags: int) -> Array:
    """u_{t−k} `[B, T − first, K]` of inputs `[B, T]`, for t from `first` on."""
    num_steps = inputs.shape[1]
    return jnp.stack([inputs[:, first - k : num_steps - k] for k in range(num_lags)], axis=-1)


def _r_squared(basis: Array, kept: Array, pasts: Array) -> Array:
    """R² `[K]` of a ridge fit of each past on the states, whose directions are the basis."""
    targets = pasts.reshape(-1, pasts.shape[-1])
    targets = targets - jnp.mean(targets, axis=0, keepdims=True)
    explained = jnp.sum(jnp.square(basis.T @ targets) * kept[:, None], axis=0)
    return safe_divide(explained, jnp.sum(jnp.square(targets), axis=0))


def _unrelated(pasts: Array, key: Array, apart: int) -> Array:
    """Pasts that did not drive the state: those of another sequence at another time, or far away in the only one."""
    num_rows, used, num_lags = pasts.shape
    key_row, key_time = jax.random.split(key)
    if num_rows > 1:
        rows = jax.random.randint(key_row, (), 1, num_rows)
        times = jax.random.randint(key_time, (), 0, used)
    else:  # either side of the seam: lags beyond n + K, or inputs still to come
        rows = 0
        times = jax.random.randint(key_time, (), apart, used - num_lags + 1)
    return jnp.roll(jnp.roll(pasts, rows, axis=0), times, axis=1)


def _basis(states: Array, ridge: float) -> tuple[Array, Array, Array]:
    """Orthonormal directions `[M, n]` of the centred states, how much of each a ridge fit explains, `[n]`, and how
    many are none: no larger than the rounding of the states, which does not grow with M.
    """
    centred = states - jnp.mean(states, axis=0, keepdims=True)
    rows, factor = jnp.linalg.qr(centred)
    turn, scales, _ = jnp.linalg.svd(factor)
    largest = scales[0]
    real = scales > largest * len(scales) * jnp.finfo(states.dtype).eps
    shrink = jnp.square(safe_divide(scales, largest))
    shrink = jnp.where(real, shrink / jnp.where(real, shrink + ridge, 1), 0)
    # |y|² − |y − ŷ|² of a fit that shrinks each direction by f is Σ c² f (2 − f)
    return rows @ turn, shrink * (2 - shrink), jnp.sum(~real)


class SufficientWindow(NamedTuple):
    """How far the outputs are from what they would be after the last k inputs alone.

    Attributes:
      windows: `[K]`, the lengths k that were tried, rising, each once.
      deviation: `[K, B]`, ‖y⁽ᵏ⁾ − y‖₂ at the last step, y⁽ᵏ⁾ from the initial state through the last k inputs.
      window: `[B]`, the smallest k tried from which on the deviation stays at most the tolerance; −1 where not
        even the longest one suffices, and where an output is NaN.
      whole: the smallest k that serves every sequence; −1 where there is none.
    """

    windows: Array
    deviation: Array
    window: Array
    whole: Array


@typed
def sufficient_window(
    system: System,
    params: Any,
    xs: Array,
    *,
    tolerance: float,
    windows: Sequence[int] | None = None,
    read: Callable[[Any], Array] | None = None,
    state: Any = None,
) -> SufficientWindow:
    """The smallest k for which the last k inputs give the output of the whole history, within a tolerance.

    How to read it: a stable (contracting) network is as good as its truncation to a window that grows like
    ln(1/tolerance), so a network that needs the whole sequence is not contracting along these data. It says what
    the network does with its past, not what the task needs; −1 is a censored value and must not be averaged.

    Args:
      system: a network, a cell, or a function `step(params, state, x)` on rows.
      params: its parameters.
      xs: `[B, T, D]`, or `[B, T]` tokens for a network with an embedding; every step counts, padding too.
      tolerance: the largest deviation that is allowed, in the units of what is read.
      windows: lengths to try, each from 1 to T; None is 1, 2, 4, … below T. All run side by side: K ·
        max(windows) · B steps.
      read: `read(state) -> [B, …]`, what to compare; None is the readout of a network and the state itself
        otherwise.
      state: the state before the first step, from which the truncated ones start too; a function needs it.

    Returns:
      The deviation of each window, and the smallest window that suffices, by sequence and for all.

    Raises:
      ValueError: xs that are neither, windows that are not whole numbers in 1 … T, or a tolerance that is not
        positive.

    Source: Miller & Hardt 2019, "Stable recurrent models", whose theorem this looks at for one network and data.

    >>> def leaky(params, state, x):
    ...     return 0.5 * state + x
    >>> found = sufficient_window(leaky, None, jnp.ones((1, 64, 1)), tolerance=0.01, state=jnp.zeros((1, 1)))
    >>> found.windows.tolist(), found.window.tolist()  # 2 · 0.5⁸ = 0.0078
    ([1, 2, 4, 8, 16, 32], [8])
    """
    xs = jnp.asarray(xs)
    xs = xs if _are_tokens(system, xs) else check_sequences(xs)
    check_number(tolerance, "tolerance", least=0)
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive; got {tolerance}.")
    if read is not None:
        check_function(read, "read", "read(state) -> [B, …]")
    lengths = _lengths(windows, xs.shape[1])
    dynamics = dynamics_of(system, params, xs, state=state)
    read = read or _readout(system, params)

    def compared(flat):
        return flat if read is None else read(dynamics.unflatten(flat))

    outputs = compared(states_along(dynamics, xs)[:, -1])
    truncated = jnp.stack([compared(rows) for rows in _after_windows(dynamics, xs, lengths)])
    apart = (truncated - jnp.broadcast_to(outputs, truncated.shape)).reshape(
        *truncated.shape[:2], -1
    )
    deviation = jnp.linalg.norm(apart, axis=-1)
    fits = (deviation <= tolerance).astype(jnp.int32)
    stays = jnp.flip(jnp.cumprod(jnp.flip(fits, 0), axis=0), 0) > 0
    tried = jnp.asarray(lengths)
    return SufficientWindow(
        tried, deviation, _first(tried, stays), _first(tried, stays.all(axis=1))
    )


def _after_windows(dynamics: Dynamics, xs: Array, lengths: list[int]) -> Array:
    """The states `[K, B, n]` after the last k inputs alone, for each of K rising lengths, all side by side."""
    num_rows, num_steps = xs.shape[:2]
    longest, count = lengths[-1], len(lengths)
    begins = longest - jnp.asarray(lengths)

    def step(states, inputs):
        time, x = inputs
        new = dynamics.step(states, jnp.tile(x, (count, *[1] * (x.ndim - 1))))
        begun = jnp.repeat(time >= begins, num_rows)
        return jnp.where(begun[:, None], new, states), None

    last = jnp.swapaxes(xs[:, num_steps - longest :], 0, 1)
    start = jnp.tile(dynamics.start, (count, 1))
    states, _ = jax.lax.scan(step, start, (jnp.arange(longest), last))
    return states.reshape(count, num_rows, -1)


def _lengths(windows: Any, num_steps: int) -> list[int]:
    """The lengths to try, rising; raises if one is not a whole number in 1 … T."""
    if windows is None:
        powers = [2**power for power in range(max(num_steps - 1, 1).bit_length())]
        return [window for window in powers if window < num_steps] or [num_steps]
    if isinstance(windows, Array):
        windows = np.asarray(windows)
    given: list[Any] = list(windows) if isinstance(windows, Iterable) else []
    if not given or not all(is_count(one) and one <= num_steps for one in given):
        raise ValueError(
            f"windows must be whole numbers in 1 … {num_steps}, the steps of xs; got {windows!r}."
        )
    return sorted({int(one) for one in given})


def _are_tokens(system: System, xs: Array) -> bool:
    """Whether xs are what a network with an embedding takes; the network itself says where it has none."""
    return isinstance(system, Network) and xs.ndim == 2 and jnp.issubdtype(xs.dtype, jnp.integer)


def _first(tried: Array, stays: Array) -> Array:
    """The first window that stays within the tolerance, −1 where none does."""
    return jnp.where(stays.any(axis=0), tried[jnp.argmax(stays, axis=0)], -1)


def _readout(system: System, params: Any) -> Callable[[Any], Array] | None:
    """The output of a network from its state; None without a readout: all that is carried is compared then."""
    if not isinstance(system, Network) or not isinstance(system.apply, Stack):
        return None
    stack = system.apply
    if stack.output_size is None:
        return None
    *_, (top,) = passes_of(stack.layers)

    def readout(state):
        return stack.read(params, top.part_of(state).h)

    return readout
