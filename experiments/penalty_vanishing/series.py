"""Two series where λ‖W‖² should help: the yearly sunspots (overfitting), the Lorenz system (exploding gradients)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax

import rnnreg as rr
from experiments._harness import Claim, mean_and_error
from experiments._sunspots import network
from experiments.penalty_vanishing.path import PASCANU, Path, measure


def sunspots(config: Any, key: Any) -> Path:
    """The main job's network on the sunspots, trained for longer; errors on 1921–1955."""
    settings = {
        "hidden_size": 16,
        "num_updates": config.sunspot_updates,
        "learning_rate": 1e-2,
        "transform": "identity",
    }
    data = network.sunspots(9, "identity")
    data = data.replace(validation=data.test["1921-1955"], test={})
    train = network.make_train(data, settings)
    grid = {"l2": series_grid(config), "learning_rate": 1e-2}
    result = rr.sweep(train, grid, data, seeds=config.seeds, key=key)

    def flow_of(params):
        net = train.network({})
        return rr.diagnostics.gradient_flow(net, network.LOSS, params, data.train)

    return measure(result, {}, flow_of, dim="seed")


def lorenz(config: Any, key: Any) -> Path:
    """One-step forecasts of the Lorenz system by a tanh network whose start is chaotic; plain gradient descent."""
    task = rr.tasks.lorenz(50)
    key_train, key_test, key_runs = jax.random.split(key, 3)
    data = rr.Split(task.sample(key_train, config.lorenz_rows), validation=task.sample(key_test, 128))
    start = rr.cells.gaussian(config.lorenz_gain)
    net = rr.network([rr.cells.elman(32, recurrent_init=start)], task.output_size)
    train = rr.make_train(
        net,
        loss=task.loss,
        penalties={"l2": rr.penalties.l2()},
        optimizer=optax.sgd(0.05),
        num_epochs=config.lorenz_epochs,
        batch_size=32,
        record_every=config.lorenz_epochs,
    )
    result = rr.sweep(train, {"l2": series_grid(config)}, data, seeds=config.seeds, key=key_runs)
    shown = rr.data.take_rows(data.train, np.arange(32))

    def flow_of(params):
        return rr.diagnostics.gradient_flow(net, task.loss, params, shown)

    return measure(result, {}, flow_of, dim="seed")


def series_grid(config: Any) -> list[float]:
    """λ on the two series."""
    return network.log_grid(1e-5, 3.0, config.series_lambdas)


def claims(series: dict[str, Path]) -> list[Claim]:
    """λ helps where there is something to help: paired over seeds, at the best λ after the fact."""
    sources = {
        "sunspots": "this project's lambda_sweep: λ against overfitting",
        "Lorenz": PASCANU + ": a penalty on the recurrence against exploding gradients",
    }
    claims = []
    for name, path in series.items():
        best = best_lambda(path)
        difference, error = mean_and_error(path.test[best] - path.test[0])
        claims.append(
            Claim(
                f"{name}: test error at λ = {path.lam[best]:.2g} less that at λ = 0, plus 2 SE", sources[name]
            ).at_most(0.0, difference + 2 * error)
        )
        claims.append(
            Claim(
                f"{name}: test error at the largest λ over that at the best", "λ too large forgets everything"
            ).at_least(2.0, path.test[-1].mean() / path.test[best].mean())
        )
    return claims


def best_lambda(path: Path) -> int:
    """The place of the λ with the least mean test error; one at which a run diverged cannot win."""
    return int(np.nan_to_num(path.test.mean(axis=1), nan=np.inf).argmin())
