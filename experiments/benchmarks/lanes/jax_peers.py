"""Keras, Flax and Equinox, all three on JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks._measure import faster
from experiments.benchmarks.lanes.problem import LEARNING_RATE, Contender, Entry, Problem
from experiments.keras_gru.peer import keras_at
from rnnreg import convert


def keras_fit(problem: Problem) -> Entry:
    """One compiled model into which each lane's weights are put in turn; `fit` or `train_on_batch`, the faster.

    Only a whole step: Keras gives no gradients away. Lanes run one after another on JAX's first device. A
    model a lane would be the usual way, and would compile once a lane.
    """
    keras = keras_at(np.float32)
    task, layers = problem.task, keras_at(np.float32).layers
    kind = {"elman": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}[task.cell]
    entrance = keras.Input((task.time, task.inputs), batch_size=task.batch)
    states = getattr(layers, kind)(task.hidden, return_sequences=True)(entrance)
    exit_ = layers.TimeDistributed(layers.Dense(task.outputs))(states)
    model = keras.Model(entrance, exit_)
    model.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE), loss="mse", jit_compile=True)
    xs, ys = jnp.asarray(problem.xs), jnp.asarray(problem.ys)

    def weights(number):
        params = problem.lane(number)
        layer = convert.to_keras(params["layer_0"], task.cell)
        readout = params["readout"]
        return [jnp.array(leaf) for leaf in (*layer, readout["W_hy"], readout["b_y"])]

    def make(train):
        lanes = [weights(number) for number in range(task.lanes)]

        def call():
            losses = []
            for number, values in enumerate(lanes):
                for variable, value in zip(model.trainable_variables, values, strict=True):
                    variable.assign(value)
                losses.append(train())
                lanes[number] = [variable.value for variable in model.trainable_variables]
            jax.block_until_ready(lanes)
            return losses

        return call

    def fit():
        history = model.fit(xs, ys, batch_size=task.batch, epochs=1, shuffle=False, verbose=0).history
        return history["loss"][0]

    calls = {"train_on_batch": make(lambda: model.train_on_batch(xs, ys)), "fit": make(fit)}
    losses = np.array([float(loss) for loss in calls["train_on_batch"]()])
    plan = faster(calls, trials=1)
    return Entry([Contender("keras", "step", plan, calls[plan])], losses, None)


def flax_vmap(problem: Problem) -> Entry:
    """`nnx.RNN` of `SimpleCell`, `GRUCell` or `OptimizedLSTMCell` and `nnx.Linear`, in `vmap` over the lanes."""
    from flax import nnx

    task = problem.task
    kind = {"elman": "SimpleCell", "gru": "GRUCell", "lstm": "OptimizedLSTMCell"}[task.cell]
    style = "nnx_optimized" if task.cell == "lstm" else "nnx"

    class Model(nnx.Module):
        def __init__(self, rngs):
            cell = getattr(nnx, kind)(task.inputs, task.hidden, rngs=rngs)
            self.rnn = nnx.RNN(cell, time_major=True)
            self.head = nnx.Linear(task.hidden, task.outputs, rngs=rngs)

        def __call__(self, xs):
            states: Any = self.rnn(xs, rngs=nnx.Rngs(0))  # its own may not count inside a trace
            return self.head(states)

    graph, _, rest = nnx.split(Model(nnx.Rngs(0)), nnx.Param, ...)

    def one_lane(number):
        params = problem.lane(number)
        readout = {"kernel": params["readout"]["W_hy"], "bias": params["readout"]["b_y"]}
        cell = convert.to_flax(params["layer_0"], task.cell, style=style)
        return {"rnn": {"cell": cell}, "head": readout}

    def loss(lane, xs, ys):
        model = nnx.merge(graph, nnx.State(jax.tree.map(nnx.Param, lane)), rest)
        return jnp.mean(jnp.square(model(xs) - ys))

    lanes = _stack([one_lane(number) for number in range(task.lanes)])

    def recurrent(gradients):
        return gradients["rnn"]["cell"]["dense_h"]["kernel"]

    return _vmap_entry("flax", problem, lanes, loss, recurrent)


def equinox_vmap(problem: Problem) -> Entry:
    """`eqx.nn.GRUCell` or `LSTMCell` (an Elman cell by hand) in `lax.scan`, in `vmap` over batch and lanes."""
    import equinox as eqx

    task = problem.task

    class ElmanCell(eqx.Module):
        weight_ih: Any
        weight_hh: Any
        bias: Any

        def __call__(self, x, h):
            return jnp.tanh(self.weight_ih @ x + self.weight_hh @ h + self.bias)

    class Model(eqx.Module):
        cell: Any
        head: Any

        def __call__(self, xs):
            zeros = jnp.zeros((task.batch, task.hidden), xs.dtype)

            def step(state, x):
                state = jax.vmap(self.cell)(x, state)
                return state, state[0] if task.cell == "lstm" else state

            start = (zeros, zeros) if task.cell == "lstm" else zeros
            _, states = jax.lax.scan(step, start, xs)
            return jax.vmap(jax.vmap(self.head))(states)

    def one_lane(number):
        params = problem.lane(number)
        layer, readout = params["layer_0"], params["readout"]
        leaves = {"weight_ih": layer["W_xh"].T, "weight_hh": layer["W_hh"].T, "bias": layer["b_h"]}
        if task.cell == "elman":
            cell = ElmanCell(**leaves)
        else:
            kind = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[task.cell]
            cell = kind(task.inputs, task.hidden, key=jax.random.key(0))
            if task.cell == "gru":
                leaves["bias_n"] = layer["b_hh"][2 * task.hidden :]
            cell = eqx.tree_at(lambda cell: [getattr(cell, name) for name in leaves], cell, list(leaves.values()))
        head = eqx.nn.Linear(task.hidden, task.outputs, key=jax.random.key(0))
        head = eqx.tree_at(lambda head: (head.weight, head.bias), head, (readout["W_hy"].T, readout["b_y"]))
        return Model(cell, head)

    model = _stack([one_lane(number) for number in range(task.lanes)])
    lanes, static = eqx.partition(model, eqx.is_array)

    def loss(lane, xs, ys):
        return jnp.mean(jnp.square(eqx.combine(lane, static)(xs) - ys))

    return _vmap_entry("equinox", problem, lanes, loss, lambda model: model.cell.weight_hh)


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def _vmap_entry(
    who: str, problem: Problem, lanes: Any, loss: Callable[..., Any], recurrent: Callable[..., Any]
) -> Entry:
    """The contenders of a loss of one lane: `vmap` over the lanes, jitted, the step's parameters donated."""
    xs, ys = (jnp.asarray(np.swapaxes(array, 0, 1)) for array in (problem.xs, problem.ys))
    together = jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None))
    sgd = optax.sgd(LEARNING_RATE)
    gradient = jax.jit(together)

    def update(lanes, state, xs, ys):
        losses, gradients = together(lanes, xs, ys)
        updates, state = sgd.update(gradients, state, lanes)
        return optax.apply_updates(lanes, updates), state, losses

    step = jax.jit(update, donate_argnums=(0, 1))
    held = [jax.tree.map(jnp.copy, lanes), sgd.init(lanes)]

    def call_step():
        *held[:], losses = step(*held, xs, ys)
        jax.block_until_ready((held, losses))

    losses, gradients = gradient(lanes, xs, ys)
    return Entry(
        [
            Contender(who, "gradient", "vmap", lambda: jax.block_until_ready(gradient(lanes, xs, ys))),
            Contender(who, "step", "vmap", call_step),
        ],
        np.asarray(losses),
        np.asarray(recurrent(gradients)),
    )
