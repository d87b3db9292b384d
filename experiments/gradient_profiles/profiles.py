"""Profiles of gradients back through time, and what the forget gates alone let through."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, standard_error
from rnnreg.cells import LSTMState
from rnnreg.plotting import COLORS

PAPER = "expected here, after Arjovsky, Shah & Bengio 2016, Fig. 4"
CHRONO = "Tallec & Ollivier 2018"
PATH_STEPS = 100
SLOWER = (  # at that moment, the first keeps more gradient than the second
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
)
PATHS = (7.9e-31, 2.5e-14, 0.366)  # σ(b_f)^100, to the digits that are quoted


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


def measure(cell: Any, task: Any, config: Any, key: Any) -> Profiles:
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

    log_whole, log_last, loss = map(np.asarray, jax.jit(jax.vmap(run))(jax.random.split(key_runs, config.seeds)))
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


def trained(net: Any, task: Any, params: Any, config: Any, key: Any) -> Any:
    """After so many updates of RMSProp (rate 1e-3, decay .9, no ε, elementwise clipping at 1), each on fresh rows."""
    optimizer = optax.chain(optax.clip(1.0), optax.rmsprop(1e-3, decay=0.9, eps=0.0, initial_scale=1e-3))

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


def claims(slopes, paths) -> list[Claim]:
    """Orders of decay rates, each as a difference that must be positive by two standard errors; the exact paths."""
    differences = {
        pair: slopes[pair[1]][pair[0]] - slopes[pair[2]][pair[0]] for pair in SLOWER if {*pair[1:]} <= set(slopes)
    }
    return [
        Claim(
            f"{moment}: {slow} keeps more than {fast} (difference of d ln r/dℓ, less 2 SE)",
            CHRONO if "chrono" in slow else PAPER,
        ).at_least(0.0, found.mean() - 2 * standard_error(found))
        for (moment, slow, fast), found in differences.items()
    ] + [
        Claim(f"∏ f over {PATH_STEPS} steps, {name}", "σ(b_f)^100, derived here").close(
            expected, path, tolerance=0.01 * expected
        )
        for expected, (name, path) in zip(PATHS, paths.items(), strict=True)
    ]


def figure(config: Any, task: Any, found, paths) -> Figure:
    """Whole loss and last step's loss, at the start and after training; the forget gates alone beside the latter."""
    names = list(cells(1, task.num_steps))
    looks = dict(zip(names, [*zip(COLORS, "-----", strict=False), *((c, "--") for c in COLORS)], strict=False))
    titles = {"start": "at the start", "trained": f"after {config.num_updates} updates"}
    fig, axes = plt.subplots(2, 2, figsize=(9.2, 6.2), sharex=True, sharey="row")
    for column, (moment, title) in enumerate(titles.items()):
        for name, profile in found.items():
            label = name.replace("b_f", "b$_f$")
            for ax, kind in zip(axes[:, column], (profile.whole, profile.last), strict=True):
                _draw(ax, kind[moment], task.num_steps, *looks[name], label)
        for row, (letters, loss) in enumerate((("ab", "whole loss"), ("cd", "last step's loss"))):
            axes[row, column].set_title(f"({letters[column]}) {loss}, {title}", loc="left")
        axes[1, column].set_xlabel("step t")
    for ax in axes.flat:
        ax.set_yscale("log")
        for first in (0, task.num_steps - 10):
            ax.axvspan(first, first + 9, color="0.92", linewidth=0, zorder=0)
    for name, path in paths.items():
        color, _ = looks[name.partition(", slowest")[0]]
        axes[1, 0].plot(task.num_steps - 1 - PATH_STEPS, path, "s", color=color, markersize=5)
    axes[0, 0].set_ylabel("‖∂C/∂h$_t$‖, whole loss")
    axes[1, 0].set_ylabel("‖∂L$_{last}$/∂h$_t$‖ over its last value")
    axes[1, 0].set_ylim(1e-33, 10)
    about = (
        f"copy memory, T = {config.delay}: geometric mean of {config.seeds} seeds, bands ± 1 SE; "
        "grey: symbols shown, recalled\n"
        f"squares in (c): forget gates alone, {PATH_STEPS} steps (chrono: slowest unit)"
    )
    shown = axes[0, 0].get_legend_handles_labels()
    fig.legend(*shown, loc="outside upper center", ncols=4, title=about)
    return fig


def _draw(ax: Any, curves: np.ndarray, num_steps: int, color: str, line: str, label: str) -> None:
    """The geometric mean of the seeds, and ± 1 standard error."""
    steps = num_steps - 1 - np.arange(curves.shape[1])
    logs = np.log(np.where(curves > 0, curves, np.nan))
    middle = np.nanmean(logs, axis=0)
    error = np.nanstd(logs, axis=0, ddof=1) / np.sqrt(len(logs))
    ax.plot(steps, np.exp(middle), linestyle=line, color=color, label=label)
    ends = np.exp(middle - error), np.exp(middle + error)
    ax.fill_between(steps, *ends, color=color, alpha=0.15, linewidth=0)
