"""The Keras program at a tiny size: rnnreg and Keras from the same weights, over the same batches."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import require, tolerance

from experiments._harness import carry_out
from experiments.keras_gru import __main__ as command
from experiments.keras_gru import program
from experiments.keras_gru.peer import keras_adam

TINY = program.Config(
    hidden_size=5,
    num_rows=24,
    num_validation_rows=6,
    num_steps=4,
    num_tokens=7,
    batch_size=6,
    num_epochs=3,
)


@pytest.mark.slow
@pytest.mark.numerics
def test_outputs_gradients_and_the_loss_of_each_epoch_equal_keras():
    require("keras")
    found = program.side_by_side(TINY)
    bound = tolerance()["rtol"]
    assert found["outputs"] < bound
    assert found["gradients"] < bound
    losses = found["losses"]
    np.testing.assert_allclose(losses["rnnreg"], losses["keras"], rtol=bound)


@pytest.mark.slow
def test_the_experiment_measures_in_both_precisions(tmp_path):
    require("keras")
    config = dataclasses.replace(TINY, out=tmp_path / "out", learning_rate=0.01)
    float64 = program.side_by_side_apart(config, x64=True, epochs=True)
    losses = float64["losses"]
    assert float64["outputs"] < 1e-10
    assert float64["gradients"] < 1e-10
    np.testing.assert_allclose(losses["rnnreg"], losses["keras"], rtol=1e-10)
    # the comparison sees another formula: optax.adam has its eps inside the bias correction
    assert not np.allclose(losses["rnnreg_optax_adam"], losses["keras"], rtol=1e-6, atol=0)


@pytest.mark.slow
def test_without_keras_the_claims_are_not_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "keras_version", lambda: None)
    carry_out(command.main, dataclasses.replace(TINY, out=tmp_path))
    assert "Keras is not installed" in capsys.readouterr().out
    claims = json.loads((tmp_path / "summary.json").read_text())["claims"]
    of_keras = [claim for claim in claims if claim["source"] == "Keras"]
    assert len(of_keras) == 5
    assert all(claim["measured"] is None and claim["holds"] is None for claim in of_keras)
    assert (tmp_path / "loss_curves.png").exists()


def test_one_step_of_keras_adam_by_hand():
    """From zero, m = (1 − β₁) g and v = (1 − β₂) g²: the step is α√(1−β₂) g / (√(1−β₂)|g| + ε)."""
    gradient = {"w": jnp.array([3.0, -1e-6, 0.0])}
    adam = keras_adam(0.1)
    updates, _ = adam.update(gradient, adam.init(gradient))
    g = np.array([3.0, -1e-6, 0.0])
    root = np.sqrt(1 - 0.999)
    expected = -0.1 * root * g / (root * np.abs(g) + 1e-7)
    # float32's 1 − 0.999 is good to 5 digits
    np.testing.assert_allclose(updates["w"], expected, **tolerance(loosen=10))
    other, _ = optax.adam(0.1).update(gradient, optax.adam(0.1).init(gradient))
    assert not np.allclose(other["w"][1], expected[1], rtol=0.1)


def test_the_targets_can_be_predicted_from_the_tokens():
    """The rule of the generator, applied to its tokens, leaves the noise alone."""
    config = program.Config(num_rows=64, num_validation_rows=8)
    data, _ = program.make_data(config)
    again, _ = program.make_data(config)
    np.testing.assert_array_equal(data.xs, again.xs)
    np.testing.assert_array_equal(data.ys, again.ys)
    tokens, ys = np.asarray(data.xs), np.asarray(data.ys, float)
    design = np.zeros((*tokens.shape, config.num_tokens))
    state = np.zeros((len(tokens), config.num_tokens))
    for step in range(config.num_steps):
        state = (
            0.8 * (tokens[:, step] != 0)[:, None] * state
            + np.eye(config.num_tokens)[tokens[:, step]]
        )
        design[:, step] = state
    design, targets = design.reshape(-1, config.num_tokens), ys.reshape(-1, config.output_size)
    residual = targets - design @ np.linalg.lstsq(design, targets, rcond=None)[0]
    assert residual.std() == pytest.approx(0.1, rel=0.1)
    assert targets.std() > 0.5
