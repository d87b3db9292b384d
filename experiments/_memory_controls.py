"""The controls of `experiments.memory_thresholds`: other networks, optimisers and penalties, and what history does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments._intervals import proportion
from experiments._memory_runs import cold_starts
from experiments._memory_task import (
    ALIVE,
    Variant,
    make_train,
    measure,
    network_of,
    over_lanes,
    recall_batch,
)
from experiments._report import text_table
from experiments._thresholds import Ratio, Threshold, fit_threshold, interval, ratio

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
DEPTHS = {1: BASE, 2: "depth 2", 4: "depth 4"}
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
    lams = np.geomspace(*EDGES, config.control_lambdas)
    found = Controls({}, {}, {}, {}, {}, {})
    shared = {
        "hidden_size": config.hidden_size,
        "num_bits": config.num_bits,
        "num_updates": config.num_updates,
        "learning_rate": config.learning_rate,
    }
    for name in config.control_names:
        variant = Variant(**{**shared, **VARIANTS[name]})
        found.cold[name] = {}
        for T in config.control_steps:
            cold = cold_starts(
                config.out, variant, T, gains=(GAIN,), lams=lams, seeds=config.control_seeds
            )
            found.cold[name][T] = fit_threshold(cold.lams, cold.alive[:, 0])
            found.edge[name] = float(np.where(cold.alive, cold.loss, 0.0).max())
        if len(config.control_steps) > 1:
            first, *_, last = found.cold[name].values()
            found.fall[name] = ratio(last, first)
        print(f"control {name}: {_pair(found.cold[name])}", flush=True)
    if not config.control_names:
        return found
    base = Variant(**shared)
    for T in config.control_steps:
        found.history[T] = _switched(config, base, T, lams)
        found.scaled[T] = _scaled(config.out, base, T, lams=lams, seeds=config.control_seeds)
        if config.long_updates:
            found.duration[T] = _durations(config, base, T, lams)
    return found


def _switched(config: Any, variant: Variant, num_steps: int, lams: np.ndarray) -> History:
    """λ = 0 until trained, then λ, as many updates each as a cold start; then 0 for as many as the long training."""
    train = make_train(variant._replace(num_records=1))
    updates, seeds = variant.num_updates, config.control_seeds
    updates_off = max(config.long_updates, updates)

    def lane(values, batch):
        batch = rr.Batch(*batch)
        key = jax.random.fold_in(jax.random.key(0), values["seed"])
        free = {"l2": 0.0 * values["lam"], "gain": 1.0}

        def stage(state, hyper, updates):
            state, history = train.advance(state, hyper, batch, updates)
            return state, (history["train_loss"][-1], history["penalty_l2"][-1])

        state = train.init(free, batch, key=key)
        state, before = stage(state, free, updates)
        state, on = stage(state, free | {"l2": values["lam"]}, updates)
        off = jax.lax.cond(  # a network that holds its bits at λ is not asked what it does without
            on[0] < ALIVE, lambda _: on, lambda state: stage(state, free, updates_off)[1], state
        )
        return jnp.array([before, on, off])

    # neighbours on a core are λ of one seed: both cores get their share of the networks that die
    grid = np.meshgrid(np.arange(seeds, dtype=np.uint32), lams.astype(np.float32), indexing="ij")
    lanes = {"seed": grid[0].ravel(), "lam": grid[1].ravel()}
    batch = tuple(recall_batch(num_steps, num_bits=variant.num_bits)[:2])
    found = over_lanes(lane, lanes, batch, seconds=0.5).reshape(seeds, len(lams), 3, 2)
    return _history(lams, found[..., 0].swapaxes(0, 1), found[..., 1].swapaxes(0, 1), updates_off)


def _history(lams: np.ndarray, loss: np.ndarray, squares: np.ndarray, updates_off: int) -> History:
    """From data loss and ‖W‖² `[λ, seed, stage]`; the stages are 0, λ, 0."""
    alive = loss < ALIVE
    dead = alive[..., 0] & ~alive[..., 1]
    at_zero = squares[..., 1] < COLLAPSED

    def returned(networks):
        num, revived = int(networks.sum()), int((networks & alive[..., 2]).sum())
        return Returned(num, revived, float(proportion(np.array(revived), num)[1]) if num else 1.0)

    return History(
        fit_threshold(lams, alive[..., 1]),
        returned(dead),
        returned(dead & at_zero),
        returned(dead & ~at_zero),
        updates_off,
    )


def _scaled(
    folder: Path, variant: Variant, num_steps: int, *, lams: np.ndarray, seeds: int
) -> Scaled:
    """The norm of the penalised network given to a free one."""
    cold = cold_starts(
        folder, variant, num_steps, gains=(1.0,), lams=np.array([0.0, 0.1]), seeds=seeds
    )
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], cold.params)
    free = jax.tree.map(lambda leaf: leaf[0], params)
    penalised = jax.tree.map(lambda leaf: leaf[1], params)
    size = [np.linalg.norm(part["layer_0"]["W_hh"], axis=(-2, -1)) for part in (free, penalised)]
    factor = (size[1] / size[0])[:, None, None]
    layer = free["layer_0"] | {"W_hh": free["layer_0"]["W_hh"] * factor}
    net = network_of(variant)
    given, scaled = (
        measure(net, part, num_steps, num_bits=variant.num_bits)
        for part in (penalised, free | {"layer_0": layer})
    )

    def both(name):
        return (float(np.median(getattr(given, name))), float(np.median(getattr(scaled, name))))

    return Scaled(
        0.1,
        float(np.median(size[1])),
        float(np.median(size[0])),
        both("bits"),
        both("gradient"),
        both("rho"),
    )


def _durations(config: Any, variant: Variant, num_steps: int, lams: np.ndarray) -> Duration:
    """One long training, read at several times."""
    longer = variant._replace(num_updates=config.long_updates, num_records=RECORDS)
    cold = cold_starts(
        config.out, longer, num_steps, gains=(GAIN,), lams=lams, seeds=config.control_seeds
    )
    return _duration(
        cold.lams, cold.history[:, 0], config.long_updates // RECORDS, config.num_updates
    )


def _duration(lams: np.ndarray, history: np.ndarray, each: int, updates: int) -> Duration:
    """From data losses `[λ, seed, record]`, one every `each` updates; `at` is the last record not after `updates`."""
    alive = np.nan_to_num(history, nan=np.inf) < ALIVE
    records = alive.shape[-1]
    first = int(np.clip(updates // each, 1, records)) - 1
    before, after = alive[..., first], alive[..., -1]
    lost = before & ~after
    return Duration(
        lam_cold={
            each * (at + 1): fit_threshold(lams, alive[..., at])
            for at in range(records)
            if (at + 1) & at == 0  # 1, 2, 4, 8, … records
        },
        at=each * (first + 1),
        until=each * records,
        alive=int(before.sum()),
        lost=int(lost.sum()),
        gained=int((after & ~before).sum()),
        lost_lams=[float(lams[at]) for at in np.nonzero(lost)[0]],
    )


def _pair(by_steps: dict[int, Threshold]) -> str:
    return ", ".join(f"λ_cold(T = {T}) {interval(found)}" for T, found in by_steps.items())


def table(found: Controls) -> str:
    """All controls as text."""
    if not found.cold:
        return "controls: none asked for"
    steps = list(next(iter(found.cold.values())))
    rows = [
        (
            name,
            *(interval(by[T]) for T in steps),
            interval(found.fall[name]) if name in found.fall else "–",
            f"{found.edge[name]:.2f}",
        )
        for name, by in found.cold.items()
    ]
    header = (
        f"cold start, g = {GAIN}",
        *(f"λ_cold, T = {T}" for T in steps),
        f"T = {steps[-1]} over T = {steps[0]}",
        "largest loss alive",
    )
    lines = [text_table(header, rows), ""]
    told = [
        f"depth {depth} {interval(found.fall[name])}"
        for depth, name in DEPTHS.items()
        if name in found.fall
    ]
    if told:
        lines.append(
            f"λ_cold at T = {steps[-1]} over T = {steps[0]}: {', '.join(told)}; "
            f"the law at depth 1: {law_fall(steps[0], steps[-1]):.2g}"
        )
    for T, history in found.history.items():
        lines.append(
            f"T = {T}: λ switched on after training destroys the memory at {interval(history.lam_on)}, in "
            f"{history.dead.num} networks. Back after {history.updates_off} updates at λ = 0: of those at W = 0, "
            f"{_share(history.collapsed)}; of the others, {_share(history.others)}"
        )
    for T, one in found.scaled.items():
        lines.append(
            f"T = {T}: trained at λ = {one.lam:g}, ‖W_hh‖ = {one.frobenius:.2f}, ρ = {one.rho[0]:.3f}, bits "
            f"{one.bits[0]:.2f}, ‖∂h_T/∂h_0‖ = {one.gradient[0]:.3g}; trained at λ = 0 (‖W_hh‖ = "
            f"{one.frobenius_free:.2f}) and scaled to that norm: ρ = {one.rho[1]:.3f}, bits {one.bits[1]:.2f}, "
            f"‖∂h_T/∂h_0‖ = {one.gradient[1]:.3g}"
        )
    for T, one in found.duration.items():
        told = "; ".join(f"{updates}: {interval(at)}" for updates, at in one.lam_cold.items())
        lines.append(
            f"T = {T}: λ_cold by number of updates: {told}. Of {one.alive} networks that hold their bits at {one.at} "
            f"updates, {one.lost} have lost them at {one.until}"
            + (f" (λ = {one.lost_lams[0]:.2g} to {one.lost_lams[-1]:.2g})" if one.lost else "")
            + f"; {one.gained} have come to hold them"
        )
    return "\n".join(lines)


def law_fall(short: float, long: float) -> float:
    """λ_cold ∝ T g^(T−2) at the long T over the short one, g that of the controls.

    >>> round(law_fall(10, 40), 3)
    0.17
    """
    return long / short * GAIN ** (long - short)


def _share(of: Returned) -> str:
    return f"{of.revived} of {of.num}" + (f" (95 %: at most {of.high:.1%})" if of.num else "")
