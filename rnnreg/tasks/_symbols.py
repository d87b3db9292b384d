"""Sequences of symbols, one-hot: which came first, which was the first of all, and all of them again."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count
from rnnreg._signatures import typed
from rnnreg.data import Batch
from rnnreg.losses import softmax_cross_entropy
from rnnreg.tasks._base import Task, sampler, wrong_class


@typed
def temporal_order(num_steps: int) -> Task:
    """Which of two symbols came at each of two places, in order: 4 classes.

    Symbols 0 and 1 carry the two bits, one at a step of [T/10, T/5), one of [T/2, 3T/5); all other steps are
    distractors 2 … 5.

    Batch: xs `[N, T, 6]` one-hot; ys `[N]`, class b_0 + 2 b_1.

    Loss: cross-entropy in nats; a blind guess has ln 4 = 1.386. Metric `wrong`, the share of wrong classes; 75 %.

    Args:
      num_steps: T, 10 or more.

    Returns:
      The task, with its readout at the last step.

    Raises:
      ValueError: fewer than 10 steps.

    Source: Pascanu, Mikolov & Bengio 2013 and their code (six symbols; Hochreiter & Schmidhuber 1997 have eight).

    >>> batch = temporal_order(num_steps=10).sample(jax.random.key(0), 3)
    >>> symbols = batch.xs.argmax(axis=-1)
    >>> bool((symbols[:, 1] + 2 * symbols[:, 5] == batch.ys).all())
    True
    """
    return _order("temporal_order", num_steps, (0.1, 0.5))


@typed
def three_bit_order(num_steps: int) -> Task:
    """Which of two symbols came at each of three places, in order: 8 classes.

    As `temporal_order`, with bits at a step of [T/10, T/5), [3T/10, 2T/5) and [3T/5, 7T/10).

    Batch: xs `[N, T, 6]` one-hot; ys `[N]`, class b_0 + 2 b_1 + 4 b_2.

    Loss: cross-entropy in nats; a blind guess has ln 8 = 2.079. Metric `wrong`, the share of wrong classes; 87.5 %.

    Args:
      num_steps: T, 10 or more.

    Returns:
      The task, with its readout at the last step.

    Raises:
      ValueError: fewer than 10 steps.

    Source: Pascanu, Mikolov & Bengio 2013 and their code.

    >>> batch = three_bit_order(num_steps=10).sample(jax.random.key(0), 3)
    >>> symbols = batch.xs.argmax(axis=-1)
    >>> bool((symbols[:, 1] + 2 * symbols[:, 3] + 4 * symbols[:, 6] == batch.ys).all())
    True
    """
    return _order("three_bit_order", num_steps, (0.1, 0.3, 0.6))


@typed
def random_permutation(num_steps: int, *, num_symbols: int = 100) -> Task:
    """The first symbol again, after T − 1 others that say nothing.

    The first symbol is 0 or 1; the others are drawn from 2 … S − 1. (The name is the literature's; symbols may repeat,
    as in its code.)

    Batch: xs `[N, T, S]` one-hot; ys `[N]`, the first symbol.

    Loss: cross-entropy in nats over all S symbols; a blind guess that knows which two occur has ln 2. Metric
    `wrong`, the share of wrong symbols; ½.

    Args:
      num_steps: T.
      num_symbols: S.

    Returns:
      The task, with its readout at the last step.

    Source: Pascanu, Mikolov & Bengio 2013 and their code, after Martens & Sutskever 2011.

    >>> batch = random_permutation(num_steps=5, num_symbols=8).sample(jax.random.key(0), 3)
    >>> bool((batch.xs[:, 0].argmax(axis=-1) == batch.ys).all())
    True
    """
    check_count(num_steps, "num_steps")
    check_count(num_symbols, "num_symbols", least=3, hint="Two are remembered and one distracts.")

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        key_first, key_rest = jax.random.split(key)
        first = jax.random.randint(key_first, (num_rows,), 0, 2)
        symbols = jax.random.randint(key_rest, (num_rows, num_steps), 2, num_symbols)
        return Batch(xs=_one_hot(symbols.at[:, 0].set(first), num_symbols), ys=first)

    return Task(
        name="random_permutation",
        sample=sample,
        loss=softmax_cross_entropy("mean"),
        metrics={"wrong": wrong_class()},
        baseline={"loss": math.log(2), "wrong": 0.5},
        num_steps=num_steps,
        input_size=num_symbols,
        output_size=num_symbols,
        readout="last",
    )


@typed
def memorisation(delay: int, *, num_copied: int = 10, num_symbols: int = 5) -> Task:
    """K symbols, `delay` blanks, a trigger; from the trigger on, the K symbols again.

    Symbols are 0 … S − 1, the blank is S, the trigger (in place of a blank, at step K + `delay`) is S + 1.

    Batch: xs `[N, delay + 2K, S + 2]` one-hot; ys `[N, delay + 2K]`: the blank, then the K symbols.

    Loss: cross-entropy in nats, the mean over all steps; a blind guess knows when symbols are asked for, but not which:
    K ln S / (delay + 2K), .2299, .1341 and .0732 for a delay of 50, 100 and 200. Metric `wrong`, the share of wrong
    symbols among the last K; 1 − 1/S.

    Args:
      delay: blanks between the symbols and the trigger.
      num_copied: K.
      num_symbols: S.

    Returns:
      The task, with a readout at every step.

    Source: Pascanu, Mikolov & Bengio 2013 and their code ("noiseless memorization").

    >>> task = memorisation(delay=3, num_copied=2)
    >>> batch = task.sample(jax.random.key(0), 1)
    >>> (batch.xs[0].argmax(axis=-1) == jnp.array([*batch.ys[0, -2:], 5, 5, 5, 6, 5])).all().item()
    True
    >>> batch.ys[0, :5].tolist()
    [5, 5, 5, 5, 5]
    """
    check_count(delay, "delay", least=0)
    return _copied("memorisation", delay, num_copied, num_symbols, blank=num_symbols, early=False)


@typed
def copy_memory(delay: int, *, num_copied: int = 10, num_symbols: int = 8) -> Task:
    """K symbols, `delay` − 1 blanks, a delimiter, K blanks: the K symbols are asked for in place of the last.

    The blank is 0, symbols are 1 … S, the delimiter (at step K + `delay` − 1, one before the answer) is S + 1.

    Batch: xs `[N, delay + 2K, S + 2]` one-hot; ys `[N, delay + 2K]`: blanks, then the K symbols.

    Loss: cross-entropy in nats, the mean over all steps; a blind guess knows when symbols are asked for, but not which:
    K ln S / (delay + 2K), .1733 and .0945 for a delay of 100 and 200. Metric `wrong`, the share of wrong symbols among
    the last K; 1 − 1/S.

    Args:
      delay: T.
      num_copied: K.
      num_symbols: S.

    Returns:
      The task, with a readout at every step.

    Source: Arjovsky, Shah & Bengio 2016, section 4.1.

    >>> task = copy_memory(delay=3, num_copied=2)
    >>> batch = task.sample(jax.random.key(0), 1)
    >>> (batch.xs[0].argmax(axis=-1) == jnp.array([*batch.ys[0, -2:], 0, 0, 9, 0, 0])).all().item()
    True
    >>> batch.ys[0, :5].tolist(), round(copy_memory(delay=100).baseline["loss"], 4)
    ([0, 0, 0, 0, 0], 0.1733)
    """
    check_count(delay, "delay")
    return _copied("copy_memory", delay, num_copied, num_symbols, blank=0, early=True)


def _order(name: str, num_steps: int, starts: tuple[float, ...]) -> Task:
    check_count(num_steps, "num_steps", least=10, hint="A place is a tenth of the sequence.")
    num_classes = 2 ** len(starts)

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        key_rest, key_bits, key_places = jax.random.split(key, 3)
        symbols = jax.random.randint(key_rest, (num_rows, num_steps), 2, 6)
        bits = jax.random.randint(key_bits, (num_rows, len(starts)), 0, 2)
        offsets = jax.random.randint(key_places, (num_rows, len(starts)), 0, int(0.1 * num_steps))
        rows = jnp.arange(num_rows)
        for place, start in enumerate(starts):
            at = int(start * num_steps) + offsets[:, place]
            symbols = symbols.at[rows, at].set(bits[:, place])
        classes = sum(2**place * bits[:, place] for place in range(len(starts)))
        return Batch(xs=_one_hot(symbols, 6), ys=classes)

    return Task(
        name=name,
        sample=sample,
        loss=softmax_cross_entropy("mean"),
        metrics={"wrong": wrong_class()},
        baseline={"loss": math.log(num_classes), "wrong": 1 - 1 / num_classes},
        num_steps=num_steps,
        input_size=6,
        output_size=num_classes,
        readout="last",
    )


def _copied(
    name: str, delay: int, num_copied: int, num_symbols: int, *, blank: int, early: bool
) -> Task:
    """`early`: the signal stands one step before the first answer, not at it."""
    check_count(num_copied, "num_copied")
    check_count(num_symbols, "num_symbols", least=2)
    num_steps = delay + 2 * num_copied
    first_symbol = 1 if blank == 0 else 0

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        symbols = jax.random.randint(key, (num_rows, num_copied), 0, num_symbols) + first_symbol
        blanks = jnp.full((num_rows, num_steps), blank, symbols.dtype)
        inputs = blanks.at[:, :num_copied].set(symbols)
        inputs = inputs.at[:, num_copied + delay - int(early)].set(num_symbols + 1)
        return Batch(
            xs=_one_hot(inputs, num_symbols + 2), ys=blanks.at[:, -num_copied:].set(symbols)
        )

    return Task(
        name=name,
        sample=sample,
        loss=softmax_cross_entropy("mean"),
        metrics={"wrong": wrong_class(num_copied)},
        baseline={
            "loss": num_copied * math.log(num_symbols) / num_steps,
            "wrong": 1 - 1 / num_symbols,
        },
        num_steps=num_steps,
        input_size=num_symbols + 2,
        output_size=num_symbols + 1,
        readout="all",
    )


def _one_hot(symbols: Array, num_symbols: int) -> Array:
    return jax.nn.one_hot(symbols, num_symbols, dtype=jnp.result_type(float))
