"""The scaling benchmark's rows as tables and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments._harness import format_table
from experiments.benchmarks._cost import spread
from rnnreg.plotting import COLORS, log_y, style

Rows = Sequence[Mapping[str, Any]]


def grouped(rows: Rows, *names: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Rows by the values of some entries, in the order of the rows.

    >>> grouped([{"a": 1, "b": 2}, {"a": 1, "b": 3}], "a")
    {(1,): [{'a': 1, 'b': 2}, {'a': 1, 'b': 3}]}
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


# ---- tables ---------------------------------------------------------------------------------------

_SIZE = {"cell": "{cell}", "H": "{hidden}"}
_RATIO = spread("ratio", "ratio", ".3f")

# By part: a heading, and the columns, each as it is made from a row.
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "sweep": (
        "peak memory of a sweep",
        {
            "lanes": "{lanes}",
            "finished": "{finished}",
            "s": "{seconds:.1f}",
            "s compiling": "{seconds_compile:.1f}",
            "MiB before": "{peak_before_mib:.0f}",
            "MiB after": "{peak_after_mib:.0f}",
        },
    ),
    "compile": (
        "tracing, lowering and compiling",
        {
            **_SIZE,
            "against": "{axis}",
            "size": "{size}",
            "s": "{seconds:.2f}",
            "over first": "{over_first:.2f}",
            "equations": "{equations}",
        },
    ),
    "time": (
        "a step of time in training",
        {
            **_SIZE,
            "T": "{time}",
            "memory": "{memory}",
            "ms": "{milliseconds:.5f}",
            "temporary bytes": "{temporary_bytes:,}",
        },
    ),
    "lanes": (
        "an update of one lane among many",
        {**_SIZE, "lanes": "{lanes}", "plan": "{plan}", "ms": "{milliseconds:.4f}"},
    ),
    "cores": (
        "throughput of all cores over one",
        {**_SIZE, "lanes a core": "{lanes_a_core}", "cores": "{cores}", **_RATIO, "a process a core": "{ceiling:.3f}"},
    ),
    "rows": (
        "one network alone: how much faster with its rows on all cores",
        {
            **_SIZE,
            "operations a step": "{step_operations:.2g}",
            "ms": "{milliseconds:.3f}",
            "ms on one": "{milliseconds_one:.3f}",
            **_RATIO,
        },
    ),
    "inputs": (
        "the input product inside the loop over before it",
        {
            **_SIZE,
            "D": "{inputs}",
            "ms inside": "{milliseconds:.3f}",
            "ms before": "{milliseconds_before:.3f}",
            **_RATIO,
            "chosen inside": "{chosen_inside}",
        },
    ),
}


def table(part: str, rows: Rows) -> str:
    """The rows of a part under its heading."""
    heading, columns = TABLES[part]
    return f"{heading}\n\n{format_table(columns, rows)}"


# ---- the figure -----------------------------------------------------------------------------------

_LOOKS = {
    "elman": ("Elman", COLORS.blue, "o"),
    "gru": ("GRU", COLORS.vermillion, "s"),
    "lstm": ("LSTM", COLORS.green, "^"),
}


def plot(result: Mapping[str, Rows]) -> Any:
    """Time and memory of a training step against T (full and sqrt memory), and a lane's update against lanes."""
    import matplotlib.pyplot as plt

    by_time = [
        {**row, "update": row["time"] * row["milliseconds"], "mib": row["temporary_bytes"] / 2**20}
        for row in result.get("time", ())
    ]
    by_lanes = [{**row, "memory": "full"} for row in result.get("lanes", ())]
    panels = [
        (by_time, "time", "update", "steps $T$", "ms a training step"),
        (by_time, "time", "mib", "steps $T$", "temporary MiB"),
        (by_lanes, "lanes", "milliseconds", "lanes", "ms an update of a lane"),
    ]
    panels = [panel for panel in panels if panel[0]]
    with style():
        size = (max(4.8, 2.7 * len(panels)), 2.9)
        figure, axes = plt.subplots(1, max(1, len(panels)), figsize=size, squeeze=False)
        for ax, (rows, x, y, x_label, y_label) in zip(axes[0], panels, strict=False):
            for (cell, memory), group in grouped(rows, "cell", "memory").items():
                _line(ax, [row[x] for row in group], [row[y] for row in group], cell, memory)
            ax.set_xscale("log")
            sizes = sorted({row[x] for row in rows})
            ax.set_xticks(sizes, labels=[str(size) for size in sizes])
            ax.minorticks_off()
            ax.set(xlabel=x_label, ylabel=y_label)
            log_y(ax)
            ax.grid(axis="y", color="0.9", linewidth=0.6)
            ax.set_axisbelow(True)
        handles, labels = axes[0][0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _line(ax: Any, xs: Sequence[float], ys: Sequence[float], cell: str, memory: str) -> None:
    name, colour, marker = _LOOKS[cell]
    full = memory == "full"
    ax.plot(
        xs,
        ys,
        color=colour,
        marker=marker,
        linestyle="-" if full else "--",
        markerfacecolor=colour if full else "white",
        label=name if full else f"{name}, {memory} memory",
    )
