"""Loss and gradient of many networks at once: rnnreg beside PyTorch, Keras, Flax and Equinox.

M networks of one size, each with weights of its own, look at one batch. Timed are `gradient` (every
network's loss and gradients) and `step` (those and an update by SGD, without a penalty). Contenders run in
turn, round by round, in one process. GFLOP/s count the products alone, 6·M·T·B·H·(G·H + G·D + O), beside
what the machine reaches in one large float32 product.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments._report import command_line, text_table, write_json
from experiments.benchmarks._measure import (
    MATMUL_SIZE,
    Timing,
    interleave,
    machine,
    matmul,
    matmul_flops,
)
from experiments.benchmarks._peers import (
    LEARNING_RATE,
    PEERS,
    Contender,
    Entry,
    Problem,
    Task,
    find_missing,
    make_problem,
    network,
    torch_compile,
)
from rnnreg.plotting import COLORS, log_y, save, style

WHATS = ("gradient", "step")

# Who appears, in this order: name, what a legend calls it.
OURS = {
    "rnnreg": "rnnreg",
    "rnnreg_scan": "rnnreg, plain scan",
    "rnnreg_vmap": "rnnreg, vmap",
}
FRAMEWORKS = {
    "torch_loop": "PyTorch, nn modules",
    "keras": "Keras",
    "flax": "Flax, vmap",
    "equinox": "Equinox, vmap",
}
BY_HAND = {"torch_bmm": "PyTorch, bmm by hand", "torch_compile": "PyTorch, bmm compiled"}
LABELS = {**OURS, **FRAMEWORKS, **BY_HAND}

# Keras gives no gradients away: its whole step stands in the gradient's place, and the plan says so.
WHOLE_STEP = ", a whole step"


@dataclass(frozen=True)
class Config:
    """What to time, and where the numbers go."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where everybody runs; on a GPU in true float32."""
    cells: tuple[Literal["elman", "gru", "lstm"], ...] = ("elman", "gru", "lstm")
    """Cells."""
    sizes: tuple[int, ...] = (16, 32, 64, 128)
    """Hidden sizes H."""
    lanes: int | None = None
    """Networks M; by default 64, and 32 where H is above 64."""
    batch: int = 32
    """Rows B."""
    time: int = 100
    """Steps T."""
    peers: tuple[Literal["torch", "keras", "flax", "equinox"], ...] = tuple(PEERS)  # type: ignore[assignment]
    """Beside whom; `--peers` alone for nobody."""
    all_plans: bool = False
    """Time the library's alternatives too: the plain scan, and vmap over the lanes."""
    torch_compile: bool = False
    """Time what is written by hand in PyTorch through `torch.compile` too: minutes of compiling a size."""
    rounds: int = 7
    """Turns of each contender."""
    json: Path = Path("results/benchmarks/lanes.json")
    """Where the numbers go, after each size."""
    figure: Path = Path("results/benchmarks/lanes")
    """Where the figure goes, as .png and .pdf."""
    from_json: Path | None = None
    """Measure nothing: print the table and draw the figure of this file."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {"sizes": (8, 16), "lanes": 4, "batch": 8, "time": 20, "rounds": 3},
}


# ---- ours -----------------------------------------------------------------------------------------


def ours(problem: Problem, who: str) -> Entry:
    """rnnreg's own contenders: the plan that the library chooses, or one of its alternatives.

    The program is that of `rr.lanes.Program`, without its copies to NumPy: results stay on the devices,
    as with the peers.
    """
    options = {"backend": "scan"} if who == "rnnreg_scan" else {}
    net = network(problem.task, **options)
    how = "vmap" if who == "rnnreg_vmap" or problem.device == "gpu" else "auto"
    plan = _plan(problem.task, how)
    batch = rr.Batch(jnp.asarray(problem.xs), jnp.asarray(problem.ys))
    loss = rr.losses.squared_error("mean")
    train = rr.make_train(net, loss=loss, optimizer=optax.sgd(LEARNING_RATE), num_epochs=1)

    def gradient(params, batch):
        def value(params):
            return loss(net.apply(params, batch.xs).outputs, batch.ys)

        return jax.value_and_grad(value)(params)

    key = jax.random.key(0)

    def step(state, batch):  # nothing is drawn, and a key cannot be repeated as other leaves can
        state, info = train.update(state._replace(key=key), {}, batch)
        return state._replace(key=None), info.data_loss

    # the last lane again, where the lanes do not divide evenly
    rows = np.minimum(np.arange(plan.width), problem.task.lanes - 1)
    params = jax.tree.map(lambda leaf: leaf[rows], problem.params)

    def start(params):
        made = train.init({}, batch, key=key)
        return jax.vmap(lambda lane: made._replace(params=lane, key=None))(params)

    state = jax.jit(start)(params)

    run_gradient, params, shared = _program(gradient, plan, params, batch)
    run_step, state, _ = _program(step, plan, state, batch)
    held = [state]

    def call_gradient():
        return jax.block_until_ready(run_gradient(params, shared))

    def call_step():
        held[0], losses = run_step(held[0], shared)
        jax.block_until_ready((held[0], losses))

    losses, gradients = call_gradient()
    count = problem.task.lanes
    words = f"chunks of {plan.chunk}" if plan.name == "chunks" else plan.name.replace("_", " ")
    words += f" on {len(plan.devices)} device(s)"
    return Entry(
        [
            Contender(who, "gradient", words, call_gradient),
            Contender(who, "step", words, call_step),
        ],
        np.asarray(losses)[:count],
        np.asarray(gradients["layer_0"]["W_hh"])[:count],
    )


def _plan(task: Task, how: str) -> rr.lanes.Plan:
    """The library's plan, all lanes in one call."""
    plan = rr.lanes.make_plan(task.lanes, hidden_size=task.hidden, lane_seconds=1e-9, plan=how)
    return dataclasses.replace(plan, width=plan.width * plan.num_calls)


def _program(
    function: Callable[..., Any], plan: rr.lanes.Plan, lanes: Any, shared: Any
) -> tuple[Callable[..., Any], Any, Any]:
    """The compiled program, and its arguments where it wants them."""
    compiled = rr.lanes.trace(function, plan, lanes, shared).lower().compile()
    (lanes, shared), _ = jax.device_put(((lanes, shared), {}), compiled.input_shardings)
    return compiled, lanes, shared


# ---- measuring ------------------------------------------------------------------------------------


def measure(config: Config, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Every cell and size; the numbers so far are written after each.

    Returns:
      What is written: `rows`, `matmul_gflops`, `environment`, `missing`.
    """
    missing = find_missing(config.peers, config.device)
    for name, reason in missing.items():
        say(f"{name} is missing, and not compared: {reason}")
    present = [name for name in config.peers if name not in missing]
    builders = [build for name in present for build in PEERS[name]]
    if config.torch_compile and "torch" in present:
        builders.append(torch_compile)
    result: dict[str, Any] = {
        "rows": [],
        "matmul_gflops": None,
        "environment": machine(("torch", "keras", "equinox")),
        "missing": sorted(missing),
    }
    rates = []
    for cell in config.cells:
        for hidden in config.sizes:
            lanes = config.lanes or (64 if hidden <= 64 else 32)
            task = Task(cell, hidden, lanes, config.batch, config.time)
            rows, rate = measure_task(task, config, builders)
            rates.append(rate)
            result["rows"] += rows
            result["matmul_gflops"] = float(np.median(rates))
            write_json(config.json, result)
            say(f"{cell}, H = {hidden}: {_in_short(rows)}")
    return result


def measure_task(
    task: Task, config: Config, builders: Sequence[Callable[[Problem], Entry]]
) -> tuple[list[dict[str, Any]], float]:
    """The rows of one cell and size, and the GFLOP/s of the large product in the same rounds.

    Raises:
      RuntimeError: a contender's losses or gradients are not those of rnnreg.
    """
    problem = make_problem(task, device=config.device)
    entries = [ours(problem, who) for who in (OURS if config.all_plans else ["rnnreg"])]
    entries += [build(problem) for build in builders]
    for entry in entries:
        check(entry, entries[0])
    contenders = [contender for entry in entries for contender in entry.contenders]
    calls: dict[str, Callable[[], Any]] = {"matmul": matmul()}
    calls |= {f"{c.who} {c.what}": c.call for c in contenders}
    timings = interleave(calls, config.rounds)
    rate = matmul_flops() / timings["matmul"].median / 1e9
    rows = []
    for contender in contenders:
        row = make_row(task, contender, timings[f"{contender.who} {contender.what}"], rate, config)
        if contender.who == "keras":
            rows.append({**row, "what": "gradient", "plan": contender.plan + WHOLE_STEP})
        rows.append(row)
    return rows, rate


def check(entry: Entry, reference: Entry) -> None:
    """The same losses, and gradients of the same size, lane by lane.

    Raises:
      RuntimeError: they are not.
    """
    who = entry.contenders[0].who
    found = {"losses": (entry.losses, reference.losses)}
    if entry.recurrent is not None and reference.recurrent is not None:
        norms = [
            np.linalg.norm(leaf.reshape(len(leaf), -1), axis=-1)
            for leaf in (entry.recurrent, reference.recurrent)
        ]
        found["norms of the recurrent gradients"] = (norms[0], norms[1])
    for name, (theirs, expected) in found.items():
        shapes = theirs.shape == expected.shape
        if not shapes or not np.allclose(theirs, expected, rtol=1e-3, atol=1e-6):  # nor is NaN
            raise RuntimeError(
                f"{who} computes something else: its {name} are {theirs}, and those of rnnreg {expected}."
            )


def make_row(
    task: Task, contender: Contender, timing: Timing, matmul_gflops: float, config: Config
) -> dict[str, Any]:
    """One line of the result; times in milliseconds."""
    gflops = task.flops / timing.median / 1e9
    return {
        "cell": task.cell,
        "hidden": task.hidden,
        "batch": task.batch,
        "time": task.time,
        "lanes": task.lanes,
        "who": contender.who,
        "what": contender.what,
        "plan": contender.plan,
        "milliseconds": 1e3 * timing.median,
        "low": 1e3 * timing.low,
        "high": 1e3 * timing.high,
        "gflops": gflops,
        "share_of_matmul": gflops / matmul_gflops,
        "device": config.device,
    }


# ---- reading --------------------------------------------------------------------------------------


class Ratio(NamedTuple):
    """How rnnreg stands in one cell and size.

    Attributes:
      cell: which cell.
      hidden: H.
      lanes: M.
      share: of the machine's rate in a large product.
      best_peer: the fastest of the others; None without any.
      over_peer: our rate over its.
      best_framework: the fastest of the frameworks' own layers, without what is written by hand.
      over_framework: our rate over its.
    """

    cell: str
    hidden: int
    lanes: int
    share: float
    best_peer: str | None
    over_peer: float
    best_framework: str | None
    over_framework: float


def ratios(rows: Sequence[Mapping[str, Any]], what: str = "gradient") -> list[Ratio]:
    """Our rate over that of the fastest peer and of the fastest framework, for each cell and size."""
    found = []
    for (cell, hidden, lanes), rates in _by_task(rows, what).items():
        if "rnnreg" not in rates:
            continue
        mine = rates["rnnreg"]

        def best(names, rates=rates, mine=mine):
            present = [name for name in names if name in rates]
            if not present:
                return None, math.nan
            name = max(present, key=lambda name: rates[name]["gflops"])
            return name, mine["gflops"] / rates[name]["gflops"]

        peer, framework = best([*FRAMEWORKS, *BY_HAND]), best(FRAMEWORKS)
        found.append(Ratio(cell, hidden, lanes, mine["share_of_matmul"], *peer, *framework))
    return found


def table(rows: Sequence[Mapping[str, Any]], what: str = "gradient") -> str:
    """GFLOP/s of each tool, our share of the machine's product, and how often we fit into the best peers."""
    tasks = _by_task(rows, what)
    present = {who for rates in tasks.values() for who in rates}
    whos = [who for who in LABELS if who in present]
    standing = {(r.cell, r.hidden, r.lanes): r for r in ratios(rows, what)}

    def over(ratio, name):
        return "–" if name is None else f"{ratio:.2f} × {name}"

    lines = []
    for task, rates in tasks.items():
        cells = [f"{rates[who]['gflops']:.2f}" if who in rates else "–" for who in whos]
        ratio = standing.get(task)
        last = ["–"] * 3
        if ratio is not None:
            last = [
                f"{100 * ratio.share:.1f} %",
                over(ratio.over_peer, ratio.best_peer),
                over(ratio.over_framework, ratio.best_framework),
            ]
        lines.append([*map(str, task), *cells, *last])
    header = ["cell", "H", "lanes", *whos, "of matmul", "best peer", "best framework"]
    return text_table(header, lines)


def report(result: Mapping[str, Any]) -> str:
    """The result for a terminal: both tables, the machine, who is missing."""
    machine = result["environment"]
    parts = []
    for what, words in (
        ("gradient", "losses and gradients"),
        ("step", "a whole step of SGD"),
    ):
        if _by_task(result["rows"], what):
            parts.append(f"GFLOP/s, {words}\n\n{table(result['rows'], what)}")
    if any(row["who"] == "keras" for row in result["rows"]):
        parts[0] += "\n\nKeras gives no gradients away: its whole step stands in both tables."
    rate = result["matmul_gflops"]
    parts.append(
        f"{MATMUL_SIZE}³ product in JAX: {'–' if rate is None else f'{rate:.1f}'} GFLOP/s; "
        f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('device_kind')}, "
        f"jax {machine.get('jax')}"
    )
    if result["missing"]:
        parts.append("missing: " + ", ".join(result["missing"]))
    return "\n\n".join(parts)


def _by_task(
    rows: Sequence[Mapping[str, Any]], what: str
) -> dict[tuple[str, int, int], dict[str, Mapping[str, Any]]]:
    """{(cell, H, lanes): {who: row}} in the order of the rows."""
    found: dict[tuple[str, int, int], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["what"] == what:
            key = (row["cell"], row["hidden"], row["lanes"])
            found.setdefault(key, {})[row["who"]] = row
    return found


def _in_short(rows: Sequence[Mapping[str, Any]]) -> str:
    rates = [f"{r['who']} {r['gflops']:.2f}" for r in rows if r["what"] == "gradient"]
    return ", ".join(rates) + " GFLOP/s"


# ---- drawing --------------------------------------------------------------------------------------

# colour, marker and dashes: told apart without colour too
_LOOKS = {
    "rnnreg": (COLORS.blue, "o", "-"),
    "rnnreg_scan": (COLORS.blue, "s", "--"),
    "rnnreg_vmap": (COLORS.blue, "D", ":"),
    "torch_loop": (COLORS.vermillion, "^", "-"),
    "torch_bmm": (COLORS.orange, "v", "-"),
    "torch_compile": (COLORS.orange, "<", "--"),
    "keras": (COLORS.green, "P", "-"),
    "flax": (COLORS.purple, "X", "-"),
    "equinox": (COLORS.sky, "d", "-"),
}


def plot(result: Mapping[str, Any], *, what: str = "gradient") -> Any:
    """GFLOP/s over H, a panel a cell, under the rate of a large product; quartiles as bars."""
    import matplotlib.pyplot as plt

    rows = [row for row in result["rows"] if row["what"] == what]
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    sizes = sorted({row["hidden"] for row in rows})
    present = {row["who"] for row in rows}
    with style():
        figure, axes = plt.subplots(
            1,
            max(1, len(cells)),
            figsize=(max(4.8, 2.7 * len(cells)), 3.6),
            sharey=True,
            squeeze=False,
        )
        for ax, cell in zip(axes[0], cells, strict=False):
            for who in (who for who in LABELS if who in present):
                _line(ax, [r for r in rows if (r["cell"], r["who"]) == (cell, who)], who)
            ax.set_xscale("log", base=2)
            ax.set_xticks(sizes, labels=[str(size) for size in sizes])
            ax.minorticks_off()
            ax.margins(x=0.08)
            ax.set(title={"elman": "Elman", "gru": "GRU", "lstm": "LSTM"}.get(cell, cell))
            ax.set_xlabel("hidden size $H$")
            ax.grid(axis="y", color="0.9", linewidth=0.6)
            ax.set_axisbelow(True)
            log_y(ax)
            if result["matmul_gflops"]:
                ax.axhline(
                    result["matmul_gflops"], color="0.35", linestyle=(0, (5, 2)), linewidth=1
                )
        axes[0][0].set_ylabel("GFLOP/s")
        if result["matmul_gflops"] and cells:
            axes[0][0].annotate(
                f"one {MATMUL_SIZE}³ product",
                (0.02, result["matmul_gflops"]),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize=8,
                color="0.25",
            )
            low, high = axes[0][0].get_ylim()
            axes[0][0].set_ylim(low, high * 1.2)
        handles, labels = axes[0][0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _line(ax: Any, rows: Sequence[Mapping[str, Any]], who: str) -> None:
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row["hidden"])
    rates = np.array([row["gflops"] for row in rows])
    milliseconds, low, high = (
        np.array([row[name] for row in rows]) for name in ("milliseconds", "low", "high")
    )
    bars = np.abs(np.stack([rates * milliseconds / high, rates * milliseconds / low]) - rates)
    colour, marker, dashes = _LOOKS[who]
    label = LABELS[who]
    if who == "keras" and all(row["plan"].endswith(WHOLE_STEP) for row in rows):
        label += WHOLE_STEP
    ax.errorbar(
        [row["hidden"] for row in rows],
        rates,
        bars,
        color=colour,
        marker=marker,
        linestyle=dashes,
        linewidth=2.2 if who == "rnnreg" else 1.3,
        markersize=5,
        elinewidth=0.8,
        zorder=4 if who == "rnnreg" else 3,
        label=label,
    )


# ---- the command line -----------------------------------------------------------------------------


def prepare(device: str) -> None:
    """JAX on the device, before its first array.

    Raises:
      RuntimeError: a GPU is asked for, and JAX sees none.
    """
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
        rr.use_all_cores()
        return
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs some memory too
    jax.config.update("jax_default_matmul_precision", "highest")  # float32, not TF32
    if jax.default_backend() != "gpu":
        raise RuntimeError(
            f"--device gpu, but JAX runs on {jax.default_backend()!r}: pip install -e '.[cuda]'."
        )


def main(config: Config) -> None:
    """Measure, or read what was measured; print the tables, draw the figure."""
    if config.from_json is None:
        prepare(config.device)
        result = measure(config, say=lambda line: print(line, flush=True))
        print(f"\nwritten to {config.json}\n")
    else:
        result = json.loads(config.from_json.read_text(encoding="utf-8"))
    print(report(result))
    if result["rows"]:
        save(plot(result), config.figure, close=True)


if __name__ == "__main__":
    main(command_line(Config, PRESETS))
