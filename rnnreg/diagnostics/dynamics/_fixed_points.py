"""Fixed and slow points of a recurrence at a constant input, and what kind each is."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_count, check_number, described
from rnnreg._linalg import safe_divide
from rnnreg._signatures import typed
from rnnreg.cells import Cell
from rnnreg.diagnostics.dynamics._system import Dynamics, System, dynamics_of, flattened, settled
from rnnreg.networks import Network

Params = Any


class FixedPoints(NamedTuple):
    """Where the search ended, one row a start; `distinct_points` makes a list of points of it.

    Attributes:
      points: `[S, n]`, all that is carried in one vector (the order is `places`).
      speed: `[S]`, q = ½‖F(h) − h‖² there.
      slope: `[S]`, ‖∂q/∂h‖, 0 at a minimum of the speed.
      distance: `[S]`, the slope over the curvature of q along it: how far the minimum lies, ∞ where q curves down.
      jacobians: `[S, n, n]`, ∂F_i/∂h_j.
      places: by the name of a field, such as "layer_0/h", its `(begin, end)` among the n.
    """

    points: Array
    speed: Array
    slope: Array
    distance: Array
    jacobians: Array
    places: dict[str, tuple[int, int]]


@typed
def fixed_points(
    system: System,
    params: Any,
    x: Array,
    *,
    starts: Any,
    num_descent: int = 500,
    learning_rate: float = 0.02,
    num_newton: int = 30,
) -> FixedPoints:
    """Minima of q(h) = ½‖F(h, x) − h‖² at a constant input x, from many starts at once.

    First Adam, which goes to the next valley, then Gauss–Newton steps with Levenberg–Marquardt damping, which finish
    fixed points of any stability (saddles too, where iterating F would leave) and do not diverge at slow points,
    where Newton's would. Both take a fixed number of steps. The starts decide what is found: take states that the
    network visits, some of them disturbed, and more of them until the list does not grow. A cell whose steps differ
    (`rr.cells.batch_norm`) is taken with the statistics of its last step, which all later ones use: the search starts
    with the count of steps there, whatever `starts` holds of it.

    How to read it: q near 0 is a fixed point of the network at this input; a minimum with a small q that is not 0 is a
    slow point, the ghost of a fixed point, where a trajectory lingers for about 1/√(2q) steps a unit of distance. Give
    the record to `distinct_points` for the list, its stability and its counts.

    Args:
      system: a network (without dropout), a cell, or a function `step(params, state, x)` on rows.
      params: its parameters.
      x: `[D]`, the input that is held.
      starts: S states to start from: `[S, n]` in the order of `places`, or a tree as the system carries it.
      num_descent: Adam steps.
      learning_rate: of Adam, falling to 0 on a cosine.
      num_newton: damped Gauss–Newton steps; each solves an n × n system a start.

    Returns:
      The end of each search, with its speed and its Jacobian.

    Raises:
      ValueError: x that is not a vector, counts of steps that are not whole, or x, parameters or starts that do not
        fit the system.

    Source: Sussillo & Barak 2013, "Opening the black box", Neural Computation 25.

    >>> def step(params, state, x):
    ...     return jnp.tanh(params * state + x)
    >>> starts = jnp.array([[-1.0], [0.1], [1.0]])
    >>> found = fixed_points(step, 2.0, jnp.zeros(1), starts=starts)
    >>> table = distinct_points(found)
    >>> table.kind, [f"{point:.3f}" for point in table.points[:, 0]]
    (('stable', 'stable', 'unstable'), ['-0.958', '0.958', '0.000'])
    """
    check_count(num_descent, "num_descent", least=0)
    check_count(num_newton, "num_newton", least=0)
    check_number(learning_rate, "learning_rate", least=0)
    x = jnp.asarray(x)
    if x.ndim != 1:
        raise ValueError(
            f"x must be one input [D], held constant; got shape {x.shape}. For several inputs vmap over x."
        )
    dynamics, start = _start(system, params, x, starts)

    def residual(state):
        return dynamics.step(state[None], x[None])[0] - state

    def speed(state):
        return 0.5 * jnp.sum(jnp.square(residual(state)))

    def search(state):
        return _newton(residual, _descend(speed, state, learning_rate, num_descent), num_newton)

    points = jax.vmap(search)(start)
    identity = jnp.eye(dynamics.size, dtype=points.dtype)
    jacobians = jax.vmap(lambda state: jax.jacfwd(residual)(state) + identity)(points)
    slope, distance = jax.vmap(lambda state: _to_minimum(speed, state))(points)
    places = {name: (place.start, place.stop) for name, place in dynamics.places.items()}
    return FixedPoints(points, jax.vmap(speed)(points), slope, distance, jacobians, places)


def _to_minimum(speed, state: Array) -> tuple[Array, Array]:
    """‖∂q/∂h‖, and how far along it the parabola through q here has its minimum."""
    gradient = jax.grad(speed)(state)
    largest = jnp.max(jnp.abs(gradient))
    scaled = safe_divide(gradient, largest)  # squares do not underflow
    length = jnp.linalg.norm(scaled)
    along = safe_divide(scaled, length)
    curvature = along @ jax.jvp(jax.grad(speed), (state,), (along,))[1]
    slope = length * largest
    distance = jnp.where(curvature > 0, safe_divide(slope, curvature), jnp.inf)
    return slope, jnp.where(slope == 0, 0, distance)


def _start(system: System, params: Params, x: Array, starts: Any) -> tuple[Dynamics, Array]:
    """The map, and the flat states `[S, n]` to start from."""
    leaves = jax.tree.leaves(starts)
    if not leaves or any(jnp.ndim(leaf) < 2 for leaf in leaves):
        raise ValueError(
            f"starts must be S states, [S, n] or a tree of [S, …]; got {jax.tree.map(jnp.shape, starts)}."
        )
    xs = jnp.broadcast_to(x, (len(leaves[0]), 1, *x.shape))
    flat = isinstance(starts, (jax.Array, np.ndarray)) and isinstance(system, (Network, Cell))
    dynamics = dynamics_of(system, params, xs, state=None if flat else starts)
    if not flat:
        return dynamics, _settled(system, dynamics, dynamics.start)
    start = jnp.asarray(starts, dynamics.start.dtype)
    if start.shape != dynamics.start.shape:
        raise ValueError(
            f"the state has {dynamics.size} numbers, {list(dynamics.places)}, so starts must be [S, {dynamics.size}]; "
            f"got {start.shape}."
        )
    return dynamics, _settled(system, dynamics, start)


def _settled(system: System, dynamics: Dynamics, start: Array) -> Array:
    """The starts, from where on each step is the same map."""
    return flattened(settled(system, dynamics.unflatten(start)))


def _descend(speed, state: Array, learning_rate: float, num_steps: int) -> Array:
    """Adam on q."""
    if num_steps < 1:
        return state
    import optax

    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def step(carry, _):
        state, memory = carry
        updates, memory = optimizer.update(jax.grad(speed)(state), memory)
        return (state + updates, memory), None

    (state, _), _ = jax.lax.scan(step, (state, optimizer.init(state)), length=num_steps)
    return state


class _Damped(NamedTuple):
    """A point of the search, and the damping that the next step tries first."""

    state: Array
    damping: Array


def _newton(residual, state: Array, num_steps: int) -> Array:
    """Levenberg–Marquardt on ½‖r‖²; a step that does not lower it is not taken, and damped more next time."""
    tiny = jnp.finfo(state.dtype).tiny

    def step(carry, _):
        value, matrix = residual(carry.state), jax.jacfwd(residual)(carry.state)
        gram = matrix.T @ matrix
        # the floor keeps the factor positive definite where a Jacobian has the eigenvalue 1 (a line of points)
        scale = jnp.trace(gram) / len(value)
        floor = scale * jnp.finfo(state.dtype).eps + tiny
        damped = gram + (carry.damping * scale + floor) * jnp.eye(len(value), dtype=state.dtype)
        move = jax.scipy.linalg.solve(damped, matrix.T @ value, assume_a="pos")
        moved = carry.state - move
        better = jnp.sum(jnp.square(residual(moved))) < jnp.sum(jnp.square(value))  # of NaN, False
        damping = jnp.where(
            better, 0.1 * carry.damping, jnp.minimum(10 * carry.damping + tiny, 1e6)
        )
        return _Damped(jnp.where(better, moved, carry.state), damping), None

    start = _Damped(state, jnp.asarray(1e-3, state.dtype))
    return jax.lax.scan(step, start, length=num_steps)[0].state


class DistinctPoints(NamedTuple):
    """The different points that a search found, stable ones first, then by the number of unstable directions.

    Attributes:
      points: `[P, n]`.
      speed: `[P]`, q of each.
      eigenvalues: `[P, n]` of the Jacobian, complex, from large to small modulus.
      num_unstable: `[P]`, eigenvalues of modulus above 1.
      kind: `[P]` words: "stable", "saddle" (some directions unstable) or "unstable" (all); slow points are called by
        the same words, for the motion around them.
      slow: `[P]` booleans: q above that of a fixed point, so a slow point.
      marginal: `[P]` booleans: the modulus nearest to 1 is within the margin of it, so the kind is in doubt.
      counts: `[P]`, how many starts ended there.
      num_dropped: starts that are in no point, the sum of the next two.
      num_fast: those that ended at a minimum of q above `slow_below`: no point that the network lingers at, and more
        steps change nothing.
      num_unfinished: those that were still on their way, or are not finite; more steps of the search may help them.
    """

    points: np.ndarray
    speed: np.ndarray
    eigenvalues: np.ndarray
    num_unstable: np.ndarray
    kind: tuple[str, ...]
    slow: np.ndarray
    marginal: np.ndarray
    counts: np.ndarray
    num_dropped: int
    num_fast: int
    num_unfinished: int


@typed
def distinct_points(
    found: FixedPoints,
    *,
    radius: float = 1e-2,
    fixed_below: float | None = None,
    slow_below: float = 1e-4,
    margin: float = 1e-3,
) -> DistinctPoints:
    """The different points among the ends of a search, with their stability, computed on the host.

    Two ends are one point where no component differs by more than the radius; the slower one of them is kept. An end
    that moves slowly, but farther than the radius from the minimum of q (`distance`), is no slow point: it is only on
    its way, and is dropped. `num_fast` and `num_unfinished` say why ends were dropped.

    How to read it: a stable point is a memory that is held; a saddle with one unstable direction stands on the border
    between the basins of two. A point with one start to its name suggests that there are more to find.

    Args:
      found: from `fixed_points`, of one input (index the record if it was vmapped).
      radius: the distance, in units of the state, within which ends count as one point.
      fixed_below: q below which a point is fixed; None is the rounding of its dtype, n · (100 eps)².
      slow_below: q below which a minimum of q that is not fixed is slow; all else is dropped.
      margin: how near to 1 a modulus leaves the kind in doubt.

    Returns:
      One row per point, with its stability and the number of starts that ended there.

    Raises:
      ValueError: a radius that is no number of at least 0, a record with leading axes, or traced values.

    Source: Sussillo & Barak 2013.

    >>> found = FixedPoints(np.array([[0.0], [1e-4], [5.0]]), np.array([0.0, 1e-20, 1.0]), np.zeros(3),
    ...     np.zeros(3), np.array([[[0.5]], [[0.5]], [[2.0]]]), {"state": (0, 1)})
    >>> table = distinct_points(found)
    >>> table.kind, table.counts.tolist(), table.num_dropped
    (('stable',), [2], 1)
    """
    check_number(slow_below, "slow_below", least=0)
    check_number(margin, "margin", least=0)
    if fixed_below is not None:
        check_number(fixed_below, "fixed_below", least=0)
    if not (isinstance(radius, Real) and radius >= 0):
        raise ValueError(
            f"radius must be a number of at least 0, within which ends count as one point; got {radius!r}."
        )
    if not isinstance(found, FixedPoints):
        raise ValueError(
            f"distinct_points takes what rr.diagnostics.fixed_points returns; got {described(found)}."
        )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in found[:5]):
        raise ValueError(
            "distinct_points runs on the host, since the number of points depends on values: give it the record that a "
            "jitted or vmapped fixed_points returns, outside of jit and vmap, one search at a time."
        )
    points = np.asarray(found.points)
    if points.ndim != 2:
        raise ValueError(
            f"found must be the record of one search, with points [S, n]; got {points.shape}. Of a vmapped one take "
            "jax.tree.map(lambda leaf: leaf[i], found)."
        )
    rounding = points.shape[1] * (100 * float(np.finfo(points.dtype).eps)) ** 2
    still = rounding if fixed_below is None else fixed_below
    speed = np.asarray(found.speed, dtype=np.float64)
    limit = max(slow_below, still)
    minimum = (speed <= still) | (np.asarray(found.distance) <= radius)
    ended = np.isfinite(points).all(axis=1) & minimum
    usable = ended & (speed <= limit)
    chosen, counts = _groups(points.astype(np.float64), speed, usable, radius)

    jacobians = np.asarray(found.jacobians, dtype=np.float64)[chosen]
    eigenvalues = np.linalg.eigvals(jacobians).astype(complex)
    order = np.argsort(-np.abs(eigenvalues), axis=1, kind="stable")
    eigenvalues = np.take_along_axis(eigenvalues, order, axis=1)
    moduli = np.abs(eigenvalues)
    num_unstable = (moduli > 1).sum(axis=1)
    slow = np.asarray(speed[chosen] > still)
    rank = np.lexsort((*points[chosen].T[::-1], num_unstable, slow))
    size = points.shape[1]
    return DistinctPoints(
        points=points[chosen][rank],
        speed=speed[chosen][rank],
        eigenvalues=eigenvalues[rank],
        num_unstable=num_unstable[rank],
        kind=tuple(_kind(int(count), size) for count in num_unstable[rank]),
        slow=slow[rank],
        marginal=np.asarray(np.any(np.abs(moduli - 1) < margin, axis=1))[rank],
        counts=counts[rank],
        num_dropped=int((~usable).sum()),
        num_fast=int((ended & ~usable).sum()),
        num_unfinished=int((~ended).sum()),
    )


def _groups(
    points: np.ndarray, speed: np.ndarray, usable: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the slowest end of each group, and how many ends it has."""
    left = [row for row in np.argsort(speed, kind="stable") if usable[row]]
    chosen, counts = [], []
    while left:
        distance = np.abs(points[left] - points[left[0]]).max(axis=1)
        near = np.asarray(distance <= radius)
        chosen.append(left[0])
        counts.append(int(near.sum()))
        left = [row for row, close in zip(left, near, strict=True) if not close]
    return np.array(chosen, dtype=int), np.array(counts, dtype=int)


def _kind(num_unstable: int, size: int) -> str:
    if num_unstable == 0:
        return "stable"
    return "unstable" if num_unstable == size else "saddle"
