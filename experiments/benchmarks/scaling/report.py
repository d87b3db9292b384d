"""The scaling benchmark's rows as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments._harness import format_table
from experiments.benchmarks._cost import spread

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
