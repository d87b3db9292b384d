"""What every constraint is: the leaves that it covers, and a map of parameters plus update onto a set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from rnnreg._checks import check_function, check_number, described, warn_caller
from rnnreg._signatures import typed
from rnnreg._tree import leaf_paths, matching, with_leaves
from rnnreg.networks import Network, recurrent_paths
from rnnreg.penalties import select

if TYPE_CHECKING:
    import optax

Paths = str | Sequence[str]
_NAME = "constrained"  # of every step that a constraint makes: the identity, told in a jaxpr
_ARITHMETIC = {"add", "convert_element_type", "div", "integer_pow", "mul", "neg", "sign", "sub"}


class Constrained(NamedTuple):
    """The state of a constraint.

    Attributes:
      covers: by path, what is remembered of each constrained leaf; () for nothing.
    """

    covers: dict[str, Any]


class Signed(NamedTuple):
    """What is remembered of a leaf that a constraint on the signs of units holds: that it does."""


@typed
def project(
    function: Callable[[Array], Array], *, paths: Paths, include_biases: bool = False
) -> optax.GradientTransformation:
    """W ← P(W + update): any map P of one leaf onto a set, after the optimiser.

    It stands at the end of a chain, `optax.chain(optax.adam(1e-3), project(P, paths="W_hh"))`, where an update is the
    step of the parameters; all constraints of this room do. Parameters that start outside of the set are on it after
    the first update, not before. The optimiser's memory, such as momentum, knows nothing of the constraint.

    Args:
      function: P, from W + update to a leaf of the same shape; `optax.projections` has some. It computes in JAX's
        default float dtype, and what it returns is cast to that of the leaf. It may close over traced numbers.
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      include_biases: cover leaves that are no matrices too; else they are left alone.

    Returns:
      An optax transformation, whose state is `Constrained`.

    Raises:
      ValueError: no function; at `init`, a pattern that matches no leaf; at `update`, no parameters.

    >>> import jax, optax
    >>> box = project(lambda W: optax.projections.projection_box(W, -0.5, 0.5), paths="W_hh")
    >>> params = {"W_hh": jnp.array([[0.25, -0.75]]), "b_h": jnp.zeros(2)}
    >>> updates, _ = box.update(jax.tree.map(jnp.ones_like, params), box.init(params), params)
    >>> {name: leaf.tolist() for name, leaf in optax.apply_updates(params, updates).items()}
    {'W_hh': [[0.5, 0.25]], 'b_h': [1.0, 1.0]}
    """
    check_function(function, "function", "P(W) -> W")

    def checked(path, W, _):
        found = function(W)
        if jnp.shape(found) != W.shape:
            raise ValueError(
                f"a projection must keep the shape {W.shape} of {path}; it returned {described(found)}."
            )
        return jnp.asarray(found)

    return constraint(checked, paths, include_biases=include_biases)


@typed
def covering(paths: Paths = "*", *, include_biases: bool = False) -> Callable[[Any], Any]:
    """Which leaves match by path, in the form that optax takes as a mask, such as that of `optax.masked`.

    Args:
      paths: one pattern or several; each matches a whole path ("layer_0/*") or a last name ("W_hh").
      include_biases: cover leaves that are no matrices too.

    Returns:
      A function from parameters to a tree of True and False, which every argument `mask` of optax takes.

    Raises:
      ValueError: when it is called, a pattern that matches no leaf.

    >>> covering("W_*")({"W_hh": jnp.ones((2, 2)), "b_h": jnp.ones(2)})
    {'W_hh': True, 'b_h': False}
    """

    def mask(params):
        chosen = select(params, paths, include_biases, what="constraint")
        flags = {path: path in chosen for path in leaf_paths(params)}
        return with_leaves(params, flags)

    return mask


def constraint(
    function: Callable[[str, Array, Any], Array],
    paths: Paths,
    *,
    include_biases: bool = False,
    matrices: str | None = None,
    start: Callable[[str, Array], Any] = lambda path, leaf: (),
) -> optax.GradientTransformation:
    """W ← function(path, W + update, what is remembered) of the covered leaves.

    Args:
      function: the map of one leaf.
      paths: which leaves.
      include_biases: cover leaves that are no matrices too.
      matrices: the name of a constraint that takes matrices alone, for its message; None takes any leaf.
      start: what is remembered of a leaf, from its path and its first value; it raises if the leaf does not fit.
    """
    import optax

    def init(params):
        if matrices is not None:
            _check_matrices(params, paths, matrices)
        chosen = select(params, paths, include_biases, what="constraint")
        return Constrained({path: start(path, leaf) for path, leaf in chosen.items()})

    def update(updates, state, params=None):
        leaves, steps = given(params), leaf_paths(updates)
        moved = {
            path: _moved(function, path, leaves[path], steps[path], kept)
            for path, kept in state.covers.items()
        }
        return with_leaves(updates, moved), state

    return optax.GradientTransformation(init, update)


def given(params: Any) -> dict[str, Any]:
    """The leaves by path; raises if an update was called without parameters."""
    if params is None:
        raise ValueError(
            "constraints and decay need the parameters: call update(updates, state, params)."
        )
    return leaf_paths(params)


def warn_of_constraints(optimizer: Any, net: Network, params: Any) -> None:
    """Warns if what follows a constraint undoes it, or if a unit is held to a sign that its output has not.

    Args:
      optimizer: an optax transformation that takes extra arguments.
      net: the network.
      params: its parameters, or their shapes.
    """
    opt_state = jax.eval_shape(optimizer.init, params)
    parts = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, Constrained))
    covers: dict[str, Any] = {}
    for part in parts:
        covers |= part.covers if isinstance(part, Constrained) else {}
    undone = sorted(_undone(optimizer, opt_state, params) & set(covers)) if covers else []
    if undone:
        warn_caller(
            f"the constraint of {undone} is followed by another transformation that changes its step, such as the "
            "learning rate, so that nothing holds it. Constraints stand at the end: optax.chain(optax.sgd(0.1), "
            "rr.constraints.l2_ball(0.5, paths='W_hh'))."
        )
    held = {path for path, kept in covers.items() if isinstance(kept, Signed)}
    for path in held.intersection(recurrent_paths(net, params)) if held else ():
        cell = net.layers[int(path.split("/")[0].removeprefix("layer_"))].cell
        bounds = cell.facts.bounds
        if bounds is not None and bounds[0] < 0:
            warn_caller(
                f"rr.constraints.dale gives the rows of {path!r} signs, and the units of this cell have none: their "
                f"output lies in {bounds}. Use outputs of at least 0, such as rr.cells.elman(activation='relu')."
            )


def _undone(optimizer: Any, opt_state: Any, params: Any) -> set[str]:
    """The leaves whose update is a constraint's step with plain arithmetic after it; branches hide it."""
    scalar = jax.ShapeDtypeStruct((), jnp.result_type(float))

    def update(updates, state, params, value):
        extra = {"value": value, "grad": updates, "value_fn": lambda params: value}
        return optimizer.update(updates, state, params, **extra)[0]

    jaxpr = jax.make_jaxpr(update)(params, opt_state, params, scalar).jaxpr
    steps, changed = set(), set()
    for equation in jaxpr.eqns:
        read, made = (set(map(id, some)) for some in (equation.invars, equation.outvars))
        name = equation.primitive.name
        if name == "name" and equation.params["name"] == _NAME:
            steps |= made
        elif name in _ARITHMETIC and read & (steps | changed):
            changed |= made
    pairs = zip(leaf_paths(params), jaxpr.outvars, strict=True)
    return {path for path, var in pairs if id(var) in changed}


def check_radius(radius: Any, name: str = "radius") -> None:
    """Raises if a concrete radius is not above 0."""
    check_number(radius, name, least=0, above=True)


def _moved(function: Any, path: str, leaf: Array, step: Array, kept: Any) -> Array:
    real = jnp.result_type(float)  # optax's projection on the L1 ball takes no other dtype
    before = leaf.astype(real)
    after = function(path, before + step.astype(real), kept)
    return checkpoint_name((after.astype(real) - before).astype(step.dtype), _NAME)


def _check_matrices(params: Any, paths: Paths, name: str) -> None:
    """Raises if a pattern matches leaves and none of them is a matrix, or one has more than two axes."""
    for pattern in [paths] if isinstance(paths, str) else paths:
        shapes = {
            path: jnp.shape(leaf) for path, leaf in matching(leaf_paths(params), pattern).items()
        }
        axes = {path: len(shape) for path, shape in shapes.items()}
        none = [] if 2 in axes.values() else list(axes)
        for path in [path for path, number in axes.items() if number > 2] or none:
            raise ValueError(
                f"{name} constrains matrices; its path {pattern!r} matches {path} of shape {shapes[path]}."
            )
