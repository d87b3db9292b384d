"""Bits that are held: for a while after one look, or until the next pulse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, check_share
from rnnreg._signatures import Number, typed
from rnnreg.data import Batch
from rnnreg.losses import squared_error
from rnnreg.tasks._base import Task, sampler, wrong_sign


@typed
def delayed_recall(delay: int, *, num_bits: int = 1) -> Task:
    """K bits u ∈ {±1}^K at step 0, `delay` silent steps, then u is asked for.

    The smallest task of memory: its 2^K patterns are a full batch, so that a loss has no sampling noise. With h after
    the last step, y = h W_hy has seen `delay` products with W_hh between W_xh and W_hy.

    Batch: xs `[N, delay + 1, K]`, zero after step 0; ys `[N, K]`. Row i is pattern i mod 2^K: give `num_rows=2**K`, or
    a multiple of it, for the full batch. The key is not used.

    Loss: mean squared error; a blind guess (y = 0) has 1. Metric `wrong`: share of bits whose sign is missed; ½.

    Args:
      delay: T, silent steps after step 0.
      num_bits: K.

    Returns:
      The task, with its readout at the last step.

    >>> task = delayed_recall(delay=2, num_bits=2)
    >>> batch = task.sample(jax.random.key(0), 4)
    >>> batch.ys.tolist()
    [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]
    >>> batch.xs[1].tolist()
    [[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]
    """
    check_count(delay, "delay", least=0)
    check_count(num_bits, "num_bits")

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        del key
        patterns = jnp.arange(num_rows)[:, None] // 2 ** jnp.arange(num_bits)[None, :]
        bits = (2 * (patterns % 2) - 1).astype(jnp.result_type(float))
        silence = jnp.zeros((num_rows, delay, num_bits), bits.dtype)
        return Batch(xs=jnp.concatenate([bits[:, None], silence], axis=1), ys=bits)

    return Task(
        name="delayed_recall",
        sample=sample,
        loss=squared_error("mean"),
        metrics={"wrong": wrong_sign()},
        baseline={"loss": 1.0, "wrong": 0.5},
        num_steps=delay + 1,
        input_size=num_bits,
        output_size=num_bits,
        readout="last",
    )


@typed
def flip_flop(num_steps: int, *, num_bits: int = 3, pulse_rate: Number = 0.1) -> Task:
    """Each of K channels answers with the sign of its last pulse.

    A trained network holds 2^K states between pulses. At step 0 every channel has a pulse, so that every target is
    defined; afterwards a channel has one with probability `pulse_rate` a step, +1 or −1 alike.

    Batch: xs `[N, T, K]` in {−1, 0, 1}; ys `[N, T, K]` in {−1, 1}.

    Loss: mean squared error; a blind guess (y = 0) has 1. Metric `wrong`: share of signs that are missed; ½.

    Args:
      num_steps: T.
      num_bits: K.
      pulse_rate: probability of a pulse a step and channel; may be traced.

    Returns:
      The task, with a readout at every step.

    Source: Sussillo & Barak 2013, "Opening the black box" (their flip-flop; rates and first step are ours).

    >>> task = flip_flop(num_steps=6)
    >>> batch = task.sample(jax.random.key(0), 2)
    >>> batch.xs.shape, bool((batch.ys[:, 0] == batch.xs[:, 0]).all())
    ((2, 6, 3), True)
    """
    check_count(num_steps, "num_steps")
    check_count(num_bits, "num_bits")
    check_share(pulse_rate, "pulse_rate")

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        key_pulse, key_sign = jax.random.split(key)
        shape = (num_rows, num_steps, num_bits)
        pulses = jax.random.bernoulli(key_pulse, pulse_rate, shape).at[:, 0].set(True)
        signs = jax.random.rademacher(key_sign, shape, jnp.result_type(float))
        steps = jnp.broadcast_to(jnp.arange(num_steps)[None, :, None], shape)
        last = jax.lax.cummax(jnp.where(pulses, steps, 0), axis=1)
        return Batch(xs=jnp.where(pulses, signs, 0), ys=jnp.take_along_axis(signs, last, axis=1))

    return Task(
        name="flip_flop",
        sample=sample,
        loss=squared_error("mean"),
        metrics={"wrong": wrong_sign()},
        baseline={"loss": 1.0, "wrong": 0.5},
        num_steps=num_steps,
        input_size=num_bits,
        output_size=num_bits,
        readout="all",
    )
