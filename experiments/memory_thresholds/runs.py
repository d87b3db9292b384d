"""Cold starts over gain × λ × seed, and warm paths up and down in λ, each at one T.

Each sweep is kept as a netCDF file as soon as it is done, and read back when the same one is asked for again, so an
interruption loses at most the one under way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import rnnreg as rr
from experiments._harness import finished
from experiments.memory_thresholds.measures import memory
from experiments.memory_thresholds.task import Variant, make_train, network_of, recall_batch

if TYPE_CHECKING:
    import xarray as xr

CHUNK = 8  # lanes together on a core: with two rows of 16 units a step is overhead, and a chunk shares it


def cold_starts(
    folder: Path, variant: Variant, num_steps: int, *, gains: Iterable[float], lams: Iterable[float], seeds: int
) -> rr.SweepResult:
    """Networks trained from their start at each λ; the dimensions are `l2`, `gain` and `seed`."""
    lams, gains = list(map(float, lams)), list(map(float, gains))
    asked = {"lams": lams, "gains": gains, "seeds": seeds}
    path = _place(folder, "cold", variant, num_steps, asked)
    if path.exists():
        return finished(rr.load_result(path))
    batch = recall_batch(num_steps, num_bits=variant.num_bits)
    options: Any = {"plan": "chunks", "chunk": CHUNK, "progress": False, "key": jax.random.key(0)}
    result = finished(rr.sweep(make_train(variant), {"l2": lams, "gain": gains}, batch, seeds=seeds, **options))
    result.save(path)
    return result


def warm_paths(
    folder: Path, variant: Variant, num_steps: int, *, gain: float, lams: Iterable[float], seeds: int, updates: int
) -> xr.Dataset:
    """λ carried up and down by `updates` at each value, from a net trained at the smallest λ.

    Returns:
      Data loss, objective (data loss + λ R) and `Memory` over way ("up", "down"), `l2` (ascending) and `seed`.
    """
    import xarray as xr

    lams = np.asarray(lams, dtype=np.float64)
    asked = {"gain": gain, "l2": lams.tolist(), "seeds": seeds, "updates": updates}
    path = _place(folder, "warm", variant, num_steps, asked)
    if path.exists():
        return xr.load_dataset(path, engine="h5netcdf")
    net = network_of(variant)
    train = make_train(variant._replace(num_updates=updates, num_records=1))
    starts = -(-variant.num_updates // updates)  # calls of `updates` at the smallest λ first
    ladder = np.concatenate([np.full(starts, lams[0]), lams, lams[::-1]])

    def follow(lane, shared):
        batch, ladder = shared
        key = jax.random.fold_in(jax.random.key(0), lane["seed"])
        state = train.init({"l2": 0.0, "gain": gain}, batch, key=key)

        def stay(state, lam):
            state, history = train.advance(state, {"l2": lam, "gain": gain}, batch, updates)
            loss = history["train_loss"][-1]
            total = loss + lam * history["penalty_l2"][-1]
            return state, (loss, total, state.params)

        _, (loss, total, params) = jax.lax.scan(stay, state, ladder)
        held = jax.lax.map(lambda params: memory(net, params, batch), params)
        return {"train_loss": loss, "objective": total, **held._asdict()}

    def both_ways(leaf):  # [seed, ladder]
        up, down = leaf[:, starts : -len(lams)], leaf[:, -len(lams) :]
        return ("way", "seed", "l2"), np.stack([up, down[:, ::-1]])

    shared = (recall_batch(num_steps, num_bits=variant.num_bits), jnp.asarray(ladder, jnp.float32))
    lanes = {"seed": np.arange(seeds, dtype=np.uint32)}
    found = rr.lanes.map_lanes(follow, lanes, shared=shared, plan="one_by_one", lane_seconds=10.0)
    dataset = xr.Dataset(
        {name: both_ways(leaf) for name, leaf in found.items()},
        {"way": ["up", "down"], "l2": lams, "seed": lanes["seed"]},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    dataset.to_netcdf(partial, engine="h5netcdf")
    partial.replace(path)
    return dataset


def _place(folder: Path, kind: str, variant: Variant, num_steps: int, asked: dict) -> Path:
    """A file name that holds all that was asked for: another λ or seed is another file."""
    everything = {"variant": variant._asdict(), "T": num_steps, **asked}
    digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:12]
    return folder / "sweeps" / f"{kind}_T{num_steps}_{digest}.nc"
