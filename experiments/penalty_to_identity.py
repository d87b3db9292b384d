"""Adding with λ‖W − I‖² or λ‖W‖² on all or half of the units: how long a lag each learns (Schmidt et al. 2021, Fig. 2).

The paper's piecewise linear network (PLRNN), z_t = A z_{t−1} + W relu(z_{t−1}) + C s_t + h with a diagonal A, a ReLU
and a tanh network learn to add two marked numbers, one among the first 10 steps and one among the first T/2.
H = 40 units and clipping at 3 are the paper's. Its budget, 40,000 updates of 500 out of 100,000 rows, Adam at 1e-3, is
far above ours: what is reproduced is the order of the methods, and a published level only where ours reaches it.

A penalty is τR, where R has the paper's means over the n units that are penalised,

    R = mean_i [(W_ii − a)² + (1/H) Σ_{j ≠ i} W_ji² + b_i²],

with a = 1 (towards I: the manifold attractor) or a = 0 (L2). As sums of squares that is λ = τ/n for the diagonal and
the biases and τ/(nH) for the other weights: .25 and .00625 at τ = 5 on half of the units, half of this on all of them.
Validation rows choose τ for each length and method, and the best record of each run; fresh rows are reported.

Four things in the paper's code bear on its figure and are not in its equations:

- By default penalised units start at their target. So the start alone, the penalty alone and both are methods here.
- Its L2 baselines square the weights before they take the mean square: they penalise the mean of w⁴. The gradient is
  4w³, so that a weight of .1 feels a fiftieth of what L2 does to it, and one of 1 twice as much. These units start at
  their target too, which is 0: if they are all, no recurrent weight is left, and no gradient reaches the marks.
- Its L2 rows are of PLRNNs, and its plain "RNN" has rectified units: that is "ReLU"; tanh is added here.
- Its P_correct is that of the best epoch on the test rows.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, mean_and_error, plus_minus, run, text_table
from rnnreg.plotting import COLORS

SCHMIDT = "Schmidt et al. 2021, Fig. 2"
NETWORKS = ("PLRNN", "ReLU", "tanh")
BLIND = 1 - 0.96**2  # P_correct of the best constant
TAU = 5.0  # the paper's
GAP = 3.0  # steps that count as a longer memory span


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of penalties to zero and to the identity."""

    lengths: tuple[int, ...] = (20, 30, 40, 60, 100)
    """T."""
    hidden_size: int = 40
    """H."""
    taus: tuple[float, ...] = (0.5, 5.0)
    """τ of the penalties, from which validation chooses; 5 is the paper's."""
    learning_rate: float = 3e-3
    """Of Adam at the start; it falls to 0 along a cosine."""
    batch_size: int = 50
    """Sequences of an update."""
    num_rows: int = 10_000
    """Training sequences."""
    num_epochs: int = 24
    """Passes over them."""
    records: int = 8
    """How often validation rows are scored during training; the best record counts."""
    test_rows: int = 4000
    """Fresh sequences that are reported; a quarter as many choose."""
    seeds: int = 3
    """Networks of each."""


PRESETS = {
    "quick": {
        "lengths": (6, 12),
        "hidden_size": 12,
        "learning_rate": 1e-2,
        "num_rows": 1000,
        "num_epochs": 20,
        "records": 2,
        "test_rows": 400,
        "seeds": 2,
    },
    "full": {},
}


class Method(NamedTuple):
    """What is penalised, and where the penalised units start.

    Attributes:
      penalty: a name of `penalties`, or "" for none.
      start: W_ii of these units at the start, whose other weights and bias are then 0, and whose τ is the paper's; None
        draws all of them.
      color: of its curve.
      networks: which networks it is tried on.
    """

    penalty: str = ""
    start: float | None = None
    color: str = "0.1"
    networks: tuple[str, ...] = NETWORKS


NONE, ALL, HALF, IDENTITY = "no penalty", "L2, all units", "L2, half", "to I, half"
START, THEIRS = "start at I, half", "to I and start at I, half"
QUARTIC, QUARTIC_ALL, QUARTIC_HALF = "w⁴, all units", "w⁴ and start at 0, all", "w⁴ and start at 0, half"
METHODS = {
    NONE: Method(),
    ALL: Method("l2_all", None, COLORS.vermillion, ("PLRNN", "tanh")),
    HALF: Method("l2_half", None, COLORS.orange, ("PLRNN", "tanh")),
    IDENTITY: Method("to_identity", color=COLORS.blue),
    START: Method("", 1.0, COLORS.sky, ("PLRNN",)),
    THEIRS: Method("to_identity", 1.0, COLORS.green, ("PLRNN",)),
    QUARTIC: Method("quartic_all", None, COLORS.purple, ("PLRNN",)),
    QUARTIC_ALL: Method("quartic_all", 0.0, COLORS.purple, ("PLRNN",)),
    QUARTIC_HALF: Method("quartic_half", 0.0, "0.6", ("PLRNN",)),
}
PUBLISHED = {  # P_correct by network, method and T
    ("ReLU", NONE): {20: 1.00, 40: 0.45, 60: 0.08},
    ("PLRNN", NONE): {40: 0.98, 60: 0.17, 100: 0.08},
    ("PLRNN", THEIRS): {100: 1.00},
    ("PLRNN", QUARTIC_ALL): {20: 0.81, 30: 0.08},
    ("PLRNN", QUARTIC_HALF): {30: 0.99, 50: 0.23, 100: 0.08},
}


class Found(NamedTuple):
    """One method on one network and length, at the τ that validation chose.

    Attributes:
      tau: τ, 0 without a penalty.
      correct: `[seeds]` P_correct on fresh rows.
      loss: `[seeds]` mean squared error on fresh rows.
      rho: `[seeds]` ρ(W_hh).
      rate: `[seeds]` ln ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖ by T − 1: nats a step that the gradient gains on its way back.
    """

    tau: float
    correct: np.ndarray
    loss: np.ndarray
    rho: np.ndarray
    rate: np.ndarray


def toward_zero(units: int, power: int = 2) -> rr.penalties.Penalty:
    """mean_i [W_iiᵖ + (1/H) Σ_{j ≠ i} W_jiᵖ + b_iᵖ] of the first units; p = 4: weights between them only."""

    def value(params, _, state):
        W, b = params["layer_0"]["W_hh"][:, :units], params["layer_0"]["b_h"][:units]
        rows = units if power == 4 else len(W)
        diagonal, every = jnp.sum(jnp.diagonal(W) ** power), jnp.sum(W[:rows] ** power)
        return (diagonal + (every - diagonal) / rows + jnp.sum(b**power)) / units, state

    return rr.penalties.Penalty(lambda params: (), value)


def penalties(hidden_size: int) -> dict[str, rr.penalties.Penalty]:
    """Every penalty by name."""
    half = hidden_size // 2
    return {
        "l2_all": toward_zero(hidden_size),
        "l2_half": toward_zero(half),
        "to_identity": rr.penalties.to_identity(units=half, reduction="mean", bias="b_h"),
        "quartic_all": toward_zero(hidden_size, 4),
        "quartic_half": toward_zero(half, 4),
    }


def plrnn(hidden_size: int) -> rr.cells.Cell:
    """z_t = A z_{t−1} + W relu(z_{t−1}) + C s_t + h; A is the diagonal of `W_hh`, and the rest of it is W."""
    H = hidden_size

    def init(key, input_size, dtype=jnp.float32):
        keys = jax.random.split(key, 3)
        draws = [jax.random.normal(k, s, dtype) for k, s in zip(keys, ((input_size, H), (H, H), (H,)), strict=True)]
        scales = (np.sqrt(2 / H) * np.exp(1.2 / max(H, 6) - 2.4), H**-0.5, H**-0.5)  # those of their code
        return {name: s * w for name, s, w in zip(("W_xh", "W_hh", "b_h"), scales, draws, strict=True)}

    def step(params, state, x):
        A = jnp.diagonal(params["W_hh"])
        W = params["W_hh"] - jnp.diag(A)
        z = A * state.h + jax.nn.relu(state.h) @ W + x @ params["W_xh"] + params["b_h"]
        return rr.cells.HiddenState(h=z)

    return rr.cells.from_step(step, init=init, hidden_size=H, name="plrnn")


def network(name: str, hidden_size: int, hyper: Any = None) -> rr.Network:
    """The network; the first `hyper["started"]` units receive `hyper["start"]` · I at the start, and no bias."""
    if name == "PLRNN":
        cell = plrnn(hidden_size)
    else:  # the variance of W_hh is that of PyTorch's start, which the paper's ReLU network has
        start = "orthogonal" if name == "tanh" else rr.cells.gaussian(3**-0.5)
        cell = rr.cells.elman(hidden_size, activation=name.lower(), recurrent_init=start)

    def init(key, input_size, dtype=jnp.float32):
        params = cell.init(key, input_size, dtype)
        own = jnp.arange(hidden_size) < hyper["started"]
        target = (hyper["start"] * jnp.eye(hidden_size)).astype(dtype)
        W, b = jnp.where(own, target, params["W_hh"]), jnp.where(own, 0, params["b_h"])
        return params | {"W_hh": W, "b_h": b}

    return rr.network([cell if hyper is None else cell._replace(init=init)], 1, readout="last")


def lanes(config: Config, name: str) -> list[tuple[str, dict[str, float]]]:
    """Every method of a network with every τ that is tried: the method's name, and the numbers of the run."""
    H, found = config.hidden_size, []
    for label, method in METHODS.items():
        units = H if method.penalty.endswith("_all") else H // 2
        start = {"start": method.start or 0.0, "started": 0.0 if method.start is None else float(units)}
        numbers = dict.fromkeys(penalties(H), 0.0) | start
        if name in method.networks:
            taus = config.taus if method.penalty and method.start is None else (TAU,)
            found += [(label, numbers | ({method.penalty: tau} if method.penalty else {})) for tau in taus]
    return found


def measured(config: Config, name: str) -> dict[int, dict[str, Found]]:
    """Every length and method of one network."""
    H, made = config.hidden_size, lanes(config, name)
    num_updates = config.num_epochs * -(-config.num_rows // config.batch_size)
    rates = optax.cosine_decay_schedule(config.learning_rate, num_updates)
    tasks = {T: rr.tasks.adding(T, marks="early") for T in config.lengths}

    def rows(T: int, part: int, count: int) -> rr.Batch:
        return tasks[T].sample(jax.random.fold_in(jax.random.key(T), part), count)

    def data(static):
        T = static["T"]
        return rr.Split(rows(T, 0, config.num_rows), validation=rows(T, 1, config.test_rows // 4))

    def train(static):
        task = tasks[static["T"]]
        return rr.make_train(
            lambda hyper: network(name, H, hyper),
            loss=task.loss,
            metrics=task.metrics,
            penalties=penalties(H),
            optimizer=optax.chain(optax.clip_by_global_norm(3.0), optax.adam(rates)),
            num_epochs=config.num_epochs,
            batch_size=config.batch_size,
            record_every=config.num_epochs // config.records,
            keep_best=True,
            monitor="correct",
        )

    def looked_at(static):
        task, net = tasks[static["T"]], network(name, H)
        test = rows(static["T"], 2, config.test_rows)

        def look(params):
            scores = rr.evaluate(net, params, test, loss=task.loss, metrics=task.metrics)
            flow = rr.diagnostics.gradient_flow(net, task.loss, params, rr.data.take_rows(test, np.arange(64)))
            rho = rr.diagnostics.matrix_spectrum(params["layer_0"]["W_hh"]).rho
            rate = flow.log_ratio["layer_0"][-1] / (static["T"] - 1)
            return {"correct": scores["correct"], "loss": scores["loss"], "rho": rho, "rate": rate}

        return look

    grid = {"lane": rr.zipped(**{key: [numbers[key] for _, numbers in made] for key in made[0][1]})}
    result = rr.sweep(
        train, grid, data, static={"T": list(config.lengths)}, seeds=config.seeds, key=jax.random.key(0), progress=False
    )
    seen = result.map(looked_at)
    return {T: _chosen(made, result.metrics.sel(T=T), seen.sel(T=T)) for T in config.lengths}


def _chosen(made: list[tuple[str, dict[str, float]]], metrics: Any, seen: Any) -> dict[str, Found]:
    """Each method at the τ of the best mean P_correct on validation rows."""
    scores = metrics["val_correct"].transpose("lane", "seed").values
    found = {}
    for label in dict.fromkeys(label for label, _ in made):
        own = [place for place, (other, _) in enumerate(made) if other == label]
        best = own[int(np.argmax(np.nan_to_num(scores[own]).mean(axis=1)))]
        tau = made[best][1].get(METHODS[label].penalty, 0.0)
        values = (seen[key].isel(lane=best).values for key in Found._fields[1:])
        found[label] = Found(tau, *values)
    return found


def main(config: Config) -> Report:
    """Trains every method of both networks at every length."""
    rr.use_all_cores()
    found = {name: measured(config, name) for name in NETWORKS}
    rows = [
        (
            *(name, f"{T}", label, f"{one.tau:g}" if one.tau else "–"),
            *(plus_minus(*mean_and_error(values)) for values in (one.correct, one.loss)),
            *(f"{values.mean():.3f}" for values in (one.rho, one.rate)),
            f"{PUBLISHED.get((name, label), {}).get(T, '–')}",
        )
        for name, by_length in found.items()
        for T, by_method in by_length.items()
        for label, one in by_method.items()
    ]
    head = (
        "network",
        "T",
        "method",
        "τ",
        "P_correct ± SE",
        "MSE ± SE",
        "ρ(W_hh)",
        "gradient, nats a step",
        "published",
    )
    note = f"a blind guess: P_correct {BLIND:.4f}, MSE {1 / 6:.4f}; the published L2 rows are those of w⁴"
    summary = {
        name: {T: {label: one._asdict() for label, one in by.items()} for T, by in each.items()}
        for name, each in found.items()
    }
    spans = [(name, label, f"{span(by, label):.0f}") for name, by in found.items() for label in next(iter(by.values()))]
    text = f"{note}\n{text_table(head, rows)}\n\n{text_table(('network', 'method', 'P_correct ≥ ½ up to T'), spans)}"
    return Report(summary, claims_of(found), text, {"penalty_to_identity": draw(config, found)})


def span(by_length: dict[int, dict[str, Found]], label: str, level: float = 0.5) -> float:
    """The T at which P_correct falls below a level, interpolated; 0 if it never was above, the last T if it stays."""
    lengths = np.array(list(by_length), float)
    values = np.array([by[label].correct.mean() for by in by_length.values()])
    below = np.flatnonzero(values < level)
    if not below.size:
        return float(lengths[-1])
    at = int(below[0])
    if at == 0:
        return 0.0
    share = (values[at - 1] - level) / (values[at - 1] - values[at])
    return float(lengths[at - 1] + share * (lengths[at] - lengths[at - 1]))


def claims_of(found: dict[str, dict[int, dict[str, Found]]]) -> list[Claim]:
    """The order of memory spans, levels where they were published, and the blind guess."""

    def longer(name, one, other, source):
        text = f"{name}: span of “{one}” less span of “{other}”"
        return Claim(text, source).at_least(GAP, span(found[name], one) - span(found[name], other))

    claims = []
    for name in NETWORKS:
        manifold = THEIRS if name == "PLRNN" else IDENTITY
        source = SCHMIDT if name == "PLRNN" else f"{SCHMIDT}, said there of PLRNNs"
        claims.append(longer(name, manifold, NONE, source))
        if name in METHODS[ALL].networks:
            claims += [longer(name, NONE, ALL, source), longer(name, HALF, ALL, source)]
    claims += [
        longer("PLRNN", THEIRS, START, f"{SCHMIDT}; there all units start at I, and T is longer"),
        longer("PLRNN", QUARTIC_HALF, QUARTIC_ALL, SCHMIDT),
    ]
    for (name, label), published in PUBLISHED.items():
        for T, value in published.items():
            if T not in found[name]:
                continue
            correct = found[name][T][label].correct.mean()
            claim = Claim(f"{name}, T = {T}, {label}: P_correct (published {value:.2f})", SCHMIDT)
            if value > 0.9:  # solved there with a larger budget
                claims.append(claim.at_least(0.9, correct))
            elif value < 0.1:  # at chance there, so with a smaller budget too
                claims.append(claim.close(BLIND, correct, tolerance=0.03))
            else:
                # nearer than half of the way to chance, which is in none of these intervals
                claims.append(claim.close(value, correct, tolerance=min(0.2, (value - BLIND) / 2)))
    return claims


def draw(config: Config, found: dict[str, dict[int, dict[str, Found]]]) -> Figure:
    """P_correct and ρ(W_hh) against T, a column a network."""
    figure, axes = plt.subplots(2, len(NETWORKS), figsize=(10.5, 5.2), sharex=True, sharey="row", squeeze=False)
    for column, (name, by_length) in enumerate(found.items()):
        top, bottom = axes[:, column]
        top.axhline(BLIND, color="0.6", linewidth=0.8, linestyle=":")
        bottom.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
        for label, method in METHODS.items():
            if name not in method.networks:
                continue
            ones = [by[label] for by in by_length.values()]
            look = {"fmt": "o-"} if method.start is None else {"fmt": "o--", "mfc": "white"}
            for ax, key in ((top, "correct"), (bottom, "rho")):
                values = np.stack([getattr(one, key) for one in ones])
                means, errors = zip(*(mean_and_error(row) for row in values), strict=True)
                ax.errorbar(config.lengths, means, yerr=errors, color=method.color, label=label, capsize=2, **look)
            inside = {T: value for T, value in PUBLISHED.get((name, label), {}).items() if T in config.lengths}
            top.plot(list(inside), list(inside.values()), "x", color=method.color, markersize=6, zorder=5)
        top.set_title(f"({'abc'[column]}) {name}, H = {config.hidden_size}", loc="left")
        bottom.set_title(f"({'def'[column]})", loc="left")
        bottom.set_xlabel("T (steps)")
        bottom.set_xticks(config.lengths)
    axes[0, 0].set(ylabel="P$_{\\mathrm{correct}}$ ± SE", ylim=(-0.03, 1.05))
    axes[1, 0].set_ylabel("ρ(W$_{hh}$) ± SE")
    axes[0, 1].annotate("blind guess", (0.01, BLIND), xycoords=("axes fraction", "data"), va="top", fontsize=7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    cross = plt.Line2D([], [], color="0.3", marker="x", linestyle="none", markersize=6)
    figure.legend([*handles, cross], [*labels, "published"], loc="outside right upper", handlelength=3)
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS)
