"""Gradient flossing (Engelken 2023): Lyapunov exponents pushed to 0 before and during training on a delayed XOR.

A tanh network with a Gaussian start of gain 1 contracts almost every direction of its state, so that gradients vanish
across a delay. Flossing alone, R = mean_k λ_k² through a differentiable QR, brings the exponents to 0: how much smaller
do they get, how much better conditioned is the product of Jacobians ∂h_T/∂h_0? Then the network is trained on y_t =
x_{t−d} ⊕ x_{t−2d}, from its start, from its flossed start, and with flossing every so many updates beside. Numbers are
those of the author's code at N = 32 instead of 80, with k the same share of N. His state is the pre-activation of ours;
the exponents of both are the same.
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
from experiments._harness import Claim, Options, Report, mean_and_error, paired, plus_minus, run, text_table
from rnnreg.plotting import COLORS

ENGELKEN = "Engelken 2023"
WAYS = ("no flossing", "flossed before", "flossed before and during")
NO_LOSS = rr.losses.sigmoid_cross_entropy("mean")


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of gradient flossing."""

    hidden_size: int = 32
    """N."""
    num_exponents: int = 30
    """k: the author floss 75 of 80."""
    gain: float = 1.0
    """g of the Gaussian start of W_hh."""
    delays: tuple[int, ...] = (5, 10, 15)
    """d."""
    num_steps: int = 100
    """T of a training sequence."""
    floss_steps: int = 55
    """T of a flossing sequence, of which the first 16 are not counted."""
    floss_updates: int = 500
    """Updates of flossing alone, before training and each time during it."""
    floss_every: int = 2000
    """Updates of training between two times of flossing."""
    floss_times: int = 2
    """How often it is flossed during training."""
    num_updates: int = 10_000
    """Updates of training."""
    batch_size: int = 16
    """Rows of an update; flossing takes one."""
    learning_rate: float = 1e-3
    """Of Adam, in training and flossing."""
    clip: float = 0.03
    """Largest norm of a gradient in training."""
    seeds: int = 12
    """Networks of each."""
    test_rows: int = 500
    """Fresh sequences of the accuracy."""
    measured_steps: int = 1000
    """T of the exponents that are reported."""


PRESETS = {
    "quick": {
        "hidden_size": 12,
        "num_exponents": 8,
        "delays": (2,),
        "num_steps": 20,
        "floss_updates": 40,
        "floss_every": 100,
        "floss_times": 1,
        "num_updates": 200,
        "seeds": 2,
        "test_rows": 100,
        "measured_steps": 200,
    },
    "full": {},
}


class Found(NamedTuple):
    """What one way did, leaves `[seed, …]`.

    Attributes:
      accuracy: of fresh sequences after training.
      losses: of the training batches, `[seed, update]`.
    """

    accuracy: np.ndarray
    losses: np.ndarray


def delayed_xor(key: Any, num_rows: int, num_steps: int, delay: int) -> rr.Batch:
    """y_t = x_{t−d} ⊕ x_{t−2d} of random bits; steps before 2d are read and not scored."""
    bits = jax.random.bernoulli(key, 0.5, (num_rows, num_steps + 2 * delay))
    now = bits[:, 2 * delay :]
    ys = bits[:, delay:-delay] ^ bits[:, : -2 * delay]
    scored = jnp.broadcast_to(jnp.arange(num_steps) >= 2 * delay, ys.shape)
    xs, ys, weights = (array.astype(jnp.float32) for array in (now[..., None], ys[..., None], scored))
    return rr.Batch(xs, ys, weights=weights)


def network(config: Config) -> rr.Network:
    """Tanh units with a Gaussian start, and one logit."""
    start = rr.cells.gaussian(config.gain)
    return rr.network([rr.cells.elman(config.hidden_size, recurrent_init=start, input_init="gaussian")], 1)


def start_of(net: rr.Network, key: Any) -> dict[str, Any]:
    """Parameters at the start; as the author's, biases are uniform on [0, .1]."""
    params = net.init(key, 1)
    bias = 0.1 * jax.random.uniform(jax.random.fold_in(key, 1), params["layer_0"]["b_h"].shape)
    return rr.with_leaves(params, {"layer_0/b_h": bias})


def flossed(net: rr.Network, config: Config, params: Any, delay: int, key: Any) -> tuple[Any, Any]:
    """Parameters after flossing alone, one fresh sequence an update, and R before each `[update]`."""
    penalty = rr.penalties.gradient_flossing(config.num_exponents, discard=16)
    objective = rr.make_objective(net, NO_LOSS, {"floss": penalty})
    optimizer = optax.adam(config.learning_rate)

    def value(params, batch):
        _, (parts, _) = objective(params, {"floss": 1.0}, batch, {"floss": ()}, key=None, train=True)
        return parts.penalties["floss"]

    def update(carry, key):
        params, state = carry
        batch = delayed_xor(key, 1, config.floss_steps, delay)
        found, gradient = jax.value_and_grad(value)(params, batch)
        changes, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, changes), state), found

    keys = jax.random.split(key, config.floss_updates)
    (params, _), values = jax.lax.scan(update, (params, optimizer.init(params)), keys)
    return params, values


def trained(net: rr.Network, config: Config, params: Any, delay: int, key: Any, *, during: bool) -> tuple[Any, Any]:
    """Parameters after training on the task, and the loss of each batch; `during` flosses anew at equal distances."""
    train = rr.make_train(
        net,
        loss=NO_LOSS,
        optimizer=optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(config.learning_rate)),
        num_epochs=1,
    )
    key_rows, key_floss = jax.random.split(key)
    state = train.init({}, delayed_xor(key, 2, config.num_steps, delay), key=key, params=params)

    def update(state, _):
        batch = delayed_xor(jax.random.fold_in(key_rows, state.step), config.batch_size, config.num_steps, delay)
        state, info = train.update(state, {}, batch)
        return state, info.data_loss

    losses, left = [], config.num_updates
    for number in range(config.floss_times if during else 0):
        state, found = jax.lax.scan(update, state, length=config.floss_every)
        again, _ = flossed(net, config, state.params, delay, jax.random.fold_in(key_floss, number))
        state, left = state._replace(params=again), left - config.floss_every
        losses.append(found)
    state, found = jax.lax.scan(update, state, length=left)
    return state.params, jnp.concatenate([*losses, found])


def accuracy(net: rr.Network, config: Config, params: Any, delay: int, key: Any) -> Any:
    """The share of right answers at the scored steps of fresh sequences."""
    batch = delayed_xor(key, config.test_rows, config.num_steps, delay)
    right = (net.apply(params, batch.xs).outputs > 0) == (batch.ys > 0)
    return jnp.sum(right[..., 0] * batch.weights) / jnp.sum(batch.weights)


def exponents(net: rr.Network, config: Config, params: Any, key: Any) -> Any:
    """All N exponents along a long random sequence, `[N]`; those from the k-th on are not flossed."""
    xs = jax.random.bernoulli(key, 0.5, (1, config.measured_steps, 1)).astype(jnp.float32)
    cell = net.layers[0].cell
    found = rr.diagnostics.lyapunov(cell, params["layer_0"], xs)
    return found.exponents[0]


def measure(config: Config) -> tuple[dict[str, np.ndarray], dict[int, dict[str, Found]]]:
    """The exponents before and after flossing, R on the way; and by delay and way, what training came to."""
    net = network(config)
    seeds = {"seed": np.arange(config.seeds, dtype=np.uint32)}

    def spectra(lane, _):
        key, *keys = jax.random.split(jax.random.fold_in(jax.random.key(0), lane["seed"]), 3)
        params = start_of(net, key)
        after, values = flossed(net, config, params, max(config.delays), keys[0])
        return {
            "before": exponents(net, config, params, keys[1]),
            "after": exponents(net, config, after, keys[1]),
            "values": values,
        }

    def lane_of(delay, way):
        def train_one(lane, _):
            key, *keys = jax.random.split(jax.random.fold_in(jax.random.key(0), lane["seed"]), 4)
            params = start_of(net, key)
            if way != WAYS[0]:
                params, _ = flossed(net, config, params, delay, keys[0])
            params, losses = trained(net, config, params, delay, keys[1], during=way == WAYS[2])
            return Found(accuracy(net, config, params, delay, keys[2]), losses)

        return rr.lanes.map_lanes(train_one, seeds, hidden_size=config.hidden_size)

    found = rr.lanes.map_lanes(spectra, seeds, hidden_size=config.hidden_size)
    return found, {delay: {way: lane_of(delay, way) for way in WAYS} for delay in config.delays}


def main(config: Config) -> Report:
    """Flosses, measures exponents, trains with and without."""
    rr.use_all_cores()
    spectra, found = measure(config)
    k = config.num_exponents
    before, after = (np.abs(spectra[name][:, :k]).mean(axis=1) for name in ("before", "after"))
    widths = {
        name: {num: np.ptp(spectra[name][:, :num], axis=1) for num in (k, config.hidden_size)}
        for name in ("before", "after")
    }
    rows = [
        (f"d = {delay}", way, plus_minus(*mean_and_error(one.accuracy)), f"{one.losses[:, -50:].mean():.4f}")
        for delay, by_way in found.items()
        for way, one in by_way.items()
    ]
    text = (
        f"mean |λ_k| of {k}: {plus_minus(*mean_and_error(before))} before, "
        f"{plus_minus(*mean_and_error(after))} after {config.floss_updates} updates of flossing\n"
        + "".join(
            f"λ_1 − λ_{num}: {plus_minus(*mean_and_error(width))} before, "
            f"{plus_minus(*mean_and_error(widths['after'][num]))} after\n"
            for num, width in widths["before"].items()
        )
        + "\n"
        + text_table(("delay", "way", "accuracy ± SE", "loss of the last 50 batches"), rows)
    )
    accuracies = {delay: {way: one.accuracy for way, one in by_way.items()} for delay, by_way in found.items()}
    summary = {"mean_abs": {"before": before, "after": after}, "rows": rows, "accuracy": accuracies}
    return Report(
        summary, claims_of(config, before, after, widths, found), text, {"flossing": draw(config, spectra, found)}
    )


def claims_of(config: Config, before: Any, after: Any, widths: Any, found: Any) -> list[Claim]:
    """What the paper says of exponents, conditioning and accuracy."""
    difficult = [delay for delay in config.delays if delay >= 10] or list(config.delays)

    def accuracy(way):
        """By seed, over the difficult delays."""
        return np.mean([found[delay][way].accuracy for delay in difficult], axis=0)

    compared = paired([(accuracy(way), accuracy(WAYS[0])) for way in WAYS[1:]])
    return [
        Claim("mean |λ_k|: the start over the flossed start", f"{ENGELKEN}; the factor is expected here").at_least(
            10.0, before.mean() / after.mean()
        ),
        *(
            Claim(f"λ_1 − λ_{num}, of {of}: the start over the flossed start", source).at_least(
                1.0, widths["before"][num].mean() / widths["after"][num].mean()
            )
            for num, of, source in (
                (config.num_exponents, "what is flossed", "expected here"),
                (config.hidden_size, "all: ln κ a step", f"{ENGELKEN}: flossing improves the condition"),
            )
        ),
        *(
            Claim(f"accuracy at d ≥ {min(difficult)}: {way} is better than {WAYS[0]}", ENGELKEN).shown(one)
            for way, one in zip(WAYS[1:], compared, strict=True)
        ),
        Claim(f"accuracy at d = {min(config.delays)}, {WAYS[2]}", "expected here").at_least(
            0.9, found[min(config.delays)][WAYS[2]].accuracy.mean()
        ),
    ]


def draw(config: Config, spectra: dict[str, np.ndarray], found: dict[int, dict[str, Found]]) -> Figure:
    """R on the way, the spectra, and the accuracy against the delay."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.3))
    updates = np.arange(config.floss_updates)
    left.plot(updates, spectra["values"].T, color=COLORS.blue, linewidth=0.6, alpha=0.6)
    left.set_yscale("log")
    left.set_xlabel("update of flossing")
    left.set_ylabel("mean λ$_k$² (nats² a step)")
    left.set_title(f"(a) flossing, {config.seeds} networks", loc="left")
    order = 1 + np.arange(config.hidden_size)
    for name, color in (("before", COLORS.vermillion), ("after", COLORS.blue)):
        values = np.sort(spectra[name], axis=1)[:, ::-1]
        middle.plot(order, values.mean(axis=0), color=color, label=f"{name} flossing")
        middle.fill_between(order, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)
    middle.axhline(0, color="0.6", linewidth=0.8)
    middle.axvline(config.num_exponents, color="0.6", linewidth=0.8, linestyle=":", label="flossed up to here")
    middle.set_xlabel("k")
    middle.set_ylabel("λ$_k$ (nats a step)")
    middle.set_title("(b) Lyapunov spectra: mean and range", loc="left")
    middle.legend()
    for way, color, marker in zip(WAYS, (COLORS.vermillion, COLORS.blue, COLORS.green), "os^", strict=True):
        means, errors = zip(*(mean_and_error(found[delay][way].accuracy) for delay in config.delays), strict=True)
        right.errorbar(config.delays, means, yerr=errors, color=color, marker=marker, label=way)
    right.axhline(0.5, color="0.6", linewidth=0.8)
    right.set_xlabel("delay d")
    right.set_ylabel("accuracy ± SE")
    right.set_xticks(config.delays)
    right.set_title("(c) delayed XOR", loc="left")
    right.set_ylim(0.45, 1.02)
    right.legend(loc="lower left", bbox_to_anchor=(0, 0.1))
    return figure


if __name__ == "__main__":
    run(main, Config, PRESETS)
