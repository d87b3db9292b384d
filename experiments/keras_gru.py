"""A GRU program of Keras on rnnreg: trained, and beside Keras itself from the same weights and batches.

Embedding(num_tokens, H) → dropout → the *same* GRU layer (tanh gates, reset after, two biases,
Glorot-uniform recurrent weights, L2 on its input kernel) applied `num_layers` times, with dropout
after each → Dense; mean squared error, Adam. Inputs are tokens, targets a leaky sum of the tokens'
values which one token resets.

Without Keras (`pip install -e '.[peers]'`) the comparison is reported as not measured.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments._harness import Claim, Options, run, text_table
from experiments._keras import keras_adam, keras_program

NAME = "keras_gru"


@dataclass(frozen=True)
class Config(Options):
    """The program, its data, and where the results go."""

    hidden_size: int = 128
    """Units of the embedding and of the GRU."""
    num_layers: int = 2
    """How many times the one GRU layer is applied."""
    dropout: float = 0.1
    """Rate after the embedding and after each application; off beside Keras."""
    l2: float = 1e-3
    """λ of Σw² over the GRU's input kernel."""
    learning_rate: float = 1e-3
    """Adam's α."""
    batch_size: int = 32
    """Rows an update; must divide num_rows."""
    num_epochs: int = 10
    """Passes over the training rows."""
    num_rows: int = 2048
    """Training rows."""
    num_validation_rows: int = 512
    """Validation rows."""
    num_steps: int = 24
    """Tokens in a row, T."""
    num_tokens: int = 32
    """Size of the vocabulary."""
    output_size: int = 2
    """Targets at each step, O."""
    seed: int = 0
    """Of the data, the weights, the batches and the dropout masks."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {"hidden_size": 32, "num_rows": 512, "num_validation_rows": 128, "num_steps": 12},
}


def make_data(config: Config) -> tuple[rr.Batch, rr.Batch]:
    """Training and validation rows: tokens `[N, T]` and targets `[N, T, O]`.

    y_t = 0.8 y_{t−1} + u(x_t) + noise, and token 0 sets y to u(0).

    The values u(x) are drawn once, so the network must learn a table, a memory that fades and a
    reset. Targets have about unit variance, a hundredth of which is noise.
    """
    rng = np.random.default_rng(config.seed)
    memory = 0.8
    values = rng.normal(size=(config.num_tokens, config.output_size)) * np.sqrt(1 - memory**2)

    def rows(count):
        tokens = rng.integers(config.num_tokens, size=(count, config.num_steps), dtype=np.int32)
        targets, state = [], np.zeros((count, config.output_size))
        for step in range(config.num_steps):
            kept = memory * (tokens[:, step] != 0)[:, None]
            state = kept * state + values[tokens[:, step]]
            targets.append(state)
        targets = np.stack(targets, axis=1)
        noisy = targets + 0.1 * rng.normal(size=targets.shape)
        return rr.Batch(jnp.asarray(tokens), jnp.asarray(noisy, jnp.result_type(float)))

    return rows(config.num_rows), rows(config.num_validation_rows)


def predict_the_mean(train: rr.Batch, validation: rr.Batch) -> float:
    """The validation loss of a constant: the mean of the training targets, output by output."""
    return float(jnp.mean(jnp.square(validation.ys - jnp.mean(train.ys, axis=(0, 1)))))


def program(config: Config, *, dropout: float, optimizer=optax.adam) -> rr.Train:
    """The program as a run; `hyper` holds `l2` and `learning_rate`."""
    cell = rr.cells.gru(
        config.hidden_size,
        reset="after",
        recurrent_bias=True,
        gate_activation=jnp.tanh,
        # Keras draws W_hh [H, 3H] as one matrix; ours is drawn gate by gate, wider by √2
        recurrent_init=rr.cells.glorot_uniform(gain=2**-0.5),
    )
    net = rr.network(
        [rr.layer(cell, repeat=config.num_layers)],
        config.output_size,
        embedding=(config.num_tokens, config.hidden_size),
        input_dropout=dropout,
        dropout=dropout,
        output_dropout=dropout,
    )
    return rr.make_train(
        net,
        loss=rr.losses.squared_error("mean"),
        penalties={"l2": rr.penalties.l2("layer_0/W_xh")},
        optimizer=lambda hyper: optimizer(hyper["learning_rate"]),
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        record_every=1,
    )


def train_program(config: Config) -> dict[str, Any]:
    """The program as a user runs it: loss of each epoch, beside the loss of predicting the mean."""
    training, validation = make_data(config)
    hyper = {"l2": config.l2, "learning_rate": config.learning_rate}
    train = jax.jit(program(config, dropout=config.dropout))
    run = train(hyper, rr.Split(training, validation), key=jax.random.key(config.seed))
    return {
        "predict_the_mean": predict_the_mean(training, validation),
        "train_loss": run.history["train_loss"].tolist(),
        "val_loss": run.history["val_loss"].tolist(),
        "penalty_l2": run.history["penalty_l2"].tolist(),
        "diverged_at": int(run.diverged_at),
    }


def side_by_side(config: Config, *, epochs: bool = True) -> dict[str, Any]:
    """rnnreg and Keras without dropout, from the same weights, over the same batches in the same order.

    In the precision in force. Differences are the largest over all elements, relative to the
    largest element of their array.

    Args:
      config: of the program.
      epochs: train both; without, only outputs and gradients at the first weights are compared.

    Raises:
      ImportError: Keras is not installed.
    """
    data, _ = make_data(config)
    hyper = {"l2": config.l2, "learning_rate": config.learning_rate}
    ours = program(config, dropout=0.0, optimizer=keras_adam)
    state = ours.init(hyper, data, key=jax.random.key(config.seed))
    peer = keras_program(
        state.params,
        num_steps=config.num_steps,
        num_layers=config.num_layers,
        l2=config.l2,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
    )

    first = jax.tree.map(lambda rows: rows[: config.batch_size], data)
    net, settings = ours.network(hyper), ours.settings
    objective = rr.make_objective(net, settings.loss, settings.penalties)

    def total(params):
        return objective(params, hyper, first, state.penalty_state, key=None, train=False)[0]

    found: dict[str, Any] = {
        "outputs": largest_difference(
            {"outputs": jax.jit(net.apply)(state.params, first.xs).outputs},
            {"outputs": peer.outputs(first.xs)},
        ),
        "gradients": largest_difference(
            jax.jit(jax.grad(total))(state.params), peer.gradients(first.xs, first.ys)
        ),
    }
    if epochs:
        rng = np.random.default_rng(config.seed)
        orders = np.stack([rng.permutation(config.num_rows) for _ in range(config.num_epochs)])
        found["losses"] = {
            "keras": peer.fit(np.asarray(data.xs), np.asarray(data.ys), orders),
            "rnnreg": losses_over(ours, config, data, orders),
            "rnnreg_optax_adam": losses_over(program(config, dropout=0.0), config, data, orders),
        }
    return found


def losses_over(train: rr.Train, config: Config, data: rr.Batch, orders: np.ndarray) -> list[float]:
    """Mean over the batches of each epoch of the total loss before each update, as Keras' history has it."""
    hyper = {"l2": config.l2, "learning_rate": config.learning_rate}
    batches = jnp.asarray(orders).reshape(len(orders), -1, config.batch_size)

    def step(state, rows):
        state, info = train.update(state, hyper, rr.Batch(data.xs[rows], data.ys[rows]))
        return state, info.total

    def epoch(state, batches):
        state, totals = jax.lax.scan(step, state, batches)
        return state, jnp.mean(totals)

    state = train.init(hyper, data, key=jax.random.key(config.seed))
    return jax.jit(lambda state: jax.lax.scan(epoch, state, batches)[1])(state).tolist()


def largest_difference(ours: Any, theirs: Any) -> float:
    """max |a − b| / max |b| of each leaf; the largest of them."""

    def relative(a, b):
        a, b = np.asarray(a), np.asarray(b)
        return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))

    return max(jax.tree.leaves(jax.tree.map(relative, ours, theirs)))


def side_by_side_apart(config: Config, *, x64: bool, epochs: bool) -> dict[str, Any]:
    """`side_by_side` in a process of its own, since precision is chosen once a process, in both libraries."""
    root = Path(__file__).resolve().parents[1]
    code = f"from experiments.{NAME} import print_side_by_side; print_side_by_side({epochs})"
    text = json.dumps(dataclasses.asdict(config) | {"out": str(config.out)})
    environment = os.environ | {
        "JAX_ENABLE_X64": str(int(x64)),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "KERAS_BACKEND": "jax",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=text,
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the comparison with Keras failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def print_side_by_side(epochs: bool) -> None:
    """What the process of `side_by_side_apart` runs: the configuration as JSON in, the differences out."""
    rr.compilation_cache()
    fields = json.loads(sys.stdin.read())
    print(json.dumps(side_by_side(Config(**fields | {"out": Path(fields["out"])}), epochs=epochs)))


def keras_version() -> str | None:
    """The installed Keras; None without one."""
    try:
        return metadata.version("keras")
    except metadata.PackageNotFoundError:
        return None


def make_claims(
    config: Config,
    trained: dict[str, Any],
    float32: dict[str, Any],
    float64: dict[str, Any],
    *,
    source: str,
) -> list[Claim]:
    """The claims; `float32` and `float64` are empty where Keras is missing."""
    epochs = f"loss of each of {config.num_epochs} epochs, float64, relative difference"
    losses = float64.get("losses")
    worst = losses and max(relative_differences(losses["keras"], losses["rnnreg"]))
    return [
        Claim.at_most(
            "validation loss / that of predicting the mean",
            0.5,
            trained["val_loss"][-1] / trained["predict_the_mean"],
            source="the data can be learnt",
        ),
        *(
            Claim.at_most(
                f"{what}, {dtype}, largest difference", bound, found.get(what), source=source
            )
            for dtype, bound, found in (("float32", 1e-5, float32), ("float64", 1e-10, float64))
            for what in ("outputs", "gradients")
        ),
        Claim.at_most(epochs, 1e-6, worst, source=source),
    ]


def relative_differences(theirs: list[float], ours: list[float]) -> list[float]:
    """|a − b| / |b| of each pair."""
    return [abs(b - a) / abs(a) for a, b in zip(theirs, ours, strict=True)]


def plot(trained: dict[str, Any], losses: dict[str, Any] | None, out: Path) -> None:
    """Loss curves: the program's own training, and beside Keras with their relative difference."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 3 if losses else 1, figsize=(11 if losses else 4, 3.2), squeeze=False
    )
    own, *rest = axes[0]
    epochs = np.arange(1, len(trained["train_loss"]) + 1)
    own.plot(epochs, trained["train_loss"], color="C0", label="training")
    own.plot(epochs, trained["val_loss"], color="C1", label="validation")
    own.axhline(trained["predict_the_mean"], color="0.5", linestyle=":", label="predict the mean")
    own.set(title="rnnreg, dropout on", xlabel="epoch", ylabel="mean squared error", yscale="log")
    own.legend(frameon=False)
    if losses:
        both, apart = rest
        both.plot(epochs, losses["keras"], color="C2", linewidth=4, alpha=0.4, label="Keras")
        both.plot(epochs, losses["rnnreg"], "k.", label="rnnreg, Keras' Adam")
        both.set(
            title="dropout off, same batches", xlabel="epoch", ylabel="loss + λ‖W‖²", yscale="log"
        )
        both.legend(frameon=False)
        for name, style, label in (
            ("rnnreg", "k.-", "Keras' Adam"),
            ("rnnreg_optax_adam", "C3.-", "optax.adam"),
        ):
            apart_by = relative_differences(losses["keras"], losses[name])
            apart.plot(
                epochs, np.maximum(apart_by, 1e-16), style, label=label
            )  # 0 has no logarithm
        apart.axhline(1e-6, color="0.5", linestyle=":", label="claimed")
        apart.set(title="relative difference from Keras", xlabel="epoch", yscale="log")
        apart.legend(frameon=False)
    figure.tight_layout()
    out.mkdir(parents=True, exist_ok=True)
    for suffix in ("pdf", "png"):
        figure.savefig(out / f"loss_curves.{suffix}", dpi=150)
    plt.close(figure)


def main(config: Config) -> None:
    """Train the program, run it beside Keras, and report."""
    if config.num_rows % config.batch_size:
        raise ValueError(
            f"batch_size must divide num_rows, so that every batch is whole in both libraries; got "
            f"{config.batch_size} and {config.num_rows}."
        )
    rr.compilation_cache()
    print(f"training the program (dropout {config.dropout:g})", flush=True)
    trained = train_program(config)
    rows = [
        (str(epoch + 1), f"{train:.5f}", f"{val:.5f}")
        for epoch, (train, val) in enumerate(
            zip(trained["train_loss"], trained["val_loss"], strict=True)
        )
    ]
    print(text_table(("epoch", "training", "validation"), rows))
    print(f"predicting the mean: {trained['predict_the_mean']:.5f}\n")

    float32: dict[str, Any] = {}
    float64: dict[str, Any] = {}
    version = keras_version()
    if version is None:
        print(
            "Keras is not installed (pip install -e '.[peers]'): the comparison is not measured.\n"
        )
    else:
        print("beside Keras (dropout off, same weights, same batches)", flush=True)
        float32 = side_by_side_apart(config, x64=False, epochs=False)
        float64 = side_by_side_apart(config, x64=True, epochs=True)
        print(losses_table(float64["losses"]) + "\n")

    losses = float64.get("losses")
    plot(trained, losses, config.out)
    source = "Keras" if version is None else f"Keras {version}"
    claims = make_claims(config, trained, float32, float64, source=source)
    print(claims_table(claims))
    summary = {
        "config": config,
        "program": trained,
        "beside_keras": losses and {"float32": float32, "float64": float64},
    }
    print(f"\n{write_summary(config.out, summary, claims)}")


def losses_table(losses: dict[str, Any]) -> str:
    """Both loss curves, epoch by epoch, and the one that `optax.adam` gives."""
    rows = [
        (
            str(epoch + 1),
            f"{keras:.12f}",
            f"{ours:.12f}",
            f"{abs(ours - keras) / keras:.1e}",
            f"{other:.12f}",
        )
        for epoch, (keras, ours, other) in enumerate(
            zip(losses["keras"], losses["rnnreg"], losses["rnnreg_optax_adam"], strict=True)
        )
    ]
    header = ("epoch", "Keras", "rnnreg, Keras' Adam", "difference", "rnnreg, optax.adam")
    return text_table(header, rows)


if __name__ == "__main__":
    run(main, Config, PRESETS)
