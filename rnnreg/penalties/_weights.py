"""Penalties on weights: sums over elements of one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice, check_share
from rnnreg._linalg import wide
from rnnreg._signatures import Number, typed
from rnnreg.penalties._base import Penalty, on_leaves, select
from rnnreg.penalties._prox import soft_threshold


@typed
def elementwise(
    function: Callable[[Array], Array],
    *,
    paths: str | Sequence[str] = "*",
    reduction: str = "sum",
    include_biases: bool = False,
    prox: Callable[[Array, Array], Array] | None = None,
) -> Penalty:
    """R(W) = Σ_i f(w_i) over the elements of the covered leaves (or their mean).

    Args:
      function: f, elementwise, with a finite gradient at 0.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      reduction: "sum" over elements, or "mean" over all of them together.
      include_biases: cover biases, gains and scales too; the textbook Σ over all w_i.
      prox: `prox(w, a)`, elementwise argmin_v f(v) + (v − w)² / 2a, for proximal steps; None if f has none.

    Returns:
      The penalty.

    Raises:
      ValueError: an unknown reduction; at `init`, a pattern that matches no leaf.

    >>> quartic = elementwise(lambda w: w**4, paths="W_hh")
    >>> params = {"layer_0": {"W_hh": jnp.array([[1.0, 2.0]])}}
    >>> float(quartic.value(params, None, quartic.init(params))[0])
    17.0
    """
    check_choice(reduction, "reduction", ("sum", "mean"))

    of = _Elements(function, paths, reduction, include_biases, prox)
    arguments = (("paths", paths), ("reduction", reduction), ("include_biases", include_biases))
    return Penalty(
        of.init,
        of.value,
        covers=of.covers,
        name="elementwise",
        arguments=arguments,
        prox=None if prox is None else of.step,
    )


@dataclass(frozen=True, eq=False)
class _Elements:
    """The functions of an elementwise penalty, as methods, so that it can be pickled if f and its prox can."""

    function: Callable[[Array], Array]
    paths: str | Sequence[str]
    reduction: str
    include_biases: bool
    prox: Callable[[Array, Array], Array] | None

    def chosen(self, params, weights=None):
        return select(params, self.paths, self.include_biases, weights)

    def share(self, leaves):
        return sum(leaf.size for leaf in leaves) if self.reduction == "mean" else 1

    def init(self, params):
        select(params, self.paths, include_biases=True)
        return ()

    def value(self, params, context, state):
        weights = None if context is None else context.weight_paths
        leaves = [leaf.astype(wide(leaf.dtype)) for leaf in self.chosen(params, weights).values()]
        total = jnp.stack([jnp.sum(self.function(leaf)) for leaf in leaves]).sum()
        return total / self.share(leaves), state

    def covers(self, params, weight_paths=None):
        return list(self.chosen(params, weight_paths))

    def step(self, params, amount, weight_paths=None, state=None):
        leaves = self.chosen(params, weight_paths)
        share = self.share(leaves.values())
        return on_leaves(lambda w, a: self.prox(w, a / share), params, amount, leaves)  # type: ignore[misc]


@typed
def l2(
    paths: str | Sequence[str] = "*", *, reduction: str = "sum", include_biases: bool = False
) -> Penalty:
    """‖W‖² = Σ_i w_i², without a ½; its λ has the units of loss / weight².

    Under SGD, λ‖W‖² is the same as `optax.add_decayed_weights(2λ)` before any clipping; under Adam it
    is not AdamW. Pass `convert_lambda` a λ from another tool. Its proximal step, w / (1 + 2a), is stable for any λ.

    Args:
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      reduction: "sum" over elements, or "mean" over all of them together.
      include_biases: cover biases, gains and scales too.

    Returns:
      The penalty.

    >>> penalty = l2("W_hh")
    >>> params = {"layer_0": {"W_hh": jnp.array([[3.0, 4.0]]), "b_h": jnp.ones(2)}}
    >>> float(penalty.value(params, None, penalty.init(params))[0])
    25.0
    """
    penalty = elementwise(
        _squared,
        paths=paths,
        reduction=reduction,
        include_biases=include_biases,
        prox=_shrunk,
    )
    return replace(penalty, name="l2", isotropic=True, decays=True)


@typed
def l1(
    paths: str | Sequence[str] = "*", *, reduction: str = "sum", include_biases: bool = False
) -> Penalty:
    """Σ_i |w_i|, with the subgradient 0 at 0.

    Gradient steps do not reach exact zeros: they make weights small, which then change sign from step to step. For
    exact zeros give `rr.make_train(…, proximal=True)`: then each update ends with w ← sign(w) max(|w| − a, 0), where a
    is λ times the optimiser's own step.

    Args:
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      reduction: "sum" over elements, or "mean" over all of them together.
      include_biases: cover biases, gains and scales too.

    Returns:
      The penalty.

    >>> penalty, params = l1(reduction="mean"), {"W_hy": jnp.array([[-3.0, 1.0]])}
    >>> float(penalty.value(params, None, penalty.init(params))[0])
    2.0
    >>> l1().prox(params, 1.5)["W_hy"].tolist()
    [[-1.5, 0.0]]
    """
    penalty = elementwise(
        absolute,
        paths=paths,
        reduction=reduction,
        include_biases=include_biases,
        prox=soft_threshold,
    )
    return replace(penalty, name="l1")


@typed
def elastic_net(
    l1_ratio: Number = 0.5,
    *,
    paths: str | Sequence[str] = "*",
    reduction: str = "sum",
    include_biases: bool = False,
) -> Penalty:
    """ρ Σ_i |w_i| + (1 − ρ) Σ_i w_i², with ρ = l1_ratio (Zou & Hastie 2005; no ½ here).

    Its proximal step is sign(w) max(|w| − ρa, 0) / (1 + 2 (1 − ρ) a): exact zeros, as with `l1`.

    Args:
      l1_ratio: ρ in [0, 1], the share of the L1 part. It may be traced if the run is made in the same trace; it is
        no name of `hyper`, and no axis of a sweep.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      reduction: "sum" over elements, or "mean" over all of them together.
      include_biases: cover biases, gains and scales too.

    Returns:
      The penalty.

    >>> penalty, params = elastic_net(0.25), {"W_hy": jnp.array([[-2.0]])}
    >>> float(penalty.value(params, None, penalty.init(params))[0])
    3.5
    """
    check_share(l1_ratio, "l1_ratio")

    penalty = elementwise(
        partial(_mixed, l1_ratio),
        paths=paths,
        reduction=reduction,
        include_biases=include_biases,
        prox=partial(_mixed_prox, l1_ratio),
    )
    arguments = (("l1_ratio", l1_ratio), *penalty.arguments)
    return replace(penalty, name="elastic_net", arguments=arguments, decays=True)


def absolute(leaf: Array) -> Array:
    # jnp.abs has derivative 1 at 0, which would push a weight off zero that nothing else moves.
    return leaf * jax.lax.stop_gradient(jnp.sign(leaf))


def _squared(leaf: Array) -> Array:
    # jnp.square itself cannot be pickled.
    return jnp.square(leaf)


def _shrunk(w: Array, amount: Array) -> Array:
    return w / (1 + 2 * amount)


def _mixed(l1_ratio: Number, leaf: Array) -> Array:
    return l1_ratio * absolute(leaf) + (1 - l1_ratio) * jnp.square(leaf)


def _mixed_prox(l1_ratio: Number, w: Array, amount: Array) -> Array:
    return soft_threshold(w, l1_ratio * amount) / (1 + 2 * (1 - l1_ratio) * amount)
