"""How the gradient of the loss shrinks or grows on its way back through time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice, is_count
from rnnreg._linalg import marked, masked_mean, mean_and_error, safe_norm
from rnnreg._signatures import typed
from rnnreg.cells import Cell, HiddenState, from_step
from rnnreg.data import Batch, per_row
from rnnreg.diagnostics._rows import check_network_apart
from rnnreg.diagnostics._slopes import steady, unfused
from rnnreg.diagnostics.dynamics._system import System, dynamics_of
from rnnreg.diagnostics.gradients._backward import (
    as_loss,
    check_network,
    log_state_gradients,
    seeds_of,
    why_not_by_layer,
)
from rnnreg.losses import DataLoss, Loss
from rnnreg.networks import Network, Stack, check_fits, network
from rnnreg.objective import zero_perturbations
from rnnreg.runtime import Kept, may_compile, weakly

Params = dict[str, Any]
_PROGRAMS = Kept()


class GradientFlow(NamedTuple):
    """Gradient norms against steps back ℓ.

    Attributes:
      lags: `[T]`, ℓ = 0 … T−1, steps back from τ.
      ratio: by layer, `[T]`, the geometric mean over examples of ‖∂L_τ/∂h_{τ−ℓ}‖ / ‖∂L_τ/∂h_τ‖; 1 at ℓ = 0.
        Examples that have no step τ−ℓ are left out, and so are those that `vanished` and `not_finite` count; NaN
        where none is left.
      vanished: by layer, `[T]`, the share of examples whose gradient is exactly 0 there: dead ReLU paths, or units
        whose slope is no number of the dtype (tanh with |z| > 44 in float32).
      norms: by layer, `[B, T]`, the evidence: ‖∂L_τ/∂h_{τ−ℓ}‖ of each example's own loss, NaN where it has no
        such step.
      log_ratio: by layer, `[T]`, ln of the ratio: it is there where the ratio itself has no place among the
        numbers of its dtype (in float32 below 1e-38).
      log_ratio_se: by layer, `[T]`, its standard error over examples; NaN with fewer than two.
      log_norms: by layer, `[B, T]`, ln of the norms, −∞ where a gradient is exactly 0. `decay_rate` and `horizon`
        read them.
      whole_loss: whether L_τ is the loss of the whole sequence (`step=None`), which mixes all τ, and not that of
        one step.
      not_finite: by layer, `[T]`, the share of examples whose gradient there is NaN or has overflowed.
    """

    lags: Array
    ratio: dict[str, Any]
    vanished: dict[str, Any]
    norms: dict[str, Any]
    log_ratio: dict[str, Any]
    log_ratio_se: dict[str, Any]
    log_norms: dict[str, Any]
    whole_loss: Array
    not_finite: dict[str, Any]


@typed
def gradient_flow(
    system: System,
    loss: Loss,
    params: Any,
    batch: Batch,
    *,
    step: int | None = -1,
    wrt: str = "h",
    state: Any = None,
) -> GradientFlow:
    """r(ℓ) = ‖∂L_τ/∂h_{τ−ℓ}‖ / ‖∂L_τ/∂h_τ‖ for the loss L_τ at one step τ, against steps back ℓ.

    The derivatives are those with respect to a perturbation added to h after each step, so they
    follow every path through the network. With `step=None` the loss of the whole sequence is
    differentiated instead, which mixes all τ: late steps then carry fewer terms than early ones.

    The gradient goes back one step at a time, and after each its length is taken out and kept as a logarithm, layer by
    layer and example by example. So r = 1e-60 is measured in float32 as well as r = 0.1: read it from `log_ratio`. A
    network that reads backwards or flattens all steps for its readout, one with `truncate`, one whose cell carries
    whole numbers beside real ones, and one whose `apply` was replaced has no single way back; there plain autodiff is
    used, with the range of the dtype.

    How to read it: a straight line on a logarithmic axis is an exponential rate, ln r(ℓ) ≈ −ℓ/ξ; a slope
    of 0 keeps the gradient, a negative one makes it vanish (`decay_rate` fits it, `horizon` says how far the
    gradient reaches). For an LSTM this is the gradient with respect to h, which enters the gates alone; its memory
    is in c, so take `wrt="state"` to see how long that keeps a gradient.

    Called with arrays, it runs one compiled program, which is kept while the network lives (for a loss of `rr.losses`).
    Inside `jax.jit` and other traces it is traced as it stands.

    Args:
      system: a network; or a cell or a function `step(params, state, x) -> state` on rows, whose h the loss then reads
        at each step. They have the one layer "layer_0".
      loss: the data loss (the penalty has no part in ∂/∂h).
      params: its parameters.
      batch: B examples.
      step: τ: −1 for each sequence's last true step that has a label (the only choice with a readout at the last step),
        a step number counted from 0, or None for the whole loss (lags then count from that step). Lags count steps of
        the clock: a masked step in between is one of them, and has no ratio of its own.
      wrt: "h", or "state": all that a layer carries from a step to the next, such as an LSTM's (h, c).
      state: of a step function, the state before the first step: `[B, H]`, which is its h, or a record with a field h.

    Returns:
      The ratio at each lag by layer, its logarithm with a standard error, and the norms behind it.

    Raises:
      ValueError: none of these systems, a step function without a state, a batch whose parts do not fit together, a
        step other than −1 or None with `readout="last"`, or one outside the sequence; another `wrt`, or "state" for a
        network without a single way back.

    Source: Pascanu, Mikolov & Bengio 2013; Arjovsky, Shah & Bengio 2016, Fig. 4.

    >>> import rnnreg as rr
    >>> cell = rr.cells.elman(4, activation=lambda z: z, recurrent_init=rr.cells.orthogonal(0.5))
    >>> net = rr.network([cell], output_size=1)
    >>> batch = rr.Batch(jnp.ones((2, 4, 1)), jnp.ones((2, 4, 1)))
    >>> params = net.init(jax.random.key(0), 1)
    >>> gradient_flow(net, rr.losses.squared_error(), params, batch).ratio["layer_0"].round(4).tolist()
    [1.0, 0.5, 0.25, 0.125]
    """
    loss = as_loss(loss, batch, "gradient_flow")
    net, params = _as_network(system, params, batch, state)
    num_steps = batch.xs.shape[1]
    _check(net, step, wrt, num_steps)
    if isinstance(net.apply, Stack):
        check_fits(net.apply, params, batch.xs.shape[-1] if net.apply.embedding is None else None)
    if isinstance(system, (Network, Cell)):
        check_network_apart(net, params, batch.xs)
    if not may_compile((params, batch, state)):
        return _flow(net, loss, params, batch, step, wrt)
    arrays = Batch(*(None if leaf is None else jnp.asarray(leaf) for leaf in batch))
    return _program(net, loss, step, wrt)(params, arrays)


def _program(net: Network, loss: Loss, step: int | None, wrt: str) -> Callable[..., GradientFlow]:
    """The flow under `jax.jit`; kept while the network lives, for a loss that states all that it is."""
    apply = weakly(net.apply)
    facts = net._replace(init=None, apply=None, made=None)  # what holds no `apply`

    def run(params, batch):
        return _flow(facts._replace(apply=apply()), loss, params, batch, step, wrt)

    if not isinstance(loss, DataLoss):  # what a user's function reads may change
        return jax.jit(run)
    return _PROGRAMS.get(net.apply, (loss, step, wrt), lambda: jax.jit(run))


def _flow(
    net: Network, loss: Loss, params: Params, batch: Batch, step: int | None, wrt: str
) -> GradientFlow:
    """The flow of a network, of arguments that were checked."""
    num_steps = batch.xs.shape[1]
    true = jnp.ones(batch.xs.shape[:2], bool) if batch.mask is None else (batch.mask > 0)
    weights = batch.weights if batch.weights is not None and batch.weights.ndim == 2 else None
    scored = true if weights is None else true & (weights > 0)
    last_true = num_steps - 1 - jnp.argmax(scored[:, ::-1], axis=1)
    tau = last_true if step in (-1, None) else jnp.full(len(last_true), step)
    loss_mask = batch.mask
    if step is not None and net.readout == "all":
        at_tau = jnp.arange(num_steps)[None, :] == tau[:, None]
        loss_mask = (at_tau & scored).astype(jnp.float32)
    summed_loss = _summed_loss(loss, batch.ys, loss_mask, weights)

    def seeds_from(outputs):
        return seeds_of(net, jax.grad(summed_loss)(outputs), num_steps)

    if why_not_by_layer(net) is None:
        logs = log_state_gradients(net, params, batch, seeds_from, whole_state=wrt == "state")
    else:
        logs = _log_norms_by_autodiff(net, summed_loss, params, batch)
    counted = jnp.take_along_axis(scored, tau[:, None], axis=1)[:, 0]  # τ is a step with a label
    if batch.weights is not None:
        counted &= per_row(batch.weights) > 0
    return _by_lag(logs, tau, true, counted, whole_loss=step is None)


def _as_network(system: System, params: Any, batch: Batch, state: Any) -> tuple[Network, Params]:
    """A system as a network, and its parameters: a lone cell or step hands on its h."""
    if isinstance(system, (Network, Cell)) or not callable(system):
        if state is not None:
            raise ValueError("state is for a step function; networks and cells have their own.")
        if isinstance(system, Cell):
            return network([system], None), {"layer_0": params}
        check_network(system, "gradient_flow")
        return system, params
    dynamics_of(system, params, batch.xs, state=state)  # checks state, step and rows
    plain = not hasattr(state, "h")
    start = HiddenState(jnp.asarray(state)) if plain else state

    def step(params, state, x):
        new = system(params, state.h if plain else state, x)
        return HiddenState(new) if plain else new

    size = start.h.shape[-1]
    cell = from_step(step, init=lambda *_: params, hidden_size=size, initial_state=lambda *_: start)
    return network([cell], None), {"layer_0": params}


def _summed_loss(
    loss: Loss, ys: Any, mask: Array | None, weights: Array | None
) -> Callable[[Array], Array]:
    """The sum of the examples' own losses, so that each gradient is that of its example alone."""

    def own_loss(*parts):
        return loss(*jax.tree.map(lambda part: part[None], parts))

    return lambda outputs: jax.vmap(own_loss)(outputs, jnp.asarray(ys), mask, weights).sum()


def _by_lag(
    by_step: Any, tau: Array, true: Array, counted: Array, *, whole_loss: bool
) -> GradientFlow:
    """The record of ln ‖∂L/∂h_t‖ by layer `[B, T]`, read backwards from the step τ of each example that is counted."""
    lags = jnp.arange(true.shape[1])
    steps_back = tau[:, None] - lags[None, :]
    places = jnp.maximum(steps_back, 0)
    there = (steps_back >= 0) & jnp.take_along_axis(true, places, axis=1) & counted[:, None]
    logs = jax.tree.map(lambda leaf: jnp.take_along_axis(leaf, places, axis=1), by_step)

    def share_of(test):
        """The share of examples that pass, of those that have such a step."""
        return jax.tree.map(
            lambda leaf: masked_mean(test(leaf).astype(leaf.dtype), there, axis=0), logs
        )

    def log_ratios(logs):
        """ln r of each example; −∞ where there is no such step, or no gradient there or at τ."""
        known = there & jnp.isfinite(logs) & jnp.isfinite(logs[:, :1])
        finite = jnp.where(jnp.isfinite(logs), logs, 0)
        return jnp.where(known, finite - finite[:, :1], -jnp.inf)

    def norms(function):
        return jax.tree.map(lambda leaf: marked(~there, function(leaf)), logs)

    ratios = jax.tree.map(log_ratios, logs)
    log_ratio = jax.tree.map(lambda leaf: mean_and_error(leaf, axis=0)[0], ratios)
    error = jax.tree.map(lambda leaf: mean_and_error(leaf, axis=0)[1], ratios)
    return GradientFlow(
        lags=lags,
        ratio=jax.tree.map(_exponential, log_ratio),
        vanished=share_of(jnp.isneginf),
        norms=norms(jnp.exp),
        log_ratio=log_ratio,
        log_ratio_se=error,
        log_norms=norms(lambda leaf: leaf),
        whole_loss=jnp.asarray(whole_loss),
        not_finite=share_of(lambda leaf: jnp.isnan(leaf) | jnp.isposinf(leaf)),
    )


def check_options(step: int | None, wrt: str, num_steps: int | None = None) -> None:
    """Raises where there is no such step of a sequence (of any length without one), or no such `wrt`."""
    last = "T − 1" if num_steps is None else num_steps - 1
    found = step is None or is_count(step, least=-1)
    if not found or (num_steps is not None and step is not None and step >= num_steps):
        raise ValueError(f"step must be -1, None, or lie in 0 … {last}; got {step!r}.")
    check_choice(wrt, "wrt", ("h", "state"), hint="The state is all that a layer carries.")


def _check(net: Network, step: int | None, wrt: str, num_steps: int) -> None:
    check_options(step, wrt, num_steps)
    if net.readout != "all" and step not in (-1, None):
        raise ValueError(
            f"a network with readout={net.readout!r} has no loss of one step; give step=-1 or None; got step={step}."
        )
    reason = why_not_by_layer(net)
    if wrt == "state" and reason is not None:
        raise ValueError(
            f"wrt='state' goes back one step at a time, which this network does not allow: {reason}. Use wrt='h'."
        )


def _log_norms_by_autodiff(net: Network, loss: Any, params: Params, batch: Batch) -> Any:
    """ln ‖∂L/∂h_t‖, by layer `[B, T]`, through the whole sequence at once."""
    apply = unfused(net).apply

    @steady
    def perturbed(perturbations):
        return loss(apply(params, batch.xs, mask=batch.mask, perturbations=perturbations).outputs)

    gradients = jax.grad(perturbed)(zero_perturbations(net, params, batch))
    return jax.tree.map(lambda gradient: jnp.log(safe_norm(gradient)), gradients)


def _exponential(logs: Array) -> Array:
    """e^ of what is there, NaN of NaN."""
    return marked(jnp.isnan(logs), jnp.exp(jnp.where(jnp.isnan(logs), 0, logs)))
