"""Small linear recurrent networks, every weight trained and penalised, by the library's own nested cross-validation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments.one_standard_error.ridge import Curves, Nesting, Task, judged, kfold, nest


class Trained(NamedTuple):
    """S data sets of one task, with a network for each λ and fold.

    Attributes:
        task: the task.
        lams: `[λ]`.
        cv: their cross-validations, which are the outer folds of the nested ones.
        inner: `[S, λ, K]`, the true errors of the networks of the folds.
        norm: `[S, λ]`, ‖W‖ of those, the mean over folds.
        nested: their nested cross-validations.
        lanes: runs in all.
    """

    task: Task
    lams: np.ndarray
    cv: Curves
    inner: np.ndarray
    norm: np.ndarray
    nested: Nesting
    lanes: int


def linear_train(hidden_size: int, num_epochs: int) -> rr.Train:
    """A linear Elman network read at its last step; Adam on the mean squared error + λ‖W‖² of all three matrices."""
    cell = rr.cells.elman(hidden_size, activation=jax.nn.identity, recurrent_init=rr.cells.orthogonal(0.8))
    return rr.make_train(
        rr.network([cell], output_size=1, readout="last"),
        loss=rr.losses.squared_error("mean"),
        penalties={"l2": rr.penalties.l2()},
        optimizer=optax.adam(optax.cosine_decay_schedule(5e-2, num_epochs)),
        num_epochs=num_epochs,
        record_every=num_epochs,
    )


def batch_of(xs: np.ndarray, ys: np.ndarray) -> rr.Batch:
    """Rows of sequences `[N, T]`, latest first, as the network reads them, latest last."""
    return rr.Batch(jnp.asarray(xs[:, ::-1, None]), jnp.asarray(ys[:, None]))


def responses(net: Any, params: Any, length: int) -> tuple[np.ndarray, np.ndarray]:
    """What a linear network adds up: its weight of each step, latest first, `[…, T]`, and its constant `[…]`.

    Read from its outputs for no input and for a 1 at each step; params have any leading axes.
    """
    probes = jnp.concatenate([jnp.zeros((1, length)), jnp.eye(length)])[..., None]

    def outputs(params):
        return net.apply(params, probes).outputs[:, 0]

    lead = params["layer_0"]["b_h"].shape[:-1]
    flat = jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, *leaf.shape[len(lead) :])), params)
    found = np.asarray(jax.jit(jax.vmap(outputs))(flat)).reshape(*lead, length + 1)
    constant = found[..., 0]
    return (found[..., 1:] - constant[..., None])[..., ::-1], constant


def simulate(
    task: Task,
    lams: np.ndarray,
    *,
    num_simulations: int,
    outer: int,
    inner: int,
    hidden_size: int,
    num_epochs: int,
    seed: int = 0,
) -> Trained:
    """`rr.selection.nested` on each data set; the true error of every network from its impulse response."""
    train = linear_train(hidden_size, num_epochs)
    net = train.network({})
    sizes = np.array([len(held) for _, held in kfold(outer, task.num_rows)])
    scores, weights, constants, norms, chosen, given = [], [], [], [], [], []
    lanes = 0
    for number, (xs, ys) in enumerate(zip(*task.draw(num_simulations, seed), strict=True)):
        found = rr.selection.nested(
            train,
            {"l2": lams},
            batch_of(xs, ys),
            outer=lambda split: kfold(outer, len(split.train.ys)),
            inner=lambda split: kfold(inner, len(split.train.ys)),
            key=jax.random.fold_in(jax.random.key(seed), number),
            progress=False,
        )
        alone = found.result.select(seed=0)  # l2 × fold, the outer folds first
        own = {name: alone.metrics[name].values[:, :outer] for name in ("val_loss", "penalty_l2")}
        scores.append(own["val_loss"])
        norms.append(np.sqrt(own["penalty_l2"]).mean(axis=-1))
        params = jax.tree.map(lambda leaf: leaf[:, :outer], alone.groups[0].params)
        weight, constant = responses(net, params, task.length)
        weights.append(weight)
        constants.append(constant)
        chosen.append([int(np.flatnonzero(lams == lam)[0]) for lam in found.lam])
        given.append((found.mean, found.se))
        lanes += found.result.config["lanes"]
    true = task.error(np.stack(weights), np.stack(constants))
    cv = judged(np.stack(scores), sizes, lams, np.stack(weights))
    nested = nest(cv.scores, true, sizes, np.array(chosen))
    mean, se = np.array(given).T
    return Trained(task, lams, cv, true, np.stack(norms), nested._replace(mean=mean, se=se), lanes)
