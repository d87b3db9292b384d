"""Delayed recall: the task, its networks and their training.

K bits u ∈ {±1}^K at step 0, T silent steps, y = h_T W_hy; all 2^K patterns are the batch, so the loss has no sampling
noise, and without a memory it is 1. Biases stay at zero: the optimiser leaves them out, the penalties do not see them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import rnnreg as rr

ACTIVATIONS = {"tanh": jnp.tanh, "linear": jax.nn.identity, "relu": jax.nn.relu}
STARTS = {"orthogonal": rr.cells.orthogonal, "identity": rr.cells.identity}
ALIVE = 0.5  # a memory is used where the data loss is below this; without one it is 1, at the spinodal about 1/4


class Variant(NamedTuple):
    """One way to train: what sets shapes or picks code.

    Attributes:
      activation: a name in `ACTIVATIONS`.
      optimizer: "adam", "adamw" (λ decays the weights, decoupled) or "sgd" (with its gradient clipped to 0.5: a
        memory of T steps has a curvature of order T², which plain descent survives only at a rate that learns nothing).
      penalised: "all" three kinds of matrices, "recurrent" (W_hh), "outer" (W_xh and W_hy), or "identity" (‖W_hh − I‖²
        in place of ‖W_hh‖²).
      start: W_hh = gain times an "orthogonal" matrix (complex pairs of eigenvalues) or the "identity" (real ones).
      depth: recurrent layers.
      hidden_size: H.
      num_bits: K.
      num_updates: updates of a cold start.
      num_records: records of its history.
      learning_rate: of the optimiser.
    """

    activation: str = "tanh"
    optimizer: str = "adam"
    penalised: str = "all"
    start: str = "orthogonal"
    depth: int = 1
    hidden_size: int = 16
    num_bits: int = 1
    num_updates: int = 2000
    num_records: int = 8
    learning_rate: float = 3e-3


def variant_of(config: Any, **changes: Any) -> Variant:
    """The variant that the options ask for, changed."""
    names = ("hidden_size", "num_bits", "num_updates", "learning_rate")
    return Variant(**{name: getattr(config, name) for name in names} | changes)


def recall_batch(num_steps: int, *, num_bits: int = 1) -> rr.Batch:
    """All 2^K patterns; xs `[2^K, T + 1, K]`, zero after step 0, ys `[2^K, K]`."""
    return rr.tasks.delayed_recall(num_steps, num_bits=num_bits).sample(jax.random.key(0), 2**num_bits)


def near_identity() -> rr.penalties.Penalty:
    """R = Σ (W_hh − I)² over layers + Σ w² of W_xh and W_hy."""
    inner = rr.penalties.l2()

    def value(params, context, state):
        moved = {
            path: leaf - jnp.eye(len(leaf), dtype=leaf.dtype)
            for path, leaf in rr.leaf_paths(params).items()
            if path.endswith("W_hh")
        }
        return inner.value(rr.with_leaves(params, moved), context, state)

    return dataclasses.replace(inner, value=value)


PENALTIES = {
    "all": rr.penalties.l2(),
    "recurrent": rr.penalties.l2("W_hh"),
    "outer": rr.penalties.l2(["W_xh", "W_hy"]),
    "identity": near_identity(),
}


def make_train(variant: Variant) -> rr.Train:
    """The run of a variant; `hyper` holds `l2` (λ) and `gain` (of the start of W_hh)."""

    def net(hyper):
        cell = rr.cells.elman(
            variant.hidden_size,
            activation=ACTIVATIONS[variant.activation],
            recurrent_init=STARTS[variant.start](hyper["gain"]),
        )
        return rr.network([cell] * variant.depth, output_size=variant.num_bits, readout="last")

    decoupled = variant.optimizer == "adamw"
    return rr.make_train(
        net,
        loss=rr.losses.squared_error("mean"),
        penalties={} if decoupled else {"l2": PENALTIES[variant.penalised]},
        optimizer=lambda hyper: _optimizer(variant, hyper["l2"]),
        num_epochs=variant.num_updates,
        record_every=variant.num_updates // variant.num_records,
    )


def network_of(variant: Variant) -> rr.Network:
    """The network that trained parameters go into."""
    return make_train(variant).network({"gain": 1.0})


def _optimizer(variant: Variant, lam: Any) -> optax.GradientTransformation:
    """The optimiser of a variant, which leaves biases at zero."""
    rate = variant.learning_rate
    made = {
        "adam": optax.adam(rate),
        "sgd": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(rate)),
        # λ‖W‖² moves w by −2ηλw under plain descent: the decoupled form of the same λ
        "adamw": optax.adamw(rate, weight_decay=2 * lam),
    }[variant.optimizer]

    def biases(params):
        return rr.with_leaves(params, {path: "/b_" in path for path in rr.leaf_paths(params)})

    return optax.chain(made, optax.masked(optax.set_to_zero(), biases))
