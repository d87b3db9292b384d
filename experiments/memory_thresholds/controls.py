"""The controls: other networks, optimisers and penalties, and what history does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments._harness import proportion
from experiments._thresholds import Ratio, Threshold, fit_threshold, interval, ratio
from experiments.memory_thresholds.diagram import threshold_of
from experiments.memory_thresholds.measures import memory
from experiments.memory_thresholds.runs import cold_starts
from experiments.memory_thresholds.task import ALIVE, Variant, make_train, network_of, recall_batch, variant_of

if TYPE_CHECKING:
    import xarray as xr

BASE = "tanh, Adam, all matrices, depth 1"
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "depth 2": {"depth": 2},
    "depth 4": {"depth": 4},
    "linear": {"activation": "linear"},
    "relu": {"activation": "relu"},
    "SGD, clipped": {"optimizer": "sgd", "learning_rate": 4e-3, "num_updates": 8000},
    "AdamW (decoupled)": {"optimizer": "adamw"},
    "penalty on W_hh only": {"penalised": "recurrent"},
    "penalty on W_xh, W_hy only": {"penalised": "outer"},
    "penalty to the identity": {"penalised": "identity"},
}
EDGES = (1e-3, 10.0)  # least and largest λ
GAIN = 0.9
RECORDS = 16  # of the long training
COLLAPSED = 1e-3  # ‖W‖² below which a network is at W = 0; that of a linear memory is above 1


class Returned(NamedTuple):
    """Of networks that lost their memory, those that had it again at λ = 0.

    Attributes:
      num: networks that lost it.
      revived: how many had it again.
      high: upper end of the 95 % interval of that share. Networks of one seed share their start, so it errs on the
        narrow side.
    """

    num: int
    revived: int
    high: float


class History(NamedTuple):
    """λ switched on in a trained network, and off again.

    Attributes:
      lam_on: the threshold of survival at a λ that is switched on at once.
      dead: networks that held their bits, and did not after as many updates at λ as a cold start has.
      collapsed: of those, the ones at W = 0: ‖W‖² below `COLLAPSED`.
      others: the rest, whose memory was lost but whose weights are not yet (or never will be) at 0.
      updates_off: updates at λ = 0 afterwards.
    """

    lam_on: Threshold
    dead: Returned
    collapsed: Returned
    others: Returned
    updates_off: int


class Scaled(NamedTuple):
    """Networks trained at λ = 0, with W_hh scaled to the ‖W_hh‖_F of a network trained at λ, medians over seeds.

    Attributes:
      lam: λ of the penalised networks.
      frobenius: ‖W_hh‖_F of both.
      frobenius_free: ‖W_hh‖_F of the free network before it is scaled.
      bits: decoded bits: penalised, scaled.
      gradient: ‖∂h_T/∂h_0‖: penalised, scaled.
      rho: ρ(W_hh): penalised, scaled.
    """

    lam: float
    frobenius: float
    frobenius_free: float
    bits: tuple[float, float]
    gradient: tuple[float, float]
    rho: tuple[float, float]


class Duration(NamedTuple):
    """What more training does to a memory that is there, at every λ of the cold starts of one T.

    Attributes:
      lam_cold: by number of updates, λ_cold when training stops there.
      at: updates at which it is first looked at, those of the other cold starts.
      until: updates at the end.
      alive: networks that hold their bits at the first.
      lost: of these, the ones that do not at the end.
      gained: networks that hold their bits at the end only.
      lost_lams: λ of those lost, ascending.
    """

    lam_cold: dict[int, Threshold]
    at: int
    until: int
    alive: int
    lost: int
    gained: int
    lost_lams: list[float]


class Controls(NamedTuple):
    """All controls.

    Attributes:
      cold: by way of training and T, the threshold λ_cold.
      fall: by way of training, λ_cold at the last T over λ_cold at the first; empty with one T.
      edge: by way of training, the largest data loss of a network that still holds its bits, at the longer T: about ¼
        at a jump, up to ½ where memory fades without one.
      history: by T.
      scaled: by T.
      duration: by T.
    """

    cold: dict[str, dict[int, Threshold]]
    fall: dict[str, Ratio]
    edge: dict[str, float]
    history: dict[int, History]
    scaled: dict[int, Scaled]
    duration: dict[int, Duration]


def run_all(config: Any) -> Controls:
    """Every control at both T."""
    found = Controls({}, {}, {}, {}, {}, {})
    lams, seeds = np.geomspace(*EDGES, config.control_lambdas), config.control_seeds

    def losses(T, **changes):
        variant = variant_of(config, **changes)
        result = cold_starts(config.out, variant, T, gains=(GAIN,), lams=lams, seeds=seeds)
        return result.metrics.sel(gain=GAIN)

    for name in config.control_names:
        found.cold[name] = {}
        for T in config.control_steps:
            loss = losses(T, **VARIANTS[name]).train_loss
            found.cold[name][T] = threshold_of(loss < ALIVE)
            found.edge[name] = float(loss.where(loss < ALIVE, 0).max())
        if len(config.control_steps) > 1:
            first, *_, last = found.cold[name].values()
            found.fall[name] = ratio(last, first)
        told = [f"λ_cold(T = {T}) {interval(one)}" for T, one in found.cold[name].items()]
        print(f"control {name}: {', '.join(told)}", flush=True)
    updates, more = config.num_updates, config.long_updates
    for T in config.control_steps if config.control_names else ():
        off = max(more, updates)
        found.history[T] = switched(variant_of(config), T, lams=lams, seeds=seeds, off=off)
        found.scaled[T] = scaled(config.out, variant_of(config), T, seeds=seeds)
        if more:
            history = losses(T, num_updates=more, num_records=RECORDS).history_train_loss
            found.duration[T] = duration_of(history, each=more // RECORDS, updates=updates)
    return found


def switched(variant: Variant, T: int, *, lams: np.ndarray, seeds: int, off: int) -> History:
    """λ = 0 until trained, then λ, as many updates each as a cold start; then 0 for `off` updates."""
    train = make_train(variant._replace(num_records=1))

    def lane(values, batch):
        key = jax.random.fold_in(jax.random.key(0), values["seed"])
        free = {"l2": 0.0 * values["lam"], "gain": 1.0}

        def stage(state, hyper, updates):
            state, history = train.advance(state, hyper, batch, updates)
            return state, (history["train_loss"][-1], history["penalty_l2"][-1])

        state = train.init(free, batch, key=key)
        state, before = stage(state, free, variant.num_updates)
        state, on = stage(state, free | {"l2": values["lam"]}, variant.num_updates)
        end = jax.lax.cond(  # a network that holds its bits at λ is not asked what it does without
            on[0] < ALIVE, lambda _: on, lambda state: stage(state, free, off)[1], state
        )
        return jnp.array([before, on, end])

    # neighbours on a core are λ of one seed: both cores get their share of the networks that die
    numbers, values = np.arange(seeds, dtype=np.uint32), lams.astype(np.float32)
    lanes = {"seed": np.repeat(numbers, len(lams)), "lam": np.tile(values, seeds)}
    batch = recall_batch(T, num_bits=variant.num_bits)
    found = rr.lanes.map_lanes(lane, lanes, shared=batch, plan="one_by_one", lane_seconds=0.5)
    found = found.reshape(seeds, len(lams), 3, 2).swapaxes(0, 1)
    return history_of(lams, found[..., 0], found[..., 1], off)


def history_of(lams: np.ndarray, loss: np.ndarray, squares: np.ndarray, updates_off: int) -> History:
    """From data loss and ‖W‖² `[λ, seed, stage]`; the stages are 0, λ, 0."""
    before, on, off = np.moveaxis(loss < ALIVE, -1, 0)
    dead, at_zero = before & ~on, squares[..., 1] < COLLAPSED

    def returned(networks):
        num, revived = int(networks.sum()), int((networks & off).sum())
        return Returned(num, revived, float(proportion(np.array(revived), num)[1]) if num else 1.0)

    every = (returned(dead), returned(dead & at_zero), returned(dead & ~at_zero))
    return History(fit_threshold(lams, on), *every, updates_off)


def scaled(folder: Any, variant: Variant, T: int, *, seeds: int, lam: float = 0.1) -> Scaled:
    """The norm of the penalised network given to a free one."""
    result = cold_starts(folder, variant, T, gains=(1.0,), lams=(0.0, lam), seeds=seeds)
    free, penalised = (result.select(gain=1.0, l2=l2).groups[0].params for l2 in (0.0, lam))
    W, W_lam = (params["layer_0"]["W_hh"] for params in (free, penalised))
    size, size_lam = (np.linalg.norm(each, axis=(-2, -1)) for each in (W, W_lam))
    shrunk = rr.with_leaves(free, {"layer_0/W_hh": W * (size_lam / size)[:, None, None]})

    net, batch = network_of(variant), recall_batch(T, num_bits=variant.num_bits)
    look = jax.jit(jax.vmap(lambda params: memory(net, params, batch)))
    bits, gradient, rho, _ = (
        (float(np.median(given)), float(np.median(own)))
        for given, own in zip(look(penalised), look(shrunk), strict=True)
    )
    return Scaled(lam, float(np.median(size_lam)), float(np.median(size)), bits, gradient, rho)


def duration_of(losses: xr.DataArray, *, each: int, updates: int) -> Duration:
    """One long training read at its records, one every `each` updates; `at` is the last one not after `updates`.

    Args:
      losses: data loss over `l2`, `seed` and `epoch`.
      each: updates between two records.
      updates: those of the other cold starts.
    """
    alive = losses < ALIVE
    records = alive.sizes["epoch"]
    first = int(np.clip(updates // each, 1, records)) - 1
    before, after = alive.isel(epoch=first), alive.isel(epoch=-1)
    lost = before & ~after
    return Duration(
        lam_cold={
            each * (at + 1): threshold_of(alive.isel(epoch=at))
            for at in range(records)
            if (at + 1) & at == 0  # 1, 2, 4, 8, … records
        },
        at=each * (first + 1),
        until=each * records,
        alive=int(before.sum()),
        lost=int(lost.sum()),
        gained=int((after & ~before).sum()),
        lost_lams=np.repeat(lost.l2.values, lost.sum("seed")).tolist(),
    )


def law_fall(short: float, long: float) -> float:
    """λ_cold ∝ T g^(T−2) at the long T over the short one, g that of the controls.

    >>> round(law_fall(10, 40), 3)
    0.17
    """
    return long / short * GAIN ** (long - short)
