"""A score as a function of hyperparameters: which of them move, and the derivative by forward or by reverse mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_number
from rnnreg.data import Split
from rnnreg.training import Hyper, Settings

_MOST_FORWARD = 2  # names; see `hypergradient`


def goes_forward(settings: Settings, names: Sequence[str]) -> bool:
    """Whether forward mode is the better one.

    A proximal step looks at the optimiser's answer to the gradient 0, where a norm has no second derivative: so reverse
    mode through clipping is NaN there, and forward mode is not.
    """
    return len(names) <= _MOST_FORWARD or bool(settings.proximal)


def tuned_names(
    settings: Settings, hyper: Mapping[str, Any], names: str | Sequence[str] | None, *, log: bool
) -> tuple[str, ...]:
    """The hyperparameters that move; by default the λ of every penalty.

    Raises:
      ValueError: a name that is not in `hyper`, no name at all, or a value without a logarithm.
    """
    if names is None:
        names = tuple(settings.penalties)
    names = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    if not names:
        raise ValueError(
            "names must hold a hyperparameter, such as names='learning_rate': this run has no penalty whose λ would be "
            "taken."
        )
    for name in names:
        if name not in hyper:
            raise ValueError(f"names must be names of hyper, {sorted(hyper)}; got {name!r}.")
        if jnp.shape(hyper[name]) != ():
            raise ValueError(
                f"hyper[{name!r}] must be one number; got the shape {jnp.shape(hyper[name])}. Several λ, one for each "
                'part of the weights, are several penalties: {"l2_hh": rr.penalties.l2("W_hh"), …}.'
            )
        hint = "Leave it out of names=…" + ", or take d/dλ with log=False." * log
        least = 0 if log else float("-inf")
        check_number(hyper[name], f"hyper[{name!r}]", least=least, above=log, hint=hint)
    return names


def check_tunable(settings: Settings, data: Split, what: str) -> None:
    """Raises if the validation score at the end of a run is not what its settings mean."""
    if settings.keep_best or settings.patience is not None:
        raise ValueError(
            f"{what} is defined at the end of a run, and this one goes back to its best record (keep_best) or stops "
            "early (patience), which no derivative sees. Take train.with_epochs(n, early_stopping=False)."
        )
    if settings.devices is not None:
        raise ValueError(
            f"{what} takes a run whose rows stay together: the train before split_rows."
        )
    if data.validation is None:
        raise ValueError(
            f"{what} needs validation rows, and data has none: rr.Split(train, validation=batch), or rr.data.take_fold."
        )


def value_and_slopes(
    function: Callable[[Hyper], tuple[Array, Any]],
    hyper: Hyper,
    names: Sequence[str],
    *,
    log: bool,
    forward: bool,
) -> tuple[Array, dict[str, Array], Any]:
    """`function(hyper) = (value, rest)`, and the derivative of the value in each name, or in its logarithm.

    >>> hyper = Hyper({"a": 2.0, "b": 3.0})
    >>> function = lambda hyper: (hyper["a"] ** 2 * hyper["b"], ())
    >>> value, slopes, _ = value_and_slopes(function, hyper, ["a", "b"], log=False, forward=True)
    >>> float(value), {name: float(slope) for name, slope in slopes.items()}
    (12.0, {'a': 12.0, 'b': 4.0})
    """
    at = {name: as_number(value) for name, value in hyper.items() if name in names}
    none = {name: jnp.zeros_like(value) for name, value in at.items()}

    def moved(shifts):  # at a shift of 0 each value is what it was, bit for bit
        values = {
            name: value * jnp.exp(shifts[name]) if log else value + shifts[name]
            for name, value in at.items()
        }
        return function(with_values(hyper, values))

    if not forward:
        (value, rest), slopes = jax.value_and_grad(moved, has_aux=True)(none)
        return value, slopes, rest

    def push(direction):
        return jax.jvp(moved, (none,), (direction,), has_aux=True)

    one_each = jnp.eye(len(at))
    directions = {name: one_each[i].astype(at[name].dtype) for i, name in enumerate(at)}
    value, slopes, rest = jax.vmap(push, out_axes=(None, 0, None))(directions)
    return value, dict(zip(at, slopes, strict=True)), rest


def with_values(hyper: Hyper, values: Mapping[str, Any]) -> Hyper:
    """Other values of some names; what is read there counts as read here, and copying reads nothing."""
    changed = Hyper(dict(hyper.items()) | dict(values))
    changed.reads = hyper.reads
    return changed


def as_number(value: Any) -> Array:
    """A hyperparameter as a real number that can be differentiated."""
    value = jnp.asarray(value)
    return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)
