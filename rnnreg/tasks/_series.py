"""Series to be forecast one step ahead: two chaotic systems, a driven one, and a sum of sines.

Each is scaled by constants of its stationary distribution, so that a blind guess (the mean) has a loss of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, check_share
from rnnreg._signatures import typed
from rnnreg.data import Batch
from rnnreg.losses import squared_error
from rnnreg.metrics import Score
from rnnreg.tasks._base import Task, sampler

# Stationary means and standard deviations, of 4·10⁶ values each in float64 (standard errors at or below 3 in the last
# digit). Lorenz: x and y have mean 0 by symmetry, and ⟨x²⟩ = ⟨xy⟩ = 8⟨z⟩/3 exactly.
_LORENZ_MEAN, _LORENZ_SCALE = (0.0, 0.0, 23.549), (7.924, 9.010, 8.623)
_MACKEY_GLASS_MEAN, _MACKEY_GLASS_SCALE = 0.9285, 0.2281
_NARMA_MEAN, _NARMA_SCALE = 0.3883, 0.1092  # of rows of 200 steps
_NARMA_ESCAPE = 2.0  # from a steady y above 1.24 even u = 0 does not bring it back


@typed
def lorenz(num_steps: int, *, dt: float = 0.03) -> Task:
    """ẋ = 10 (y − x), ẏ = x (28 − z) − y, ż = xy − 8z/3: the next state from the states so far.

    Runge–Kutta steps of `dt` after 40 time units on the way to the attractor. The largest Lyapunov exponent is about
    .9 a time unit, so an error doubles every ln 2 / (.9 dt) steps.

    Batch: xs `[N, T, 3]`, the state, scaled; ys `[N, T, 3]`, the state one step later.

    Loss: mean squared error; a blind guess has 1. Metric `nrmse`, its root.

    Args:
      num_steps: T.
      dt: time between two steps.

    Returns:
      The task, with a readout at every step.

    Raises:
      ValueError: a `dt` at which the integration is not to be trusted.

    Source: Lorenz 1963.

    >>> batch = lorenz(num_steps=5).sample(jax.random.key(0), 2)
    >>> bool(jnp.array_equal(batch.xs[:, 1:], batch.ys[:, :-1]))
    True
    """
    check_count(num_steps, "num_steps")
    check_share(dt, "dt", most=0.05, ends="(]", hint="There Runge–Kutta follows the flow.")

    def flow(state):
        x, y, z = state[..., 0], state[..., 1], state[..., 2]
        return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=-1)

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        mean, scale = (
            jnp.asarray(value, jnp.result_type(float)) for value in (_LORENZ_MEAN, _LORENZ_SCALE)
        )
        # From near the origin: a start near one of the two unstable spirals would stay there for long.
        start = jax.lax.fori_loop(
            0,
            math.ceil(40 / dt),
            lambda _, state: _runge_kutta(flow, state, dt),
            jax.random.normal(key, (num_rows, 3)),
        )

        def step(state, _):
            return _runge_kutta(flow, state, dt), state

        _, states = jax.lax.scan(step, start, length=num_steps + 1)
        return _one_ahead(jnp.swapaxes((states - mean[None, None]) / scale[None, None], 0, 1))

    return _series("lorenz", sample, num_steps, 3)


@typed
def mackey_glass(num_steps: int, *, delay: int = 17) -> Task:
    """ẋ = .2 x(t−τ) / (1 + x(t−τ)¹⁰) − .1 x: the next value from the values so far.

    Runge–Kutta steps of 1 with the delayed value held within a step, after 500 to 1,500 steps from a constant past.

    Batch: xs `[N, T, 1]`, the value, scaled; ys `[N, T, 1]`, the value one step later.

    Loss: mean squared error; a blind guess has 1 (at the default delay; the scale is fixed). Metric `nrmse`, its
    root.

    Args:
      num_steps: T.
      delay: τ in steps; chaotic from about 17.

    Returns:
      The task, with a readout at every step.

    Source: Mackey & Glass 1977; this discretisation is reservoirpy's.

    >>> batch = mackey_glass(num_steps=5).sample(jax.random.key(0), 2)
    >>> bool(jnp.array_equal(batch.xs[:, 1:], batch.ys[:, :-1]))
    True
    """
    check_count(num_steps, "num_steps")
    check_count(delay, "delay")

    def step(past, _):  # [N, τ + 1], the newest value last
        pull = past[:, 0]
        gain = 0.2 * pull / (1 + pull**10)
        new = _runge_kutta(lambda x: gain - 0.1 * x, past[:, -1], 1.0)
        return jnp.concatenate([past[:, 1:], new[:, None]], axis=1), past[:, -1]

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        key_start, key_wait = jax.random.split(key)
        start = jax.random.uniform(key_start, (num_rows, 1), minval=0.5, maxval=1.3)
        past = jnp.broadcast_to(start, (num_rows, delay + 1))
        # Rows start at times of their own, since phases mix slowly.
        wait = jax.random.randint(key_wait, (num_rows, 1), 500, 1500)

        def settle(turn, past):
            return jnp.where(turn < wait, step(past, None)[0], past)

        past = jax.lax.fori_loop(0, 1500, settle, past)
        _, values = jax.lax.scan(step, past, length=num_steps + 1)
        return _one_ahead((values.T[..., None] - _MACKEY_GLASS_MEAN) / _MACKEY_GLASS_SCALE)

    return _series("mackey_glass", sample, num_steps, 1)


@typed
def narma10(num_steps: int) -> Task:
    """y_{t+1} = .3 y_t + .05 y_t Σ_{i=0…9} y_{t−i} + 1.5 u_{t−9} u_t + .1: y from u ~ U[0, ½] alone.

    A row that runs off to infinity (u is rarely large for so long) is drawn again.

    Batch: xs `[N, T, 1]`, u_t, scaled to mean 0 and variance 1; ys `[N, T, 1]`, y_{t+1}, scaled. The first nine targets
    hang on inputs before the row's start.

    Loss: mean squared error; a blind guess has 1 (to 1 %: the longer the row, the more of the rare large values fall to
    the redrawing). Metric `nrmse`, its root.

    Args:
      num_steps: T.

    Returns:
      The task, with a readout at every step.

    Source: Atiya & Parlos 2000.

    >>> batch = narma10(num_steps=12).sample(jax.random.key(0), 2)
    >>> batch.xs.shape, batch.ys.shape
    ((2, 12, 1), (2, 12, 1))
    """
    check_count(num_steps, "num_steps")
    washout = 100

    def step(carry, u):
        ys, us = carry  # the last ten of each, the newest last
        us = jnp.append(us[1:], u)
        y = 0.3 * ys[-1] + 0.05 * ys[-1] * ys.sum() + 1.5 * us[0] * u + 0.1
        return (jnp.append(ys[1:], y), us), y

    def draw(key):
        us = jax.random.uniform(key, (washout + num_steps,), maxval=0.5)
        zeros = jnp.zeros(10, us.dtype)
        _, ys = jax.lax.scan(step, (zeros, zeros), us)
        return us[washout:], ys[washout:], jnp.all(ys < _NARMA_ESCAPE)  # NaN is not < 2 either

    def row(key):
        def again(carry):
            key, _ = carry
            key, key_draw = jax.random.split(key)
            return key, draw(key_draw)

        _, (us, ys, _) = jax.lax.while_loop(lambda carry: ~carry[1][2], again, again((key, None)))
        return us, ys

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        us, ys = jax.vmap(row)(jax.random.split(key, num_rows))
        return Batch(
            xs=((us - 0.25) * math.sqrt(48))[..., None],
            ys=((ys - _NARMA_MEAN) / _NARMA_SCALE)[..., None],
        )

    return _series("narma10", sample, num_steps, 1)


@typed
def sines(
    num_steps: int,
    *,
    frequencies: tuple[float, ...] = (0.2, 0.311, 0.42, 0.51, 0.63, 0.74, 0.85, 0.97),
) -> Task:
    """√(2/K) Σ_k sin(φ_k t + θ_k): the next value of a sum of K sines from the values so far.

    Each row has phases θ_k of its own, uniform, so that its variance is 1 exactly. The series obeys a linear recurrence
    of order 2K, so a linear network of 2K units can be exact.

    Batch: xs `[N, T, 1]`, the value; ys `[N, T, 1]`, the value one step later.

    Loss: mean squared error; a blind guess has 1. Metric `nrmse`, its root.

    Args:
      num_steps: T.
      frequencies: φ, in radians a step; the default is the multiple superimposed oscillator of eight sines.

    Returns:
      The task, with a readout at every step.

    Raises:
      ValueError: no frequency.

    >>> batch = sines(num_steps=4, frequencies=(0.5,)).sample(jax.random.key(0), 1)
    >>> x = batch.xs[0, :, 0]
    >>> bool(abs(x[2] - (2 * jnp.cos(0.5) * x[1] - x[0])) < 1e-5)  # a sine's recurrence
    True
    """
    check_count(num_steps, "num_steps")
    if not len(frequencies):
        raise ValueError("frequencies must hold at least one number, in radians a step.")

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        dtype = jnp.result_type(float)
        omega = jnp.asarray(frequencies, dtype)
        phases = jax.random.uniform(key, (num_rows, 1, len(omega)), dtype, maxval=2 * math.pi)
        times = jnp.arange(num_steps + 1, dtype=dtype)
        angles = times[None, :, None] * omega[None, None, :] + phases
        values = math.sqrt(2 / len(omega)) * jnp.sin(angles).sum(axis=-1)
        return _one_ahead(values[..., None])

    return _series("sines", sample, num_steps, 1)


def _series(name: str, sample: Callable[..., Batch], num_steps: int, size: int) -> Task:
    loss = squared_error("mean")

    def nrmse(outputs, ys, mask=None, weights=None):
        return jnp.sqrt(loss(outputs, ys, mask, weights))

    return Task(
        name=name,
        sample=sample,
        loss=loss,
        metrics={"nrmse": Score(nrmse, maximise=False)},
        baseline={"loss": 1.0, "nrmse": 1.0},
        num_steps=num_steps,
        input_size=size,
        output_size=size,
        readout="all",
    )


def _runge_kutta(flow: Callable[[Array], Array], state: Array, dt: Any) -> Array:
    one = flow(state)
    two = flow(state + dt / 2 * one)
    three = flow(state + dt / 2 * two)
    four = flow(state + dt * three)
    return state + dt / 6 * (one + 2 * two + 2 * three + four)


def _one_ahead(values: Array) -> Batch:
    return Batch(xs=values[:, :-1], ys=values[:, 1:])
