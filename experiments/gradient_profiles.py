"""‖∂C/∂h_t‖ against t on copy memory, at the start and after 100 updates, for eight kinds of recurrent network.

After Arjovsky, Shah & Bengio 2016, Fig. 4, with gated cells at three forget biases, and two things that can be
computed exactly: what the forget gates alone let through, and a bit that one unit holds while λ‖W‖² pulls at it.

The gradient is that of h (for an LSTM not of the cell memory c; the path through the forget gates alone is shown by
itself). C is either the loss of the whole sequence, as in the paper (every step adds to it, so early steps keep a
floor), or that of the last recalled symbol alone, r(ℓ). All in float64: profiles reach 1e-31. Departures from the
paper: the same hidden size for all, and initial states of zero.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments import _latch as latch
from experiments._harness import Claim, Options, run, text_table
from rnnreg.cells import LSTMState

PAPER = "expected here, after Arjovsky, Shah & Bengio 2016, Fig. 4"
PATH_STEPS = 100
LATCH_STEPS = (100, 400, 1600)


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the gradient profiles."""

    cells: tuple[str, ...] = (
        "tanh, Gaussian",
        "tanh, orthogonal",
        "linear, orthogonal",
        "IRNN",
        "GRU",
        "LSTM, b_f = 0",
        "LSTM, b_f = 1",
        "LSTM, chrono",
    )
    """Which cells, in the order of the table."""
    delay: int = 200
    """T of the copy task; a sequence has T + 20 steps."""
    hidden_size: int = 64
    """Hidden units, of every cell."""
    num_updates: int = 100
    """Updates of RMSProp between the two profiles."""
    batch_size: int = 20
    """Rows of an update, and of a profile."""
    seeds: int = 5
    """Starts of each cell."""
    latch_weights: int = 2000
    """Grid of w for the one-unit latch, finer towards 1."""


PRESETS = {
    "quick": {
        "cells": ("tanh, orthogonal", "LSTM, b_f = 1", "LSTM, chrono"),
        "delay": 100,
        "hidden_size": 24,
        "seeds": 2,
        "latch_weights": 300,
        "num_updates": 30,
    },
    "full": {},
}


def cells(hidden_size: int, num_steps: int) -> dict[str, rr.cells.Cell]:
    """The cells; the linear orthogonal one is the control, whose gradient cannot vanish at the start."""
    c = rr.cells
    return {
        "tanh, Gaussian": c.elman(hidden_size, recurrent_init=c.gaussian(1.0)),
        "tanh, orthogonal": c.elman(hidden_size),
        "linear, orthogonal": c.elman(hidden_size, activation=jax.nn.identity),
        "IRNN": c.irnn(hidden_size),
        "GRU": c.gru(hidden_size),
        "LSTM, b_f = 0": c.lstm(hidden_size, forget_bias=0.0),
        "LSTM, b_f = 1": c.lstm(hidden_size, forget_bias=1.0),
        "LSTM, chrono": c.chrono(c.lstm(hidden_size), num_steps),
    }


class Profiles(NamedTuple):
    """What one cell does to gradients, seed by seed.

    Attributes:
      whole: by moment ("start", "trained"), `[seed, lag]`, ‖∂C/∂h‖ of the whole loss, geometric mean over rows, against
        steps back from the end.
      last: by moment, `[seed, lag]`, the same of the last step's loss, over its value at lag 0.
      loss: by moment, `[seed]`, of the whole sequence.
    """

    whole: dict[str, np.ndarray]
    last: dict[str, np.ndarray]
    loss: dict[str, np.ndarray]


def main(config: Config) -> None:
    """Profiles, the exact path, the latch; prints tables and writes figures and summary."""
    jax.config.update("jax_enable_x64", True)
    rr.compilation_cache()
    task = rr.tasks.copy_memory(config.delay)
    key = jax.random.key(0)
    made = cells(config.hidden_size, task.num_steps)
    found = {name: profiles(made[name], task, config, key) for name in config.cells}
    slopes = {
        name: {moment: decay(curves) for moment, curves in profile.last.items()}
        for name, profile in found.items()
    }
    print(f"copy memory, T = {config.delay}; blind guess {task.baseline['loss']:.4f} nats")
    rows = [
        (
            name,
            *(f"{slope.mean():+.4f} ± {spread(slope):.4f}" for slope in by.values()),
            *(
                f"{np.exp(np.log(curves[:, -1]).mean()):.1e}"
                for curves in found[name].last.values()
            ),
            f"{found[name].loss['trained'].mean():.4f}",
        )
        for name, by in slopes.items()
    ]
    header = (
        "cell",
        "d ln r/dℓ, start",
        "trained",
        "r(first step), start",
        "trained",
        "loss, trained",
    )
    print(text_table(header, rows))

    paths = {
        "LSTM, b_f = 0": cell_path(0.0),
        "LSTM, b_f = 1": cell_path(1.0),
        "LSTM, chrono, slowest unit (b_f = ln 99)": cell_path(float(np.log(99.0))),
    }
    for name, path in paths.items():
        print(f"∏ f over {PATH_STEPS} steps, {name}: {path:.4g}")
    held = latch_results(config)
    claims = [*profile_claims(slopes), *path_claims(paths), *latch_claims(held)]
    print(claims_table(claims))
    if config.preset != "full":
        print("The claims are about --preset full.")
    profile_figure(config, task, found, paths)
    latch_figure(config, held)
    summary = {"config": config, "slopes": slopes, "profiles": found, "cell_paths": paths}
    write_summary(config.out, {**summary, "latch": held}, claims)
    print(f"wrote {config.out}/")


def profiles(cell: Any, task: Any, config: Config, key: Any) -> Profiles:
    """The profiles of every seed, before and after training."""
    net = rr.network([cell], task.output_size, readout=task.readout)
    key_batch, key_runs = jax.random.split(key)
    batch = task.sample(key_batch, config.batch_size)  # the same for all, so that cells compare

    def run(key):
        key_init, key_train = jax.random.split(key)
        params = {"start": net.init(key_init, task.input_size)}
        params["trained"] = trained(net, task, params["start"], config, key_train)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(curves, params.values()))

    def curves(params):
        outputs = net.apply(params, batch.xs).outputs
        norms = profile(net, task, params, batch, step=None)
        last = profile(net, task, params, batch, step=-1)
        return norms, last - last[:1], task.loss(outputs, batch.ys)

    log_whole, log_last, loss = map(
        np.asarray, jax.jit(jax.vmap(run))(jax.random.split(key_runs, config.seeds))
    )
    moments = ("start", "trained")
    return Profiles(
        *(
            {moment: f(values[:, place]) for place, moment in enumerate(moments)}
            for values, f in ((log_whole, np.exp), (log_last, np.exp), (loss, np.asarray))
        )
    )


def profile(net: Any, task: Any, params: Any, batch: Any, *, step: int | None) -> Any:
    """ln ‖∂C/∂h‖ against steps back, the mean over rows whose gradient is not exactly 0."""
    flow = rr.diagnostics.gradient_flow(net, task.loss, params, batch, step=step)
    logs = flow.log_norms["layer_0"]
    return jnp.nanmean(jnp.where(jnp.isfinite(logs), logs, jnp.nan), axis=0)


def trained(net: Any, task: Any, params: Any, config: Config, key: Any) -> Any:
    """After so many updates of RMSProp (rate 1e-3, decay .9, no ε, elementwise clipping at 1), each on fresh rows."""
    optimizer = optax.chain(
        optax.clip(1.0), optax.rmsprop(1e-3, decay=0.9, eps=0.0, initial_scale=1e-3)
    )

    def loss(params, batch):
        return task.loss(net.apply(params, batch.xs).outputs, batch.ys)

    def update(carry, key):
        params, state = carry
        gradient = jax.grad(loss)(params, task.sample(key, config.batch_size))
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(key, config.num_updates)
    (params, _), _ = jax.lax.scan(update, (params, optimizer.init(params)), keys)
    return params


def cell_path(forget_bias: float) -> float:
    """∂c_T/∂c_0 of the library's LSTM over 100 steps with h and x held out of its gates."""
    cell = rr.cells.lstm(1, forget_bias=forget_bias)
    net = rr.network([cell], output_size=None, readout="last")
    params = jax.tree.map(jnp.asarray, net.init(jax.random.key(0), 1))
    # zero weights: the gates see their biases alone, and nothing new is written (g = tanh 0)
    layer = {name: leaf * (name == "b_h") for name, leaf in params["layer_0"].items()}

    def last_memory(c):
        state = {"layer_0": LSTMState(h=jnp.zeros((1, 1)), c=c.reshape(1, 1))}
        out = net.apply({"layer_0": layer}, jnp.zeros((1, PATH_STEPS, 1)), state=state)
        return out.final_state["layer_0"].c[0, 0]

    return float(jax.grad(last_memory)(jnp.asarray(0.5)))


def decay(curves: np.ndarray) -> np.ndarray:
    """d ln r/dℓ of each seed, least squares over all lags with a gradient."""
    with np.errstate(divide="ignore"):
        logs = np.log(curves)[:, None]
    return np.asarray(rr.diagnostics.decay_rate(logs).by_run)


def spread(values: np.ndarray) -> float:
    """Standard error over seeds."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def latch_results(config: Config) -> dict[str, Any]:
    """Margins by halving, the path over λ by autodiff, and thresholds in closed form."""
    w = np.array([0.5, 0.8, 0.95, 1.05, 1.2, 1.5, 2.0, 3.0, 4.0])
    paths = {
        T: latch.latch_path(num_steps=T, num_weights=config.latch_weights) for T in LATCH_STEPS
    }
    return {
        "w": w,
        "margin": latch.margin(w),
        "margin_measured": latch.measured_margin(w, num_steps=3000),
        "paths": paths,
        "lambda_c": latch.lambda_c(),
        "lambda_s": {T: latch.lambda_s(T) for T in LATCH_STEPS},
    }


def profile_claims(slopes) -> list[Claim]:
    """Orders of decay rates, each as a difference that must be positive by two standard errors."""
    pairs = [
        ("start", "tanh, orthogonal", "tanh, Gaussian"),
        ("start", "linear, orthogonal", "tanh, orthogonal"),
        ("start", "IRNN", "tanh, orthogonal"),
        ("start", "LSTM, b_f = 1", "LSTM, b_f = 0"),
        ("start", "LSTM, chrono", "LSTM, b_f = 1"),
        ("trained", "tanh, orthogonal", "tanh, Gaussian"),
        ("trained", "linear, orthogonal", "tanh, Gaussian"),
        ("trained", "linear, orthogonal", "LSTM, b_f = 1"),
        ("trained", "tanh, orthogonal", "LSTM, b_f = 0"),
        ("trained", "tanh, orthogonal", "LSTM, b_f = 1"),
    ]
    claims = []
    for moment, slow, fast in pairs:
        if slow not in slopes or fast not in slopes:
            continue
        difference = slopes[slow][moment] - slopes[fast][moment]
        claims.append(
            Claim.at_least(
                f"{moment}: {slow} keeps more than {fast} (difference of d ln r/dℓ, less 2 SE)",
                0.0,
                difference.mean() - 2 * spread(difference),
                source=PAPER if "chrono" not in slow else "Tallec & Ollivier 2018",
            )
        )
    return claims


def path_claims(paths) -> list[Claim]:
    """σ(b)^100, to the digits that are quoted."""
    quoted = (7.9e-31, 2.5e-14, 0.366)
    return [
        Claim.close(
            f"∏ f over {PATH_STEPS} steps, {name}",
            expected,
            path,
            source="σ(b_f)^100, derived here",
            tolerance=0.01 * expected,
        )
        for expected, (name, path) in zip(quoted, paths.items(), strict=True)
    ]


def latch_claims(held) -> list[Claim]:
    """The threshold w = 1, the margin, and what λ does to both."""
    bengio, here = "Bengio, Simard & Frasconi 1994", "derived here"
    below, above = held["w"] < 1, held["w"] > 1
    path = held["paths"][LATCH_STEPS[-1]]
    claims = [
        Claim.at_most(
            "latch: largest margin at any w < 1",
            1e-6,
            held["margin_measured"][below].max(),
            source=bengio,
        ),
        Claim.at_most(
            "latch: margin at w > 1, measured − (√(w(w−1)) − artanh √(1−1/w)), largest difference",
            1e-4,
            np.abs(held["margin_measured"] - held["margin"])[above].max(),
            source=here,
        ),
        Claim.close(
            f"latch: λ_c, above which forgetting is better, T = {LATCH_STEPS[-1]}",
            held["lambda_c"],
            path.lambda_c,
            source=here,
            tolerance=0.01 * held["lambda_c"],
        ),
    ]
    for T, allowed in zip(LATCH_STEPS, (0.2, 0.1, 0.05), strict=True):
        claims.append(
            Claim.close(
                f"latch: λ_s, above which no minimum with memory is left, T = {T}",
                held["lambda_s"][T],
                held["paths"][T].lambda_s,
                source="expansion in 1/√T, derived here",
                tolerance=allowed * held["lambda_s"][T],
            )
        )
    return [
        *claims,
        Claim.at_most(
            "latch: the margin only falls with λ (largest step up)",
            0.0,
            np.diff(path.margin).max(),
            source=here,
        ),
        Claim.at_least(
            "latch: the gradient's factor a step only rises with λ, while w > 1 (smallest step)",
            0.0,
            np.diff(path.shrink[path.w > 1]).min(),
            source=bengio + ": what is held safely has a vanishing gradient",
        ),
        Claim.close(
            f"latch: w where memory ends, T = {LATCH_STEPS[-1]}",
            1.0,
            path.w[-1],
            source=bengio + ": threshold w = 1",
            tolerance=2 / LATCH_STEPS[-1],
        ),
    ]


def profile_figure(config: Config, task, found, paths) -> None:
    """Whole loss and last step's loss, at the start and after training; the forget gates alone beside the latter."""
    import matplotlib.pyplot as plt

    from rnnreg.plotting._style import CYCLE

    names = list(cells(1, task.num_steps))
    styles = dict(zip(names, ["-", "-", "-", "-", "-", "--", "--", "--"], strict=True))
    colors = dict(zip(names, [*CYCLE[:5], *CYCLE[:3]], strict=True))
    titles = {"start": "at the start", "trained": f"after {config.num_updates} updates"}
    fig, axes = plt.subplots(2, 2, figsize=(9.2, 6.2), sharex=True, sharey="row")
    for column, (moment, title) in enumerate(titles.items()):
        for name, profile in found.items():
            style, color = styles[name], colors[name]
            for row, curves in enumerate((profile.whole[moment], profile.last[moment])):
                steps = task.num_steps - 1 - np.arange(curves.shape[1])
                logs = np.log(np.where(curves > 0, curves, np.nan))
                middle = np.nanmean(logs, axis=0)
                error = np.nanstd(logs, axis=0, ddof=1) / np.sqrt(len(logs))
                axes[row, column].plot(
                    steps,
                    np.exp(middle),
                    linestyle=style,
                    color=color,
                    label=name.replace("b_f", "b$_f$"),
                )
                axes[row, column].fill_between(
                    steps,
                    np.exp(middle - error),
                    np.exp(middle + error),
                    color=color,
                    alpha=0.15,
                    linewidth=0,
                )
        axes[0, column].set_title(f"({'ab'[column]}) whole loss, {title}", loc="left")
        axes[1, column].set_title(f"({'cd'[column]}) last step's loss, {title}", loc="left")
        axes[1, column].set_xlabel("step t")
    for ax in axes.flat:
        ax.set_yscale("log")
        for first in (0, task.num_steps - 10):
            ax.axvspan(first, first + 9, color="0.92", linewidth=0, zorder=0)
    for name, path in paths.items():
        color = colors[name.partition(", slowest")[0]]
        axes[1, 0].plot(task.num_steps - 1 - PATH_STEPS, path, "s", color=color, markersize=5)
    axes[0, 0].set_ylabel("‖∂C/∂h$_t$‖, whole loss")
    axes[1, 0].set_ylabel("‖∂L$_{last}$/∂h$_t$‖ over its last value")
    axes[1, 0].set_ylim(1e-33, 10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=4,
        title=f"copy memory, T = {config.delay}: geometric mean of {config.seeds} seeds, bands ± 1 SE; "
        "grey: symbols shown, recalled\n"
        f"squares in (c): forget gates alone, {PATH_STEPS} steps (chrono: slowest unit)",
    )
    rr.plotting.save(fig, config.out / "profiles", close=True)


def latch_figure(config: Config, held) -> None:
    """Margin against w; weight, margin and gradient's factor against λ."""
    import matplotlib.pyplot as plt

    from rnnreg.plotting._style import CYCLE, legend_above, title_above

    path = held["paths"][LATCH_STEPS[-1]]
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.7))
    w = np.linspace(0.4, 4.2, 300)
    left.plot(w, latch.margin(w), color=CYCLE[0], label="closed form")
    left.plot(held["w"], held["margin_measured"], "o", color=CYCLE[1], label="by halving")
    left.axvline(1, color="0.5", linestyle=":", label="threshold w = 1")
    left.set_xlabel("recurrent weight w")
    left.set_ylabel("margin: opposing input withstood")
    left.legend()
    left.set_title("(a) h ← tanh(w h + u): a bit held against −u", loc="left")

    series = (
        (path.w, "weight w"),
        (path.margin, "margin"),
        (path.shrink, "gradient's factor a step"),
    )
    for place, (values, label) in enumerate(series):
        right.plot(path.lam, values, color=CYCLE[place], label=label)
    marks = (
        (path.lambda_c, "--", "λ$_c$"),
        (path.lambda_s, ":", "λ$_s$"),
    )
    for at, style, label in marks:
        right.axvline(at, color="0.4", linestyle=style)
        right.text(at, 0.6, label + " ", transform=right.get_xaxis_transform(), ha="right")
    right.set_xscale("log")
    right.set_xlabel("λ")
    right.set_ylabel("w, margin, factor w(1 − h*²)")
    right.set_ylim(bottom=0)
    legend_above(right)
    title_above(right, f"(b) at the minimum of (1 − h$_T$)² + λw², T = {LATCH_STEPS[-1]}")
    rr.plotting.save(fig, config.out / "latch", close=True)


if __name__ == "__main__":
    run(main, Config, PRESETS)
