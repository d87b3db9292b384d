"""L2 to the identity instead of to zero: units that keep what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice, check_count, check_share
from rnnreg._linalg import wide
from rnnreg._signatures import typed
from rnnreg._tree import beside, leaf_paths
from rnnreg.penalties._base import Params, Penalty, select


@typed
def to_identity(
    paths: str | Sequence[str] = "W_hh",
    *,
    units: float = 1.0,
    reduction: str = "sum",
    bias: str | None = None,
) -> Penalty:
    """‖W − I‖_F² over the columns of some units, what each of them receives: L2 towards the identity, not towards zero.

    A unit i with W_ii = 1, no other weight from units and no bias keeps its value, as far as its activation lets it:
    for ever with relu (h ≥ 0), with tanh at small h only, where it decays like √(3 / 2t). The other units are left
    free.

    With `reduction="mean"` it is the manifold attractor of Schmidt et al. 2021,

        R = mean_i [(W_ii − 1)² + (1/H) Σ_{j ≠ i} W_ji² + b_i²]      over the units i that are regularised;

    `to_identity(units=0.5, reduction="mean", bias="b_h")` with λ = 5 is their setting. Theirs is a piecewise linear
    network, z_t = A z_{t−1} + W relu(z_{t−1}) + C s_t + h, with A diagonal and W without a diagonal. Here A_ii is the
    diagonal of W_hh, their W_ij is W_hh[j, i], because rows are multiplied from the left, and their h is the bias. As
    the diagonal stands inside the activation here, the identity is a manifold of fixed points for relu (h ≥ 0) and a
    linear network alone. Their code takes these means (H counts the diagonal of W, which is 0); the sums of their
    equation are `reduction="sum"`.

    Args:
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      units: which units, the first ones: a float is their share in (0, 1], a whole number how many.
      reduction: "sum" over elements, or "mean" as above.
      bias: name of the bias beside the matrix, which is drawn to 0 for the same units, such as "b_h"; None for none.

    Returns:
      The penalty.

    Raises:
      ValueError: units or a reduction that are none; at `init` or in use, a pattern that matches no leaf, a matrix that
        is not square (a gated cell keeps by its gates, and the identity in them means nothing), more units than it has,
        or a bias that is not there.

    Source: Schmidt, Koppe, Monfared, Beutelspacher & Durstewitz 2021, "Identifying nonlinear dynamical systems with
    multiple time scales and long-range dependencies", and its code.

    >>> params = {"layer_0": {"W_hh": jnp.array([[0.5, 3.0], [2.0, 3.0]]), "b_h": jnp.array([1.0, 9.0])}}
    >>> float(to_identity()(params)), float(to_identity(units=0.5)(params))  # 0.5² + 2² + 3² + 2²
    (17.25, 4.25)
    >>> float(to_identity(units=1, reduction="mean", bias="b_h")(params))
    3.25
    """
    check_choice(reduction, "reduction", ("sum", "mean"))
    if isinstance(units, Integral):
        check_count(units, "units", hint="A float, such as 0.5, is a share of them.")
    else:
        check_share(units, "units", ends="(]", hint="A float is a share of the units.")

    def chosen(params, weights=None):
        leaves = select(params, paths, False, weights)
        for path, leaf in leaves.items():
            _check(params, path, leaf, units, bias)
        return leaves

    def init(params):
        select(params, paths, include_biases=True)
        return ()

    def value(params, context, state):
        every, parts = leaf_paths(params), []
        for path, leaf in chosen(params, None if context is None else context.weight_paths).items():
            own = [leaf] if bias is None else [leaf, every[beside(path, bias)]]
            parts.append(_distance(*own, count=_count(units, len(leaf)), reduction=reduction))
        return jnp.stack(parts).sum(), state

    def covers(params, weight_paths=None):
        matrices = list(chosen(params, weight_paths))
        return sorted(matrices + ([beside(path, bias) for path in matrices] if bias else []))

    arguments = {"paths": paths, "units": units, "reduction": reduction, "bias": bias}
    return Penalty(
        init, value, covers=covers, name="to_identity", arguments=tuple(arguments.items())
    )


def _distance(W: Array, b: Array | None = None, *, count: int, reduction: str) -> Array:
    """R of one matrix and its bias, over the first `count` units."""
    W = W[:, :count].astype(wide(W.dtype))
    identity = jnp.eye(*W.shape, dtype=W.dtype)
    squares = jnp.square(W - identity)
    diagonal = jnp.sum(squares * identity)
    rest = jnp.sum(squares) - diagonal
    bias = 0.0 if b is None else jnp.sum(jnp.square(b[:count].astype(W.dtype)))
    if reduction == "sum":
        return diagonal + rest + bias
    return (diagonal + rest / len(W) + bias) / count


def _count(units: float, hidden_size: int) -> int:
    """How many units: a number as it is, a share of at least one."""
    return int(units) if isinstance(units, Integral) else max(round(units * hidden_size), 1)


def _check(params: Params, path: str, leaf: Array, units: float, bias: str | None) -> None:
    shape = leaf.shape
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"to_identity is about square matrices, and {path!r} has the shape {shape}. In a gated cell the gates keep "
            "the state, and the identity is no target for their weights: cells.chrono draws gate biases for it."
        )
    if _count(units, shape[0]) > shape[0]:
        raise ValueError(f"units={units} is more than the {shape[0]} units of {path!r}.")
    if bias is None:
        return
    leaves, wanted = leaf_paths(params), beside(path, bias)
    if wanted not in leaves or leaves[wanted].shape != shape[:1]:
        raise ValueError(
            f"bias={bias!r} must name a vector {list(shape[:1])} beside {path!r}; the leaves are {sorted(leaves)}."
        )
