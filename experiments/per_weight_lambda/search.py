"""Ways to choose λ with the same budget: by hypergradient, shared or for each matrix, and by values that are tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from scipy.stats import qmc

import rnnreg as rr
from experiments.per_weight_lambda.tasks import Draw, Task

NAMES: tuple[str, ...] = ("xh", "hh", "hy")
BOX = (1e-6, 1.0)
START = 1e-3
STEP = 1e-4  # of log λ, for differences
COSTS = {"shared": 1 + 1.9, "each": 3.9}  # runs of a hypergradient, forwards in one name and in reverse; see its page


class Tried(NamedTuple):
    """Networks trained with N values of λ, on R repeats; errors are divided by that of a blind guess.

    Attributes:
        lams: `[R, N, 3]`, of W_xh, W_hh and W_hy.
        val: `[R, N]`, on validation rows; infinite for a run that diverged.
        test: `[R, N]`, on test rows.
        rho: `[R, N]`, spectral radius of W_hh.
        slopes: `[R, N, 3]` or `[R, N, 1]`, d log val / d log λ; None where it was not asked for.
    """

    lams: np.ndarray
    val: np.ndarray
    test: np.ndarray
    rho: np.ndarray
    slopes: np.ndarray | None = None

    def best(self) -> Tried:
        """Of each repeat the one with the least error on validation rows, without its axis."""
        place = np.argmin(self.val, axis=1)
        return Tried(*(leaf[np.arange(len(place)), place] for leaf in self if leaf is not None))


def train_of(task: Task, *, shared: bool) -> rr.Train:
    """Adam on the loss and λ‖W‖², with one λ or three.

    Runs should have derivatives that mean something: the rate falls to 0, gradients are clipped to a norm of 1, and
    `eps_root` gives Adam a derivative where a gradient is 0.
    """
    rate = optax.cosine_decay_schedule(task.learning_rate, task.num_updates)
    each = {name: rr.penalties.l2(f"W_{name}") for name in NAMES}
    return rr.make_train(
        task.network(),
        loss=task.loss,
        penalties={"l2": rr.penalties.l2()} if shared else each,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, eps_root=1e-8)),
        num_epochs=task.num_epochs,
        batch_size=task.batch_size,
        record_every=task.num_epochs,
    )


def by_gradient(task: Task, *, shared: bool, budget: float, rate: float = 1.0) -> Tried:
    """Adam on log λ with the derivative of the logarithm of the validation loss, clipped to ±1.

    The step falls from a factor of e to nothing. λ stays in the box, and what is not finite moves nothing.
    """
    train = train_of(task, shared=shared)
    names = ("l2",) if shared else NAMES
    num_steps = int(budget / COSTS["shared" if shared else "each"])
    outer = optax.adam(optax.cosine_decay_schedule(rate, num_steps), b1=0.5, b2=0.9)
    low, high = np.log(BOX)

    def function(lane: dict[str, Array], draws: Draw):
        draw, key = _of(task, lane, draws)

        def step(carry, _):
            logs, memory = carry
            hyper = dict(zip(names, jnp.exp(logs), strict=True))
            found = rr.hypergradient(train, hyper, draw.split, key=key)
            slopes = jnp.stack([found.gradient[name] for name in names]) / found.value
            moved, memory = outer.update(jnp.clip(jnp.where(jnp.isfinite(slopes), slopes, 0), -1, 1), memory)
            lams = jnp.broadcast_to(jnp.exp(logs), (len(NAMES),))
            judged = _judged(task, found.params, draw.test)
            return (jnp.clip(logs + moved, low, high), memory), (lams, found.value, *judged, slopes)

        logs = jnp.full(len(names), jnp.log(START))
        return jax.lax.scan(step, (logs, outer.init(logs)), length=num_steps)[1]

    lanes = {"repeat": np.arange(task.num_repeats)}
    return _tried(task, *_map(task, function, lanes, width=task.num_repeats))


def by_trial(task: Task, lams: np.ndarray) -> Tried:
    """Trains with each of N values `[N, 3]` in each repeat."""
    train = train_of(task, shared=False)

    def function(lane: dict[str, Array], draws: Draw):
        draw, key = _of(task, lane, draws)
        run = train(dict(zip(NAMES, lane["lams"], strict=True)), draw.split, key=key)
        return lane["lams"], run.metrics["val_loss"], *_judged(task, run.params, draw.test)

    num, R = len(lams), task.num_repeats
    lanes = {"repeat": np.repeat(np.arange(R), num), "lams": np.tile(lams, (R, 1))}
    found = _map(task, function, lanes)
    return _tried(task, *(np.reshape(leaf, (R, num, *leaf.shape[1:])) for leaf in found))


def online(task: Task, *, every: int = 5) -> Tried:
    """λ that move while one network trains, each by the derivative through a block of updates; then trains with them.

    N = 1, and 3.9 + 1 runs.
    """
    train = train_of(task, shared=False)
    outer = optax.adam(0.1, b1=0.9, b2=0.9)

    def function(lane: dict[str, Array], draws: Draw):
        draw, key = _of(task, lane, draws)
        start, options = dict.fromkeys(NAMES, START), {"every": every, "last": every, "bounds": BOX}
        tuned = rr.selection.tune_online(train, start, draw.split, key=key, optimizer=outer, **options)
        hyper = {name: tuned.hyper[name] for name in NAMES}
        run = train(hyper, draw.split, key=key)
        lams = jnp.stack([hyper[name] for name in NAMES])
        return lams, run.metrics["val_loss"], *_judged(task, run.params, draw.test)

    found = _map(task, function, {"repeat": np.arange(task.num_repeats)}, width=task.num_repeats)
    return _tried(task, *(leaf[:, None] for leaf in found))


def shared_grid(num: int) -> np.ndarray:
    """`[N, 3]`, N values in equal steps of log λ over the box, the same for all matrices."""
    return np.repeat(np.geomspace(*BOX, num)[:, None], len(NAMES), axis=1)


def alone_grid(num: int, name: str) -> np.ndarray:
    """`[N, 3]`, as `shared_grid`, for one matrix; the others have λ = 0."""
    return shared_grid(num) * np.array([one == name for one in NAMES])


def random_points(num: int) -> np.ndarray:
    """`[N, 3]`, N points of a Latin hypercube in log λ over the box."""
    points = qmc.LatinHypercube(len(NAMES), rng=np.random.default_rng(4), optimization="random-cd").random(num)
    return np.exp(qmc.scale(points, *([end] * len(NAMES) for end in np.log(BOX))))


def around_start() -> np.ndarray:
    """`[6, 3]`, the start with one λ times exp(STEP), then with one λ times exp(−STEP)."""
    shifts = STEP * np.eye(len(NAMES))
    return START * np.exp(np.concatenate([shifts, -shifts]))


def _of(task: Task, lane: Any, draws: Draw) -> tuple[Draw, Array]:
    """The rows and the key of a lane's repeat."""
    draw = jax.tree.map(lambda leaf: jnp.asarray(leaf)[lane["repeat"]], draws)
    return draw, jax.random.fold_in(jax.random.key(100 + task.seed), lane["repeat"])


def _judged(task: Task, params: Any, test: rr.Batch) -> tuple[Array, Array]:
    """The loss on test rows, and W_hh."""
    outputs = task.network().apply(params, test.xs).outputs
    return task.loss(outputs, test.ys, None, None), params["layer_0"]["W_hh"]


def _map(task: Task, function: Any, lanes: Any, **options: Any) -> Sequence[np.ndarray]:
    return rr.lanes.map_lanes(function, lanes, shared=task.draws, hidden_size=task.hidden_size, **options)


def _tried(task: Task, lams, val, test, W, slopes=None) -> Tried:
    finite = np.where(np.isfinite(W), W, 0)
    rho = np.abs(np.linalg.eigvals(finite)).max(axis=-1)
    val, test = (np.nan_to_num(np.asarray(each) / task.blind, nan=np.inf) for each in (val, test))
    return Tried(np.asarray(lams), val, test, rho, slopes)
