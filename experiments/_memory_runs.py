"""The sweeps of `experiments.memory_thresholds`: cold starts over T × gain × λ × seed, and warm paths up and down in λ.

Each sweep is kept as a netCDF file as soon as it is done, and read back when the same one is asked for again, so an
interruption loses at most the one under way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments._memory_task import ALIVE, Variant, make_train, over_lanes, recall_batch

CHUNK = 8  # lanes together on a core: with two rows of 16 units a step is overhead, and a chunk shares it


class Cold(NamedTuple):
    """Networks trained from their start at each λ.

    Attributes:
      num_steps: T.
      lams: `[λ]`, ascending; 0 may be first.
      gains: `[gain]`.
      loss: `[λ, gain, seed]` data loss at the end.
      history: `[λ, gain, seed, record]` data loss on the way.
      params: stacked, leading axes λ, gain, seed.
    """

    num_steps: int
    lams: np.ndarray
    gains: np.ndarray
    loss: np.ndarray
    history: np.ndarray
    params: dict[str, Any]

    @property
    def alive(self) -> np.ndarray:
        """Where a memory is used, `[λ, gain, seed]`."""
        return self.loss < ALIVE


def cold_starts(
    folder: Path,
    variant: Variant,
    num_steps: int,
    *,
    gains: Iterable[float],
    lams: np.ndarray,
    seeds: int,
) -> Cold:
    """One sweep: gain × λ × seed at one T."""
    gains = [float(gain) for gain in gains]
    asked = {
        "variant": variant._asdict(),
        "T": num_steps,
        "gains": gains,
        "lams": np.asarray(lams).tolist(),
        "seeds": seeds,
    }
    path = _place(folder, "cold", asked)
    if path.exists():
        result = rr.load_result(path)
    else:
        result = rr.sweep(
            make_train(variant),
            {"l2": lams, "gain": gains},
            recall_batch(num_steps, num_bits=variant.num_bits),
            seeds=seeds,
            key=jax.random.key(0),
            plan="chunks",
            chunk=CHUNK,
            progress=False,
        )
        result.save(path)
    metrics = result.metrics
    return Cold(
        num_steps,
        metrics.l2.values,
        metrics.gain.values,
        np.nan_to_num(metrics.train_loss.values, nan=np.inf),  # a lane that diverged holds nothing
        metrics.history_train_loss.transpose("l2", "gain", "seed", ...).values,
        result.groups[0].params,
    )


class Warm(NamedTuple):
    """One path a seed: trained at the smallest λ, carried up through the λ, and down again.

    Attributes:
      num_steps: T.
      lams: `[λ]`, ascending.
      loss: `[2, λ, seed]` data loss on the way up and on the way down, both in the order of `lams`.
      objective: `[2, λ, seed]` data loss + λ R.
      params: stacked, leading axes way, λ, seed.
    """

    num_steps: int
    lams: np.ndarray
    loss: np.ndarray
    objective: np.ndarray
    params: dict[str, Any]

    @property
    def alive(self) -> np.ndarray:
        """Where a memory is used, `[2, λ, seed]`."""
        return self.loss < ALIVE


def cost_of(warm: Any) -> np.ndarray:
    """‖W_hh‖² / ρ² on the way up, `[λ, seed]`: 1 for one real eigenvalue, 2 for a pair."""
    spectrum = rr.diagnostics.spectra(warm.params)["layer_0/W_hh"]
    return (spectrum.frobenius[0, ..., 0] / np.maximum(spectrum.rho[0, ..., 0], 1e-30)) ** 2


def warm_paths(
    folder: Path,
    variant: Variant,
    num_steps: int,
    *,
    gain: float,
    lams: np.ndarray,
    seeds: int,
    updates: int,
) -> Warm:
    """λ carried up and down by `updates` at each value, from a net trained at the smallest λ."""
    train = make_train(variant._replace(num_updates=updates, num_records=1))
    lams = np.asarray(lams, dtype=np.float64)
    asked = {
        "variant": variant._asdict(),
        "T": num_steps,
        "gain": gain,
        "lams": lams.tolist(),
        "seeds": seeds,
        "updates": updates,
    }
    path = _place(folder, "warm", asked)
    starts = -(-variant.num_updates // updates)  # calls of `updates` at the smallest λ first
    ladder = np.concatenate([np.full(starts, lams[0]), lams, lams[::-1]])

    def follow(lane, shared):
        batch, ladder = shared
        batch = rr.Batch(*batch)
        key = jax.random.fold_in(jax.random.key(0), lane["seed"])
        state = train.init({"l2": 0.0, "gain": gain}, batch, key=key)

        def stay(state, lam):
            state, history = train.advance(state, {"l2": lam, "gain": gain}, batch, updates)
            loss = history["train_loss"][-1]
            total = loss + lam * history["penalty_l2"][-1]
            return state, (loss, total, state.params)

        outputs = jax.lax.scan(stay, state, ladder)[1]
        return jax.tree.map(lambda leaf: leaf[starts:], outputs)

    if path.exists():
        loss, total, params = _load(path)
    else:
        shared = (
            tuple(recall_batch(num_steps, num_bits=variant.num_bits)[:2]),
            jnp.asarray(ladder, jnp.float32),
        )
        lanes = {"seed": np.arange(seeds, dtype=np.uint32)}
        loss, total, params = over_lanes(follow, lanes, shared, seconds=10.0)
        _save(path, loss, total, params)

    def both_ways(leaf):
        leaf = np.moveaxis(np.asarray(leaf), 0, 1)  # [ladder, seed, …]
        return np.stack([leaf[: len(lams)], leaf[len(lams) :][::-1]])

    return Warm(num_steps, lams, both_ways(loss), both_ways(total), jax.tree.map(both_ways, params))


def _place(folder: Path, kind: str, asked: dict[str, Any]) -> Path:
    """A file name that holds all that was asked for: another λ or seed is another file."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    return folder / "sweeps" / f"{kind}_T{asked['T']}_{digest}.nc"


def _save(path: Path, loss: np.ndarray, total: np.ndarray, params: dict[str, Any]) -> None:
    import xarray as xr
    from flax.traverse_util import flatten_dict

    arrays = {"loss": loss, "total": total, **flatten_dict(params, sep=".")}
    variables = {
        name: ([f"{name}.{axis}" for axis in range(leaf.ndim)], leaf)
        for name, leaf in arrays.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    xr.Dataset(variables).to_netcdf(partial, engine="h5netcdf")
    partial.replace(path)


def _load(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    import xarray as xr
    from flax.traverse_util import unflatten_dict

    stored = xr.load_dataset(path, engine="h5netcdf")
    leaves = {name: stored[name].values for name in stored if name not in ("loss", "total")}
    return stored["loss"].values, stored["total"].values, unflatten_dict(leaves, sep=".")
