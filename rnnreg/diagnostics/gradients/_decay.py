"""What a curve of log gradient norms says: its rate, with an error, and how far it reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._arrays import as_array
from rnnreg._checks import check_share, is_count
from rnnreg._linalg import marked, masked_mean, mean_and_error, safe_divide, wide
from rnnreg._signatures import typed


class DecayRate(NamedTuple):
    """The slope of ln ‖∂L_τ/∂h_{τ−ℓ}‖ against ℓ.

    Attributes:
      rate: the mean slope, nats a step: r(ℓ) ≈ e^(rate·ℓ).
      se: its standard error: over runs where there are several, else over sequences; NaN with only one.
      by_run: `[…]`, the mean slope of each run.
      se_by_run: `[…]`, its standard error over the run's sequences.
      rates: `[…, B]`, the slope of each sequence; NaN where fewer than two of its lags have a gradient.
    """

    rate: Array
    se: Array
    by_run: Array
    se_by_run: Array
    rates: Array


class Horizon(NamedTuple):
    """The lag from which on r(ℓ) stays below a threshold.

    Attributes:
      lag: `[…]`, of the mean curve of each run, between two lags by interpolation of ln r; NaN where censored. Where
        r drops to exactly 0 it is the last lag before that.
      censored: `[…]`, whether that curve is still above the threshold at its last lag, so that the horizon is
        only known to be longer.
      lags: `[…, B]`, the same of each sequence; NaN too where the gradient at lag 0 is 0 or not finite, so that
        there is no r.
      censored_each: `[…, B]`.
      longest: `[…, B]`, the last lag that each sequence has, which a censored horizon exceeds; −1 without any.
      vanished: `[…]`, the share of sequences whose gradient is exactly 0 at their last lag. The mean curve goes on
        without them, and falls to 0 only where all are.
    """

    lag: Array
    censored: Array
    lags: Array
    censored_each: Array
    longest: Array
    vanished: Array


@typed
def decay_rate(log_norms: Any, *, first: int = 0, last: int | None = None) -> DecayRate:
    """d ln r/dℓ by least squares, sequence by sequence, and its mean with a standard error.

    Sequences of one network share its weights, so they say how much the rate varies over data, not over
    networks. With log norms of several runs in front (seeds), the error is that between the runs.

    How to read it: −0.1 means that a gradient loses 10 % a step (e^−0.1 ≈ 0.905) and 1/e of it is left after ten; 0
    keeps it; a positive rate explodes. The error is only as good as the line is straight: look at the curve, and give
    `first` and `last` where it bends.

    Args:
      log_norms: `[…, B, T]`, ln of the norms by lag, from `gradient_flow(…).log_norms[layer]`; lags without
        a gradient (NaN or −∞) are left out.
      first: the first lag that is used.
      last: the last one; None is T − 1.

    Returns:
      The rate, in nats per step, with its standard error; the same by run and by sequence.

    Raises:
      ValueError: fewer than two axes, or fewer than two lags between `first` and `last`.

    >>> rate = decay_rate(jnp.log(jnp.array([0.5, 0.25]))[:, None] * jnp.arange(4))
    >>> round(float(rate.rate), 4), round(float(rate.se), 4)
    (-1.0397, 0.3466)
    """
    log_norms = _checked(log_norms)
    num_steps = log_norms.shape[-1]
    end = num_steps - 1 if last is None else last
    if not all(is_count(lag, least=0) for lag in (first, end)) or not first < end < num_steps:
        raise ValueError(
            f"a slope needs two lags between 0 and {num_steps - 1}; got first={first!r}, last={end!r}."
        )
    lags = jnp.arange(num_steps, dtype=log_norms.dtype)
    lags = jnp.broadcast_to(lags, log_norms.shape)
    used = jnp.isfinite(log_norms) & (lags >= first) & (lags <= end)

    count = jnp.sum(used, axis=-1, keepdims=True)

    def centred(values):
        values = jnp.where(used, values, 0)
        mean = jnp.sum(values, axis=-1, keepdims=True) / jnp.maximum(count, 1)
        return jnp.where(used, values - mean, 0)

    steps = centred(lags)
    below = jnp.sum(jnp.square(steps), axis=-1)
    slope = safe_divide(jnp.sum(steps * centred(log_norms), axis=-1), below)
    rates = marked(count[..., 0] < 2, slope)
    by_run, se_by_run = mean_and_error(rates)
    if by_run.ndim:
        runs = jnp.where(jnp.isfinite(by_run), by_run, jnp.inf)  # a run without a rate is left out
        rate, se = mean_and_error(runs.reshape(-1))
    else:
        rate, se = by_run, se_by_run
    return DecayRate(rate, se, by_run, se_by_run, rates)


@typed
def horizon(log_norms: Any, *, threshold: float = 1 / math.e) -> Horizon:
    """The last lag at which r(ℓ) = ‖∂L_τ/∂h_{τ−ℓ}‖ / ‖∂L_τ/∂h_τ‖ falls below a threshold, for good.

    How to read it: beyond the horizon a step has less than `threshold` of the gradient that the last step has; 1/e
    is the time constant of an exponential, 1e-3 the reach for practical purposes. A curve that has not fallen by
    the end of the sequence is censored: its horizon is longer than the sequence, and no number stands in for it.
    Do not average over the rest; give the median, or the share that is censored. Where part of the sequences vanish
    altogether (`vanished`) the mean curve is that of the others: look at `lags` then.

    Args:
      log_norms: `[…, B, T]`, ln of the norms by lag, from `gradient_flow(…).log_norms[layer]`.
      threshold: of r, between 0 and 1.

    Returns:
      The lag of the mean curve and of each sequence, in steps, and which of them are censored.

    Raises:
      ValueError: fewer than two axes, or a threshold outside (0, 1).

    >>> reach = horizon(jnp.stack([-0.4 * jnp.arange(8), -0.01 * jnp.arange(8)]))
    >>> reach.lags.round(2).tolist(), reach.censored_each.tolist(), round(float(reach.lag), 2)
    ([2.5, nan], [False, True], 4.88)
    """
    log_norms = _checked(log_norms)
    check_share(threshold, "threshold", ends="()")
    there = ~jnp.isnan(log_norms)
    logs = jnp.where(there, log_norms, 0)
    begun = there[..., :1] & jnp.isfinite(logs[..., :1])
    log_ratios, known = logs - jnp.where(begun, logs[..., :1], 0), there & begun
    level = math.log(threshold)
    lags, censored_each, longest = _last_crossing(log_ratios, known, level)
    lag, censored, _ = _last_crossing(*_mean_curve(log_ratios, known), level)
    last = jnp.take_along_axis(log_ratios, jnp.maximum(longest, 0)[..., None], axis=-1)[..., 0]
    vanished = masked_mean(jnp.isneginf(last).astype(logs.dtype), longest >= 0, -1)
    return Horizon(lag, censored, lags, censored_each, longest, vanished)


def _mean_curve(log_ratios: Array, known: Array) -> tuple[Array, Array]:
    """The mean over sequences of what is known and not −∞, `[…, B, T] → […, T]`, else −∞; and where it is known."""
    alive = known & ~jnp.isneginf(log_ratios)
    count = jnp.sum(alive, axis=-2)
    mean = jnp.sum(jnp.where(alive, log_ratios, 0), axis=-2) / jnp.maximum(count, 1)
    return jnp.where(count > 0, mean, -jnp.inf), jnp.any(known, axis=-2)


def _last_crossing(curves: Array, known: Array, level: float) -> tuple[Array, Array, Array]:
    """Where each curve `[…, T]` falls below the level for the last time, whether it never does, and its last lag."""
    num_steps = curves.shape[-1]
    lags = jnp.arange(num_steps)
    longest = jnp.max(jnp.where(known, lags, -1), axis=-1)
    above = jnp.max(jnp.where(known & (curves >= level), lags, -1), axis=-1)
    below = jnp.min(jnp.where(known & (lags > above[..., None]), lags, num_steps), axis=-1)
    censored = (above >= 0) & (below == num_steps)

    def at(places):
        places = jnp.clip(places, 0, num_steps - 1)[..., None]
        return jnp.take_along_axis(curves, places, axis=-1)[..., 0]

    high, low = at(above), at(below)
    high = jnp.where(jnp.isfinite(high), high, level)  # from ∞ it falls at the next lag
    share = jnp.where(jnp.isposinf(at(above)), 1, safe_divide(high - level, high - low))
    crossing = above + share * (below - above)  # at `above` itself if r is exactly 0 from here on
    return marked(censored | (above < 0), crossing), censored, longest


def _checked(log_norms: Any) -> Array:
    log_norms = getattr(
        log_norms, "log_norms", log_norms
    )  # of a whole record, to say which layers it has
    if isinstance(log_norms, Mapping):
        raise ValueError(
            f"log_norms must be those of one layer; got all of {list(log_norms)}. Take flow.log_norms['layer_0']."
        )
    log_norms = as_array(log_norms, "log_norms")
    if not isinstance(log_norms, Array):
        log_norms = jax.device_put(log_norms)  # its NaN are marks, which `jax_debug_nans` lets pass
    if log_norms.ndim < 2 or log_norms.shape[-1] == 0:
        raise ValueError(
            f"log_norms must be [..., B, T], such as flow.log_norms['layer_0']; got shape {log_norms.shape}."
        )
    return log_norms.astype(wide(log_norms.dtype))
