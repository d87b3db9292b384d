"""Delayed recall for `experiments.memory_thresholds`: the task, its networks, their training, and what is measured.

K bits u ∈ {±1}^K at step 0, T silent steps, y = h_T W_hy; all 2^K patterns are the batch, so the loss has no sampling
noise, and without a memory it is 1. Biases stay at zero: the optimiser leaves them out, the penalties do not see them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments._penalty_runs import frozen

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


def recall_batch(num_steps: int, *, num_bits: int = 1) -> rr.Batch:
    """All 2^K patterns; xs `[2^K, T + 1, K]`, zero after step 0, ys `[2^K, K]`."""
    task = rr.tasks.delayed_recall(num_steps, num_bits=num_bits)
    return jax.tree.map(np.asarray, task.sample(jax.random.key(0), 2**num_bits))


def near_identity() -> rr.penalties.Penalty:
    """R = Σ (W_hh − I)² over layers + Σ w² of W_xh and W_hy."""
    inner = rr.penalties.l2()

    def value(params, context, state):
        def moved(path, leaf):
            return leaf - jnp.eye(len(leaf), dtype=leaf.dtype) if path[-1].key == "W_hh" else leaf

        return inner.value(jax.tree_util.tree_map_with_path(moved, params), context, state)

    return inner._replace(value=value)


def make_train(variant: Variant) -> rr.Train:
    """The run of a variant; `hyper` holds `l2` (λ) and `gain` (of the orthogonal start of W_hh)."""
    penalties = {
        "all": rr.penalties.l2(),
        "recurrent": rr.penalties.l2("W_hh"),
        "outer": rr.penalties.l2(["W_xh", "W_hy"]),
        "identity": near_identity(),
    }

    def net(hyper):
        cell = rr.cells.elman(
            variant.hidden_size,
            activation=ACTIVATIONS[variant.activation],
            recurrent_init=STARTS[variant.start](hyper["gain"]),
        )
        return rr.network([cell] * variant.depth, output_size=variant.num_bits, readout="last")

    def optimizer(hyper):
        rate = variant.learning_rate
        made = {
            "adam": lambda: optax.adam(rate),
            "sgd": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(rate)),
            # λ‖W‖² moves w by −2ηλw under plain descent: the decoupled form of the same λ
            "adamw": lambda: optax.adamw(rate, weight_decay=2 * hyper["l2"]),
        }[variant.optimizer]()
        return optax.chain(made, frozen("b_h", "b_y"))

    decoupled = variant.optimizer == "adamw"
    return rr.make_train(
        net,
        loss=rr.losses.squared_error("mean"),
        penalties={} if decoupled else {"l2": penalties[variant.penalised]},
        optimizer=optimizer,
        num_epochs=variant.num_updates,
        record_every=variant.num_updates // variant.num_records,
    )


def network_of(variant: Variant) -> rr.Network:
    """The network that trained parameters go into."""
    return make_train(variant).settings.net({"gain": 1.0})


def over_lanes(function: Any, lanes: Any, shared: Any = (), *, seconds: float = 0.01) -> Any:
    """`function(lane, shared)` of every lane, on all cores, by the library's lane runner; outputs stacked."""
    num = len(jax.tree.leaves(lanes)[0])
    plan = rr.lanes.make_plan(num, lane_seconds=seconds, plan="one_by_one")
    return rr.lanes.Program(function, plan, lanes, shared).collect(lanes, shared)


class Measured(NamedTuple):
    """What trained networks are like; leading axes are those of the parameters.

    Attributes:
      loss: data loss.
      bits: the memory axis, bits of u that a noisy decoder finds in h_T (see `decoded_bits`).
      gradient: the gradient axis, ‖∂h_T/∂h_0‖₂ over the states of all layers, geometric mean over patterns.
      rho: spectral radius of W_hh (the largest over layers).
      frobenius: ‖W_hh‖_F over all layers.
      states: `[..., 2^K, T + 1, H]` of the last layer.
    """

    loss: np.ndarray
    bits: np.ndarray
    gradient: np.ndarray
    rho: np.ndarray
    frobenius: np.ndarray
    states: np.ndarray


def measure(net: rr.Network, params: Any, num_steps: int, *, num_bits: int = 1) -> Measured:
    """Both axes of memory for stacked parameters."""
    batch = recall_batch(num_steps, num_bits=num_bits)
    W = params["layer_0"]["W_hh"]
    shape = W.shape[:-2]
    flat = jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[len(shape) :]), params
    )

    blocks = _in_blocks(_measuring(net), flat, batch)
    loss, jacobians, states = blocks
    wide = np.asarray(jacobians, dtype=np.float64)
    sizes = np.linalg.svd(wide, compute_uv=False)[..., 0]
    with np.errstate(divide="ignore"):
        gradient = np.exp(np.log(sizes).mean(axis=-1))
    spectra = rr.diagnostics.spectra(params).values()
    rho = np.max([one.rho[..., 0] for one in spectra], axis=0)
    frobenius = np.sqrt(np.sum([one.frobenius[..., 0] ** 2 for one in spectra], axis=0))
    bits = decoded_bits(states[:, :, -1], batch.ys)
    return Measured(
        loss.reshape(shape),
        bits.reshape(shape),
        gradient.reshape(shape),
        rho,
        frobenius,
        states.reshape(*shape, *states.shape[1:]),
    )


@functools.cache
def _measuring(net: rr.Network):
    """Loss, Jacobians ∂h_T/∂h_0 `[2^K, n, n]` and last layer's states of a block of networks, jitted once a network."""

    def one(params, batch):
        out = net.apply(params, batch.xs)
        first = net.apply(params, batch.xs[:, :1]).final_state
        silence = batch.xs[:1, 1:]

        def last(state):
            rows = jax.tree.map(lambda leaf: leaf[None], state)
            final = net.apply(params, silence, state=rows).final_state
            return jnp.concatenate([leaf[0] for leaf in jax.tree.leaves(final)])

        def jacobian(state):
            return jnp.concatenate(jax.tree.leaves(jax.jacfwd(last)(state)), axis=1)

        loss = rr.losses.squared_error("mean")(out.outputs, batch.ys)
        top = out.states[f"layer_{len(net.layers) - 1}"].h
        return loss, jax.vmap(jacobian)(first), top

    return jax.jit(lambda block, batch: jax.lax.map(lambda params: one(params, batch), block))


def _in_blocks(function: Any, lanes: Any, shared: Any, *, size: int = 64) -> Any:
    """The function of blocks of equal size, the last filled up: one compilation serves any number of lanes."""
    num = len(jax.tree.leaves(lanes)[0])
    parts = []
    for begin in range(0, num, size):
        rows = np.minimum(np.arange(begin, begin + size), num - 1)
        block = function(jax.tree.map(lambda leaf, rows=rows: leaf[rows], lanes), shared)
        parts.append(jax.tree.map(lambda leaf, n=num - begin: np.asarray(leaf)[:n], block))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def decoded_bits(states: np.ndarray, bits: np.ndarray, *, noise: float = 0.1) -> np.ndarray:
    """Σ_k 1 − H₂(error_k): bits of u decoded from h_T plus N(0, noise²) on every unit; h_T `[lane, 2^K, H]`.

    The decision on bit k is the sign of the least-squares readout of h_T, and its error rate is exact (no sampling):
    Φ(−margin / (noise ‖w_k‖)), averaged over patterns. Without the noise any h_T ≠ 0 would decode, 1e-30 included.
    The noise is a tenth of a tanh unit's range on either side.
    """
    from scipy.stats import norm

    found = np.zeros(len(states))
    for lane, h in enumerate(np.asarray(states, dtype=np.float64)):
        readout = np.linalg.lstsq(h, bits, rcond=1e-6)[0]
        size = np.linalg.norm(readout, axis=0)
        margin = bits * (h @ readout)
        scaled = np.divide(margin, noise * size, out=np.zeros_like(margin), where=size > 0)
        wrong = np.clip(norm.cdf(-scaled).mean(axis=0), 1e-300, 0.5)
        entropy = -(wrong * np.log2(wrong) + (1 - wrong) * np.log2(1 - wrong))
        found[lane] = np.sum(1 - entropy)
    return found
