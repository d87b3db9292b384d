"""A grid of λ that is measured: from where a penalty is not felt to where the network collapses."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import check_count, check_number, printable, warn_caller
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split, as_split, cleared
from rnnreg.selection._curvature import curvatures
from rnnreg.sweeps import sweep
from rnnreg.training import Train

_COLLAPSED = 0.01  # of what the run without the penalty gains over a blind guess
_SHRUNK = 1e-4  # of R without the penalty: for L2, weights of 1 %
_GROWN = 10.0  # times R without the penalty: a run that blows up
_ROUNDS = 8
_MOST = 1e30  # beyond, λ R overflows
_FACTOR = 2.0  # how well the upper end is known
_RATIO = 1e-4  # lower end / upper end where curvatures say nothing, as glmnet's lambda.min.ratio


@dataclasses.dataclass(frozen=True, repr=False)
class LambdaGrid:
    """Values of λ, and what they were measured by.

    Attributes:
      name: the penalty's, under which the grid of a sweep takes the values.
      values: `[n]`, rising by one ratio, 0 in front if asked for.
      low: the smallest above 0.
      high: the largest.
      ended: why `high` is the largest: "collapsed", "diverged" (larger ones do, before the network collapses) or "open"
        (nothing ended it).
      loss_curvature: of the data loss at the start, in the weights that the penalty covers.
      penalty_curvature: of R there.
      blind_loss: the loss of the best constant output.
      tried: `[m]`, the λ of the short runs, rising from 0.
      losses: `[m]`, where they ended; NaN for one that diverged.
      penalties: `[m]`, R there.
    """

    name: str
    values: np.ndarray
    low: float
    high: float
    ended: str
    loss_curvature: float
    penalty_curvature: float
    blind_loss: float
    tried: np.ndarray
    losses: np.ndarray
    penalties: np.ndarray

    def __repr__(self) -> str:
        zero = "0 and " * bool(self.values[0] == 0)
        return printable(
            f"LambdaGrid({self.name}: {zero}{np.sum(self.values > 0)} values {self.low:.3g} to {self.high:.3g}, "
            f"{self.ended}; {len(self.tried)} short runs)"
        )


@typed
def lambda_grid(
    train: Train,
    data: Split | Batch,
    *,
    key: Array,
    name: str | None = None,
    hyper: Mapping[str, Any] | None = None,
    num: int = 16,
    zero: bool = False,
    fraction: float = 1e-3,
    num_epochs: int | None = None,
    lanes: int = 4,
) -> LambdaGrid:
    """Values of λ for a penalty, from the data: log-spaced between where it is not felt and where nothing else is.

    **Upper end.** The smallest λ, to a factor of 2, at which a run from the standard start ends collapsed. With the
    loss L(λ) and the penalty R(λ) at its end, that is

        L_blind − L(λ) ≤ 0.01 · (L_blind − L(0))     or     R(λ) ≤ 10⁻⁴ · R(0),

    where L_blind is the training loss of the best constant output, the same for all rows and steps: the network says no
    more than a blind guess, or the penalty has nothing left to take (for L2, weights of 1 %). It is found by rounds of
    a few lanes, in one program that is compiled once: λ is bracketed in steps of 100 about the ratio of curvatures, and
    each round cuts the bracket into `lanes` + 1 parts. If runs diverge before they collapse (with a step α, plain SGD
    does from 2λα = 2 on), the largest λ that did not is the end; a run whose R ends above 10 R(0) counts as diverged.

    **Lower end.** λ_low = `fraction` · κ_L / κ_R, where κ_L is the top curvature of the data loss and κ_R that of R, at
    the start, in the weights that the penalty covers, by Lanczos on Hessian–vector products. κ_R is 2 for L2; of a
    penalty that is not curved, such as L1, it is ‖∂R/∂w‖ / ‖w‖. In a linear model λ_low changes the
    best-determined direction of the weights by the share `fraction`, and others by more.

    glmnet does the same for a linear model in closed form: its largest λ is the smallest at which the lasso is all
    zeros, max_j |∂L/∂w_j| at w = 0 (for the ridge a thousand times that), and its smallest is 10⁻⁴ of it, or 10⁻²
    with fewer rows than weights. A recurrent network has no such formula: it collapses over time, by training.

    Args:
      train: from `make_train`.
      data: the rows; validation rows are not looked at.
      key: of the short runs.
      name: the penalty's; None takes the only one.
      hyper: every other number of the run, by name; the λ of other penalties are 0 unless they are given.
      num: how many values above 0.
      zero: put 0 in front.
      fraction: of the curvature of the data loss, for the lower end.
      num_epochs: of the short runs; None takes those of the run. Too few to learn anything make every λ look blind, and
        then R alone tells.
      lanes: runs of a round.

    Returns:
      The values, for `sweep(train, {name: grid.values, …})`, and what they were measured by. Of several penalties, take
      one grid each; their product is the grid of a sweep.

    Raises:
      ValueError: no penalty, or several and no name; numbers out of range; a run without the penalty that diverges.

    Warns:
      RuntimeWarning: no λ that was tried ends collapsed or diverges; or the run without the penalty is no better than a
        blind guess.

    >>> import optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(2e-2), num_epochs=60)
    >>> grid = lambda_grid(train, batch, key=jax.random.key(0), num=6, zero=True)
    >>> len(grid.values), grid.ended, 1e-5 < grid.low < 1e-2 < grid.high < 10
    (7, 'collapsed', True)
    """
    known = list(train.settings.penalties)
    if name is None and len(known) == 1:
        name = known[0]
    if name not in known:
        raise ValueError(
            f"name must be that of a penalty of the run, one of {known}; got {name!r}."
        )
    check_count(num, "num", least=2)
    check_count(lanes, "lanes", least=2)
    check_number(fraction, "fraction", least=0, above=True)
    if num_epochs is not None:
        check_count(num_epochs, "num_epochs")
    split = as_split(data).replace(validation=None, test={})
    others = {other: 0.0 for other in known if other != name} | dict(hyper or {})
    if name in others:
        raise ValueError(
            f"hyper holds every number but the λ that is looked for; got {name!r} = {others[name]!r} in it."
        )
    epochs = train.settings.num_epochs if num_epochs is None else int(num_epochs)
    short = train.with_epochs(epochs, early_stopping=False)
    found = curvatures(short, name, {**others, name: 0.0}, split, key=key)
    loss_curvature, penalty_curvature = (float(one) for one in found)
    blind = _blind_loss(short, {**others, name: 0.0}, split, key)

    def runs(lams: list[float]) -> list[_Short]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* lanes diverged")
            result = sweep(short, {name: lams, **others}, split, key=key, progress=False)
        ended = result.metrics.squeeze("seed")
        values = (ended[name].values, ended["train_loss"].values, ended[f"penalty_{name}"].values)
        return [_Short(*map(float, one)) for one in zip(*values, strict=True)]

    scale = _ratio(loss_curvature, penalty_curvature)
    tried = _search(runs, scale, blind, lanes, what=f"without {name!r} after {epochs} epochs")
    high, ended = _upper_end(tried, blind)
    if ended == "open":
        warn_caller(
            f"no {name!r} up to {high:.3g} makes the network collapse or diverge, so the grid ends there: look at the "
            "largest values before trusting them."
        )
    low = fraction * loss_curvature / penalty_curvature if penalty_curvature > 0 else 0.0
    low = low if 0 < low < high / 10 else _RATIO * high
    values = np.geomspace(low, high, num)
    tried_lam, losses, penalties = map(np.array, zip(*tried, strict=True))
    return LambdaGrid(
        name=name,
        values=np.concatenate([[0.0], values]) if zero else values,
        low=float(values[0]),
        high=float(values[-1]),
        ended=ended,
        loss_curvature=loss_curvature,
        penalty_curvature=penalty_curvature,
        blind_loss=blind,
        tried=tried_lam,
        losses=losses,
        penalties=penalties,
    )


class _Short(NamedTuple):
    """A short run: its λ, and the loss and the penalty at its end; NaN if it diverged."""

    lam: float
    loss: float
    penalty: float


def _search(
    runs: Callable[[list[float]], list[_Short]],
    scale: float,
    blind: float,
    lanes: int,
    *,
    what: str,
) -> list[_Short]:
    """The short runs of all rounds, from λ = 0 on; raises if the one without the penalty diverges."""
    tried = runs([0.0, *(scale * 100.0**step for step in range(lanes - 1))])
    free = min(tried)
    if not np.isfinite(free.loss):
        raise ValueError(
            f"the run {what} has diverged, so there is nothing to compare with: lower the learning rate, or clip the "
            "gradient."
        )
    if free.loss >= blind:
        warn_caller(
            f"the run {what} is no better than a blind guess ({free.loss:.4g}, and {blind:.4g} for the best constant), "
            "so only the penalty itself tells where it ends; give more num_epochs."
        )
    for _ in range(_ROUNDS):
        following = _following(tried, blind, lanes)
        if following is None:
            break
        tried += runs(following)
    return sorted(tried)


def _ended(run: _Short, tried: list[_Short], blind: float) -> str:
    """How a short run ended: "collapsed", "diverged", or "" for neither."""
    free = min(tried)  # λ = 0
    if not np.isfinite(run.loss) or 0 < _GROWN * free.penalty < run.penalty:
        return "diverged"
    says_nothing = free.loss < blind and blind - run.loss <= _COLLAPSED * (blind - free.loss)
    gone = free.penalty > 0 and run.penalty <= _SHRUNK * free.penalty
    return "collapsed" if says_nothing or gone else ""


def _bracket(tried: list[_Short], blind: float) -> tuple[float, float]:
    """The largest λ below which none ended, and the smallest that did; 0 and infinity where there is none."""
    above = min((run.lam for run in tried if _ended(run, tried, blind)), default=np.inf)
    return max(run.lam for run in tried if run.lam < above), above


def _following(tried: list[_Short], blind: float, lanes: int) -> list[float] | None:
    """The λ of the next round; None where the upper end is known well enough."""
    low, high = _bracket(tried, blind)
    known = sorted(run.lam for run in tried if run.lam > 0)
    if np.isinf(high):
        more = [known[-1] * 100.0**step for step in range(1, lanes + 1)]
        return more if more[-1] < _MOST else None
    if low == 0:
        return [high * 100.0**-step for step in range(lanes, 0, -1)]
    if high <= _FACTOR * low:
        return None
    return np.geomspace(low, high, lanes + 2)[1:-1].tolist()


def _upper_end(tried: list[_Short], blind: float) -> tuple[float, str]:
    low, high = _bracket(tried, blind)
    if np.isinf(high):
        return low, "open"
    ended = _ended(next(run for run in tried if run.lam == high), tried, blind)
    return (low or high if ended == "diverged" else high), ended


def _ratio(loss_curvature: float, penalty_curvature: float) -> float:
    """λ at which both curve alike, about which the search starts; 1 where that says nothing."""
    positive = min(loss_curvature, penalty_curvature) > 0
    scale = loss_curvature / penalty_curvature if positive else 1.0
    return float(f"{min(max(scale, 1e-12), 1e12):.3g}") / 10


def _blind_loss(train: Train, hyper: dict[str, Any], data: Split, key: Array) -> float:
    """The training loss of the best constant output, the same for all rows and steps."""
    from scipy.optimize import minimize

    batch, loss = cleared(data.train), train.settings.loss
    net = train.network(hyper)

    def outputs():
        params = train.init(hyper, data, key=key).params
        return net.apply(params, batch.xs, mask=batch.mask).outputs

    shape = jax.eval_shape(outputs)

    @jax.jit
    @jax.value_and_grad
    def of(constant):
        guess = jnp.broadcast_to(constant.astype(shape.dtype), shape.shape)
        return loss(guess, batch.ys, batch.mask, batch.weights)

    def objective(constant):
        value, slope = of(jnp.asarray(constant, jnp.result_type(float)))
        return float(value), np.asarray(slope, np.float64)

    found = minimize(objective, np.zeros(shape.shape[-1:]), jac=True, method="L-BFGS-B")
    return float(found.fun)
