"""Adding over a map of learning rates and strengths: who remembers, ρ(W_hh), horizon and size of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments._harness import Claim, text_table
from experiments._thresholds import fit_threshold
from experiments.decoupled.one_weight import CHEN, with_adam

BEFORE = "written down before"
WEIGHT = "layer_0/W_hh"


class Method(NamedTuple):
    """One way to hold weights down.

    Attributes:
      strength: what the strength is called.
      grid: its smallest and its largest value.
      chain: from hyper, what stands after the clipping of the gradient.
      penalties: of the run.
    """

    strength: str
    grid: tuple[float, float]
    chain: Callable[[Mapping[str, Any]], optax.GradientTransformation]
    penalties: dict[str, rr.penalties.Penalty] = {}  # noqa: RUF012  (it is not written to)


def methods(config: Any) -> dict[str, Method]:
    """By name; strengths are read from `hyper["strength"]`."""
    start = (3 * config.hidden_size) ** 0.5  # ‖W_hh‖_F of a GRU, whose three blocks start orthogonal

    def share(hyper):  # optax adds decay·w after the learning rate too, where steps are negative
        return optax.chain(
            optax.adam(hyper["learning_rate"]),
            optax.add_decayed_weights(-hyper["strength"], mask=rr.constraints.covering()),
        )

    def fixed(hyper):
        sphere = rr.constraints.fixed_norm(start / hyper["strength"])
        return optax.chain(optax.adam(hyper["learning_rate"]), sphere)

    def with_decay(factory):
        return lambda hyper: with_adam(factory(hyper["strength"]), hyper["learning_rate"])

    return {
        "Adam + λ‖W‖²": Method(
            "λ", (1e-5, 1.0), lambda hyper: optax.adam(hyper["learning_rate"]), {"strength": rr.penalties.l2()}
        ),
        "AdamW": Method("rate", (1e-2, 30.0), with_decay(rr.constraints.decoupled_decay)),
        "decay not × η": Method("share an update", (1e-5, 1e-1), share),
        "cautious decay": Method("rate", (1e-2, 30.0), with_decay(rr.constraints.cautious_decay)),
        "fixed ‖W_hh‖": Method("norm at the start / fixed norm", (0.5, 4.0), fixed),
    }


class Map(NamedTuple):
    """What a method does to the task, `[η, strength, seed]` each; NaN where a run diverged.

    Attributes:
      strengths: `[strength]`.
      loss: on fresh rows, in those of the best blind guess.
      rho: spectral radius of the candidate's block of W_hh.
      horizon: lag at which gradients fall below 1/e for good; T where they do not.
      largest: |w| of the largest entry of a matrix.
    """

    strengths: np.ndarray
    loss: np.ndarray
    rho: np.ndarray
    horizon: np.ndarray
    largest: np.ndarray

    @property
    def alive(self) -> np.ndarray:
        """Whether a network remembers: its loss is below a quarter of the blind guess's."""
        return self.loss < 0.25


def measure_all(config: Any, key: jax.Array) -> dict[str, Map]:
    """The map of every method; "none" has one strength, 0."""
    task = rr.tasks.adding(config.num_steps)
    key_train, key_test, key_run = jax.random.split(key, 3)
    fresh = task.sample(key_test, config.rows)
    data = rr.Split(task.sample(key_train, config.rows), validation=fresh)
    net = rr.network([rr.cells.gru(config.hidden_size)], task.output_size, readout=task.readout)
    shown = rr.data.take_rows(fresh, np.arange(min(64, config.rows)))

    def observe(params):
        flow = rr.diagnostics.gradient_flow(net, task.loss, params, shown)
        reach = rr.diagnostics.horizon(flow.log_norms["layer_0"])
        matrices = [jnp.abs(leaf).max() for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
        return {"horizon": jnp.where(reach.censored, config.num_steps, reach.lag), "largest": jnp.stack(matrices).max()}

    def measure(method, strengths):
        train = rr.make_train(
            net,
            loss=task.loss,
            penalties=method.penalties,
            optimizer=lambda hyper: optax.chain(optax.clip_by_global_norm(1.0), method.chain(hyper)),
            num_epochs=config.num_epochs,
            batch_size=config.batch_size,
            record_every=config.num_epochs,
        )
        grid = {"learning_rate": list(config.learning_rates), "strength": list(strengths)}
        result = rr.sweep(train, grid, data, seeds=config.seeds, key=key_run)
        dims = ("learning_rate", "strength", "seed")
        seen, loss = result.map(observe), result.metrics["val_loss"]
        rho = loss.copy(data=rr.diagnostics.spectra(result.groups[0].params)[WEIGHT].rho[..., -1])
        arrays = (loss / task.baseline["loss"], rho, seen["horizon"], seen["largest"])
        return Map(np.asarray(strengths), *(each.transpose(*dims).values for each in arrays))

    found = {
        name: measure(method, np.geomspace(*method.grid, config.num_strengths))
        for name, method in methods(config).items()
    }
    return found | {"none": measure(methods(config)["AdamW"], [0.0])}


def ends(found: Map) -> np.ndarray:
    """`[η]`, the strength above which memory is gone; NaN where the grid has no end of it."""
    values = np.array([fit_threshold(found.strengths, alive, last=True).value for alive in found.alive])
    return np.where((values > 0) & np.isfinite(values), values, np.nan)


def slope(config: Any, found: Map) -> float | None:
    """d ln(end of memory) / d ln η; None with fewer than three ends."""
    logs, values = np.log(config.learning_rates), np.log(ends(found))
    kept = np.isfinite(values)
    return float(np.polyfit(logs[kept], values[kept], 1)[0]) if kept.sum() > 2 else None


def claims(config: Any, maps: Mapping[str, Map]) -> list[Claim]:
    """What was expected of the map before it was drawn."""
    told, flat = "slope of ln(end of memory) by ln η", "the minimum of L + λ‖W‖² knows no η"
    slopes = (
        ("Adam + λ‖W‖²", 0.0, f"{BEFORE}: {flat}"),
        ("AdamW", -1.0, f"{BEFORE}, if η·rate is what counts"),
        ("AdamW", 0.0, f"{BEFORE}, if |w| ≤ 1/rate is what counts"),
        ("decay not × η", 1.0, f"{BEFORE}: a step of η against share · w"),
    )
    found = [
        Claim(f"{name}: {told}", source).close(expected, slope(config, maps[name]), tolerance=0.35)
        for name, expected, source in slopes
    ]
    adamw, cautious, fixed = maps["AdamW"], maps["cautious decay"], maps["fixed ‖W_hh‖"]
    updates = config.num_epochs * -(-config.rows // config.batch_size)
    settled = np.outer(config.learning_rates, adamw.strengths) * updates > 5
    return found + [
        Claim("AdamW: largest |w| · rate where decay had time", f"{BEFORE}: Adam's step is at most η").at_most(
            1.0, (adamw.largest * adamw.strengths[:, None])[settled].max() if settled.any() else None
        ),
        Claim("share of runs that remember at the largest rate: cautious decay less AdamW", CHEN).at_least(
            0.25, cautious.alive[:, -1].mean() - adamw.alive[:, -1].mean()
        ),
        Claim("share of runs that remember: norm fixed close to its start less no regulariser", BEFORE).at_least(
            -0.1, fixed.alive[:, np.abs(np.log(fixed.strengths)).argmin()].mean() - maps["none"].alive.mean()
        ),
        Claim("ρ of the candidate at the largest λ, mean", "Pascanu, Mikolov & Bengio 2013, section 3.1").at_most(
            0.1, np.nanmean(maps["Adam + λ‖W‖²"].rho[:, -1])
        ),
    ]


def table(maps: Mapping[str, Map]) -> str:
    """By method and strength, over learning rates and seeds: who remembers, ρ, horizon, the largest weight."""
    rows = [
        (
            name,
            f"{strength:.3g}",
            f"{found.alive[:, place].mean():.2f}",
            f"{np.nanmean(found.rho[:, place]):.2f}",
            f"{np.nanmedian(found.horizon[:, place]):.0f}",
            f"{np.nanmedian(found.largest[:, place]):.2g}",
        )
        for name, found in maps.items()
        for place, strength in enumerate(found.strengths)
    ]
    return text_table(("method", "strength", "remember", "ρ", "horizon (median)", "largest |w|"), rows)
