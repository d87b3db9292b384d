"""What is measured again and again while a network trains."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_count
from rnnreg._signatures import typed
from rnnreg.data import take_rows
from rnnreg.diagnostics.gradients._gradient_flow import check_options, gradient_flow
from rnnreg.losses import Loss
from rnnreg.training import Track


@typed
def track_gradient_flow(
    loss: Loss, *, num_rows: int = 8, step: int | None = -1, wrt: str = "h"
) -> Track:
    """ln r(ℓ) of `gradient_flow` by layer, `[T]` along "lag", on a few of the training rows.

    How to read it: with `rr.plotting.gradient_heat_map` as a map of steps back against epochs. A band that darkens
    upwards is a gradient that vanishes; watch whether training widens it, and what λ does to that.

    It costs a forward and a backward pass of those rows at each record, without gradients of the weights. An update
    of fewer rows than `num_rows` times the records an update is noticeably slowed; then take fewer of either.

    Args:
      loss: the data loss.
      num_rows: how many of the training rows, at equal distances; all where there are fewer.
      step: τ, as in `gradient_flow`.
      wrt: "h" or "state", as in `gradient_flow`.

    Returns:
      A `Track` for `make_train(track=…)`.

    Raises:
      ValueError: `num_rows` that is no count, or a `step` or `wrt` that no network has.

    >>> import jax, optax, rnnreg as rr
    >>> net, loss = rr.network([rr.cells.gru(4)], 1, readout="last"), rr.losses.squared_error()
    >>> train = rr.make_train(net, loss=loss, optimizer=optax.sgd(0.1), num_epochs=6, record_every=2,
    ...     track={"flow": track_gradient_flow(loss)})
    >>> batch = rr.Batch(jnp.ones((8, 5, 1)), jnp.ones((8, 1)))
    >>> run = jax.jit(train)({}, batch, key=jax.random.key(0))
    >>> run.history["flow/layer_0"].shape
    (3, 5)
    """
    check_count(num_rows, "num_rows")
    check_options(step, wrt)

    def log_ratio(net: Any, params: Any, batch: Any) -> dict[str, Array]:
        count = batch.xs.shape[0]
        rows = np.linspace(0, count - 1, min(num_rows, count)).round().astype(int)
        seen = take_rows(batch, jnp.asarray(rows))
        return gradient_flow(net, loss, params, seen, step=step, wrt=wrt).log_ratio

    return Track(log_ratio, ("lag",))
