"""What a guess scores that never looks at its input: the trivial baseline of every task, sampled and in closed form.

On each task of `rnnreg.tasks` the best constant (where every step is scored, the best constant for each step) is
fitted on one sample and scored on another. The closed forms are those that `task.baseline` states. Tolerances are four
standard errors, plus what fitting frequencies on so many rows costs in expectation.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, format_table, run
from rnnreg.plotting import COLORS
from rnnreg.tasks import Task

ORIGIN = "derived here; rnnreg.tasks"
COPY = "Arjovsky, Shah & Bengio 2016, 10 ln 8/(T + 20)"
CRITERIA = "derived here; criteria of Hochreiter & Schmidhuber 1997 and Pascanu et al. 2013"
SOURCES = {  # of a task's loss, and of a score by itself
    "adding": "Arjovsky, Shah & Bengio 2016 (.167)",
    "temporal order": "Pascanu, Mikolov & Bengio 2013 (1.386)",
    "temporal order: wrong": "Pascanu, Mikolov & Bengio 2013 (75 %)",
    **{
        f"{task}: {score}": CRITERIA
        for task in ("adding", "adding, early marks", "adding, mean", "multiplication")
        for score in ("correct", "correct_squared")
    },
}
FOLKLORE = 0.1767  # of the adding problem: Bai, Kolter & Koltun 2018 and those who copied it
COLUMNS = {
    "task": "{task}",
    "score": "{metric}",
    "closed form": "{exact:.5f}",
    "measured ± SE": "{mean:.5f} ± {error:.5f}",
    "rows": "{rows:,}",
}
SCALES_MEASURED = ("lorenz", "mackey-glass", "narma-10")  # baselines of 1 to within .01


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the baselines."""

    num_rows: int = 2_000_000
    """Rows of each of the two samples, where a row is short."""
    max_numbers: float = 4e7
    """Targets (rows times steps times outputs) of a sample, which caps the rows of long sequences."""
    memorisation_delays: tuple[int, ...] = (50, 100, 200)
    """Delays of memorisation."""
    copy_delays: tuple[int, ...] = (100, 200, 300, 500, 1000, 2000)
    """Delays of copying."""
    seed: int = 0
    """Of all samples."""


PRESETS = {
    "quick": {"num_rows": 100_000, "max_numbers": 2e6, "memorisation_delays": (50,), "copy_delays": (100, 1000)},
    "full": {},
}


def cases(config: Config) -> dict[str, Task]:
    """The tasks by the name that tables show. Lengths are short where the baseline does not hang on them."""
    tasks = rr.tasks
    return {
        "adding": tasks.adding(10),
        "adding, early marks": tasks.adding(20, marks="early"),
        "adding, mean": tasks.adding(10, target="mean"),
        "multiplication": tasks.multiplication(10),
        "xor": tasks.xor(10),
        "temporal order": tasks.temporal_order(10),
        "3-bit order": tasks.three_bit_order(10),
        "permutation": tasks.random_permutation(5),
        **{f"memorisation {delay}": tasks.memorisation(delay) for delay in config.memorisation_delays},
        **{f"copy {delay}": tasks.copy_memory(delay) for delay in config.copy_delays},
        "delayed recall": tasks.delayed_recall(5),
        "flip-flop": tasks.flip_flop(20),
        "lorenz": tasks.lorenz(20),
        "mackey-glass": tasks.mackey_glass(100),
        "narma-10": tasks.narma10(30),
        "sines": tasks.sines(20),
    }


class Score(NamedTuple):
    """A score of the fitted constant.

    Attributes:
      mean: over all rows.
      error: its standard error, from the spread over chunks of rows.
      excess: what fitting on a sample adds in expectation.
      rows: how many rows.
    """

    mean: float
    error: float
    excess: float
    rows: int

    @property
    def tolerance(self) -> float:
        """Four standard errors, the excess, and rounding."""
        return 4 * self.error + 2 * self.excess + 1e-6


def main(config: Config) -> Report:
    """Samples, fits, scores."""
    key = jax.random.key(config.seed)
    tasks = cases(config)
    scores = {
        name: blind_scores(task, jax.random.fold_in(key, place), config)
        for place, (name, task) in enumerate(tasks.items())
    }
    rows = [
        {"task": name, "metric": metric, "exact": tasks[name].baseline[metric], **score._asdict()}
        for name, by_metric in scores.items()
        for metric, score in by_metric.items()
    ]
    criteria = product_criteria(jax.random.fold_in(key, len(tasks)), config.num_rows)
    zero = zero_readouts(jax.random.fold_in(key, len(tasks) + 1), config.num_rows)
    return Report(
        {"scores": scores, "multiplication_criteria": criteria},
        claims_of(tasks, scores, criteria, zero),
        format_table(COLUMNS, rows),
        {"baselines": figure(tasks, scores, criteria)},
    )


def blind_scores(task: Task, key: Any, config: Config) -> dict[str, Score]:
    """Loss and metrics of the best constant, fitted on one sample and scored on another."""
    classes = has_classes(task)
    width = task.output_size * (task.num_steps if task.readout == "all" else 1)
    num_rows = int(min(config.num_rows, config.max_numbers // width))
    chunk = int(np.clip(2e6 // width, 1, num_rows // 25))
    num_chunks = num_rows // chunk

    def fit(keys):
        def add(total, key):
            ys = task.sample(key, chunk).ys
            values = jax.nn.one_hot(ys, task.output_size) if classes else ys
            return total + values.mean(axis=0), None

        start = jax.eval_shape(lambda: add(0.0, keys[0])[0])
        total, _ = jax.lax.scan(add, jnp.zeros(start.shape, start.dtype), keys)
        return total / len(keys)

    def score(constant, keys):
        if classes:
            constant = jnp.maximum(jnp.log(constant), -30.0)

        def one(_, key):
            ys = task.sample(key, chunk).ys
            outputs = jnp.broadcast_to(constant, (chunk, *constant.shape))
            found = {"loss": task.loss(outputs, ys)}
            return None, found | {name: f(outputs, ys) for name, f in task.metrics.items()}

        return jax.lax.scan(one, None, keys)[1]

    @jax.jit
    def both(key):
        key_fit, key_test = jax.random.split(key)
        constant = fit(jax.random.split(key_fit, num_chunks))
        return constant, score(constant, jax.random.split(key_test, num_chunks))

    constant, by_chunk = both(key)
    # Frequencies of C classes fitted on n rows cost (C − 1)/2n nats more than the true ones, in expectation and a step.
    occurring = np.asarray(constant > 0).sum(axis=-1) - 1 if classes else np.zeros(1)
    excess = {"loss": float(np.mean(occurring)) / (2 * num_rows)}
    return {
        name: Score(
            mean=float(np.mean(values, dtype=np.float64)),
            error=float(np.std(values, dtype=np.float64) / math.sqrt(num_chunks - 1)),
            excess=excess.get(name, 0.0),
            rows=num_rows,
        )
        for name, values in jax.tree.map(np.asarray, by_chunk).items()
    }


def has_classes(task: Task) -> bool:
    """Whether the targets are classes."""
    ys = jax.eval_shape(lambda: task.sample(jax.random.key(0), 1)).ys
    return bool(jnp.issubdtype(ys.dtype, jnp.integer))


def product_criteria(key: Any, num_rows: int) -> dict[str, Any]:
    """Multiplication: the share counted as correct under each criterion, for every constant guess."""
    ys = np.sort(np.asarray(rr.tasks.multiplication(4).sample(key, num_rows).ys)[:, 0])
    guesses = np.linspace(0, 1, 101)

    def share(bound):
        inside = np.searchsorted(ys, guesses + bound) - np.searchsorted(ys, guesses - bound)
        return inside / num_rows

    return {"guess": guesses, "within_.04": share(0.04), "within_.2": share(0.2)}


def zero_readouts(key: Any, num_rows: int) -> dict[str, Score]:
    """A readout of zeros is another thing than the best constant: what it scores."""
    adding, copy = rr.tasks.adding(10), rr.tasks.copy_memory(100)
    sums = np.asarray(adding.sample(key, num_rows).ys, np.float64)
    squares = np.square(sums)
    error = float(squares.std() / math.sqrt(num_rows))
    ys = copy.sample(key, 100).ys
    nats = float(copy.loss(jnp.zeros((*ys.shape, copy.output_size)), ys))
    return {"adding": Score(float(squares.mean()), error, 0.0, num_rows), "copy": Score(nats, 0.0, 0.0, 100)}


def claims_of(tasks, scores, criteria, zero) -> list[Claim]:
    """Every stated baseline, and the statements that are easily confused with them."""
    claims = [
        Claim(f"{name}: {metric}", _source(name, metric)).close(
            tasks[name].baseline[metric],
            score.mean,
            tolerance=score.tolerance + (0.01 if name in SCALES_MEASURED else 0.0),
        )
        for name, by_metric in scores.items()
        for metric, score in by_metric.items()
    ]
    loss, num_rows = scores["adding"]["loss"], scores["multiplication"]["loss"].rows
    quoted = f"adding: standard errors between the measured baseline and the folklore's {FOLKLORE}"
    claims.append(
        Claim(quoted, "derived here; against Bai, Kolter & Koltun 2018").at_least(
            10, (FOLKLORE - loss.mean) / loss.error
        )
    )
    for bound, best, share in ((0.04, 0.04, 0.2821), (0.2, 0.2, 0.7665)):
        shares = criteria[f"within_{bound:g}".replace("0.", ".")]
        deviation = math.sqrt(share * (1 - share) / num_rows)
        claims += [
            Claim(f"multiplication: best share within {bound:g} that one constant can have", ORIGIN).close(
                share, shares.max(), tolerance=4 * deviation + 5e-5
            ),
            Claim(f"multiplication: that constant, for {bound:g}", ORIGIN).close(
                best,
                criteria["guess"][shares.argmax()],
                tolerance=0.0101,  # a step of the grid
            ),
        ]
    return [
        *claims,
        Claim("adding: a readout of zeros is not the baseline, but 7/6", ORIGIN).close(
            7 / 6, zero["adding"].mean, tolerance=zero["adding"].tolerance
        ),
        Claim("copy: a readout of zeros is not the baseline, but ln 9 (9 classes)", ORIGIN).close(
            math.log(9), zero["copy"].mean, tolerance=1e-5
        ),
    ]


def _source(name: str, metric: str) -> str:
    told = COPY if name.startswith("copy") else SOURCES.get(name, ORIGIN)
    return SOURCES.get(f"{name}: {metric}", told if metric == "loss" else ORIGIN)


def figure(tasks, scores, criteria) -> Figure:
    """Measured over closed form; the baseline of copying against the delay; two criteria of being correct."""
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 4.4), width_ratios=(1.15, 1, 1))
    _draw_ratios(left, tasks, scores)
    _draw_delays(middle, scores)
    _draw_criteria(right, criteria)
    return fig


def _draw_ratios(ax, tasks, scores) -> None:
    names, quoted = list(scores), 100 * (6 * FOLKLORE - 1)
    for place, name in enumerate(names):
        score, exact = scores[name]["loss"], tasks[name].baseline["loss"]
        ratio, bar = 100 * (score.mean / exact - 1), 100 * score.tolerance / exact
        ax.errorbar(ratio, place, xerr=bar, fmt="o", color=COLORS[0], ecolor="0.55")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.plot(quoted, names.index("adding"), "x", color=COLORS[1], markersize=6)
    at, look = (quoted, names.index("adding")), {"ha": "right", "color": COLORS[1], "fontsize": 8}
    ax.annotate(f"often quoted: {FOLKLORE}", at, xytext=(0, -14), textcoords="offset points", **look)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel("measured / closed form − 1 (%), bars ± 4 SE")
    ax.set_title("(a) loss of the best constant guess", loc="left")


def _draw_delays(ax, scores) -> None:
    line = np.geomspace(40, 2500, 100)
    for color, (kind, symbols) in zip(COLORS, (("copy", 8), ("memorisation", 5)), strict=False):
        of_kind = {int(n.split()[1]): s["loss"].mean for n, s in scores.items() if kind in n}
        label = f"{kind}, 10 ln {symbols}/(T+20)"
        ax.plot(line, 10 * np.log(symbols) / (line + 20), color=color, label=label)
        ax.plot(list(of_kind), list(of_kind.values()), "o", color=color)
    ax.set(xscale="log", yscale="log", xlabel="delay T (steps)", ylabel="cross-entropy (nats a step)")
    ax.set_title("(b) lines: closed form; dots: measured", loc="left")
    ax.legend()


def _draw_criteria(ax, criteria) -> None:
    bounds = {"within_.04": "|error| < .04", "within_.2": "error² < .04"}
    for color, (name, label) in zip(COLORS, bounds.items(), strict=False):
        ax.plot(criteria["guess"], criteria[name], color=color, label=label)
        best = criteria[name].argmax()
        ax.plot(criteria["guess"][best], criteria[name][best], "o", color=color)
    guess = "guess with least squared error, ¼"
    ax.axvline(0.25, ymax=0.75, color="0.5", linestyle=":", label=guess)
    ax.set(xlabel="constant guess of the product", ylabel="share counted as correct", ylim=(0, 1))
    ax.set_title("(c) multiplication: share correct", loc="left")
    ax.legend(loc="upper right")


if __name__ == "__main__":
    run(main, Config, PRESETS)
