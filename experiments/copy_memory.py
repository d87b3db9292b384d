"""Ten symbols copied after a delay: what keeps W_hh near orthogonal, how firmly, and how many updates that saves.

Networks of H units without a transition non-linearity start orthogonal and stay as they like, are drawn back by
λ‖WᵀW − I‖², keep their singular values within a margin m of 1, or are exp(A). Beside them: tanh networks, Gaussian and
orthogonal, and LSTMs of about as many weights, with forget biases of 1 and drawn for the delay (chrono). All train
by RMSProp (decay .9) with gradients clipped at a global norm of 1. The learning rate is the same but for the orthogonal
factors of a parametrisation, A of exp(A) and U and V of a margin, which take a tenth of it: what differs between a free
matrix and a parametrised one is both. A network has solved the task when its cross-entropy on new sequences is below a
tenth of the blind guess's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, finished, run, text_table


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of copying."""

    delays: tuple[int, ...] = (50, 100)
    """T, blanks before the symbols are asked for."""
    hidden_size: int = 64
    """H of the plain networks."""
    lstm_size: int = 32
    """H of the LSTMs, which have four times as many weights a unit."""
    margins: tuple[float, ...] = (0.01, 0.1, 1.0)
    """m."""
    lams: tuple[float, ...] = (1e-4, 1e-2, 1.0)
    """λ of ‖WᵀW − I‖²."""
    learning_rate: float = 1e-3
    """Of RMSProp; a tenth of it for what a parametrisation trains."""
    batch_size: int = 20
    """Sequences an update."""
    num_rows: int = 4000
    """Training sequences; another tenth of them is scored."""
    num_epochs: int = 20
    """Passes over them, and records: 4,000 updates."""
    seeds: int = 3
    """Networks of each."""


PRESETS = {
    "quick": {
        "delays": (10,),
        "hidden_size": 16,
        "lstm_size": 8,
        "margins": (0.1, 1.0),
        "lams": (1.0,),
        "num_rows": 400,
        "num_epochs": 4,
        "seeds": 1,
    },
    "full": {},
}
SOLVED = 0.1  # of the blind guess's cross-entropy


class Found(NamedTuple):
    """One method on one delay, by seed.

    Attributes:
      loss: `[seeds, records]` cross-entropy on new sequences.
      smallest: `[seeds, records]` the smallest singular value of W_hh, over its blocks.
      largest: `[seeds, records]` the largest one.
      finished: `[seeds]`, whether every update was finite.
    """

    loss: np.ndarray
    smallest: np.ndarray
    largest: np.ndarray
    finished: np.ndarray


def methods(config: Config, delay: int) -> dict[str, Callable[[], rr.cells.Cell]]:
    """The cells by name, but for the soft penalty."""
    H, maps = config.hidden_size, rr.parametrizations

    def linear():
        return rr.cells.elman(H, activation="identity")

    def lstm():
        return rr.cells.lstm(config.lstm_size)

    margins = {f"margin {m:g}": lambda m=m: maps.singular_margin(linear(), m) for m in config.margins}
    return {
        "tanh, Gaussian": lambda: rr.cells.elman(H, recurrent_init="gaussian"),
        "tanh, orthogonal": lambda: rr.cells.elman(H),
        "orthogonal": linear,
        "expm": lambda: maps.orthogonal(linear(), start="henaff"),
        **margins,
        "LSTM": lstm,
        "LSTM, chrono": lambda: rr.cells.chrono(lstm(), delay + 10),
    }


def optimizer(config: Config) -> optax.GradientTransformation:
    """RMSProp, a tenth as fast for the orthogonal factors of a parametrisation."""

    def kinds(params):
        slow = ("skew", "left", "right")
        return rr.with_leaves(
            params, {path: "map" if path.endswith(slow) else "plain" for path in rr.leaf_paths(params)}
        )

    rates = {"plain": config.learning_rate, "map": config.learning_rate / 10}
    steps: dict[Hashable, optax.GradientTransformation] = {
        kind: optax.rmsprop(rate, decay=0.9) for kind, rate in rates.items()
    }
    return optax.chain(optax.clip_by_global_norm(1.0), optax.partition(steps, kinds))


def singular_values(net, params, batch):
    """The smallest and the largest singular value of the effective W_hh, over its square blocks."""
    del batch
    W = rr.networks.effective(net, params)["layer_0"]["W_hh"]
    blocks = jnp.stack(jnp.split(W, W.shape[1] // len(W), axis=1))
    found = jnp.linalg.svd(blocks, compute_uv=False)
    return {"smallest": found.min(), "largest": found.max()}


def measured(config: Config, delay: int) -> dict[str, Found]:
    """Every method on one delay."""
    task = rr.tasks.copy_memory(delay)
    keys = jax.random.split(jax.random.key(delay))
    split = rr.Split(
        task.sample(keys[0], config.num_rows), validation=task.sample(keys[1], max(100, config.num_rows // 10))
    )
    cells = methods(config, delay)

    def train(cell, penalties=None):
        return rr.make_train(
            rr.network([cell], task.output_size),
            loss=task.loss,
            penalties=penalties,
            optimizer=optimizer(config),
            num_epochs=config.num_epochs,
            batch_size=config.batch_size,
            record_every=1,
            track={"singular": singular_values},
        )

    options = {"seeds": config.seeds, "key": jax.random.key(0), "progress": False}

    def swept(train, grid):
        return finished(rr.sweep(train, grid, split, **options)).metrics

    found = {name: _found(swept(train(make()), {})) for name, make in cells.items()}
    soft = train(cells["orthogonal"](), {"soft": rr.penalties.soft_orthogonality()})
    result = swept(soft, {"soft": list(config.lams)})
    return found | {f"soft, λ = {lam:g}": _found(result.sel(soft=lam)) for lam in config.lams}


def _found(metrics) -> Found:
    def history(name):
        return metrics[f"history_{name}"].transpose("seed", ...).values

    return Found(
        history("val_loss"),
        history("singular.smallest"),
        history("singular.largest"),
        metrics["diverged_at"].values < 0,
    )


def updates_until(found: Found, level: float, per_record: int) -> np.ndarray:
    """`[seeds]` updates until the loss of new sequences is first below a level; infinite if it never is."""
    below = found.loss < level
    return np.where(below.any(axis=1), (1 + below.argmax(axis=1)) * per_record, np.inf)


def main(config: Config) -> Report:
    """Trains every method on every delay."""
    rr.use_all_cores()
    found = {delay: measured(config, delay) for delay in config.delays}
    per_record = -(-config.num_rows // config.batch_size)
    lines, summary = [], {}
    for delay, by_name in found.items():
        baseline = rr.tasks.copy_memory(delay).baseline["loss"]
        rows = []
        for name, one in by_name.items():
            steps = updates_until(one, SOLVED * baseline, per_record)
            ends = one.loss[:, -1], one.smallest[:, -1], one.largest[:, -1]
            median = np.median(steps)
            shown = "never" if np.isinf(median) else f"{median:.0f}"
            rows.append((name, *(f"{np.mean(end):.4f}" for end in ends), shown, f"{np.isfinite(steps).sum()}"))
            summary.setdefault(delay, {})[name] = {
                "loss": ends[0],
                "smallest": ends[1],
                "largest": ends[2],
                "updates_until_solved": [None if np.isinf(step) else step for step in steps],
            }
        head = ("network", "cross-entropy", "smallest σ", "largest σ", "updates until solved", "seeds that solve it")
        lines += [f"delay {delay}: a blind guess has {baseline:.4f}", text_table(head, rows)]
    claims = claims_of(config, found, per_record)
    return Report(summary, claims, "\n".join(lines), {"copy_memory": _figure(config, found, per_record)})


def claims_of(config: Config, found: dict[int, dict[str, Found]], per_record: int) -> list[Claim]:
    """What was expected beforehand, at the longest delay."""
    delay = max(found)
    by_name, baseline = found[delay], rr.tasks.copy_memory(delay).baseline["loss"]

    def end(name):
        return float(by_name[name].loss[:, -1].mean()) / baseline

    def steps(name):
        return float(np.median(updates_until(by_name[name], SOLVED * baseline, per_record)))

    def off(name):
        one = by_name[name]
        return float(np.maximum(np.abs(one.smallest - 1), np.abs(one.largest - 1)).max())

    narrow, wide = f"margin {min(config.margins):g}", f"margin {max(config.margins):g}"
    soft = [f"soft, λ = {lam:g}" for lam in (min(config.lams), max(config.lams))]
    share = f"cross-entropy at delay {delay}, in parts of the blind guess's"
    arjovsky, vorontsov = "Arjovsky, Shah & Bengio 2016, Fig. 1", "Vorontsov et al. 2017, section 4.2"
    return [
        Claim(f"{share}: tanh, Gaussian", arjovsky).close(1.0, end("tanh, Gaussian"), tolerance=0.02),
        Claim(f"{share}: linear, orthogonal start", vorontsov).at_most(SOLVED, end("orthogonal")),
        Claim(f"{share}: expm", "Lezcano-Casado & Martínez-Rubio 2019").at_most(SOLVED, end("expm")),
        Claim(f"{share}: LSTM, chrono less LSTM", "Tallec & Ollivier 2018").at_most(
            0.0, end("LSTM, chrono") - end("LSTM")
        ),
        Claim(f"updates until solved, {wide} by {narrow} (never: not measured)", vorontsov).at_most(
            1.0, _ratio(steps(wide), steps(narrow))
        ),
        Claim("largest |σ − 1| of expm at any record", "by construction").at_most(1e-4, off("expm")),
        Claim(f"largest |σ − 1|, {soft[1]} by {soft[0]}", "this project").at_most(1.0, off(soft[1]) / off(soft[0])),
    ]


def _ratio(one: float, other: float) -> float | None:
    """None where neither has an end; 0 where the second alone has none."""
    return None if np.isinf(one) and np.isinf(other) else one / other


def _figure(config: Config, found: dict[int, dict[str, Found]], per_record: int) -> Figure:
    figure, axes = plt.subplots(2, len(found), figsize=(5.2 * len(found), 6.8), sharex=True, squeeze=False)
    for (top, bottom), (delay, by_name) in zip(axes.T, found.items(), strict=True):
        baseline = rr.tasks.copy_memory(delay).baseline["loss"]
        top.axhline(baseline, color="black", linewidth=0.8, linestyle=":")
        across = top.get_yaxis_transform()
        top.text(1.0, baseline, "blind guess", va="bottom", ha="right", fontsize="small", transform=across)
        colors = plt.colormaps["tab20"](np.linspace(0, 1, 20))
        for color, (name, one) in zip(colors, by_name.items(), strict=False):
            updates = per_record * (1 + np.arange(one.loss.shape[1]))
            top.plot(updates, np.median(one.loss, axis=0), color=color, label=name)
            if not name.startswith("LSTM"):
                for values in (one.smallest, one.largest):
                    bottom.plot(updates, np.median(values, axis=0), color=color)
        top.set(title=f"delay {delay}", yscale="log")
        bottom.set(xlabel="updates")
    axes[0, 0].set_ylabel("cross-entropy of new sequences")
    axes[1, 0].set_ylabel("smallest and largest σ of W$_{hh}$")
    axes[0, -1].legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS)
