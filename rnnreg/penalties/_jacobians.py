"""Penalties on the Jacobians J_t = ∂h_t/∂h_{t−1} of a network along its data: their norm, their Lyapunov exponents."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, check_every, check_key, check_number
from rnnreg._linalg import each, pushed, safe_divide, starting_frame, wide
from rnnreg._signatures import Number, typed
from rnnreg.penalties._base import Penalty
from rnnreg.penalties._passes import (
    FlatPass,
    Layers,
    check_layers,
    chosen_visits,
    flat_pass,
    mean_over_steps,
    rows_of,
)


@typed
def jacobian_norm(
    layers: Layers = "*", *, num_directions: int | None = None, key: Array | None = None
) -> Penalty:
    """mean_b mean_t ‖J_t‖_F² / n, the mean squared singular value of the steps J_t = ∂h_t/∂h_{t−1} along the data.

    h is all that the cell carries, n numbers (h and c of an LSTM). With `num_directions`, ‖J_t r‖² / n of random r with
    entries ±1 stands for it, whose expectation it is (Hutchinson): each step of each row, and each update, has its own.
    The derivative is that of the number, through the states too.

    Cost: on a CPU about 4 training steps on top of one for each direction (H = 64, T = 100), which run one by one; n of
    them without `num_directions`.

    Args:
      layers: "*", "last", or patterns of names: "layer_0", "layer_1/backward".
      num_directions: random directions a step; None takes all n unit vectors, which is exact.
      key: of the directions, needed with `num_directions`; the number of the update is folded in.

    Returns:
      The penalty, whose state counts updates if it draws.

    Raises:
      ValueError: layers that are not patterns, a number of directions without a key, or a key without one; in an
        objective, a pattern that matches no layer, or a network that is known as a function.

    Source: Hoffman, Roberts & Yaida 2019, "Robust learning with Jacobian regularization", arXiv:1908.02729 (random
    projections of J); Bai, Koltun & Kolter 2021, "Stabilizing equilibrium models by Jacobian regularization",
    arXiv:2106.14342 (of a state to state map, over n).

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(2, activation="identity", recurrent_init=rr.cells.identity(3.0))], 1)
    >>> objective = rr.make_objective(net, rr.losses.squared_error("mean"), {"jacobian": jacobian_norm()})
    >>> batch, params = rr.Batch(jnp.ones((1, 5, 1)), jnp.ones((1, 5, 1))), net.init(jax.random.key(0), 1)
    >>> parts = objective(params, {"jacobian": 0.1}, batch, {"jacobian": ()}, key=None, train=False)[1][0]
    >>> float(parts.penalties["jacobian"])
    9.0
    """
    check_layers(layers)
    if num_directions is not None:
        check_count(num_directions, "num_directions", hint="None takes all of them.")
        check_key(key)
    elif key is not None:
        raise ValueError("key draws random directions; give num_directions=…, or no key.")

    def value(params, context, state):
        parts = []
        for number, visit in enumerate(chosen_visits(context, layers)):
            own = (
                None if key is None else jax.random.fold_in(jax.random.fold_in(key, state), number)
            )
            squares, steps = _squares(visit, context, num_directions, own)
            parts.append(mean_over_steps(squares.T, steps.counted.T, context.weights))
        return jnp.stack(parts).mean(), () if key is None else state + 1

    return Penalty(
        lambda params: () if key is None else jnp.int32(0),
        value,
        needs=frozenset({"step"}),
        name="jacobian_norm",
        arguments=(("layers", layers), ("num_directions", num_directions)),
    )


def _squares(visit: Any, context: Any, num_directions: int | None, key: Any) -> tuple[Array, Any]:
    """‖J_t‖_F² / n, or what stands for it, `[T, B]`, and the steps."""
    steps = flat_pass(visit, context)
    before, inputs = rows_of((steps.before, steps.inputs))
    size = before.shape[-1]
    _, push = jax.linearize(lambda state: steps.step(state, inputs), before)

    @jax.checkpoint  # what is stored for the derivative does not grow with the number of directions
    def add(total, number):
        if key is None:
            direction = jnp.broadcast_to(
                jax.nn.one_hot(number, size, dtype=before.dtype), before.shape
            )
        else:
            own = jax.random.fold_in(key, number)
            direction = jax.random.rademacher(own, before.shape, before.dtype)
        return total + jnp.sum(jnp.square(push(direction)), axis=-1), None

    number, by = (size, size) if num_directions is None else (num_directions, num_directions * size)
    total, _ = jax.lax.scan(add, jnp.zeros(len(before), before.dtype), jnp.arange(number))
    return (total / by).reshape(steps.counted.shape), steps


@typed
def gradient_flossing(
    num_exponents: int,
    *,
    layers: Layers = "*",
    target: Number = 0.0,
    discard: int | None = None,
    every: int = 1,
    period: int = 1,
    num_rows: int | None = None,
) -> Penalty:
    """mean_b (1/k) Σ_{i≤k} (λ_bi − λ*)², with the first k Lyapunov exponents λ_bi of each row's trajectory.

    λ_i = 1/T Σ_t ln |r_ii(t)|, Q_t R_t = J_t Q_{t−1}, in nats a step. Near 0, directions of state space are neither
    contracted nor expanded, so that ∂h_T/∂h_t is well conditioned and gradients reach far. The derivative is exact: it
    goes through states, Jacobians and every QR. A direction that a singular Jacobian or rounding has lost (W_hh = 0,
    dead units) counts with the smallest growth that the dtype can tell, and has the gradient 0.

    Cost: T/every QRs of B matrices n × k, forwards and back: 2 training steps on top of one for k = 8 and one row of 32
    (H = 64, T = 100, on a CPU), many more for all rows and exponents. `period`, `num_rows` and `every` make it less.

    Args:
      num_exponents: k, at most the n numbers that the cell carries.
      layers: "*", "last", or patterns of names; of several, the mean.
      target: λ*. It may be traced if the run is made in the same trace; it is no name of `hyper`, and no axis of a
        sweep.
      discard: true steps of a row that go by before counting begins, while the frame turns to the growing directions;
        None is a tenth of T.
      every: steps between two QRs; T must be a multiple of it.
      period: an update measures R at every `period`-th time. In between R keeps its value and has the gradient 0; a
        report measures it. Under `vmap` over runs it is computed in between too, and not used.
      num_rows: of the batch, the first of them; None is all.

    Returns:
      The penalty. Its state counts updates if period > 1.

    Raises:
      ValueError: numbers that are no counts, layers that are not patterns; in an objective, a pattern that matches no
        layer, more exponents than numbers carried, T that is not a multiple of `every`, or nothing left to count.

    Source: Engelken 2023, "Gradient flossing: improving gradient descent through dynamic control of Jacobians",
    NeurIPS; his code takes one row, k = 75 of 80, T = 55, and flosses alone for 500 updates before training.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(3, activation="identity", recurrent_init=rr.cells.identity(0.5))], 1)
    >>> floss = {"floss": gradient_flossing(2)}
    >>> objective = rr.make_objective(net, rr.losses.squared_error("mean"), floss)
    >>> batch, params = rr.Batch(jnp.ones((1, 9, 1)), jnp.ones((1, 9, 1))), net.init(jax.random.key(0), 1)
    >>> parts = objective(params, {"floss": 1.0}, batch, {"floss": ()}, key=None, train=False)[1][0]
    >>> round(float(parts.penalties["floss"]), 4), round(float(jnp.log(0.5) ** 2), 4)
    (0.4805, 0.4805)
    """
    check_layers(layers)
    for count, name in ((num_exponents, "num_exponents"), (every, "every"), (period, "period")):
        check_count(count, name)
    if num_rows is not None:
        check_count(num_rows, "num_rows")
    if discard is not None:
        check_count(discard, "discard", least=0)
    check_number(target, "target")

    def measured(context):
        parts = []
        weights = None if context.weights is None else context.weights[:num_rows]
        for visit in chosen_visits(context, layers):
            exponents, known = _exponents(
                flat_pass(visit, context, num_rows=num_rows), num_exponents, discard, every
            )
            apart = jnp.mean(jnp.square(exponents - jnp.asarray(target, exponents.dtype)), axis=-1)
            parts.append(mean_over_steps(apart[:, None], known[:, None], weights))
        return jnp.stack(parts).mean()

    def value(params, context, state):
        if period == 1 or not context.train:
            return measured(context), state
        count, last = state
        now = jax.lax.cond(
            count % period == 0, lambda: measured(context).astype(last.dtype), lambda: last
        )
        return now, (count + 1, jax.lax.stop_gradient(now))

    def init(params):
        dtype = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(params)))
        return () if period == 1 else (jnp.int32(0), jnp.zeros((), wide(dtype)))

    arguments = {
        "num_exponents": num_exponents,
        "layers": layers,
        "target": target,
        "discard": discard,
        "every": every,
        "period": period,
        "num_rows": num_rows,
    }
    return Penalty(
        init,
        value,
        needs=frozenset({"step"}),
        name="gradient_flossing",
        arguments=tuple(arguments.items()),
    )


def _exponents(
    steps: FlatPass, num_exponents: int, discard: int | None, every: int
) -> tuple[Array, Array]:
    """λ_i `[B, k]` of each row, and whether it has a counted step `[B]`."""
    num_steps, num_rows, size = steps.before.shape
    check_every(every, num_steps)
    hint = f"The state has {size} numbers."
    check_count(num_exponents, "num_exponents", most=size, hint=hint)
    discard = num_steps // 10 if discard is None else discard
    check_count(
        discard, "discard", least=0, most=num_steps - every, hint="It must leave something."
    )
    true = steps.counted.astype(jnp.int32)
    earlier = jnp.cumsum(true, axis=0) - true  # true steps before each

    def push(frame, at):
        state, x, true = at
        moved = pushed(steps.step, state, x, frame)[1]
        return jnp.where(true[:, None, None], moved, frame), None

    def block(frame, given):
        *moving, settled, true = given
        frame, _ = jax.lax.scan(push, frame, (*moving, true))
        frame, logs = _orthonormal(frame)
        counts = settled[0]
        number = jnp.where(counts, jnp.sum(true, axis=0), 0)
        return frame, (jnp.where(counts[:, None], logs, 0), number)

    given = (steps.before, steps.inputs, earlier >= discard, steps.counted)
    blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, every, *leaf.shape[1:]), given)
    frame = starting_frame(size, num_exponents, steps.before.dtype)
    frame = jnp.broadcast_to(frame, (num_rows, *frame.shape))
    _, (logs, number) = jax.lax.scan(block, frame, blocks)
    number = jnp.sum(number, axis=0).astype(logs.dtype)
    return safe_divide(jnp.sum(logs, axis=0), number[:, None]), number > 0


def _orthonormal(frame: Array) -> tuple[Array, Array]:
    """Q and ln |r_ii| of frames `[B, n, k]`, with finite derivatives: of a lost direction they are 0."""
    Q, R = each(jnp.linalg.qr, jax.lax.stop_gradient(frame))
    numbers = jnp.finfo(frame.dtype)
    scale = jnp.max(jnp.abs(R), axis=(-2, -1), keepdims=True)[..., 0]
    least = jnp.maximum(numbers.eps * frame.shape[-1] * scale, numbers.tiny)
    lost = jnp.abs(jnp.diagonal(R, axis1=-2, axis2=-1)) <= least
    Q, R = each(jnp.linalg.qr, jnp.where(lost[..., None, :], Q, frame))
    growth = jnp.abs(jnp.diagonal(R, axis1=-2, axis2=-1))
    return Q, jnp.where(lost, jnp.log(least), jnp.log(growth))
