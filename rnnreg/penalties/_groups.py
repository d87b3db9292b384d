"""Group lasso: the rows, the columns or the whole units of weight matrices, each switched off as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice
from rnnreg._linalg import safe_norm, wide
from rnnreg._signatures import typed
from rnnreg._tree import beside, leaf_paths, with_leaves
from rnnreg.penalties._base import Params, Penalty, amounts_of, select
from rnnreg.penalties._prox import shrink_groups


@typed
def group_lasso(
    groups: str = "columns",
    *,
    paths: str | Sequence[str] = "*",
    by_size: bool = False,
    recurrent: str = "W_hh",
) -> Penalty:
    """Σ_g ‖w_g‖₂ over groups of weights, each of which is shrunk to zero as one.

    Products are x W, so a row holds what one input sends and a column what one unit (of one gate) receives:

    | groups | one group |
    |---|---|
    | "rows" | what one input, or one unit of the step before, sends: a row of one matrix |
    | "columns" | what one unit receives through one gate: a column of one matrix |
    | "units" | all that a unit of a layer receives: its columns in W_xh and W_hh and in every gate together |

    A unit whose group is zero sees neither inputs nor states: it is switched off. Groups do not overlap, so the
    proximal step is (1 − a / ‖w_g‖)₊ w_g; or w_i τ / (τ + a_i) after Adam, where every weight has an amount of its own
    and τ is the length of the result. "units" covers the matrices that stand beside a recurrent one; Wen et al. 2018
    put a unit's rows into its group too, in W_hh and in the layer above, so that groups overlap. Gradient steps make
    groups small and not zero. The gradient of a group that is zero is 0.

    Args:
      groups: "rows", "columns" or "units".
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      by_size: multiply ‖w_g‖ by the root of the number of its weights, as Yuan & Lin do, so that groups of unequal size
        are shrunk alike.
      recurrent: name of the recurrent matrix `[H, G·H]` of a layer, which says what its units are.

    Returns:
      The penalty.

    Raises:
      ValueError: other groups; at `init` or in use, a pattern that matches no leaf, a leaf that is no matrix, or
        "units" with no recurrent matrix beside any.

    Source: Yuan & Lin 2006, "Model selection and estimation in regression with grouped variables"; Scardapane et al.
    2017, "Group sparse regularization for deep neural networks".

    >>> params = {"layer_0": {"W_xh": jnp.array([[3.0, 0.0]]), "W_hh": jnp.array([[4.0, 0.0], [0.0, 2.0]])}}
    >>> [float(group_lasso(groups)(params)) for groups in ("rows", "columns", "units")]
    [9.0, 9.0, 7.0]
    """
    check_choice(groups, "groups", ("rows", "columns", "units"))

    def chosen(params, weights=None):
        return families(select(params, paths, False, weights), params, groups, recurrent)

    def init(params):
        # Which leaves are weights is known later: here each pattern must match something.
        select(params, paths, include_biases=True)
        return ()

    def value(params, context, state):
        leaves = leaf_paths(params)
        parts = []
        for members in chosen(params, None if context is None else context.weight_paths).values():
            joined = [as_groups(leaves[path], count, groups) for path, count in members.items()]
            elements = jnp.concatenate(joined, axis=1)
            size = elements.shape[1] ** 0.5 if by_size else 1.0
            parts.append(size * jnp.sum(safe_norm(elements)))
        return jnp.stack(parts).sum(), state

    def covers(params, weight_paths=None):
        return sorted(path for family in chosen(params, weight_paths).values() for path in family)

    def prox(params, amount, weight_paths=None, state=None):
        leaves, amounts = leaf_paths(params), amounts_of(amount, params)
        for members in chosen(params, weight_paths).values():
            shapes = {path: leaves[path].shape for path in members}
            joined = jnp.concatenate(
                [as_groups(leaves[path], count, groups) for path, count in members.items()], axis=1
            )
            each = [jnp.asarray(amounts[path], joined.dtype) for path in members]
            if len(each) > 1 or each[0].ndim:
                each = [
                    as_groups(jnp.broadcast_to(own, shapes[path]), members[path], groups)
                    for own, path in zip(each, members, strict=True)
                ]
            together = jnp.concatenate(each, axis=1) if each[0].ndim else each[0]
            size = joined.shape[1] ** 0.5 if by_size else 1.0
            moved = shrink_groups(joined, size * together)
            for path, shape in shapes.items():
                width = math.prod(shape) // members[path]
                own, moved = moved[:, :width], moved[:, width:]
                leaf = own if groups == "rows" else own.T.reshape(shape)
                leaves[path] = leaf.astype(leaves[path].dtype)
        return with_leaves(params, leaves)

    arguments = {"groups": groups, "paths": paths, "by_size": by_size, "recurrent": recurrent}
    return Penalty(
        init,
        value,
        covers=covers,
        name="group_lasso",
        arguments=tuple(arguments.items()),
        prox=prox,
    )


def families(
    leaves: dict[str, Any], params: Params, groups: str, recurrent: str
) -> dict[str, dict[str, int]]:
    """{family: {path: number of groups}}: the leaves of a family share their groups.

    Args:
      leaves: those that are covered, by path.
      params: all of them, or their shapes; "units" looks for the recurrent matrix beside a leaf.
      groups: "rows", "columns" or "units".
      recurrent: its name.

    Raises:
      ValueError: a leaf that is no matrix, or whose columns are not those of its units; "units" that are nowhere.
    """
    wrong = [path for path, leaf in leaves.items() if len(leaf.shape) != 2]
    if wrong:
        raise ValueError(
            f"group_lasso is about matrices, and {wrong[0]!r} has the shape {leaves[wrong[0]].shape}; give paths= that "
            "leave it out."
        )
    if groups != "units":
        axis = 0 if groups == "rows" else 1
        return {path: {path: leaf.shape[axis]} for path, leaf in leaves.items()}
    every, found = leaf_paths(params), {}
    for path, leaf in leaves.items():
        if (matrix := beside(path, recurrent)) in every:
            units = every[matrix].shape[0]
            if leaf.shape[1] % units:
                raise ValueError(
                    f"{path!r} of shape {leaf.shape} stands beside {matrix!r}, whose rows are {units} units: its "
                    "columns must be those of its units, one for each gate. Give paths= that leave it out."
                )
            found.setdefault(matrix, {})[path] = units
    if not found:
        raise ValueError(
            f"groups='units' wants the recurrent matrix of a layer, and no {recurrent!r} stands beside {list(leaves)}; "
            "give recurrent= its name."
        )
    return found


def as_groups(leaf: Array, count: int, groups: str) -> Array:
    """A leaf as `[number of groups, weights of each]`, in at least float32; gates lie on the last axis, in blocks."""
    W = leaf.astype(wide(leaf.dtype))
    return W if groups == "rows" else W.reshape(-1, count).T
