"""The one place where data loss and penalties meet: L + Σ_k λ_k R_k, with every part returned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import described
from rnnreg._signatures import typed
from rnnreg.data import Batch, cleared, per_row
from rnnreg.losses import Loss
from rnnreg.metrics import as_function
from rnnreg.networks import (
    Network,
    Visit,
    check_states,
    effective,
    expected_cell,
    passes_of,
    start_state,
    trains_apart,
    visited,
    weight_paths,
)
from rnnreg.penalties import Context, Penalty, check_penalty, value_of
from rnnreg.recurrence import cell_step

Params = dict[str, Any]


class Parts(NamedTuple):
    """The objective taken apart.

    Attributes:
      data_loss: L, without any penalty.
      penalties: R_k by name, each without its λ.
      outputs: network outputs.
      final_state: by layer, the network's state after the last step.
    """

    data_loss: Array
    penalties: dict[str, Array]
    outputs: Array
    final_state: dict[str, Any]


class Objective(Protocol):
    """The objective of `make_objective`."""

    def __call__(
        self,
        params: Params,
        hyper: Mapping[str, Any],
        batch: Batch,
        penalty_state: dict[str, Any],
        *,
        key: Array | None,
        train: bool,
        network_state: dict[str, Any] | None = None,
        fresh: Array | None = None,
    ) -> tuple[Array, tuple[Parts, dict[str, Any]]]:
        """L + Σ_k λ_k R_k on one batch.

        Args:
          params: parameters of the network.
          hyper: by name; holds the λ of every penalty.
          batch: the rows.
          penalty_state: the state of each penalty, by name.
          key: for dropout masks; None if nothing is drawn.
          train: whether this is an update: dropout is on, and a penalty may be estimated or scheduled.
          network_state: by layer, the state that the network goes on from; None starts anew.
          fresh: scalar; if true, the network's own start replaces `network_state`, inside the gradient.

        Returns:
          The total, with `Parts` and the state of each penalty afterwards.
        """
        ...


@typed
def make_objective(
    net: Network,
    loss: Loss,
    penalties: Mapping[str, Penalty],
    *,
    proximal: Collection[str] = (),
) -> Objective:
    """total = L + Σ_k hyper[k] · R_k, as a function of the parameters.

    The λ named k is read from `hyper` inside the trace, so one compilation serves every value, and it can be
    differentiated. With `network_state=` the network goes on from there (from its own start if `fresh` is true), so
    that a batch can be a piece of longer sequences.

    Args:
      net: the network.
      loss: the data loss L.
      penalties: R_k by name.
      proximal: the names of those that are part of the value alone, and not of its derivative by the parameters: a
        proximal step takes them.

    Returns:
      `objective(params, hyper, batch, penalty_state, *, key, train, …) -> (total, (Parts, penalty_state))`; see
      `Objective`.

    >>> import rnnreg as rr
    >>> net = rr.network([rr.cells.elman(hidden_size=4)], output_size=1)
    >>> objective = make_objective(net, rr.losses.squared_error("sum"), {"l2": rr.penalties.l2()})
    >>> params = net.init(jax.random.key(0), input_size=1)
    >>> batch = rr.Batch(jnp.ones((2, 3, 1)), jnp.zeros((2, 3, 1)))
    >>> total, (parts, _) = objective(params, {"l2": 0.1}, batch, {"l2": ()}, key=None, train=False)
    >>> bool(jnp.allclose(total, parts.data_loss + 0.1 * parts.penalties["l2"]))
    True
    """
    loss = as_function(loss, "the loss", loss=True)
    for name, penalty in penalties.items():
        check_penalty(name, penalty)
    needs = frozenset().union(*(penalty.needs for penalty in penalties.values()))

    def objective(
        params: Params,
        hyper: Mapping[str, Any],
        batch: Batch,
        penalty_state: dict[str, Any],
        *,
        key: Array | None,
        train: bool,
        network_state: dict[str, Any] | None = None,
        fresh: Array | None = None,
    ):
        _check_arguments(hyper, batch, penalty_state, penalties)
        batch = cleared(batch)
        start = network_state
        if fresh is not None:  # a learned start has its gradient through here
            own = start_state(net, params, batch.xs)
            start = jax.tree.map(lambda o, s: jnp.where(fresh, o, s), own, network_state)

        counted = {"weights": per_row(batch.weights)} if train and trains_apart(net) else {}

        def data_loss(perturbations):
            options = {"mask": batch.mask, "state": start, "key": key, "train": train}
            options |= {"perturbations": perturbations, **counted}
            out, visits = visited(net, params, batch.xs, **options)
            value = loss(out.outputs, batch.ys, batch.mask, batch.weights)
            return value, (out, [visit[1:] for visit in visits])  # a place is no array

        if "state_gradients" in needs:
            zeros = zero_perturbations(net, params, batch)
            found, gradients = jax.value_and_grad(data_loss, has_aux=True)(zeros)
        else:
            found, gradients = data_loss(None), None
        value, (out, visits) = found
        if needs:
            check_states(out.states)
        seen = effective(net, params) if penalties else params
        context = Context(
            outputs=out.outputs,
            mask=batch.mask,
            weights=per_row(batch.weights),
            states=out.states if needs & {"states", "step"} else None,
            state_gradients=gradients,
            step=_steps(net) if "step" in needs else None,
            visits=_placed(net, visits) if visits and "step" in needs else None,
            weight_paths=weight_paths(net, seen) if penalties else None,
            train=train,
        )
        total, values, states = value, {}, {}
        for name, penalty in penalties.items():
            values[name], states[name] = value_of(
                penalty, seen, context, penalty_state[name], f"penalties[{name!r}]"
            )
            lam, kept = jnp.asarray(hyper[name], values[name].dtype), name not in proximal
            total = total + lam * (values[name] if kept else jax.lax.stop_gradient(values[name]))
        return total, (Parts(value, values, out.outputs, out.final_state), states)

    return objective


def _check_arguments(
    hyper: Any, batch: Any, penalty_state: Any, penalties: Mapping[str, Penalty]
) -> None:
    """Raises if arguments stand in another order, or a λ or a state of a penalty is missing."""
    if not isinstance(batch, Batch) or isinstance(hyper, Batch):
        raise ValueError(
            "an objective is called as objective(params, hyper, batch, penalty_state, key=…, train=…); got hyper of "
            f"type {type(hyper).__name__} and batch of type {type(batch).__name__}."
        )
    for name, given in (("hyper", hyper), ("penalty_state", penalty_state)):
        missing = [one for one in penalties if not isinstance(given, Mapping) or one not in given]
        if missing:
            made = "penalty.init(params)" if name == "penalty_state" else "λ"
            raise ValueError(
                f"{name} must hold the {made} of every penalty by name; {missing} not in {described(given)}."
            )


def zero_perturbations(net: Network, params: Params, batch: Batch) -> dict[str, Any]:
    """Zeros to add to every h; the gradient with respect to them is ∂L/∂h_t, `[B, T, H]` by layer."""
    states = jax.eval_shape(lambda: net.apply(params, batch.xs, mask=batch.mask).states)
    check_states(states)
    return jax.tree.map(
        lambda state: jnp.zeros(state.h.shape, state.h.dtype),
        states,
        is_leaf=lambda s: hasattr(s, "h"),
    )


def _placed(net: Network, visits: list[tuple[Any, ...]]) -> tuple[Visit, ...]:
    """Visits, from what each holds beside its place."""
    places = [place for together in passes_of(net.layers) for place in together]
    return tuple(Visit(place, *arrays) for place, arrays in zip(places, visits, strict=True))


def _steps(net: Network) -> dict[str, Callable[..., Any]]:
    if not net.layers:
        raise ValueError(
            "a penalty needs the step of each layer, and no layers of this network are known; use rr.network, or "
            "rr.from_flax and rr.from_equinox of a recurrent cell."
        )
    precision = net.recurrence.precision
    return {
        f"layer_{index}": cell_step(
            expected_cell(net, index)._replace(effective=None), precision=precision
        )
        for index in range(len(net.layers))
    }
