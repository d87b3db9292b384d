"""λ over training: a penalty whose strength follows a schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_function, described
from rnnreg._signatures import typed
from rnnreg.penalties._base import Penalty


class Scheduled(NamedTuple):
    """The state of a scheduled penalty.

    Attributes:
      count: updates so far.
      inner: the state of the penalty itself.
    """

    count: Array
    inner: Any


@typed
def scheduled(penalty: Penalty, schedule: Callable[[Array], Any]) -> Penalty:
    """s(n) R at update n: a warm-up, an annealing or a pulse of the strength, λ_n = λ s(n).

    The shape s is fixed, and λ stays a traced value of `hyper`, so that a path of λ sweeps the height of the schedule.
    An update goes by s(n) R, and its `info.penalties` has that. Reports (histories, `metrics`, `penalty(params)`) have
    R itself, which is comparable from epoch to epoch and with runs of constant λ.

    Args:
      penalty: R.
      schedule: s(n), a function of the number of updates before this one, n = 0, 1, …, such as
        `optax.linear_schedule(0, 1, 100)`. An update is one minibatch, or one segment of it (`segment_steps`).

    Returns:
      The penalty; it remembers the count beside what `penalty` remembers.

    Raises:
      ValueError: a schedule that is no function, or that returns no number.

    >>> import optax, rnnreg as rr
    >>> penalty = scheduled(rr.penalties.l2(), optax.linear_schedule(0, 1, 100))
    >>> params = {"W_hh": 2 * jnp.ones((1, 1))}
    >>> context, state = rr.penalties.Context(outputs=None, train=True), penalty.init(params)._replace(count=50)
    >>> float(penalty.value(params, context, state)[0]), float(penalty(params))
    (2.0, 4.0)
    """
    if not isinstance(penalty, Penalty):
        raise ValueError(
            f"scheduled takes a Penalty, such as rr.penalties.l2(); got {described(penalty)}."
        )
    check_function(schedule, "schedule", "schedule(count) -> number")
    first = np.shape(schedule(jnp.int32(0)))
    if first:
        raise ValueError(f"schedule must return one number; schedule(0) has the shape {first}.")

    def init(params):
        return Scheduled(jnp.int32(0), penalty.init(params))

    def value(params, context, state):
        R, inner = penalty.value(params, context, state.inner)
        if context is not None and context.train:
            R = R * jnp.asarray(schedule(state.count), R.dtype)
        return R, Scheduled(state.count + 1, inner)

    def prox(params, amount, weight_paths=None, state=None):
        inner = None if state is None else state.inner
        return penalty.prox(params, amount, weight_paths, inner)  # type: ignore[misc]

    def strength(state):
        inner = penalty.strength
        return schedule(state.count) * (1 if inner is None else inner(state.inner))

    return replace(
        penalty,  # with all of its other facts
        init=init,
        value=value,
        name="scheduled",
        arguments=(("penalty", penalty), ("schedule", schedule)),
        prox=None if penalty.prox is None else prox,
        strength=strength,
    )
