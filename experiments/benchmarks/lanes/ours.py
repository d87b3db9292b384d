"""rnnreg's own contenders: the plan that the library chooses, or one of its alternatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments.benchmarks._cost import compile_lanes, one_call
from experiments.benchmarks.lanes.problem import LEARNING_RATE, Contender, Entry, Problem, network


def ours(problem: Problem, who: str) -> Entry:
    """rnnreg's own contenders: the plan that the library chooses, or one of its alternatives.

    The program is that of `rr.lanes.Program`, without its copies to NumPy: results stay on the devices,
    as with the peers.
    """
    backend = who.removeprefix("rnnreg_")
    options = {"backend": backend} if backend in ("scan", "fused") else {}
    net = network(problem.task, **options)
    how = "vmap" if who == "rnnreg_vmap" or problem.device == "gpu" else "auto"
    plan = one_call(problem.task.lanes, problem.task.hidden, plan=how)
    batch = rr.Batch(jnp.asarray(problem.xs), jnp.asarray(problem.ys))
    loss = rr.losses.squared_error("mean")
    train = rr.make_train(net, loss=loss, optimizer=optax.sgd(LEARNING_RATE), num_epochs=1)

    def gradient(params, batch):
        def value(params):
            return loss(net.apply(params, batch.xs).outputs, batch.ys)

        return jax.value_and_grad(value)(params)

    key = jax.random.key(0)

    def step(state, batch):  # nothing is drawn, and a key cannot be repeated as other leaves can
        state, info = train.update(state._replace(key=key), {}, batch)
        return state._replace(key=None), info.data_loss

    # the last lane again, where the lanes do not divide evenly
    rows = np.minimum(np.arange(plan.width), problem.task.lanes - 1)
    params = jax.tree.map(lambda leaf: leaf[rows], problem.params)

    def start(params):
        made = train.init({}, batch, key=key)
        return jax.vmap(lambda lane: made._replace(params=lane, key=None))(params)

    state = jax.jit(start)(params)

    run_gradient, (params, shared) = compile_lanes(gradient, plan, params, batch)
    run_step, (state, _) = compile_lanes(step, plan, state, batch)
    held = [state]

    def call_gradient():
        return jax.block_until_ready(run_gradient(params, shared))

    def call_step():
        held[0], losses = run_step(held[0], shared)
        jax.block_until_ready((held[0], losses))

    losses, gradients = call_gradient()
    count = problem.task.lanes
    words = f"chunks of {plan.chunk}" if plan.name == "chunks" else plan.name.replace("_", " ")
    words += f" on {len(plan.devices)} device(s)"
    return Entry(
        [Contender(who, "gradient", words, call_gradient), Contender(who, "step", words, call_step)],
        np.asarray(losses)[:count],
        np.asarray(gradients["layer_0"]["W_hh"])[:count],
    )
