"""A result in a few lines: what is in it, what was chosen, what diverged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import printable

if TYPE_CHECKING:
    from rnnreg.sweeps._result import SweepResult

_MOST = 6


def lines(result: SweepResult) -> str:
    """The result in words, in ASCII."""
    metrics, config = result.metrics, result.config
    dims = list(metrics["finished"].dims)
    finished, diverged = metrics["finished"].values.astype(bool), metrics["diverged_at"].values >= 0
    shape = " x ".join(f"{dim} ({metrics.sizes[dim]})" for dim in dims) or "one lane"
    rows: list[tuple[str, str]] = [
        (str(dim), _few([_label(v) for v in metrics[dim].values])) for dim in dims
    ]
    rows.append(("network", _few(list(dict.fromkeys(map(_network, config["network"]))), most=3)))
    data = config["data"][0]
    rows.append(("data", f"{data['train_rows']} rows, sha256 {data['sha256'][:12]}"))
    for name in ("train_loss", "val_loss"):
        values = metrics[name].values if name in metrics else np.full(1, np.nan)
        if np.isfinite(values).any():
            rows.append((name, f"{np.nanmin(values):.4g} to {np.nanmax(values):.4g}"))
    if "selected" in config:
        rows.append(("selected", _pairs(config["selected"])))
    if "chosen" in config:
        rows.append(("chosen", _pairs(config["chosen"])))
    for name, found in (("diverged", diverged), ("not finished", ~finished)):
        if found.any():
            rows.append(
                (name, f"{int(found.sum())} of {found.size}: {_lanes(metrics, dims, found)}")
            )
    own = config["environment"]
    rows.append(
        (
            "made with",
            f"rnnreg {own['rnnreg']}, jax {own['jax']} on {own['backend']}; {config['seconds_compile']:.1f} s of "
            f"compiling, {config['seconds_compute']:.1f} s of computing",
        )
    )
    text = [f"SweepResult: {finished.size} lanes, {shape}"]
    return printable("\n".join([*text, *(f"  {name:<12}  {words}" for name, words in rows)]))


def _network(described: dict[str, Any]) -> str:
    """Such as "gru(16), gru(16) -> 1, readout last"."""
    cells = [
        f"{each['cell']['name']}({each['cell']['hidden_size']})" for each in described["layers"]
    ]
    made = (described["made"] or {}).get("factory", "a function")
    return (
        f"{', '.join(cells) or made} -> {described['output_size']}, readout {described['readout']}"
    )


def _lanes(metrics: Any, dims: list[Any], found: np.ndarray) -> str:
    """The labels of some lanes."""
    places = np.argwhere(found)
    named = [
        " ".join(f"{dim}={_label(metrics[dim].values[n])}" for dim, n in zip(dims, at, strict=True))
        for at in places[:4]
    ]
    return "; ".join(named) + ("; ..." if len(places) > 4 else "")


def _few(labels: list[str], most: int = _MOST) -> str:
    if len(labels) <= most:
        return ", ".join(labels)
    return ", ".join([*labels[: most - 1], "...", labels[-1]])


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_label(value)}" for name, value in values.items())


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
