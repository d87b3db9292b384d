"""The record of a penalty, what it may look at, and how it names the leaves it covers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._linalg import wide
from rnnreg._signatures import typed
from rnnreg._tree import (
    is_learned_start,
    leaf_paths,
    matrices,
    path_matches,
    statistics,
    with_leaves,
)
from rnnreg.networks import Network, Visit, effective, effective_shapes, weight_paths

Params = dict[str, Any]

NEEDS = frozenset({"states", "state_gradients", "step"})


class Context(NamedTuple):
    """What a penalty may look at besides the parameters.

    Attributes:
      outputs: network outputs, `[B, T, O]` or `[B, O]`; None for a penalty that is called on parameters alone.
      mask: `[B, T]` true steps, or None.
      weights: `[B]` row weights, or None.
      states: by layer, states at every step, fields `[B, T, H]`; None unless needed.
      state_gradients: by layer, ∂(data loss)/∂h_t `[B, T, H]`, differentiable; None unless needed.
      step: by layer, `step(params, state, x) -> state`, without recurrent dropout; None unless needed.
      visits: every pass through the layers in order, time first, with its parameters, what it read and where it
        started; None unless the step is needed, and for a network whose `apply` is a function.
      weight_paths: the leaves that are weights, by path, as the network's cells say; None: the matrices.
      train: whether an update is computed, where an estimate will do; a report wants R itself.
    """

    outputs: Array | None
    mask: Array | None = None
    weights: Array | None = None
    states: dict[str, Any] | None = None
    state_gradients: dict[str, Any] | None = None
    step: dict[str, Callable[..., Any]] | None = None
    visits: tuple[Visit, ...] | None = None
    weight_paths: Collection[str] | None = None
    train: bool = False


class StartFunction(Protocol):
    """How the state of a penalty starts."""

    def __call__(self, params: Params, /) -> Any:
        """The state before the first update; it raises if a pattern matches no leaf.

        Args:
          params: the network's parameters, or their shapes.

        Returns:
          A tree of arrays, () for a penalty that remembers nothing.
        """
        ...


class ValueFunction(Protocol):
    """R, without its λ."""

    def __call__(self, params: Params, context: Any, state: Any, /) -> tuple[Array, Any]:
        """The penalty at some parameters.

        Args:
          params: the network's parameters.
          context: a `Context`; None for a penalty on parameters alone, whose weights are then the matrices.
          state: what the penalty remembers.

        Returns:
          R, a scalar of at least float32, and the state for the next update.
        """
        ...


class CoversFunction(Protocol):
    """Which leaves a penalty looks at."""

    def __call__(self, params: Params, weight_paths: Collection[str] | None = None, /) -> list[str]:
        """The paths of the leaves.

        Args:
          params: the network's parameters, or their shapes.
          weight_paths: the paths of the weights, as the network's cells say; None: the matrices.

        Returns:
          Paths such as "layer_0/W_hh"; [] for a penalty on states.
        """
        ...


class ProxFunction(Protocol):
    """The proximal step of a penalty, by which zeros become exact."""

    def __call__(
        self,
        params: Params,
        amount: Any,
        weight_paths: Collection[str] | None = None,
        state: Any = None,
        /,
    ) -> Params:
        """argmin_v R(v) + ½ Σ_i (v_i − w_i)² / a_i over the leaves that the penalty covers; the others are as given.

        Args:
          params: w, the network's parameters.
          amount: a = step · λ, at least 0. One number; or a tree like `params`, of numbers and of arrays like the
            leaves (a diagonal metric). a = 0 leaves w as it is.
          weight_paths: the paths of the weights, as the network's cells say; None: the matrices.
          state: what the penalty remembers, as it was given to `value` in this update.

        Returns:
          The parameters after the step, in the same dtypes.

        Raises:
          ValueError: an amount for each element, and a prox that is not defined for it.
        """
        ...


def _nothing(params: Params, weight_paths: Any = None) -> list[str]:
    del params, weight_paths
    return []


@dataclasses.dataclass(frozen=True)
class Penalty:
    """R(W), which never sees its λ.

    A plain function of parameters too: `jax.jit(penalty)`, `jax.grad(penalty)` and `jax.vmap(penalty)` take it as it
    is. `dataclasses.replace(penalty, name="own")` is one with other facts.

    Attributes:
      init: `init(params) -> state`; see `StartFunction`.
      value: `value(params, context, state) -> (scalar, state)`; see `ValueFunction`.
      needs: which of "states", "state_gradients" and "step" the context must hold; only what some
        penalty asks for is computed.
      covers: `covers(params, weight_paths=None) -> [path, ...]`; see `CoversFunction`.
      name: of the factory that made it, for descriptions; "custom" for a user's own.
      arguments: its arguments, pairs of name and value.
      isotropic: whether R of a matrix is a function of its singular values, so that it says nothing about a matrix
        whose parametrisation fixes them.
      prox: `prox(params, amount, weight_paths=None, state=None) -> params`, for `rr.make_train(…, proximal=…)`; see
        `ProxFunction`. None if R has none.
      decays: whether its gradient holds c·w of every weight w that it covers, as weight decay does.
      strength: `strength(state) -> s`, the number by which `value` of an update multiplies R; None: 1.

    >>> import jax.numpy as jnp, rnnreg as rr
    >>> params = {"layer_0": {"W_hh": 2 * jnp.ones((2, 2))}}
    >>> float(rr.penalties.l2("W_hh")(params))
    16.0

    One of your own, R = Σ ‖W_hh − W_hh(start)‖², remembers the matrix that training starts from:

    >>> def start(params):
    ...     return params["layer_0"]["W_hh"]
    >>> def distance(params, context, state):
    ...     return jnp.sum((params["layer_0"]["W_hh"] - state) ** 2), state
    >>> penalty = rr.penalties.Penalty(start, distance)
    >>> float(penalty(params)), float(distance({"layer_0": {"W_hh": jnp.ones((2, 2))}}, None, start(params))[0])
    (0.0, 4.0)

    `rr.make_train(…, penalties={"distance": penalty})` reads its λ from `hyper["distance"]`.
    """

    init: StartFunction
    value: ValueFunction
    needs: frozenset[str] = frozenset()
    covers: CoversFunction = dataclasses.field(default_factory=lambda: _nothing)
    name: str = "custom"
    arguments: tuple[tuple[str, Any], ...] = ()
    isotropic: bool = False
    prox: ProxFunction | None = None
    decays: bool = False
    strength: Callable[[Any], Any] | None = None

    def __hash__(self) -> int:
        return hash(
            (self.init, self.value, self.name)
        )  # not of the arguments, which may hold arrays

    @typed
    def __call__(self, params: Params, *, net: Network | None = None) -> Array:
        """R at some parameters, without its λ; inside `jax.jit` and `jax.grad` too.

        Args:
          params: the network's parameters.
          net: the network, whose cells say which of their leaves are weights, and whose parametrisations are carried
            out; None takes the matrices.

        Returns:
          A scalar.

        Raises:
          ValueError: a penalty that looks at states, or a pattern that matches nothing that is penalised.
        """
        if self.needs:
            raise ValueError(
                f"the penalty {self.name!r} needs {sorted(self.needs)} of a batch, not the parameters alone; use "
                "rr.make_objective(net, loss, {name: penalty}), which returns its value in `parts.penalties`."
            )
        params = params if net is None else effective(net, params)
        paths = None if net is None else weight_paths(net, params)
        context = Context(outputs=None, weight_paths=paths)
        return value_of(self, params, context, self.init(params), f"the penalty {self.name!r}")[0]


def value_of(
    penalty: Penalty, params: Params, context: Context, state: Any, what: str
) -> tuple[Array, Any]:
    """R and the next state; raises where a function of the user's own returns anything else."""
    returned = penalty.value(params, context, state)
    expected = f"the value function of {what} must return a pair (R, state), R one real number"
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ValueError(f"{expected}; got {_shown(returned)} alone. Write `return R, state`.")
    value, after = returned
    leaf = isinstance(value, (float, np.ndarray, np.floating, Array))
    if not leaf or jnp.shape(value) or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise ValueError(f"{expected}; R is {_shown(value)}. Add up its elements with jnp.sum.")
    return jnp.asarray(value), after


def check_penalty(name: Any, penalty: Any) -> None:
    """Raises if a penalty of a run has no word for its name, or is none."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            f"{name!r} cannot name a penalty: use a word of letters, digits and _; its λ has the same name."
        )
    if not isinstance(penalty, Penalty):
        raise ValueError(
            f"penalties[{name!r}] must be a Penalty such as rr.penalties.l2(); got {penalty!r}. Its λ comes "
            "from hyper. A function f(w) of each weight becomes one with rr.penalties.elementwise(f), any other with "
            "rr.penalties.Penalty(init, value)."
        )
    if not penalty.needs <= NEEDS:
        raise ValueError(
            f"penalties[{name!r}] needs {sorted(penalty.needs - NEEDS)[0]!r}; a penalty may need "
            f"{sorted(NEEDS)}."
        )


def check_kept(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raises if the state of a penalty has another structure or other shapes after an update: a loop carries it."""
    for name, old in before.items():
        shapes, now = (jax.tree.map(jnp.shape, state) for state in (old, after[name]))
        if shapes != now:
            raise ValueError(
                f"the value function of penalties[{name!r}] must return the state with the shapes that it was given, "
                f"() if nothing is remembered; it was {_shown(old)} and became {_shown(after[name])}. Make all that "
                "it remembers in its init function."
            )


def _shown(value: Any) -> str:
    """Shape and dtype of an array, a tree of them, or the type of anything else."""
    if isinstance(value, (np.ndarray, Array)):
        return f"{value.dtype} of shape {value.shape}"
    return (
        str(jax.tree.map(_shown, value))
        if isinstance(value, (dict, tuple, list))
        else type(value).__name__
    )


@typed
def covered(penalty: Penalty, params: Params, *, net: Network | None = None) -> list[str]:
    """The paths of the leaves that a penalty covers, so that a renamed leaf never escapes unseen.

    Args:
      penalty: the penalty.
      params: parameters of the network.
      net: the network, whose cells say which of their leaves are weights; None takes the matrices.

    Returns:
      Paths such as "layer_0/W_hh".

    Raises:
      ValueError: a pattern that matches nothing that is penalised.

    >>> import rnnreg as rr, jax
    >>> net = rr.network([rr.cells.elman(hidden_size=4)], output_size=1)
    >>> covered(rr.penalties.l2(), net.init(jax.random.key(0), input_size=2), net=net)
    ['layer_0/W_hh', 'layer_0/W_xh', 'readout/W_hy']
    """
    if net is None:
        return penalty.covers(params, None)
    params = effective_shapes(net, params)
    return penalty.covers(params, weight_paths(net, params))


def select(
    params: Params,
    paths: str | Sequence[str],
    include_biases: bool,
    weights: Collection[str] | None = None,
    *,
    what: str = "penalty",
) -> dict[str, Any]:
    """The leaves whose path, or last name, matches a pattern; each once, however many match it.

    Leaves that are not weights (biases, gains, scales) need `include_biases`; learned initial states need a pattern
    that names them. Stored statistics are none.

    Args:
      params: the parameters.
      paths: one pattern or several.
      include_biases: cover what is not a weight too.
      weights: the paths of the weights; None: the matrices.
      what: whose pattern it is, for the message.

    Raises:
      ValueError: a pattern matches no leaf, or only leaves that are left out.
    """
    patterns = [paths] if isinstance(paths, str) else list(paths)
    leaves = leaf_paths(params)
    stored = statistics(leaves)
    leaves = {path: leaf for path, leaf in leaves.items() if path not in stored}
    shrunk = set(matrices(leaves) if weights is None else weights)
    chosen: dict[str, Any] = {}
    for pattern in patterns:
        found = [path for path in leaves if _matches(path, pattern, shrunk)]
        if not found:
            raise ValueError(
                f"{what} path {pattern!r} matches no leaf; the leaves are {sorted(leaves)}. A pattern "
                "matches a whole path or a last name, for example 'W_hh' or 'layer_0/*'; biases need "
                "include_biases=True."
            )
        counted = [
            p for p in found if include_biases or p in shrunk or _is_start(p, pattern, shrunk)
        ]
        if not counted:
            raise ValueError(
                f"{what} path {pattern!r} matches only leaves that are not weights ({', '.join(found)}): biases, "
                "gains and scales are left out; give include_biases=True."
            )
        chosen |= {path: leaves[path] for path in counted}
    return dict(sorted(chosen.items()))


def _matches(path: str, pattern: str, weights: Collection[str]) -> bool:
    """Whether a pattern is that of a path or of its last name; a learned start wants a pattern that names it."""
    start = is_learned_start(path) and path not in weights
    return path_matches(path, pattern) and (not start or "initial" in pattern)


def _is_start(path: str, pattern: str, weights: Collection[str]) -> bool:
    """Whether a path is a learned start that its pattern names."""
    return is_learned_start(path) and path not in weights and "initial" in pattern


def on_leaves(
    function: Callable[[Array, Array], Array], params: Params, amount: Any, paths: Iterable[str]
) -> Params:
    """The tree with `function(leaf, its amount)` at some paths, computed in at least float32 and kept in its dtype.

    >>> halved = on_leaves(lambda w, a: w / (1 + a), {"W": jnp.ones(2), "b": jnp.ones(1)}, 1.0, ["W"])
    >>> halved["W"].tolist(), halved["b"].tolist()
    ([0.5, 0.5], [1.0])
    """
    leaves, amounts = leaf_paths(params), amounts_of(amount, params)

    def moved(path):
        leaf, dtype = leaves[path], wide(leaves[path].dtype)
        return function(leaf.astype(dtype), jnp.asarray(amounts[path], dtype)).astype(leaf.dtype)

    return with_leaves(params, {path: moved(path) for path in paths})


def amounts_of(amount: Any, params: Params) -> dict[str, Any]:
    """The amount of every leaf by path: one number for all, or a tree of them.

    >>> amounts_of(0.5, {"W": 1.0, "b": 2.0}), amounts_of({"W": 0.1, "b": 0.2}, {"W": 1.0, "b": 2.0})
    ({'W': 0.5, 'b': 0.5}, {'W': 0.1, 'b': 0.2})
    """
    if jax.tree.structure(amount) == jax.tree.structure(params):
        return leaf_paths(amount)
    return dict.fromkeys(leaf_paths(params), amount)
