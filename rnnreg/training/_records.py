"""What a run carries, tells and produces."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Params = dict[str, Any]


class Best(NamedTuple):
    """The best record so far.

    Attributes:
      params: the parameters then.
      score: the monitored score on the validation rows then.
      step: the number of updates then.
      epoch: the number of epochs then.
    """

    params: Params
    score: Array
    step: Array
    epoch: Array


class TrainState(NamedTuple):
    """What the next update needs.

    Attributes:
      params: parameters.
      opt_state: state of the optimiser.
      penalty_state: state of each penalty, by name.
      key: root of the run's minibatches and dropout masks; never used up, only folded.
      step: updates done.
      epoch: epochs done.
      diverged_at: the step whose loss, gradient or result was not finite; −1 while there is none.
      best: the best record so far, or () where it is not kept.
      stalled: records since the monitored score last improved.
      proximal: what proximal steps remember, or () without them.
    """

    params: Params
    opt_state: Any
    penalty_state: dict[str, Any]
    key: Array
    step: Array
    epoch: Array
    diverged_at: Array
    best: Any
    stalled: Array
    proximal: Any = ()


class TrainInfo(NamedTuple):
    """What a diagnostic wants to know of one update, all before it was applied.

    Attributes:
      total: data loss + Σ λ_k R_k.
      data_loss: L.
      penalties: R_k by name, without its λ.
      gradient_norm: global norm of the gradient of the total; of a proximal penalty, the subgradient of its last prox.
      finite: whether loss, gradient and the new parameters are finite.
      network_state: by layer, the network's state after the last step of the batch; give it to the next
        `update` as `network_state` to go on with the same sequences.
    """

    total: Array
    data_loss: Array
    penalties: dict[str, Array]
    gradient_norm: Array
    finite: Array
    network_state: dict[str, Any]


class Run(NamedTuple):
    """What one run produces.

    Attributes:
      params: final parameters (the best ones with `keep_best`), the pytree that `net.apply` takes.
      history: by name, `[R]` values at the record stride.
      metrics: by name, final values; NaN for a diverged run. With `keep_best` or `patience`, `best_epoch` is the epoch
        of the record with the least validation loss.
      predictions: outputs on the validation rows in the units of the split's arrays; None without any.
      diverged_at: the step at which the run froze, −1 if it did not.
      num_updates: updates done.
    """

    params: Params
    history: dict[str, Array]
    metrics: dict[str, Array]
    predictions: Any
    diverged_at: Array
    num_updates: Array


def note_best(
    state: TrainState, params: Params, score: Array, stopped: Array, *, maximise: bool
) -> TrainState:
    """The state with its best record and its patience brought up to date."""
    better = (score > state.best.score if maximise else score < state.best.score) & ~stopped
    best = select(
        better,
        Best(params, score.astype(state.best.score.dtype), state.step, state.epoch),
        state.best,
    )
    stalled = jnp.where(better, 0, state.stalled + (~stopped).astype(jnp.int32))
    return state._replace(best=best, stalled=stalled)


def select(condition: Array, new: Any, old: Any) -> Any:
    """One tree or the other, as a whole."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
