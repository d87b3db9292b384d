"""One weight under every method: without data, and on the parabola ½a(w − w*)²."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments._harness import Claim
from rnnreg.constraints import cautious_decay, decoupled_decay

LOSHCHILOV, CHEN = "Loshchilov & Hutter 2019", "Chen et al. 2025"
A, MINIMUM, RATE = 0.5, 2.0, 1e-2  # the parabola ½a(w − w*)², and η


def with_adam(part: optax.GradientTransformation, learning_rate: Any = RATE) -> optax.GradientTransformation:
    """Adam with something between its own scaling and the learning rate."""
    return optax.chain(optax.scale_by_adam(), part, optax.scale_by_learning_rate(learning_rate))


def descend(optimizer: Any, gradient_of: Callable[[Any], Any], start: float, num_updates: int) -> jax.Array:
    """The path `[K + 1]` of one weight."""

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update({"W": gradient_of(params["W"])}, state, params)
        params = {"W": params["W"] + updates["W"]}
        return (params, state), params["W"][0, 0]

    params = {"W": jnp.full((1, 1), start)}
    _, path = jax.lax.scan(step, (params, optimizer.init(params)), length=num_updates)
    return jnp.append(start, path)


def penalised(lam: Any, slope: Callable[[Any], Any] = jnp.zeros_like) -> Callable[[Any], Any]:
    """The gradient of the loss and λw²."""
    penalty = jax.grad(lambda w: rr.penalties.l2()({"W": w}))
    return lambda w: slope(w) + lam * penalty(w)


def parabola(w: Any) -> Any:
    """∂/∂w ½a(w − w*)²."""
    return A * (w - MINIMUM)


class OneWeight(NamedTuple):
    """What each method does to one weight.

    Attributes:
      sgd: `[2, K]` paths on the parabola under SGD with momentum: the penalty at λ, decay at 2λ.
      fall: by method, `[strength, K]` paths from 1 without data.
      strengths: λ of the penalty without data, and the rate of decay.
      grid: strengths on the parabola; λ, of decay the rate.
      ends: by method, where the path on the parabola ends, at each of them.
    """

    sgd: np.ndarray
    fall: dict[str, np.ndarray]
    strengths: np.ndarray
    grid: np.ndarray
    ends: dict[str, np.ndarray]


def one_weight(num_updates: int) -> OneWeight:
    """Everything about one weight; on the parabola that many updates."""
    adam, sgd = optax.adam(RATE), optax.sgd(0.05, momentum=0.9)
    strengths, grid = jnp.array([1e-3, 1e-1, 10.0]), jnp.geomspace(1e-2, 10, 13)

    def short(optimizer, gradient_of):
        return descend(optimizer, gradient_of, 1.0, 80)

    def end(optimizer, gradient_of):
        return descend(optimizer, gradient_of, 0.1, num_updates)[-500:].mean()

    def along(values, function):
        return np.asarray(jax.jit(jax.vmap(function))(values))

    sgd_paths = (short(sgd, penalised(0.1, parabola)), short(optax.chain(decoupled_decay(0.2), sgd), parabola))
    return OneWeight(
        sgd=np.stack(sgd_paths),
        fall={
            "Adam + λw²": along(strengths, lambda lam: short(adam, penalised(lam))),
            "AdamW": along(strengths, lambda rate: short(with_adam(decoupled_decay(rate)), jnp.zeros_like)),
        },
        strengths=np.asarray(strengths),
        grid=np.asarray(grid),
        ends={
            "Adam + λw²": along(grid, lambda lam: end(adam, penalised(lam, parabola))),
            "AdamW": along(grid, lambda rate: end(with_adam(decoupled_decay(rate)), parabola)),
            "cautious": along(grid, lambda rate: end(with_adam(cautious_decay(rate)), parabola)),
        },
    )


def expected_ends(grid: np.ndarray) -> dict[str, np.ndarray]:
    """Where each method ends on the parabola, by algebra."""
    return {
        "Adam + λw²": A * MINIMUM / (A + 2 * grid),
        "AdamW": np.minimum(MINIMUM, 1 / grid),
        "cautious": np.full_like(grid, MINIMUM),
    }


def claims(one: OneWeight) -> list[Claim]:
    """What algebra says."""
    algebra, fall = f"{LOSHCHILOV}; algebra", one.fall
    num = np.arange(fall["AdamW"].shape[1])
    geometric = (1 - RATE * one.strengths[:2, None]) ** num
    early = fall["Adam + λw²"][:, :20]
    expected = expected_ends(one.grid)
    return [
        Claim("SGD with momentum: λw² and decay at 2λ, largest distance of the paths", algebra).at_most(
            1e-12, np.abs(np.diff(one.sgd, axis=0)).max()
        ),
        Claim("AdamW without data: largest distance to (1 − η·rate)^t", algebra).at_most(
            1e-12, np.abs(fall["AdamW"][:2] - geometric).max()
        ),
        Claim("Adam + λw² without data: λ from 1e-3 to 10 moves 20 updates by, in η", algebra).at_most(
            1e-2, np.ptp(early, axis=0).max() / RATE
        ),
        Claim("and the length of an update, in η", algebra).close(
            1.0, np.abs(np.diff(early, axis=1)).mean() / RATE, tolerance=0.05
        ),
        *(
            Claim(f"{name} on the parabola: largest distance to {formula}", source).at_most(
                0.05, np.abs(one.ends[name] - expected[name]).max()
            )
            for name, formula, source in (
                ("Adam + λw²", "aw*/(a + 2λ)", algebra),
                ("AdamW", "min(w*, 1/rate)", algebra),
            )
        ),
        Claim("cautious on the parabola: largest distance to w*, in steps of decay and Adam", CHEN).at_most(
            1.0, (np.abs(one.ends["cautious"] - MINIMUM) / (RATE * (1 + one.grid * MINIMUM))).max()
        ),
    ]
