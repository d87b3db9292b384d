"""The runs behind `experiments.penalty_theory`: small networks whose training is known in closed form.

All are plain gradient descent (optax.sgd) through `rr.make_train`, in float64, over hundreds of λ under one `vmap`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments.penalty_theory.chain import bottom, spinodal


def frozen(*names: str) -> optax.GradientTransformation:
    """Sets the updates of the leaves with these last names to zero, so that they stay as they started."""

    def mask(tree):
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in names, tree)

    return optax.masked(optax.set_to_zero(), mask)


def no_data(outputs, ys, mask=None, weights=None):
    """A data loss of 0, whatever the outputs."""
    del ys, mask, weights
    return 0.0 * jnp.sum(outputs)


class Shrinkage(NamedTuple):
    """Gradient descent on λ‖W‖² alone.

    Attributes:
      lams: `[λ]`.
      rho: `[λ, t]` spectral radius of W_hh after t updates.
      theory: `[λ, t]` ρ₀ (1 − 2ηλ)^t, η the rate.
    """

    lams: np.ndarray
    rho: np.ndarray
    theory: np.ndarray


def shrinkage(lams: np.ndarray, *, rate: float, num_updates: int, hidden_size: int) -> Shrinkage:
    """ρ(W_hh) along gradient descent on λ‖W‖² from a Gaussian start."""
    cell = rr.cells.elman(hidden_size, recurrent_init="gaussian")
    train = rr.make_train(
        rr.network([cell], output_size=1, readout="last"),
        loss=no_data,
        penalties={"l2": rr.penalties.l2()},
        optimizer=optax.sgd(rate),
        num_epochs=num_updates,
    )
    batch = rr.Batch(jnp.ones((1, 2, 1)), jnp.zeros((1, 1)))

    def path(lam):
        hyper = {"l2": lam}
        start = train.init(hyper, batch, key=jax.random.key(0))

        def update(state, _):
            return train.update(state, hyper, batch)[0], state.params["layer_0"]["W_hh"]

        return jax.lax.scan(update, start, length=num_updates + 1)[1]

    W = jax.jit(jax.vmap(path))(jnp.asarray(lams))
    rho = rr.diagnostics.spectra({"layer_0": {"W_hh": np.asarray(W)}})["layer_0/W_hh"].rho[..., 0]
    times = np.arange(num_updates + 1)
    theory = rho[:, :1] * (1 - 2 * rate * np.asarray(lams)[:, None]) ** times
    return Shrinkage(np.asarray(lams), rho, theory)


def linear_cell(size: int, recurrent_init: Any) -> rr.cells.Cell:
    """A linear unit h ← h W_hh + x, as long as W_xh = I and b = 0 stay frozen."""
    return rr.cells.elman(
        size, activation=jax.nn.identity, recurrent_init=recurrent_init, input_init=rr.cells.identity()
    )


def descent(net: Any, *, loss: Any, num_epochs: int, record_every: int) -> rr.Train:
    """Gradient descent on the squared error and λ‖W_hh‖², of W_hh alone."""
    return rr.make_train(
        net,
        loss=rr.losses.squared_error(loss),
        penalties={"l2": rr.penalties.l2("W_hh")},
        optimizer=lambda hyper: optax.chain(frozen("W_xh", "b_h"), optax.sgd(hyper["learning_rate"])),
        num_epochs=num_epochs,
        record_every=record_every,
    )


def one_step(xs: np.ndarray, ys: np.ndarray, lams: np.ndarray, *, num_updates: int) -> np.ndarray:
    """W_hh `[λ, H, H]` of h₂ = h₁ W_hh with h₁ = x, fitted to y by (1/n)‖Y − X W‖² + λ‖W‖².

    A linear network of two steps: the first writes x into the state (W_xh = I, frozen), the second applies W_hh.
    """
    cell = linear_cell(xs.shape[1], "orthogonal")
    net = rr.network([cell], output_size=None, readout="last")
    train = descent(net, loss="sum", num_epochs=num_updates, record_every=num_updates)
    batch = rr.Batch(jnp.stack([xs, np.zeros_like(xs)], axis=1), jnp.asarray(ys))
    steepest = float(np.linalg.norm(xs, 2) ** 2 / len(xs))

    def fit(lam):
        hyper = {"l2": lam, "learning_rate": 0.5 / (steepest + lam)}
        return train(hyper, batch, key=jax.random.key(1)).params["layer_0"]["W_hh"]

    return np.asarray(jax.jit(jax.vmap(fit))(jnp.asarray(lams)))


def ridge(xs: np.ndarray, ys: np.ndarray, lams: np.ndarray) -> np.ndarray:
    """W `[λ, H, H]` = (XᵀX + nλI)⁻¹ XᵀY."""
    gram, cross = xs.T @ xs, xs.T @ ys
    eye = len(xs) * np.eye(xs.shape[1])
    return np.stack([np.linalg.solve(gram + lam * eye, cross) for lam in lams])


class Chain:
    """The one-weight chain as a library run: (1 − w^T)² + λ w², from w₀, by gradient descent.

    A linear unit: the first step writes 1 (W_xh = 1, frozen), T silent steps apply w = W_hh. All T share one compiled
    program: shorter sequences are masked at their end, where the state is held.
    """

    def __init__(self, num_steps: tuple[int, ...], *, num_updates: int, path_updates: int):
        self.num_steps = np.asarray(num_steps)
        self.longest = int(self.num_steps.max())

        def net(hyper):
            cell = linear_cell(1, rr.cells.identity(hyper["start"]))
            return rr.network([cell], output_size=None, readout="last")

        self.train = descent(net, loss="mean", num_epochs=num_updates, record_every=path_updates)
        self._lanes = jax.jit(jax.vmap(self._lane))
        self._paths = jax.jit(jax.vmap(self._path))

    def _batch(self, T):
        xs = jnp.zeros((1, self.longest + 1, 1)).at[0, 0, 0].set(1.0)
        mask = (jnp.arange(self.longest + 1) <= T)[None].astype(xs.dtype)
        return rr.Batch(xs, jnp.ones((1, 1)), mask)

    @staticmethod
    def _hyper(T, start, lam):
        # 2T² + 2λ is the largest curvature on 0 ≤ w ≤ 1: no step overshoots, so a path never turns back
        return {"start": start, "l2": lam, "learning_rate": 0.5 / (T**2 + lam)}

    def _lane(self, T, start, lam):
        run = self.train(self._hyper(T, start, lam), self._batch(T), key=jax.random.key(0))
        weight = run.params["layer_0"]["W_hh"][0, 0]
        return weight, run.metrics["train_loss"] + lam * weight**2

    def fit(self, T: Any, start: Any, lams: Any) -> tuple[np.ndarray, np.ndarray]:
        """The trained weight and the objective of each lane; all three arguments `[lane]`."""
        lanes = [jnp.asarray(values, dtype=float) for values in (T, start, lams)]
        weight, total = self._lanes(*lanes)
        return np.asarray(weight), np.asarray(total)

    def _path(self, T, lams):
        batch = self._batch(T)
        state = self.train.init(self._hyper(T, 1.0, 0.0), batch, key=jax.random.key(0))

        def follow(state, lam):
            hyper = self._hyper(T, 1.0, lam)
            state, _ = self.train.advance(state, hyper, batch, self.train.settings.record_every)
            return state, state.params["layer_0"]["W_hh"][0, 0]

        return jax.lax.scan(follow, state, lams)[1]

    def path(self, lams: np.ndarray) -> np.ndarray:
        """w `[T, λ]` along a warm path: each λ starts from the weight of the one before; lams `[T, λ]`."""
        return np.asarray(self._paths(jnp.asarray(self.num_steps, dtype=float), jnp.asarray(lams)))


class Thresholds(NamedTuple):
    """The measured thresholds of the chain, `[T]` each, and half the width of the last bracket.

    Attributes:
      spinodal: λ_s, from w = 1.
      switch: λ_c, where the objective of what descent from w = 1 finds exceeds 1.
      cold: λ_cold, from w₀; NaN where w₀ lies above the spinodal.
      error: `[3, T]` half widths, in that order.
    """

    spinodal: np.ndarray
    switch: np.ndarray
    cold: np.ndarray
    error: np.ndarray


def thresholds(memory: Chain, *, start: float, num_lambdas: int, rounds: int = 2) -> Thresholds:
    """Brackets the three thresholds by λ grids under one vmap, each round inside the bracket of the last."""
    T = memory.num_steps
    low = np.full((3, len(T)), 1e-3)
    high = np.full((3, len(T)), 1e2)
    starts = np.array([1.0, 1.0, start])[:, None, None]
    for turn in range(rounds):
        space = np.geomspace if turn == 0 else np.linspace
        lams = space(low, high, num_lambdas, axis=-1)  # [3, T, λ]
        full = [np.broadcast_to(v, lams.shape).ravel() for v in (T[None, :, None], starts)]
        weight, total = (v.reshape(lams.shape) for v in memory.fit(*full, lams.ravel()))
        kept = np.stack(
            [
                weight[0] ** T[:, None] > bottom(T)[:, None] / 2,
                total[1] < 1,
                weight[2] >= start,  # in one dimension a descent path never turns back
            ]
        )
        last = np.maximum(kept.sum(axis=-1), 1) - 1
        low = np.take_along_axis(lams, last[..., None], -1)[..., 0]
        high = np.take_along_axis(lams, np.minimum(last + 1, num_lambdas - 1)[..., None], -1)[..., 0]
    middle = (low + high) / 2
    below = start**T < bottom(T)
    return Thresholds(middle[0], middle[1], np.where(below, middle[2], np.nan), (high - low) / 2)


class Paths(NamedTuple):
    """Up the λ axis from the memory, and down again.

    Attributes:
      lams: `[T, λ]` on the way up; the way down is the same, reversed.
      up: `[T, λ]` w^T on the way up.
      down: `[T, λ]` w^T on the way down, in the order of `lams`.
    """

    lams: np.ndarray
    up: np.ndarray
    down: np.ndarray


def paths(memory: Chain, *, num_lambdas: int) -> Paths:
    """Warm paths over 0 … 1.25 λ_s of each T, and back."""
    ends = spinodal(memory.num_steps)
    lams = ends[:, None] * np.linspace(0, 1.25, num_lambdas)
    weights = memory.path(np.concatenate([lams, lams[:, ::-1]], axis=1))
    values = np.abs(weights) ** memory.num_steps[:, None]
    return Paths(lams, values[:, :num_lambdas], values[:, : num_lambdas - 1 : -1])
