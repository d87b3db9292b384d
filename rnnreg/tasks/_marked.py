"""Two marked values among many, and a function of the two: adding, multiplication, exclusive or."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice, check_count
from rnnreg._signatures import typed
from rnnreg.data import Batch
from rnnreg.losses import softmax_cross_entropy, squared_error
from rnnreg.tasks._base import Task, sampler, within, wrong_class

_CORRECT = {"correct": within(0.04), "correct_squared": within(0.2)}


@typed
def adding(num_steps: int, *, marks: str = "halves", target: str = "sum") -> Task:
    """The sum of the two marked of T values from U[0, 1].

    Batch: xs `[N, T, 2]`, value and mark (1 at two steps, else 0); ys `[N, 1]`, the sum x_a + x_b or the mean.

    Loss: mean squared error; a blind guess of the mean has Var(x_a + x_b) = 1/6 = .1667 (often misquoted as .1767), or
    1/24 for the mean. Metrics, which must not be mixed up: `correct`, the share with |error| < .04, of which the
    blind guess has 1 − .96² = .0784 (mean: 1 − .92² = .1536); `correct_squared`, the share with error² < .04, of
    which it has .36 (mean: .64).

    Args:
      num_steps: T.
      marks: "halves" has one mark in each half (Arjovsky, Shah & Bengio 2016); "early" has one among the
        first 10 steps and another among the first T/2 (Hochreiter & Schmidhuber 1997).
      target: "sum" or "mean" of the two.

    Returns:
      The task, with its readout at the last step.

    Raises:
      ValueError: fewer than 4 steps, or an unknown word.

    >>> batch = adding(num_steps=6).sample(jax.random.key(0), 2)
    >>> values, marks = batch.xs[..., 0], batch.xs[..., 1]
    >>> bool(jnp.allclose(batch.ys[:, 0], (values * marks).sum(axis=1))), marks.sum(axis=1).tolist()
    (True, [2.0, 2.0])
    """
    shares = {"sum": 1.0, "mean": 0.5}
    check_choice(target, "target", shares)
    share = shares[target]

    def within_sum(bound):  # P(|x_a + x_b − 1| < s) = 1 − (1 − s)²
        return 1 - (1 - bound / share) ** 2

    return _marked_values(
        "adding",
        num_steps,
        marks,
        lambda a, b: share * (a + b),
        {
            "loss": share**2 / 6,
            "correct": within_sum(0.04),
            "correct_squared": within_sum(0.2),
        },
    )


@typed
def multiplication(num_steps: int, *, marks: str = "halves") -> Task:
    """The product of the two marked of T values from U[0, 1].

    Batch: as in `adding`; ys `[N, 1]`, the product x_a x_b.

    Loss: mean squared error; a blind guess of the mean ¼ has 1/9 − 1/16 = 7/144 = .0486. Metrics: `correct`, the share
    with |error| < .04, of which that guess has .1112; `correct_squared`, the share with error² < .04, of which it
    has .6095. (P(x_a x_b ≤ c) = c (1 − ln c). The constants that are best for the two criteria are other ones, .04
    and .2, and have .2821 and .7665: quote the share with the guess.)

    Args:
      num_steps: T.
      marks: "halves" or "early", as in `adding`.

    Returns:
      The task, with its readout at the last step.

    Raises:
      ValueError: fewer than 4 steps, or an unknown word.

    Source: Hochreiter & Schmidhuber 1997, experiment 5.

    >>> batch = multiplication(num_steps=6).sample(jax.random.key(0), 2)
    >>> marked = batch.xs[..., 0] ** batch.xs[..., 1]  # 1 where there is no mark
    >>> bool(jnp.allclose(batch.ys[:, 0], marked.prod(axis=1)))
    True
    """

    def at_most(c):
        return c * (1 - math.log(c))

    return _marked_values(
        "multiplication",
        num_steps,
        marks,
        lambda a, b: a * b,
        {
            "loss": 7 / 144,
            "correct": at_most(0.29) - at_most(0.21),
            "correct_squared": at_most(0.45) - at_most(0.05),
        },
    )


@typed
def xor(num_steps: int, *, marks: str = "halves") -> Task:
    """Whether the two marked of T random bits differ.

    It cannot be learnt one argument at a time: either bit alone says nothing of the class.

    Batch: xs `[N, T, 2]`, bit (0 or 1) and mark; ys `[N]`, class 1 where the two marked bits differ.

    Loss: cross-entropy in nats; a blind guess has ln 2. Metric `wrong`, the share of wrong classes; ½.

    Args:
      num_steps: T.
      marks: "halves" or "early", as in `adding`.

    Returns:
      The task, with its readout at the last step.

    Raises:
      ValueError: fewer than 4 steps, or an unknown word.

    >>> batch = xor(num_steps=6).sample(jax.random.key(0), 4)
    >>> bool(((batch.xs[..., 0] * batch.xs[..., 1]).sum(axis=1) % 2 == batch.ys).all())
    True
    """
    place = _places(num_steps, marks)

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        key_bits, key_marks = jax.random.split(key)
        bits = jax.random.bernoulli(key_bits, 0.5, (num_rows, num_steps))
        first, second = place(key_marks, num_rows)
        xs = _with_marks(bits.astype(jnp.result_type(float)), first, second)
        return Batch(xs=xs, ys=(_at(bits, first) ^ _at(bits, second)).astype(jnp.int32))

    return Task(
        name="xor",
        sample=sample,
        loss=softmax_cross_entropy("mean"),
        metrics={"wrong": wrong_class()},
        baseline={"loss": math.log(2), "wrong": 0.5},
        num_steps=num_steps,
        input_size=2,
        output_size=2,
        readout="last",
    )


def _marked_values(
    name: str,
    num_steps: int,
    marks: str,
    answer: Callable[[Array, Array], Array],
    baseline: dict[str, float],
) -> Task:
    place = _places(num_steps, marks)

    @sampler
    def sample(key: Array, num_rows: int) -> Batch:
        key_values, key_marks = jax.random.split(key)
        values = jax.random.uniform(key_values, (num_rows, num_steps))
        first, second = place(key_marks, num_rows)
        ys = answer(_at(values, first), _at(values, second))[:, None]
        return Batch(xs=_with_marks(values, first, second), ys=ys)

    return Task(
        name=name,
        sample=sample,
        loss=squared_error("mean"),
        metrics=_CORRECT,
        baseline=baseline,
        num_steps=num_steps,
        input_size=2,
        output_size=1,
        readout="last",
    )


def _places(num_steps: int, marks: str) -> Callable[[Array, int], tuple[Array, Array]]:
    """`place(key, num_rows) -> (first, second)`, the steps of the two marks, never the same."""
    check_count(num_steps, "num_steps", least=4, hint="Each half holds a mark.")
    half = num_steps // 2

    def halves(key, num_rows):
        key_first, key_second = jax.random.split(key)
        first = jax.random.randint(key_first, (num_rows,), 0, half)
        return first, jax.random.randint(key_second, (num_rows,), half, num_steps)

    def early(key, num_rows):
        key_first, key_second = jax.random.split(key)
        first = jax.random.randint(key_first, (num_rows,), 0, min(10, half))
        other = jax.random.randint(key_second, (num_rows,), 0, half - 1)
        return first, jnp.where(other >= first, other + 1, other)  # uniform over the other steps

    placings = {"halves": halves, "early": early}
    check_choice(marks, "marks", placings)
    return placings[marks]


def _with_marks(values: Array, first: Array, second: Array) -> Array:
    marks = sum(jax.nn.one_hot(at, values.shape[1], dtype=values.dtype) for at in (first, second))
    return jnp.stack([values, marks], axis=-1)


def _at(values: Array, steps: Array) -> Array:
    return jnp.take_along_axis(values, steps[:, None], axis=1)[:, 0]
