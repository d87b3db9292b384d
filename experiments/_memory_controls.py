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
from experiments._memory_statistics import Threshold, fit_threshold
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

VARIANTS: dict[str, dict[str, Any]] = {
    "tanh, Adam, all matrices": {},
    "linear": {"activation": "linear"},
    "relu": {"activation": "relu"},
    "SGD, clipped": {"optimizer": "sgd", "learning_rate": 4e-3, "num_updates": 8000},
    "AdamW (decoupled)": {"optimizer": "adamw"},
    "penalty on W_hh only": {"penalised": "recurrent"},
    "penalty on W_xh, W_hy only": {"penalised": "outer"},
    "penalty to the identity": {"penalised": "identity"},
    "depth 2": {"depth": 2},
    "depth 4": {"depth": 4},
}
GAIN = 0.9


class History(NamedTuple):
    """λ switched on in a trained network, and off again.

    Attributes:
      lam_on: the threshold of survival at a λ that is switched on at once.
      dead: networks that lost their memory.
      revived: of those, how many had it again after as many updates at λ = 0.
      revived_high: upper end of the 95 % interval of that share.
    """

    lam_on: Threshold
    dead: int
    revived: int
    revived_high: float


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


class Controls(NamedTuple):
    """All controls.

    Attributes:
      cold: by way of training and T, the threshold λ_cold.
      edge: by way of training, the largest data loss of a network that still holds its bits, at the longer T: about ¼
        at a jump, up to ½ where memory fades without one.
      history: by T.
      scaled: by T.
      duration: by T and number of updates, λ_cold when training stops there.
    """

    cold: dict[str, dict[int, Threshold]]
    edge: dict[str, float]
    history: dict[int, History]
    scaled: dict[int, Scaled]
    duration: dict[int, dict[int, Threshold]]


def run_all(config: Any) -> Controls:
    """Every control at both T."""
    lams = np.geomspace(1e-3, 10.0, config.control_lambdas)
    found = Controls({}, {}, {}, {}, {})
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
        print(f"control {name}: {_pair(found.cold[name])}", flush=True)
    if not config.control_names:
        return found
    base = Variant(**shared)
    for T in config.control_steps:
        found.history[T] = _switched(base, T, lams=lams, seeds=config.control_seeds)
        found.scaled[T] = _scaled(config.out, base, T, lams=lams, seeds=config.control_seeds)
        if config.long_updates:
            found.duration[T] = _durations(config, base, T, lams)
    return found


def _switched(variant: Variant, num_steps: int, *, lams: np.ndarray, seeds: int) -> History:
    """λ = 0 until trained, then λ, then 0 again, each for as many updates as a cold start."""
    train = make_train(variant._replace(num_records=1))
    updates = variant.num_updates

    def lane(values, batch):
        batch = rr.Batch(*batch)
        key = jax.random.fold_in(jax.random.key(0), values["seed"])
        state = train.init({"l2": 0.0, "gain": 1.0}, batch, key=key)

        def stage(state, lam):
            hyper = {"l2": lam, "gain": 1.0}
            state, history = train.advance(state, hyper, batch, updates)
            return state, history["train_loss"][-1]

        return jax.lax.scan(
            stage, state, jnp.stack([0.0 * values["lam"], values["lam"], 0.0 * values["lam"]])
        )[1]

    grid = np.meshgrid(lams.astype(np.float32), np.arange(seeds, dtype=np.uint32), indexing="ij")
    lanes = {"lam": grid[0].ravel(), "seed": grid[1].ravel()}
    batch = tuple(recall_batch(num_steps, num_bits=variant.num_bits)[:2])
    loss = over_lanes(lane, lanes, batch, seconds=0.5).reshape(len(lams), seeds, 3)
    alive = loss < ALIVE
    dead = alive[..., 0] & ~alive[..., 1]
    revived = int((dead & alive[..., 2]).sum())
    num = int(dead.sum())
    high = float(proportion(np.array(revived), num)[1]) if num else 1.0
    return History(fit_threshold(lams, alive[..., 1]), num, revived, high)


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


def _durations(
    config: Any, variant: Variant, num_steps: int, lams: np.ndarray
) -> dict[int, Threshold]:
    """λ_cold read at several times of one long training."""
    records = 16
    longer = variant._replace(num_updates=config.long_updates, num_records=records)
    cold = cold_starts(
        config.out, longer, num_steps, gains=(GAIN,), lams=lams, seeds=config.control_seeds
    )
    each = config.long_updates // records
    history = np.nan_to_num(cold.history[:, 0], nan=np.inf)  # [λ, seed, record]
    return {
        each * (at + 1): fit_threshold(cold.lams, history[..., at] < ALIVE)
        for at in (0, 1, 3, 7, 15)
    }


def interval(found: Threshold) -> str:
    """A threshold with its interval: 0.12 [0.1, 0.15]; off the grid, only the bound."""
    if found.value == 0:
        return f"< {found.high:.3g}"
    if not np.isfinite(found.value):
        return f"> {found.low:.3g}"
    return f"{found.value:.3g} [{found.low:.2g}, {found.high:.2g}]"


def _pair(by_steps: dict[int, Threshold]) -> str:
    return ", ".join(f"λ_cold(T = {T}) {interval(found)}" for T, found in by_steps.items())


def table(found: Controls) -> str:
    """All controls as text."""
    if not found.cold:
        return "controls: none asked for"
    steps = list(next(iter(found.cold.values())))
    rows = [
        (name, *(interval(by[T]) for T in steps), _ratio(by, steps), f"{found.edge[name]:.2f}")
        for name, by in found.cold.items()
    ]
    header = (
        f"cold start, g = {GAIN}",
        *(f"λ_cold, T = {T}" for T in steps),
        "ratio",
        "largest loss alive",
    )
    lines = [text_table(header, rows), ""]
    for T, history in found.history.items():
        lines.append(
            f"T = {T}: λ switched on after training destroys the memory at {interval(history.lam_on)}; off again, "
            f"{history.revived} of {history.dead} come back (95 %: at most {history.revived_high:.1%})"
        )
    for T, one in found.scaled.items():
        lines.append(
            f"T = {T}: trained at λ = {one.lam:g}, ‖W_hh‖ = {one.frobenius:.2f}, ρ = {one.rho[0]:.3f}, bits "
            f"{one.bits[0]:.2f}, ‖∂h_T/∂h_0‖ = {one.gradient[0]:.3g}; trained at λ = 0 (‖W_hh‖ = "
            f"{one.frobenius_free:.2f}) and scaled to that norm: ρ = {one.rho[1]:.3f}, bits {one.bits[1]:.2f}, "
            f"‖∂h_T/∂h_0‖ = {one.gradient[1]:.3g}"
        )
    for T, by in found.duration.items():
        told = "; ".join(f"{updates}: {interval(one)}" for updates, one in by.items())
        lines.append(f"T = {T}: λ_cold by number of updates: {told}")
    return "\n".join(lines)


def _ratio(by: dict[int, Threshold], steps: list[int]) -> str:
    first, last = by[steps[0]].value, by[steps[-1]].value
    ratio = last / first if 0 < first < np.inf and 0 < last < np.inf else np.nan
    return f"{ratio:.2f}" if np.isfinite(ratio) else "–"
