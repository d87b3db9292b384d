"""A result in a few lines: what is in it, what was chosen, what diverged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnreg._checks import printable

if TYPE_CHECKING:
    from rnnreg.sweeps._result import SweepResult

_MOST = 6


def lines(result: SweepResult) -> str:
    """The result in words, in ASCII; what is not there is left out, since a repr must not raise."""
    metrics, config = result.metrics, result.config
    dims = list(metrics["finished"].dims) if "finished" in metrics else []
    shape = " x ".join(f"{dim} ({metrics.sizes[dim]})" for dim in dims) or "no axes"
    rows = [(str(dim), _few([_label(v) for v in metrics[dim].values])) for dim in dims]
    rows.append(("network", _few([_network(each) for each in config.get("network", [])], most=3)))
    rows += [
        ("data", f"{data['train_rows']} rows, sha256 {data['sha256'][:12]}")
        for data in config.get("data", [])[:1]
    ]
    for name in _scores(metrics, dims):
        values = metrics[name].values
        if np.isfinite(values).any():
            rows.append((name, f"{np.nanmin(values):.4g} to {np.nanmax(values):.4g}"))
    rows += [(name, _pairs(config.get(name, {}))) for name in ("selected", "chosen")]
    if dims:
        rows.append(("diverged", _lanes(metrics, dims, metrics["diverged_at"].values >= 0)))
        rows.append(("not finished", _lanes(metrics, dims, metrics["finished"].values == 0)))
    if "environment" in config:
        own = config["environment"]
        rows.append(("made with", f"rnnreg {own['rnnreg']}, jax {own['jax']} on {own['backend']}"))
        seconds = config["seconds_compile"], config["seconds_compute"]
        rows.append(("took", "{:.1f} s of compiling, {:.1f} s of computing".format(*seconds)))
    count = metrics["finished"].size if dims else 1
    finished = int(metrics["finished"].sum()) if "finished" in metrics else count
    part = f", {finished} finished" if finished < count else ""
    text = [f"SweepResult: {count} lane{'s' * (count != 1)}{part}, {shape}"]
    text += [f"  {name:<12}  {words}" for name, words in rows if words]
    return printable("\n".join(text))


def _scores(metrics: Any, dims: list[Any]) -> list[str]:
    """The loss and every score that is one number for each lane, on training and validation rows."""
    return [
        str(name)
        for name, values in metrics.data_vars.items()
        if str(name).startswith(("train_", "val_"))
        and set(values.dims) <= set(dims)
        and values.dtype.kind in "iuf"
    ]


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
    """How many lanes, and the labels of some; "" for none."""
    places = np.argwhere(found)
    if not len(places):
        return ""
    named = [
        " ".join(f"{dim}={_label(metrics[dim].values[n])}" for dim, n in zip(dims, at, strict=True))
        for at in places[:4]
    ]
    return "; ".join([f"{len(places)} of {found.size}: {named[0]}", *named[1:]]) + (
        "; ..." if len(places) > 4 else ""
    )


def _few(labels: list[str], most: int = _MOST) -> str:
    labels = list(dict.fromkeys(labels))
    if len(labels) <= most:
        return ", ".join(labels)
    return ", ".join([*labels[: most - 1], "...", labels[-1]])


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_label(value)}" for name, value in values.items())


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
