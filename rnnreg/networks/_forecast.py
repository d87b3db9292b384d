"""A network that feeds on its own outputs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count
from rnnreg.networks._records import Network, Params


def forecast(
    net: Network,
    params: Params,
    xs: Array,
    num_steps: int,
    *,
    window: int | None = None,
    state: dict[str, Any] | None = None,
) -> Array:
    """The network's own outputs fed back as inputs, `num_steps` ahead of the given sequence.

    Args:
      net: a network whose output at the last step is the next input (O = D).
      params: its parameters.
      xs: `[B, T, D]`, the true past.
      num_steps: how far to go.
      window: None carries the state on from step to step; W reads the last W values afresh before
        each step, as a network that was trained on windows of W steps expects.
      state: the state before `xs`; not with a window, which always starts afresh.

    Returns:
      `[B, num_steps, D]`.

    Raises:
      ValueError: O ≠ D, a window longer than `xs`, a window and a state, or a bidirectional network
        without a window.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(4)], output_size=1, readout="last")
    >>> params = net.init(jax.random.key(0), input_size=1)
    >>> forecast(net, params, jnp.ones((2, 6, 1)), num_steps=3, window=6).shape
    (2, 3, 1)
    """
    if net.output_size != xs.shape[-1]:
        raise ValueError(
            f"a forecast feeds outputs back as inputs, so output_size must equal the number of input "
            f"features {xs.shape[-1]}; got {net.output_size}."
        )
    if window is None and any(entry.bidirectional for entry in net.layers):
        raise ValueError("a bidirectional network cannot carry its state on; give window=T.")
    if window is not None and state is not None:
        raise ValueError(
            "a window is read afresh before each step: give window or state, not both."
        )
    if window is not None:
        check_count(window, "window", most=xs.shape[1], hint="xs has no more steps.")

    def last(outputs):
        return outputs if net.readout == "last" else outputs[:, -1]

    if window is not None:

        def slide(past, _):
            value = last(net.apply(params, past).outputs)
            return jnp.concatenate([past[:, 1:], value[:, None]], axis=1), value

        _, values = jax.lax.scan(slide, xs[:, xs.shape[1] - window :], length=num_steps)
        return jnp.swapaxes(values, 0, 1)

    first = net.apply(params, xs, state=state)

    def advance(carry, _):
        value, carried = carry
        out = net.apply(params, value[:, None], state=carried)
        return (last(out.outputs), out.final_state), value

    start = (last(first.outputs), first.final_state)
    _, values = jax.lax.scan(advance, start, length=num_steps)
    return jnp.swapaxes(values, 0, 1)
