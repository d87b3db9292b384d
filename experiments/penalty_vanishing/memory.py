"""Memory tasks: sweeps from cold starts and from trained networks, the prediction of λ_c, and where memory ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments._harness import Claim, proportion
from experiments._sunspots.network import log_grid
from experiments._thresholds import fit_threshold, interval
from experiments.penalty_vanishing.path import PASCANU, Path, measure, table

HERE = "written down before the sweep"
PILOT = f"{HERE}, (L₀ − L*)/min‖W‖² of the pilot"
MAKERS = {"adding": rr.tasks.adding, "temporal order": rr.tasks.temporal_order}
CELLS = {"tanh": rr.cells.elman, "GRU": rr.cells.gru}  # tanh starts orthogonal; so does each gate block

Found = dict[str, Any]


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
            made.sample(key_train, settings.train_rows), validation=made.sample(key_test, settings.test_rows)
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
            optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.learning_rate)),
            num_epochs=settings.num_epochs,
            batch_size=settings.batch_size,
            record_every=settings.num_epochs,
        )

    return train, data


def network_of(task: Any, static: Mapping[str, Any], hidden_size: int) -> rr.Network:
    """The network of a static combination."""
    cell = CELLS[static["cell"]](hidden_size)
    return rr.network([cell], task.output_size, readout=task.readout)


def memory_task(config: Any, name: str, key: Any) -> dict[str, Found]:
    """Of every cell and length of a task: the prediction, the paths, the thresholds."""
    key_pilot, key_cold, key_warm = jax.random.split(key, 3)
    train, data = task_runs(name, config)
    static = {"cell": list(config.cells), "num_steps": list(config.lengths)}
    places = [{"cell": c, "num_steps": n} for c in config.cells for n in config.lengths]

    def path_of(result, place, dim="seed", **labels):
        made, rows = MAKERS[name](place["num_steps"]), data(place).validation
        net = network_of(made, place, config.hidden_size)
        shown = rr.data.take_rows(rows, np.arange(64))

        def flow_of(params):
            return rr.diagnostics.gradient_flow(net, made.loss, params, shown)

        return measure(result, place | labels, flow_of, dim=dim)

    def sweep(grid, key, seeds, train=train):
        return rr.sweep(train, grid, data, static=static, seeds=seeds, key=key)

    blinds = [MAKERS[name](place["num_steps"]).baseline["loss"] for place in places]
    pilot = sweep({"l2": [blinds[0] * factor for factor in (1e-5, 1e-4, 1e-3)]}, key_pilot, 2)
    predictions = [predict(path_of(pilot, place), blind) for place, blind in zip(places, blinds, strict=True)]

    lams = log_grid(config.lambda_low, config.lambda_high, config.num_lambdas)
    cold = sweep({"l2": lams}, key_cold, config.seeds)

    def warm_train(place):
        start = jax.tree.map(lambda leaf: leaf[0], cold.select(**place).groups[0].params)  # λ = 0
        return train(place, start)

    starts = list(range(config.seeds))
    warm = sweep({"l2": lams, "start": starts}, key_warm, 1, train=warm_train)

    return {
        f"{name}, T = {place['num_steps']}, {place['cell']}": _found(
            prediction, path_of(cold, place), path_of(warm, place, "start", seed=0)
        )
        for place, prediction in zip(places, predictions, strict=True)
    }


def _found(prediction: Prediction, cold: Path, warm: Path) -> Found:
    alive = remembers(cold, prediction.blind)
    learnt = alive[0]  # λ switched on after training can only destroy what was there
    survived = remembers(warm, prediction.blind)[:, learnt]
    ends = {"cold": fit_threshold(cold.lam, alive, last=True), "warm": fit_threshold(warm.lam, survived, last=True)}
    return {
        "prediction": prediction,
        "cold": cold,
        "warm": warm,
        "thresholds": ends,
        "learnt_without_penalty": int(learnt.sum()),
    }


def lines(title: str, found: Found) -> str:
    """The prediction, the table of cold starts, and where memory ends."""
    p = found["prediction"]
    shares = [
        f"{entry['share']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]" for entry in proportions(found["cold"], p)
    ]
    text = [
        f"{title}: predicted λ_c = {p.lambda_c:.3g} = ({p.blind:.4f} − {p.achieved:.2g}) / {p.squares:.3g}"
        f", {p.solved} of {p.num_runs} pilot runs remember",
        f"cold starts\n{table(found['cold'], shares)}",
    ]
    for kind, end in found["thresholds"].items():
        beyond = end.below + end.above
        text.append(
            f"memory ends, {kind}, at λ: {interval(end)}"
            + (f"; {beyond} seeds have no end on the grid" if beyond else "")
            + (f"; {end.unordered} are without it at smaller λ too" if end.unordered else "")
        )
    return "\n".join(text)


def predict(pilot: Path, blind: float) -> Prediction:
    """λ_c from a pilot's networks; NaN where none solved the task."""
    solved = remembers(pilot, blind)
    found = pilot.train[solved]
    achieved = float(found.min()) if found.size else float("nan")
    squares = float(pilot.squares[solved].min()) if found.size else float("nan")
    return Prediction((blind - achieved) / squares, blind, achieved, squares, int(solved.sum()), solved.size)


def remembers(path: Path, blind: float) -> np.ndarray:
    """Data loss below a quarter of the blind guess's. (With one of two things remembered it is a half.)"""
    return path.test < blind / 4


def proportions(path: Path, prediction: Prediction) -> list[dict[str, Any]]:
    """The share of seeds that remember at each λ, with Clopper–Pearson intervals."""
    alive = remembers(path, prediction.blind)
    columns = (path.lam, alive.mean(axis=1), *proportion(alive.sum(axis=1), alive.shape[1]))
    names = ("lam", "share", "low", "high")
    return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]


def claims(title: str, found: Found) -> Iterator[Claim]:
    """The prediction against both thresholds, and what happens on either side of them."""
    prediction, ends, cold = found["prediction"], found["thresholds"], found["cold"]
    lost = Claim(f"{title}: λ at which trained networks lose the task / predicted λ_c", PILOT)
    ratio = ends["warm"].value / prediction.lambda_c
    yield lost.between(1 / 3, 3.0, ratio if 0 < ratio < np.inf else None)  # both ends on the grid, and a prediction
    learnt = f"{title}: λ up to which it is learnt / λ up to which it survives, less the intervals"
    order = ends["cold"].low / ends["warm"].high
    yield Claim(learnt, HERE).at_most(1.0, order if 0 < order < np.inf else None)
    dead, alive = cold.lam > 3 * ends["warm"].high, remembers(cold, prediction.blind)
    if dead.any():
        above = f"{title}: ρ(W_hh) above three times that λ, mean over seeds"
        yield Claim(above, PASCANU).at_most(0.5, cold.rho[dead].mean())
    if alive.any():
        smallest = f"{title}: smallest ρ(W_hh) of a network that remembers"
        yield Claim(smallest, f"{HERE}: memory and ρ end together, ρ does not fade first").at_least(
            0.9, cold.rho[alive].min()
        )
