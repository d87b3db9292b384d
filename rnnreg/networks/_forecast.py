"""A network that feeds on its own outputs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._arrays import as_array
from rnnreg._checks import check_choice, check_count, check_mask
from rnnreg._memory import check_fits
from rnnreg._signatures import typed
from rnnreg.data import Scaling, scale_inputs, unscale_outputs
from rnnreg.networks._records import Network, Params
from rnnreg.networks._stack import num_tokens

UNITS = ("scaled", "original")


@typed
def forecast(
    net: Network,
    params: Params,
    xs: Array,
    num_steps: int,
    *,
    mask: Array | None = None,
    future: Array | None = None,
    window: int | None = None,
    state: dict[str, Any] | None = None,
    scaling: Scaling | None = None,
    inputs: str = "scaled",
    outputs: str = "scaled",
) -> Array:
    """The network's own outputs fed back as inputs, `num_steps` ahead of the given sequence.

    The forecast is a point forecast: each output is taken as if it had been observed. It can be jitted and vmapped.
    A network that takes statistics over the batch (batch normalisation in its training mode) predicts one thing for a
    row in a batch and another for the row alone, here and in `apply`: give it stored averages.

    Args:
      net: a network whose output at the last step is the next value of its first O input features.
      params: its parameters.
      xs: `[B, T, D]`, the true past.
      num_steps: how far to go.
      mask: `[B, T]`, 1 where a step counts; the forecast goes on after the last true step of each row.
      future: `[B, num_steps, D − O]`, the known inputs (a calendar, a price) next to each forecast, in the
        units of the last D − O features of `xs`; None if all inputs are fed back (O = D).
      window: None carries the state on from step to step; W reads the last W steps afresh before
        each step, as a network that was trained on windows of W steps expects.
      state: the state before `xs`; not with a window, which always starts afresh.
      scaling: how inputs and targets were scaled, such as `split.units`: each output is brought from the scale of the
        targets to that of the inputs before it is fed back. None feeds outputs back, and returns them, as they are.
      inputs: what units `xs` and `future` are in: "scaled", as the network sees them, or "original", the data's own,
        which are scaled here.
      outputs: the same of the forecast that is returned.

    Returns:
      `[B, num_steps, O]`.

    Raises:
      ValueError: tokens; sizes that do not add up to D; a mask, future or scaling of another shape; original inputs
        without a scaling; a window longer than `xs`, a window and a state, or a bidirectional network without a window.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(4)], output_size=1, readout="last")
    >>> params = net.init(jax.random.key(0), input_size=1)
    >>> forecast(net, params, jnp.ones((2, 6, 1)), num_steps=3, window=6).shape
    (2, 3, 1)

    With a known input at each step, and in the units of the series:

    >>> series = jnp.stack([jnp.sin(jnp.arange(20.0)) + 300, jnp.arange(20.0) % 7], axis=1)
    >>> batch, _ = rr.data.windows(series, window=6)
    >>> split = rr.data.standardize(batch._replace(ys=batch.ys[:, :1]))
    >>> params = net.init(jax.random.key(0), input_size=2)
    >>> values = forecast(net, params, series[None], 3, window=6, scaling=split.units, inputs="original",
    ...     outputs="original", future=jnp.arange(20.0, 23.0)[None, :, None] % 7)
    >>> values.shape, bool((abs(values - 300) < 5).all())
    ((1, 3, 1), True)
    """
    check_choice(inputs, "inputs", UNITS)
    check_choice(outputs, "outputs", UNITS)
    for name, units in (("inputs", inputs), ("outputs", outputs)):
        if units == "original" and scaling is None:
            raise ValueError(
                f"{name}='original' needs the scaling between them and the network's: scaling=split.units."
            )
    xs = as_array(xs, "xs")
    future = None if future is None else as_array(future, "future").astype(xs.dtype)
    mask = None if mask is None else jnp.asarray(as_array(mask, "mask"))
    _check(
        net, xs, num_steps, mask=mask, future=future, window=window, state=state, scaling=scaling
    )
    needed = 2 * int(num_steps) * xs.shape[0] * xs.shape[2] * xs.dtype.itemsize
    check_fits(needed, f"a forecast of {num_steps} steps", "Go less far, or take fewer rows.")
    if inputs == "original":
        xs, future = scale_inputs(xs, future, scaling)
    xs, future = jnp.asarray(xs), None if future is None else jnp.asarray(future)
    known = jnp.zeros((xs.shape[0], num_steps, 0), xs.dtype) if future is None else future

    def following(outputs, known):
        """The output of the last step, and the input that it becomes."""
        value = outputs[:, -1] if net.readout == "all" else outputs
        return value, jnp.concatenate([_as_inputs(value, scaling), known], axis=-1)

    if window is None:
        values = _carried(net, params, xs, known, following, mask=mask, state=state)
    else:
        values = _slid(net, params, xs, known, following, mask=mask, window=window)
    values = jnp.swapaxes(values, 0, 1)
    return unscale_outputs(values, scaling) if outputs == "original" else values


def _carried(
    net: Network, params: Params, xs: Array, known: Array, following: Any, *, mask: Any, state: Any
) -> Array:
    """`[num_steps, B, O]`, the state carried on from step to step."""
    first = net.apply(params, xs, mask=mask, state=state)

    def advance(carry, known):
        outputs, carried = carry
        value, inputs = following(outputs, known)
        out = net.apply(params, inputs[:, None], state=carried)
        return (out.outputs, out.final_state), value

    # the carry has one shape: of a readout at each step, the last one
    outputs = first.outputs if net.readout == "last" else first.outputs[:, -1:]
    start = (outputs, first.final_state)
    return jax.lax.scan(advance, start, jnp.swapaxes(known, 0, 1))[1]


def _slid(
    net: Network, params: Params, xs: Array, known: Array, following: Any, *, mask: Any, window: int
) -> Array:
    """`[num_steps, B, O]`, the last steps read afresh before each."""
    if mask is not None:  # the last true step of every row becomes the last of all
        back = jnp.argmax(mask[:, ::-1] > 0, axis=1)
        places = (jnp.arange(xs.shape[1])[None, :] - back[:, None]) % xs.shape[1]
        xs = jnp.take_along_axis(xs, places[..., None], axis=1)
        mask = jnp.take_along_axis(mask, places, axis=1)[:, -window:]

    def slide(past, known):
        xs, mask = past
        value, inputs = following(net.apply(params, xs, mask=mask).outputs, known)
        xs = jnp.concatenate([xs[:, 1:], inputs[:, None]], axis=1)
        if mask is not None:
            mask = jnp.concatenate([mask[:, 1:], jnp.ones_like(mask[:, :1])], axis=1)
        return (xs, mask), value

    return jax.lax.scan(slide, (xs[:, -window:], mask), jnp.swapaxes(known, 0, 1))[1]


def _as_inputs(value: Array, scaling: Scaling | None) -> Array:
    """An output on the scale of the inputs: targets and inputs are scaled each by their own moments."""
    if scaling is None:
        return value
    num_outputs = value.shape[-1]
    shift, scale = (
        jnp.asarray(part, value.dtype)[:num_outputs] for part in (scaling.x_shift, scaling.x_scale)
    )
    return (unscale_outputs(value, scaling) - shift) / scale


def _check(
    net: Network,
    xs: Array,
    num_steps: int,
    *,
    mask: Any,
    future: Any,
    window: int | None,
    state: Any,
    scaling: Scaling | None,
) -> None:
    """Raises if the parts of a forecast do not fit together."""
    whole = jnp.issubdtype(xs.dtype, jnp.integer)
    if num_tokens(net) is not None or whole or xs.ndim != 3:
        cure = "One sequence: xs[None]."
        cure = (
            "Counts that are features: xs.astype(np.float32)." if whole and xs.ndim == 3 else cure
        )
        cure = (
            "A network of tokens goes on with rr.sample." if num_tokens(net) is not None else cure
        )
        raise ValueError(
            f"a forecast feeds real numbers back, so xs must be [B, T, D] real numbers; got shape {xs.shape} of "
            f"{xs.dtype}. {cure}"
        )
    check_count(num_steps, "num_steps")
    num_rows, past_steps, num_features = xs.shape
    num_known = 0
    if future is not None:
        wanted = (num_rows, num_steps, num_features - (net.output_size or 0))
        if future.shape != wanted:
            raise ValueError(
                f"future must be [B, num_steps, D − O] = {wanted}, the known inputs next to each forecast; got "
                f"{future.shape}. The outputs are the first features of xs, the known ones the last."
            )
        num_known = future.shape[-1]
    if net.output_size != num_features - num_known:
        raise ValueError(
            f"a forecast feeds outputs back as inputs, so output_size must equal the number of input "
            f"features {num_features}; got {net.output_size}. Inputs that are known beforehand go last in xs, and into "
            "future=[B, num_steps, D − O]."
        )
    if mask is not None:
        check_mask(mask, (num_rows, past_steps))
        if not isinstance(mask, jax.core.Tracer) and not (np.asarray(mask) > 0).any(axis=1).all():
            raise ValueError(
                "a row has no true step to go on from: its mask is 0 at every step. 1 marks a step that counts."
            )
    if window is None and not all(entry.forwards for entry in net.layers):
        raise ValueError("a network that reads backwards cannot carry its state on; give window=T.")
    if window is not None and state is not None:
        raise ValueError(
            "a window is read afresh before each step: give window or state, not both."
        )
    if window is not None:
        check_count(window, "window", most=past_steps, hint="xs has no more steps.")
    if scaling is not None:
        sizes = tuple(len(part) for part in scaling)
        wanted = (num_features,) * 2 + (net.output_size,) * 2
        if sizes != wanted:
            raise ValueError(
                f"scaling must hold shift and scale of {num_features} inputs and {net.output_size} outputs, such as "
                f"split.units; got {sizes} entries."
            )
