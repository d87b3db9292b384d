"""The program: its data, its training, and its run beside Keras from the same weights and batches."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments._harness import Options
from experiments.keras_gru.peer import keras_adam, keras_program


@dataclasses.dataclass(frozen=True)
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
    """The program as a user runs it: loss of each epoch, and that of a constant, the mean of the training targets."""
    training, validation = make_data(config)
    constant = jnp.mean(jnp.square(validation.ys - jnp.mean(training.ys, axis=(0, 1))))
    hyper = {"l2": config.l2, "learning_rate": config.learning_rate}
    train = jax.jit(program(config, dropout=config.dropout))
    run = train(hyper, rr.Split(training, validation), key=jax.random.key(config.seed))
    losses = {name: run.history[name].tolist() for name in ("train_loss", "val_loss", "penalty_l2")}
    return {"predict_the_mean": float(constant), **losses, "diverged_at": int(run.diverged_at)}


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
            {"outputs": jax.jit(net.apply)(state.params, first.xs).outputs}, {"outputs": peer.outputs(first.xs)}
        ),
        "gradients": largest_difference(jax.jit(jax.grad(total))(state.params), peer.gradients(first.xs, first.ys)),
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
    root = Path(__file__).resolve().parents[2]
    code = f"from {__name__} import print_side_by_side; print_side_by_side({epochs})"
    text = json.dumps(dataclasses.asdict(config) | {"out": str(config.out)})
    environment = os.environ | {
        "JAX_ENABLE_X64": str(int(x64)),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "KERAS_BACKEND": "jax",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, cwd=root, env=environment, capture_output=True, text=True
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


def relative_differences(theirs: list[float], ours: list[float]) -> list[float]:
    """|a − b| / |b| of each pair."""
    return [abs(b - a) / abs(a) for a, b in zip(theirs, ours, strict=True)]
