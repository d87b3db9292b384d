"""How fast lanes run on a device, alone and together: shipped figures, and those that were stored for it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rnnreg._checks import check_count, warn_caller
from rnnreg._signatures import typed
from rnnreg.runtime import available_cores, cache_folder, checked_devices, cpu_model

# 1e9 operations a second of one core by hidden size and by lanes together: value and gradient of the fused Elman
# network, B = 32, T = 100, D = 2, two x86-64 cores with AVX2, jax 0.10.2.
_SHIPPED: dict[int, dict[int, float]] = {
    8: {1: 5.4, 2: 4.6, 4: 6.1, 8: 5.6},
    16: {1: 11.1, 2: 10.1, 4: 12.1, 8: 10.5},
    32: {1: 32.4, 2: 28.4, 4: 26.8, 8: 23.7},
    64: {1: 49.2, 2: 47.8, 4: 36.6, 8: 25.3},
    128: {1: 64.9, 2: 57.5, 4: 53.5, 8: 41.4},
}
# Operations of one step's recurrent product, for each core, from which two cores were faster than one: Elman and GRU
# H = 64 and LSTM H = 32 at B = 32 (1.05, 1.5 and 1.03 times; 1.6 at H = 128); Elman H = 32 was slower, .85 times.
_SPLIT_ROWS_FROM = 1e5
# A lane alone equals its run bit for bit; lanes together, up to rounding. So they have to be worth it.
_WORTH = 1.15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Measured rates of a device.

    Attributes:
      rates: by hidden size, by lanes together, 1e9 operations a second of one device (a multiplication and an
        addition are two).
      source: where they come from, in words.
      split_rows_from: multiplications and additions of one step's recurrent product, for each device, from which
        the rows of a lone lane are split over the devices.
    """

    rates: dict[int, dict[int, float]]
    source: str
    split_rows_from: float = _SPLIT_ROWS_FROM

    def __post_init__(self) -> None:
        if not self.rates or not all(self.rates.values()):
            raise ValueError(
                "rates must hold measured rates, {hidden size: {lanes: rate}}; it is empty."
            )

    @typed
    def best_chunk(self, hidden_size: int, *, least: int = 1) -> int:
        """The number of lanes together that ran fastest at the nearest hidden size (on a log axis).

        More than one only if that is clearly faster than a lane alone.

        Args:
          hidden_size: H.
          least: the least number to choose from.

        Returns:
          The number of lanes.
        """
        check_count(hidden_size, "hidden_size")
        check_count(least, "least")
        nearest = min(self.rates, key=lambda size: abs(np.log(size / hidden_size)))
        rates = self.rates[nearest]
        able = {chunk: rate for chunk, rate in rates.items() if chunk >= least}
        best = max(able, key=lambda chunk: able[chunk]) if able else least
        return 1 if 1 in able and able[best] < _WORTH * able[1] else best

    @typed
    def rate(self, hidden_size: int) -> float:
        """The rate at a hidden size, with the best number of lanes together.

        Args:
          hidden_size: H.

        Returns:
          1e9 operations a second.
        """
        check_count(hidden_size, "hidden_size")
        sizes = sorted(self.rates)
        best = [max(self.rates[size].values()) for size in sizes]
        low = min(1.0, hidden_size / sizes[0])  # smaller steps are bound by overhead
        return low * float(np.interp(hidden_size, sizes, best))


@typed
def load_calibration(device: Any = None) -> Calibration:
    """The rates that were stored for a device by `calibrate`, else those that ship.

    Args:
      device: defaults to JAX's first.

    Returns:
      The rates.

    Warns:
      RuntimeWarning: the stored rates cannot be read; said once.

    >>> load_calibration().rate(32) > 0
    True
    """
    shipped = Calibration(_SHIPPED, "shipped figures; rr.lanes.calibrate() measures this device")
    path = calibration_path(checked_devices(None if device is None else [device])[0])
    if path is None:
        return shipped
    try:
        return Calibration(_read_rates(path), "measured on this device")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _warn_of_file(path, " ".join(str(error).split()))
    return shipped


def store_rates(path: Path, rates: dict[int, dict[int, float]]) -> None:
    """Writes rates with their check sum: the whole file takes its place at once, also next to another writer.

    Raises:
      OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        content = {"rates": rates, "sha256": _check_sum(rates)}
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read_rates(path: Path) -> dict[int, dict[int, float]]:
    """The rates in a file; what is raised says what is wrong with it."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    rates = {int(h): {int(c): float(r) for c, r in by.items()} for h, by in stored["rates"].items()}
    if stored["sha256"] != _check_sum(rates):
        raise ValueError("its check sum is another one")
    return rates


def _check_sum(rates: dict[int, dict[int, float]]) -> str:
    return hashlib.sha256(json.dumps(rates).encode()).hexdigest()


@functools.cache
def _warn_of_file(path: Path, why: str) -> None:
    """Once in a process, however many plans are made."""
    warn_caller(
        f"the calibration {path} cannot be read ({why}); the shipped one is used. rr.lanes.calibrate() writes it anew."
    )


def calibration_path(device: Any) -> Path | None:
    """Where the rates of a device are stored; None if there is no cache folder."""
    model = cpu_model() if device.platform == "cpu" else device.device_kind
    kind = "-".join("".join(c if c.isalnum() else " " for c in model.lower()).split())
    devices = f"{available_cores()}-cores-{jax.local_device_count()}-devices"
    folder = cache_folder()
    return folder and folder / "calibration" / f"{device.platform}-{kind}-{devices}.json"
