"""Tables of text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns under a header.

    >>> print(text_table(("lam", "mean"), [("0.001", "0.2"), ("0.1", "0.33")]))
    lam    mean
    -----  ----
    0.001  0.2
    0.1    0.33
    """
    rows = list(rows)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def format_table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The same from records: each column is the format that makes its text from a record.

    >>> print(format_table({"T": "{steps}", "ms": "{seconds:.1f}"}, [{"steps": 9, "seconds": 0.25}]))
    T  ms
    -  ---
    9  0.2
    """
    return text_table(list(columns), [[f.format(**row) for f in columns.values()] for row in rows])


def plus_minus(value: float, error: float) -> str:
    """A value and its standard error, four decimals each.

    >>> plus_minus(0.5, 0.01)
    '0.5000 ± 0.0100'
    """
    return f"{value:.4f} ± {error:.4f}"
