"""The Keras program, as a command."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments._harness import Claim, Report, run, text_table
from experiments.keras_gru import program
from experiments.keras_gru.program import Config, relative_differences
from rnnreg.plotting import COLORS, log_y

PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {"hidden_size": 32, "num_rows": 512, "num_validation_rows": 128, "num_steps": 12},
}


def main(config: Config) -> Report:
    """Trains the program, and runs it beside Keras."""
    if config.num_rows % config.batch_size:
        raise ValueError(
            f"batch_size must divide num_rows, so that every batch is whole in both libraries; got "
            f"{config.batch_size} and {config.num_rows}."
        )
    trained = program.train_program(config)
    columns = (trained["train_loss"], trained["val_loss"])
    rows = [
        (str(epoch), f"{train:.5f}", f"{val:.5f}") for epoch, (train, val) in enumerate(zip(*columns, strict=True), 1)
    ]
    text = [
        f"the program (dropout {config.dropout:g})",
        text_table(("epoch", "training", "validation"), rows),
        f"predicting the mean: {trained['predict_the_mean']:.5f}\n",
    ]
    float32: dict[str, Any] = {}
    float64: dict[str, Any] = {}
    version = program.keras_version()
    if version is None:
        text.append("Keras is not installed (pip install -e '.[peers]'): nothing is compared.")
    else:
        float32 = program.side_by_side_apart(config, x64=False, epochs=False)
        float64 = program.side_by_side_apart(config, x64=True, epochs=True)
        text.append("beside Keras (dropout off, same weights, same batches)")
        text.append(losses_table(float64["losses"]))
    losses = float64.get("losses")
    source = "Keras" if version is None else f"Keras {version}"
    return Report(
        {"program": trained, "beside_keras": losses and {"float32": float32, "float64": float64}},
        make_claims(config, trained, float32, float64, source=source),
        "\n".join(text),
        {"loss_curves": figure(trained, losses)},
    )


def make_claims(
    config: Config, trained: dict[str, Any], float32: dict[str, Any], float64: dict[str, Any], *, source: str
) -> list[Claim]:
    """The claims; `float32` and `float64` are empty where Keras is missing."""
    epochs = f"loss of each of {config.num_epochs} epochs, float64, relative difference"
    losses = float64.get("losses")
    worst = losses and max(relative_differences(losses["keras"], losses["rnnreg"]))
    return [
        Claim("validation loss / that of predicting the mean", "the data can be learnt").at_most(
            0.5, trained["val_loss"][-1] / trained["predict_the_mean"]
        ),
        *(
            Claim(f"{what}, {dtype}, largest difference", source).at_most(bound, found.get(what))
            for dtype, bound, found in (("float32", 1e-5, float32), ("float64", 1e-10, float64))
            for what in ("outputs", "gradients")
        ),
        Claim(epochs, source).at_most(1e-6, worst),
    ]


def losses_table(losses: dict[str, Any]) -> str:
    """Both loss curves, epoch by epoch, and the one that `optax.adam` gives."""
    keras, ours, other = (losses[name] for name in ("keras", "rnnreg", "rnnreg_optax_adam"))
    apart = relative_differences(keras, ours)
    rows = [
        (str(epoch), f"{a:.12f}", f"{b:.12f}", f"{difference:.1e}", f"{c:.12f}")
        for epoch, (a, b, difference, c) in enumerate(zip(keras, ours, apart, other, strict=True), 1)
    ]
    header = ("epoch", "Keras", "rnnreg, Keras' Adam", "difference", "rnnreg, optax.adam")
    return text_table(header, rows)


def figure(trained: dict[str, Any], losses: dict[str, Any] | None) -> Figure:
    """Loss curves: the program's own training, and beside Keras with their relative difference."""
    count = 3 if losses else 1
    made, axes = plt.subplots(1, count, figsize=(11 if losses else 4, 3.2), squeeze=False)
    own, *rest = axes[0]
    epochs = np.arange(1, len(trained["train_loss"]) + 1)
    own.plot(epochs, trained["train_loss"], label="training")
    own.plot(epochs, trained["val_loss"], label="validation")
    own.axhline(trained["predict_the_mean"], color="0.5", ls=":", label="predict the mean")
    own.set(title="rnnreg, dropout on", ylabel="mean squared error")
    if losses:
        both, apart = rest
        both.plot(epochs, losses["keras"], color=COLORS.green, lw=4, alpha=0.4, label="Keras")
        both.plot(epochs, losses["rnnreg"], "k.", label="rnnreg, Keras' Adam")
        both.set(title="dropout off, same batches", ylabel="loss + λ‖W‖²")
        adams = {"rnnreg": ("black", "Keras' Adam"), "rnnreg_optax_adam": (COLORS.vermillion, "optax.adam")}
        for name, (color, label) in adams.items():
            shown = np.maximum(relative_differences(losses["keras"], losses[name]), 1e-16)
            apart.plot(epochs, shown, ".-", color=color, label=label)  # 0 has no logarithm
        apart.axhline(1e-6, color="0.5", ls=":", label="claimed")
        apart.set(title="relative difference from Keras")
    for ax in axes[0]:
        ax.set_xlabel("epoch")
        log_y(ax)
        ax.legend()
    return made


if __name__ == "__main__":
    run(main, Config, PRESETS)
