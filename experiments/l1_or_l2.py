"""How L1, L2 and the group lasso differ for a recurrent network: weights, zeros, units and errors along λ.

Three penalties of W_hh alone: Σ|w| and Σ_units ‖w_unit‖₂ by proximal steps, which make exact zeros, and Σ w² by its
gradient. A unit is what it receives, a column of W_hh. Two tasks: the yearly sunspots, scored by blocked
cross-validation inside 1700–1920, and delayed recall of bits, scored on every pattern there is. L2 divides all weights
by much the same number; L1 takes much the same number off them, so that few large ones are left; the group lasso does
that to units. Σ|w| is taken by its gradient too, beside its prox.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, mean_and_error, run, text_table

PATH = "layer_0/W_hh"
PENALTIES = {
    "L1": rr.penalties.l1("W_hh"),
    "L2": rr.penalties.l2("W_hh"),
    "units": rr.penalties.group_lasso("units", paths="W_hh"),
    "L1 by gradient": rr.penalties.l1("W_hh"),
}
PROXIMAL = ("L1", "units")


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the comparison of L1 and L2."""

    hidden_size: int = 12
    """Units of both networks."""
    num_updates: int = 1500
    """Full-batch updates of Adam, whose rate falls to 0 along a cosine."""
    learning_rate: float = 1e-2
    """At the start."""
    num_lambdas: int = 12
    """λ = 0 and a log grid."""
    lambda_low: float = 1e-4
    """Smallest positive λ."""
    lambda_high: float = 1.0
    """Largest λ."""
    seeds: int = 3
    """Networks of each λ."""
    folds: int = 3
    """Blocks of sunspot years."""
    delay: int = 10
    """Silent steps of delayed recall."""
    num_bits: int = 2
    """Bits to recall."""


PRESETS = {
    "quick": {
        "hidden_size": 6,
        "num_updates": 100,
        "num_lambdas": 4,
        "seeds": 2,
        "folds": 2,
        "delay": 5,
        "learning_rate": 5e-2,
    },
    "full": {},
}


@dataclasses.dataclass(frozen=True)
class Path:
    """What one penalty does to the networks of one task along λ.

    Attributes:
        lam: `[n]`.
        W: `[n, R, H, H]` recurrent matrices of R runs.
        error: `[n, R]`, relative to that of a guess.
    """

    lam: np.ndarray
    W: np.ndarray
    error: np.ndarray

    @property
    def zeros(self) -> np.ndarray:
        """`[n, R]`, the share of weights that are exactly 0."""
        return (self.W == 0).mean(axis=(-2, -1))

    @property
    def units_off(self) -> np.ndarray:
        """`[n, R]`, units whose row or column is all 0."""
        empty = self.W == 0
        return (empty.all(axis=-1) | empty.all(axis=-2)).sum(axis=-1)

    @property
    def in_columns(self) -> np.ndarray:
        """`[n, R]`, the share of the zeros that lie in columns of zeros; 1 where there is none."""
        empty = self.W == 0
        whole = empty.all(axis=-2).sum(axis=-1) * self.W.shape[-2]
        return np.where(empty.any(axis=(-2, -1)), whole / np.maximum(empty.sum(axis=(-2, -1)), 1), 1)

    @property
    def concentration(self) -> np.ndarray:
        """`[n, R]`, the share of Σ|w| that the largest tenth of the weights holds."""
        sizes = np.sort(np.abs(self.W).reshape(*self.error.shape, -1), axis=-1)[..., ::-1]
        top = sizes[..., : max(1, sizes.shape[-1] // 10)].sum(axis=-1)
        return top / np.maximum(sizes.sum(axis=-1), 1e-30)

    @property
    def length(self) -> np.ndarray:
        """`[n, R]`, Σ|w|."""
        return np.abs(self.W).sum(axis=(-2, -1))

    def halved(self, values: np.ndarray) -> np.ndarray:
        """`[R]` of values `[n, R]` at the λ whose Σ|w| is nearest to half of that at λ = 0, in its logarithm."""
        ratio = np.maximum(self.length / self.length[0], 1e-9)
        return np.take_along_axis(values, np.abs(np.log2(ratio) + 1).argmin(axis=0)[None], axis=0)[0]


def main(config: Config) -> Report:
    """Trains every network, and counts."""
    rr.use_all_cores()
    paths = {"sunspots": sunspots(config), "recall": recall(config)}
    tables = [
        f"{task}\n" + text_table(("penalty", "λ", "error", "zeros", "units off", "largest tenth"), rows_of(found))
        for task, found in paths.items()
    ]
    summary = {
        task: {
            name: {
                "lam": path.lam,
                **{field: getattr(path, field) for field in ("error", "zeros", "units_off", "concentration", "length")},
            }
            for name, path in found.items()
        }
        for task, found in paths.items()
    }
    return Report(summary, claims_of(paths, config), "\n\n".join(tables), {"l1_or_l2": draw(paths)})


def sunspots(config: Config) -> dict[str, Path]:
    """Blocked cross-validation inside 1700–1920; a guess scores the variance of the years left out."""
    split = rr.datasets.sunspots(window=12).replace(validation=None)
    folds = rr.selection.blocked_folds(config.folds)
    found = {}
    for name, result in swept(config, 1, rr.losses.squared_error("mean"), split, folds=folds).items():
        group = result.groups[0]
        weights = group.weights[..., None] / group.weights.sum(axis=1)[:, None, None]
        mean = (weights * group.targets).sum(axis=1, keepdims=True)
        guess = (weights * (group.targets - mean) ** 2).sum(axis=(1, 2))  # [fold]
        error = result.metrics["val_loss"].transpose("lam", "seed", "fold").values / guess
        found[name] = path_of(result, error)
    return found


def recall(config: Config) -> dict[str, Path]:
    """Bits after silent steps, on every pattern; a guess has the error 1."""
    task = rr.tasks.delayed_recall(config.delay, num_bits=config.num_bits)
    batch = task.sample(jax.random.key(0), 2**config.num_bits)
    results = swept(config, config.num_bits, task.loss, rr.Split(batch))
    return {
        name: path_of(result, result.metrics["train_loss"].transpose("lam", "seed").values)
        for name, result in results.items()
    }


def swept(config: Config, num_outputs: int, loss: Any, split: rr.Split, **options: Any) -> dict[str, Any]:
    """The sweep over λ of every penalty."""
    cell = rr.cells.elman(config.hidden_size, recurrent_init=rr.cells.orthogonal(1.0))
    net = rr.network([cell], num_outputs, readout="last")
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_updates)
    lams = [0.0, *np.geomspace(config.lambda_low, config.lambda_high, config.num_lambdas - 1).tolist()]
    results = {}
    for name, penalty in PENALTIES.items():
        train = rr.make_train(
            net,
            loss=loss,
            penalties={"lam": penalty},
            optimizer=optax.adam(schedule),
            num_epochs=config.num_updates,
            record_every=config.num_updates,
            proximal=name in PROXIMAL,
        )
        grid = {"lam": lams}
        results[name] = rr.sweep(
            train, grid, split, seeds=config.seeds, key=jax.random.key(0), progress=False, **options
        )
    return results


def path_of(result: Any, error: np.ndarray) -> Path:
    """The runs of seeds and folds side by side."""
    W = np.asarray(rr.leaf_paths(result.groups[0].params)[PATH])
    lam = result.metrics["lam"].values
    return Path(lam, W.reshape(len(lam), -1, *W.shape[-2:]), error.reshape(len(lam), -1))


def rows_of(found: dict[str, Path]) -> list[tuple[str, ...]]:
    """Means over the runs of each λ."""
    return [
        (name, f"{lam:.2g}", *(f"{values[place].mean():.3f}" for values in shown))
        for name, path in found.items()
        for shown in [(path.error, path.zeros, path.units_off, path.concentration)]
        for place, lam in enumerate(path.lam)
    ]


def claims_of(paths: dict[str, dict[str, Path]], config: Config) -> list[Claim]:
    """Expected before anything was measured, from the closed forms of the steps."""
    claims = []
    prox, square = "soft threshold: w is 0 where |w| < step · λ", "L2 divides weights, by 1 + 2 step · λ"
    pascanu = "Pascanu, Mikolov & Bengio 2013, section 3.1"
    for task, found in paths.items():
        l1, l2, units, smooth = (found[name] for name in PENALTIES)
        best = {name: path.error.min(axis=0) for name, path in found.items()}
        difference, error = mean_and_error(best["L1"] - best["L2"])
        claims += [
            Claim(f"{task}: share of zeros under L1 at the largest λ", prox).close(
                1.0, l1.zeros[-1].mean(), tolerance=0.0
            ),
            Claim(f"{task}: largest fall of the mean share of zeros from one λ to the next, L1", prox).at_most(
                0.05, -np.diff(l1.zeros.mean(axis=1)).min()
            ),
            Claim(f"{task}: zeros under L2 and under L1 by gradient, any λ", square).at_most(
                0, int((l2.W == 0).sum() + (smooth.W == 0).sum())
            ),
            Claim(f"{task}: share of zeros that lie in whole units, group lasso", "Scardapane et al. 2017").close(
                1.0, units.in_columns.min(), tolerance=0.0
            ),
            Claim(
                f"{task}: share of Σ|w| in the largest tenth of the weights at half the Σ|w| of λ = 0, L1 less L2",
                "L1 takes off, L2 divides",
            ).at_least(0.05, (l1.halved(l1.concentration) - l2.halved(l2.concentration)).mean()),
            Claim(
                f"{task}: least error along the path, L1 less L2, in standard errors", "no difference expected"
            ).between(-2.0, 2.0, difference / max(error, 1e-12)),
        ]
    for name in ("L1", "L2", "units"):
        claims.append(
            Claim(f"recall: error at the largest λ over that of a guess, {name}", pascanu).close(
                1.0, paths["recall"][name].error[-1].mean(), tolerance=0.05
            )
        )
    claims.append(
        Claim(
            "recall: largest share of zeros with an error below .1, L1",
            "written down before: most weights are not needed",
        ).at_least(0.5, most_zeros(paths["recall"]["L1"]))
    )
    claims.append(
        Claim(
            "recall: most units off with an error below .1, group lasso",
            f"written down before: {config.num_bits} bits need no more than {2 * config.num_bits} units",
        ).at_least(config.hidden_size - 2 * config.num_bits, most_off(paths["recall"]["units"]))
    )
    return claims


def most_zeros(path: Path) -> float:
    """The largest share of zeros of a run that solves its task; 0 if none does."""
    return float(np.where(path.error < 0.1, path.zeros, 0).max())


def most_off(path: Path) -> float:
    """The most units that are off in a run that solves its task; 0 if none does."""
    return float(np.where(path.error < 0.1, path.units_off, 0).max())


def draw(paths: dict[str, dict[str, Path]]) -> Figure:
    """By task: every weight of one network along λ under three penalties; zeros and errors."""
    figure, axes = plt.subplots(len(paths), 5, figsize=(15, 3 * len(paths)), squeeze=False)
    for row, (task, found) in zip(axes, paths.items(), strict=True):
        for ax, name in zip(row, ("L1", "units", "L2"), strict=False):
            path = found[name]
            x = rr.plotting.lambda_axis(ax, path.lam, label=f"λ ({name})")
            weights = path.W[:, 0].reshape(len(x), -1)
            ax.plot(x[1:], weights[1:], linewidth=0.6)
            ax.plot(np.full(weights.shape[1], x[0]), weights[0], ".", color="0.5", markersize=2)
            ax.set_ylabel(f"{task}: weights of W_hh")
        zeros, errors = row[3:]
        for ax, label in ((zeros, "share"), (errors, "error / that of a guess")):
            x = rr.plotting.lambda_axis(ax, found["L1"].lam)
            ax.set_ylabel(f"{task}: {label}")
        for place, name in enumerate(("L1", "units", "L2")):
            path, color = found[name], f"C{place}"
            zeros.plot(x, path.zeros.mean(axis=1), "o-", color=color, markersize=3, label=f"zeros, {name}")
            if name in PROXIMAL:
                off = path.units_off.mean(axis=1) / path.W.shape[-1]
                zeros.plot(x, off, "--", color=color, label=f"units off, {name}")
            spread = path.error.std(axis=1, ddof=1) / np.sqrt(path.error.shape[1])
            look = {"fmt": "o-", "color": color, "markersize": 3, "capsize": 2, "label": name}
            errors.errorbar(x, path.error.mean(axis=1), spread, **look)
        for ax in (zeros, errors):
            rr.plotting.legend_above(ax)
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS)
