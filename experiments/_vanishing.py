"""What the experiment on λ and memory shares: sweeps, what is measured on every lane, and the prediction of λ_c."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr

MAKERS = {"adding": rr.tasks.adding, "temporal order": rr.tasks.temporal_order}
CELLS = {
    "tanh": rr.cells.elman,
    "GRU": rr.cells.gru,
}  # tanh starts orthogonal; so does each gate block


class Path(NamedTuple):
    """What λ did, `[λ, seed]` each; a diverged lane is NaN.

    Attributes:
      lam: `[λ]`.
      train: data loss on the training rows, without the penalty.
      test: data loss on fresh rows.
      rho: spectral radius of W_hh (of a GRU, of the candidate's block).
      horizon: lag at which r(ℓ) falls below 1/e for good; NaN where it does not.
      censored: whether it does not: the horizon is longer than the sequence.
      squares: ‖W‖², what λ multiplies.
    """

    lam: np.ndarray
    train: np.ndarray
    test: np.ndarray
    rho: np.ndarray
    horizon: np.ndarray
    censored: np.ndarray
    squares: np.ndarray


class Prediction(NamedTuple):
    """λ_c = (L₀ − L*) / min‖W‖² from a pilot at small λ.

    Attributes:
      lambda_c: above it, a network like the smallest that solved the task has a worse objective than forgetting.
      blind: L₀, the loss of the best blind guess.
      achieved: L*, the least data loss among the solving networks of the pilot.
      squares: the least ‖W‖² among them.
      solved: how many of the pilot's networks solved the task.
      num_runs: of how many.
    """

    lambda_c: float
    blind: float
    achieved: float
    squares: float
    solved: int
    num_runs: int


def task_runs(name: str, settings: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`train(static, start=…)` and `data(static)` of a memory task; static is a cell and a length."""

    def task(static):
        return MAKERS[name](static["num_steps"])

    def data(static):
        key_train, key_test = jax.random.split(jax.random.key(1))
        made = task(static)
        return rr.Split(
            made.sample(key_train, settings.train_rows),
            validation=made.sample(key_test, settings.test_rows),
        )

    def train(static, start=None):
        """With `start`, parameters stacked over seeds, a run begins at those that `hyper["start"]` names."""
        made = task(static)
        net = network_of(made, static, settings.hidden_size)

        def warm(hyper):
            seed = jnp.asarray(hyper["start"]).astype(jnp.int32)

            def init(key, input_size=None, *, dtype=None):
                del key, input_size
                return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype)[seed], start)

            return net._replace(init=init)

        return rr.make_train(
            net if start is None else warm,
            loss=made.loss,
            penalties={"l2": rr.penalties.l2()},
            optimizer=optax.chain(
                optax.clip_by_global_norm(1.0), optax.adam(settings.learning_rate)
            ),
            num_epochs=settings.num_epochs,
            batch_size=settings.batch_size,
            record_every=settings.num_epochs,
        )

    return train, data


def network_of(task: Any, static: Mapping[str, Any], hidden_size: int) -> rr.Network:
    """The network of a static combination."""
    cell = CELLS[static["cell"]](hidden_size)
    return rr.network([cell], task.output_size, readout=task.readout)


def measure(
    result: rr.SweepResult, static: Mapping[str, Any], flow_of: Callable[..., Any], *, dim: str
) -> Path:
    """The path of one static combination; `flow_of(params)` is its gradient flow, `dim` the axis beside λ."""
    part = result.select(**static) if static else result

    def reach(params):
        found = rr.diagnostics.horizon(flow_of(params).log_norms["layer_0"])
        return {"lag": found.lag, "censored": found.censored}

    horizon = part.map(reach)
    spectrum = rr.diagnostics.spectra(part.groups[0].params)["layer_0/W_hh"]

    def values(array):
        return array.transpose("l2", dim).values

    ordered = part.metrics["train_loss"].dims  # (l2, dim), or the other way about
    rho = spectrum.rho[..., -1]  # a GRU's last block is its candidate's; a tanh network has one
    return Path(
        lam=part.metrics["l2"].values,
        train=values(part.metrics["train_loss"]),
        test=values(part.metrics["val_loss"]),
        rho=rho if ordered[0] == "l2" else rho.T,
        horizon=values(horizon["lag"]),
        censored=values(horizon["censored"]).astype(bool),
        squares=values(part.metrics["penalty_l2"]),
    )


def predict(pilot: Path, blind: float, remembers: np.ndarray) -> Prediction:
    """λ_c from a pilot's networks; NaN where none solved the task."""
    found = pilot.train[remembers]
    achieved = float(found.min()) if found.size else float("nan")
    squares = float(pilot.squares[remembers].min()) if found.size else float("nan")
    return Prediction(
        (blind - achieved) / squares, blind, achieved, squares, int(remembers.sum()), remembers.size
    )


def remembers(path: Path, blind: float) -> np.ndarray:
    """Data loss below a quarter of the blind guess's. (With one of two things remembered it is a half.)"""
    return path.test < blind / 4
