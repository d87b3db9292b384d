"""Weight decay apart from the loss: plain, and cautious."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_number
from rnnreg._signatures import Number, typed
from rnnreg._tree import leaf_paths, with_leaves
from rnnreg.constraints._base import Paths, given
from rnnreg.penalties import select

if TYPE_CHECKING:
    import optax


class Decayed(NamedTuple):
    """The state of a decay, by which a run knows which weights decay.

    Attributes:
      covers: by path, () for each decayed leaf.
    """

    covers: dict[str, Any]


@typed
def decoupled_decay(
    rate: Number, *, paths: Paths = "*", include_biases: bool = False
) -> optax.GradientTransformation:
    """update ← update + rate · w, before the learning rate η multiplies both: w shrinks by ηw·rate beside its step.

    `optax.chain(optax.scale_by_adam(), decoupled_decay(rate), optax.scale_by_learning_rate(η))` is AdamW on matrices
    alone. It is `optax.add_decayed_weights` with leaves by path; a run warns if an L2 penalty covers the same leaves.

    How it differs from λ‖W‖²: before `optax.sgd` it does not, with rate = 2λ. Adam divides the gradient of the penalty,
    2λw, by its own size. Without a data gradient w then moves by about η an update whatever λ is, and decoupled as
    w₀(1 − η·rate)^t. Near the minimum w* of a loss ½a(w − w*)², Adam with the penalty ends at aw*/(a + 2λ); AdamW ends
    close to w* if rate·|w*| < 1 and at |w| = 1/rate if not, since Adam's own step is no longer than about η.

    Args:
      rate: at least 0; may be traced. To decay by a fixed share whatever η is, give `share / learning_rate`.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      include_biases: cover leaves that are no matrices too.

    Returns:
      An optax transformation, for a place before the learning rate; its state is `Decayed`.

    Raises:
      ValueError: a rate below 0; at `init`, a pattern that matches no leaf.

    Source: Loshchilov & Hutter 2019. (Their own code does not multiply the decay by η.)

    >>> decay, params = decoupled_decay(0.25), {"W_hh": jnp.array([[2.0, -1.0]]), "b_h": jnp.ones(2)}
    >>> zeros = jax.tree.map(jnp.zeros_like, params)
    >>> updates, _ = decay.update(zeros, decay.init(params), params)
    >>> updates["W_hh"].tolist(), updates["b_h"].tolist()
    ([[0.5, -0.25]], [0.0, 0.0])
    """
    return _decay(rate, paths, include_biases, lambda update, weight: weight)


@typed
def cautious_decay(
    rate: Number, *, paths: Paths = "*", include_biases: bool = False
) -> optax.GradientTransformation:
    """update ← update + rate · w where update · w ≥ 0: decay only where the step goes towards 0 anyway.

    Elsewhere the step enlarges |w|, and decay would fight it. So the minima of the loss stay where they are, up to a
    step; among points of equal loss w slides to small ones. Its place is that of `decoupled_decay`, before the learning
    rate, where `update` points along the gradient.

    Args:
      rate: at least 0; may be traced.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      include_biases: cover leaves that are no matrices too.

    Returns:
      An optax transformation, for a place before the learning rate; its state is `Decayed`.

    Raises:
      ValueError: a rate below 0; at `init`, a pattern that matches no leaf.

    Source: Chen et al. 2025 (Cautious Weight Decay), algorithm 1.

    >>> decay, params = cautious_decay(0.5), {"W_hh": jnp.array([[2.0, -2.0]])}
    >>> updates, _ = decay.update({"W_hh": jnp.array([[1.0, 1.0]])}, decay.init(params), params)
    >>> updates["W_hh"].tolist()
    [[2.0, 1.0]]
    """
    return _decay(
        rate,
        paths,
        include_biases,
        lambda update, weight: jnp.where(jnp.sign(update) * jnp.sign(weight) >= 0, weight, 0),
    )


def decayed_paths(state: Any) -> set[str]:
    """The leaves that decay, from the state of an optimiser or its shapes; optax's own decay leaves no trace there."""
    parts = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, Decayed))
    return {path for part in parts if isinstance(part, Decayed) for path in part.covers}


def _decay(
    rate: Any, paths: Paths, include_biases: bool, shrunk: Callable[[Array, Array], Array]
) -> optax.GradientTransformation:
    import optax

    check_number(rate, "rate", least=0)

    def init(params):
        return Decayed(dict.fromkeys(select(params, paths, include_biases, what="decay"), ()))

    def update(updates, state, params=None):
        leaves, steps = given(params), leaf_paths(updates)
        moved = {}
        for path in state.covers:
            step, weight = steps[path], leaves[path].astype(steps[path].dtype)
            moved[path] = step + jnp.asarray(rate, step.dtype) * shrunk(step, weight)
        return with_leaves(updates, moved), state

    return optax.GradientTransformation(init, update)
