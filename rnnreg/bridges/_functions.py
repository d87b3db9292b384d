"""A network from a pair of pure functions."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice, check_count, check_mask
from rnnreg._linalg import computing
from rnnreg._signatures import typed
from rnnreg.cells import Made
from rnnreg.networks import Network, NetworkOutput

Params = dict[str, Any]

READOUTS = {"all": 3, "last": 2}  # by how many axes the outputs have
INIT_TAKES = ("input_size", "dtype")
APPLY_TAKES = ("mask", "state", "key", "train", "perturbations")
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # names nothing
_LACKS = {  # what a function takes not, and what to do
    "mask": "mask, so that padded steps would count like true ones. Give it one, or give sequences without padding",
    "state": "state to go on from. Give it one, and return rr.networks.NetworkOutput(outputs, states, final_state)",
    "perturbations": "perturbations, without which ∂L/∂h_t is not known. Give it some, zeros by layer added to each h",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Functions:
    """`apply` of a network that is known as a function: gives it what it takes, and checks what it returns.

    Attributes:
      function: `function(params, xs, **taken)`, which returns outputs or a `NetworkOutput`.
      takes: which of mask, state, key, train and perturbations it takes.
      readout: "all" for outputs `[B, T, O]`, "last" for `[B, O]`.
      name: for messages.
    """

    function: Callable[..., Any]
    takes: frozenset[str]
    readout: str
    name: str

    @property
    def random(self) -> bool:
        """Whether training draws random numbers: a function that takes a key is assumed to use it."""
        return "key" in self.takes

    @typed
    def __call__(
        self,
        params: Params,
        xs: Array,
        *,
        mask: Array | None = None,
        state: dict[str, Any] | None = None,
        key: Array | None = None,
        train: bool = False,
        perturbations: dict[str, Any] | None = None,
    ) -> NetworkOutput:
        """As `Network.apply`; masked inputs are set to 0, and states are empty unless the function returns them."""
        xs = jnp.asarray(xs)
        if xs.ndim != (2 if jnp.issubdtype(xs.dtype, jnp.integer) else 3):
            raise ValueError(
                f"xs must be [B, T, D] real numbers or [B, T] integer tokens; got shape {xs.shape} of {xs.dtype}."
            )
        if train and key is None and self.random:
            raise ValueError(f"{self.name} draws in training: pass apply(…, train=True, key=key).")
        given = {"mask": mask, "state": state, "perturbations": perturbations}
        for what, value in given.items():
            if value is not None and what not in self.takes:
                raise ValueError(f"{self.name} takes no {_LACKS[what]}.")
        if mask is not None:
            check_mask(mask, xs.shape[:2])  # NaN at padding times a zero gradient would be NaN
            xs = jnp.where(mask.astype(bool).reshape(mask.shape + (1,) * (xs.ndim - 2)), xs, 0)
        given |= {"key": key if train else None, "train": train}
        taken = {name: value for name, value in given.items() if name in self.takes}
        found = self.function(*computing(params, xs), **taken)
        out = found if isinstance(found, NetworkOutput) else NetworkOutput(found, {}, {})
        if not hasattr(out.outputs, "shape"):
            raise ValueError(
                f"{self.name} must return outputs, or rr.networks.NetworkOutput(outputs, states, final_state); got "
                f"{type(found).__name__}."
            )
        if out.outputs.ndim != READOUTS[self.readout]:
            expected = "[B, T, O]" if self.readout == "all" else "[B, O]"
            raise ValueError(
                f"with readout={self.readout!r}, {self.name} must return outputs {expected}; got shape "
                f"{out.outputs.shape}. readout='all' is for an output at each step, 'last' for one a sequence."
            )
        return out


@typed
def from_functions(
    init: Callable[..., Params],
    apply: Callable[..., Any],
    *,
    output_size: int | None = None,
    readout: str = "all",
    decayed: str | Sequence[str] | None = None,
) -> Network:
    """A network from two pure functions, `init(key) -> params` and `apply(params, xs) -> outputs`.

    It trains, sweeps, and takes every penalty on weights and every diagnostic of parameters and outputs. What else the
    functions take is read once, from the names of their arguments:

    | | may also take, by name |
    |---|---|
    | `init(key)` | `input_size` (D; None for tokens), `dtype` |
    | `apply(params, xs)` | `mask [B, T]`, `key`, `train`, `state`, `perturbations`; see `rr.networks.Network` |

    Args:
      init: draws the parameters: nested dicts of real arrays. Names hold no "." and no "/".
      apply: outputs `[B, T, O]` or `[B, O]` for `xs [B, T, D]` (or `[B, T]` tokens), each row apart from the others:
        statistics over the batch would count the rows that fill up minibatches and folds. If it knows its states, it
        returns `rr.networks.NetworkOutput(outputs, states, final_state)`; diagnostics of states and gradient flow need
        them. `key` is None outside training.
      output_size: O, which `rr.forecast` asks for; None if it is not stated.
      readout: "all" if there is an output at each step, "last" if there is one for each sequence.
      decayed: what penalties cover, as in `from_flax`.

    Returns:
      The network.

    Raises:
      ValueError: a function that needs an argument of another name, or has a switch (a default True or False) of
        another name that no `functools.partial` binds. Later: wrong parameters or outputs, an unexpected mask.

    >>> import jax, rnnreg as rr
    >>> def init(key, input_size):
    ...     return {"mix": {"kernel": jax.random.normal(key, (input_size, 1)), "bias": jnp.zeros(1)}}
    >>> def apply(params, xs):
    ...     return jnp.cumsum(xs, axis=1) @ params["mix"]["kernel"] + params["mix"]["bias"]
    >>> net = from_functions(init, apply)
    >>> params = net.init(jax.random.key(0), input_size=2)
    >>> net.apply(params, jnp.ones((3, 5, 2))).outputs.shape
    (3, 5, 1)
    >>> rr.penalties.covered(rr.penalties.l2(), params, net=net)
    ['mix/kernel']
    """
    init_takes = takes_of(init, 1, INIT_TAKES, "init")
    apply_takes = takes_of(apply, 2, APPLY_TAKES, "apply")

    def draw(key, input_size, dtype):
        given = {"input_size": input_size, "dtype": dtype}
        return init(key, **{name: given[name] for name in init_takes})

    names = [getattr(one, "__qualname__", type(one).__name__) for one in (init, apply)]
    made = Made("from_functions", (("init", names[0]), ("apply", names[1])))
    run = Functions(apply, apply_takes, readout, f"apply ({names[1]})")
    return network_of(draw, run, output_size=output_size, decayed=decayed, made=made)


def network_of(
    init: Callable[[Array, int | None, Any], Any],
    apply: Functions,
    *,
    output_size: int | None,
    decayed: Sequence[str] | None,
    made: Made,
) -> Network:
    """The network of a function whose arguments are known, with `init(key, input_size, dtype)`."""
    check_choice(apply.readout, "readout", READOUTS)
    if output_size is not None:
        check_count(output_size, "output_size")

    def init_params(key: Array, input_size: int | None = None, *, dtype: Any = None) -> Params:
        """The parameters that the user's `init(key, input_size, dtype)` draws, in `dtype` (None: JAX's default)."""
        dtype = jnp.result_type(float) if dtype is None else dtype
        return as_params(init(key, input_size, dtype), dtype, apply.name)

    facts = {"random": apply.random, "decayed": as_tuple(decayed), "made": made}
    return Network(init_params, apply, (), apply.readout, output_size, **facts)


def as_params(tree: Any, dtype: Any, name: str) -> Params:
    """A tree of parameters in a dtype; raises if it is not a nested dict of real arrays that a file can hold."""
    from flax.traverse_util import flatten_dict

    wanted = (
        f"the parameters of {name} must be nested dicts of arrays, by names without '.' and '/', so that penalties and "
        "files find them"
    )
    flat = flatten_dict(tree) if isinstance(tree, dict) else {(): tree}
    for path, leaf in flat.items():
        if not path or not jax.tree_util.all_leaves([leaf]):
            raise ValueError(f"{wanted}; got {type(leaf).__name__}.")
        for part in path:
            if not isinstance(part, str) or not part or "." in part or "/" in part:
                raise ValueError(f"{wanted}; got the name {part!r}.")
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"the parameters of {name} must be real numbers, which have a gradient; got {jnp.result_type(leaf)}. "
                "Keep constants inside the function."
            )
    if not flat:
        raise ValueError(f"{name} has no parameters, so there is nothing to train.")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def as_tuple(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Names or patterns as a tuple, or None; one may stand alone."""
    return (names,) if isinstance(names, str) else None if names is None else tuple(names)


def takes_of(
    function: Any, num_positional: int, offered: Collection[str], name: str
) -> frozenset[str]:
    """Which of the offered arguments a function takes by name, but for bound ones; raises if it needs others."""
    if not callable(function):
        raise ValueError(f"{name} must be a function; got {function!r}.")
    parameters = list(inspect.signature(function).parameters.values())
    leading = [one for one in parameters if one.kind <= one.POSITIONAL_OR_KEYWORD][:num_positional]
    if len(leading) < num_positional and not any(one.kind is _OPEN[0] for one in parameters):
        raise ValueError(
            f"{name} must take {num_positional} argument(s) by place; its signature is {inspect.signature(function)}."
        )
    bound, taken = _bound(function), set()
    for parameter in parameters:
        if parameter in leading or parameter.kind in _OPEN or parameter.name in bound:
            continue
        if parameter.name in offered and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
            taken.add(parameter.name)
        elif parameter.default is inspect.Parameter.empty:
            raise ValueError(
                f"{name} needs an argument {parameter.name!r}, which nothing gives it; beside the first "
                f"{num_positional} it may take {sorted(offered)} by name. Wrap it in a function that does."
            )
        elif isinstance(parameter.default, bool):
            raise ValueError(
                f"{name} has a switch {parameter.name!r}, which nothing sets, so that it would be "
                f"{parameter.default} in training and evaluation alike; the names understood are {sorted(offered)}. "
                "Rename it, or bind it: functools.partial for a function, a wrapper for a module."
            )
    return frozenset(taken)


def _bound(function: Any) -> set[str]:
    """The keywords that partials bind, under decorators such as `jax.jit` too."""
    function = inspect.unwrap(function)
    if not isinstance(function, functools.partial):
        return set()
    return set(function.keywords) | _bound(function.func)
