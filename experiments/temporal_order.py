"""Temporal order (Pascanu, Mikolov & Bengio 2013, Fig. 7): what clipping, Ω and λ‖W_hh‖² do to learning a long lag.

Two symbols in a row of distractors: which came first, which second? SGD alone, with a clipped gradient, with Ω beside
the clipping, and with λ‖W_hh‖² in its place. A run has succeeded as soon as it errs on less than 1 % of fresh
sequences; it is looked at every so many updates and then stops, so success is a first passage. Lengths, updates and
seeds are those that two cores can do; `--preset gpu` has the published ones. Ω is that of the authors' code (its
immediate derivative, squared norms, a mean over steps). Networks with Ω are trained on mixed lengths too, until no
sequence is wrong, and tested on much longer ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, proportion, run, text_table
from rnnreg.plotting import COLORS

PASCANU = "Pascanu, Mikolov & Bengio 2013"
SOLVED = 0.01  # of fresh sequences may be wrong
PLAIN, CLIPPED, OMEGA = "SGD", "SGD, clipped", "SGD, clipped, Ω"


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of temporal order."""

    preset: Literal["quick", "full", "gpu"] = "full"
    """Base values that the other options override; "gpu" has the lengths and updates of the paper."""
    lengths: tuple[int, ...] = (20, 30, 40, 50)
    """T."""
    longer: tuple[int, ...] = (100, 200, 500)
    """Lengths that networks trained on mixed lengths are tested on."""
    starts: tuple[Literal["smart", "basic", "sigmoid"], ...] = ("smart",)
    """How parameters are drawn: the three of the paper."""
    seeds: int = 8
    """Runs of each."""
    mixed_seeds: int = 4
    """Runs on mixed lengths."""
    max_updates: int = 50_000
    """After which a run has failed."""
    stride: int = 1000
    """Updates between two looks."""
    num_fresh: int = 10_000
    """Fresh sequences of a look."""
    hidden_size: int = 50
    """Units."""
    batch_size: int = 20
    """Rows of an update."""
    learning_rate: float = 0.01
    """Of SGD, without momentum."""
    clip: float = 1.0
    """Largest norm of a clipped gradient."""
    alpha: float = 2.0
    """λ of Ω: 2 in the authors' code, 4 in their text."""
    lams: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    """λ of ‖W_hh‖²."""
    plan: str = "one_by_one"
    """How runs share a machine: a run that is alone stops when it has succeeded."""


PRESETS = {
    "quick": {
        "lengths": (20,),
        "longer": (40,),
        "seeds": 2,
        "mixed_seeds": 1,
        "max_updates": 2000,
        "stride": 500,
        "num_fresh": 1000,
        "lams": (1e-1,),
    },
    "full": {},
    "gpu": {
        "lengths": (50, 100, 150, 200),
        "longer": (500, 1000, 2000, 5000),
        "starts": ("smart", "basic", "sigmoid"),
        "seeds": 5,
        "mixed_seeds": 5,
        "max_updates": 1_000_000,
        "stride": 5000,
        "alpha": 4.0,
        "plan": "auto",
    },
}


class Method(NamedTuple):
    """How a network is trained.

    Attributes:
      penalty: "none", "omega" or "l2", which is a program of its own.
      lam: λ of the penalty.
      clip: largest norm of the gradient.
    """

    penalty: str
    lam: float
    clip: float


class Course(NamedTuple):
    """What became of some runs.

    Attributes:
      wrong: `[run, look]`, share of wrong answers; NaN after the end.
      updates: `[run]`, updates at the end.
      solved: `[run]`.
      radius: `[run, look]`, ρ(W_hh); NaN after the end.
      params: final parameters, leaves `[run, …]`.
    """

    wrong: np.ndarray
    updates: np.ndarray
    solved: np.ndarray
    radius: np.ndarray
    params: Any


def methods(config: Config) -> dict[str, Method]:
    """By name."""
    return {
        PLAIN: Method("none", 0.0, np.inf),
        CLIPPED: Method("none", 0.0, config.clip),
        OMEGA: Method("omega", config.alpha, config.clip),
        **{f"SGD, clipped, λ = {lam:g}": Method("l2", lam, config.clip) for lam in config.lams},
    }


def draw(start: str, hidden_size: int, seed: int) -> dict[str, Any]:
    """Parameters as the authors' code draws them; its second argument of N is a standard deviation."""
    rng = np.random.default_rng(seed)
    sizes = {"smart": 0.01, "basic": 0.1, "sigmoid": 0.01}
    W_xh, W_hh, W_hy = (
        sizes[start] * rng.normal(size=shape) for shape in ((6, hidden_size), (hidden_size,) * 2, (hidden_size, 4))
    )
    if start == "smart":  # 15 connections of each unit, spectral radius .95
        for row in W_hh:
            row[rng.permutation(hidden_size)[15:]] = 0
        W_hh *= 0.95 / np.abs(np.linalg.eigvals(W_hh)).max()
    params = {
        "layer_0": {"W_xh": W_xh, "W_hh": W_hh, "b_h": np.zeros(hidden_size)},
        "readout": {"W_hy": W_hy, "b_y": np.zeros(4)},
    }
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), params)


def sampler(lengths: Sequence[int]) -> Callable[[Any, int], rr.Batch]:
    """`sample(key, num_rows)` of one length, or of one that is drawn for the batch, padded to the longest."""
    tasks = [rr.tasks.temporal_order(length) for length in lengths]
    longest = max(lengths)

    def padded(task, key, num_rows):
        batch = task.sample(key, num_rows)
        rest = longest - task.num_steps
        mask = jnp.broadcast_to(jnp.arange(longest) < task.num_steps, (num_rows, longest))
        return rr.Batch(jnp.pad(batch.xs, ((0, 0), (0, rest), (0, 0))), batch.ys, mask)

    def sample(key, num_rows):
        if len(tasks) == 1:
            return tasks[0].sample(key, num_rows)
        key_length, key_rows = jax.random.split(key)
        branches = [lambda key, task=task: padded(task, key, num_rows) for task in tasks]
        return jax.lax.switch(jax.random.randint(key_length, (), 0, len(tasks)), branches, key_rows)

    return sample


def network(start: str, config: Config) -> rr.Network:
    """The network of a start."""
    activation = "sigmoid" if start == "sigmoid" else "tanh"
    return rr.network([rr.cells.elman(config.hidden_size, activation=activation)], 4, readout="last")


def share_wrong(net: rr.Network, params: Any, sample: Any, key: Any, num_rows: int) -> Any:
    """The share of wrong answers on fresh sequences, a thousand at a time."""
    wrong = rr.tasks.temporal_order(10).metrics["wrong"]

    def score(key):
        batch = sample(key, 1000)
        return wrong(net.apply(params, batch.xs, mask=batch.mask).outputs, batch.ys)

    return jnp.mean(jax.lax.map(score, jax.random.split(key, max(1, num_rows // 1000))))


def courses(
    config: Config, start: str, lengths: Sequence[int], chosen: Sequence[Method], *, seeds: int, until: float
) -> Course:
    """Every method (of one penalty) and seed, trained until its share of wrong answers is below `until`."""
    sample, net = sampler(lengths), network(start, config)
    penalties = {"none": {}, "omega": {"lam": rr.penalties.omega()}, "l2": {"lam": rr.penalties.l2("W_hh")}}[
        chosen[0].penalty
    ]
    looks, stride = config.max_updates // config.stride, config.stride
    train = rr.make_train(
        net,
        loss=rr.losses.softmax_cross_entropy("mean"),
        penalties=penalties,
        optimizer=lambda hyper: optax.chain(optax.clip_by_global_norm(hyper["clip"]), optax.sgd(config.learning_rate)),
        num_epochs=1,
    )

    def course(lane, _):
        hyper = {"clip": lane["clip"]} | ({"lam": lane["lam"]} if penalties else {})
        key, key_fresh = jax.random.split(jax.random.fold_in(jax.random.key(0), lane["seed"]))

        def update(state, _):
            batch = sample(jax.random.fold_in(key, state.step), config.batch_size)
            return train.update(state, hyper, batch)[0], None

        def look(carry):
            state, number, wrong, matrices = carry
            state, _ = jax.lax.scan(update, state, length=stride)
            found = share_wrong(net, state.params, sample, jax.random.fold_in(key_fresh, number), config.num_fresh)
            matrices = matrices.at[number].set(state.params["layer_0"]["W_hh"])
            return state, number + 1, wrong.at[number].set(found), matrices

        def goes_on(carry):
            state, number, wrong, _ = carry
            last = wrong[jnp.maximum(number - 1, 0)]
            return (number < looks) & (state.diverged_at < 0) & ~((number > 0) & (last < until))

        state = train.init(hyper, sample(key, config.batch_size), key=key, params=lane["params"])
        matrices = jnp.full((looks, config.hidden_size, config.hidden_size), jnp.nan)
        carry = (state, jnp.int32(0), jnp.full(looks, jnp.nan), matrices)
        state, number, wrong, matrices = jax.lax.while_loop(goes_on, look, carry)
        return {
            "wrong": wrong,
            "updates": number * stride,
            "solved": wrong[number - 1] < until,
            "matrices": matrices,
            "params": state.params,
        }

    cases = [(method, seed) for method in chosen for seed in range(seeds)]
    drawn = [draw(start, config.hidden_size, seed) for _, seed in cases]
    lanes = {
        "lam": np.array([method.lam for method, _ in cases], np.float32),
        "clip": np.array([method.clip for method, _ in cases], np.float32),
        "seed": np.array([seed for _, seed in cases], np.uint32),
        "params": jax.tree.map(lambda *leaves: np.stack(leaves), *drawn),
    }
    found = rr.lanes.map_lanes(course, lanes, plan=config.plan, hidden_size=config.hidden_size)
    known = np.isfinite(found["matrices"]).all(axis=(-2, -1))
    radius = np.full(known.shape, np.nan)
    radius[known] = np.abs(np.linalg.eigvals(found["matrices"][known])).max(axis=-1)
    return Course(found["wrong"], found["updates"], found["solved"], radius, found["params"])


def measure(config: Config, start: str, length: int) -> dict[str, Course]:
    """By method, the runs at one length."""
    by_name, found = methods(config), {}
    for penalty in ("none", "omega", "l2"):
        own = {name: method for name, method in by_name.items() if method.penalty == penalty}
        course = courses(config, start, (length,), list(own.values()), seeds=config.seeds, until=SOLVED)
        for place, name in enumerate(own):
            rows = slice(place * config.seeds, (place + 1) * config.seeds)
            found[name] = jax.tree.map(lambda leaf, rows=rows: leaf[rows], course)
        print(f"{start}, T = {length}, {penalty}: done", flush=True)
    return found


def generalisation(config: Config) -> tuple[Course, np.ndarray]:
    """Networks trained with Ω on all lengths, and their shares of wrong answers `[run, length]` on longer ones."""
    method = methods(config)[OMEGA]
    course = courses(config, "smart", config.lengths, [method], seeds=config.mixed_seeds, until=0.5 / config.num_fresh)
    net = network("smart", config)

    def wrong(length):
        key = jax.random.key(length)
        score = jax.vmap(lambda params: share_wrong(net, params, sampler((length,)), key, config.num_fresh))
        return jax.jit(score)(course.params)

    return course, np.stack([np.asarray(wrong(length)) for length in config.longer], axis=1)


def main(config: Config) -> Report:
    """Trains every method at every length, and tests the networks of mixed lengths on longer sequences."""
    rr.use_all_cores()
    found = {start: {length: measure(config, start, length) for length in config.lengths} for start in config.starts}
    mixed, errors = generalisation(config)
    rows = [
        (
            start,
            str(length),
            name,
            f"{course.solved.sum()} of {len(course.solved)}",
            _median(course.updates[course.solved]),
        )
        + (_median(_last(course.radius)),)
        for start, by_length in found.items()
        for length, by_method in by_length.items()
        for name, course in by_method.items()
    ]
    header = ("start", "T", "method", "solved", "after updates (median)", "ρ(W_hh) at the end (median)")
    longer = ", ".join(
        f"{np.mean(errors[mixed.solved, place]):.2%} at T = {length}" if mixed.solved.any() else f"– at T = {length}"
        for place, length in enumerate(config.longer)
    )
    text = (
        f"{text_table(header, rows)}\n\nTrained on lengths {config.lengths} with Ω: {mixed.solved.sum()} of "
        f"{len(mixed.solved)} came to no error; wrong on longer sequences: {longer}"
    )
    summary = {"rows": rows, "longer": {"solved": mixed.solved, "updates": mixed.updates, "wrong": errors}}
    figures = {f"temporal_order_{start}": draw_figure(config, by_length) for start, by_length in found.items()}
    return Report(summary, claims_of(config, found[config.starts[0]], mixed, errors), text, figures)


def claims_of(config: Config, found: dict[int, dict[str, Course]], mixed: Course, errors: np.ndarray) -> list[Claim]:
    """What the paper says, in the numbers of the first start."""

    def rate(name, length):
        return float(found[length][name].solved.mean())

    def mean_rate(name):
        return float(np.mean([rate(name, length) for length in config.lengths]))

    figure, section = f"{PASCANU}, Fig. 7", f"{PASCANU}, section 3.1"
    weak, strong = (f"SGD, clipped, λ = {lam:g}" for lam in (min(config.lams), max(config.lams)))
    radius = np.concatenate(
        [_last(found[length][OMEGA].radius)[found[length][OMEGA].solved] for length in config.lengths]
    )
    lengths = f"over T = {', '.join(map(str, config.lengths))}"
    return [
        Claim(f"least success rate of clipping with Ω {lengths}", figure).at_least(
            1.0, min(rate(OMEGA, n) for n in config.lengths)
        ),
        Claim(f"mean success rate {lengths}: clipping with Ω, less clipping", figure).at_least(
            0.0, mean_rate(OMEGA) - mean_rate(CLIPPED)
        ),
        Claim(f"mean success rate {lengths}: clipping, less SGD alone", figure).at_least(
            0.0, mean_rate(CLIPPED) - mean_rate(PLAIN)
        ),
        Claim(f"mean success rate {lengths}: λ = {max(config.lams):g}, over clipping alone", section).at_most(
            0.5, mean_rate(strong) / mean_rate(CLIPPED) if mean_rate(CLIPPED) else None
        ),
        Claim(f"mean success rate {lengths}: λ = {max(config.lams):g}, less λ = {min(config.lams):g}", section).at_most(
            0.0, mean_rate(strong) - mean_rate(weak)
        ),
        Claim("ρ(W_hh) of solved networks with Ω, median", f"{PASCANU}, log of the code (1.24)").at_least(
            1.0, np.median(radius) if len(radius) else None
        ),
        Claim("networks of mixed lengths with Ω that come to no error", f"{PASCANU} (all of 5)").at_least(
            1.0, mixed.solved.mean()
        ),
        Claim(f"share of wrong answers of these at T = {max(config.longer)}", f"{PASCANU} (0 of 10,000)").at_most(
            0.0, errors[mixed.solved, -1].mean() if mixed.solved.any() else None
        ),
    ]


def _last(values: np.ndarray) -> np.ndarray:
    """The last number of each row that is one."""
    known = np.isfinite(values)
    ends = values.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.take_along_axis(values, ends[:, None], axis=1)[:, 0]


def _median(values: np.ndarray) -> str:
    return f"{np.median(values):.4g}" if len(values) else "–"


def draw_figure(config: Config, found: dict[int, dict[str, Course]]) -> Figure:
    """Success against length, updates that it took, and ρ(W_hh) on the way at the longest."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11.5, 3.4))
    names = list(methods(config))
    looks = dict(zip(names, zip(COLORS, "os^DvP", strict=True), strict=False))
    stride, longest = config.stride, max(config.lengths)
    for place, name in enumerate(names):
        color, marker = looks[name]
        style = {"color": color, "marker": marker, "label": name}
        by_length = [found[length][name] for length in config.lengths]
        solved = np.array([course.solved.sum() for course in by_length])
        low, high = proportion(solved, config.seeds)
        rates = solved / config.seeds
        at = np.array(config.lengths) + 0.5 * (place - (len(names) - 1) / 2)
        left.errorbar(at, rates, yerr=np.abs([low - rates, high - rates]), linewidth=1, elinewidth=0.6, **style)
        took = [np.median(course.updates[course.solved]) if course.solved.any() else np.nan for course in by_length]
        middle.plot(config.lengths, took, linewidth=1, **style)
        radius = found[longest][name].radius
        counts = np.isfinite(radius).sum(axis=0)
        shown = counts > 0
        updates = stride * (1 + np.arange(radius.shape[1]))
        right.plot(updates[shown], np.nanmedian(radius[:, shown], axis=0), color=color, label=name)
    left.set_ylabel(f"share of {config.seeds} runs that succeed")
    left.set_title("(a) less than 1 % wrong (95 % intervals)", loc="left")
    middle.set_ylabel("updates until then (median)")
    middle.set_ylim(bottom=0)
    middle.set_title("(b) how long it takes", loc="left")
    for ax in (left, middle):
        ax.set_xlabel("length T")
        ax.set_xticks(config.lengths)
    right.axhline(1, color="0.6", linewidth=0.8)
    right.set_xlabel("update")
    right.set_ylabel("ρ(W$_{hh}$), median of runs under way")
    right.set_title(f"(c) spectral radius, T = {longest}", loc="left")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(names), 6))
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS)
