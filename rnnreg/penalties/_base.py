"""The record of a penalty, what it may look at, and how it names the leaves it covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from jax import Array

from rnnreg._tree import leaf_paths

Params = dict[str, Any]

NEEDS = frozenset({"states", "state_gradients", "step"})


class Context(NamedTuple):
    """What a penalty may look at besides the parameters.

    Attributes:
      outputs: network outputs, `[B, T, O]` or `[B, O]`.
      mask: `[B, T]` true steps, or None.
      weights: `[B]` row weights, or None.
      states: by layer, states at every step, fields `[B, T, H]`; None unless needed.
      state_gradients: by layer, ∂(data loss)/∂h_t `[B, T, H]`, differentiable; None unless needed.
      step: by layer, `step(params, state, x) -> state`; None unless needed.
    """

    outputs: Array
    mask: Array | None = None
    weights: Array | None = None
    states: dict[str, Any] | None = None
    state_gradients: dict[str, Any] | None = None
    step: dict[str, Callable[..., Any]] | None = None


class Penalty(NamedTuple):
    """R(W), which never sees its λ.

    Attributes:
      init: `init(params) -> state`; raises where a path matches no leaf.
      value: `value(params, context, state) -> (scalar, state)`, at least float32.
      needs: which of "states", "state_gradients" and "step" the context must hold; only what some
        penalty asks for is computed.
      covers: `covers(params) -> [path, ...]`, the leaves that the penalty looks at.
    """

    init: Callable[[Params], Any]
    value: Callable[[Params, Any, Any], tuple[Array, Any]]
    needs: frozenset[str] = frozenset()
    covers: Callable[[Params], list[str]] = lambda params: []


def covered(penalty: Penalty, params: Params) -> list[str]:
    """The paths of the leaves that a penalty covers, so that a renamed leaf never escapes unseen.

    >>> import rnnreg as rr, jax
    >>> net = rr.network([rr.cells.elman(hidden_size=4)], output_size=1)
    >>> covered(rr.penalties.l2(), net.init(jax.random.key(0), input_size=2))
    ['layer_0/W_hh', 'layer_0/W_xh', 'readout/W_hy']
    """
    return penalty.covers(params)


def select(params: Params, paths: str | Sequence[str], include_biases: bool) -> dict[str, Any]:
    """The leaves whose path, or last name, matches a pattern; each once, however many match it.

    Biases (names that begin with `b_`) need `include_biases`; learned initial states need a pattern
    that names them.

    Raises:
      ValueError: a pattern matches no leaf.
    """
    patterns = [paths] if isinstance(paths, str) else list(paths)
    leaves = leaf_paths(params)

    def matches(path: str, pattern: str) -> bool:
        parts = path.split("/")
        if not (fnmatchcase(path, pattern) or fnmatchcase(parts[-1], pattern)):
            return False
        if parts[-1].startswith("b_"):
            return include_biases
        return "initial" not in parts or "initial" in pattern

    chosen: dict[str, Any] = {}
    for pattern in patterns:
        found = [path for path in leaves if matches(path, pattern)]
        biases = [path for path in leaves if path.split("/")[-1].startswith("b_")]
        if not found and any(
            fnmatchcase(p, pattern) or fnmatchcase(p.split("/")[-1], pattern) for p in biases
        ):
            raise ValueError(
                f"penalty path {pattern!r} matches only biases, which are left out; give include_biases=True."
            )
        if not found:
            raise ValueError(
                f"penalty path {pattern!r} matches no leaf; the leaves are {sorted(leaves)}. A pattern "
                "matches a whole path or a last name, for example 'W_hh' or 'layer_0/*'; biases need "
                "include_biases=True."
            )
        chosen |= {path: leaves[path] for path in found}
    return dict(sorted(chosen.items()))
