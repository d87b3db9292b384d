"""Tokens drawn from a network's own predictions, one after another."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_count, check_key
from rnnreg._signatures import Number, Numbers, typed
from rnnreg.networks._records import Network, Params
from rnnreg.networks._stack import Stack, num_tokens
from rnnreg.networks._states import check_states


@typed
def sample(
    net: Network,
    params: Params,
    prompt: Numbers,
    num_steps: int,
    *,
    key: Array,
    temperature: Number = 1.0,
) -> Array:
    """Tokens x_{t+1} ~ softmax(y_t / temperature), each fed back as the next input, after a given beginning.

    The state is carried on from step to step. Put `jax.jit` around it, with `num_steps` static, if you sample often.

    Args:
      net: a network of tokens: `embedding=(V, size)`, `output_size=V`, trained on `ys` that are `xs` one step ahead.
      params: its parameters.
      prompt: `[B, T]` integer tokens from 0 to V − 1; or `[T]`, one sequence.
      num_steps: how many tokens to draw.
      key: of the draws.
      temperature: 1 draws from the predicted probabilities; below 1 the likely tokens become likelier; 0 takes the
        likeliest. It may be traced.

    Returns:
      The tokens drawn, `[B, num_steps]` or `[num_steps]`, int32, without the prompt.

    Raises:
      ValueError: no network of tokens, a prompt that is none, a token that it does not have, or a bad temperature.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.gru(8)], output_size=5, embedding=(5, 3))
    >>> params = net.init(jax.random.key(0))
    >>> sample(net, params, [0, 1, 2], 6, key=jax.random.key(1), temperature=0.5).shape
    (6,)

    From a text to a text; the batch is what `rr.make_train` learns from, with `rr.losses.softmax_cross_entropy()`:

    >>> letters, tokens = np.unique(list("banana bandana"), return_inverse=True)
    >>> batch, _ = rr.data.windows(tokens, window=6, targets="all")
    >>> batch = rr.Batch(*(tokens[..., 0].astype(int) for tokens in batch[:2]))
    >>> net = rr.network([rr.cells.gru(8)], output_size=len(letters), embedding=(len(letters), 3))
    >>> params = net.init(jax.random.key(0))
    >>> drawn = sample(net, params, batch.xs[0], 4, key=jax.random.key(1))
    >>> len("".join(letters[drawn]))
    4
    """
    check_count(num_steps, "num_steps")
    check_key(key)
    if isinstance(net.apply, Stack) and net.apply.embedding is None:
        raise ValueError(
            "sample draws tokens, and this network reads real numbers: it goes on with rr.forecast, or give "
            "rr.network(..., embedding=(V, size))."
        )
    tokens = prompt if isinstance(prompt, Array) else np.asarray(prompt)
    _check_tokens(tokens, temperature)
    rows = jnp.asarray(tokens).astype(jnp.int32).reshape(-1, tokens.shape[-1])
    first = net.apply(params, rows)
    check_states(first.final_state)
    _check_network(net, tokens, first.outputs.shape[-1])

    def draw(outputs, key):
        logits = outputs if net.readout == "last" else outputs[:, -1]
        heat = jnp.asarray(temperature, logits.dtype)
        likeliest = jnp.argmax(logits, axis=-1)
        drawn = jax.random.categorical(key, logits / jnp.where(heat > 0, heat, 1), axis=-1)
        return jnp.where(heat > 0, drawn, likeliest).astype(jnp.int32)

    def step(carry, key):
        outputs, state = carry
        token = draw(outputs, key)
        out = net.apply(params, token[:, None], state=state)
        return (out.outputs, out.final_state), token

    start = (first.outputs[:, -1:] if net.readout == "all" else first.outputs, first.final_state)
    _, drawn = jax.lax.scan(step, start, jax.random.split(key, num_steps))
    return drawn.T if tokens.ndim == 2 else drawn[:, 0]


def _check_tokens(tokens: Any, temperature: Any) -> None:
    whole = jnp.issubdtype(tokens.dtype, jnp.integer)
    if tokens.ndim not in (1, 2) or 0 in tokens.shape or not whole:
        raise ValueError(
            f"prompt must be integer tokens [B, T] or [T], with at least one step; got shape {tokens.shape} of "
            f"{tokens.dtype}."
        )
    if not isinstance(temperature, jax.core.Tracer) and not 0 <= temperature < np.inf:
        raise ValueError(f"temperature must be a finite number of at least 0; got {temperature!r}.")


def _check_network(net: Network, tokens: Any, num_outputs: int) -> None:
    own = num_tokens(net)
    if own is not None and own != num_outputs:
        raise ValueError(
            "sample feeds tokens back as inputs, so the network needs embedding=(V, size) and output_size=V; got an "
            f"embedding of {own} tokens and {num_outputs} outputs."
        )
    if any(entry.bidirectional for entry in net.layers):
        raise ValueError("a bidirectional network cannot carry its state on, so it cannot sample.")
    if isinstance(tokens, jax.core.Tracer):
        return
    low, high = int(np.min(tokens)), int(np.max(tokens))
    if low < 0 or high >= num_outputs:
        raise ValueError(
            f"prompt must hold tokens from 0 to {num_outputs - 1}; got {low} to {high}."
        )
