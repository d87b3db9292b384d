"""Loss and scores of given parameters on given rows, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rnnreg._checks import check_count, described
from rnnreg._signatures import typed
from rnnreg.data import Batch, Scaling, check_batch, check_tokens, scale_batch, unscale_outputs
from rnnreg.losses import Loss, Metric, check_targets
from rnnreg.metrics._base import as_function
from rnnreg.networks import Network, num_tokens


@typed
def evaluate(
    net: Network,
    params: dict[str, Any],
    data: Batch | Mapping[str, Batch],
    *,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    scaling: Scaling | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Loss and metrics of a network's outputs on a batch, without dropout, in the units of the batch.

    All rows are scored together, so R² and perplexity are those of the whole batch. `batch_size` bounds the memory of
    the states and changes no score.

    Args:
      net: the network.
      params: its parameters, such as `run.params` or `result.params_at(...)`.
      data: the rows; or batches by name, such as `split.test`.
      loss: the data loss, which is returned as "loss".
      metrics: further scores by name.
      scaling: how the network sees the rows, the `scaling` of the split that it was trained on; None: as they are.
      batch_size: rows that run through the network at a time; None takes all.

    Returns:
      Scores by name, which `jax.jit` may wrap; of several batches, one such dict for each by name.

    Raises:
      ValueError: nothing to score, no batch, or targets that do not fit.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(4)], 2, readout="last")
    >>> batch = rr.Batch(jnp.ones((6, 3, 1)), jnp.array([0, 1, 1, 0, 1, 1]))
    >>> params = net.init(jax.random.key(0), input_size=1)
    >>> scores = evaluate(net, params, batch, loss=rr.losses.softmax_cross_entropy(),
    ...                   metrics={"accuracy": rr.metrics.accuracy()})
    >>> sorted(scores), round(float(scores["accuracy"]), 3) in (0.333, 0.667)
    (['accuracy', 'loss'], True)
    """
    if not isinstance(net, Network):
        raise ValueError(f"evaluate(net, params, data) takes a network; got {described(net)}.")
    if isinstance(data, Mapping):
        return {
            name: evaluate(
                net,
                params,
                batch,
                loss=loss,
                metrics=metrics,
                scaling=scaling,
                batch_size=batch_size,
            )
            for name, batch in data.items()
        }
    functions = {} if loss is None else {"loss": as_function(loss, "the loss", loss=True)}
    for name, given in (metrics or {}).items():
        functions[name] = as_function(given, f"metrics[{name!r}]")
    if not functions:
        raise ValueError("evaluate needs loss=…, metrics={name: …}, or both; neither was given.")
    check_batch(data, name="data")
    check_tokens(data, num_tokens(net), name="data")
    seen = scale_batch(data, scaling)
    outputs = _outputs(net, params, seen, batch_size)
    for function in functions.values():
        check_targets(function, data, outputs.shape[-1], name="data")
    outputs = unscale_outputs(outputs, scaling)
    ys, mask, weights = (None if leaf is None else jnp.asarray(leaf) for leaf in data[1:])
    return {name: function(outputs, ys, mask, weights) for name, function in functions.items()}


def _outputs(net: Network, params: dict[str, Any], batch: Batch, batch_size: int | None) -> Any:
    if batch_size is None:
        return net.apply(params, batch.xs, mask=batch.mask).outputs
    check_count(batch_size, "batch_size")

    def of_row(row):
        xs, mask = row
        return net.apply(params, xs[None], mask=None if mask is None else mask[None]).outputs[0]

    rows = jax.tree.map(jnp.asarray, (batch.xs, batch.mask))
    return jax.lax.map(of_row, rows, batch_size=int(batch_size))
