"""What λ‖W‖² does to memory on tasks that people know: where it helps, and from which λ on it destroys.

Adding and temporal order, tanh (orthogonal start) and GRU: data loss, test error, horizon of the gradient and ρ(W_hh)
against λ, from cold starts and from trained networks on which λ is switched on. A pilot with other seeds at small λ
predicts, before anything else is run, λ_c = (L₀ − L*) / min‖W‖²: above it, forgetting has a better objective than the
smallest network that was seen to remember. Beside them two places where λ‖W‖² should help: the yearly sunspots
(overfitting; test errors are looked at after the fact and choose nothing) and one-step forecasts of the Lorenz system
from a recurrence that starts chaotic (exploding gradients; plain gradient descent, no clipping).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

import rnnreg as rr
from experiments import _sunspots
from experiments import _vanishing as vanishing
from experiments import _vanishing_figures as figures
from experiments._harness import Claim, Options, run, text_table
from experiments._intervals import proportion
from experiments._thresholds import fit_threshold, interval

HERE = "written down before the sweep"
PASCANU = "Pascanu, Mikolov & Bengio 2013, section 3.1"


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the experiment."""

    tasks: tuple[str, ...] = ("adding", "temporal order")
    """Memory tasks."""
    lengths: tuple[int, ...] = (20, 40)
    """Steps of a sequence."""
    cells: tuple[str, ...] = ("tanh", "GRU")
    """Cells."""
    hidden_size: int = 24
    """Hidden units on the memory tasks."""
    num_lambdas: int = 11
    """λ = 0 and a log grid, on the memory tasks."""
    lambda_low: float = 1e-5
    """Smallest positive λ there."""
    lambda_high: float = 1.0
    """Largest λ there."""
    seeds: int = 5
    """Starts at each λ."""
    train_rows: int = 4000
    """Training rows of a memory task."""
    test_rows: int = 1000
    """Fresh rows."""
    batch_size: int = 50
    """Rows of an update."""
    num_epochs: int = 30
    """Passes over the rows, from a cold start and again after λ is switched on."""
    learning_rate: float = 1e-2
    """Of Adam on the memory tasks (with the gradient's norm clipped at 1)."""
    sunspot_updates: int = 1500
    """Full-batch updates on the sunspots; long enough to overfit."""
    lorenz_rows: int = 128
    """Sequences of the Lorenz system."""
    lorenz_epochs: int = 300
    """Passes over them, in batches of 32."""
    lorenz_gain: float = 2.0
    """Of the Gaussian start there; above 1 the recurrence is chaotic."""
    series_lambdas: int = 10
    """λ = 0 and a log grid from 1e-5 to 3, on both series."""


PRESETS = {
    "quick": {
        "tasks": ("adding",),
        "lengths": (20,),
        "cells": ("tanh",),
        "num_lambdas": 5,
        "seeds": 2,
        "train_rows": 1000,
        "num_epochs": 20,
        "sunspot_updates": 150,
        "lorenz_rows": 32,
        "lorenz_epochs": 20,
        "series_lambdas": 4,
    },
    "full": {},
}


def main(config: Config) -> None:
    """Pilot and prediction, then the sweeps; prints tables and writes figures and summary."""
    rr.use_all_cores()
    rr.compilation_cache()
    key = jax.random.key(0)
    by_task = {name: memory_task(config, name, key) for name in config.tasks}
    memory = {title: found for task in by_task.values() for title, found in task.items()}
    series = {"sunspots": sunspots(config, key), "Lorenz": lorenz(config, key)}
    for name, path in series.items():
        print(f"\n{name}\n{series_table(path)}")
    claims = [*memory_claims(memory), *series_claims(series)]
    print(claims_table(claims))
    if config.preset != "full":
        print("The claims are about --preset full; this run is too short to test them.")
    for name, found in by_task.items():
        figures.memory_figure(found, config.out / f"memory_{name.replace(' ', '_')}")
    figures.series_figure(config, series)
    summary = {
        "config": config,
        "memory": memory,
        "series": series,
        "proportions": {
            title: {
                kind: proportions(found[kind], found["prediction"]) for kind in ("cold", "warm")
            }
            for title, found in memory.items()
        },
    }
    write_summary(config.out, summary, claims)
    print(f"wrote {config.out}/")


def memory_task(config: Config, name: str, key: Any) -> dict[str, dict[str, Any]]:
    """Of every cell and length of a task: the prediction, the paths, the thresholds."""
    key_pilot, key_cold, key_warm = jax.random.split(key, 3)
    train, data = vanishing.task_runs(name, config)
    static = {"cell": list(config.cells), "num_steps": list(config.lengths)}
    places = [{"cell": c, "num_steps": n} for c in config.cells for n in config.lengths]

    def path_of(result, place, dim="seed", **labels):
        task, rows = vanishing.MAKERS[name](place["num_steps"]), data(place).validation
        net = vanishing.network_of(task, place, config.hidden_size)
        shown = rr.data.take_rows(rows, np.arange(64))

        def flow_of(params):
            return rr.diagnostics.gradient_flow(net, task.loss, params, shown)

        return vanishing.measure(result, place | labels, flow_of, dim=dim)

    def blind(place):
        return vanishing.MAKERS[name](place["num_steps"]).baseline["loss"]

    def sweep(grid, key, seeds, **options):
        return rr.sweep(
            options.pop("train", train), grid, data, static=static, seeds=seeds, key=key
        )

    level = blind(places[0])
    pilot = sweep({"l2": [level * factor for factor in (1e-5, 1e-4, 1e-3)]}, key_pilot, 2)
    predictions = []
    for place in places:
        path = path_of(pilot, place)
        predictions.append(
            vanishing.predict(path, blind(place), vanishing.remembers(path, blind(place)))
        )
        print(f"{title_of(name, place)}: predicted λ_c = {predictions[-1].lambda_c:.3g}", end=" ")
        print(
            f"= ({predictions[-1].blind:.4f} − {predictions[-1].achieved:.2g}) / {predictions[-1].squares:.3g}"
            f", {predictions[-1].solved} of {predictions[-1].num_runs} pilot runs remember"
        )

    lams = _sunspots.log_grid(config.lambda_low, config.lambda_high, config.num_lambdas)
    cold = sweep({"l2": lams}, key_cold, config.seeds)

    def warm_train(place):
        start = jax.tree.map(lambda leaf: leaf[0], cold.select(**place).groups[0].params)  # λ = 0
        return train(place, start)

    starts = list(range(config.seeds))
    warm = sweep({"l2": lams, "start": starts}, key_warm, 1, train=warm_train)

    found = {}
    for place, prediction in zip(places, predictions, strict=True):
        paths = {
            "cold": path_of(cold, place),
            "warm": path_of(warm, place, "start", seed=0),
        }
        alive = {k: vanishing.remembers(path, prediction.blind) for k, path in paths.items()}
        learnt = alive["cold"][0]  # λ switched on after training can only destroy what was there
        ends = {
            "cold": fit_threshold(paths["cold"].lam, alive["cold"], last=True),
            "warm": fit_threshold(paths["warm"].lam, alive["warm"][:, learnt], last=True),
        }
        title = title_of(name, place)
        found[title] = {
            "prediction": prediction,
            **paths,
            "thresholds": ends,
            "learnt_without_penalty": int(learnt.sum()),
        }
        print(f"\n{title}: cold starts\n{memory_table(paths['cold'], prediction)}")
        for kind, end in ends.items():
            print(f"memory ends, {kind}, at λ: {interval(end)}", end="")
            beyond = end.below + end.above
            print(f"; {beyond} seeds have no end on the grid" if beyond else "", end="")
            print(f"; {end.unordered} are without it at smaller λ too" if end.unordered else "")
    return found


def title_of(name: str, place) -> str:
    """Such as "adding, T = 20, GRU"."""
    return f"{name}, T = {place['num_steps']}, {place['cell']}"


def sunspots(config: Config, key: Any) -> vanishing.Path:
    """The main job's network on the sunspots, trained for longer; errors on 1921–1955."""
    settings = {
        "hidden_size": 16,
        "num_updates": config.sunspot_updates,
        "learning_rate": 1e-2,
        "transform": "identity",
    }
    data = _sunspots.sunspots(9, "identity")
    data = data.replace(validation=data.test["1921-1955"], test={})
    train = _sunspots.make_train(data, settings)
    grid = {"l2": series_grid(config), "learning_rate": 1e-2}
    result = rr.sweep(train, grid, data, seeds=config.seeds, key=key)

    def flow_of(params):
        net = train.network({})
        return rr.diagnostics.gradient_flow(net, _sunspots.LOSS, params, data.train)

    return vanishing.measure(result, {}, flow_of, dim="seed")


def lorenz(config: Config, key: Any) -> vanishing.Path:
    """One-step forecasts of the Lorenz system by a tanh network whose start is chaotic; plain gradient descent."""
    task = rr.tasks.lorenz(50)
    key_train, key_test, key_runs = jax.random.split(key, 3)
    data = rr.Split(
        task.sample(key_train, config.lorenz_rows), validation=task.sample(key_test, 128)
    )
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

    return vanishing.measure(result, {}, flow_of, dim="seed")


def series_grid(config: Config) -> list[float]:
    """λ on the two series."""
    return _sunspots.log_grid(1e-5, 3.0, config.series_lambdas)


def memory_claims(memory) -> list[Claim]:
    """The prediction against both thresholds, and what happens on either side of them."""
    claims = []
    for title, found in memory.items():
        prediction, ends, cold = found["prediction"], found["thresholds"], found["cold"]
        order = ends["cold"].low / ends["warm"].high
        claims += [
            factor_claim(
                f"{title}: λ at which trained networks lose the task / predicted λ_c",
                ends["warm"].value / prediction.lambda_c,
                3.0,
            ),
            Claim.at_most(
                f"{title}: λ up to which it is learnt / λ up to which it survives, less the intervals",
                1.0,
                order if 0 < order < np.inf else None,
                source=HERE,
            ),
        ]
        alive = vanishing.remembers(cold, prediction.blind)
        dead = cold.lam > 3 * ends["warm"].high
        if dead.any():
            claims.append(
                Claim.at_most(
                    f"{title}: ρ(W_hh) above three times that λ, mean over seeds",
                    0.5,
                    cold.rho[dead].mean(),
                    source=PASCANU,
                )
            )
        if alive.any():
            claims.append(
                Claim.at_least(
                    f"{title}: smallest ρ(W_hh) of a network that remembers",
                    0.9,
                    cold.rho[alive].min(),
                    source=HERE + ": memory and ρ end together, ρ does not fade first",
                )
            )
    return claims


def factor_claim(claim: str, ratio: float, factor: float) -> Claim:
    """`ratio` lies between 1/factor and factor."""
    known = 0 < ratio < np.inf  # both ends on the grid, and a prediction
    return Claim(
        claim=claim,
        source=HERE + ", (L₀ − L*)/min‖W‖² of the pilot",
        expected=f"between {1 / factor:.3g} and {factor:g}",
        tolerance=None,
        measured=float(ratio) if known else None,
        holds=bool(1 / factor <= ratio <= factor) if known else None,
    )


def series_claims(series) -> list[Claim]:
    """λ helps where there is something to help: paired over seeds, at the best λ after the fact."""
    sources = {
        "sunspots": "this project's lambda_sweep: λ against overfitting",
        "Lorenz": PASCANU + ": a penalty on the recurrence against exploding gradients",
    }
    claims = []
    for name, path in series.items():
        best = best_lambda(path)
        difference = path.test[best] - path.test[0]
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        claims.append(
            Claim.at_most(
                f"{name}: test error at λ = {path.lam[best]:.2g} less that at λ = 0, plus 2 SE",
                0.0,
                difference.mean() + 2 * error,
                source=sources[name],
            )
        )
        claims.append(
            Claim.at_least(
                f"{name}: test error at the largest λ over that at the best",
                2.0,
                path.test[-1].mean() / path.test[best].mean(),
                source="λ too large forgets everything",
            )
        )
    return claims


def best_lambda(path: vanishing.Path) -> int:
    """The place of the λ with the least mean test error; one at which a run diverged cannot win."""
    return int(np.nan_to_num(path.test.mean(axis=1), nan=np.inf).argmin())


def proportions(path: vanishing.Path, prediction: vanishing.Prediction) -> list[dict[str, Any]]:
    """The share of seeds that remember at each λ, with Clopper–Pearson intervals."""
    alive = vanishing.remembers(path, prediction.blind)
    columns = (path.lam, alive.mean(axis=1), *proportion(alive.sum(axis=1), alive.shape[1]))
    names = ("lam", "share", "low", "high")
    return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]


def memory_table(path: vanishing.Path, prediction: vanishing.Prediction) -> str:
    """λ by λ: losses, share of seeds that remember, horizon, ρ, ‖W‖²."""
    shares = proportions(path, prediction)
    return table(path, [f"{s['share']:.2f} [{s['low']:.2f}, {s['high']:.2f}]" for s in shares])


def series_table(path: vanishing.Path) -> str:
    """λ by λ: losses, horizon, ρ, ‖W‖²."""
    return table(path, None)


def table(path: vanishing.Path, shares: list[str] | None) -> str:
    """One row a λ."""
    reach = figures.median_horizon(path)
    root = np.sqrt(path.test.shape[1])
    rows = []
    for i, lam in enumerate(path.lam):
        error = np.nanstd(path.test[i], ddof=1) / root
        rows.append(
            (
                f"{lam:.3g}",
                f"{np.nanmean(path.train[i]):.4f}",
                f"{np.nanmean(path.test[i]):.4f} ± {error:.4f}",
                *([] if shares is None else [shares[i]]),
                "longer" if np.isinf(reach[i]) else f"{reach[i]:.1f}",
                f"{np.nanmean(path.rho[i]):.3f}",
                f"{np.nanmean(path.squares[i]):.3g}",
            )
        )
    remembered = [] if shares is None else ["remember [95 %]"]
    header = ("λ", "data loss", "test ± SE", *remembered, "horizon (median)", "ρ(W_hh)", "‖W‖²")
    return text_table(header, rows)


if __name__ == "__main__":
    run(main, Config, PRESETS)
