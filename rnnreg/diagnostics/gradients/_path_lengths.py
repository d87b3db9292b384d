"""The gradient of a weight matrix split by how many steps back it comes from."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_count, is_count
from rnnreg._linalg import marked, safe_divide, safe_norm
from rnnreg._signatures import typed
from rnnreg._tree import is_learned_start, leaf_paths, with_leaves
from rnnreg.data import Batch
from rnnreg.diagnostics.gradients._backward import (
    Steps,
    as_loss,
    check_network,
    one_step,
    seeds_of,
    steps_of,
    why_not_forwards,
)
from rnnreg.losses import Loss
from rnnreg.networks import Network

Params = dict[str, Any]

_MOST_LAGS = 50  # of a loss at each step, whose cost is steps times lags


class PathLengths(NamedTuple):
    """∂L/∂W by lag.

    Attributes:
      lags: `[K]`, ℓ = 0 … K−1.
      norms: `[K]`, ‖G_ℓ‖.
      shares: `[K]`, ⟨G_ℓ, G⟩/‖G‖², which sum to 1 with `rest_share`; one may be negative.
      rest_norm: the norm of what comes from lags ≥ K, together; 0 where K = T.
      rest_share: its share.
      gradients: `[K, …]`, the evidence: G_ℓ, like the weights.
      rest: what comes from lags ≥ K.
    """

    lags: Array
    norms: Array
    shares: Array
    rest_norm: Array
    rest_share: Array
    gradients: Array
    rest: Array


class GradientSignal(NamedTuple):
    """How far batches agree on the gradient of each lag.

    Attributes:
      lags: `[K]`.
      snr: `[K]`, signal over noise, ‖E G_ℓ‖ / √E‖G_ℓ − E G_ℓ‖² of one batch, without the share of the noise in the
        mean; 0 where the noise explains all of it.
      cosine: `[K]`, the mean cosine between the G_ℓ of two batches.
      norms: `[N, K]`, the evidence: ‖G_ℓ‖ of each batch.
    """

    lags: Array
    snr: Array
    cosine: Array
    norms: Array


@typed
def path_lengths(
    net: Network,
    loss: Loss,
    params: Params,
    batch: Batch,
    *,
    path: str = "layer_0/W_hh",
    max_lag: int | None = None,
) -> PathLengths:
    """G_ℓ = Σ_τ ∂L_τ/∂W through the use of W at step τ−ℓ alone, so that Σ_ℓ G_ℓ = G = ∂L/∂W.

    G_0 is what a loss says about the very step that it is taken at; large ℓ is what teaches a network to remember.
    With a readout at the last step all lags come from one backward pass. With a loss at each step every τ has a
    gradient of its own on its way back, K of them at a time, and the cost is T·K steps back: by default K ends
    at 50 lags, and all longer ones go on together as the `rest`. `max_lag=T-1` takes all, at a cost of T².

    How to read it: `norms` says how large the parts are, `shares` how much each contributes to the step that is taken:
    parts may be large and cancel. A share that is concentrated at small ℓ is a network that learns from the recent
    past alone, whatever its memory; a rest that is not small asks for a larger `max_lag`. Norms have the range of the
    dtype (in float32 down to 1e-38); how fast gradients vanish beyond it is what `gradient_flow` measures.

    Args:
      net: the network, neither bidirectional nor with `truncate`.
      loss: the data loss of the batch, with its mask and weights.
      params: its parameters.
      batch: B examples.
      path: the leaf, such as "layer_0/W_hh".
      max_lag: K − 1; None is T − 1, and at most 49 with a readout at each step.

    Returns:
      The norm and the share of each lag, the parts themselves, and what remains beyond the last lag.

    Raises:
      ValueError: no network or one without a single way back, a batch whose parts do not fit together, an unknown path
        or that of a learned start, which enters once and not at every step, or a lag outside the sequence.

    Source: the sum over paths of Pascanu, Mikolov & Bengio 2013, equations 3–5, sorted by length.

    >>> import rnnreg as rr
    >>> net, loss = rr.network([rr.cells.elman(2)], 1, readout="last"), rr.losses.squared_error()
    >>> params, batch = net.init(jax.random.key(0), 1), rr.Batch(jnp.ones((4, 6, 1)), jnp.ones((4, 1)))
    >>> parts = path_lengths(net, loss, params, batch, max_lag=3)
    >>> parts.gradients.shape, round(float(parts.shares.sum() + parts.rest_share), 4)
    ((4, 2, 2), 1.0)
    """
    check_network(net, "path_lengths")
    loss = as_loss(loss, batch, "path_lengths")
    num_steps = batch.xs.shape[1]
    _check(net, params, path, max_lag, num_steps)
    most = num_steps if net.readout == "last" else min(num_steps, _MOST_LAGS)
    num_lags = most if max_lag is None else max_lag + 1
    if net.readout == "last":
        batch = _end_together(batch)
    steps, outputs, _ = steps_of(net, params, batch)
    seeds = jax.grad(lambda outputs: loss(outputs, batch.ys, batch.mask, batch.weights))(outputs)

    def pullback_of(step):
        """From cotangents of a step's state and output to those of the state before it, and of the weights."""

        def run(before, weights):
            replaced = with_leaves(params, {path: weights})
            return one_step(net, replaced, step._replace(before=before))

        return jax.vjp(run, step.before, leaf_paths(params)[path])[1]

    split = _split_last if net.readout == "last" else _split_all
    parts = split(pullback_of, steps, seeds_of(net, seeds, num_steps), num_lags)
    gradients, rest = parts[:num_lags], parts[num_lags]
    total = parts.sum(axis=0)
    shares, none = _shares(parts, total), ~(jnp.max(jnp.abs(total)) > 0)
    norms = safe_norm(parts.reshape(num_lags + 1, -1))
    return PathLengths(
        jnp.arange(num_lags),
        norms[:num_lags],
        marked(none, shares[:num_lags]),
        norms[num_lags],
        marked(none, shares[num_lags]),
        gradients,
        rest,
    )


@typed
def gradient_signal(
    net: Network,
    loss: Loss,
    params: Params,
    batch: Batch,
    *,
    num_batches: int,
    path: str = "layer_0/W_hh",
    max_lag: int | None = None,
) -> GradientSignal:
    """Signal-to-noise ratio and cosine of G_ℓ = the part of ∂L/∂W from ℓ steps back, across batches.

    How to read it: the gradient of a long lag may be small and still be worth having, if batches agree on it; it is
    lost when its cosine is 0, where an optimiser that rescales it rescales noise. An SNR of 1 means that averaging
    n batches leaves an error of 1/√n of the signal.

    Args:
      net: the network, as for `path_lengths`.
      loss: the data loss.
      params: its parameters.
      batch: N·b examples, of which each b in a row make a batch.
      num_batches: N, at least 2.
      path: the leaf.
      max_lag: as for `path_lengths`.

    Returns:
      The signal-to-noise ratio and the cosine at each lag, and the norms behind them.

    Raises:
      ValueError: a number of batches that does not divide the rows, or what `path_lengths` refuses.

    >>> import rnnreg as rr
    >>> net, loss = rr.network([rr.cells.elman(2)], 1, readout="last"), rr.losses.squared_error()
    >>> params, batch = net.init(jax.random.key(0), 1), rr.Batch(jnp.ones((4, 3, 1)), jnp.ones((4, 1)))
    >>> signal = gradient_signal(net, loss, params, batch, num_batches=2)
    >>> signal.cosine.round(3).tolist()  # equal batches; no state before the first step
    [1.0, 1.0, nan]
    """
    check_network(net, "gradient_signal")
    loss = as_loss(loss, batch, "gradient_signal")
    num_rows = batch.xs.shape[0]
    if not is_count(num_batches, least=2) or num_rows % num_batches:
        raise ValueError(
            f"num_batches must be at least 2 and divide the {num_rows} rows; got {num_batches!r}."
        )
    batches = jax.tree.map(
        lambda leaf: jnp.asarray(leaf).reshape(num_batches, -1, *jnp.shape(leaf)[1:]), batch
    )
    parts = jax.vmap(
        lambda batch: path_lengths(net, loss, params, batch, path=path, max_lag=max_lag)
    )(batches)
    vectors = parts.gradients.reshape(*parts.gradients.shape[:2], -1)  # [N, K, number of weights]
    largest = jnp.max(jnp.abs(vectors), axis=(0, 2), keepdims=True)
    vectors = safe_divide(vectors, largest)
    norms = safe_norm(vectors)
    pairs = num_batches * (num_batches - 1)

    def between(vectors):
        """The mean inner product of two different batches."""
        own = jnp.sum(jnp.square(vectors), axis=(0, 2))
        return (jnp.sum(jnp.square(vectors.sum(axis=0)), axis=-1) - own) / pairs

    signal = jnp.maximum(between(vectors), 0)
    noise = jnp.sum(jnp.square(vectors - vectors.mean(axis=0, keepdims=True)), axis=(0, 2))
    noise = noise / (num_batches - 1)
    snr = jnp.sqrt(signal) / jnp.sqrt(jnp.where(noise > 0, noise, 1))
    snr = jnp.where(noise > 0, snr, jnp.inf)  # batches that are all equal
    cosine = between(safe_divide(vectors, norms[..., None]))
    return GradientSignal(
        parts.lags[0],
        marked((noise == 0) & ~(signal > 0), snr),
        marked((norms == 0).any(axis=0), cosine),
        parts.norms,
    )


def _check(net: Network, params: Params, path: str, max_lag: int | None, num_steps: int) -> None:
    reason = why_not_forwards(net)
    if reason is not None:
        raise ValueError(
            f"path lengths follow one way back through time, which this network does not have: {reason}."
        )
    if path not in leaf_paths(params):
        raise ValueError(f"path {path!r} is not in the parameters: {list(leaf_paths(params))}.")
    if is_learned_start(path):
        raise ValueError(
            f"{path!r} is a learned start, which enters once, before the first step, and not at every step: it has no "
            "parts by lag."
        )
    if max_lag is not None:
        check_count(max_lag, "max_lag", least=0, most=num_steps - 1, hint="None is the longest.")


def _split_last(pullback_of: Any, steps: Steps, seeds: Array, num_lags: int) -> Array:
    """G_0 … G_{K−1} and the rest, `[K + 1, …]`, where all losses are at the last step."""

    def body(after, inputs):
        step, seed = inputs
        return pullback_of(step)((after, seed))

    first = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), steps.before)
    _, by_step = jax.lax.scan(body, first, (steps, seeds), reverse=True)
    by_lag = by_step[::-1]
    return jnp.concatenate([by_lag[:num_lags], by_lag[num_lags:].sum(axis=0, keepdims=True)])


def _split_all(pullback_of: Any, steps: Steps, seeds: Array, num_lags: int) -> Array:
    """G_0 … G_{K−1} and the rest, `[K + 1, …]`, where each step has a loss.

    After step t the carry holds ∂L_{t+ℓ}/∂state_t at place ℓ, and at the last place those of all lags ≥ K together;
    place 0 is empty until step t's own loss comes in. A step back moves every place on by one.
    """

    def body(carry, inputs):
        after, sums = carry
        step, seed = inputs
        own = jnp.zeros((num_lags + 1, *seed.shape), seed.dtype).at[0].set(seed)
        before, parts = jax.vmap(pullback_of(step))((after, own))
        return (jax.tree.map(moved_on, before), sums + parts), None

    def moved_on(leaf):
        last = leaf[num_lags - 1] + leaf[num_lags]
        return jnp.concatenate([jnp.zeros_like(leaf[:1]), leaf[: num_lags - 1], last[None]])

    def empty(leaf):
        return jnp.zeros((num_lags + 1, *leaf.shape[1:]), leaf.dtype)

    weights = jax.eval_shape(
        lambda step, seed: pullback_of(step)((step.before, seed))[1],
        *jax.tree.map(lambda leaf: leaf[0], (steps, seeds)),
    )
    sums = jnp.zeros((num_lags + 1, *weights.shape), weights.dtype)
    carry = (jax.tree.map(empty, steps.before), sums)
    (_, sums), _ = jax.lax.scan(body, carry, (steps, seeds), reverse=True)
    return sums


def _end_together(batch: Batch) -> Batch:
    """The batch with its padding before the true steps, so that the last true step is the last; nothing else changes.

    A masked step holds the state, so padding may stand on either side.
    """
    if batch.mask is None:
        return batch
    num_steps = batch.xs.shape[1]
    mask = jnp.asarray(batch.mask)
    shift = jnp.argmax(mask[:, ::-1] > 0, axis=1)
    places = (jnp.arange(num_steps)[None] - shift[:, None]) % num_steps

    def rolled(leaf):
        index = places.reshape(*places.shape, *[1] * (leaf.ndim - 2))
        return jnp.take_along_axis(leaf, index, axis=1)

    return batch._replace(xs=rolled(jnp.asarray(batch.xs)), mask=rolled(mask))


def _shares(parts: Array, total: Array) -> Array:
    """⟨G_ℓ, G⟩/‖G‖², scaled so that squares do not underflow."""
    largest = jnp.max(jnp.abs(total))
    unit = safe_divide(total, largest).reshape(-1)
    along = safe_divide(parts, largest).reshape(len(parts), -1) @ unit
    return safe_divide(along, jnp.sum(jnp.square(unit)))
