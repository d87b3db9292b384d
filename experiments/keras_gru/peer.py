"""Keras on its JAX backend: in a chosen precision, its Adam as an optax transformation, and one program in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rnnreg import convert


def keras_at(dtype: Any) -> ModuleType:
    """Keras with the JAX backend, its layers and its results in `dtype`.

    On every backend but TensorFlow, Keras' promotion rules bring a float64 result down to float32
    (`BIT64_TO_BIT32_DTYPE`; keras-team/keras pull request 21604 leaves a switch as a to-do), so
    `set_floatx` alone gives float32 products of float64 weights. One entry of that table is set
    here; no formula of Keras is touched.

    Args:
      dtype: float32 or float64; the latter needs JAX_ENABLE_X64=1.

    Raises:
      ImportError: Keras is not installed.
      RuntimeError: Keras runs on another backend, or this version promotes by another rule.
    """
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        raise RuntimeError(f"Keras runs on {keras.backend.backend()!r}; set KERAS_BACKEND=jax before it is imported.")
    name = np.dtype(dtype).name
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)
    if name == "float64":
        from keras.src.backend.common import dtypes

        getattr(dtypes, "BIT64_TO_BIT32_DTYPE", {})["float64"] = "float64"
        if keras.backend.result_type("float64", "float64") != "float64":
            raise RuntimeError(
                f"Keras {keras.__version__} turns float64 into float32 by a rule that is not known here; "
                "compare in float32."
            )
    return keras


class KerasAdamState(NamedTuple):
    """What Keras' Adam carries.

    Attributes:
      count: updates done.
      momentum: running mean of the gradient.
      velocity: running mean of its square.
    """

    count: Any
    momentum: Any
    velocity: Any


def keras_adam(
    learning_rate: Any, *, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """w ← w − α √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε), as `keras.optimizers.Adam` has it.

    The paper's formula (section 2, last paragraph; Kingma & Ba 2015) with ε outside the bias
    correction: as t grows it is optax's, but in the first steps ε weighs 1/√(1 − β₂ᵗ) times as much
    as the `eps` of `optax.adam`, which is added after the correction.

    Source: keras/src/optimizers/adam.py, `update_step`.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return KerasAdamState(jnp.int32(0), zeros, zeros)

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        momentum = jax.tree.map(lambda m, g: m + (g - m) * (1 - beta_1), state.momentum, updates)
        velocity = jax.tree.map(lambda v, g: v + (jnp.square(g) - v) * (1 - beta_2), state.velocity, updates)

        def step(m, v):
            t = count.astype(m.dtype)
            one = jnp.ones((), m.dtype)
            correction = jnp.sqrt(1 - (beta_2 * one) ** t) / (1 - (beta_1 * one) ** t)
            return -(m * (learning_rate * correction)) / (jnp.sqrt(v) + epsilon)

        return jax.tree.map(step, momentum, velocity), KerasAdamState(count, momentum, velocity)

    return optax.GradientTransformation(init, update)


class KerasProgram(NamedTuple):
    """The program in Keras, on given weights.

    Attributes:
      outputs: `outputs(tokens) -> [B, T, O]`.
      gradients: `gradients(tokens, targets) -> params`, of the mean squared error and the L2 term.
      fit: `fit(tokens, targets, orders) -> [E]`, the loss of each epoch over the given order of
        rows.
    """

    outputs: Callable[..., np.ndarray]
    gradients: Callable[..., dict[str, Any]]
    fit: Callable[..., list[float]]


def keras_program(
    params: dict[str, Any], *, num_steps: int, num_layers: int, l2: float, learning_rate: float, batch_size: int
) -> KerasProgram:
    """Embedding → the same GRU `num_layers` times → Dense in Keras, with the weights of `params`."""
    keras = keras_at(params["readout"]["W_hy"].dtype)
    num_tokens, hidden_size = params["embedding"]["W_embed"].shape
    gru = keras.layers.GRU(
        hidden_size,
        return_sequences=True,
        recurrent_initializer="glorot_uniform",
        recurrent_activation="tanh",
        reset_after=True,
        kernel_regularizer=keras.regularizers.L2(l2),
    )
    tokens = keras.Input((num_steps,), dtype="int32")
    hidden = keras.layers.Embedding(num_tokens, hidden_size)(tokens)
    for _ in range(num_layers):
        hidden = gru(hidden)
    outputs = keras.layers.Dense(params["readout"]["W_hy"].shape[-1])(hidden)
    model = keras.Model(tokens, outputs)
    model.set_weights(
        [
            np.asarray(params["embedding"]["W_embed"]),
            *convert.to_keras(params["layer_0"], "gru"),
            np.asarray(params["readout"]["W_hy"]),
            np.asarray(params["readout"]["b_y"]),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=keras.losses.MeanSquaredError())

    def gradients(tokens, targets):
        rest = [variable.value for variable in model.non_trainable_variables]

        def total(weights):
            outputs, _, penalties = model.stateless_call(weights, rest, tokens, return_losses=True)
            return keras.losses.MeanSquaredError()(targets, outputs) + sum(penalties)

        made = jax.jit(jax.grad(total))([variable.value for variable in model.trainable_variables])
        W_embed, kernel, recurrent_kernel, bias, W_hy, b_y = (np.asarray(leaf) for leaf in made)
        return {
            "embedding": {"W_embed": W_embed},
            "layer_0": convert.from_keras([kernel, recurrent_kernel, bias], "gru"),
            "readout": {"W_hy": W_hy, "b_y": b_y},
        }

    def fit(tokens, targets, orders):
        losses = []
        for order in orders:
            history = model.fit(
                tokens[order], targets[order], batch_size=batch_size, epochs=1, shuffle=False, verbose=0
            )
            losses.append(float(history.history["loss"][0]))
        return losses

    return KerasProgram(lambda tokens: np.asarray(model(tokens)), gradients, fit)
