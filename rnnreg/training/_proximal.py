"""Proximal steps: how far an optimiser's step goes, and the prox that ends an update."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._tree import leaf_paths, with_leaves
from rnnreg.networks import Network, effective_shapes, weight_paths
from rnnreg.training._records import Params, TrainState
from rnnreg.training._settings import Hyper, Settings, optimizer_of

# An update whose derivative goes through one of these is no product of each gradient with a number of its own.
_MIXING = {"dot_general", "while", "scan", "eigh", "svd", "qr", "cholesky", "triangular_solve"}


class Pull(NamedTuple):
    """What the proximal steps of a run remember; the last two are like the real numbers in the optimiser's state.

    Attributes:
      direction: q, like the parameters: the subgradient of Σ_k R_k that the last prox took, without any λ, which may
        be another one in each update; 0 where none covers.
      unit: what the optimiser's state holds of a gradient of λ_k s_k in every update so far.
      held: what it holds of the p = λ_k s_k q of every update so far.
    """

    direction: Params
    unit: list[Array]
    held: list[Array]


def start_pull(settings: Settings, net: Network, params: Params, opt_state: Any) -> Any:
    """The memory before the first update; () without proximal penalties."""
    if not settings.proximal:
        return ()
    nothing = [jnp.zeros_like(leaf) for leaf in _reals(opt_state)]
    return Pull(_gradient(settings, net, params), nothing, nothing)


def pull_of(settings: Settings, net: Network, state: TrainState, hyper: Hyper) -> Params:
    """p = λ_k s_k q, like the parameters: what is added to the gradient of an update; s_k is that of a schedule."""
    strengths = _strengths(settings, net, state, hyper)
    return jax.tree.map(jnp.multiply, strengths, state.proximal.direction)


def proximal_step(
    settings: Settings,
    net: Network,
    state: TrainState,
    hyper: Hyper,
    updates: Any,
    opt_state: Any,
    **extra: Any,
) -> tuple[Params, Pull]:
    """w ← prox_a(w + u − u_p), after an optimiser that was given ∂L/∂w + p; and the next q. See `make_train`.

    The amount a (λD, if λ is the same in every update) and u_p are derivatives of the optimiser's update at the
    gradient 0, with the moments that its state holds after the update and the counts from before. The derivatives of
    the state itself are carried along: of the gradient λs in `unit`, of p = λsq in `held`. The next q is
    (w + u − u_p − prox) / a, a subgradient of Σ_k R_k at the next w; a place where ∂L/∂w + p = 0 is left by no step,
    whatever D is. Where a is too small for that, w as it is has its q, and a w that moved the gradient of its R.

    Args:
      settings: the static choices of a run.
      net: the network.
      state: before the update.
      hyper: every number of the run, by name.
      updates: u, of the optimiser.
      opt_state: its state after the update.
      **extra: further arguments of its `update`.
    """
    import optax

    params: Any = state.params
    direction, unit, held = state.proximal
    weights, optimizer = weight_paths(net, params), optimizer_of(settings, hyper)
    covers = covered_by(settings, params, weights)
    steps = steps_of(optimizer, state.opt_state, params, **extra)
    respond = _response(optimizer, state.opt_state, opt_state, params, extra)
    answer, unit = respond(_strengths(settings, net, state, hyper), unit)
    taken_out, held = respond(pull_of(settings, net, state, hyper), held)
    # The root of a second moment of 0 has no derivative: there was no gradient yet, and nothing of p to take out.
    changed = jax.tree.map(lambda u, p: u - jnp.where(jnp.isfinite(p), p, 0), updates, taken_out)
    params = optax.apply_updates(params, changed)
    moved = leaf_paths(params)
    amounts = {}
    for path, amount in leaf_paths(answer).items():
        amount = jnp.where(amount < 0, -amount, 0)  # 0 for NaN
        amounts[path] = amount if steps[path] == "each" else amount.reshape(-1)[0]
    for name in settings.proximal:
        prox: Any = settings.penalties[name].prox
        of_state = state.penalty_state[name]
        params = prox(params, with_leaves(params, amounts), weights, of_state)
    before, after, found = leaf_paths(state.params), leaf_paths(params), leaf_paths(direction)
    unread = {}
    for path in (path for paths in covers.values() for path in paths):
        amount, new = amounts[path].astype(after[path].dtype), after[path]
        taken, least = moved[path] - new, 64 * jnp.finfo(new.dtype).eps
        read = jnp.max(jnp.abs(taken)) > least * jnp.max(jnp.abs(new))
        own = jnp.where(amount > 0, taken / jnp.where(amount > 0, amount, 1), found[path])
        unread[path] = ~read & jnp.any(new != before[path])
        found[path] = jnp.where(read, own, found[path])
    old = with_leaves(direction, found)

    def followed(params):
        fresh = leaf_paths(_gradient(settings, net, params))
        new = {path: jnp.where(lost, fresh[path], found[path]) for path, lost in unread.items()}
        return with_leaves(old, new)

    lost = jnp.stack(list(unread.values())).any()
    return params, Pull(jax.lax.cond(lost, followed, lambda params: old, params), unit, held)


def covered_by(settings: Settings, params: Params, weights: list[str]) -> dict[str, list[str]]:
    """The leaves of each proximal penalty.

    Raises:
      ValueError: one leaf that two of them cover.
    """
    owner, covers = {}, {}
    for name in settings.proximal:
        covers[name] = settings.penalties[name].covers(params, weights)
        for path in covers[name]:
            if path in owner:
                raise ValueError(
                    f"the proximal penalties {owner[path]!r} and {name!r} both cover {path!r}, and the prox of a sum "
                    "is not known from those of its terms: take one by its gradient, or rr.penalties.elastic_net."
                )
            owner[path] = name
    return covers


def check_proximal(settings: Settings, hyper: Hyper, net: Network, params: Params) -> None:
    """Raises if the optimiser has no step that a prox of these penalties could follow; nothing is computed."""
    import optax

    weights, optimizer = weight_paths(net, params), optimizer_of(settings, hyper)
    opt_state = jax.eval_shape(optimizer.init, params)

    for kind, why in (
        (
            optax.contrib.ScheduleFreeState,
            "averages the parameters, and an average has no exact zeros",
        ),
        (optax.FactoredState, "factors its second moment and bounds the scaled step (Adafactor)"),
        (
            optax.MultiStepsState,
            "moves the parameters in some of its updates only (optax.MultiSteps), and a prox ends each of them",
        ),
    ):
        if _holds(opt_state, kind):
            raise _undefined(settings, why)
    zero = jnp.zeros(())
    steps = steps_of(optimizer, opt_state, params, value=zero, value_fn=lambda params: zero)
    for kind, why in (
        ("mixed", "mixes the gradients of several weights (a line search, L-BFGS, Muon)"),
        ("sized", "scales the step by the size of the weights, or projects them (LAMB, LARS)"),
        ("valued", "takes the step from the value of the loss (Polyak, MoMo)"),
    ):
        if kind in steps.values():
            raise _undefined(settings, why)
    if not _is_diagonal(settings, hyper, params):
        raise _undefined(settings, "divides or shifts a gradient by a norm or a mean of all")
    amounts = {
        path: jax.ShapeDtypeStruct(leaf.shape if steps[path] == "each" else (), leaf.dtype)
        for path, leaf in leaf_paths(params).items()
    }
    plain = leaf_paths(effective_shapes(net, params))
    for name, paths in covered_by(settings, params, weights).items():
        formed = [path for path in paths if path not in plain]
        if formed:
            raise ValueError(
                f"the prox of penalties[{name!r}] moves what is trained, and a parametrisation makes weights of "
                f"{formed}. Leave these paths out, or take the penalty by its gradient (proximal=False)."
            )
        if "none" in (steps[path] for path in paths):
            raise _undefined(
                settings, "does not answer a small gradient with a small step (it takes its sign)"
            )
        if all(steps[path] == "fixed" for path in paths):
            raise _undefined(settings, f"moves none of the leaves that {name!r} covers")
        own: Any = settings.penalties[name]
        found = jax.eval_shape(
            lambda p, a, own=own: own.prox(p, a, weights, own.init(p)),
            params,
            with_leaves(params, amounts),
        )
        if jax.tree.map(_kind, found) != jax.tree.map(_kind, params):
            raise ValueError(
                f"the prox of penalties[{name!r}] must return parameters of the same shapes and dtypes; it made "
                f"{jax.tree.map(_kind, found)} of {jax.tree.map(_kind, params)}."
            )


def _is_diagonal(settings: Settings, hyper: Hyper, params: Params) -> bool:
    """Whether each element answers a small gradient of its own alone, tried with numbers: steps of random gradients.

    Jaxprs do not tell: clipping sums squares too, and lets a small gradient pass as it is. Moments are 1 here, and so
    is each number of a run that is traced.
    """
    with jax.ensure_compile_time_eval():
        known: Any = {
            name: 1.0 if isinstance(x, jax.core.Tracer) else x for name, x in hyper.items()
        }
        optimizer = optimizer_of(settings, known)
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), params)
        opt_state = optimizer.init(ones)
        moments = [jnp.ones_like(leaf) if leaf.ndim else leaf for leaf in _reals(opt_state)]
        extra = {"value": jnp.ones(()), "value_fn": lambda params: jnp.ones(())}
        respond = _response(optimizer, opt_state, _with_reals(opt_state, moments), ones, extra)
        nothing = jax.tree.map(jnp.zeros_like, moments)
        some = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), ones)
        some = jax.tree.map(lambda leaf, one: leaf.astype(one.dtype), some, ones)
        rates, answers = (respond(gradient, nothing)[0] for gradient in (ones, some))
        pairs = jax.tree.map(
            lambda a, r, s: jnp.allclose(a, r * s, rtol=1e-2, atol=0), answers, rates, some
        )
        return all(map(bool, jax.tree.leaves(pairs)))


def _holds(opt_state: Any, kind: type) -> bool:
    """Whether a part of an optimiser's state is of a kind."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, kind))
    return any(isinstance(part, kind) for part in leaves)


def _undefined(settings: Settings, why: str) -> ValueError:
    return ValueError(
        f"proximal={list(settings.proximal)}: no proximal step is defined for this optimiser, for it {why}. Take "
        "optax.sgd (with momentum, too), adam, adamw, amsgrad, nadam or rmsprop, with schedules and clipping, or leave "
        "proximal out."
    )


def steps_of(optimizer: Any, opt_state: Any, params: Params, **extra: Any) -> dict[str, str]:
    """By path, what an optimiser makes of a small gradient, told from what the derivative of its update depends on.

    A step of "one" rate for the leaf, or of a rate for "each" element; one that depends on the weights ("sized"), on
    the gradients of other elements ("mixed") or on the value of the loss ("valued"); "none", if the update depends on
    the gradient and its derivative does not, now or later; "fixed", if the update does not depend on the gradient.

    >>> import optax
    >>> params = {"W": jnp.ones((2, 2))}
    >>> for optimizer in (optax.sgd(0.1, momentum=0.9), optax.adam(0.1), optax.rprop(0.1)):
    ...     print(steps_of(optax.with_extra_args_support(optimizer), optimizer.init(params), params))
    {'W': 'one'}
    {'W': 'each'}
    {'W': 'none'}
    """

    def answer(gradient, held, opt_state, params):
        return _response(optimizer, opt_state, opt_state, params, extra)(gradient, held)

    def moved(gradient, reals, opt_state, params):
        state = _with_reals(opt_state, reals)
        updates, state = optimizer.update(gradient, state, params, **{**extra, "grad": gradient})
        return updates, _reals(state)

    def by_value(value, tangent, opt_state, params):
        def moved(value):
            given = {**extra, "grad": params, "value": value}
            return optimizer.update(params, opt_state, params, **given)[0]

        return jax.linearize(moved, value)[1](tangent)

    given = (params, _reals(opt_state), opt_state, params)
    jaxpr, plain = (jax.make_jaxpr(function)(*given).jaxpr for function in (answer, moved))
    leaves = [jax.tree.leaves(part) for part in given]
    marks = [[False] * len(part) for part in leaves]
    marks[2] = [_is_real(leaf) and leaf.size > 1 for leaf in leaves[2]]  # no counts and rates
    by_moments = _reached(jaxpr, list(itertools.chain(*marks)))[0]
    marks[2:] = [False] * len(leaves[2]), [True] * len(leaves[3])
    by_weights = _reached(jaxpr, list(itertools.chain(*marks)))[0]
    paths = list(leaf_paths(params))
    valued = [False] * len(paths)
    if "value" in extra:
        ratio = jax.make_jaxpr(by_value)(extra["value"], extra["value"], opt_state, params).jaxpr
        valued = _reached(ratio, [place == 1 for place in range(len(ratio.invars))])[0]
    answers, through = _answered(jaxpr, [True] * len(paths))
    kinds = {}
    for place, path in enumerate(paths):
        if not answers[place]:
            own = [place == other for other in range(len(paths))]
            kinds[path] = "none" if _answered(plain, own)[0][place] else "fixed"
        elif through & _MIXING:
            kinds[path] = "mixed"
        elif valued[place]:
            kinds[path] = "valued"
        else:
            kinds[path] = "sized" if by_weights[place] else "each" if by_moments[place] else "one"
    return kinds


def _answered(jaxpr: Any, given: list[bool]) -> tuple[list[bool], set[str]]:
    """Which updates some gradients reach, at once or through what the state keeps of them; and by which primitives.

    The jaxpr is of (gradients, real numbers of the state, …) to (updates, real numbers of the state).
    """
    num, kept = len(given), [False] * (len(jaxpr.outvars) - len(given))
    rest = [False] * (len(jaxpr.invars) - len(jaxpr.outvars))
    while True:
        found, through = _reached(jaxpr, [*given, *kept, *rest])
        more = [old or new for old, new in zip(kept, found[num:], strict=True)]
        if more == kept:
            return found[:num], through
        kept = more


def _response(
    optimizer: Any, before: Any, after: Any, params: Params, extra: dict[str, Any]
) -> Callable[[Params, list[Array]], tuple[Params, list[Array]]]:
    """How updates and state change with the gradient and the state, at the gradient 0: a linear function.

    Whole numbers, which count updates, are those before the update, and real ones, the moments, those after it.
    """

    def respond(gradient, reals):
        state = _with_reals(before, reals)
        updates, state = optimizer.update(gradient, state, params, **{**extra, "grad": gradient})
        return updates, _reals(state)

    return jax.linearize(respond, jax.tree.map(jnp.zeros_like, params), _reals(after))[1]


def _reached(jaxpr: Any, given: list[bool]) -> tuple[list[bool], set[str]]:
    """Which outputs of a jaxpr depend on the inputs that are marked, and through which primitives."""
    marked = {id(var) for var, is_marked in zip(jaxpr.invars, given, strict=True) if is_marked}
    through: set[str] = set()
    for equation in jaxpr.eqns:
        own = [id(var) in marked for var in equation.invars]
        if not any(own):
            continue
        inner = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
        outputs, names = [True] * len(equation.outvars), {equation.primitive.name}
        if inner is not None:
            outputs, names = _reached(inner.jaxpr, own)
        through |= names
        marked |= {
            id(var) for var, is_marked in zip(equation.outvars, outputs, strict=True) if is_marked
        }
    return [id(var) in marked for var in jaxpr.outvars], through


def _strengths(settings: Settings, net: Network, state: TrainState, hyper: Hyper) -> Params:
    """λ_k s_k at the leaves that penalty k covers, 0 at the others."""
    values = jax.tree.map(jnp.zeros_like, state.params)
    leaves = leaf_paths(values)
    for name, paths in covered_by(settings, state.params, weight_paths(net, state.params)).items():
        factor = settings.penalties[name].strength
        now = 1.0 if factor is None else factor(state.penalty_state[name])
        for path in paths:
            dtype = leaves[path].dtype
            one = jnp.asarray(hyper[name], dtype) * jnp.asarray(now, dtype)
            leaves[path] = leaves[path] + one
    return with_leaves(values, leaves)


def _gradient(settings: Settings, net: Network, params: Params) -> Params:
    """The gradient of Σ_k R_k, as far as they are proximal."""

    def total(params):
        return sum(settings.penalties[name](params, net=net) for name in settings.proximal)

    return jax.grad(total)(params)


def _is_real(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _reals(tree: Any) -> list[Any]:
    """The real leaves of a tree, in order."""
    return [leaf for leaf in jax.tree.leaves(tree) if _is_real(leaf)]


def _with_reals(tree: Any, reals: list[Any]) -> Any:
    """The tree with other real leaves."""
    new = iter(reals)
    return jax.tree.map(lambda leaf: next(new) if _is_real(leaf) else leaf, tree)


def _kind(leaf: Any) -> tuple[Any, Any]:
    return leaf.shape, leaf.dtype
