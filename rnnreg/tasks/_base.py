"""What a task is, and the scores that several tasks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count
from rnnreg._linalg import safe_divide
from rnnreg._memory import check_made
from rnnreg._signatures import typed_with
from rnnreg.data import Batch
from rnnreg.losses import Loss
from rnnreg.metrics import Score


class Task(NamedTuple):
    """A distribution of sequences, how an answer is scored, and what the best blind guess scores.

    The blind guess is the predictor that does not look at its input and has the least loss: one constant, or with a
    readout at every step one constant a step. A network that is no better has remembered nothing.

    Attributes:
      name: the task's, for records and figures.
      sample: `sample(key, num_rows) -> Batch` of independent rows; pure, to be jitted with `num_rows` static.
      loss: the loss that the task is trained on.
      metrics: further scores by name, to be given to `make_train(metrics=…)`.
      baseline: by name, what the blind guess scores: "loss", and each of the metrics.
      num_steps: steps of a row.
      input_size: D.
      output_size: O: numbers to predict, or classes.
      readout: "last" or "all", of the network that the task asks for.
    """

    name: str
    sample: Callable[[Array, int], Batch]
    loss: Loss
    metrics: Mapping[str, Score]
    baseline: Mapping[str, float]
    num_steps: int
    input_size: int
    output_size: int
    readout: str


def sampler(sample: Callable[[Array, int], Batch]) -> Callable[[Array, int], Batch]:
    """`sample(key, num_rows)` of a task, which says what is wrong with a key or a number of rows."""

    def checked(key: Array, num_rows: int) -> Batch:
        check_count(num_rows, "num_rows", least=0, hint="It is static under jax.jit.")
        try:
            shapes = jax.eval_shape(lambda key: sample(key, num_rows), key)
        except OverflowError as error:
            raise ValueError(
                f"the task has steps beyond 32 bits: make a shorter one ({error})."
            ) from error
        check_made(shapes, f"a batch of {num_rows} rows", "Take fewer rows, or a shorter task.")
        return sample(key, num_rows)

    return typed_with(num_rows="It is static under jax.jit.")(checked)


def within(bound: float) -> Score:
    """The share of rows whose one output misses its target by less than `bound`."""

    def score(outputs, ys, mask=None, weights=None):
        del mask
        return mean_over_rows(jnp.abs(outputs - ys)[:, 0] < bound, weights)

    return Score(score, maximise=True)


def wrong_class(last_steps: int | None = None) -> Score:
    """The share of wrong classes, over all steps of a row or over its last ones."""

    def score(outputs, ys, mask=None, weights=None):
        del mask
        wrong = jnp.argmax(outputs, axis=-1) != ys
        if wrong.ndim == 2:
            wrong = wrong[:, slice(None) if last_steps is None else slice(-last_steps, None)]
        return mean_over_rows(wrong, weights)

    return Score(score, maximise=False)


def wrong_sign() -> Score:
    """The share of targets ±1 whose sign the output misses; an output of exactly 0 misses half of them."""

    def score(outputs, ys, mask=None, weights=None):
        del mask
        signs = jnp.sign(outputs) * jnp.sign(ys)
        return mean_over_rows((1 - signs) / 2, weights)

    return Score(score, maximise=False)


def mean_over_rows(values: Array, weights: Array | None) -> Array:
    """The mean over everything, rows (or the last steps) counted by their weights."""
    values = values.astype(jnp.result_type(float))
    by_step = weights is not None and weights.ndim == 2
    values = values.reshape(*values.shape[: 1 + by_step], -1).mean(axis=-1)
    if weights is None:
        return values.mean()
    weights = (weights[:, -values.shape[1] :] if by_step else weights).astype(values.dtype)
    return safe_divide(jnp.sum(values * weights), weights.sum())
